"""Turns of the user and the assistant, and interruptions, in a live session."""

from __future__ import annotations

import pytest

from actors.realtime.core.actions import Publish
from messages import (
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    CapturedAudio,
    FlushPlayback,
    Interrupt,
    Interrupted,
    ItemPlaced,
    Notice,
    PlaybackStarted,
    ReplayCapture,
    ReplayEnded,
    ResponseEnded,
    ResponseStarted,
    SendText,
    SetSpeed,
    SpeedChanged,
    Tokens,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
)
from tests.actors.realtime.core.bench import MS, NS, Bench

TRANSCRIBE = {"transcription_model": "gpt-transcribe"}


def _capture(bench: Bench, seconds: float, first: int = 0) -> None:
    for sample in range(first, first + int(seconds * 24000), 960):
        bench.capture(sample)


# -- what the user says ----------------------------------------------------------------------------


def test_speech_becomes_an_item_at_its_place_on_the_session_timeline() -> None:
    bench = Bench(**TRANSCRIBE).live()
    _capture(bench, 1, first=0)
    _capture(bench, 1, first=48000)  # a second is missing in between

    bench.speak("u1", start_ms=500, end_ms=1500)

    assert bench.one(UserSpeechStarted).first_sample == 12000
    assert bench.one(UserSpeechStopped).last_sample == 60000
    item = bench.one(UserItem)
    assert (item.item_id, item.previous_item_id, item.spoken) == ("u1", None, True)
    assert item.transcript_expected
    assert (item.first_sample, item.last_sample) == (12000, 60000)


def test_without_a_transcription_model_no_transcript_is_expected() -> None:
    bench = Bench().live()

    bench.speak()

    assert not bench.one(UserItem).transcript_expected


def test_a_transcript_is_published_once_even_if_it_comes_late_or_twice() -> None:
    bench = Bench(**TRANSCRIBE).live().speak()
    bench.answer()

    for _ in range(2):
        bench.server(
            "conversation.item.input_audio_transcription.completed",
            item_id="u1",
            content_index=0,
            transcript="Hello",
            usage={"type": "duration", "seconds": 1},
        )

    assert bench.one(UserTranscript) == UserTranscript("u1", "Hello")


def test_a_failed_transcription_says_why() -> None:
    bench = Bench(**TRANSCRIBE).live().speak()

    bench.server(
        "conversation.item.input_audio_transcription.failed",
        item_id="u1",
        content_index=0,
        error={"type": "server_error", "code": "audio_unintelligible", "message": "mumbling"},
    )

    assert bench.one(UserTranscript) == UserTranscript("u1", "", "mumbling")


def test_items_are_chained_even_if_the_server_says_null() -> None:
    bench = Bench().live()
    bench.speak("u1").answer("r1", "a1").played("a1")
    bench.speak("u2").answer("r2", "a2")

    before = {item.item_id: item.previous_item_id for item in bench.all(UserItem)}
    before |= {item.item_id: item.previous_item_id for item in bench.all(AssistantItem)}
    assert before == {"u1": None, "a1": "u1", "u2": "a1", "a2": "u2"}


def test_the_end_of_an_item_does_not_put_it_back_where_it_began() -> None:
    bench = Bench().live().speak("u1").begin("r1", "a1").say()

    bench.server("input_audio_buffer.committed", item_id="u2", previous_item_id="u1")
    bench.added("a1", "u2", role="assistant")
    bench.end_item()

    assert bench.one(ItemPlaced) == ItemPlaced("a1", "u2")
    assert [told.previous_item_id for told in bench.all(AssistantItem)] == ["u1", "u2"]


def test_the_order_of_the_server_counts() -> None:
    bench = Bench().live().speak("u1").answer("r1", "a1")

    bench.server("input_audio_buffer.committed", item_id="u2", previous_item_id="u1")

    assert bench.all(UserItem)[-1].previous_item_id == "u1"


@pytest.mark.parametrize("kind", ["reasoning", "mcp_call", "mcp_list_tools"])
def test_what_history_does_not_have_is_in_no_chain(kind: str) -> None:
    bench = Bench().live().speak("u1").begin("r1", "a1").say().end_item()

    bench.added("x1", "a1", type=kind)
    bench.begin_item("r1", "a2").added("a2", "x1", role="assistant")
    bench.say("So", item_id="a2")

    assert bench.all(AssistantItem)[-1].previous_item_id == "a1"


