"""The microphone: blocks on a timeline, muting, replay, and the least possible loss."""

from __future__ import annotations

import os
import signal
import time
import wave
from array import array
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors import microphone
from actors.devices.base import Captured
from actors.devices.echo import choice
from actors.devices.faltering import NOT_SERVED
from actors.devices.mark import Mark
from actors.devices.sound.wav import WavTarget
from actors.microphone import Microphone
from messages import (
    AudioLost,
    CapturedAudio,
    CaptureEnded,
    Crashed,
    DeviceInUse,
    EchoState,
    Inject,
    InputLevel,
    Notice,
    ProgramCapture,
    ProgramCaptureEnded,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    SetMuted,
    SoundFaltered,
    UseInput,
    Wanted,
)
from messages.hints import install
from tests.actors.devices.card import echoing
from tests.actors.devices.echo import rooms
from tests.actors.process import ProcessRig
from tests.rig import Rig

BLOCK = 960


def pcm(samples: int, start: int = 1) -> bytes:
    """Return samples that tell where they come from, none of them zero."""
    return array("h", [(start + i - 1) % 32_000 + 1 for i in range(samples)]).tobytes()


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Return a WAV file of 300 ms."""
    path = tmp_path / "speech.wav"
    target = WavTarget(path, 1, fresh=True)
    target.write(0, pcm(7_200))
    target.close()
    return path


def sound(blocks: list[CapturedAudio]) -> bytes:
    """Return what was captured, without the silence around it."""
    return b"".join(block.pcm for block in blocks if any(block.pcm)).rstrip(b"\0")


def block_after(rig: Rig, sample: int) -> CapturedAudio:
    return rig.expect(CapturedAudio, lambda block: block.first_sample > sample)


class _DeadlyMark(Mark):
    """Kills the process when it is noted that the input has ended."""

    def __setitem__(self, index: int, value: int) -> None:
        super().__setitem__(index, value)
        if index == microphone._ENDED:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingAtTheEnd(Microphone):
    def opened(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(microphone, "Mark", _DeadlyMark)
            super().opened()


# -- capturing ------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_then_silence_follows(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        ended = rig.expect(CaptureEnded)
        blocks = rig.take(CapturedAudio)
        after = block_after(rig, ended.last_sample)

        assert sound(blocks) == pcm(7_200)
        assert ended.last_sample == blocks[0].first_sample + 7_200 - 1
        assert not any(after.pcm)


def test_the_end_of_a_file_is_not_lost_when_the_process_dies_after_noting_it(
    tmp_path: Path, speech: Path
) -> None:
    with ProcessRig(DyingAtTheEnd, tmp_path, input=str(speech)) as rig:
        assert rig.expect(CaptureEnded).last_sample > 0


def test_a_file_and_silence_are_captured_in_longer_blocks(tmp_path: Path, speech: Path) -> None:
    for source in ("silence", str(speech)):
        with Rig(Microphone, tmp_path, input=source) as rig:
            assert len(rig.expect(CapturedAudio).pcm) == 2 * 2_400


def test_blocks_have_the_length_of_the_setting_and_follow_each_other(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence", block_ms=20) as rig:
        blocks = [rig.expect(CapturedAudio) for _ in range(8)]

        assert {len(block.pcm) for block in blocks} == {2 * 480}
        assert all(b.first_sample - a.first_sample == 480 for a, b in pairwise(blocks))
        assert not any(block.gap for block in blocks)


def test_the_timeline_is_that_of_the_session(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence", block_ms=40) as rig:
        block = rig.expect(CapturedAudio)

        end_ns = block.captured_ns - rig.session.epoch_ns
        assert block.first_sample + BLOCK == pytest.approx(end_ns * 24e-6, abs=2)
        assert block.captured_ns <= time.monotonic_ns()


def test_channels_that_cancel_each_other_out_are_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 24_000, 0, "NONE", ""))
        file.writeframes(array("h", [1000, -1000] * 12_000).tobytes())

    with ProcessRig(Microphone, tmp_path, input=str(path)) as rig:
        first = rig.expect(Notice).text
        ended = rig.expect(CaptureEnded)
        block_after(rig, ended.last_sample)

        assert first.startswith("The channels of")
        assert "only the loudest is used" in first
        assert not rig.take(Notice)


def test_a_file_is_delivered_in_real_time(tmp_path: Path, speech: Path) -> None:
    before = time.monotonic()
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        rig.expect(CaptureEnded)

        assert time.monotonic() - before >= 0.3


def test_the_end_of_the_input_is_published_once(tmp_path: Path, speech: Path) -> None:
    with ProcessRig(Microphone, tmp_path, input=str(speech)) as rig:
        last = rig.expect(CaptureEnded).last_sample
        block_after(rig, last + BLOCK)  # by then it has noted that it told the end
        rig.kill()

        rig.reborn()
        first = rig.expect(CapturedAudio, lambda block: block.gap)
        block_after(rig, first.first_sample + 3 * BLOCK)

        assert rig.take(CaptureEnded) == []


# -- muting ---------------------------------------------------------------------------------------


def test_muted_is_true_silence(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        block_after(rig, 2 * BLOCK)
        rig.tell(SetMuted(True))
        rig.tell(ReplayCapture(10**9, 1))
        rig.expect(ReplayEnded)
        rig.take(CapturedAudio)

        rig.expect(CaptureEnded)

        assert sound(rig.take(CapturedAudio)) == b""


def test_muted_at_the_start_is_muted_from_the_first_sample(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech), muted=True) as rig:
        rig.expect(CaptureEnded)

        assert sound(rig.take(CapturedAudio)) == b""


def test_unmuted_does_not_pass_on_what_was_said_before(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program", muted=True) as rig:
        rig.tell(ProgramCapture(pcm(BLOCK + 600)))
        rig.expect(CapturedAudio)
        rig.tell(SetMuted(False))
        rig.tell(ProgramCapture(pcm(BLOCK)))

        assert not any(rig.expect(CapturedAudio).pcm)  # it began while muted
        for _ in range(100):
            rig.tell(ProgramCapture(pcm(BLOCK)))
            if any(rig.expect(CapturedAudio).pcm):
                return
        raise AssertionError("it stays silent")


def test_not_one_sample_of_a_muted_microphone_leaves_it_after_a_death(
    tmp_path: Path, speech: Path
) -> None:
    with ProcessRig(Microphone, tmp_path, input=str(speech)) as rig:
        rig.expect(CapturedAudio)
        rig.tell(SetMuted(True))
        rig.wait_handled(mail=1)
        rig.kill()
        rig.take(CapturedAudio)

        rig.reborn()
        rig.expect(CaptureEnded)

        assert sound(rig.take(CapturedAudio)) == b""


@pytest.mark.parametrize("lost", ["state", "mark"])
def test_muted_is_remembered_twice(tmp_path: Path, speech: Path, lost: str) -> None:
    with ProcessRig(Microphone, tmp_path, input=str(speech)) as rig:
        rig.tell(SetMuted(True))
        rig.wait_handled(mail=1)
        rig.kill()
        rig.take(CapturedAudio)
        if lost == "state":  # it is withheld when a device does not open twice
            rig.state = None
        else:
            (tmp_path / "microphone.mark").unlink()

        rig.reborn()
        rig.expect(CaptureEnded)

        assert sound(rig.take(CapturedAudio)) == b""


def test_only_a_sound_card_is_replaced_by_another_device(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        rig.tell(UseInput("default"))

        assert "is not a sound card" in rig.expect(Notice).text
        rig.expect(CaptureEnded)


def test_what_was_said_while_muted_stays_unsaid_over_a_raise(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence", muted=True) as rig:
        line = rig.host.keep["line"]
        rig.tell(SetMuted(False))
        rig.wait_handled(mail=1)
        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)
        now = time.monotonic_ns()
        line.put(Captured(pcm(BLOCK, 7), line.heard_from_ns - 1, now))  # begun while it was muted
        line.put(Captured(pcm(BLOCK, 9), now, now))
        rig.open()

        block = rig.expect(CapturedAudio, lambda block: any(block.pcm))

        assert block.pcm == pcm(BLOCK, 9)


# -- levels ---------------------------------------------------------------------------------------

LEVELS = (InputLevel.tag(),)


def test_levels_of_the_sent_audio_are_published_ten_times_a_second(
    tmp_path: Path, speech: Path
) -> None:
    rig = Rig(Microphone, tmp_path, input=str(speech))
    rig.wanted = LEVELS
    with rig:
        levels = [rig.expect(InputLevel) for _ in range(6)]

    peaks = [level.peak_dbfs for level in levels]
    assert peaks[:3] == pytest.approx([-22.7, -16.7, -13.2], abs=0.1)
    assert levels[-1] == InputLevel(-96.0, -96.0)


def test_levels_are_published_only_while_they_are_subscribed(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence", block_ms=100) as rig:
        [rig.expect(CapturedAudio) for _ in range(3)]
        assert rig.take(InputLevel) == []

        rig.tell(Wanted(LEVELS))
        rig.expect(InputLevel)
        rig.tell(Wanted(()))
        rig.wait_handled(mail=2)
        rig.take(InputLevel)
        [rig.expect(CapturedAudio) for _ in range(3)]

        assert rig.take(InputLevel) == []


def test_the_level_of_a_muted_microphone_is_silence(tmp_path: Path, speech: Path) -> None:
    rig = Rig(Microphone, tmp_path, input=str(speech), muted=True)
    rig.wanted = LEVELS
    with rig:
        rig.expect(CaptureEnded)

        assert {level.peak_dbfs for level in rig.take(InputLevel)} == {-96.0}


# -- crashes --------------------------------------------------------------------------------------


def test_a_raise_loses_nothing(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech), block_ms=40) as rig:
        first = rig.expect(CapturedAudio)
        rig.tell(Inject("microphone", "raise"))
        rig.restart()
        rig.expect(CaptureEnded)

        blocks = [first, *rig.take(CapturedAudio)]

        assert sound(blocks) == pcm(7_200)
        assert all(b.first_sample - a.first_sample == BLOCK for a, b in pairwise(blocks))
        assert not any(block.gap for block in blocks)


def test_a_death_loses_nothing_of_a_file_and_marks_the_gap(tmp_path: Path, speech: Path) -> None:
    with ProcessRig(Microphone, tmp_path, input=str(speech), block_ms=40) as rig:
        block_after(rig, 0)
        block_after(rig, 0)
        rig.kill()
        before = rig.take(CapturedAudio)
        rig.reborn()
        rig.expect(CaptureEnded)

        after = rig.take(CapturedAudio)

        last = max((b.first_sample for b in before), default=0)
        assert after[0].gap
        assert not any(block.gap for block in after[1:])
        assert after[0].first_sample > last
        assert sound(after) == pcm(7_200)[-len(sound(after)) :]
        assert len(sound(after)) >= 2 * (7_200 - (2 + len(before)) * BLOCK)


def test_what_waits_for_a_new_incarnation_is_bounded_and_its_loss_is_reported(
    tmp_path: Path,
) -> None:
    with Rig(Microphone, tmp_path, input="program") as rig:
        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)
        line = rig.host.keep["line"]
        now = time.monotonic_ns()
        for number in range(300):
            line.put(Captured(pcm(BLOCK, number * BLOCK + 1), now, now))

        rig.open()
        first = rig.expect(CapturedAudio)

        assert first.gap
        assert first.pcm == pcm(BLOCK, 50 * BLOCK + 1)
        assert any("dropped" in record.text for record in rig.logs)


CARD = """
import time
from actors.devices.base import Capture, Captured

