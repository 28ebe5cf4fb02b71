"""The plan for a new server session."""

from __future__ import annotations

import time

import pytest

from actors.realtime.core.restore import (
    CALL,
    CALL_OUTPUT,
    MAX_ITEMS,
    MAX_REPEATS,
    MESSAGE,
    Known,
    difference,
    plan,
    text_item,
    wire_id,
)
from actors.realtime.core.state import Answer, Ask, OpenCall, Saved, TypedTurn, UnansweredTurn
from actors.realtime.core.turns import Turns
from messages import ConversationItem, output_item_id


def _message(item_id: str, text: str, role: str = "user") -> ConversationItem:
    return ConversationItem(item_id, "message", role, text)  # type: ignore[arg-type]


def _call(call_id: str, item_id: str = "") -> ConversationItem:
    return ConversationItem(item_id or f"f{call_id}", "function_call", call_id=call_id, name="n")


def _output(call_id: str, item_id: str = "") -> ConversationItem:
    return ConversationItem(item_id, "function_call_output", call_id=call_id, output=call_id)


@pytest.mark.parametrize(
    ("role", "kind"),
    [("user", "input_text"), ("assistant", "output_text")],
)
def test_text_has_the_type_of_its_role(role: str, kind: str) -> None:
    assert text_item("i", role, "Hi")["content"] == [{"type": kind, "text": "Hi"}]


@pytest.mark.parametrize("prefix", [MESSAGE, CALL, CALL_OUTPUT])
def test_an_id_has_a_prefix_at_most_32_characters_and_is_stable(
    prefix: str,
) -> None:
    assert wire_id("item_1", prefix) == f"{prefix}item_1"
    assert wire_id(f"{prefix}1", prefix) == f"{prefix}1"
    assert len(wire_id("x" * 33, prefix)) == 32
    assert wire_id("x" * 33, prefix).startswith(prefix)
    assert wire_id("x" * 33, prefix) == wire_id("x" * 33, prefix) != wire_id("x" * 34, prefix)


def test_items_without_text_are_left_out() -> None:
    result = plan([_message("u1", ""), _message("a1", "", "assistant")], Saved(), None)

    assert result.items == []


def test_outputs_without_ids_of_their_own_all_arrive() -> None:
    history = [_call("c1"), _output("c1"), _call("c2"), _output("c2")]

    result = plan(history, Saved(), None)

    assert [(item["id"], item["call_id"]) for item in result.items] == [
        ("fc_fc1", "c1"),
        (output_item_id("c1"), "c1"),
        ("fc_fc2", "c2"),
        (output_item_id("c2"), "c2"),
    ]


def test_an_output_that_has_the_id_of_its_call_gets_another() -> None:
    result = plan([_call("c1", "f1"), _output("c1", "f1")], Saved(), None)

    assert [item["id"] for item in result.items] == ["fc_f1", "fco_f1"]


def test_an_output_without_its_call_is_left_out() -> None:
    result = plan([_output("c1")], Saved(), None)

    assert result.items == []


def test_the_same_item_twice_is_created_once() -> None:
    result = plan([_message("u1", "Hi"), _message("u1", "Hi")], Saved(), None)

    assert len(result.items) == 1


def test_a_call_without_output_is_open() -> None:
    result = plan([_call("c1")], Saved(), None)

    assert result.open == {"c1"}
    assert result.answered == {}


def test_a_known_output_follows_its_call() -> None:
    saved = Saved(calls=[OpenCall("c1", "f1", "n", "{}", "r1", output="12:00")])

    result = plan([_call("c1", "f1"), _message("u2", "And?")], saved, None)

    assert [item["id"] for item in result.items] == ["fc_f1", "msg_u2", output_item_id("c1")]
    assert result.answered == {"c1": "12:00"}


