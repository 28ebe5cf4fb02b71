"""The summary of a session at its end."""

from __future__ import annotations

from actors.supervision.summary import Summary
from messages import (
    AudioLost,
    DeadLetter,
    FileOpened,
    SessionEnded,
    SoundFaltered,
    ToolCall,
    Turn,
)


def ended(summary: Summary, *left: str) -> SessionEnded:
    return summary.ended("over", {"speaker": 2, "tools": 0}, left, 1.23456, failed=False)


def test_turns_and_calls_are_counted_once_however_often_they_arrive() -> None:
    summary = Summary()
    turn, call = Turn("user", "hello", "item"), ToolCall("call", "search", "{}")

    news = [summary.note(message) for message in (turn, turn, call, call)]

    assert news == [True, False, True, True]  # a call is passed on again: it may not be answered
    assert (ended(summary).turns, ended(summary).tool_calls) == (1, 1)


def test_losses_are_named_one_by_one_and_from_a_hundred_on_counted() -> None:
    summary = Summary()
    summary.note(AudioLost("speaker", 40, "it died"))
    summary.note(DeadLetter("tools", "SendText", "raised", 1, about="item_id=i"))
    for number in range(100):
        summary.lose(f"loss {number}")

    lost = ended(summary, "1 Turn to history (it has ended)").lost

    assert lost[0] == "40 ms of sound at the speaker (it died)"
    assert lost[1] == "SendText item_id=i to tools (raised)"
    assert lost[99:] == (
        "loss 97",
        "1 Turn to history (it has ended)",
        "2 more, each told when it happened",
    )


def test_faltering_is_summed_by_component_and_reason() -> None:
    summary = Summary()
    for count in (2, 3):
        summary.note(SoundFaltered("speaker", "underrun", count))
    summary.note(SoundFaltered("microphone", "overflow", 1))

    assert (summary.faltered("speaker"), summary.faltered("tools")) == (5, 0)
    assert len(ended(summary).faltered) == 2


def test_only_components_that_came_back_are_named_and_each_file_once() -> None:
    summary = Summary()
    for path in ("talk.wav", "talk.wav", "journal.jsonl"):
        summary.note(FileOpened(path))

    told = ended(summary)

    assert told.restarts == {"speaker": 2}
    assert told.files == ("talk.wav", "journal.jsonl")
    assert (told.reason, told.seconds, told.failed) == ("over", 1.235, False)