class Card(Capture):
    jump_ns, jump_loses, check_s = 100_000_000, True, 0.01
    told = 0
    def start(self, deliver, failed):
        first_ns = time.monotonic_ns()
        for number in range(200):
            lost = number == 150
            deliver(Captured(bytes([1]) * 1920, first_ns + at(number), first_ns, lost=lost))
    def faltered(self):
        self.told += 1
        return int(self.told == 1)
    def close(self): ...

def at(number):
    {at}
"""


def captured_from_card(tmp_path: Path, at: str) -> tuple[list[CapturedAudio], list[AudioLost]]:
    """Return what comes of a card whose blocks began so many nanoseconds after its start."""
    (tmp_path / "card.py").write_text(CARD.format(at=at))
    with Rig(Microphone, tmp_path, input=f"{tmp_path / 'card.py'}:Card") as rig:
        rig.expect(SoundFaltered)
        blocks = rig.take(CapturedAudio)
        assert len(blocks) == 200
        return blocks, rig.take(AudioLost)


def test_a_card_with_a_slow_clock_loses_nothing(tmp_path: Path) -> None:
    blocks, lost = captured_from_card(tmp_path, "return number * 41_000_000")

    assert [loss for loss in lost if loss.reason != NOT_SERVED] == []
    assert blocks[-1].first_sample >= blocks[0].first_sample + 199 * 984 - 2_400


def test_what_a_card_had_to_throw_away_is_a_gap_in_time(tmp_path: Path) -> None:
    blocks, lost = captured_from_card(
        tmp_path, "return number * 40_000_000 + (60_000_000 if number >= 150 else 0)"
    )

    assert [block.gap for block in blocks].index(True) == 150
    assert blocks[150].first_sample == pytest.approx(blocks[149].first_sample + 960 + 1_440, abs=1)
    assert lost == [AudioLost("microphone", 60, NOT_SERVED)]


def test_a_card_that_was_not_served_for_long_has_a_gap(tmp_path: Path) -> None:
    blocks, lost = captured_from_card(
        tmp_path, "return number * 40_000_000 + (500_000_000 if number >= 100 else 0)"
    )

    assert [block.gap for block in blocks].index(True) == 100
    assert lost[0].audio_ms == 500


def test_a_device_that_fails_is_reopened(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        rig.expect(CapturedAudio)
        rig.host.keep["line"].device._source.close()  # reading it raises from now on

        crash = rig.expect(Crashed)
        rig.open()
        rig.expect(CaptureEnded)

        assert "closed file" in crash.error
        gaps = [block for block in rig.take(CapturedAudio) if block.gap]
        assert len(gaps) == 1


def test_an_input_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence") as rig:
        rig.host.keep["line"].close_device()
        rig.settings = msgspec.structs.replace(rig.settings, input="nobody.wav")
        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)

        rig.open(wait=False)
        crash = rig.expect(Crashed)

        assert crash.during == "open"
        assert crash.plain
        assert "nobody.wav" in crash.error


# -- its memory -----------------------------------------------------------------------------------


def test_a_replay_begins_at_the_sample_asked_for_and_ends_where_live_blocks_go_on(
    tmp_path: Path, speech: Path
) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        first = rig.expect(CapturedAudio).first_sample
        block_after(rig, first + 4 * BLOCK)
        rig.tell(ReplayCapture(first + 100, 7))
        ended = rig.expect(ReplayEnded)
        replayed = rig.take(ReplayedAudio)

        live = rig.expect(CapturedAudio, lambda block: block.first_sample >= ended.next_sample)

        assert ended.request_id == 7
        assert {block.request_id for block in replayed} == {7}
        assert replayed[0].first_sample == first + 100
        data = b"".join(block.pcm for block in replayed)
        assert data == pcm(len(data) // 2, 101)
        assert live.first_sample == ended.next_sample == first + 100 + len(data) // 2


def test_a_replay_of_the_future_is_empty(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="silence") as rig:
        rig.expect(CapturedAudio)

        rig.tell(ReplayCapture(10**9, 1))

        rig.expect(ReplayEnded)
        assert rig.take(ReplayedAudio) == []


def test_the_memory_survives_a_raise(tmp_path: Path, speech: Path) -> None:
    with Rig(Microphone, tmp_path, input=str(speech)) as rig:
        first = rig.expect(CapturedAudio).first_sample
        rig.tell(Inject("microphone", "raise"))
        rig.restart()

        rig.tell(ReplayCapture(0, 1))

        assert rig.expect(ReplayedAudio).first_sample == first


def test_the_memory_ends_after_thirty_seconds(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program") as rig:
        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)
        line = rig.host.keep["line"]
        for number in range(1_000):
            line.remember(number * BLOCK, pcm(BLOCK))
        rig.open()

        rig.tell(ReplayCapture(0, 1))
        rig.expect(ReplayEnded)

        replayed = rig.take(ReplayedAudio)
        assert len(replayed) == 750
        assert replayed[0].first_sample == 250 * BLOCK


# -- a device in the program ----------------------------------------------------------------------


def test_the_programs_audio_becomes_blocks(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program") as rig:
        data = pcm(3 * BLOCK)
        for start in range(0, len(data), 701):
            rig.tell(ProgramCapture(data[start : start + 701]))
        rig.tell(ProgramCaptureEnded())

        ended = rig.expect(CaptureEnded)
        blocks = rig.take(CapturedAudio)

        assert sound(blocks) == data
        assert ended.last_sample == blocks[0].first_sample + 3 * BLOCK - 1
        assert not any(rig.expect(CapturedAudio).pcm)  # silence follows


def test_a_failed_input_of_the_program_is_reported(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program") as rig:
        rig.tell(ProgramCaptureEnded("the phone line is down"))

        assert "the phone line is down" in rig.expect(Notice).text
        rig.expect(CaptureEnded)


@pytest.mark.parametrize(("input_", "said"), [("silence", "'silence'"), ("program", "17 Hz")])
def test_unusable_audio_of_the_program_is_reported_once(
    tmp_path: Path, input_: str, said: str
) -> None:
    with Rig(Microphone, tmp_path, input=input_) as rig:
        for _ in range(3):
            rig.tell(ProgramCapture(pcm(100), 17))
        rig.tell(ReplayCapture(10**9, 1))
        rig.expect(ReplayEnded)

        notices = rig.take(Notice)

        assert len(notices) == 1
        assert said in notices[0].text


def test_after_a_pause_of_the_program_blocks_are_at_the_time_of_now(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program") as rig:
        line = rig.host.keep["line"]
        now = time.monotonic_ns()
        line.put(Captured(pcm(BLOCK), now, now))
        line.put(Captured(pcm(BLOCK), now + 3_000_000_000, now))

        first, second = rig.expect(CapturedAudio), rig.expect(CapturedAudio)

        assert second.first_sample - first.first_sample == pytest.approx(72_000, abs=2)
        assert not second.gap


def test_the_end_of_the_programs_input_survives_a_death(tmp_path: Path) -> None:
    with ProcessRig(Microphone, tmp_path, input="program") as rig:
        rig.tell(ProgramCapture(pcm(48_000)))
        rig.tell(ProgramCaptureEnded())
        rig.wait_handled(mail=2)
        rig.kill()

        rig.reborn()

        assert rig.expect(CaptureEnded)


def test_a_device_that_does_not_start_is_reopened(tmp_path: Path) -> None:
    path = tmp_path / "late_line.py"
    path.write_text(
        "from actors.devices.silence import SilenceCapture\n"
        "class Line(SilenceCapture):\n"
        "    starts = 0\n"
        "    def __init__(self):\n"
        "        super().__init__(960)\n"
        "    def start(self, deliver, failed):\n"
        "        Line.starts += 1\n"
        "        if Line.starts < 2:\n"
        "            raise OSError('not yet')\n"
        "        super().start(deliver, failed)\n"
    )
    rig = Rig(Microphone, tmp_path, input=f"{path}:Line")
    rig.open = lambda: Rig.open(rig, wait=False)  # type: ignore[method-assign]
    with rig:
        assert "not yet" in rig.expect(Crashed).error
        Rig.open(rig)

        assert rig.expect(CapturedAudio)


# -- echo -----------------------------------------------------------------------------------------


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Have the device hear a loudspeaker; return the level of its echo."""
    pytest.importorskip("pywebrtc_audio")
    played = rooms.talk(1, 10.0)
    heard = rooms.Room(delay_ms=40).heard(played)
    monkeypatch.setattr(echoing.Echoing, "directory", tmp_path)
    monkeypatch.setattr(echoing.Echoing, "played", rooms.pcm16(played).tobytes())
    monkeypatch.setattr(echoing.Echoing, "heard", rooms.pcm16(heard).tobytes())
    return level(rooms.pcm16(heard).tobytes())