# -- what the assistant says -----------------------------------------------------------------------


def test_an_answer_is_published_piece_by_piece_and_as_a_whole() -> None:
    bench = Bench().live().speak()
    bench.clear()

    bench.begin()
    bench.say("Hello ", 200)
    bench.say("there", 300)
    bench.end_item("Hello there")
    bench.done(usage={"input_tokens": 10, "output_tokens": 20, "total_tokens": 30})

    assert bench.one(ResponseStarted).response_id == "r1"
    audio = bench.all(AssistantAudio)
    assert [(a.first_sample, len(a.pcm), a.last) for a in audio] == [
        (0, 200 * 48, False),
        (4800, 300 * 48, False),
        (12000, 0, True),
    ]
    assert all((a.item_id, a.response_id) == ("a1", "r1") for a in audio)
    assert [t.delta for t in bench.all(AssistantTranscript)] == ["Hello ", "there"]
    begun, ended = bench.all(AssistantItem)
    assert (begun.status, begun.text) == ("in_progress", "Hello ")
    assert (ended.status, ended.text, ended.audio_samples) == ("completed", "Hello there", 12000)
    assert ended.previous_item_id == "u1"
    assert bench.one(ResponseEnded) == ResponseEnded(
        "r1", "completed", "", 10, 20, 0, Tokens(input_audio=10, output_audio=20)
    )


def test_the_tokens_of_an_answer_are_published_by_kind() -> None:
    bench = Bench().live().speak().begin()
    bench.clear()

    bench.done(
        usage={
            "input_tokens": 130,
            "output_tokens": 60,
            "input_token_details": {
                "text_tokens": 70,
                "audio_tokens": 50,
                "image_tokens": 10,
                "cached_tokens": 68,
                "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 4},
            },
            "output_token_details": {"text_tokens": 15, "audio_tokens": 40},
        }
    )

    assert bench.one(ResponseEnded).tokens == Tokens(
        input_text=70,
        input_audio=50,
        input_image=10,
        cached_text=64,
        cached_audio=4,
        output_text=20,  # with 5 of which the server does not say the kind
        output_audio=40,
    )


def test_cached_tokens_without_a_kind_are_text_first() -> None:
    bench = Bench().live().speak().begin()
    details = {"text_tokens": 30, "audio_tokens": 50, "cached_tokens": 40}

    bench.done(usage={"input_tokens": 80, "output_tokens": 0, "input_token_details": details})

    tokens = bench.one(ResponseEnded).tokens
    assert (tokens.cached_text, tokens.cached_audio, tokens.cached) == (30, 10, 40)


# -- the beginning of an answer -------------------------------------------------------------------


def test_the_beginning_of_an_answer_is_told_once_with_the_time_from_the_end_of_speech() -> None:
    bench = Bench().live().speak(end_ms=1000)
    stopped = bench.one(UserSpeechStopped)
    bench.begin()
    bench.say(ms=1000)
    bench.clear()

    bench.now = stopped.last_sample * NS // 24_000 + 750 * MS
    bench.played(ms=0, finished=False)
    bench.played(ms=50, finished=False)
    bench.played(ms=150, finished=False)

    started = bench.one(PlaybackStarted)
    assert (started.item_id, started.response_id) == ("a1", "r1")
    assert started.after_speech_ms == 700
    assert started.first_sample == stopped.last_sample + 700 * 24


def test_the_beginning_of_an_answer_has_the_times_of_the_steps_before_it() -> None:
    bench = Bench().live().speak(end_ms=1000)
    end_ns = bench.one(UserSpeechStopped).last_sample * NS // 24_000
    committed_ms = (bench.now - end_ns) // MS
    bench.begin()
    bench.now = end_ns + 600 * MS
    bench.say(ms=1000)
    bench.now = end_ns + 650 * MS
    bench.say(ms=1000)

    bench.now = end_ns + 750 * MS
    bench.played(ms=50, finished=False)

    started = bench.one(PlaybackStarted)
    assert started.committed_after_ms == max(0, committed_ms)
    assert started.received_after_ms == 600
    assert started.after_speech_ms == 700


