"""Interruptions: which items are cut off, and where, in each state of a response."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from actors.realtime import wire
from actors.realtime.core.actions import Publish, SendEvent
from messages import (
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    ConversationItem,
    FlushPlayback,
    Interrupt,
    Interrupted,
    PlaybackFlushed,
    PlaybackStarted,
    SendText,
    ToolAnswer,
    UserItem,
)
from tests.actors.realtime.core.bench import Bench


def _barge_in(bench: Bench, item_id: str = "u2") -> Bench:
    return bench.server("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=3000)


VAGUE: list[dict[str, Any]] = [
    {"item_id": "u2", "audio_start_ms": -120},
    {"item_id": "u2", "audio_start_ms": None},
    {"item_id": "u2", "audio_start_ms": 1e300},
    {"item_id": "u2"},
    {"item_id": None, "audio_start_ms": 3000},
    {"item_id": 7, "audio_start_ms": "3000"},
    {},
]


@pytest.mark.parametrize("told", VAGUE)
def test_speech_interrupts_whatever_position_and_id_the_server_gives(
    told: dict[str, Any],
) -> None:
    bench = Bench().live().answer(ms=4000)
    bench.capture(0, 4 * 24_000).clear()

    bench.server("input_audio_buffer.speech_started", **told)
    bench.server("input_audio_buffer.speech_stopped")
    bench.server("input_audio_buffer.committed", item_id="u2")

    assert bench.flushes() == 1
    (turn,) = bench.all(UserItem)
    assert turn.item_id == "u2"
    assert 0 <= turn.first_sample <= turn.last_sample


def test_the_server_is_told_of_an_interruption_before_anybody_else() -> None:
    bench = _barge_in(Bench().live().answer(ms=4000))
    bench.clear()

    bench.flushed(ms=500)

    sent = {type(a.event): at for at, a in enumerate(bench.actions) if isinstance(a, SendEvent)}
    told = {type(a.message): at for at, a in enumerate(bench.actions) if isinstance(a, Publish)}
    assert sent[wire.Truncate] < told[Interrupted]


def test_speech_without_a_place_begins_where_the_server_has_heard_everything() -> None:
    bench = Bench().live()
    bench.capture(0, 24_000)

    bench.server("input_audio_buffer.speech_started", item_id="u1")
    bench.capture(24_000, 24_000)
    bench.server("input_audio_buffer.speech_stopped", item_id="u1")
    bench.server("input_audio_buffer.committed", item_id="u1")

    turn = bench.one(UserItem)
    assert (turn.first_sample, turn.last_sample) == (24_000, 48_000)


def _part(bench: Bench, index: int, ms: int, *, ends: bool = True) -> Bench:
    ids = {"response_id": "r1", "item_id": "a1", "content_index": index}
    sound = base64.b64encode(bytes(48 * ms)).decode()
    bench.server("response.output_audio.delta", **ids, delta=sound)
    return bench.server("response.output_audio.done", **ids) if ends else bench


def _cuts(bench: Bench) -> list[tuple[str, int, int]]:
    events = bench.events("conversation.item.truncate")
    return [(e["item_id"], e["content_index"], e["audio_end_ms"]) for e in events]


# -- several parts, several items ------------------------------------------------------------------


def test_parts_of_an_item_are_played_as_one_and_end_together() -> None:
    bench = Bench().live().begin()
    _part(_part(bench, 0, 1000), 1, 500)
    bench.done()

    sound = bench.all(AssistantAudio)
    pieces = [(a.first_sample, len(a.pcm) // 2) for a in sound if a.pcm]
    assert pieces == [(0, 24000), (24000, 12000)]
    assert [a.first_sample for a in sound if a.last][-1] == 36000

    bench.played(ms=1000, finished=True)  # of the first part, before the second one had come
    bench.played(ms=1500, finished=True)
    assert bench.core._context.playback.queue() == []


def test_each_part_that_was_not_heard_to_its_end_is_truncated() -> None:
    bench = Bench().live().begin()
    _part(_part(_part(bench, 0, 1000), 1, 500), 2, 500)
    bench.done()
    bench.clear()

    _barge_in(bench).flushed("a1", 1200)

    assert _cuts(bench) == [("a1", 1, 200), ("a1", 2, 0)]
    assert bench.one(Interrupted).heard_ms == 1200


def test_a_part_of_which_sound_came_only_after_the_interruption_is_truncated_at_zero() -> None:
    bench = Bench().live().begin()
    _part(bench, 0, 1000)
    _barge_in(bench).flushed("a1", 400)
    assert _cuts(bench) == [("a1", 0, 400)]

    _part(bench, 1, 500)
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    assert _cuts(bench) == [("a1", 0, 400), ("a1", 1, 0)]
    assert bench.one(Interrupted)


def test_an_item_that_the_server_never_ends_ends_with_its_answer() -> None:
    bench = Bench().live().begin().say(ms=500)

    bench.done()

    assert bench.all(AssistantAudio)[-1].last


def test_only_the_interrupted_answer_is_muted() -> None:
    bench = Bench().live()
    bench.answer("r1", "a1", ms=2000)
    _barge_in(bench).flushed("a1", 500)
    bench.stop_speaking("u2").begin("r2", "a2").say("More", 300, "r2", "a2")
    bench.clear()

    bench.say("late", 100, "r1", "a1")
    bench.say(" and more", 100, "r2", "a2")

    assert {a.response_id for a in bench.all(AssistantAudio)} == {"r2"}


# -- whenever it comes -----------------------------------------------------------------------------


def test_an_answer_interrupted_before_its_first_delta_is_not_heard() -> None:
    bench = Bench().live().speak("u1")
    bench.server("response.created", response={"id": "r1", "status": "in_progress"})

    _barge_in(bench).flushed("", 0)
    bench.begin_item().say("Too late", 100)
    bench.end_item("Too late", status="incomplete")
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    bench.none(AssistantAudio)
    assert _cuts(bench) == [("a1", 0, 0)]
    assert bench.one(Interrupted) == Interrupted("a1", 0, "")


def test_an_item_after_an_empty_one_follows_the_item_before_it() -> None:
    bench = Bench().live().speak("u1").begin("r1", "a1")
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)
    bench.done("r1", status="cancelled", status_details={"reason": "turn_detected"})

    bench.stop_speaking("u2")

    assert [user.previous_item_id for user in bench.all(UserItem)] == [None, "u1"]


def test_text_without_sound_of_an_interrupted_answer_was_not_heard() -> None:
    bench = Bench().live().begin()
    _barge_in(bench).flushed("", 0)
    ids = {"response_id": "r1", "item_id": "a1"}
    bench.server("response.output_audio_transcript.delta", **ids, delta="So")

    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    assert bench.events("conversation.item.truncate") == []
    assert bench.one(Interrupted) == Interrupted("a1", 0, "")


def test_a_written_answer_was_read_as_far_as_it_came() -> None:
    bench = Bench().live().begin()
    ids = {"response_id": "r1", "item_id": "a1"}
    bench.server("response.output_text.delta", **ids, delta="One two")

    bench.tell(Interrupt()).flushed("", 0)
    bench.done(status="cancelled", status_details={"reason": "client_cancelled"})

    assert bench.one(Interrupted) == Interrupted("a1", 0, "One two")
    assert bench.events("conversation.item.truncate") == []


def test_an_interrupted_written_answer_grows_until_the_server_ends_it() -> None:
    bench = Bench().live().begin()
    ids = {"response_id": "r1", "item_id": "a1"}
    bench.server("response.output_text.delta", **ids, delta="One two")

    bench.tell(Interrupt()).flushed("", 0)
    bench.server("response.output_text.delta", **ids, delta=" three")
    bench.server("response.output_text.done", **ids, text="One two three")
    bench.done(status="cancelled", status_details={"reason": "client_cancelled"})

    assert [said.delta for said in bench.all(AssistantTranscript)] == ["One two", " three"]
    assert bench.one(Interrupted) == Interrupted("a1", 0, "One two three")


def test_an_answer_that_the_program_interrupts_is_not_requested_again() -> None:
    bench = Bench(transcription_model="gpt-transcribe").live()
    bench.capture(0, 3 * 24_000).speak()
    kind = "conversation.item.input_audio_transcription.completed"
    bench.server(kind, item_id="u1", transcript="Hello")
    bench.server("response.created", response={"id": "r1", "status": "in_progress"})

    bench.tell(Interrupt()).flushed("", 0)
    bench.lose().clear_but_requests()
    bench.history = [ConversationItem("u1", "message", "user", "Hello")]
    bench.configured().wait(10)

    assert [item["id"] for item in bench.items()] == ["msg_u1"]
    assert bench.events("response.create") == []


def test_after_the_answer_is_complete_only_what_is_played_is_cut() -> None:
    bench = Bench().live().answer(ms=2000)
    bench.clear()

    bench.tell(Interrupt()).flushed("a1", 700)

    assert bench.kinds() == ["conversation.item.truncate"]
    assert _cuts(bench) == [("a1", 0, 700)]


def test_two_flushes_before_the_speakers_reply_are_one_interruption() -> None:
    bench = Bench().live().answer(ms=2000)

    _barge_in(bench)
    bench.tell(Interrupt())
    bench.flushed("a1", 900)

    assert bench.flushes() == 1
    assert _cuts(bench) == [("a1", 0, 900)]
    assert bench.one(Interrupted).heard_ms == 900


def test_an_answer_that_begins_between_two_interruptions_is_cut_by_the_second() -> None:
    bench = Bench().live().answer("r1", "a1", ms=2000)
    _barge_in(bench)
    bench.stop_speaking("u2")
    bench.begin("r2", "a2").say("More", 1000, "r2", "a2")
    bench.wait(0.01)

    bench.tell(Interrupt())
    first, second = (flush.sent_ns for flush in bench.all(FlushPlayback))
    bench.tell(PlaybackFlushed("a1", 24 * 900, bench.now, first))
    assert _cuts(bench) == [("a1", 0, 900)]
    bench.tell(PlaybackFlushed("a2", 24 * 30, bench.now, second))

    assert _cuts(bench) == [("a1", 0, 900), ("a2", 0, 30)]


def test_an_answer_of_the_speaker_that_comes_too_late_moves_nothing() -> None:
    bench = Bench().live().answer("r1", "a1", ms=2000)
    _barge_in(bench)
    sent_ns = bench.one(FlushPlayback).sent_ns
    bench.wait(0.4)
    bench.stop_speaking("u2").begin("r2", "a2").say("More", 1000, "r2", "a2")
    bench.clear()
    bench.tell(Interrupt())

    bench.tell(PlaybackFlushed("a1", 24 * 900, bench.now, sent_ns))
    assert bench.events("conversation.item.truncate") == []
    bench.flushed("a2", 100)

    assert _cuts(bench) == [("a2", 0, 100)]


def test_a_flush_that_a_dead_process_asked_for_still_counts() -> None:
    bench = Bench().live()
    bench.now -= 1_000_000  # before the next process begins
    _barge_in(bench.answer(text="one two three four", ms=2000))
    sent_ns = bench.one(FlushPlayback).sent_ns

    reborn = bench.restarted()
    reborn.tell(PlaybackFlushed("a1", 24 * 900, reborn.now, sent_ns))

    assert reborn.one(Interrupted) == Interrupted("a1", 900, "one two")
    assert reborn.core._context.playback.queue() == []


def test_speech_during_a_tool_call_leaves_it_one_answer_and_one_output() -> None:
    bench = Bench().live().speak("u1")
    bench.begin().say("Let me see", 500).call("c1").end_item().done()
    bench.clear()

    _barge_in(bench.capture(0)).flushed("a1", 200)
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    bench.added("fco_c1").stop_speaking("u2")
    bench.begin("r2", "a2").done("r2")

    outputs = [i for i in bench.items() if i["type"] == "function_call_output"]
    assert [o["call_id"] for o in outputs] == ["c1"]
    assert bench.events("response.create") == []  # the answer to the speech is one to both
    assert _cuts(bench) == [("a1", 0, 200)]


def test_a_call_that_an_interruption_cuts_off_is_answered_and_not_run() -> None:
    bench = Bench().live().begin()
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    bench.server("response.output_item.added", response_id="r1", item=item)

    _barge_in(bench).flushed("", 0)
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    (output,) = bench.items()
    assert (output["call_id"], "did not run" in output["output"]) == ("c1", True)


@pytest.mark.parametrize("by", [Interrupt(), SendText("Stop", "t1")])
def test_the_program_interrupts_with_a_cancellation_and_speech_without(by: Interrupt) -> None:
    bench = Bench().live().begin().say(ms=500)
    bench.tell(by)
    assert len(bench.events("response.cancel")) == 1

    bench = Bench().live().begin().say(ms=500)
    _barge_in(bench)
    assert bench.events("response.cancel") == []


def test_history_has_what_was_heard_of_each_item_and_the_rest_is_marked() -> None:
    bench = Bench().live().begin("r1", "a1").say("one two three four", 1000, "r1", "a1")
    bench.end_item("one two three four", "r1", "a1").begin_item("r1", "a2")
    bench.say("five six", 1000, "r1", "a2")

    _barge_in(bench).flushed("a1", 500)
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})
    bench.stop_speaking("u2")

    assert bench.all(Interrupted) == [Interrupted("a1", 500, "one two"), Interrupted("a2", 0, "")]
    assert {i.item_id: i.status for i in bench.all(AssistantItem)}["a2"] == "incomplete"
    assert bench.all(UserItem)[-1].item_id == "u2"


# -- the end of the session ------------------------------------------------------------------------


def test_at_the_end_of_the_session_the_part_heard_is_published() -> None:
    bench = Bench().live().answer(text="one two three four", ms=2000)
    bench.played("a1", 1000, finished=False)

    bench.core.ended()
    bench.collect()

    assert bench.one(Interrupted) == Interrupted("a1", 1000, "one two")


def test_at_the_end_of_the_session_an_open_flush_is_published_too() -> None:
    bench = Bench().live().answer(text="one two three four", ms=2000)
    bench.played("a1", 1000, finished=False)
    bench.tell(Interrupt())

    bench.core.ended()
    bench.collect()

    assert bench.one(Interrupted) == Interrupted("a1", 1000, "one two")


def test_what_was_heard_to_its_end_when_the_session_ends_was_not_interrupted() -> None:
    bench = Bench().live().answer(ms=2000)
    bench.played("a1", 2000, finished=True)

    bench.core.ended()
    bench.collect()

    bench.none(Interrupted)


def test_where_it_was_stopped_is_known_before_that_it_was_interrupted() -> None:
    """The speaker's answer may overtake the position that it had reported before."""
    bench = Bench().live().speak("u1").answer(ms=2000)
    _barge_in(bench)
    bench.clear()

    bench.flushed("a1", 500)
    bench.played("a1", 500, finished=False)

    kinds = [type(message) for message in bench.published]
    assert kinds.index(PlaybackStarted) < kinds.index(Interrupted)
    assert kinds.count(PlaybackStarted) == 1


def test_an_answer_whose_end_is_known_from_the_answer_to_a_flush_was_not_interrupted() -> None:
    bench = Bench().live().speak("u1").answer(ms=1000).played(ms=900, finished=False)
    _barge_in(bench)
    bench.clear()

    bench.flushed("a1", 1000)

    bench.none(Interrupted)
    assert bench.events("conversation.item.truncate") == []


def test_a_flush_that_names_an_item_of_long_ago_makes_nothing_play() -> None:
    bench = Bench().live()

    bench.flushed("old", 1000)

    assert bench.core._context.playback.queue() == []
    bench.none(PlaybackStarted)


def test_a_flush_that_names_an_answer_that_is_over_does_not_begin_it_again() -> None:
    bench = Bench().live().begin().audio(b"\0" * 48_000).played("a1", 1000)
    bench.done().begin("r2", "a2").audio(b"\0" * 48_000, "r2", "a2").played("a2", 10, False)
    bench.clear()

    bench.flushed("a1", 1000)

    bench.none(PlaybackStarted, Interrupted)
