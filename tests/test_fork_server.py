"""Sessions whose processes are forked: whoever dies, the others go on or end as they should."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from messages import ComponentCrashed, ComponentRestarted, Log, Turn
from messages.transport import forking
from messages.transport.spawning import is_stopped
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.messages.transport.test_forking import start_server
from tests.proc import children, command, descriptors, parent, state
from tests.rig import TIMEOUT_S, until
from tests.test_endurance import COMPONENTS, long, memory_mib, works

pytestmark = pytest.mark.skipif(not forking.available(), reason="nothing is forked here")


def supervisor_of(talk: Conversation) -> int:
    assert talk.session.started is not None
    return talk.session.started.pids["supervisor"]


def test_supervisor_and_components_are_forked_from_one_process(server: FakeServer) -> None:
    start_server()
    with Conversation(server, Log, log_level="DEBUG") as talk:
        pids = talk.pids()

        assert {parent(pid) for pid in pids.values()} == {forking.server_pid()}
        assert parent(supervisor_of(talk)) == forking.server_pid()
        assert {command(pid)[-1] for pid in pids.values()} == {*COMPONENTS}
        for name, pid in pids.items():
            talk.expect(Log, lambda log, t=f"{name} is process {pid}, forked": log.text == t)


def test_without_fork_each_process_is_that_of_whoever_has_started_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTVOICE_FORK", "0")
    with Conversation(server, Log, log_level="DEBUG") as talk:
        pids = talk.pids()

        assert {parent(pid) for pid in pids.values()} == {supervisor_of(talk)}
        assert parent(supervisor_of(talk)) == os.getpid()
        for name, pid in pids.items():
            talk.expect(Log, lambda log, t=f"{name} is process {pid}, not forked": log.text == t)


def test_a_killed_fork_server_costs_no_component_and_is_replaced(server: FakeServer) -> None:
    killed = start_server()
    with Conversation(server) as talk:
        works(talk, 0)
        supervisor, pids = supervisor_of(talk), talk.pids()

        os.kill(killed, signal.SIGKILL)
        works(talk, 1)
        assert talk.pids() == pids
        assert not talk.of(ComponentCrashed)

        talk.break_it("history", "SIGKILL")
        assert parent(talk.pids()["history"]) == supervisor
        works(talk, 2)
        number = 3
        while (other := parent(talk.pids()["history"])) == supervisor:
            talk.break_it("history", "SIGKILL")
            works(talk, number)
            number += 1
        assert command(other)[-2:] == ["messages.transport.forkserver", f"of {supervisor}"]
        causes = {crash.cause for crash in talk.of(ComponentCrashed)}
        assert causes == {
            "killed by SIGKILL",
            "ended; how is unknown, since the fork server has ended before it",
        }


PROGRAM = """
import json, sys
from messages.transport import forking
from supervisor import Session
with Session(server=sys.argv[1], input="silence", output="null", hang_s=600.0) as session:
    print(json.dumps({**session.started.pids, "fork server": forking.server_pid()}), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "victims",
    [
        ["supervisor"],
        ["fork server", "supervisor"],
        ["supervisor", "fork server"],
        ["program"],
        ["fork server", "program"],
        ["program", "supervisor", "fork server"],
    ],
    ids=" and ".join,
)
def test_whoever_is_killed_no_component_is_left_behind(
    server: FakeServer, victims: list[str]
) -> None:
    stopped = COMPONENTS[len(victims)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout is not None
        pids = {**json.loads(program.stdout.readline()), "program": program.pid}
        expected = {*COMPONENTS, "supervisor"}
        if "program" in victims or "fork server" in victims:
            expected.add("fork server")
        ends = {name: os.pidfd_open(pids[name]) for name in expected}
        assert {parent(pids[name]) for name in COMPONENTS} == {pids["fork server"]}
        os.kill(pids[stopped], signal.SIGSTOP)
        until(lambda: is_stopped(pids[stopped]), "it is not stopped")

        for name in victims:
            os.kill(pids[name], signal.SIGKILL)

        deadline = time.monotonic() + 1.0 + TIMEOUT_S / 10
        for name, end in ends.items():
            left_s = max(0.0, deadline - time.monotonic())
            assert select.select([end], [], [], left_s)[0], f"{name} lives on"
            os.close(end)
        program.kill()


def test_a_supervisor_that_was_stopped_ends_with_its_program(server: FakeServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        pids = json.loads(program.stdout.readline())
        ends = [os.pidfd_open(pid) for pid in pids.values()]
        # Its end would continue a supervisor that is stopped before (POSIX, _exit(2): SIGHUP).
        os.kill(pids["fork server"], signal.SIGKILL)
        until(lambda: parent(pids["supervisor"]) != pids["fork server"], "it lives on")
        os.kill(pids["supervisor"], signal.SIGSTOP)
        until(lambda: is_stopped(pids["supervisor"]), "it is not stopped")

        program.kill()

        for end in ends:
            assert select.select([end], [], [], TIMEOUT_S)[0]
            os.close(end)


@pytest.mark.parametrize("restarts", [10, long(1000)])
def test_nothing_grows_with_restarts_by_fork(server: FakeServer, restarts: int) -> None:
    fork_server = start_server()
    with Conversation(server) as talk:
        both = (supervisor_of(talk), fork_server)

        def use() -> list[object]:
            until(lambda: {state(pid) for pid in both} == {"S"}, "they do something")
            zombies = [pid for one in both for pid in children(one) if state(pid) == "Z"]
            return [*map(descriptors, both), zombies, len(children(fork_server))]

        for number in range(restarts + 10):
            if number == 10:
                before, memory = use(), [memory_mib(pid) for pid in both]
            back = len(talk.of(ComponentRestarted))
            os.kill(talk.pids()["history"], signal.SIGKILL)
            talk.wait_for(lambda back=back: len(talk.of(ComponentRestarted)) > back)
            talk.connection.hear(f"heard_{number}", "Hello")
            talk.expect(Turn, lambda turn, n=number: turn.item_id == f"heard_{n}")

        assert parent(talk.pids()["history"]) == fork_server
        until(lambda: use() == before, f"it was {before}, it is {use()}")
        grown = [memory_mib(pid) - was for pid, was in zip(both, memory, strict=True)]
        assert max(grown) < 2.0