def test_an_output_that_only_this_process_knows_follows_its_call() -> None:
    """The assistant's message behind the call may be the answer to the output."""
    history = [_call("c1", "f1"), _call("c2", "f2"), _message("a1", "Noon", "assistant")]
    known = Known({"c1": ("o1", "12:00"), "c2": ("", "13:00")})

    result = plan(history, Saved(), None, known)

    ids = ["fc_f1", "fc_f2", "fco_o1", output_item_id("c2"), "msg_a1"]
    assert [item["id"] for item in result.items] == ids
    assert (result.remembered, result.misplaced) == (5, {*ids[2:]})


def test_texts_that_history_does_not_have_come_last() -> None:
    saved = Saved(texts=[TypedTurn("t1", "One"), TypedTurn("t2", "Two")])

    result = plan([_message("t1", "One"), _message("a1", "Well", "assistant")], saved, None)

    assert [item["id"] for item in result.items] == ["msg_t1", "msg_a1", "msg_t2"]


def test_only_the_newest_items_of_a_huge_conversation_are_replayed() -> None:
    """In time: a component that does not return for 3 s counts as hung."""
    items = [_message(f"item_{number}", "Hello") for number in range(30_000)]
    began = time.process_time()

    told = [item["id"] for item in plan(items, Saved(), None).items]

    assert time.process_time() - began < 1
    assert MAX_ITEMS - 1000 < len(told) <= MAX_ITEMS
    assert told == [wire_id(item.item_id) for item in items[-len(told) :]]


def test_two_plans_of_a_growing_conversation_begin_alike() -> None:
    items = [_message(f"item_{number}", "Hello") for number in range(MAX_ITEMS + 200)]
    there = plan(items[:-100], Saved(), None).items

    events = difference(there, plan(items, Saved(), None).items, str)

    assert len(events) == 100


# -- from where speech is heard again --------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "speech_from", "start", "again"),
    [
        ([], None, 100, []),
        ([], 500, 500, []),
        ([UnansweredTurn("u1", True, 200, 300)], None, 200, ["u1"]),
        ([UnansweredTurn("u1", True, 200, 300, transcribed=True)], None, 300, []),
        ([UnansweredTurn("u1", True, 200, 300, transcribed=True)], 400, 300, []),
        (
            [UnansweredTurn("u1", True, 200, 300, True), UnansweredTurn("u2", True, 400, 500)],
            None,
            400,
            ["u2"],
        ),
        (
            [UnansweredTurn("u1", True, 200, 300), UnansweredTurn("u2", True, 400, 500, True)],
            None,
            200,
            ["u1", "u2"],
        ),
        ([UnansweredTurn("t1", False)], None, 100, []),
        ([UnansweredTurn("t1", False), UnansweredTurn("u1", True, 200, 300)], None, 200, ["u1"]),
    ],
)
def test_speech_is_heard_again_from_the_first_that_is_not_safe(
    turns: list[UnansweredTurn], speech_from: int | None, start: int, again: list[str]
) -> None:
    result = plan([], Saved(safe_sample=100, turns=turns), speech_from)

    assert result.from_sample == start
    assert [turn.item_id for turn in result.again] == again


def test_a_transcript_that_only_history_has_is_enough() -> None:
    saved = Saved(turns=[UnansweredTurn("u1", True, 200, 300)])

    result = plan([_message("u1", "Hello")], saved, None)

    assert result.again == []
    assert result.ask == Ask()


@pytest.mark.parametrize("remembered", [True, False])
def test_speech_that_cannot_be_replayed_is_sent_as_an_item_or_given_up(
    remembered: bool,
) -> None:
    turns = [UnansweredTurn("u1", True, 200, 300), UnansweredTurn("u2", True, 400, 500, True)]
    lost = ConversationItem("u1", "message", transcribed=False, first_sample=200, last_sample=300)
    history = [lost, _message("u2", "Hello")]
    known = Known(sound=lambda first, last: bytes(first) if remembered else b"", since=350)

    result = plan(history, Saved(turns=turns), None, known)

    assert (result.again, result.from_sample, result.ask) == ([], 500, Ask())
    told = ["msg_u1", "msg_u2"] if remembered else ["msg_u2"]
    assert [item["id"] for item in result.items] == told
    assert [turn.item_id for turn in result.given_up] == ([] if remembered else ["u1"])


