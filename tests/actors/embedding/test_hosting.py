"""Tools that a program hands over as objects: they run there, with one output per call."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from actors.embedding.hosting import Hosting
from actors.tools.registry import ToolContext, Tools
from messages import (
    Message,
    ProgramToolAnswer,
    ProgramToolCall,
    ProgramToolCancel,
    Say,
    tool_answer,
)
from tests.rig import TIMEOUT_S

M = TypeVar("M", bound=Message)


class Program:
    """A program with tools, and the test in the place of the session."""

    def __init__(self) -> None:
        self.tools = Tools()
        self.sent: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.commands = 0
        self.hosting = Hosting(
            self.sent.put,
            tools=self.tools,
            commands=lambda: self.commands,
            send_past=self.send_past,
        )
        self.told: list[Message] | None = None
        """What the program has sent straight; None: it cannot send anything straight."""

    def send_past(self, message: Message) -> bool:
        if self.told is not None:
            self.told.append(message)
        return self.told is not None

    def call(self, name: str, call_id: str = "call_1", **arguments: object) -> None:
        self.hosting.receive(ProgramToolCall(call_id, name, json.dumps(arguments)))

    def expect(self, kind: type[M]) -> M:
        message = self.sent.get(timeout=TIMEOUT_S)
        assert isinstance(message, kind), message
        return message

    def answer(self, name: str, **arguments: object) -> ProgramToolAnswer:
        """Return the answer to a call, and check that it is the only one."""
        self.call(name, **arguments)
        answer = self.expect(ProgramToolAnswer)
        self.call("marker", "call_2")
        assert self.expect(ProgramToolAnswer).call_id == "call_2"
        return answer


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    program.tools.action("marks", name="marker")(lambda: "here")
    program.hosting.prepare(None)
    yield program
    program.hosting.stop(TIMEOUT_S)


def test_a_plain_function_has_a_thread_of_its_own_and_a_coroutine_the_loop(
    program: Program,
) -> None:
    @program.tools.action("plain")
    def plain() -> str:
        return threading.current_thread().name

    @program.tools.action("async")
    async def later() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().is_running()

    assert program.answer("plain").output == "tool plain"
    program.call("later", "call_3")
    assert program.expect(ProgramToolAnswer).output == "true"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("divide", {"a": 1}, "divide failed: division by zero"),
        ("divide", {"a": "x"}, "a: expected int, got str. It takes a (integer)"),
        ("divide", {}, "missing required field a"),
        ("nobody", {}, "the program has no tool named nobody"),
        ("leave", {}, "leave failed: 3"),
        ("leave_later", {}, "leave_later failed: 3"),
        ("interrupt", {}, "interrupt failed: KeyboardInterrupt"),
        ("cancel", {}, "cancel failed: CancelledError"),
        ("odd", {}, "its result, of type object, cannot be written as JSON"),
    ],
)
def test_whatever_a_tool_does_there_is_one_answer(
    program: Program, name: str, arguments: dict[str, Any], words: str
) -> None:
    tools = program.tools

    @tools.action("raises")
    def divide(a: int) -> float:
        return a / 0

    @tools.action("exits")
    def leave() -> None:
        sys.exit(3)

    @tools.action("exits, async")
    async def leave_later() -> None:
        sys.exit(3)

    @tools.action("Ctrl-C")
    async def interrupt() -> None:
        raise KeyboardInterrupt

    @tools.action("cancels itself")
    async def cancel() -> None:
        raise asyncio.CancelledError

    @tools.action("returns what is no JSON")
    def odd() -> object:
        return object()

    answer = program.answer(name, **arguments)

    assert (answer.call_id, answer.failed) == ("call_1", True)
    assert words in answer.output


def test_a_traceback_is_logged_without_what_the_exception_says(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    @program.tools.action("raises")
    def look_up(city: str) -> str:
        return {}[city]  # type: ignore[no-any-return]

    with caplog.at_level(logging.DEBUG, "rtvoice"):
        answer = program.answer("look_up", city="a secret place")

    assert "a secret place" in answer.output
    assert "KeyError" in caplog.text
    assert "a secret place" not in caplog.text


def test_a_call_that_comes_twice_runs_once_and_is_answered_again(program: Program) -> None:
    runs: list[int] = []
    gate = threading.Event()

    @program.tools.action("counts")
    def count() -> int:
        gate.wait(TIMEOUT_S)
        runs.append(1)
        return len(runs)

    program.call("count")
    program.call("count")
    gate.set()
    first = program.expect(ProgramToolAnswer)
    program.call("count")

    assert program.expect(ProgramToolAnswer) == first
    assert runs == [1]


def test_a_call_that_is_cancelled_stops_and_says_nothing(program: Program) -> None:
    begun, stopped = threading.Event(), queue.SimpleQueue[str]()

    @program.tools.action("async")
    async def later() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.put("later")

    @program.tools.action("plain")
    def plain(context: ToolContext) -> str:
        begun.set()
        assert context.wait_cancelled(TIMEOUT_S)
        stopped.put("plain")
        return "too late"

    for name in ("later", "plain"):
        begun.clear()
        program.call(name, f"call_{name}")
        assert begun.wait(TIMEOUT_S)
        program.hosting.receive(ProgramToolCancel(f"call_{name}"))
        assert stopped.get(timeout=TIMEOUT_S) == name
    program.call("marker", "call_3")

    assert program.expect(ProgramToolAnswer).call_id == "call_3"


def test_a_tool_speaks_while_it_works(program: Program) -> None:
    @program.tools.action("speaks")
    def look(context: ToolContext) -> str:
        context.say(f"{context.tool} {context.call_id}")
        return "found"

    program.call("look")

    assert program.expect(Say) == Say("look call_1")
    assert program.expect(ProgramToolAnswer).output == "found"


def add_changing_tool(program: Program) -> None:
    """Add a tool that sends commands."""

    @program.tools.action("changes the agent")
    def change(times: int) -> str:
        program.commands += times
        return "changed"


def test_an_answer_must_not_overtake_what_the_program_has_sent_since_the_call(
    program: Program,
) -> None:
    add_changing_tool(program)
    program.commands = 7
    assert not program.answer("change", times=0).in_order
    program.call("change", "call_3", times=1)
    assert program.expect(ProgramToolAnswer).in_order


def test_an_answer_goes_straight_to_who_waits_for_it_and_through_the_supervisor(
    program: Program,
) -> None:
    add_changing_tool(program)
    program.told = []
    program.call("change", "call_3", times=0)
    assert program.expect(ProgramToolAnswer) == ProgramToolAnswer(
        "call_3", "changed", in_order=True
    )
    program.call("change", "call_4", times=1)  # its answer must not overtake what it has sent
    assert program.expect(ProgramToolAnswer).in_order
    program.call("change", "call_3", times=0)  # it comes again
    assert program.expect(ProgramToolAnswer).call_id == "call_3"

    assert program.told == [tool_answer("call_3", "change", "changed", failed=False)]


def test_other_tools_take_the_place_of_the_first(program: Program) -> None:
    others = Tools()
    others.action("other", name="other")(lambda: "other")

    program.hosting.set_tools(others)

    program.call("other")
    assert program.expect(ProgramToolAnswer).output == "other"


def test_coroutines_run_on_the_programs_loop_and_end_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> tuple[bool, ProgramToolAnswer]:
        program = Program()
        loops: list[asyncio.AbstractEventLoop] = []

        @program.tools.action("async")
        async def later() -> None:
            loops.append(asyncio.get_running_loop())

        program.hosting.prepare(asyncio.get_running_loop())
        program.call("later")
        answer = await asyncio.to_thread(program.expect, ProgramToolAnswer)
        await asyncio.to_thread(program.hosting.stop, TIMEOUT_S)
        return loops == [asyncio.get_running_loop()], answer

    with caplog.at_level(logging.INFO, "rtvoice"):
        same, answer = asyncio.run(main())

    assert same
    assert answer.output == "done"
    assert "run in the program: tool later" in caplog.text


def test_a_loop_that_is_closed_is_answered_for() -> None:
    program = Program()

    @program.tools.action("async")
    async def later() -> None: ...

    loop = asyncio.new_event_loop()
    program.hosting.prepare(loop)
    loop.close()
    program.call("later")

    assert "event loop of the program is closed" in program.expect(ProgramToolAnswer).output
