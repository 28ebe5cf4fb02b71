"""Log records of a service: a line of JSON each, with the id of its conversation."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rtvoice import Agent, PlaybackEnded, Tools, Turn
from rtvoice.service import CallInfo, Service
from rtvoice.service.logs import JsonFormatter, TextFormatter, of_session
from rtvoice.testing import SandboxServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S

own = logging.getLogger("shop")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON."""
    found = io.StringIO()
    handler = logging.StreamHandler(found)
    handler.setFormatter(JsonFormatter())
    root, rtvoice = logging.getLogger(), logging.getLogger("rtvoice")
    before = root.level, rtvoice.level
    root.addHandler(handler)
    root.setLevel("INFO")
    rtvoice.setLevel("INFO")
    yield found
    root.removeHandler(handler)
    root.setLevel(before[0])
    rtvoice.setLevel(before[1])


def record(text: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.WARNING, "", 0, text, (), None)
    vars(made).update(extra)
    return made


# -- one record --------------------------------------------------------------------------------


def test_a_record_is_one_line_with_its_session_and_its_values() -> None:
    with of_session("7c"):
        line = JsonFormatter().format(record("two\nlines", fields={"code": "x", "at": {1}}))
    found = json.loads(line)

    assert "\n" not in line
    assert (found["text"], found["session"], found["level"]) == ("two\nlines", "7c", "WARNING")
    assert found["fields"] == {"code": "x", "at": "{1}"}


def test_a_record_of_no_conversation_has_no_session() -> None:
    assert "session" not in json.loads(JsonFormatter().format(record("hello")))


def test_a_traceback_is_in_the_line_of_its_record() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = JsonFormatter().format(record("hello", exc_info=sys.exc_info()))

    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_text_names_the_session_too() -> None:
    with of_session("7c"):
        assert "shop [7c]: hello" in TextFormatter().format(record("hello"))


# -- a service ---------------------------------------------------------------------------------


@in_a_loop
async def test_each_record_of_a_conversation_has_its_session_and_no_other(
    lines: io.StringIO,
) -> None:
    tools = Tools()

    @tools.action("Look it up.")
    def look(what: str) -> str:
        own.info("a plain tool")
        return "found"

    @tools.action("Look it up slowly.")
    async def look_slowly(what: str) -> str:
        own.info("a coroutine tool")
        return "found"

    def make_agent(call: CallInfo) -> Agent:
        own.info("make_agent")
        agent = Agent(
            server=sandbox.url,
            tools=tools,
            audio_input="silence",
            audio_output="null",
            inactivity_timeout_s=None,
        )
        agent.event_bus.subscribe(Turn, lambda _: own.info("a handler"))
        return agent

    async def talk(info: CallInfo) -> None:
        async with service.session(info) as agent:
            own.info("the body")
            for _ in range(3):  # two calls, and what is said of them
                heard = agent.events(PlaybackEnded)
                agent.send_text("look")
                await anext(aiter(heard))
            await agent.stop()

    calls = [CallInfo(), CallInfo()]
    with SandboxServer(pace=0, timeout_s=2 * TIMEOUT_S) as sandbox:
        for _ in calls:
            sandbox.call("look", what="x")
            sandbox.call("look_slowly", what="x")
        service = Service(make_agent, cpu_limit=None, lag_limit_ms=None)
        async with asyncio.timeout(6 * TIMEOUT_S):
            await asyncio.gather(*(talk(call) for call in calls))
            await service.drain()

    records = [json.loads(line) for line in lines.getvalue().splitlines()]
    found = [each for each in records if each["logger"] != "asyncio"]  # of the sandbox, beside it
    loggers = {(each["logger"], each["text"]) for each in found}
    assert {("shop", "a plain tool"), ("shop", "a coroutine tool")} <= loggers
    assert {each["session"] for each in found} == {call.id for call in calls}
    for call in calls:
        mine = {each["text"] for each in found if each["session"] == call.id}
        components = {each["logger"] for each in found if each["session"] == call.id}
        assert {"make_agent", "the body", "a handler"} <= mine
        assert {"rtvoice.agent", "rtvoice.realtime"} <= components
