"""Push-to-talk: which audio is sent, when it is committed, and what a lost session costs."""

from __future__ import annotations

import base64
import collections
import random
from typing import Any

import pytest

from actors.realtime.core.restore import MAX_REPEATS
from messages import (
    CaptureEnded,
    ConversationItem,
    ConversationOver,
    CreateResponse,
    FlushPlayback,
    Notice,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    StartTalking,
    StopTalking,
    UpdateSettings,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
)
from tests.actors.realtime.core.bench import Bench

BLOCK = 960
PREROLL = 7200
"""300 ms."""


def pcm_of(first: int, last: int) -> bytes:
    """Return audio that encodes its own sample positions."""
    return b"".join((sample % 30_000).to_bytes(2, "little") for sample in range(first, last))


def place_of(pcm: bytes) -> tuple[int, int]:
    """Return where the first sample of `pcm_of` is, and how many there are."""
    return int.from_bytes(pcm[:2], "little"), len(pcm) // 2


class Microphone:
    """Captures block by block, as time goes by, and remembers the last 30 seconds."""

    def __init__(self, bench: Bench, first: int = 0) -> None:
        self.bench = bench
        self.next = first
        self.answered = 0

    def hear(self, ms: int) -> Microphone:
        for _ in range(ms // 40):
            self.bench.wait(0.04)
            self.bench.capture_pcm(pcm_of(self.next, self.next + BLOCK), self.next)
            self.next += BLOCK
        return self

    def replay(self) -> Microphone:
        """Answer the request for a replay."""
        asked = self.bench.all(ReplayCapture)
        for request in asked[self.answered :]:
            for first in range(request.from_sample, self.next, BLOCK):
                pcm = pcm_of(first, min(first + BLOCK, self.next))
                self.bench.tell(ReplayedAudio(pcm, first, request.request_id))
            self.bench.tell(ReplayEnded(self.next, request.request_id))
        self.answered = len(asked)
        return self


def talker(**settings: Any) -> tuple[Bench, Microphone]:
    """Return a live session with push-to-talk, and the microphone after a second."""
    bench = Bench(**{"turn_detection": None, **settings}).live()
    return bench, Microphone(bench).hear(1000)


def press(bench: Bench, microphone: Microphone) -> None:
    bench.tell(StartTalking())
    microphone.replay()


def release(bench: Bench, **fields: Any) -> None:
    bench.tell(StopTalking(**fields))


def committed(bench: Bench, item_id: str = "u1") -> None:
    bench.server("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
    bench.added(item_id, role="user")


# -- a turn ----------------------------------------------------------------------------------------


def test_nothing_is_sent_while_nobody_talks() -> None:
    bench, microphone = talker()

    microphone.hear(5000)

    assert bench.sent == []


def test_a_turn_has_the_preroll_and_all_until_the_release_and_is_answered() -> None:
    bench, microphone = talker()

    press(bench, microphone)
    microphone.hear(1000)
    release(bench)

    assert bench.appended() == pcm_of(24_000 - PREROLL, 48_000)
    kinds = [kind for kind in bench.kinds() if kind != "input_audio_buffer.append"]
    assert kinds == ["input_audio_buffer.clear", "input_audio_buffer.commit", "response.create"]
    assert bench.kinds()[-2:] == kinds[-2:]


def test_an_answer_is_asked_for_with_the_sound_that_ends_the_turn() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)

    bench.wait(0.02)
    release(bench)
    bench.now += 20_000_000  # and nothing else happens
    bench.capture_pcm(pcm_of(48_000, 48_960), 48_000)

    assert bench.appended()[-2:] == pcm_of(48_479, 48_480)
    assert bench.kinds()[-2:] == ["input_audio_buffer.commit", "response.create"]


def test_the_preroll_may_be_longer_or_none() -> None:
    for preroll_ms, first in ((1000, 0), (0, 24_000)):
        bench, microphone = talker(preroll_ms=preroll_ms)

        press(bench, microphone)

        assert bench.appended() == pcm_of(first, 24_000)


def test_a_turn_begins_at_the_key_press_however_late_it_is_reported() -> None:
    bench, microphone = talker()
    pressed = bench.now
    microphone.hear(1000)
    released = bench.now
    microphone.hear(1000)

    bench.tell(StartTalking(pressed))
    bench.tell(StopTalking(released))
    microphone.replay()

    assert bench.appended() == pcm_of(24_000 - PREROLL, 48_000)
    assert len(bench.events("input_audio_buffer.commit")) == 1


def test_the_end_of_the_last_word_is_waited_for() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)
    bench.wait(0.03)  # within a block

    release(bench)
    early = bench.events("input_audio_buffer.commit")
    microphone.hear(40)

    assert early == []
    assert bench.appended() == pcm_of(24_000 - PREROLL, 48_000 + 720)
    assert len(bench.events("input_audio_buffer.commit")) == 1


