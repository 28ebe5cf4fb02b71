"""Usage, prices and budgets of an agent, with real processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from messages.prices import day_of
from rtvoice import (
    PRICES,
    Agent,
    AgentError,
    AgentStartedEvent,
    Budget,
    BudgetUsed,
    PlaybackEnded,
    PlaybackStarted,
    Price,
    RealtimeModel,
    ResponseEnded,
    SupervisorRestarted,
    Tokens,
    UsageUpdated,
    price_of,
)
from rtvoice.testing import SandboxServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S

SILENT: dict[str, Any] = {"audio_input": "silence", "audio_output": "null"}
TODAY = dt.date(2026, 12, 1)


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=0, timeout_s=2 * TIMEOUT_S) as server:
        yield server


async def wait_for(stream: Any) -> Any:
    """Return the next event of a stream."""
    async with asyncio.timeout(3 * TIMEOUT_S):
        return await anext(aiter(stream))


# -- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(set(RealtimeModel)))
def test_each_of_our_models_has_a_price(model: str) -> None:
    assert price_of(model, TODAY)


def test_cached_tokens_have_their_own_price() -> None:
    tokens = Tokens(input_text=100, cached_text=64, input_audio=1000, output_audio=2000)

    dollars = PRICES["gpt-realtime-2.1"][0].dollars(tokens)

    assert dollars == pytest.approx((36 * 4.0 + 64 * 0.40 + 1000 * 32.0 + 2000 * 64.0) / 1e6)


def test_each_kind_of_token_has_its_price() -> None:
    price = Price(
        input_text=1e6,
        input_audio=1e7,
        input_image=1e8,
        cached_text=1e9,
        cached_audio=1e10,
        cached_image=1e11,
        output_text=1e12,
        output_audio=1e13,
    )
    tokens = Tokens(
        input_text=3,
        input_audio=5,
        input_image=7,
        cached_text=2,
        cached_audio=3,
        cached_image=1,
        output_text=8,
        output_audio=9,
    )

    assert price.dollars(tokens) == 98_132_621
    assert (tokens.input, tokens.cached, tokens.output, tokens.total) == (15, 6, 17, 32)


def test_a_day_of_prices_begins_at_midnight_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    midnight = 1_796_083_200
    try:
        days = [day_of(seconds * 10**9) for seconds in (midnight - 1, midnight)]
    finally:
        monkeypatch.undo()
        time.tzset()

    assert days == [dt.date(2026, 11, 30), dt.date(2026, 12, 1)]


@pytest.mark.parametrize(
    ("model", "day", "expected"),
    [
        ("own", dt.date(2026, 1, 1), 1.0),
        ("own", dt.date(2027, 1, 1), 2.0),
        ("own-2026-05-01", dt.date(2027, 1, 2), 2.0),
        ("own", dt.date(2020, 1, 1), 1.0),
        ("other", TODAY, None),
    ],
)
def test_a_price_is_that_of_the_model_and_the_day(
    model: str, day: dt.date, expected: float | None
) -> None:
    table = {
        "own": (
            Price(since=dt.date(2027, 1, 1), input_text=2.0),
            Price(since=dt.date(2025, 1, 1), input_text=1.0),
        )
    }

    price = price_of(model, day, table)

    assert (price.input_text if price else None) == expected


def test_prices_of_a_program_come_before_ours() -> None:
    own = {"gpt-realtime-2.1": (Price(input_text=1.0),)}

    price = price_of("gpt-realtime-2.1", TODAY, own)

    assert price is not None
    assert price.input_text == 1.0


# -- parameters --------------------------------------------------------------------------------


def test_a_number_is_a_budget_in_dollars() -> None:
    assert Agent(budget=0.5).budget == Agent(budget=Budget(dollars=0.5)).budget


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"budget": 0}, "out of range"),
        ({"budget": Budget()}, "it has no limit"),
        ({"budget": {"tokens": -1}}, "tokens: -1 is out of range"),
        ({"budget": 1.0, "model": "my-model"}, "the price of my-model is not known"),
        ({"prices": {"my-model": 3}}, "give a mapping such as"),
    ],
)
def test_a_wrong_budget_says_what_to_give(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(AgentError, match=told):
        Agent(**parameters)


def test_a_budget_in_tokens_needs_no_price() -> None:
    assert Agent(budget=Budget(tokens=5), model="my-model").usage.dollars == 0.0


# -- conversations -----------------------------------------------------------------------------


@pytest.mark.processes
@in_a_loop
async def test_usage_outlives_the_supervisor_and_the_realtime_process(
    sandbox: SandboxServer,
) -> None:
    agent = Agent(server=sandbox.url, inactivity_timeout_s=None, **SILENT)
    spent: list[Tokens] = []
    pids: dict[str, int] = {}
    agent.event_bus.subscribe(ResponseEnded, lambda event: spent.append(event.tokens))
    agent.event_bus.subscribe(AgentStartedEvent, lambda event: pids.update(event.pids))
    async with agent:
        for victim in ("supervisor", "realtime", None):
            used, played = agent.events(UsageUpdated), agent.events(PlaybackEnded)
            agent.send_text("what is your name")
            await wait_for(used)
            await wait_for(played)
            if victim == "supervisor":
                again = agent.events(SupervisorRestarted)
                os.kill(pids[victim], signal.SIGKILL)
                await wait_for(again)
            elif victim:
                os.kill((await agent.status())[victim]["pid"], signal.SIGKILL)
        await agent.stop()

    assert len(spent) == 3
    assert agent.usage.tokens == spent[0] + spent[1] + spent[2]
    assert agent.usage.dollars == pytest.approx(PRICES[agent.model][0].dollars(agent.usage.tokens))


@pytest.mark.processes
@in_a_loop
async def test_a_budget_ends_the_conversation_after_a_farewell(sandbox: SandboxServer) -> None:
    agent = Agent(server=sandbox.url, budget=1e-6, inactivity_timeout_s=None, **SILENT)
    sandbox.say("It is ten.")
    sandbox.say("We have to stop here. Goodbye!")
    percents: list[int] = []
    heard: list[int | None] = []
    agent.event_bus.subscribe(BudgetUsed, lambda event: percents.append(event.percent))
    agent.event_bus.subscribe(PlaybackStarted, lambda event: heard.append(event.after_speech_ms))

    async with asyncio.timeout(4 * TIMEOUT_S), agent:
        agent.send_text("what time is it")

    said = [turn.content for turn in agent.history.conversation_turns]
    assert said == ["what time is it", "It is ten.", "We have to stop here. Goodbye!"]
    assert agent.history.ended_because == "budget"
    assert percents == [80, 100]
    assert heard == [None, None]  # the user has typed