def test_only_the_first_answer_to_speech_has_a_time() -> None:
    bench = Bench().live().speak().answer()
    bench.played()
    bench.answer("r2", "a2")
    bench.played("a2")
    bench.tell(SendText("hello", "t1"))
    bench.answer("r3", "a3")
    bench.played("a3")

    times = [started.after_speech_ms is None for started in bench.all(PlaybackStarted)]
    assert times == [False, True, True]


def test_a_new_process_does_not_tell_the_beginning_of_an_answer_again() -> None:
    bench = Bench().live().speak()
    bench.begin()
    bench.say(ms=1000)
    bench.played(ms=100, finished=False)

    again = bench.restarted()
    again.played(ms=200, finished=False)

    assert bench.one(PlaybackStarted)
    assert not again.all(PlaybackStarted)


def test_the_text_of_a_long_answer_reaches_history_as_it_grows() -> None:
    bench = Bench().live().begin()

    for _ in range(10):
        bench.say("twenty characters ok", 10)

    texts = [item.text for item in bench.all(AssistantItem)]
    assert [len(text) for text in texts] == [20, 60, 100, 140, 180]


@pytest.mark.parametrize("sizes", [(3, 5, 4), (1, 1, 1, 1), (2, 7, 7)])
def test_half_samples_wait_for_their_other_half(sizes: tuple[int, ...]) -> None:
    bench = Bench().live().begin()
    data = bytes(range(sum(sizes)))
    at = 0

    for size in sizes:
        bench.audio(data[at : at + size])
        at += size

    audio = bench.all(AssistantAudio)
    assert b"".join(a.pcm for a in audio) == data
    position = 0
    for a in audio:
        assert len(a.pcm) % 2 == 0
        assert a.first_sample == position
        position += len(a.pcm) // 2


def test_two_items_of_one_answer_are_kept_apart() -> None:
    bench = Bench().live().begin("r1", "a1")
    bench.say("One", 100, "r1", "a1").end_item("One", "r1", "a1")
    bench.begin_item("r1", "a2")
    bench.say("Two", 100, "r1", "a2").end_item("Two", "r1", "a2").done()

    items = [(i.item_id, i.text, i.status) for i in bench.all(AssistantItem)]
    assert items == [
        ("a1", "One", "in_progress"),
        ("a1", "One", "completed"),
        ("a2", "Two", "in_progress"),
        ("a2", "Two", "completed"),
    ]
    assert bench.all(AssistantItem)[-1].previous_item_id == "a1"


def test_text_without_audio_is_published_too() -> None:
    bench = Bench().live().begin()

    bench.server("response.output_text.delta", response_id="r1", item_id="a1", delta="Hi")
    bench.server("response.output_text.done", response_id="r1", item_id="a1", text="Hi")
    bench.done()

    assert bench.all(AssistantItem)[-1].text == "Hi"


# -- barge-in --------------------------------------------------------------------------------------


def _speaking(**settings: object) -> Bench:
    """An answer of 2 s is complete at the server and being played."""
    bench = Bench(**settings).live().speak("u1")
    bench.answer(text="one two three four", ms=2000)
    bench.played(ms=300, finished=False)
    bench.clear()
    return bench