def test_a_silent_microphone_does_not_delay_a_turn() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)
    bench.wait(0.03)

    release(bench)
    bench.wait(2)

    assert len(bench.events("input_audio_buffer.commit")) == 1
    assert len(bench.events("response.create")) == 1


@pytest.mark.parametrize("held_ms", [0, 40, 80])
def test_a_very_short_key_press_makes_no_turn(held_ms: int) -> None:
    bench, microphone = talker()

    press(bench, microphone)
    microphone.hear(held_ms)
    release(bench)
    microphone.hear(1000)

    assert bench.events("input_audio_buffer.commit") == []
    assert bench.kinds()[-1] == "input_audio_buffer.clear"
    assert bench.events("response.create") == []
    assert bench.core.saved.talks == []


def test_a_turn_is_published_with_its_place_and_gets_its_transcript() -> None:
    bench, microphone = talker(transcription_model="gpt-live-transcribe")
    press(bench, microphone)
    microphone.hear(1000)
    release(bench)

    committed(bench)

    item = bench.one(UserItem)
    assert (item.item_id, item.spoken, item.transcript_expected) == ("u1", True, True)
    assert (item.first_sample, item.last_sample) == (24_000 - PREROLL, 48_000)
    assert bench.one(UserSpeechStarted).first_sample == 24_000 - PREROLL
    assert bench.one(UserSpeechStopped) == UserSpeechStopped("u1", 48_000)
    assert bench.core.saved.talks == []


def test_a_turn_that_is_not_to_be_answered_is_kept() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)

    release(bench, respond=False)
    committed(bench)
    bench.wait(30)

    assert bench.one(UserItem).item_id == "u1"
    assert bench.events("response.create") == []


# -- the key interrupts ----------------------------------------------------------------------------


def test_the_key_flushes_and_cancels_the_answer_before_audio_is_sent() -> None:
    bench, microphone = talker()
    bench.begin().say()

    press(bench, microphone)

    assert bench.flushes() == 1
    assert bench.kinds()[:2] == ["response.cancel", "input_audio_buffer.clear"]
    flush = next(i for i, m in enumerate(bench.published) if isinstance(m, FlushPlayback))
    replay = next(i for i, m in enumerate(bench.published) if isinstance(m, ReplayCapture))
    assert flush < replay


def test_an_answer_is_asked_for_when_the_cancelled_one_is_over() -> None:
    bench, microphone = talker()
    bench.begin().say()
    press(bench, microphone)
    bench.flushed("a1", 400)
    microphone.hear(400)
    release(bench)
    early = bench.events("response.create")

    bench.done(status="cancelled")

    assert early == []
    assert len(bench.events("response.create")) == 1
    assert bench.event("conversation.item.truncate")["audio_end_ms"] == 400


def test_no_response_is_requested_while_the_key_is_pressed() -> None:
    bench, microphone = talker(inactivity_timeout_s=5.0)
    press(bench, microphone)

    bench.tell(CreateResponse())
    microphone.hear(10_000)
    during = bench.events("response.create")
    release(bench)

    assert during == []
    assert len(bench.events("response.create")) == 1
    bench.none(ConversationOver)


def test_a_short_key_press_does_not_shorten_the_next_preroll() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(80)
    release(bench)
    begin = len(bench.appended())

    press(bench, microphone)
    microphone.hear(400)
    release(bench)

    pressed = 24_000 + 2 * BLOCK
    assert bench.appended()[begin:] == pcm_of(pressed - PREROLL, pressed + 9600)


# -- several ---------------------------------------------------------------------------------------


def test_turns_that_follow_each_other_share_no_sound() -> None:
    bench, microphone = talker()

    press(bench, microphone)
    microphone.hear(400)
    release(bench)
    press(bench, microphone)
    microphone.hear(400)
    release(bench)

    end = 24_000 + 2 * 9600
    assert bench.appended() == pcm_of(24_000 - PREROLL, end)
    assert len(bench.events("input_audio_buffer.commit")) == 2


