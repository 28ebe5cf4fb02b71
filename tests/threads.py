"""A session on threads of the test: the supervisor and each component, without their processes.

Channels, mailboxes, hosts, actors and the order of opening and closing are those of any session.
There are no processes: nothing can be killed, nobody has an environment of its own. Seven
interpreters take half a second of CPU to start, these threads 15 ms. They are for tests of what a
program sees of its session; what has to do with processes is tested with processes.

Run as a program, it runs another one, and takes the names of components that have processes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import IO, Any, ClassVar
from unittest import mock

import actors.embedding.supervisor_process as embedding
import actors.host as hosting
import actors.supervision.process as supervision
from actors.supervision.child import Child
from messages import StartSession, Subscribe, decode
from messages.transport.channel import Channel
from messages.transport.lifeline import Lifeline
from messages.transport.spawning import spawn
from supervisor import Supervisor
from tests.rig import TIMEOUT_S

__all__ = ["sessions_on_threads"]

_FIRST = 2**30
_NUMBERS = itertools.count(_FIRST)
"""Process ids that Linux gives to nobody."""


class _Thread:
    """What a `subprocess.Popen` is to whoever has started it."""

    def __init__(self, run: Callable[[Channel], int], channel: Channel, name: str) -> None:
        self.pid = next(_NUMBERS)
        self.returncode: int | None = None
        self._channel = channel
        self.name = name
        self._thread = threading.Thread(target=self._run, args=(run,), name=name, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.name, timeout or 0)
        return code

    def kill(self) -> None:
        """End its channel, as the death of whoever it talks with does."""
        with contextlib.suppress(OSError):
            self._channel.connection.shutdown(socket.SHUT_RDWR)

    def send_signal(self, number: int) -> None:
        raise AssertionError(f"a thread cannot be sent signal {number}")

    def _run(self, run: Callable[[Channel], int]) -> None:
        self.returncode = 1
        try:
            self.returncode = run(self._channel)
        finally:
            self._channel.close()


_check = Child.check


def _check_processes(child: Child, now: float, hang_s: float) -> None:
    """Take no thread for hung: on a busy machine it waits for all others of its process."""
    _check(child, now, hang_s if child.pid < _FIRST else math.inf)


def _keep_alive(_: float, *, exit: bool, file: IO[str]) -> None:  # noqa: A002 - as faulthandler's
    """Do not end this process when a hub is gone and an actor does not close."""
    file.close()


def _supervise(channel: Channel) -> int:
    try:
        first = decode(channel.read())
    except EOFError:  # it was killed at once
        return 0
    assert isinstance(first, StartSession), first
    hub = Supervisor(first.settings)
    hub.attach(channel.connection)
    hub.send(Subscribe(first.subscribe))
    return hub.run()


def _be_component(channel: Channel) -> int:
    host = hosting.Host(channel)
    try:
        return host.run()
    finally:
        host.close()


class _Threads:
    """Starts threads in place of processes, and knows all of them."""

    RUN: ClassVar = {"rtvoice.peer": _supervise, "actors": _be_component}

    def __init__(self, processes: Collection[str]) -> None:
        self._processes = processes
        self._started: list[_Thread] = []
        self._ending = False

    def spawn(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: socket.socket | None = None,
        lifeline: Lifeline | None = None,
        **options: Any,
    ) -> tuple[Any, socket.socket]:
        """Do what `spawning.spawn` does."""
        if self._ending:
            raise OSError("the test is over")  # or a session would replace its supervisor
        run = self.RUN.get(arguments[0])
        if run is None or arguments[-1] in self._processes:  # None: the sandbox
            return spawn(arguments, environment, output, lifeline, **options)
        ours, theirs = socket.socketpair()
        thread = _Thread(run, Channel(theirs), " ".join(arguments))
        self._started.append(thread)
        return thread, ours

    def end(self) -> None:
        """End the sessions that the test has left, and wait for the end of all."""
        self._ending = True
        for thread in self._started:  # a supervisor ends its components, which come after it
            thread.kill()
            thread.wait(TIMEOUT_S)
        for reader in threading.enumerate():
            if reader.name == "rtvoice-read":
                with contextlib.suppress(RuntimeError):  # it has not begun yet
                    reader.join(TIMEOUT_S)


@contextlib.contextmanager
def sessions_on_threads(*processes: str) -> Iterator[None]:
    """Start sessions on threads; at the end, end those that are left.

    Args:
        processes: names of components that have a process all the same.
    """
    threads = _Threads(processes)
    # What a host does to its whole process: limit its memory, end it, take all its log records.
    watchdog = SimpleNamespace(dump_traceback_later=_keep_alive)
    with (
        mock.patch.object(Child, "check", _check_processes),
        mock.patch.object(embedding, "spawn", threads.spawn),
        mock.patch.object(supervision, "spawn", threads.spawn),
        mock.patch.object(hosting, "faulthandler", watchdog),
        mock.patch.object(hosting, "limit_memory"),
        mock.patch.object(hosting, "pass_on_library_logs"),
        mock.patch.object(sys, "path", [*sys.path]),
    ):
        yield
        threads.end()


if __name__ == "__main__":
    with sessions_on_threads(*sys.argv[2:]):
        runpy.run_path(sys.argv[1], run_name="__main__")
