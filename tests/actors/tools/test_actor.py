"""The tools actor on its host: each call gets one output, whatever happens."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest import mock

import msgspec
import pytest

from actors.tools.actor import ToolExecutor
from actors.tools.loading import load_agent
from messages import (
    AskToRun,
    Crashed,
    EndConversation,
    Inject,
    MayRun,
    Message,
    ProgramToolAnswer,
    ProgramToolCall,
    ProgramToolCancel,
    Ready,
    Say,
    SetSpeed,
    SetTools,
    SetVolume,
    SpeedChanged,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    ToolSpan,
    ToolSpanRequest,
    ToolSpec,
    decode,
    encode,
)
from messages.transport.direct import DirectInbox, DirectSender
from messages.transport.saved import read_state
from tests.rig import Rig, until

AGENT = """
import asyncio, os, threading, sys
from actors.tools.registry import ToolContext, Tools

tools = Tools()
gates = {name: threading.Event() for name in "abc"}
runs = []

class Agent:
    def describe(self):
        return {"instructions": "be kind", "voice": "cedar"}

agent = Agent()
agent.tools = tools

@tools.action("adds")
def add(a: int, b: int = 1) -> int:
    return a + b

@tools.action("waits for the gate")
def wait(gate: str) -> str:
    runs.append(gate)
    gates[gate].wait(10)
    return f"waited for {gate}"

@tools.action("waits for the gate, may be run twice", idempotent=True)
def look(gate: str) -> str:
    runs.append(gate)
    gates[gate].wait(10)
    return f"looked at {gate}"

@tools.action("async")
async def double(x: int) -> dict:
    await asyncio.sleep(0)
    return {"double": 2 * x, "thread": threading.current_thread().name}

@tools.action("never")
async def forever() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        gates["c"].set()

@tools.action("raises")
def divide(a: int) -> float:
    return a / 0

@tools.action("raises, quoting")
def look_up(city: str) -> str:
    return {}[city]

@tools.action("raises, async")
async def refuse() -> None:
    raise SystemExit("not today")

@tools.action("returns a coroutine")
def delegate():
    return double(21)

@tools.action("speaks")
def announce(gate: str, context: ToolContext) -> str:
    context.say("before")
    gates[gate].wait(10)
    context.say("after")
    return "announced"

@tools.action("returns half a surrogate pair")
def broken_text() -> str:
    return "a\\ud800b"

@tools.action("returns nothing that can be told")
def odd():
    return object()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    load_agent.cache_clear()
    name = f"agent_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(AGENT)
    path = list(sys.path)
    yield f"{tmp_path / name}.py:agent"
    for gate in sys.modules[name].gates.values() if name in sys.modules else ():
        gate.set()
    sys.path[:] = path
    sys.modules.pop(name, None)


def module_of(agent: str):
    return sys.modules[Path(agent.rpartition(":")[0]).stem]


def call(name: str, call_id: str = "call_1", **arguments: object) -> ToolCall:
    return ToolCall(call_id, name, json.dumps(arguments))


def died(rig: Rig, resumed: Literal["", "supervisor", "journal"] = "") -> Rig:
    """Return a rig for a new process of the same session: only what was saved is known."""
    again = Rig(rig.kind, Path(rig.session.directory))
    again.session = msgspec.structs.replace(again.session, resumed=resumed)
    again.settings, again.state = rig.settings, rig.state
    return again


def wait_saved(rig: Rig, calls: list[str]) -> None:
    """Wait until these calls are what was saved last."""
    rig.wait_state(lambda state: list(msgspec.msgpack.decode(state)["calls"]) == calls)


def traces(rig: Rig) -> list[str]:
    fields = [log.fields for log in rig.logs]
    return [msgspec.msgpack.decode(each["traceback"]) for each in fields if "traceback" in each]


# -- what there is ----------------------------------------------------------------------------


