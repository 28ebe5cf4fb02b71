"""Microphone and speaker when their device is lost, and when a better one appears."""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import microphone
from actors.microphone import Microphone
from actors.speaker import Speaker
from messages import (
    AssistantAudio,
    AudioLost,
    CapturedAudio,
    Crashed,
    DeviceLost,
    FlushPlayback,
    Inject,
    Interrupt,
    Notice,
    PlaybackFlushed,
    PlayedAudio,
    PlayedPosition,
    SetMuted,
)
from tests.actors.devices.card import fake_card
from tests.actors.devices.card.fake_card import CAPTURE, PLAYBACK, WAITING
from tests.rig import Rig, until


@pytest.fixture(autouse=True)
def devices() -> list[Any]:
    fake_card.reset()
    return fake_card.made


def audio(samples: int, first: int = 0, *, last: bool = False) -> AssistantAudio:
    """Return audio of one item; each sample says which it is."""
    pcm = array("h", [(first + i) % 30_000 + 1 for i in range(samples)]).tobytes()
    return AssistantAudio(pcm, "item", "response", first, last)


def renewed(rig: Rig) -> str:
    """Return why a new process was asked for, and that it was asked for in order."""
    crash = rig.expect(Crashed)
    assert (crash.renews, crash.plain) == (True, True), crash
    return crash.error


def next_process(rig: Rig, **settings: Any) -> None:
    """Have the actor opened as if in a new process."""
    rig.host.keep.clear()
    rig.session = msgspec.structs.replace(rig.session, first=False)
    rig.settings = msgspec.structs.replace(rig.settings, **settings)
    rig.open()


# -- the microphone -------------------------------------------------------------------------------