def test_speech_that_was_repeated_too_often_is_given_up() -> None:
    saved = Saved(turns=[UnansweredTurn("u1", True, 200, 300)], repeats=MAX_REPEATS)

    result = plan([], saved, None)

    assert (result.again, result.from_sample) == ([], 300)
    assert [turn.item_id for turn in result.given_up] == ["u1"]
    Turns(saved).restored(result)
    assert (saved.turns, saved.repeats) == ([], 0)  # the next speech is repeated as often


# -- what is asked for -----------------------------------------------------------------------------

TOLD = Ask(instructions="Say hi")


@pytest.mark.parametrize(
    ("saved", "speech_from", "asks"),
    [
        (Saved(), None, None),
        (Saved(turns=[UnansweredTurn("t1", False)]), None, "plain"),
        (Saved(turns=[UnansweredTurn("u1", True, 0, 1)]), None, None),  # the server hears it again
        (
            Saved(turns=[UnansweredTurn("u1", True, 0, 1), UnansweredTurn("t1", False)]),
            None,
            "plain",
        ),
        (Saved(turns=[UnansweredTurn("u1", True, 0, 1)], answer=Answer("r1", TOLD)), None, "again"),
        (Saved(answer=Answer("r1", TOLD)), 500, "again"),
        (Saved(answer=Answer("r1", TOLD)), None, "again"),
        (Saved(answer=Answer("r1", TOLD, begun=True)), None, "go on"),
        (Saved(answer=Answer("r1", Ask(resumed=MAX_REPEATS - 1), begun=True)), None, "go on"),
        (Saved(answer=Answer("r1", Ask(resumed=MAX_REPEATS), begun=True)), None, None),
        (Saved(answer=Answer("r1", TOLD, call=True)), None, None),
        (Saved(answer=Answer("r1", TOLD, begun=True)), 500, None),  # the user goes on
    ],
)
def test_a_response_is_requested_where_one_is_missing(
    saved: Saved, speech_from: int | None, asks: str | None
) -> None:
    ask = plan([], saved, speech_from).ask

    match asks:
        case "plain":
            assert ask == Ask()
        case "again":
            assert ask == TOLD
        case "go on":
            assert ask is not None
            assert ask.resumed
        case _:
            assert ask is None


# -- what the saved state of a lost supervisor does not know ---------------------------------------

OPEN = OpenCall("c1", "fc1", "n", "{}", "r1")


@pytest.mark.parametrize(
    ("history", "saved", "asks"),
    [
        ([_message("u1", "Hi")], Saved(), True),
        ([_message("u1", "Hi"), _message("a1", "Hello", "assistant")], Saved(), False),
        ([_call("c1"), _output("c1")], Saved(), True),
        ([_message("t1", "Hi")], Saved(seen_texts=["t1"]), False),
        ([_message("u1", "Hi")], Saved(calls=[OPEN]), False),
        ([_message("u1", "Hi"), _call("c1")], Saved(calls=[OPEN]), False),
        ([_call("c1"), _message("u2", "And?")], Saved(calls=[OPEN]), True),
    ],
)
def test_a_turn_that_only_history_knows_is_answered_unless_its_answer_is_under_way(
    history: list[ConversationItem], saved: Saved, asks: bool
) -> None:
    assert (plan(history, saved, None, Known(asks=True)).ask is not None) == asks
    assert plan(history, saved, None).ask is None


@pytest.mark.parametrize("is_in_history", [True, False])
def test_a_turn_that_the_model_has_answered_with_a_call_is_not_asked_again(
    is_in_history: bool,
) -> None:
    saved = Saved(turns=[UnansweredTurn("t1", False)], calls=[OPEN])
    history = [_message("t1", "What time is it?"), *([_call("c1")] if is_in_history else [])]

    assert plan(history, saved, None).ask is None


def test_a_turn_after_an_open_call_is_asked_again() -> None:
    saved = Saved(turns=[UnansweredTurn("t2", False)], calls=[OPEN])

    assert plan([_call("c1"), _message("t2", "And?")], saved, None).ask == Ask()