def _barge_in(bench: Bench, item_id: str = "u2") -> Bench:
    return bench.server("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=3000)


def test_a_barge_in_silences_the_speaker_before_anything_else() -> None:
    bench = _barge_in(_speaking())

    first = bench.actions[0]
    assert isinstance(first, Publish)
    assert isinstance(first.message, FlushPlayback)
    assert bench.flushes() == 1


def test_a_barge_in_truncates_at_what_was_heard() -> None:
    bench = _barge_in(_speaking())
    assert bench.sent == []

    bench.flushed("a1", ms=1000)

    truncate = bench.event("conversation.item.truncate")
    assert (truncate["item_id"], truncate["content_index"]) == ("a1", 0)
    assert truncate["audio_end_ms"] == 1000
    assert bench.one(Interrupted) == Interrupted("a1", 1000, "one two")


def test_without_the_speakers_answer_its_last_position_counts() -> None:
    bench = _barge_in(_speaking())

    bench.wait(0.31)

    assert bench.event("conversation.item.truncate")["audio_end_ms"] == 300


def test_more_than_was_received_is_never_truncated() -> None:
    bench = _barge_in(_speaking())

    bench.flushed("a1", ms=1999.99)

    assert bench.event("conversation.item.truncate")["audio_end_ms"] == 1999


def test_what_was_played_to_its_end_is_not_truncated() -> None:
    bench = _speaking().played(ms=2000)
    bench.clear()

    _barge_in(bench)

    bench.none(FlushPlayback)
    assert bench.sent == []


def test_an_end_that_crosses_the_flush_is_no_interruption() -> None:
    bench = _barge_in(_speaking())

    bench.played(ms=2000)
    bench.flushed("", 0)

    bench.none(Interrupted)
    assert bench.sent == []


def test_the_server_cancels_by_itself_when_the_user_speaks() -> None:
    bench = Bench().live().begin().say(ms=500)

    _barge_in(bench).flushed("a1", 100)

    assert bench.events("response.cancel") == []


@pytest.mark.parametrize(
    ("reason", "because"),
    [("max_output_tokens", "max_output_tokens"), ("content_filter", "content filter")],
)
def test_the_user_learns_why_an_answer_ends_early(reason: str, because: str) -> None:
    bench = Bench().live().begin().say("one two", ms=500)

    bench.end_item("one two", status="incomplete")
    bench.done(status="incomplete", status_details={"reason": reason})

    assert because in bench.one(Notice).text
    assert bench.all(AssistantItem)[-1].status == "incomplete"


def test_late_sound_of_an_interrupted_answer_is_not_played() -> None:
    bench = Bench().live().begin().say("one two", ms=500)
    _barge_in(bench).flushed("a1", 100)
    bench.clear()

    bench.say(" three", ms=500)
    bench.end_item("one two three", status="incomplete")
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    bench.none(AssistantAudio, AssistantTranscript)
    assert bench.one(AssistantItem).status == "incomplete"
    assert bench.events("conversation.item.truncate") == []


def test_the_next_answer_is_heard_again() -> None:
    bench = Bench().live().begin().say(ms=500)
    _barge_in(bench).flushed("a1", 100)
    bench.done(status="cancelled").stop_speaking("u2")
    bench.clear()

    bench.answer("r2", "a2")

    assert bench.all(AssistantAudio)


def test_an_item_of_which_nothing_was_received_is_not_truncated() -> None:
    bench = Bench().live().begin()
    bench.server(
        "response.output_audio_transcript.delta", response_id="r1", item_id="a1", delta="So"
    )

    _barge_in(bench).flushed("", 0)

    assert bench.sent == []
    assert bench.one(Interrupted) == Interrupted("a1", 0, "")


def test_an_item_whose_sound_came_only_after_the_interruption_is_truncated_at_zero() -> None:
    bench = Bench().live().begin()
    _barge_in(bench).flushed("", 0)

    bench.say(ms=200)
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    assert bench.event("conversation.item.truncate")["audio_end_ms"] == 0


def test_items_that_were_queued_and_never_begun_are_truncated_at_zero() -> None:
    bench = Bench().live().begin("r1", "a1")
    bench.say("One", 1000, "r1", "a1").end_item("One", "r1", "a1")
    bench.begin_item("r1", "a2")
    bench.say("Two", 1000, "r1", "a2").end_item("Two", "r1", "a2").done()
    bench.clear()

    _barge_in(bench).flushed("a1", ms=400)

    cuts = {t["item_id"]: t["audio_end_ms"] for t in bench.events("conversation.item.truncate")}
    assert cuts == {"a1": 400, "a2": 0}
    assert bench.all(Interrupted)[1] == Interrupted("a2", 0, "")


def test_items_before_the_one_that_was_playing_were_heard() -> None:
    bench = Bench().live().begin("r1", "a1")
    bench.say("One", 1000, "r1", "a1").end_item("One", "r1", "a1")
    bench.begin_item("r1", "a2")
    bench.say("Two", 1000, "r1", "a2").end_item("Two", "r1", "a2").done()
    bench.clear()

    _barge_in(bench).flushed("a2", ms=500)

    truncate = bench.event("conversation.item.truncate")
    assert (truncate["item_id"], truncate["audio_end_ms"]) == ("a2", 500)
    assert bench.one(Interrupted).item_id == "a2"


def test_speech_while_nothing_is_said_interrupts_nothing() -> None:
    bench = Bench().live()

    _barge_in(bench)

    bench.none(FlushPlayback, Interrupted)


def test_sound_of_a_later_answer_is_not_taken_for_what_was_flushed() -> None:
    bench = _speaking()
    bench.tell(Interrupt())
    flushed_ns = bench.one(FlushPlayback).sent_ns
    bench.now -= 5_000_000  # the answer had been read before the interruption was handled

    bench.begin("r2", "a2").say("More", 100, "r2", "a2")

    assert bench.all(AssistantAudio)[-1].sent_ns == flushed_ns


def test_a_flush_is_dated_after_all_that_it_flushes() -> None:
    bench = Bench().live().answer()  # the flush can overtake it, and the clock has not moved
    sent_ns = bench.all(AssistantAudio)[-1].sent_ns

    bench.tell(Interrupt())

    assert bench.one(FlushPlayback).sent_ns > sent_ns


def test_a_second_barge_in_flushes_again_only_if_there_is_something_new() -> None:
    bench = _barge_in(_speaking())
    bench.flushed("a1", 500)
    bench.stop_speaking("u2")
    bench.clear()

    _barge_in(bench, "u3")

    bench.none(FlushPlayback)


# -- text and interruption by the program ----------------------------------------------------------


def test_text_becomes_an_item_and_is_answered() -> None:
    bench = Bench().live()

    bench.tell(SendText("What time is it?", "t1"))

    assert bench.kinds() == ["conversation.item.create", "response.create"]
    assert bench.items()[0] == {
        "id": "msg_t1",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "What time is it?"}],
    }
    item = bench.one(UserItem)
    assert (item.item_id, item.text, item.spoken) == ("t1", "What time is it?", False)


