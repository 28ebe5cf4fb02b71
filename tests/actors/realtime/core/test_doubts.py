"""Confirmed interruptions: words interrupt, a cough does not destroy an answer."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from actors.realtime.core.actions import Publish
from messages import (
    AssistantAudio,
    FlushPlayback,
    Interrupt,
    Interrupted,
    ItemPlaced,
    PausePlayback,
    ResumePlayback,
    SemanticVad,
    SendText,
    ServerVad,
    UserItem,
    UserTranscript,
)
from tests.actors.realtime.core.bench import Bench

LOUD = array("h", [6000, -6000] * 480).tobytes()
QUIET = bytes(1920)
TEXT = {"transcription_model": "gpt-transcribe"}


class Talk(Bench):
    """An answer is being played; the user is heard block by block."""

    at_ms = 0

    def hear(self, ms: int, pcm: bytes = QUIET) -> Talk:
        for _ in range(ms // 40):
            self.wait(0.04)
            self.capture_pcm(pcm)
        return self

    def capture_pcm(self, pcm: bytes) -> None:
        from messages import CapturedAudio

        self.tell(CapturedAudio(pcm, 24 * self.at_ms, self.now))
        self.at_ms += 40

    def starts(self, item_id: str = "u2", padding_ms: int = 300) -> Talk:
        """The server reports speech that began 80 ms ago."""
        start = max(0, self.at_ms - 80 - padding_ms)
        kind = "input_audio_buffer.speech_started"
        self.server(kind, item_id=item_id, audio_start_ms=start)
        return self

    def stops(self, item_id: str = "u2") -> Talk:
        kind = "input_audio_buffer.speech_stopped"
        self.server(kind, item_id=item_id, audio_end_ms=self.at_ms)
        return self

    def commits(self, item_id: str = "u2") -> Talk:
        self.server("input_audio_buffer.committed", item_id=item_id, previous_item_id="a1")
        self.added(item_id, "a1", role="user")
        return self

    def transcript(self, text: str, item_id: str = "u2") -> Talk:
        kind = "conversation.item.input_audio_transcription.completed"
        self.server(kind, item_id=item_id, transcript=text)
        return self

    def deleted(self) -> list[str]:
        return [event["item_id"] for event in self.events("conversation.item.delete")]


def _talk(*, done: bool = True, **settings: Any) -> Talk:
    talk = Talk(interruption="confirmed", inactivity_timeout_s=None, **settings)
    talk.live()
    talk.hear(800)
    talk.begin().say("one two three four", 4000)
    if done:
        talk.end_item("one two three four").done()
    talk.hear(400).played(ms=400, finished=False)
    talk.clear()
    return talk


def _cough(talk: Talk, ms: int = 200, item_id: str = "u2") -> Talk:
    talk.hear(80, LOUD).starts(item_id).hear(ms - 80, LOUD)
    return talk.hear(520).stops(item_id).commits(item_id)


def _words(talk: Talk) -> Talk:
    return talk.hear(80, LOUD).starts().hear(400, LOUD)


def test_the_server_only_reports_speech_and_decides_nothing() -> None:
    bench = Bench(interruption="confirmed")
    bench.configured()

    vad = bench.events("session.update")[0]["session"]["audio"]["input"]["turn_detection"]
    assert (vad["create_response"], vad["interrupt_response"]) == (False, False)


def test_speech_pauses_the_speaker_before_anything_else() -> None:
    talk = _talk()
    talk.hear(80, LOUD)
    talk.clear()

    talk.starts()

    assert isinstance(talk.actions[0], Publish)
    assert isinstance(talk.actions[0].message, PausePlayback)
    talk.none(FlushPlayback, Interrupted)
    assert talk.sent == []


@pytest.mark.parametrize("vad", [ServerVad(), SemanticVad("low")])
def test_enough_speech_interrupts(vad: ServerVad | SemanticVad) -> None:
    talk = _talk(turn_detection=vad)

    talk.hear(80, LOUD).starts().hear(280, LOUD)
    talk.none(FlushPlayback)
    talk.hear(80, LOUD)

    assert talk.flushes() == 1
    talk.flushed("a1", 500)
    assert talk.event("conversation.item.truncate")["audio_end_ms"] == 500
    assert talk.one(Interrupted) == Interrupted("a1", 500, "")
    talk.none(ResumePlayback)


def test_words_that_interrupt_become_a_turn_with_one_request() -> None:
    talk = _words(_talk())
    talk.flushed("a1", 500)
    assert talk.events("response.create") == []

    talk.hear(520).stops().commits()

    assert talk.one(UserItem).item_id == "u2"
    assert len(talk.events("response.create")) == 1
    assert talk.deleted() == []


def test_an_answer_under_way_is_cancelled_by_us() -> None:
    talk = _words(_talk(done=False))

    assert talk.event("response.cancel")["response_id"] == "r1"
    talk.flushed("a1", 500)
    talk.done(status="cancelled", status_details={"reason": "client_cancelled"})
    talk.hear(520).stops().commits()
    assert len(talk.events("response.create")) == 1


def test_a_question_before_an_interrupted_answer_stays_open() -> None:
    talk = Talk(interruption="confirmed", inactivity_timeout_s=None)
    talk.live()
    talk.hear(800).starts("u1")
    talk.hear(400, LOUD).stops("u1").commits("u1")
    talk.begin()
    talk.hear(40)
    _words(talk)
    talk.flushed("", 0)

    talk.done(status="cancelled", status_details={"reason": "client_cancelled"})

    assert [turn.item_id for turn in talk.core.saved.turns] == ["u1"]


@pytest.mark.parametrize("vad", [ServerVad(), SemanticVad("low")])
def test_after_a_cough_playback_resumes_and_its_item_is_deleted(
    vad: ServerVad | SemanticVad,
) -> None:
    talk = _cough(_talk(turn_detection=vad))

    assert talk.one(PausePlayback)
    assert talk.one(ResumePlayback)
    assert talk.deleted() == ["u2"]
    talk.none(FlushPlayback, Interrupted, UserItem)
    talk.wait(20)
    assert talk.events("response.create") == []


def test_sound_that_comes_in_a_pause_is_passed_on() -> None:
    talk = _talk(done=False)
    talk.hear(80, LOUD).starts()

    talk.say(" five", 500)

    assert talk.all(AssistantAudio)


def test_a_cough_is_not_heard_again_by_the_next_session() -> None:
    talk = _cough(_talk())

    assert talk.core.saved.safe_sample == 24 * talk.at_ms


def test_what_follows_a_cough_stands_behind_the_answer() -> None:
    talk = _cough(_talk())
    talk.played(ms=4000)
    talk.clear()

    talk.hear(80, LOUD).starts("u3").hear(400, LOUD).hear(520).stops("u3")
    talk.server("input_audio_buffer.committed", item_id="u3", previous_item_id="u2")

    assert talk.one(UserItem).previous_item_id == "a1"


@pytest.mark.parametrize("lost", [False, True])
def test_what_was_typed_behind_a_cough_stands_behind_the_answer(lost: bool) -> None:
    talk = _cough(_talk(**TEXT))
    talk.tell(SendText("Go on", "t1"))
    assert talk.one(UserItem).previous_item_id == "u2"

    if lost:
        talk.lose().configured()
    else:
        talk.transcript("")

    placed = [told for told in talk.all(ItemPlaced) if told.item_id == "t1"]
    assert placed[0].previous_item_id == "a1"


def test_noise_from_before_counts_as_the_room() -> None:
    hum = array("h", [1500, -1500] * 480).tobytes()
    talk = Talk(interruption="confirmed", inactivity_timeout_s=None)
    talk.live()
    talk.hear(800, hum)
    talk.answer(ms=4000)
    talk.hear(400, hum)

    talk.hear(80, LOUD).starts().hear(120, LOUD).hear(520, hum).stops().commits()

    talk.none(FlushPlayback)
    assert talk.deleted() == ["u2"]


def test_a_short_word_interrupts_when_it_has_a_text() -> None:
    talk = _cough(_talk(**TEXT))
    talk.none(ResumePlayback)
    assert talk.deleted() == []

    talk.transcript("No.")
    talk.flushed("a1", 500)

    assert talk.flushes() == 1
    assert talk.one(UserItem).item_id == "u2"
    assert talk.one(UserTranscript) == UserTranscript("u2", "No.")
    assert len(talk.events("response.create")) == 1


def test_a_piece_of_a_text_is_enough() -> None:
    talk = _talk(**TEXT)
    talk.hear(80, LOUD).starts()

    kind = "conversation.item.input_audio_transcription.delta"
    talk.server(kind, item_id="u2", delta=" ")
    talk.none(FlushPlayback)
    talk.server(kind, item_id="u2", delta="Wait")

    assert talk.flushes() == 1


@pytest.mark.parametrize("text", ["", "  "])
def test_a_cough_without_a_text_is_forgotten_when_that_is_known(text: str) -> None:
    talk = _cough(_talk(**TEXT)).transcript(text)

    assert talk.one(ResumePlayback)
    assert talk.deleted() == ["u2"]
    talk.none(UserItem, UserTranscript)


def test_a_failed_transcription_is_no_text() -> None:
    talk = _cough(_talk(**TEXT))

    kind = "conversation.item.input_audio_transcription.failed"
    talk.server(kind, item_id="u2", error={"message": "mumbling"})

    assert talk.deleted() == ["u2"]
    talk.none(UserTranscript)


def test_the_answer_goes_on_if_the_text_takes_long_and_is_interrupted_when_it_comes() -> None:
    talk = _cough(_talk(**TEXT))

    talk.wait(1.6)
    assert talk.one(ResumePlayback)
    assert talk.deleted() == []
    talk.transcript("No.")

    assert talk.flushes() == 1
    assert talk.one(UserItem).item_id == "u2"


def test_a_text_that_never_comes_counts_as_none() -> None:
    talk = _cough(_talk(**TEXT))

    talk.wait(5.1)

    assert talk.deleted() == ["u2"]


def test_the_answer_goes_on_before_a_server_that_waits_for_meaning_ends_the_turn() -> None:
    talk = _talk(turn_detection=SemanticVad("low"))
    talk.hear(80, LOUD).starts().hear(120, LOUD)

    talk.hear(920)
    talk.none(ResumePlayback)
    talk.hear(160)
    assert talk.one(ResumePlayback)
    talk.hear(5000).stops().commits()

    assert talk.deleted() == ["u2"]
    talk.none(FlushPlayback)


def test_words_after_a_cough_in_the_same_turn_interrupt() -> None:
    talk = _talk(turn_detection=SemanticVad("low"))
    talk.hear(80, LOUD).starts().hear(240, LOUD).hear(1200)
    assert talk.one(ResumePlayback)

    talk.hear(360, LOUD)
    talk.none(FlushPlayback)
    talk.hear(80, LOUD)

    assert talk.flushes() == 1


def test_speech_that_only_the_server_can_hear_interrupts_by_its_length() -> None:
    talk = _talk()
    talk.hear(80).starts()

    talk.hear(1000).stops()  # 80 + 1000 - 500 of silence

    assert talk.flushes() == 1


def test_speech_whose_end_the_server_does_not_report_is_speech() -> None:
    talk = _talk()
    talk.hear(80).starts()

    talk.hear(1360)

    assert talk.flushes() == 1


def test_a_dead_microphone_does_not_keep_playback_paused() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()

    talk.wait(1.6)

    assert talk.one(ResumePlayback)


def test_no_pause_is_longer_than_eight_seconds() -> None:
    talk = _talk(turn_detection=SemanticVad("low"))
    talk.hear(80, LOUD).starts()

    for _ in range(9):  # again and again somebody makes a noise that is not enough
        talk.wait(0.9)
        talk.core._user._doubts.get("u2").loud_ns = talk.now

    assert talk.one(ResumePlayback)


def test_a_second_cough_during_a_pause_publishes_no_second_pause() -> None:
    talk = _cough(_talk(**TEXT))

    talk.hear(80, LOUD).starts("u3").transcript("", "u2")
    talk.none(ResumePlayback)
    talk.hear(120, LOUD).hear(520).stops("u3").commits("u3").transcript("", "u3")

    assert talk.one(PausePlayback)
    assert talk.one(ResumePlayback)
    assert talk.deleted() == ["u2", "u3"]


@pytest.mark.parametrize("by", [Interrupt(), SendText("Stop", "t1")])
def test_a_program_interrupts_at_once_also_in_a_pause(by: Interrupt) -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()

    talk.tell(by)
    assert talk.flushes() == 1
    talk.flushed("a1", 500)
    talk.hear(120, LOUD).hear(520).stops().commits()

    talk.none(ResumePlayback)
    assert talk.deleted() == ["u2"]
    assert talk.one(Interrupted).heard_ms == 500


def test_a_doubt_about_an_answer_that_was_interrupted_does_not_hold_the_next_one() -> None:
    talk = _cough(_talk(**TEXT))  # its text is to come
    talk.tell(Interrupt()).flushed("a1", 500)
    talk.begin("r2", "a2").say("five six", 4000, "r2", "a2")
    talk.clear()

    _cough(talk, item_id="u3").transcript("", "u3")

    assert talk.one(ResumePlayback)


def test_speech_while_nothing_is_said_is_a_turn_whatever_its_length() -> None:
    talk = _talk()
    talk.played(ms=4000)

    _cough(talk)

    talk.none(PausePlayback, FlushPlayback)
    assert talk.one(UserItem).item_id == "u2"
    assert len(talk.events("response.create")) == 1


def test_before_the_first_sound_of_an_answer_a_cough_holds_it_back_and_lets_it_go() -> None:
    talk = Talk(interruption="confirmed", inactivity_timeout_s=None)
    talk.live()
    talk.hear(800)
    talk.begin()

    _cough(talk)

    assert talk.one(PausePlayback)
    assert talk.one(ResumePlayback)
    assert talk.events("response.cancel") == []


def test_a_requested_answer_is_held_back_and_cancelled_by_words() -> None:
    talk = Talk(interruption="confirmed", inactivity_timeout_s=None)
    talk.live()
    talk.hear(800)
    talk.tell(SendText("Hello", "t1"))

    _words(talk)
    assert talk.one(PausePlayback)
    assert talk.one(ResumePlayback)  # there is nothing to flush yet
    talk.begin()

    assert talk.event("response.cancel")["response_id"] == "r1"


def test_a_pause_does_not_count_as_a_silent_speaker() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()

    drained_at = talk.core._context.playback.drained_at()
    assert drained_at is not None
    assert drained_at > talk.now + (8 + 3 + 5) * 1_000_000_000  # pause, what is left, patience


def test_the_conversation_does_not_end_in_a_pause() -> None:
    talk = _talk(**TEXT)
    _cough(talk)
    talk.core._context.playback.give_up()

    assert talk.core._closing._facts(talk.now).busy


@pytest.mark.parametrize("late", ["stopped", "committed"])
def test_speech_whose_item_is_named_late_is_one_doubt(late: str) -> None:
    talk = _talk(**TEXT)
    talk.hear(80, LOUD)

    talk.server("input_audio_buffer.speech_started")
    assert talk.one(PausePlayback)
    talk.hear(120, LOUD).hear(520).stops("u2" if late == "stopped" else "")
    talk.commits("u2").transcript("", "u2")

    assert talk.deleted() == ["u2"]
    talk.none(FlushPlayback)


def test_words_without_an_item_interrupt() -> None:
    talk = _talk()
    talk.hear(80, LOUD)

    talk.server("input_audio_buffer.speech_started", audio_start_ms=-1)
    talk.hear(400, LOUD)

    assert talk.flushes() == 1


# -- losses ----------------------------------------------------------------------------------------


def test_what_was_in_doubt_is_heard_again_by_the_next_session() -> None:
    talk = _talk(**TEXT)
    _cough(talk)
    first = talk.core._user.speech_from()

    talk.lose()
    talk.connect()
    talk.snapshot()
    talk.server("session.updated", session={})

    from messages import ReplayCapture

    assert talk.all(ReplayCapture)[-1].from_sample == first


def test_a_pause_holds_over_a_lost_connection_but_not_for_long() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()
    talk.lose()
    talk.configured()

    talk.wait(1.4)
    talk.none(ResumePlayback)
    talk.wait(1.7)

    assert talk.one(ResumePlayback)


def test_words_interrupt_while_the_connection_is_lost() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()
    talk.lose()

    talk.hear(400, LOUD).flushed("a1", 500)

    assert talk.one(Interrupted).heard_ms == 500
    assert talk.events("conversation.item.truncate") == []


def test_the_same_speech_in_the_next_session_is_a_doubt_of_its_own() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()
    talk.lose()
    talk.configured()
    talk.clear()

    kind = "input_audio_buffer.speech_started"
    talk.server(kind, item_id="u9", audio_start_ms=0)
    talk.none(PausePlayback)  # it is paused
    talk.hear(400, LOUD)

    assert talk.flushes() == 1


def test_a_new_process_ends_a_pause_that_it_knows_of_in_time() -> None:
    talk = _talk()
    talk.hear(80, LOUD).starts()
    assert talk.core.saved.paused_by is not None

    reborn = talk.restarted()
    reborn.now = talk.now
    reborn.none(ResumePlayback)
    reborn.wait(3.1)

    assert reborn.one(ResumePlayback)


def test_a_new_process_ends_a_pause_that_was_not_saved_at_once() -> None:
    talk = _talk()

    reborn = talk.restarted()

    assert reborn.one(ResumePlayback)


def test_what_pauses_and_flushes_is_dated_in_the_order_in_which_it_is_sent() -> None:
    """Each may overtake the others, and events that were read at once have the same time."""
    talk = _talk()
    talk.hear(80, LOUD).starts().stops().commits().transcript("").starts("u3")
    talk.transcript("stop", "u3")

    kinds = (PausePlayback, ResumePlayback, FlushPlayback)
    sent = [message for message in talk.published if isinstance(message, kinds)]

    assert [type(message) for message in sent] == [
        *(PausePlayback, ResumePlayback, PausePlayback, FlushPlayback)
    ]
    dates = [message.sent_ns for message in sent]
    assert sorted(set(dates)) == dates