def test_built_in_tools_are_announced(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        names = [tool.name for tool in rig.expect(ToolsAvailable).tools]

    assert names == [
        "get_current_time",
        "adjust_volume",
        "change_assistant_response_speed",
        "stop_assistant_run",
    ]


def test_the_agents_and_the_programs_tools_join_them(tmp_path: Path, agent: str) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    settings = {"builtin_tools": ("adjust_volume",), "program_tools": (spec,), "agent": agent}
    with Rig(ToolExecutor, tmp_path, **settings) as rig:
        names = [tool.name for tool in rig.expect(ToolsAvailable).tools]

    assert names[:3] == ["adjust_volume", "add", "wait"]
    assert names[-1] == "ask"


def test_a_built_in_tool_that_is_none_is_refused(tmp_path: Path) -> None:
    rig = Rig(ToolExecutor, tmp_path, builtin_tools=("get_weather",))
    rig.open = lambda: Rig.open(rig, wait=False)
    with rig:
        crash = rig.expect(Crashed)

    assert "'get_weather': is not built in; there are get_current_time" in crash.error


def test_other_tools_are_offered_and_that_survives_a_death(tmp_path: Path) -> None:
    old, new = (ToolSpec(name, "asks", {"type": "object"}) for name in ("old", "new"))
    with Rig(ToolExecutor, tmp_path, builtin_tools=(), program_tools=(old,)) as rig:
        rig.expect(ToolsAvailable)
        rig.tell(SetTools((new,), ("adjust_volume",)))
        offered = rig.expect(ToolsAvailable).tools
        rig.tell(call("new"))
        called = rig.expect(ProgramToolCall)
        rig.tell(ProgramToolAnswer(called.call_id, "done"))
        answer = rig.expect(ToolAnswer)
    with died(rig) as again:
        offered_again = again.expect(ToolsAvailable).tools

    assert [tool.name for tool in offered] == ["adjust_volume", "new"]
    assert offered_again == offered
    assert answer.output == "done"


def test_tools_that_are_not_mentioned_stay(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.expect(ToolsAvailable)
        rig.tell(SetTools(builtin_tools=()))
        offered = rig.expect(ToolsAvailable).tools

    assert offered == (spec,)


def test_the_agent_describes_its_settings(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        described = msgspec.msgpack.decode(rig.hello.described)

    assert described == {"instructions": "be kind", "voice": "cedar"}


# -- built-in tools ---------------------------------------------------------------------------


def test_the_time_is_answered(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(call("get_current_time"))

        answer = rig.expect(ToolAnswer)

    assert re.fullmatch(r"\d\d:\d\d:\d\d", answer.output)
    assert (answer.call_id, answer.failed, answer.respond) == ("call_1", False, True)


def test_the_volume_is_set(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(call("adjust_volume", level=0.3))

        assert rig.expect(SetVolume).volume == 0.3
        assert "0.3" in rig.expect(ToolAnswer).output


@pytest.mark.parametrize(
    ("at", "way", "new"),
    [(1.0, "louder", 1.0), (1.0, "quieter", 0.8), (0.5, "louder", 0.7), (0.1, "quieter", 0.0)],
)
def test_the_volume_changes_by_a_step(tmp_path: Path, at: float, way: str, new: float) -> None:
    with Rig(ToolExecutor, tmp_path, volume=at) as rig:
        rig.tell(call("adjust_volume", level=way))

        assert rig.expect(SetVolume).volume == new
        assert f"{new:g}" in rig.expect(ToolAnswer).output


def test_the_volume_goes_on_from_what_was_set_also_after_a_death(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(SetVolume(0.7))  # by the program
        rig.tell(call("adjust_volume", level="quieter"))
        assert rig.expect(SetVolume).volume == 0.5
        rig.expect(ToolAnswer)
        rig.wait_handled(mail=2)

        with died(rig) as again:
            again.tell(call("adjust_volume", "call_2", level="quieter"))

            assert again.expect(SetVolume).volume == 0.3


def test_a_volume_out_of_range_is_refused(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(call("adjust_volume", level=30))

        assert rig.expect(ToolAnswer).failed
        assert not rig.take(SetVolume)


@pytest.mark.parametrize(
    ("at", "way", "new"),
    [(1.0, "faster", 1.2), (1.0, "slower", 0.8), (1.4, "faster", 1.5), (0.4, "slower", 0.25)],
)
def test_the_speed_changes_by_a_step(tmp_path: Path, at: float, way: str, new: float) -> None:
    with Rig(ToolExecutor, tmp_path, speed=at) as rig:
        rig.tell(call("change_assistant_response_speed", instructions=way))

        assert rig.expect(SetSpeed).speed == new
        assert f"{new:g}" in rig.expect(ToolAnswer).output


def test_the_speed_is_remembered_over_a_death(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(SpeedChanged(0.7))
        rig.wait_handled(mail=1)

        with died(rig) as again:
            again.tell(call("change_assistant_response_speed", instructions="faster"))

            assert again.expect(SetSpeed).speed == 0.9


def test_stopping_ends_the_conversation(tmp_path: Path) -> None:
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.tell(call("stop_assistant_run"))

        assert rig.expect(EndConversation).reason == "stop tool"
        assert rig.expect(ToolAnswer).respond


# -- the user's tools -------------------------------------------------------------------------


def test_a_call_is_answered_with_the_result(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("add", a=2, b=3))

        answer = rig.expect(ToolAnswer)

    assert (answer.output, answer.failed) == ("5", False)
    assert len(answer.item_id) <= 32


def test_async_tools_share_a_loop_on_a_thread_of_its_own(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("double", "a", x=1))
        rig.tell(call("double", "b", x=2))
        rig.tell(call("delegate", "c"))

        outputs = [json.loads(rig.expect(ToolAnswer).output) for _ in range(3)]

    assert sorted(output["double"] for output in outputs) == [2, 4, 42]
    assert {output["thread"] for output in outputs} == {"async tools"}


def test_a_slow_tool_keeps_nobody_waiting(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", "slow", gate="a"))
        rig.tell(call("add", "quick", a=1))

        assert rig.expect(ToolAnswer).call_id == "quick"
        module_of(agent).gates["a"].set()
        assert rig.expect(ToolAnswer).call_id == "slow"


@pytest.mark.parametrize(
    ("tool_call", "words"),
    [
        (ToolCall("c", "nobody", "{}"), "no tool is named nobody; there are: get_current_time"),
        (ToolCall("c", "add", '{"a": 1'), "arguments are not JSON"),
        (call("add", "c", a="x"), "a: expected int"),
        (call("divide", "c", a=1), "divide failed: division by zero"),
        (call("refuse", "c"), "refuse failed: not today"),
        (call("odd", "c"), "odd failed: its result, of type object"),
    ],
)
def test_each_failure_is_answered_once(
    tmp_path: Path, agent: str, tool_call: ToolCall, words: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(tool_call)

        answer = rig.expect(ToolAnswer)

        assert answer.failed
        assert words in answer.output
        assert "Traceback" not in answer.output
        assert rig.take(ToolAnswer) == []


def test_a_traceback_goes_to_the_log(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("divide", a=1))
        rig.expect(ToolAnswer)

        logged = traces(rig)

    assert "return a / 0" in logged[0]
    assert logged[0].endswith("ZeroDivisionError")


def test_the_text_of_a_tools_exception_is_sent_to_the_model_and_not_logged(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("look_up", city="a secret place"))
        answer = rig.expect(ToolAnswer)

        logged = traces(rig)

    assert "a secret place" in answer.output
    assert "KeyError" in logged[0]
    assert "a secret place" not in logged[0]


def test_a_tool_that_takes_too_long_is_answered_for(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent, tool_timeout_s=0.1) as rig:
        rig.tell(call("wait", "sync", gate="a"))
        rig.tell(call("forever", "async"))

        answers = [rig.expect(ToolAnswer) for _ in range(2)]
        module_of(agent).gates["a"].set()
        assert module_of(agent).gates["c"].wait(5), "an async tool is cancelled"
        rig.tell(call("add", "next", a=1))

        assert rig.expect(ToolAnswer).call_id == "next"
        assert rig.take(ToolAnswer) == []

    assert sorted(answer.output for answer in answers) == [
        "forever failed: it did not finish within 0.1 s",
        "wait failed: it did not finish within 0.1 s",
    ]


def test_a_call_that_comes_twice_is_run_once(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=2)
        module_of(agent).gates["a"].set()
        rig.expect(ToolAnswer)
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=3)

        assert rig.take(ToolAnswer) == []
        assert module_of(agent).runs == ["a"]


def test_a_call_that_comes_again_straight_is_answered_through_the_supervisor(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=1)
        sender = DirectSender(rig.page_path)
        again = msgspec.structs.replace(call("wait", gate="a"), previous_item_id="moved")
        assert sender.send(encode(again))
        sender.close()
        rig.tell(again)
        rig.wait_handled(mail=2)
        module_of(agent).gates["a"].set()

        assert rig.expect(ToolAnswer).call_id == "call_1"


@pytest.mark.parametrize("dies", ["before the call", "just before it is saved"])
def test_a_call_that_cannot_be_saved_does_not_run_since_the_next_process_runs_it(
    tmp_path: Path, agent: str, dies: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        save = rig.host.save
        rig.host.orphaned = dies == "before the call"  # its last messages are still handled

        def save_too_late(state: bytes, epoch: int, *, recorded: bool = True) -> None:
            rig.host.orphaned = True  # the host's other thread notices it
            save(state, epoch, recorded=recorded)

        with mock.patch.object(rig.host, "save", save_too_late):
            rig.tell(call("wait", gate="a"))
            rig.wait_handled(mail=1)

        assert not read_state(tmp_path, "toolexecutor")
        rig.host.orphaned = False
        rig.tell(call("wait", call_id="c2", gate="b"))
        until(lambda: "b" in module_of(agent).runs, "it does not run")
        assert module_of(agent).runs == ["b"]
        module_of(agent).gates["b"].set()


@pytest.mark.parametrize("resumed", ["", "supervisor"])
def test_an_answer_that_may_be_lost_with_the_supervisor_is_given_again(
    tmp_path: Path, agent: str, resumed: Literal["", "supervisor"]
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("divide", a=1))
        answer = rig.expect(ToolAnswer)
        rig.wait_state(lambda state: msgspec.msgpack.decode(state)["answered"] == ["call_1"])

        with died(rig, resumed) as again:
            if resumed:
                assert again.expect(ToolAnswer) == answer
            again.tell(call("divide", a=1))
            if resumed:
                assert again.expect(ToolAnswer) == answer
            again.wait_handled(mail=1)

            assert again.take(ToolAnswer) == []


@pytest.mark.parametrize("resumed", ["", "supervisor", "journal"])
def test_an_answer_that_only_realtime_has_is_given_by_the_next_process(
    tmp_path: Path, agent: str, resumed: Literal["", "supervisor", "journal"]
) -> None:
    """The call came straight, and not through the supervisor yet, which stands still."""
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        realtime = DirectInbox(rig.page_path, [ToolAnswer.tag()])
        sender = DirectSender(rig.page_path)
        assert sender.send(encode(call("divide", a=1)))
        assert realtime.has_news(5)
        frame = realtime.take()
        assert frame is not None
        rig.wait_state(
            lambda state: msgspec.msgpack.decode(state)["calls"]["call_1"]["answer"] is not None
        )
        assert rig.take(ToolAnswer) == []
        sender.close()
        realtime.close()

        with died(rig, resumed) as again:
            assert again.expect(ToolAnswer) == decode(frame)


def test_an_output_that_is_not_kept_any_more_is_answered_as_unknown(
    tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they are too long, the newest outputs are kept."""
    monkeypatch.setattr("actors.tools.actor._OUTPUT_CHARS", 10)
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        for number in range(4):
            rig.tell(call("divide", f"c{number}", a=1))
            rig.expect(ToolAnswer)
        rig.wait_state(lambda state: len(msgspec.msgpack.decode(state)["answered"]) == 4)

        with died(rig, "supervisor") as again:
            kept = [again.expect(ToolAnswer).call_id for _ in range(3)]
            again.tell(call("divide", "c0", a=1))

            assert kept == ["c1", "c2", "c3"]
            assert again.expect(ToolAnswer).output.startswith("outcome unknown")


def test_all_outputs_are_given_again_of_as_many_calls_as_may_run_at_once(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        answers = []
        for number in range(66):
            rig.tell(call("divide", f"c{number}", a=1))
            answers.append(rig.expect(ToolAnswer))
        rig.wait_state(lambda state: "c65" in msgspec.msgpack.decode(state)["answered"])

        with died(rig, "supervisor") as again:
            assert [again.expect(ToolAnswer) for _ in range(64)] == answers[2:]


def test_a_repeated_call_is_answered_though_tools_have_died_again_meanwhile(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("divide", a=1))
        answer = rig.expect(ToolAnswer)
        rig.wait_state(lambda state: msgspec.msgpack.decode(state)["answered"] == ["call_1"])

        with died(rig, "supervisor") as again:
            assert again.expect(ToolAnswer) == answer
            with died(again) as third:
                third.tell(call("divide", a=1))

                assert third.expect(ToolAnswer) == answer


def test_too_many_calls_at_once_are_answered(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        for number in range(65):
            rig.tell(call("ask", str(number)))

        answer = rig.expect(ToolAnswer)

    assert (answer.call_id, answer.failed) == ("64", True)
    assert "too many" in answer.output


# -- tools of the program ---------------------------------------------------------------------


def test_a_tool_of_the_program_runs_there(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.tell(call("ask", what="time"))

        asked = rig.expect(ProgramToolCall)
        rig.tell(ProgramToolAnswer(asked.call_id, "noon"))
        rig.tell(ProgramToolAnswer(asked.call_id, "twice"))

        assert json.loads(asked.arguments) == {"what": "time"}
        assert rig.expect(ToolAnswer).output == "noon"
        rig.wait_handled(mail=3)
        assert rig.take(ToolAnswer) == []


def test_a_program_that_does_not_answer_is_answered_for(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,), tool_timeout_s=0.1) as rig:
        rig.tell(call("ask"))

        assert "did not finish" in rig.expect(ToolAnswer).output


def test_the_program_may_answer_a_new_process(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.tell(call("ask"))
        rig.expect(ProgramToolCall)

        with died(rig) as again:
            again.tell(ProgramToolAnswer("call_1", "late"))

            assert again.expect(ToolAnswer).output == "late"


def test_a_new_process_asks_the_program_again_for_what_may_be_lost(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.tell(call("ask", what="time"))
        first = rig.expect(ProgramToolCall)

        with died(rig) as again:
            assert again.expect(ProgramToolCall) == first


# -- crashes ----------------------------------------------------------------------------------


def test_a_call_is_saved_before_it_begins(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))

        wait_saved(rig, ["call_1"])
        assert rig.take(ToolAnswer) == []
        module_of(agent).gates["a"].set()
        rig.expect(ToolAnswer)
        wait_saved(rig, [])


def test_calls_go_on_over_a_raise(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", "before", gate="a"))
        rig.tell(call("wait", "while down", gate="b"))
        rig.wait_handled(mail=2)
        rig.tell(Inject("tools", "raise"))
        rig.expect(Crashed)
        module_of(agent).gates["b"].set()

        rig.open()
        assert rig.expect(ToolAnswer).output == "waited for b"
        module_of(agent).gates["a"].set()

        assert rig.expect(ToolAnswer).output == "waited for a"
        assert sorted(module_of(agent).runs) == ["a", "b"]


def test_a_tools_thread_gives_realtime_the_answer_straight_and_it_comes_again(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        realtime = DirectInbox(rig.page_path, [ToolAnswer.tag()])
        rig.tell(call("add", a=1))

        answer = rig.expect(ToolAnswer)
        first = realtime.take()

        assert first is not None
        assert decode(first) == answer
        assert realtime.take() is None, "it goes straight once"
        realtime.close()


@pytest.mark.parametrize(
    ("name", "arguments", "sends"),
    [
        ("announce", {"gate": "a"}, Say),
        ("change_assistant_response_speed", {"instructions": "faster"}, SetSpeed),
    ],
)
def test_the_answer_of_a_tool_that_has_sent_messages_does_not_overtake_them(
    tmp_path: Path, agent: str, name: str, arguments: dict[str, str], sends: type[Message]
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        module_of(agent).gates["a"].set()
        realtime = DirectInbox(rig.page_path, [ToolAnswer.tag()])
        rig.tell(call(name, **arguments))

        rig.expect(ToolAnswer)

        assert realtime.take() is None
        assert rig.received.index(sends) < rig.received.index(ToolAnswer)
        realtime.close()


def test_an_answer_that_was_given_straight_before_the_process_died_is_unknown_to_the_next(
    tmp_path: Path, agent: str
) -> None:
    """Realtime keeps to the first, and says so: see the tests of its core."""
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        realtime = DirectInbox(rig.page_path, [ToolAnswer.tag()])
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=1)

        with died(rig) as again:
            module_of(agent).gates["a"].set()
            given: list[Message] = []
            until(lambda: _taken(realtime, given), "the thread has told nobody")

            assert again.expect(ToolAnswer).output == "outcome unknown: the tool was interrupted"
            given += [decode(frame) for frame in iter(realtime.take, None) if frame is not None]
            assert [it.output for it in given if isinstance(it, ToolAnswer)] == ["waited for a"], (
                "the other one comes through the supervisor, to history too"
            )
        realtime.close()


def _taken(realtime: DirectInbox, given: list[Message]) -> bool:
    given += [decode(frame) for frame in iter(realtime.take, None) if frame is not None]
    return any(isinstance(it, ToolAnswer) and "waited" in it.output for it in given)


def test_a_call_in_a_process_that_died_is_answered_as_unknown(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=1)

        with died(rig) as again:
            answer = again.expect(ToolAnswer)
            again.tell(call("wait", gate="a"))
            again.wait_handled(mail=1)

            assert (answer.call_id, answer.failed) == ("call_1", True)
            assert answer.output == "outcome unknown: the tool was interrupted"
            assert module_of(agent).runs == ["a"]


def test_of_calls_of_another_day_the_outcome_is_unknown(tmp_path: Path, agent: str) -> None:
    ask = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, agent=agent, program_tools=(ask,)) as rig:
        rig.tell(call("look", "call_1", gate="a"))
        rig.tell(call("ask", "call_2"))
        rig.wait_handled(mail=2)

        with died(rig, "journal") as again:
            answers = [again.expect(ToolAnswer) for _ in range(2)]
            assert {answer.output for answer in answers} == {
                "outcome unknown: the tool was interrupted"
            }
            assert again.take(ProgramToolCall) == []
            assert module_of(agent).runs == ["a"]


def test_an_idempotent_tool_is_run_again_and_then_no_more(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("look", gate="a"))
        rig.wait_handled(mail=1)

        with died(rig) as second:
            second.tell(SpeedChanged(1.0))
            second.wait_handled(mail=1)

            with died(second) as third:
                assert third.expect(ToolAnswer).output.startswith("outcome unknown")
                until(lambda: module_of(agent).runs == ["a", "a"], "it is not run again")

            module_of(agent).gates["a"].set()
            assert second.expect(ToolAnswer).output == "looked at a"


def test_a_new_call_is_answered_after_a_death(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))
        rig.wait_handled(mail=1)

        with died(rig) as again:
            again.expect(ToolsAvailable)
            again.tell(call("add", "new", a=1))

            answers = {again.expect(ToolAnswer).call_id for _ in range(2)}

    assert answers == {"call_1", "new"}


def test_an_agent_that_does_not_load_says_why(tmp_path: Path) -> None:
    rig = Rig(ToolExecutor, tmp_path, agent=f"{tmp_path}/nothing.py:agent")

    with pytest.raises(AssertionError):
        rig.__enter__()

    crash = rig.expect(Crashed)
    assert crash.during == "import"
    assert "there is no file" in crash.error
    assert rig.take(Ready) == []


# -- names, loading, and the program's tools at run time --------------------------------------


def refused(rig: Rig) -> str:
    """Return why an actor does not open."""
    rig.open = lambda: Rig.open(rig, wait=False)
    with rig:
        return rig.expect(Crashed).error


@pytest.mark.parametrize("name", ["get_current_time", "add"])
def test_two_tools_of_one_name_are_refused(tmp_path: Path, agent: str, name: str) -> None:
    spec = ToolSpec(name, "one", {"type": "object"})

    error = refused(Rig(ToolExecutor, tmp_path, program_tools=(spec,), agent=agent))

    assert f"tool '{name}'" in error


def test_the_name_of_a_built_in_tool_that_is_switched_off_is_free(tmp_path: Path) -> None:
    spec = ToolSpec("get_current_time", "mine", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,), builtin_tools=()) as rig:
        assert rig.expect(ToolsAvailable).tools == (spec,)


def test_tools_are_loaded_by_name(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, named_tools=agent.replace(":agent", ":tools")) as rig:
        rig.tell(call("add", a=2))

        assert rig.expect(ToolAnswer).output == "3"


def test_a_name_that_is_not_of_tools_is_refused(tmp_path: Path, agent: str) -> None:
    error = refused(Rig(ToolExecutor, tmp_path, named_tools=agent.replace(":agent", ":runs")))

    assert "runs is of type list, not an rtvoice.Tools" in error


def test_tools_of_the_program_that_are_set_later_survive_a_death(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path) as rig:
        rig.expect(ToolsAvailable)
        rig.tell(SetTools((spec,)))
        assert rig.expect(ToolsAvailable).tools[-1] == spec

        with died(rig) as again:
            assert again.expect(ToolsAvailable).tools[-1] == spec
            again.tell(call("ask"))
            assert again.expect(ProgramToolCall).name == "ask"


def test_tools_set_later_do_not_take_a_name_that_is_taken(tmp_path: Path) -> None:
    specs = tuple(ToolSpec(name, "x", {"type": "object"}) for name in ("adjust_volume", "ask"))
    with Rig(ToolExecutor, tmp_path) as rig:
        before = rig.expect(ToolsAvailable).tools
        rig.tell(SetTools(specs))

        assert rig.expect(ToolsAvailable).tools == (*before, specs[1])
        rig.tell(call("adjust_volume", level=0.3))
        assert rig.expect(SetVolume).volume == 0.3


def test_a_call_that_nobody_waits_for_is_cancelled_in_the_program(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,), tool_timeout_s=0.1) as rig:
        rig.tell(call("ask"))
        rig.expect(ToolAnswer)

        assert rig.expect(ProgramToolCancel).call_id == "call_1"


def test_where_each_tool_runs_is_logged(tmp_path: Path, agent: str) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    settings = {"builtin_tools": ("adjust_volume",), "program_tools": (spec,), "agent": agent}
    with Rig(ToolExecutor, tmp_path, **settings) as rig:
        rig.expect(ToolsAvailable)
        rig.tell(call("add", a=1))
        rig.expect(ToolAnswer)
        fields = next(log.fields for log in rig.logs if log.text == "tools available")

    told = {key: msgspec.msgpack.decode(value) for key, value in fields.items()}
    assert told["in_the_program"] == "ask"
    assert told["in_this_process"].startswith("add, wait")
    assert told["built_in"] == "adjust_volume"


def test_a_tool_speaks_while_it_works_and_after_a_raise_of_its_actor(
    tmp_path: Path, agent: str
) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("announce", gate="a"))
        assert rig.expect(Say).text == "before"
        rig.tell(Inject("tools", "raise"))
        rig.expect(Crashed)
        module_of(agent).gates["a"].set()
        rig.open()

        assert rig.expect(Say).text == "after"
        assert rig.expect(ToolAnswer).output == "announced"


def test_a_result_that_utf_8_cannot_carry_does_not_crash(tmp_path: Path, agent: str) -> None:
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("broken_text"))

        assert rig.expect(ToolAnswer).output == "a?b"


# -- spans ------------------------------------------------------------------------------------

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(kind: type[ToolExecutor], tmp_path: Path, **settings: object) -> Rig:
    """Return a rig whose program traces the conversation."""
    rig = Rig(kind, tmp_path, **settings)
    rig.wanted = (ToolSpanRequest.tag(),)
    return rig


def test_a_call_runs_in_the_span_that_the_program_names(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with traced(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.tell(call("ask"))
        request = rig.expect(ToolSpanRequest)
        before = rig.take(ProgramToolCall)
        rig.tell(ToolSpan(request.call_id, TRACEPARENT))
        rig.tell(ToolSpan(request.call_id, TRACEPARENT))  # twice

        asked = rig.expect(ProgramToolCall)
        rig.wait_handled(mail=3)

        assert before == rig.take(ProgramToolCall) == []
        assert asked.traceparent == TRACEPARENT


def test_a_call_does_not_wait_long_for_its_span(tmp_path: Path, agent: str) -> None:
    with traced(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("add", a=1))
        rig.expect(ToolSpanRequest)

        answer = rig.expect(ToolAnswer)
        rig.tell(ToolSpan("call_1", TRACEPARENT))  # too late
        rig.wait_handled(mail=2)

        assert answer.output == "2"
        assert rig.take(ToolAnswer) == []


def test_a_call_that_waited_for_its_span_is_started_after_a_death(
    tmp_path: Path, agent: str
) -> None:
    with traced(ToolExecutor, tmp_path, agent=agent) as rig:
        rig.tell(call("wait", gate="a"))
        rig.expect(ToolSpanRequest)
        wait_saved(rig, ["call_1"])
        state = rig.state
        module_of(agent).gates["a"].set()

        with died(rig) as again:
            again.state = state  # as it was before the call was started

            assert again.expect(ToolAnswer).output == "waited for a"


def test_an_answer_that_comes_before_the_span_counts(tmp_path: Path) -> None:
    spec = ToolSpec("ask", "asks", {"type": "object"})
    with traced(ToolExecutor, tmp_path, program_tools=(spec,)) as rig:
        rig.tell(call("ask"))
        rig.expect(ToolSpanRequest)
        rig.tell(ProgramToolAnswer("call_1", "of the process before"))
        rig.tell(ToolSpan("call_1", TRACEPARENT))

        assert rig.expect(ToolAnswer).output == "of the process before"
        rig.wait_handled(mail=3)
        assert rig.take(Crashed) == rig.take(ProgramToolCall) == []


def test_nobody_but_realtime_is_told_an_answer_before_its_call(tmp_path: Path, agent: str) -> None:
    """The supervisor may deliver a call that came straight later than the tool has answered."""
    with Rig(ToolExecutor, tmp_path, agent=agent) as rig:
        realtime, sender = (
            DirectInbox(rig.page_path, [ToolAnswer.tag()]),
            DirectSender(rig.page_path),
        )
        sender.send(encode(call("add", a=1)))
        until(lambda: not realtime_is_silent(realtime), "realtime is not told")
        rig.tell(SetVolume(0.5))
        rig.wait_handled(mail=1)
        assert ToolAnswer not in rig.received

        rig.tell(call("add", a=1))

        assert rig.expect(ToolAnswer).output == "2"
        assert realtime_is_silent(realtime), "it was told once"
        realtime.close()
        sender.close()


def test_a_call_that_was_answered_before_it_came_through_the_supervisor_is_not_run(
    tmp_path: Path,
) -> None:
    spec = ToolSpec("order", "orders", {"type": "object"})
    with Rig(ToolExecutor, tmp_path, program_tools=(spec,), asks_to_run=True) as rig:
        sender = DirectSender(rig.page_path)
        sender.send(encode(call("order")))
        rig.expect(AskToRun)
        rig.tell(MayRun("call_1", was_run=True))
        rig.tell(MayRun("call_1"))
        rig.tell(call("order"))

        assert "outcome unknown" in rig.expect(ToolAnswer).output
        rig.wait_handled(mail=3)
        assert rig.take(ProgramToolCall) == []
        sender.close()


def realtime_is_silent(realtime: DirectInbox) -> bool:
    return realtime.take() is None