def test_the_same_text_twice_is_one_turn() -> None:
    bench = Bench().live()

    bench.tell(SendText("Hi", "t1")).tell(SendText("Hi", "t1"))

    assert len(bench.items()) == 1
    assert bench.one(UserItem)


def test_text_interrupts_cancels_and_waits_for_the_end_of_the_answer() -> None:
    bench = Bench().live().begin().say(ms=1000)
    bench.clear()

    bench.tell(SendText("Stop, do this", "t1"))

    assert isinstance(bench.actions[0].message, FlushPlayback)
    assert bench.event("response.cancel")["response_id"] == "r1"
    bench.flushed("a1", 200)
    assert bench.event("conversation.item.truncate")["audio_end_ms"] == 200
    assert bench.events("response.create") == []
    bench.done(status="cancelled", status_details={"reason": "client_cancelled"})
    assert bench.event("response.create")


def test_an_interrupted_answer_that_is_complete_is_not_cancelled() -> None:
    bench = _speaking()

    bench.tell(Interrupt())
    bench.flushed("a1", 700)

    assert bench.kinds() == ["conversation.item.truncate"]


def test_an_answer_that_is_interrupted_before_it_begins_is_cancelled_when_it_does() -> None:
    bench = Bench().live()
    bench.tell(SendText("Tell me all", "t1"))
    bench.clear()

    bench.tell(Interrupt())
    assert bench.sent == []
    bench.begin()
    bench.say()

    assert bench.event("response.cancel")["response_id"] == "r1"
    bench.none(AssistantAudio)


def test_interrupting_silence_does_nothing() -> None:
    bench = Bench().live()

    bench.tell(Interrupt())

    assert bench.actions == []


# -- speed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "set_to"), [(1.2, 1.2), (9.0, 1.5), (0.1, 0.25)])
def test_speed_is_set_within_its_limits(wanted: float, set_to: float) -> None:
    bench = Bench().live()

    bench.tell(SetSpeed(wanted))

    assert bench.event("session.update")["session"] == {
        "type": "realtime",
        "audio": {"output": {"speed": set_to}},
    }
    assert bench.one(SpeedChanged).speed == set_to
    assert bench.core.saved.speed == set_to


def test_speed_is_not_changed_within_an_answer_but_before_the_next_is_asked_for() -> None:
    bench = Bench().live().begin().say()
    bench.tell(SendText("And now?", "t1"))
    bench.tell(SetSpeed(1.3))
    bench.flushed()
    assert bench.events("session.update") == []
    bench.clear()

    bench.done(status="cancelled")

    assert bench.kinds() == ["session.update", "response.create"]


def test_a_speed_that_came_too_late_is_set_after_the_answer() -> None:
    bench = Bench().live()
    bench.tell(SetSpeed(1.3))
    bench.begin()

    bench.error("invalid_value", "session.update")
    assert len(bench.events("session.update")) == 1
    bench.done()

    assert len(bench.events("session.update")) == 2