def test_a_lost_microphone_is_reported_and_asks_for_a_new_process(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        rig.expect(CapturedAudio)
        devices[0].lost = "it has stopped"

        assert renewed(rig) == "its device is lost: it has stopped"

        assert rig.expect(DeviceLost) == DeviceLost("microphone", "fake", "it has stopped")
        assert not devices[0].closed  # that may hang
        rig.host.keep.clear()


def test_a_microphone_goes_at_once_to_the_device_that_is_there_again(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        devices[0].lookout.find("the device 'headset' is there")

        assert renewed(rig) == "the device 'headset' is there"
        assert devices[0].lookout.closed


def test_the_length_of_a_loss_is_reported_when_audio_is_back(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        first = rig.expect(CapturedAudio)
        devices[0].lost = "gone"
        renewed(rig)
        heard = [first, *rig.take(CapturedAudio)][-1].first_sample
        next_process(rig, input="silence")
        rig.expect(CapturedAudio, lambda block: block.first_sample > heard + 9_600)

        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)
        next_process(rig, input=CAPTURE)

        after = rig.expect(
            CapturedAudio, lambda block: block.gap and block.first_sample > heard + 9_600
        )
        lost = rig.expect(AudioLost)
        assert lost.component == "microphone"
        assert 360 <= lost.audio_ms <= (after.first_sample - heard) / 24


def test_a_microphone_that_delivers_only_zeros_is_reopened_once(
    tmp_path: Path, devices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "_ZEROS_S", 0.2)
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        assert "nothing but zeros" in renewed(rig)
        assert rig.expect(DeviceLost).reason == "it delivers nothing but zeros"

        next_process(rig)
        assert rig.expect(Notice).text.startswith("Nothing is heard")
        assert not rig.take(Crashed)


def test_a_microphone_that_begins_to_deliver_zeros_is_reopened(
    tmp_path: Path, devices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "_ZEROS_S", 0.2)
    monkeypatch.setattr(fake_card.FakeCapture, "sample", 7)
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        for _ in range(10):
            rig.expect(CapturedAudio)
        assert not rig.take(Crashed)

        devices[0].sample = 0

        assert "nothing but zeros" in renewed(rig)


def test_pauses_of_zeros_are_not_added_up(
    tmp_path: Path, devices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "_ZEROS_S", 0.2)
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        for block in range(20):
            devices[0].sample = int(block % 3 == 0)
            rig.expect(CapturedAudio)

        assert not rig.take(Crashed)


def test_a_muted_microphone_is_not_called_deaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "_ZEROS_S", 0.2)
    monkeypatch.setattr(fake_card.FakeCapture, "sample", 7)
    with Rig(Microphone, tmp_path, input=CAPTURE) as rig:
        rig.tell(SetMuted(True))
        for _ in range(15):
            rig.expect(CapturedAudio)

        assert not rig.take(Crashed)


# -- the speaker ----------------------------------------------------------------------------------


def test_what_a_lost_loudspeaker_had_taken_and_not_played_is_played_by_the_next(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Speaker, tmp_path, output=PLAYBACK) as rig:
        rig.tell(audio(7_200))
        rig.expect(PlayedPosition, lambda at: at.played_samples > 2_400)
        devices[0].late_ns = 10**10  # from now on nothing is heard
        devices[0].lost = "unplugged"
        assert "unplugged" in renewed(rig)
        assert rig.expect(DeviceLost) == DeviceLost("speaker", "fake", "unplugged")
        heard = [sample for block in rig.take(PlayedAudio) for sample in samples(block)]

        next_process(rig)
        rig.tell(audio(2_400, 7_200, last=True))

        end = rig.expect(PlayedPosition, lambda at: at.finished)
        heard += [sample for block in rig.take(PlayedAudio) for sample in samples(block)]
        assert end.played_samples == 9_600
        assert set(range(1, 9_601)) <= set(heard)
        assert not rig.take(AudioLost)


def test_audio_that_is_handed_over_is_not_reported_as_lost(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Speaker, tmp_path, output=PLAYBACK) as rig:
        first = AssistantAudio(b"\1\0" * 7_200, "first", "response", 0, True)
        rig.tell(first)
        rig.tell(audio(9_600))
        rig.expect(PlayedPosition, lambda at: at.played_samples > 0)
        devices[0].late_ns = 10**10  # from now on nothing is heard
        until(lambda: rig.host.keep["mark"].taken().get("item", 0) > 0, "nothing was taken")
        devices[0].lost = "unplugged"
        renewed(rig)

        next_process(rig)
        rig.tell(first)
        rig.tell(audio(9_600, last=True))

        rig.expect(PlayedPosition, lambda at: at.item_id == "item" and at.finished)
        assert not rig.take(AudioLost)


def samples(block: PlayedAudio) -> list[int]:
    return array("h", block.pcm).tolist()


def test_a_loudspeaker_goes_to_the_device_that_is_there_again_when_it_is_quiet(
    tmp_path: Path, devices: list[Any]
) -> None:
    with Rig(Speaker, tmp_path, output=PLAYBACK) as rig:
        rig.tell(audio(9_600, last=True))
        rig.expect(PlayedPosition)

        devices[0].lookout.find("the device 'headset' is there")
        end = rig.expect(PlayedPosition, lambda at: at.finished)

        assert renewed(rig) == "the device 'headset' is there"
        assert end.played_samples == 9_600
        assert len(devices) == 1


def test_what_is_said_without_a_device_waits_for_it(tmp_path: Path, devices: list[Any]) -> None:
    with Rig(Speaker, tmp_path, output=WAITING) as rig:
        rig.tell(audio(4_800))
        rig.tell(audio(2_400, 4_800, last=True))
        for _ in range(3):  # or realtime would take it for played after a while
            assert rig.expect(PlayedPosition).played_samples == 0

        devices[0].lookout.find("the device 'headset' is there")
        renewed(rig)
        next_process(rig, output=PLAYBACK)
        rig.tell(audio(2_400, 4_800, last=True))

        assert rig.expect(PlayedPosition, lambda at: at.finished).played_samples == 7_200


@pytest.mark.parametrize("hold_s", [0.0, 0.3])
def test_what_has_waited_long_enough_counts_as_not_heard(tmp_path: Path, hold_s: float) -> None:
    with Rig(Speaker, tmp_path, output=WAITING, output_hold_s=hold_s) as rig:
        began = time.monotonic()
        rig.tell(audio(4_800, last=True))

        rig.expect(Interrupt)  # which realtime answers with a flush
        waited_s = time.monotonic() - began
        rig.tell(FlushPlayback("the program interrupts"))

        assert rig.expect(PlaybackFlushed).played_samples == 0
        assert waited_s >= hold_s
        rig.wait_handled(held=1)