@pytest.mark.parametrize("late_ms", [0, 40])
def test_a_turn_that_begins_before_the_last_sound_of_another_cuts_neither(late_ms: int) -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)
    bench.wait(0.03)
    release(bench)

    bench.tell(StartTalking())
    microphone.hear(late_ms).replay().hear(400)
    release(bench)

    at = [i for i, kind in enumerate(bench.kinds()) if kind == "input_audio_buffer.commit"]
    assert len(at) == 2
    assert bench.appended() == pcm_of(24_000 - PREROLL, microphone.next)
    assert len(bench.events("input_audio_buffer.clear")) == 1


def test_the_same_key_twice_is_once() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    press(bench, microphone)
    microphone.hear(400)

    release(bench)
    release(bench)

    assert len(bench.events("input_audio_buffer.commit")) == 1
    assert bench.appended() == pcm_of(24_000 - PREROLL, 24_000 + 9600)


def test_the_end_of_the_input_ends_the_turn_and_then_the_conversation() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)

    bench.tell(CaptureEnded(microphone.next))
    assert len(bench.events("input_audio_buffer.commit")) == 1
    committed(bench)
    bench.server("response.created", response={"id": "r1"}).done()
    microphone.hear(1500)

    assert bench.one(ConversationOver).reason == "end of input"


# -- losses ----------------------------------------------------------------------------------------


def lose(bench: Bench) -> None:
    bench.lose().clear_but_requests()
    bench.configured()


@pytest.mark.parametrize("died", [False, True])
def test_what_was_said_so_far_is_said_again_to_the_next_server(died: bool) -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)

    if died:
        bench = bench.restarted()
        microphone = Microphone(bench, microphone.next)
        bench.configured()
    else:
        lose(bench)
        microphone.answered = 0
    microphone.hear(200).replay().hear(400)
    release(bench)

    assert bench.appended() == pcm_of(24_000 - PREROLL, microphone.next)
    assert bench.kinds()[-2:] == ["input_audio_buffer.commit", "response.create"]


def test_a_key_that_is_pressed_and_released_without_a_server_makes_a_turn() -> None:
    bench, microphone = talker()
    bench.lose().clear_but_requests()
    bench.tell(StartTalking())
    microphone.hear(1000)
    release(bench)
    first, last = 24_000 - PREROLL, microphone.next

    bench.configured()
    microphone.hear(200).replay()

    assert bench.appended() == pcm_of(first, last)
    assert bench.kinds()[-2:] == ["input_audio_buffer.commit", "response.create"]


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_turn_without_an_answer_or_a_text_is_heard_again(confirmed: bool) -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(1000)
    release(bench)
    if confirmed:
        committed(bench)

    lose(bench)
    microphone.answered = 0
    microphone.hear(200).replay().hear(200)

    assert bench.appended() == pcm_of(24_000 - PREROLL, 48_000)
    assert len(bench.events("input_audio_buffer.commit")) == 1
    assert len(bench.events("response.create")) == 1


def test_a_turn_that_is_known_as_text_is_not_heard_again_but_answered() -> None:
    bench, microphone = talker(transcription_model="gpt-transcribe")
    press(bench, microphone)
    microphone.hear(1000)
    release(bench)
    committed(bench)
    kind = "conversation.item.input_audio_transcription.completed"
    bench.server(kind, item_id="u1", transcript="Hello")
    bench.history = [ConversationItem("u1", "message", "user", "Hello")]

    lose(bench)
    microphone.answered = 0
    microphone.hear(200).replay()

    assert bench.appended() == b""
    assert [item["id"] for item in bench.items()] == ["msg_u1"]
    assert len(bench.events("response.create")) == 1


def test_a_turn_is_heard_again_if_the_session_that_was_to_hear_it_is_lost_too() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)
    release(bench)
    committed(bench)

    bench.lose().clear_but_requests()
    bench.connect().snapshot()
    lose(bench)
    microphone.answered = 0
    microphone.replay()

    assert bench.appended() == pcm_of(24_000 - PREROLL, 24_000 + 9600)
    assert len(bench.events("input_audio_buffer.commit")) == 1


def test_a_turn_and_the_next_one_are_heard_again_in_order_and_apart() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)
    release(bench)
    committed(bench)
    microphone.hear(2000)
    press(bench, microphone)
    second = microphone.next - PREROLL
    microphone.hear(400)

    lose(bench)
    microphone.answered = 0
    microphone.replay().hear(400)
    release(bench)

    first = pcm_of(24_000 - PREROLL, 24_000 + 9600)
    assert bench.appended() == first + pcm_of(second, microphone.next)
    kinds = [kind for kind in bench.kinds() if "append" not in kind and "session" not in kind]
    assert kinds == ["input_audio_buffer.commit", "input_audio_buffer.commit", "response.create"]