def test_silence_that_the_server_commits_interrupts_nothing_and_is_no_turn() -> None:
    bench = Bench(transcription_model="gpt-transcribe").live().begin().say()

    bench.server(
        "input_audio_buffer.timeout_triggered", item_id="s1", audio_start_ms=0, audio_end_ms=6000
    )
    bench.server("input_audio_buffer.committed", item_id="s1", previous_item_id="a1")
    bench.added("s1", "a1", role="user")
    kind = "conversation.item.input_audio_transcription.completed"
    bench.server(kind, item_id="s1", transcript="")

    bench.none(FlushPlayback, UserItem, UserTranscript)
    assert bench.events("conversation.item.truncate") == []


def test_a_text_that_the_server_has_behind_committed_silence_stands_there() -> None:
    bench = Bench().live().answer()
    bench.server(
        "input_audio_buffer.timeout_triggered", item_id="s1", audio_start_ms=0, audio_end_ms=6000
    )
    bench.tell(SendText("Hello", "t1"))
    bench.server("input_audio_buffer.committed", item_id="s1", previous_item_id="a1")

    bench.added("t1", "s1", role="user").begin("r2", "a2").say(response_id="r2", item_id="a2")

    assert bench.all(UserItem)[-1].previous_item_id == "a1"
    assert {placed.previous_item_id for placed in bench.all(ItemPlaced)} <= {"a1"}
    assert bench.all(AssistantItem)[-1].previous_item_id == "t1"


def test_what_follows_committed_silence_is_chained_to_what_was_before_it() -> None:
    bench = Bench().live().answer()

    bench.server(
        "input_audio_buffer.timeout_triggered", item_id="s1", audio_start_ms=0, audio_end_ms=6000
    )
    bench.server("input_audio_buffer.committed", item_id="s1", previous_item_id="a1")
    bench.added("s1", "a1", role="user")
    bench.begin("r2", "a2").say(response_id="r2", item_id="a2")

    assert bench.all(AssistantItem)[-1].previous_item_id == "a1"
    assert bench.events("response.create") == []


# -- what comes or goes ahead of the supervisor ----------------------------------------------------


def test_a_block_that_comes_again_is_not_appended_again() -> None:
    bench = Bench().live()
    bench.capture(0).capture(960)

    bench.capture(0).capture(960).capture(1920).capture(960)

    assert len(bench.events("input_audio_buffer.append")) == 3
    assert bench.core._context.capture.newest_sample == 3 * 960


def test_a_block_is_not_taken_ahead_of_one_that_is_still_to_come() -> None:
    bench = Bench().live().capture(0)

    assert bench.core.can_take_ahead(CapturedAudio(bytes(1920), 960, bench.now))
    assert not bench.core.can_take_ahead(CapturedAudio(bytes(1920), 1920, bench.now))


def test_a_block_is_not_taken_ahead_of_a_replay() -> None:
    bench = Bench().live().capture(0)
    bench.lose()
    bench.configured()

    request = bench.all(ReplayCapture)[-1].request_id
    assert not bench.core.can_take_ahead(CapturedAudio(bytes(1920), 960, bench.now))
    bench.tell(ReplayEnded(960, request))
    assert bench.core.can_take_ahead(CapturedAudio(bytes(1920), 960, bench.now))


def _ahead(bench: Bench) -> list[bool]:
    """Return for each piece of sound whether it was sent ahead."""
    found = [action for action in bench.actions if isinstance(action, Publish)]
    return [it.ahead for it in found if isinstance(it.message, AssistantAudio) and it.message.pcm]


def test_sound_goes_ahead_as_long_as_the_speaker_has_little_to_play() -> None:
    bench = Bench().live().begin()

    for _ in range(3):
        bench.say(ms=200)
    bench.played(ms=500, finished=False)
    bench.say(ms=200)

    assert _ahead(bench) == [True, True, False, True]


def test_an_item_does_not_go_ahead_of_the_one_before_it() -> None:
    bench = Bench().live().answer(ms=100)

    bench.begin("r2", "a2").say("More", 100, "r2", "a2")
    bench.played("a1", 100)
    bench.begin("r3", "a3").say("More", 100, "r3", "a3")

    assert _ahead(bench) == [True, False, False], "a2 is still to be played"
    bench.played("a2", 100)
    bench.say("Yes", 100, "r3", "a3")
    assert _ahead(bench)[-1]
