"""Ids of calls that a server repeats or leaves empty: each call runs and gets its output."""

from __future__ import annotations

import pytest

from messages import ConversationItem, ToolAnswer, ToolCall, output_item_id
from tests.actors.realtime.core.bench import Bench


def _call_again(bench: Bench, call_id: str, number: int) -> ToolCall:
    """The server has a call written under an id, and the tools answer it."""
    bench.clear()
    bench.begin(f"r{number}", f"a{number}").call(call_id, f"r{number}", f"item_{number}")
    bench.done(f"r{number}")
    call = bench.one(ToolCall)
    bench.tell(ToolAnswer(call.call_id, call.name, str(number)))
    return call


@pytest.mark.parametrize("call_id", ["call_0", ""])
def test_a_call_with_a_taken_id_runs_and_is_answered_under_the_servers_id(
    call_id: str,
) -> None:
    bench = Bench().live()

    known_as = []
    for number in range(3):
        known_as.append(_call_again(bench, call_id, number).call_id)
        (output,) = bench.items()
        assert (output["call_id"], output["output"]) == (call_id, str(number))
        assert output["id"] == output_item_id(known_as[-1])
        assert bench.events("response.create")

    assert len(set(known_as)) == 3
    assert all(known_as)


def test_the_same_item_twice_is_one_call() -> None:
    bench = Bench().live().begin().call("call_0").call("call_0").done()

    assert bench.one(ToolCall).call_id == "call_0"


@pytest.mark.parametrize("how", ["connection", "process"])
def test_an_id_that_a_session_before_has_used_is_not_used_again(how: str) -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    first = _call_again(bench, "call_0", 1)
    bench.history = [
        ConversationItem("item_1", "function_call", call_id="call_0", name="clock"),
        ConversationItem("o1", "function_call_output", call_id="call_0", output="1"),
    ]

    if how == "connection":
        bench.lose()
    else:
        bench = bench.restarted()
    bench.clear_but_requests()
    bench.configured()
    bench.done("r9")
    second = _call_again(bench, "call_0", 2)

    assert first.call_id == "call_0" != second.call_id
    assert bench.items()[0]["call_id"] == "call_0"


def test_a_process_without_history_does_not_repeat_a_call_id() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    first = _call_again(bench, "call_0", 1)

    bench = bench.restarted()
    bench.connect().wait(2.1)
    bench.server("session.updated", session={})
    second = _call_again(bench, "call_0", 2)

    assert first.call_id != second.call_id


def test_an_open_call_is_replayed_under_our_id() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    _call_again(bench, "call_0", 1)
    bench.clear()
    bench.begin("r2", "a2").call("call_0", "r2", "item_2").done("r2")
    second = bench.one(ToolCall)

    bench.lose().clear_but_requests()
    bench.configured()
    bench.tell(ToolAnswer(second.call_id, "clock", "2"))

    told = [item["call_id"] for item in bench.items() if "call_id" in item]
    assert told[-2:] == [second.call_id, second.call_id]


def test_an_interrupted_call_with_an_id_of_before_is_answered_as_not_run() -> None:
    bench = Bench().live()
    _call_again(bench, "call_0", 1)
    bench.clear()

    bench.begin("r2", "a2").call("call_0", "r2", "item_2", status="incomplete").done("r2")

    (output,) = bench.items()
    assert output["call_id"] == "call_0"
    assert "did not run" in output["output"]
    bench.none(ToolCall)
