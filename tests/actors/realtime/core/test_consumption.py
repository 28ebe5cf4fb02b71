"""What a conversation uses: sums that outlive processes, prices, and the end of a budget."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from messages import (
    Budget,
    BudgetUsed,
    ConversationOver,
    Price,
    ToolAnswer,
    UsageUpdated,
)
from tests.actors.realtime.core.bench import NS, Bench

USAGE: dict[str, Any] = {
    "input_tokens": 100,
    "output_tokens": 100,
    "input_token_details": {"text_tokens": 100},
    "output_token_details": {"audio_tokens": 100},
}
PRICES = {"gpt-realtime-2.1-mini": (Price(input_text=1000.0, output_audio=4000.0),)}
"""An answer with `USAGE` costs half a dollar."""


def answered(bench: Bench, number: int = 1) -> Bench:
    """Let the server give an answer, and the user hear it."""
    response, item = f"r{number}", f"a{number}"
    bench.begin(response, item)
    bench.say("Hello", 1000, response, item)
    bench.end_item("Hello", response, item)
    bench.done(response, usage=USAGE)
    return bench.played(item)


def test_tokens_and_dollars_add_up() -> None:
    bench = Bench(prices=PRICES).live()

    answered(bench, 1)
    answered(bench, 2)

    first, second = bench.all(UsageUpdated)
    assert (first.response_id, first.tokens.total, first.dollars) == ("r1", 200, 0.5)
    assert (second.tokens.input_text, second.tokens.output_audio) == (200, 200)
    assert second.dollars == 1.0


def test_the_next_process_goes_on_with_the_sums() -> None:
    bench = answered(Bench(prices=PRICES).live())

    again = bench.restarted().live()
    answered(again, 2)

    assert [each.tokens.total for each in again.all(UsageUpdated)][-1] == 400


def test_a_conversation_that_is_resumed_counts_on_and_says_so_at_once() -> None:
    bench = answered(Bench(prices=PRICES).live())

    again = bench.restarted(resumed="journal")

    assert again.one(UsageUpdated) == UsageUpdated("", bench.one(UsageUpdated).tokens, 0.5)


@pytest.mark.parametrize("budget", [None, Budget(tokens=1000)])
def test_a_conversation_that_is_resumed_has_the_budget_that_it_is_given(
    budget: Budget | None,
) -> None:
    bench = answered(Bench(budget=Budget(tokens=200)).live())

    again = bench.restarted(resumed="journal", budget=budget)
    told = again.all(BudgetUsed)
    again.live().wait(60)

    assert not told
    assert not again.all(ConversationOver)


def test_a_conversation_that_is_resumed_with_a_used_budget_ends() -> None:
    bench = answered(Bench(budget=Budget(tokens=1000)).live())

    again = bench.restarted(resumed="journal", budget=Budget(tokens=200))
    told = again.all(BudgetUsed)
    again.live().wait(60)

    assert [each.percent for each in told] == [80, 100]
    assert again.one(ConversationOver).reason == "budget"


def test_who_has_used_nothing_publishes_nothing() -> None:
    bench = Bench(prices=PRICES).live()
    bench.begin("r1", "a1")
    bench.done("r1", status="cancelled", usage={})

    again = bench.restarted(resumed="journal").live()

    assert not bench.all(UsageUpdated)
    assert not again.all(UsageUpdated)


def test_without_a_price_tokens_are_counted_and_it_is_said_once() -> None:
    bench = Bench(model="my-model").live()

    answered(bench, 1)
    answered(bench, 2)

    assert [each.dollars for each in bench.all(UsageUpdated)] == [None, None]
    assert [log.fields for log in bench.logs if "no price" in log.text] == [{"model": "my-model"}]


def test_the_model_is_that_of_the_servers_url() -> None:
    bench = Bench(server="wss://host/v1/realtime?model=gpt-realtime-2.1").live()

    answered(bench)

    assert bench.one(UsageUpdated).dollars == pytest.approx((100 * 4.0 + 100 * 64.0) / 1e6)


def test_the_price_is_that_of_the_day() -> None:
    bench = Bench(
        prices={
            "gpt-realtime-2.1-mini": (
                Price(input_text=1000.0, output_audio=1000.0),
                Price(since=dt.date(2999, 1, 1), output_audio=9e9),
            )
        }
    ).live()  # its clock stands in 1970

    answered(bench)

    assert bench.one(UsageUpdated).dollars == pytest.approx(0.2)


@pytest.mark.parametrize("budget", [Budget(dollars=1.0), Budget(tokens=400)])
def test_a_used_budget_is_told_and_ends_the_conversation_after_a_farewell(budget: Budget) -> None:
    bench = Bench(prices=PRICES, budget=budget).live()

    answered(bench, 1)
    before = bench.all(BudgetUsed)
    bench.clear()
    bench.begin("r2", "a2")
    bench.say("Hello", 30_000, "r2", "a2")
    bench.done("r2", usage=USAGE)

    assert not before
    assert [told.percent for told in bench.all(BudgetUsed)] == [80, 100]
    assert bench.all(BudgetUsed)[-1].tokens == 400
    assert "say goodbye" in bench.sent[-1]["response"]["instructions"]
    bench.wait(25)  # what the assistant was saying is heard to its end
    assert not bench.all(ConversationOver)
    bench.played("a2", 30_000)
    answered(bench, 3)
    assert bench.one(ConversationOver).reason == "budget"


def test_a_farewell_that_never_comes_ends_the_conversation_too() -> None:
    bench = answered(Bench(budget=Budget(tokens=100)).live())

    bench.wait(9)
    waiting = bench.all(ConversationOver)
    bench.wait(20)

    assert not waiting
    assert bench.one(ConversationOver).reason == "budget"


def test_the_answer_to_a_tool_call_says_goodbye_itself() -> None:
    bench = Bench(budget=Budget(tokens=100)).live().speak()
    bench.begin()
    bench.call("c1", "look")
    bench.done(usage=USAGE)
    asked_early = bench.events("response.create")

    bench.tell(ToolAnswer("c1", "look", "21 degrees"))
    for sent in bench.events("conversation.item.create"):
        bench.added(sent["item"]["id"])

    assert not asked_early
    assert len(bench.events("response.create")) == 1
    assert "say goodbye" in bench.sent[-1]["response"]["instructions"]


def test_a_new_process_ends_the_conversation_whose_budget_is_used() -> None:
    bench = answered(Bench(budget=Budget(tokens=100)).live())

    again = bench.restarted().live()

    assert not again.all(BudgetUsed)
    again.now += 60 * NS
    again.wait(1)
    assert again.one(ConversationOver).reason == "budget"


def test_a_budget_in_parts_is_told_at_80_percent_only_once() -> None:
    bench = Bench(budget=Budget(tokens=1000)).live()

    for number in range(1, 5):
        answered(bench, number)
    bench.wait(60)

    assert [told.percent for told in bench.all(BudgetUsed)] == [80]
    assert [over.reason for over in bench.all(ConversationOver)] == ["inactivity timeout"]
