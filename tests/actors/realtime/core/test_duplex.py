"""Half-duplex: the server does not hear the assistant through the microphone."""

from __future__ import annotations

import base64

import pytest

from actors.devices.echo import choice
from messages import (
    CapturedAudio,
    DeviceInUse,
    EchoState,
    Interrupt,
    Notice,
    ReplayCapture,
    ReplayedAudio,
    Settings,
    UpdateSettings,
)
from messages.hints import install
from tests.actors.realtime.core.bench import MS, NS, Bench

LOUD = b"\x22\x11" * 960
EPOCH_NS = 0


class Room(Bench):
    """What is captured lies on the timeline where the clock is."""

    def hear(self, ms: int = 40) -> list[bool]:
        """Capture so long; return for each block of 40 ms whether the server has heard it."""
        self.clear()
        for _ in range(ms // 40):
            self.wait(0.04)
            first = (self.now - EPOCH_NS) * 24_000 // NS - 960
            self.tell(CapturedAudio(LOUD, first, self.now))
        appended = [base64.b64decode(e["audio"]) for e in self.events("input_audio_buffer.append")]
        assert all(len(pcm) == 1920 for pcm in appended)
        return [any(pcm) for pcm in appended]

    def plays(self, ms: int, item_id: str = "a1", from_ms: int = 0) -> list[bool]:
        """The speaker plays on, and tells ten times a second."""
        heard = []
        for at in range(80, ms + 1, 80):
            heard += self.hear(80)
            self.played(item_id, from_ms + at, finished=False)
        return heard


def _room(**settings: object) -> Room:
    room = Room(**{"duplex": "half", "inactivity_timeout_s": None, **settings})
    room.live()
    return room


def _cards(room: Room, microphone: str = "Built-in", speaker: str = "Built-in") -> Room:
    room.tell(DeviceInUse("output", speaker, card=True))
    room.tell(DeviceInUse("input", microphone, card=True))
    return room


def test_while_the_assistant_is_audible_the_server_hears_nothing() -> None:
    room = _room()
    assert room.hear(200) == [True] * 5

    room.answer(ms=2000)
    assert not any(room.plays(2000))
    room.played("a1", 2000)

    assert not any(room.hear(240)), "the room goes on sounding"
    assert room.hear(200)[1:] == [True] * 4


def test_a_block_that_was_captured_before_is_heard_although_it_comes_later() -> None:
    room = _room()
    room.hear(40)
    first = room.now * 24_000 // NS
    room.now += 39 * MS
    room.answer(ms=500)
    room.clear()

    room.now += 1 * MS
    room.tell(CapturedAudio(LOUD, first, room.now))

    pcm = base64.b64decode(room.event("input_audio_buffer.append")["audio"])
    assert pcm == LOUD[: 2 * 936] + bytes(2 * 24)


def test_full_duplex_hears_all_the_time() -> None:
    room = _room(duplex="full")
    _cards(room)

    room.answer(ms=800)

    assert all(room.plays(800))


def test_with_push_to_talk_the_user_says_when_to_listen() -> None:
    room = _room(turn_detection=None)
    room.answer(ms=800)

    assert not room.core._duplex.is_half()


@pytest.mark.parametrize(
    ("microphone", "speaker", "half"),
    [
        ("Built-in Microphone", "Built-in Output", True),
        ("default", "default", True),
        ("AirPods von Ada", "AirPods von Ada", False),
        ("Built-in Microphone", "USB Headphones", False),
        ("Jabra Headset", "Built-in Output", False),
        ("Built-in Microphone", "External Earphones", False),
    ],
)
def test_sound_cards_without_headset_are_half_duplex_with_one_notice(
    microphone: str, speaker: str, half: bool
) -> None:
    room = _cards(_room(duplex="auto"), microphone, speaker)
    _cards(room, microphone, speaker)

    assert room.core._duplex.is_half() == half
    if half:
        text = room.one(Notice).text
        assert "Enter" in text
        assert "--full-duplex" in text
    else:
        room.none(Notice)


def test_files_and_devices_of_the_program_do_not_hear_each_other() -> None:
    room = _room(duplex="auto")

    room.tell(DeviceInUse("output", "Built-in", card=True))
    room.tell(DeviceInUse("input", "question.wav", card=False))

    assert not room.core._duplex.is_half()


def test_headphones_that_are_unplugged_make_it_half_duplex() -> None:
    room = _cards(_room(duplex="auto"), speaker="USB Headphones")
    room.none(Notice)

    room.tell(DeviceInUse("output", "Built-in Output", card=True))

    assert room.core._duplex.is_half()
    assert room.one(Notice)


def test_after_an_interruption_by_key_the_server_hears_again() -> None:
    room = _room()
    room.answer(ms=4000)
    room.plays(400)

    room.tell(Interrupt()).flushed("a1", 400)
    assert not any(room.hear(240))

    assert all(room.hear(200)[1:])


def test_between_two_items_that_follow_each_other_nothing_is_heard() -> None:
    room = _room()
    room.answer("r1", "a1", ms=400).begin("r2", "a2").say("More", 400, "r2", "a2")
    room.end_item("More", "r2", "a2").done("r2")

    room.plays(400, "a1")
    room.played("a1", 400)

    assert not any(room.plays(400, "a2"))


def test_a_stalled_answer_does_not_keep_the_server_deaf() -> None:
    room = _room()
    room.begin().say(ms=400)
    room.plays(400)

    room.hear(1400)  # nothing more of it comes

    assert all(room.hear(200))
    room.say(" and more", 400)
    assert not any(room.plays(400, from_ms=400))


def test_audio_for_a_lost_speaker_does_not_keep_the_server_deaf() -> None:
    room = _room()
    room.answer(ms=4000)
    room.plays(400)
    for _ in range(10):
        room.hear(200)
        room.played("a1", 400, finished=False)  # it waits
    assert all(room.hear(200))

    room.tell(DeviceInUse("output", "Built-in", card=True))

    assert not any(room.plays(400, from_ms=400))


def test_what_is_sent_again_to_another_session_is_as_silent_as_before() -> None:
    room = _room()
    begin = room.now * 24_000 // NS
    room.answer(ms=800)
    room.plays(800)
    room.played("a1", 800)
    room.hear(400)
    room.lose()
    room.configured()
    replay = room.all(ReplayCapture)[-1]
    room.clear()

    room.tell(ReplayedAudio(LOUD * 30, begin, replay.request_id))

    pcm = base64.b64decode(room.event("input_audio_buffer.append")["audio"])
    silent = 2 * 24 * (800 + 250)
    assert len(pcm) == len(LOUD) * 30
    assert not any(pcm[: silent - 100])
    assert all(pcm[silent + 100 :])


def test_after_a_death_half_duplex_is_as_before() -> None:
    room = _cards(_room(duplex="auto"))
    room.answer(ms=4000)
    room.plays(400)
    room.clear()

    reborn = room.restarted()
    reborn.__class__ = Room
    assert isinstance(reborn, Room)
    reborn.now = room.now
    reborn.live()

    assert reborn.core._duplex.is_half()
    assert not any(reborn.plays(400, from_ms=400))
    reborn.none(Notice)


def test_the_kept_intervals_are_bounded() -> None:
    room = _room()

    for number in range(300):
        room.answer(f"r{number}", f"a{number}", ms=100)
        room.wait(0.1)
        room.played(f"a{number}", 100)
        room.wait(0.4)

    assert len(room.core.saved.audible) < 150


# -- echo that is cancelled -----------------------------------------------------------------------


def _cancelling(**settings: object) -> Room:
    """Return a room with an open loudspeaker whose echo is to be cancelled."""
    room = _room(**{"duplex": "auto", **settings})
    room.tell(DeviceInUse("output", "Built-in", card=True))
    room.tell(EchoState("learning"))
    room.tell(DeviceInUse("input", "Built-in", card=True))
    return room


def _sample(room: Room) -> int:
    return (room.now - EPOCH_NS) * 24_000 // NS


def test_it_listens_while_it_speaks_from_the_sample_at_which_its_echo_is_cancelled() -> None:
    room = _cancelling()
    room.answer(ms=4000)
    assert not any(room.plays(400)), "it is not known yet"

    room.tell(EchoState("cancelled", from_sample=_sample(room)))

    assert all(room.plays(400, from_ms=400))
    room.none(Notice)


def test_it_is_half_duplex_again_from_the_sample_at_which_it_is_not_and_that_is_said_once() -> None:
    room = _cancelling()
    room.tell(EchoState("cancelled", from_sample=_sample(room)))
    room.answer(ms=8000)
    room.plays(400)

    room.tell(
        EchoState("failed", reason="only 6 dB of it are taken away", from_sample=_sample(room))
    )
    text = room.one(Notice).text
    failed = room.plays(400, from_ms=400)
    room.tell(EchoState("cancelled", from_sample=_sample(room)))
    room.tell(
        EchoState("failed", reason="only 5 dB of it are taken away", from_sample=_sample(room))
    )

    assert not any(failed)
    assert "only 6 dB of it are taken away" in text
    room.none(Notice)


def test_what_was_silenced_is_so_in_a_replay_too_and_what_was_heard_is_heard() -> None:
    room = _cancelling()
    begin = _sample(room)
    room.answer(ms=4000)
    room.plays(400)
    opened = _sample(room)
    room.tell(EchoState("cancelled", from_sample=opened))
    room.plays(400, from_ms=400)
    room.lose()
    room.configured()
    replay = room.all(ReplayCapture)[-1]
    room.clear()

    room.tell(ReplayedAudio(LOUD * 20, begin, replay.request_id))

    pcm = base64.b64decode(room.event("input_audio_buffer.append")["audio"])
    edge = 2 * (opened - begin)
    assert not any(pcm[:edge])
    assert all(pcm[edge:])


@pytest.mark.parametrize(("duplex", "heard"), [("half", False), ("full", True)])
def test_half_and_full_duplex_go_before_it(duplex: str, heard: bool) -> None:
    room = _cancelling(duplex=duplex)
    state = "cancelled" if duplex == "half" else "failed"
    room.tell(EchoState(state, from_sample=_sample(room)))  # type: ignore[arg-type]
    room.answer(ms=800)

    assert set(room.plays(800)) == {heard}


def test_half_duplex_that_is_chosen_in_the_middle_of_an_answer_holds_at_once() -> None:
    room = _cancelling()
    room.tell(EchoState("cancelled", from_sample=_sample(room)))
    room.answer(ms=4000)
    assert all(room.plays(400))

    room.tell(UpdateSettings({"duplex": "half"}))

    assert not any(room.plays(400, from_ms=400))


def test_that_it_is_off_is_said_as_before() -> None:
    room = _room(duplex="auto")
    room.tell(EchoState("off", reason="it is switched off"))

    _cards(room)

    assert "--full-duplex" in room.one(Notice).text


def test_a_missing_package_is_named_in_the_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    room = _room(duplex="auto")
    room.tell(EchoState("off", reason=choice.why_not(Settings(), "Built-in", cards=True)))

    _cards(room)

    text = room.one(Notice).text
    assert text.endswith(f"Or let it cancel the echo: {install('pywebrtc-audio')}.")


@pytest.mark.parametrize(
    ("state", "given", "confirmed"),
    [
        ("learning", None, True),
        ("cancelled", None, True),
        ("off", None, False),
        ("cancelled", "immediate", False),
        ("off", "confirmed", True),
    ],
)
def test_interruptions_are_confirmed_where_echo_is_cancelled(
    state: str, given: str | None, confirmed: bool
) -> None:
    room = _room(duplex="auto", interruption=given)
    room.clear()

    room.tell(EchoState(state))  # type: ignore[arg-type]

    detection = [
        event["session"]["audio"]["input"]["turn_detection"]
        for event in room.events("session.update")
    ]
    changed = given is None and confirmed
    assert [each["interrupt_response"] for each in detection] == [False] * changed
    in_force = room.core._context.settings.interruption
    assert in_force == ("confirmed" if confirmed else "immediate")
    assert room.restarted().core._context.settings.interruption == in_force


def test_what_is_kept_of_what_was_cancelled_has_a_bound() -> None:
    room = _cancelling()

    for _ in range(300):
        room.wait(0.5)
        room.tell(EchoState("cancelled", from_sample=_sample(room)))
        room.wait(0.5)
        room.tell(EchoState("learning", from_sample=_sample(room)))

    assert len(room.core.saved.cancelled) < 80