def test_a_turn_that_kills_each_server_is_given_up() -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)
    release(bench)

    for _ in range(MAX_REPEATS + 1):
        bench.none(Notice)
        lose(bench)
        microphone.answered = 0
        microphone.replay()

    assert "please say it again" in bench.all(Notice)[-1].text
    assert bench.appended() == b""
    assert bench.core.saved.talks == []


@pytest.mark.parametrize("of", ["input_audio_buffer.commit", ""])
def test_what_the_server_does_not_commit_is_not_waited_for(of: str) -> None:
    bench, microphone = talker()
    press(bench, microphone)
    microphone.hear(400)
    release(bench)

    bench.error("input_audio_buffer_commit_empty", of)

    assert bench.core.saved.talks == []


# -- switching -------------------------------------------------------------------------------------


def test_without_push_to_talk_the_key_says_so() -> None:
    bench = Bench().live()

    bench.tell(StartTalking()).tell(StopTalking())

    assert "turn detection is switched on" in bench.one(Notice).text
    assert bench.sent == []


def test_turn_detection_is_switched_off_and_on_while_it_goes_on() -> None:
    bench = Bench().live()
    microphone = Microphone(bench).hear(400)
    bench.tell(UpdateSettings({"turn_detection": None}))
    microphone.hear(400)
    press(bench, microphone)
    microphone.hear(400)

    bench.tell(UpdateSettings({"turn_detection": {"type": "server_vad"}}))
    microphone.hear(400)

    talked = pcm_of(19_200 - PREROLL, 19_200 + 9600)
    assert talked in bench.appended()
    assert bench.appended().startswith(pcm_of(0, 9600))
    assert bench.appended().endswith(pcm_of(28_800, 38_400))
    assert bench.core.saved.talks == []


# -- laws ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_turn_is_committed_with_all_its_sound(seed: int) -> None:
    choose = random.Random(seed)
    bench, microphone = talker(inactivity_timeout_s=None)
    turns: list[tuple[int, int]] = []
    done: collections.Counter[bytes] = collections.Counter()
    buffer = b""
    read = 0
    item = 0
    waiting: list[bytes] = []
    pressed: int | None = None
    last = 0

    def server_reads() -> None:
        nonlocal buffer, read
        for event in bench.sent[read:]:
            match event["type"]:
                case "input_audio_buffer.append":
                    buffer += base64.b64decode(event["audio"])
                case "input_audio_buffer.clear":
                    buffer = b""
                case "input_audio_buffer.commit":
                    waiting.append(buffer)
                    buffer = b""
        read = len(bench.sent)

    def server_confirms() -> None:
        nonlocal item
        while waiting:
            done[waiting.pop(0)] += 1
            item += 1
            committed(bench, f"u{item}")
            bench.server(
                "conversation.item.input_audio_transcription.completed",
                item_id=f"u{item}",
                transcript="Hello",
            )

    for _ in range(60):
        match choose.choice(["key", "hear", "hear", "hear", "confirm", "lose", "die"]):
            case "key" if pressed is None:
                pressed = microphone.next
                press(bench, microphone)
            case "key":
                if microphone.next - pressed >= 2400:
                    turns.append((max(last, pressed - PREROLL), microphone.next))
                    last = microphone.next
                release(bench)
                pressed = None
            case "hear":
                microphone.hear(choose.choice([40, 200, 400]))
            case "confirm":
                server_reads()
                server_confirms()
            case "lose" | "die" as what:
                server_reads()
                server_confirms()
                buffer, read = b"", 0
                if what == "lose":
                    bench.lose().clear_but_requests()
                else:
                    now, bench = bench.now, bench.restarted()
                    bench.now = now
                    microphone = Microphone(bench, microphone.next).hear(40)
                bench.configured()
                microphone.answered = 0
                microphone.replay()
        server_reads()
    if pressed is not None:
        microphone.hear(400)
        turns.append((max(last, pressed - PREROLL), microphone.next))
        release(bench)
    server_reads()
    server_confirms()

    assert {place_of(pcm): times for pcm, times in done.items()} == dict.fromkeys(
        ((first % 30_000, last - first) for first, last in turns), 1
    )
    assert set(done) == {pcm_of(*turn) for turn in turns}
    assert bench.core.saved.talks == []
