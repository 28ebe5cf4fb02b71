"""The fence: without a lease nothing leaves a conversation, whoever is dead or frozen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from actors.lease import Lease
from actors.tools.actor import ToolExecutor
from messages import AskToRun, MayRun, SessionFailed, ToolAnswer, ToolCall
from rtvoice import Tools
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.rig import Rig, until

HOUR_NS = 3_600_000_000_000
APPEND = "input_audio_buffer.append"


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    lease = Lease(tmp_path / "lease", create=True)
    lease.extend(time.monotonic_ns() + HOUR_NS)
    return lease


def test_when_the_lease_runs_out_nothing_is_sent_any_more(
    server: FakeServer, lease: Lease, tmp_path: Path
) -> None:
    with Conversation(server, input="silence", lease_path=str(tmp_path / "lease")) as talk:
        connection = talk.connection
        connection.expect(APPEND)

        lease.extend(time.monotonic_ns())
        sent = len(connection.of(APPEND))

        failed = talk.expect(SessionFailed)
        assert "the lease of this conversation has run out" in failed.reason
        assert len(connection.of(APPEND)) <= sent + 1  # one was on its way
        assert len(server.connections) == 1


def test_a_process_that_was_frozen_until_after_its_lease_sends_nothing(
    server: FakeServer, lease: Lease, tmp_path: Path
) -> None:
    with Conversation(
        server, input="silence", lease_path=str(tmp_path / "lease"), hang_s=30.0
    ) as talk:
        connection = talk.connection
        connection.expect(APPEND)
        pids = talk.pids().values()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        sent = len(connection.of(APPEND))
        lease.extend(time.monotonic_ns())

        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        talk.expect(SessionFailed)

        assert len(connection.of(APPEND)) <= sent + 1


def test_without_a_lease_no_connection_is_made(server: FakeServer, tmp_path: Path) -> None:
    Lease(tmp_path / "lease", create=True)

    with pytest.raises(Exception, match="the lease of this conversation has run out"):
        Conversation(server, lease_path=str(tmp_path / "lease")).__enter__()

    assert server.connections == []


def counting(runs: list[str]) -> Tools:
    """Return two tools that note that they were run."""
    tools = Tools()

    @tools.action("Order something.")
    def order(what: str) -> str:
        runs.append(what)
        return f"ordered {what}"

    return tools


def test_a_tool_is_run_once_its_call_is_recorded(server: FakeServer) -> None:
    runs: list[str] = []
    with Conversation(server, AskToRun, tools=counting(runs), asks_to_run=True) as talk:
        talk.connection.call("order", '{"what": "tea"}', call_id="c1")

        asked = talk.expect(AskToRun)
        assert (asked.call_id, asked.name, asked.arguments) == ("c1", "order", '{"what": "tea"}')
        talk.break_it("tools", "SIGKILL")  # it asks again, and has run nothing
        until(lambda: len(talk.of(AskToRun)) == 2, "it does not ask again")
        assert runs == []
        talk.session.send(MayRun("c1"))
        talk.session.send(MayRun("c1"))

        assert talk.expect(ToolAnswer).output == "ordered tea"
        assert runs == ["tea"]


def test_a_tool_that_was_begun_elsewhere_is_answered_and_not_run(server: FakeServer) -> None:
    runs: list[str] = []
    with Conversation(server, AskToRun, tools=counting(runs), asks_to_run=True) as talk:
        talk.connection.call("order", '{"what": "tea"}', call_id="c1")
        talk.expect(AskToRun)

        talk.session.send(MayRun("c1", was_run=True))
        talk.session.send(MayRun("c1"))

        answer = talk.expect(ToolAnswer)
        assert answer.failed
        assert "outcome unknown" in answer.output
        assert runs == []


def test_a_built_in_tool_is_run_without_being_recorded(server: FakeServer) -> None:
    with Conversation(server, AskToRun, asks_to_run=True) as talk:
        talk.connection.call("get_current_time", "{}", call_id="c1")

        assert not talk.expect(ToolAnswer).failed
        assert not talk.of(AskToRun)


def test_without_a_lease_no_tool_is_run(lease: Lease, tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path, lease_path=str(tmp_path / "lease")) as rig:
        rig.tell(ToolCall("c1", "get_current_time", "{}"))
        assert not rig.expect(ToolAnswer).failed

        lease.extend(0)
        rig.tell(ToolCall("c2", "get_current_time", "{}"))

        answer = rig.expect(ToolAnswer)
        assert answer.failed
        assert "was not run" in answer.output
