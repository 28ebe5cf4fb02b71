"""The history in the program: turns with their times, what was heard, tool calls."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from messages import (
    AssistantItem,
    Interrupted,
    ItemRemoved,
    Message,
    OutputReplaced,
    PlaybackEnded,
    SessionStarted,
    ToolAnswer,
    ToolCall,
    UserItem,
    UserTranscript,
)
from rtvoice.transcript import Transcript
from rtvoice.views import ConversationHistory, ConversationTurn


def history_of(*messages: Message) -> ConversationHistory:
    transcript = Transcript()
    transcript.take(
        SessionStarted({}, "", "silence", "null", epoch_ns=time.monotonic_ns() - 10_000_000_000)
    )
    for message in messages:
        transcript.take(message)
    return transcript.history()


def turns_of(*messages: Message) -> list[ConversationTurn]:
    return history_of(*messages).conversation_turns


def user(item: str, text: str = "", before: str | None = None) -> UserItem:
    return UserItem(item, before, text, not text, not text, 24_000, 48_000)


def assistant(
    item: str, text: str, before: str | None = None, status: str = "completed"
) -> AssistantItem:
    return AssistantItem(item, before, "r", text, status)  # type: ignore[arg-type]


def test_turns_come_in_the_order_of_the_conversation_not_of_arrival() -> None:
    turns = turns_of(
        user("u1"),
        assistant("a1", "Hi.", "u1"),
        user("u2", "Bye", "a1"),
        UserTranscript("u1", "Hello"),
    )

    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "Bye"),
    ]


def test_speech_has_the_times_of_its_samples() -> None:
    (turn,) = turns_of(user("u1"))

    assert (turn.start_s, turn.end_s) == (1.0, 2.0)


def test_speech_is_not_transcribed_until_its_text_comes() -> None:
    (before,) = turns_of(user("u1"))
    (after,) = turns_of(user("u1"), UserTranscript("u1", "Hello"))
    (failed,) = turns_of(user("u1"), UserTranscript("u1", "", "noise"))

    assert (before.transcribed, before.content) == (False, "")
    assert (after.transcribed, after.content) == (True, "Hello")
    assert (failed.transcribed, failed.content) == (False, "")


def test_an_answer_ends_when_it_was_heard_to_its_end() -> None:
    (turn,) = turns_of(assistant("a1", "Once upon a time."), PlaybackEnded("a1", 2500))

    assert turn.heard_ms == 2500
    assert turn.end_s == pytest.approx(10, abs=0.5)
    assert turn.end_s - turn.start_s == pytest.approx(2.5)  # type: ignore[operator]
    assert (turn.interrupted, turn.heard) == (False, "Once upon a time.")


def test_an_interrupted_answer_keeps_its_text_and_says_what_was_heard() -> None:
    (turn,) = turns_of(
        assistant("a1", "Once upon a time.", status="incomplete"),
        Interrupted("a1", 700, "Once upon"),
    )

    assert turn.interrupted
    assert not turn.complete
    assert (turn.content, turn.heard, turn.heard_ms) == ("Once upon a time.", "Once upon", 700)


def test_an_answer_that_has_said_nothing_is_no_turn() -> None:
    assert turns_of(assistant("a1", "", status="in_progress")) == []


def test_what_is_sent_again_is_there_once() -> None:
    turns = turns_of(
        user("u1", "Hello"), user("u1", "Hello"), ItemRemoved("u1", "again"), user("u2", "Hello")
    )

    assert [turn.item_id for turn in turns] == ["u2"]


def test_a_turn_has_the_calls_since_the_user_spoke() -> None:
    history = history_of(
        user("u1", "What time is it in Rome?"),
        ToolCall("c1", "clock", '{"city": "Rome"}', "f1", "u1"),
        ToolAnswer("c1", "clock", "12:00", item_id="o1"),
        assistant("a1", "Noon.", "o1"),
        user("u2", "And in Oslo?", "a1"),
        ToolCall("c2", "clock", '{"city": "Oslo"}', "f2", "u2"),
        ToolAnswer("c2", "clock", "no such city", failed=True, item_id="o2"),
    )

    assert [[call.output for call in turn.tool_calls] for turn in history] == [[], ["12:00"], []]
    assert [(call.call_id, call.failed) for call in history.tool_calls] == [
        ("c1", False),
        ("c2", True),
    ]


def test_a_call_whose_output_the_server_refused_has_failed() -> None:
    (call,) = history_of(
        ToolCall("c1", "clock", "{}", "f1"),
        ToolAnswer("c1", "clock", "far too long", item_id="o1"),
        OutputReplaced("c1", "too long"),
    ).tool_calls

    assert (call.output, call.failed) == ("too long", True)


def test_a_call_without_an_answer_has_no_output() -> None:
    (call,) = history_of(ToolCall("c1", "clock", "{}", "f1")).tool_calls

    assert call.output is None


def test_a_history_is_plain_data() -> None:
    history = history_of(user("u1", "Hello"))

    text = msgspec.json.encode(history)

    assert json.loads(text)["conversation_turns"][0]["content"] == "Hello"
    assert msgspec.json.decode(text, type=ConversationHistory) == history
    assert history.started_at is not None
    assert history.started_at.tzinfo is not None


def test_an_empty_history_is_a_history() -> None:
    assert ConversationHistory()
    assert len(ConversationHistory()) == 0