def level(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    return float(np.sqrt(np.mean(samples**2)))


def blocks_until_cancelled(rig: Rig) -> list[CapturedAudio]:
    rig.expect(EchoState, lambda state: state.state == "cancelled")
    return rig.take(CapturedAudio)


def test_an_open_loudspeaker_is_taken_out_of_what_is_heard_and_of_a_replay(
    tmp_path: Path, room: float
) -> None:
    with Rig(Microphone, tmp_path, input=echoing.CAPTURE, output="default") as rig:
        first = rig.expect(EchoState)
        device = rig.expect(DeviceInUse)
        blocks = blocks_until_cancelled(rig)
        until = blocks[-1].first_sample + 24_000
        blocks += rig.take(CapturedAudio)
        while blocks[-1].first_sample < until:
            blocks.append(rig.expect(CapturedAudio))
        rig.tell(ReplayCapture(until - 12_000, 1))
        rig.expect(ReplayEnded)
        replayed = b"".join(block.pcm for block in rig.take(ReplayedAudio))

    cleaned = b"".join(block.pcm for block in blocks[-25:])
    assert (first.state, device.card) == ("learning", True)
    assert level(cleaned) < room / 10
    assert level(replayed) < room / 10
    assert all(a.first_sample + 480 == b.first_sample for a, b in pairwise(blocks))


def test_the_lag_of_the_canceller_is_counted(tmp_path: Path, room: float) -> None:
    rig = Rig(Microphone, tmp_path, input=echoing.CAPTURE, output="default")
    earlier_ns = rig.session.epoch_ns - 10**9
    rig.session = msgspec.structs.replace(rig.session, epoch_ns=earlier_ns)
    with rig:
        block = rig.expect(CapturedAudio)
        begun_ns = rig.session.epoch_ns + (block.first_sample + 480) * 10**9 // 24_000

    assert block.captured_ns - begun_ns == pytest.approx(9.3e6, abs=2e6)


def test_while_it_is_muted_it_is_silent_and_the_engine_goes_on(tmp_path: Path, room: float) -> None:
    with Rig(Microphone, tmp_path, input=echoing.CAPTURE, output="default", muted=True) as rig:
        muted = blocks_until_cancelled(rig)

    assert not any(any(block.pcm) for block in muted)


@pytest.mark.parametrize(
    ("output", "echo_cancelling"), [("null", "auto"), ("default", "off"), ("default", "auto")]
)
def test_without_an_open_loudspeaker_everything_is_heard_as_it_was(
    tmp_path: Path,
    room: float,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    echo_cancelling: str,
) -> None:
    monkeypatch.setattr(echoing.Echoing, "name", "AirPods")
    settings = {"output": output, "echo_cancelling": echo_cancelling}
    with Rig(Microphone, tmp_path, input=echoing.CAPTURE, **settings) as rig:
        blocks = [rig.expect(CapturedAudio) for _ in range(10)]

    heard = b"".join(block.pcm for block in blocks)
    assert heard == echoing.Echoing.heard[: len(heard)]


def test_demanded_without_its_package_the_start_fails_with_what_to_do(
    tmp_path: Path, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)

    with Rig(Microphone, tmp_path, input="silence") as rig:
        rig.expect(CapturedAudio)
        rig.tell(Inject("microphone", "raise"))
        rig.expect(Crashed)
        rig.host.keep.clear()
        rig.settings = msgspec.structs.replace(
            rig.settings, input=echoing.CAPTURE, echo_cancelling="on"
        )
        rig.open(wait=False)
        crash = rig.expect(Crashed)

    assert install("pywebrtc-audio") in crash.error
    assert crash.plain
