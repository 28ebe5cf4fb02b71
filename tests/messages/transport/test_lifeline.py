"""A lifeline ends a process group with its holder, whatever the group does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from messages.transport.lifeline import Lifeline, arm
from messages.transport.spawning import is_stopped
from tests.rig import TIMEOUT_S, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")

HOLDER = """
import os, subprocess, sys
from messages.transport.lifeline import Lifeline, arm

line = Lifeline()
command = [sys.executable, "-c", sys.argv[1]]
child = subprocess.Popen(command, process_group=0, pass_fds=[line.theirs], stdin=subprocess.DEVNULL)
arm(line.theirs, child.pid, int(sys.argv[2]))
line.pass_on()
print(child.pid, flush=True)
if "fork" in sys.argv:
    os.fork()
sys.stdin.read()
"""
SAYS_SO = """
import signal, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
print("there", flush=True)
"""
RUNS = SAYS_SO + "time.sleep(1000)"
KEEPS_THE_GIL = SAYS_SO + "import re\nre.match('(a*)*b', 'a' * 100)"
GOES_ON_ONCE_CONTINUED = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
print("here", flush=True)
signal.sigwait({signal.SIGCONT})
print("there")
"""
HAS_A_CHILD = (
    "import subprocess\nprint(subprocess.Popen(['sleep', '1000']).pid, flush=True)\n" + RUNS
)


class Holder:
    """A process that holds the line of a process which runs this code."""

    def __init__(self, code: str, *options: str, number: int = signal.SIGKILL) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, code, str(int(number)), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.child = int(self.line())
        self.ends = {self.child: os.pidfd_open(self.child)}

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self, pid: int, timeout_s: float = TIMEOUT_S) -> bool:
        return bool(select.select([self.ends[pid]], [], [], timeout_s)[0])


@contextlib.contextmanager
def holding(code: str, *options: str, number: int = signal.SIGKILL) -> Iterator[Holder]:
    holder = Holder(code, *options, number=number)
    try:
        yield holder
    finally:
        holder.kill()
        for pid, end in holder.ends.items():
            if not holder.ended(pid, 0):
                signal.pidfd_send_signal(end, signal.SIGKILL)
            os.close(end)
        holder.process.stdin.close()  # type: ignore[union-attr]
        holder.process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("code", [RUNS, KEEPS_THE_GIL], ids=["sleeps", "keeps the GIL"])
def test_a_process_ends_with_its_holder(code: str) -> None:
    with holding(code) as holder:
        assert holder.line() == "there\n"
        assert not holder.ended(holder.child, 0)

        holder.kill()

        assert holder.ended(holder.child)


def test_a_stopped_process_ends_with_its_holder() -> None:
    with holding(RUNS) as holder:
        assert holder.line() == "there\n"
        os.kill(holder.child, signal.SIGSTOP)
        until(lambda: is_stopped(holder.child), "it is not stopped")

        holder.kill()

        assert holder.ended(holder.child)


def test_a_process_that_runs_no_python_code_yet_ends_with_its_holder() -> None:
    with holding(RUNS) as holder:
        holder.kill()

        assert holder.ended(holder.child)


def test_what_a_process_has_started_ends_with_the_holder_too() -> None:
    with holding(HAS_A_CHILD) as holder:
        grandchild = int(holder.line())
        holder.ends[grandchild] = os.pidfd_open(grandchild)

        holder.kill()

        assert holder.ended(holder.child)
        assert holder.ended(grandchild)


def test_a_process_forked_from_the_holder_does_not_hold_the_line() -> None:
    with holding(RUNS, "fork") as holder:
        assert holder.line() == "there\n"

        holder.kill()  # the other one waits for the end of our standard input

        assert holder.ended(holder.child)


def test_another_signal_continues_a_stopped_process() -> None:
    with holding(GOES_ON_ONCE_CONTINUED, number=signal.SIGCONT) as holder:
        assert holder.line() == "here\n"
        os.kill(holder.child, signal.SIGSTOP)
        until(lambda: is_stopped(holder.child), "it is not stopped")

        holder.kill()

        assert holder.ended(holder.child)
        assert holder.line() == "there\n"


def test_a_line_whose_holder_has_ended_cannot_be_armed() -> None:
    line = Lifeline()
    theirs = os.dup(line.theirs)
    line.close()

    with pytest.raises(EOFError):
        arm(theirs, os.getpgrp(), signal.SIGCONT)

    os.close(theirs)


def test_closing_a_line_ends_the_group() -> None:
    line = Lifeline()
    child = subprocess.Popen(
        ["sleep", "1000"], process_group=0, pass_fds=[line.theirs], stdin=subprocess.DEVNULL
    )
    arm(line.theirs, child.pid)
    line.pass_on()

    line.close()

    assert child.wait(TIMEOUT_S) == -signal.SIGKILL
