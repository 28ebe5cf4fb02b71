"""The speaker: what it plays and reports, and what it continues after a crash."""

from __future__ import annotations

import time
import wave
from array import array
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from actors.devices.mark import ItemMark
from actors.devices.units import to_samples
from actors.speaker import Speaker
from messages import (
    AssistantAudio,
    AudioLost,
    Crashed,
    FlushPlayback,
    Inject,
    Message,
    Notice,
    OutputLevel,
    PausePlayback,
    PlaybackEnded,
    PlaybackFlushed,
    PlaybackPaused,
    PlaybackResumed,
    PlayedAudio,
    PlayedPosition,
    ProgramFlush,
    ProgramFlushed,
    ProgramPlayed,
    ProgramPlayout,
    ResumePlayback,
    SessionInfo,
    SetVolume,
    SoundFaltered,
    Wanted,
)
from messages.transport.page import HELD
from tests.actors.process import ProcessRig
from tests.rig import Rig


def pcm(samples: int, start: int = 1) -> bytes:
    """Return samples that tell where they come from, none of them zero."""
    return array("h", [(start + i - 1) % 32_000 + 1 for i in range(samples)]).tobytes()


def audio(samples: int, first: int = 0, item: str = "a", *, last: bool = False) -> AssistantAudio:
    return AssistantAudio(pcm(samples, first + 1), item, "r", first, last)


def end(first: int, item: str = "a") -> AssistantAudio:
    return AssistantAudio(b"", item, "r", first, last=True)


def mark_in(folder: Path) -> ItemMark:
    """Return what the speaker of the session in this folder has noted for the one after it."""
    return ItemMark(SessionInfo(epoch_ns=0, directory=str(folder), first=False), "speaker.mark")


def finished(rig: Rig, item: str = "a") -> PlayedPosition:
    return rig.expect(PlayedPosition, lambda m: m.finished and m.item_id == item)


def samples_of(path: Path) -> list[int]:
    with wave.open(str(path)) as file:
        return array("h", file.readframes(file.getnframes())).tolist()


def sound(samples: list[int]) -> list[int]:
    return [sample for sample in samples if sample]


# -- playing --------------------------------------------------------------------------------------


def test_an_item_is_played_to_its_end_and_reported_as_finished(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(3_000))
        rig.tell(end(3_000))

        told = finished(rig)

        assert told.played_samples == 3_000
        assert rig.expect(PlaybackEnded) == PlaybackEnded("a", 125)
        rig.wait_handled(held=2)


def test_playing_takes_as_long_as_the_sound(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        before = time.monotonic_ns()
        rig.tell(audio(7_200, last=True))

        told = finished(rig)

        assert told.at_ns - before >= 300_000_000


def test_what_was_played_lies_on_the_timeline_without_gaps(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        before = time.monotonic_ns() - rig.session.epoch_ns
        rig.tell(audio(3_000))
        rig.tell(audio(3_000, 3_000, last=True))
        finished(rig)

        played = rig.take(PlayedAudio)

        assert b"".join(block.pcm for block in played) == pcm(6_000)
        assert played[0].first_sample >= before * 24_000 // 1_000_000_000 - 1
        for block, after in pairwise(played):
            assert block.first_sample + len(block.pcm) // 2 == after.first_sample


def test_positions_grow_and_are_reported_ten_times_a_second_at_most(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        began_s = time.monotonic()
        rig.tell(audio(12_000, last=True))
        finished(rig)
        took_s = time.monotonic() - began_s

        positions = [message.played_samples for message in rig.take(PlayedPosition)]

        assert positions == sorted(positions)
        assert 1 <= len(positions) <= 10 * took_s + 1


def test_each_position_is_that_of_its_time(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, last=True))
        finished(rig)

        begin = rig.take(PlayedAudio)[0].first_sample
        positions = [message for message in rig.take(PlayedPosition) if not message.finished]

        assert len(positions) >= 3
        for told in positions:
            at = to_samples(told.at_ns - rig.session.epoch_ns) - begin
            assert told.played_samples == pytest.approx(min(at, 24_000), abs=2)


def test_an_item_behind_another_is_played_after_it(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output=str(tmp_path / "out.wav")) as rig:
        rig.tell(audio(12_000, last=True))
        rig.tell(audio(1_000, item="b", last=True))

        finished(rig, "a")
        finished(rig, "b")

    assert sound(samples_of(tmp_path / "out.wav")) == array("h", pcm(12_000) + pcm(1_000)).tolist()


def test_audio_stays_with_the_supervisor_until_it_is_taken(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(4_800))
        rig.tell(audio(24_000, 4_800))

        rig.wait_handled(held=1)

        assert rig.slot.handled(HELD) == 1


def test_a_long_message_alone_makes_room_before_it_runs_out(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(7_200))
        rig.wait_handled(held=1)  # the supervisor would send the next one now
        rig.tell(audio(2_400, 7_200, last=True))
        finished(rig)

        played = rig.take(PlayedAudio)

        total = sum(len(block.pcm) // 2 for block in played)
        assert played[-1].first_sample + len(played[-1].pcm) // 2 - played[0].first_sample == total


def test_an_output_file_has_everything_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(2_400, last=True))
        finished(rig)
        first = rig.take(PlayedAudio)[0].first_sample
        live = samples_of(path)  # the file is whole while the session runs

    samples = samples_of(path)
    assert samples[first : first + 2_400] == array("h", pcm(2_400)).tolist()
    assert sound(samples) == sound(live) == array("h", pcm(2_400)).tolist()


def test_an_output_file_has_everything_until_the_end_of_the_session(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(24_000))
        begin = rig.expect(PlayedAudio).first_sample
        time.sleep(0.065)  # between two reports
        end = to_samples(time.monotonic_ns() - rig.session.epoch_ns)

    assert len(sound(samples_of(path))) >= end - begin


def test_an_output_file_of_an_earlier_session_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    path.write_bytes(b"\1" * 1_000_000)

    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(100, last=True))
        finished(rig)

    assert sound(samples_of(path)) == array("h", pcm(100)).tolist()


def test_a_full_disk_is_reported_once_and_playback_continues(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        device = rig.host.keep["device"]
        device.trouble = "cannot write to 'out.wav': No space left on device"
        rig.tell(audio(4_800, last=True))

        finished(rig)

        assert "No space left" in rig.expect(Notice).text
        assert rig.take(Notice) == []


# -- faltering ------------------------------------------------------------------------------------


def test_an_underrun_is_reported_with_the_length_of_its_silence(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(2_400))
        rig.expect(PlayedPosition, lambda m: m.played_samples == 2_400)
        time.sleep(0.02)  # so late
        rig.tell(audio(2_400, 2_400))
        rig.expect(PlayedPosition, lambda m: m.played_samples == 4_800)
        rig.tell(audio(2_400, 4_800, last=True))
        finished(rig)

        told = [rig.expect(SoundFaltered), rig.expect(SoundFaltered)]

    assert {one.component for one in told} == {"speaker"}
    assert {one.reason for one in told} == {"what the assistant says came too late"}
    assert sum(one.count for one in told) == 2
    assert sum(one.silent_ms for one in told) >= 19


CARD = """
from actors.devices.silence import NullPlayback
class Card(NullPlayback):
    check_s = 0.01
    left = {times}
    def faltered(self):
        self.left -= 1
        return int(self.left >= 0)
"""


def test_underruns_of_a_card_are_reported_as_sums(tmp_path: Path) -> None:
    (tmp_path / "card.py").write_text(CARD.format(times=100))
    began_s = time.monotonic()
    with Rig(Speaker, tmp_path, output=f"{tmp_path / 'card.py'}:Card") as rig:
        told: list[SoundFaltered] = []
        while sum(one.count for one in told) < 100:
            told.append(rig.expect(SoundFaltered))
    took_s = time.monotonic() - began_s

    assert {one.reason for one in told} == {"the sound card was not served in time"}
    assert len(told) <= took_s + 2


def test_underruns_of_the_last_second_are_reported_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "card.py").write_text(CARD.format(times=10**9))
    with Rig(Speaker, tmp_path, output=f"{tmp_path / 'card.py'}:Card") as rig:
        rig.expect(SoundFaltered)
        rig.stop()

        assert rig.expect(SoundFaltered).count > 0


# -- flushing -------------------------------------------------------------------------------------


def test_a_flush_is_answered_with_where_playback_stopped(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(48_000))
        rig.expect(PlayedPosition, lambda m: m.played_samples > 1_000)
        before = time.monotonic_ns()

        rig.tell(FlushPlayback("barge-in"))
        flushed = rig.expect(PlaybackFlushed)

        assert flushed.item_id == "a"
        assert 1_000 < flushed.played_samples < 24_000
        assert flushed.at_ns - before < 500_000_000
        rig.wait_handled(mail=1, held=1)


@pytest.mark.parametrize("output", ["null", "out.wav"])
def test_what_was_played_before_a_flush_counts(tmp_path: Path, output: str) -> None:
    output = str(tmp_path / output) if output != "null" else output
    with Rig(Speaker, tmp_path, output=output) as rig:
        rig.tell(audio(48_000))
        begin = rig.expect(PlayedAudio).first_sample
        time.sleep(0.065)  # between two reports
        told = to_samples(time.monotonic_ns() - rig.session.epoch_ns)

        rig.tell(FlushPlayback("barge-in"))

        assert rig.expect(PlaybackFlushed).played_samples >= told - begin


def test_after_a_flush_only_a_short_fade_is_played(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(48_000))
        rig.expect(PlayedPosition)
        rig.tell(FlushPlayback("barge-in"))
        flushed = rig.expect(PlaybackFlushed)
        rig.tell(audio(480, item="b", last=True))
        finished(rig, "b")

        played = [block for block in rig.take(PlayedAudio) if block.item_id == "a"]

        assert sum(len(block.pcm) // 2 for block in played) == flushed.played_samples
    assert len(sound(samples_of(path))) <= flushed.played_samples + 480


def test_a_flush_of_silence_names_no_item(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(FlushPlayback("barge-in"))

        flushed = rig.expect(PlaybackFlushed)

        assert (flushed.item_id, flushed.played_samples) == ("", 0)


def test_a_flush_after_the_end_of_an_item_says_that_it_was_heard(tmp_path: Path) -> None:
    """It may be there before the position that says so."""
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(1_000, last=True))
        finished(rig)

        rig.tell(FlushPlayback("barge-in"))

        flushed = rig.expect(PlaybackFlushed)
        assert (flushed.item_id, flushed.played_samples) == ("a", 1_000)


def test_a_flushed_item_is_not_finished(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, last=True))
        rig.tell(FlushPlayback("barge-in"))
        rig.tell(audio(100, item="b", last=True))
        finished(rig, "b")

        assert rig.expect(PlaybackEnded).item_id == "b"  # the first


def test_audio_sent_before_a_flush_is_not_played_when_it_comes_after_it(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(FlushPlayback("barge-in", sent_ns=2_000))
        rig.tell(AssistantAudio(pcm(480), "a", "r", 0, sent_ns=1_000))
        rig.tell(end(480))
        rig.tell(AssistantAudio(pcm(480), "b", "r", 0, last=True, sent_ns=2_000))

        finished(rig, "b")

        assert {block.item_id for block in rig.take(PlayedAudio)} == {"b"}
        assert rig.expect(PlaybackEnded).item_id == "b"  # the first


# -- pausing --------------------------------------------------------------------------------------


def pause(rig: Rig) -> PlayedPosition:
    """Pause in the middle of item a; return where that was."""
    rig.expect(PlayedPosition)
    rig.tell(PausePlayback())
    paused = rig.expect(PlaybackPaused)
    assert paused.item_id == "a"
    return rig.expect(PlayedPosition, lambda m: m.played_samples >= paused.heard_ms * 24)


def test_after_a_pause_playback_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(9_600))
        at = pause(rig)
        rig.tell(audio(2_400, 9_600, last=True))  # what comes meanwhile waits
        rig.wait_handled(mail=1)

        rig.tell(ResumePlayback())

        assert rig.expect(PlaybackResumed) == PlaybackResumed("a", at.played_samples // 24)
        assert finished(rig).played_samples == 12_000
        told = rig.take(PlayedAudio)

    assert sum(len(block.pcm) for block in told) == 2 * 12_000
    samples, expected = samples_of(path), array("h", pcm(12_000)).tolist()
    begin = samples.index(1)
    stop = at.played_samples - 192  # the fade-out
    assert samples[begin : begin + stop] == expected[:stop]
    again = samples.index(expected[at.played_samples + 192], begin + at.played_samples)
    rest = expected[at.played_samples + 192 :]
    assert samples[again : again + len(rest)] == rest
    gap = samples[begin + at.played_samples : again - 192]
    assert gap
    assert not any(gap)


def test_a_flush_ends_a_pause_where_it_was(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, last=True))
        at = pause(rig)

        rig.tell(FlushPlayback("barge-in", 77))

        flushed = rig.expect(PlaybackFlushed)
        assert (flushed.item_id, flushed.played_samples) == ("a", at.played_samples)
        assert flushed.flush_ns == 77
        rig.tell(audio(480, item="b", last=True))
        finished(rig, "b")
        assert rig.take(PlaybackResumed) == []


def test_a_pause_twice_is_one(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, last=True))
        pause(rig)
        rig.tell(PausePlayback())
        rig.tell(ResumePlayback())
        rig.tell(ResumePlayback())
        finished(rig)

        assert rig.take(PlaybackPaused) == []
        assert len(rig.take(PlaybackResumed)) == 1


def test_a_pause_takes_back_what_the_programs_device_was_given(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program", program_output_rate=24_000) as rig:
        rig.tell(audio(12_000, last=True))
        rig.expect(ProgramPlayout)
        rig.tell(ProgramPlayed(480, time.monotonic_ns(), playing=True))
        rig.expect(PlayedPosition)

        rig.tell(PausePlayback())
        rig.expect(ProgramFlush)
        heard_ms = rig.expect(PlaybackPaused).heard_ms
        rig.take(ProgramPlayout)
        rig.tell(ResumePlayback())

        more = rig.expect(ProgramPlayout)
        assert heard_ms >= 20
        assert more.first_sample // 24 == heard_ms
        assert array("h", more.pcm)[192] == more.first_sample + 192 + 1


def test_after_a_death_a_pause_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with ProcessRig(Speaker, tmp_path, output=str(path)) as rig:
        messages = [audio(9_600), audio(2_400, 9_600, last=True)]
        for message in messages:
            rig.tell(message)
        at = pause(rig)

        rig.kill()
        handled = rig.slot.handled(HELD)
        rig.reborn()
        for message in messages[handled:]:
            rig.tell(message)
        with pytest.raises(AssertionError):
            rig.expect(PlayedPosition, lambda m: m.played_samples > at.played_samples, 0.3)
        rig.tell(ResumePlayback())

        assert finished(rig).played_samples == 12_000

    faded = 12_000 - len(set(sound(samples_of(path))) & set(array("h", pcm(12_000))))
    assert faded <= 2 * 192


# -- volume ---------------------------------------------------------------------------------------


def test_the_volume_changes_what_is_played_and_recorded(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(SetVolume(0.0))
        rig.tell(audio(1_000, last=True))
        finished(rig)

        assert not any(b"".join(block.pcm for block in rig.take(PlayedAudio)))


def test_what_was_played_before_a_change_of_the_volume_is_as_it_was(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(12_000, last=True))
        first = rig.expect(PlayedAudio)
        time.sleep(0.065)  # between two reports
        told = to_samples(time.monotonic_ns() - rig.session.epoch_ns)

        rig.tell(SetVolume(0.0))
        finished(rig)

        played = b"".join(block.pcm for block in [first, *rig.take(PlayedAudio)])
        assert len(played) == 24_000
        assert all(array("h", played)[: told - first.first_sample])


@pytest.mark.parametrize(("asked", "volume"), [(0.25, 0.25), (7.0, 1.0), (-1.0, 0.0)])
def test_the_volume_is_saved_within_its_limits(tmp_path: Path, asked: float, volume: float) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(SetVolume(asked))
        rig.wait_handled(mail=1)
        rig.tell(Inject("speaker", "raise"))
        rig.restart()
        rig.tell(AssistantAudio(array("h", [1_000] * 480).tobytes(), "a", "r", 0, last=True))

        finished(rig)

        assert rig.state is not None
        loudest = max(array("h", rig.take(PlayedAudio)[0].pcm))
        assert loudest == int(1_000 * volume)


# -- levels ---------------------------------------------------------------------------------------

LEVELS = (OutputLevel.tag(),)
SILENT = OutputLevel(-96.0, -96.0)


def loud(samples: int, item: str = "a") -> AssistantAudio:
    return AssistantAudio(array("h", [16_384] * samples).tobytes(), item, "r", 0, last=True)


def test_levels_are_published_while_it_plays_at_its_volume_and_then_silence(tmp_path: Path) -> None:
    rig = Rig(Speaker, tmp_path, output="null", volume=0.5)
    rig.wanted = LEVELS
    with rig:
        assert rig.expect(OutputLevel) == SILENT
        rig.tell(loud(6_000))
        levels = [rig.expect(OutputLevel) for _ in range(4)]
        finished(rig)

    assert levels[:2] == [OutputLevel(-12.0, -12.0)] * 2
    assert levels[2] == OutputLevel(-15.1, -12.0)  # of which the second half was silent
    assert levels[3] == SILENT


def test_a_pause_has_the_level_of_silence(tmp_path: Path) -> None:
    rig = Rig(Speaker, tmp_path, output="null")
    rig.wanted = LEVELS
    with rig:
        rig.tell(loud(48_000))
        rig.expect(OutputLevel, lambda level: level.peak_dbfs > -7)
        rig.tell(PausePlayback())
        rig.expect(PlaybackPaused)
        rig.take(OutputLevel)

        rig.expect(OutputLevel, lambda level: level == SILENT)

        rig.tell(ResumePlayback())
        rig.expect(OutputLevel, lambda level: level.peak_dbfs > -7)


def test_levels_are_published_only_to_subscribers(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(loud(4_800))
        finished(rig)
        assert rig.take(OutputLevel) == []

        rig.tell(Wanted(LEVELS))
        rig.tell(loud(4_800, "b"))
        rig.expect(OutputLevel, lambda level: level == SILENT)
        assert len(rig.take(OutputLevel)) == 2
        rig.tell(Wanted(()))
        rig.tell(loud(4_800, "c"))
        finished(rig, "c")

        assert rig.take(OutputLevel) == []


# -- crashes --------------------------------------------------------------------------------------


def test_a_raise_does_not_even_make_it_stutter(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with Rig(Speaker, tmp_path, output=str(path)) as rig:
        messages = [audio(4_800), audio(4_800, 4_800, last=True)]
        for message in messages:
            rig.tell(message)
        rig.expect(PlayedPosition)

        rig.tell(Inject("speaker", "raise"))
        rig.restart()
        for message in messages[rig.slot.handled(HELD) :]:  # as the supervisor does
            rig.tell(message)

        finished(rig)
    samples = samples_of(path)
    first = next(i for i, sample in enumerate(samples) if sample)
    assert samples[first : first + 9_600] == array("h", pcm(9_600)).tolist()
    assert len(sound(samples)) == 9_600


def test_after_a_death_unplayed_audio_is_played_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with ProcessRig(Speaker, tmp_path, output=str(path)) as rig:
        messages = [audio(9_600), audio(2_400, 9_600), end(12_000)]
        for message in messages:
            rig.tell(message)
        rig.expect(PlayedPosition, lambda m: m.played_samples > 2_000)

        rig.kill()
        handled = rig.slot.handled(HELD)
        rig.reborn()
        for message in messages[handled:]:
            rig.tell(message)
        told = finished(rig)

    got = sound(samples_of(path))
    expected = array("h", pcm(12_000)).tolist()
    missing = len(expected) - len(got)
    lost_from = next((i for i, value in enumerate(got) if value != expected[i]), len(got))
    assert told.played_samples == 12_000
    assert 0 <= missing <= 480  # the block that was taken and not written
    assert got == expected[:lost_from] + expected[lost_from + missing :]


@pytest.mark.parametrize("heard", [False, True])
def test_after_a_death_the_audio_that_a_card_had_taken_is_reported(
    tmp_path: Path, heard: bool
) -> None:
    (tmp_path / "card.py").write_text(
        "from actors.devices.silence import NullPlayback\n"
        "class Card(NullPlayback):\n"
        "    loses = True\n"
    )
    with ProcessRig(Speaker, tmp_path, output=f"{tmp_path / 'card.py'}:Card") as rig:
        for message in [audio(9_600), end(9_600)]:
            rig.tell(message)
        if heard:
            finished(rig)
        else:
            rig.expect(PlayedPosition)
            mark = mark_in(tmp_path)
            rig.stop_where(lambda: mark.unheard >= 960)
            unheard = mark.unheard

        rig.kill()
        rig.reborn()
        rig.tell(audio(2_400, item="next", last=True))
        finished(rig, "next")

        told = rig.take(AudioLost)
    if heard:
        assert told == []
    else:
        assert [loss.component for loss in told] == ["speaker"]
        assert told[0].audio_ms == unheard // 24


def test_after_a_death_audio_missing_from_the_recording_is_reported(tmp_path: Path) -> None:
    with ProcessRig(Speaker, tmp_path, output="null", recording_path="talk.wav") as rig:
        rig.tell(audio(24_000, last=True))
        rig.expect(PlayedPosition)
        mark = mark_in(tmp_path)
        rig.stop_where(lambda: mark.unheard > 0)
        unheard = mark.unheard
        rig.kill()

        rig.reborn()
        lost = rig.expect(AudioLost)

    assert lost.component == "recorder"
    assert lost.audio_ms == unheard // 24


def test_after_a_death_the_volume_is_as_it_was(tmp_path: Path) -> None:
    with ProcessRig(Speaker, tmp_path, output="null") as rig:
        rig.tell(SetVolume(0.5))
        rig.wait_handled(mail=1)

        rig.kill()
        rig.state = None  # withheld, because a device did not open twice
        rig.reborn()
        rig.tell(AssistantAudio(array("h", [1_000] * 480).tobytes(), "a", "r", 0, last=True))
        finished(rig)

        assert max(array("h", rig.take(PlayedAudio)[0].pcm)) == 500


def test_a_second_incarnation_goes_on_with_the_output_file(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with ProcessRig(Speaker, tmp_path, output=str(path)) as rig:
        rig.tell(audio(480, last=True))
        finished(rig)
        before = sound(samples_of(path))

        rig.kill()
        rig.reborn()
        rig.tell(audio(480, item="b", last=True))
        finished(rig, "b")

    assert sound(samples_of(path)) == before + array("h", pcm(480)).tolist()


# -- the device -----------------------------------------------------------------------------------


def test_a_device_that_fails_is_reopened_and_playback_continues(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        device = rig.host.keep["device"]
        device._put = None  # its thread ends with an error at the next block
        message = audio(2_400, last=True)
        rig.tell(message)

        rig.restart()
        assert rig.host.keep["device"] is not device
        rig.tell(message)

        assert finished(rig).played_samples == 2_400


def test_an_output_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.host.keep.pop("device").close()
        path = str(tmp_path / "no" / "out.wav")
        rig.settings = msgspec.structs.replace(rig.settings, output=path)
        rig.tell(Inject("speaker", "raise"))
        rig.expect(Crashed)

        rig.open(wait=False)
        crash = rig.expect(Crashed)

        assert crash.during == "open"
        assert crash.plain, "it is told as a sentence"
        assert "no/out.wav" in crash.error


# -- a device in the program ----------------------------------------------------------------------


def test_the_program_is_handed_audio_a_little_ahead(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(12_000, last=True))

        first = rig.expect(ProgramPlayout)
        finished(rig)
        rest = rig.take(ProgramPlayout)

        assert len(first.pcm) == 2 * 4_800
        assert first.pcm + b"".join(message.pcm for message in rest) == pcm(12_000)


def test_a_flush_clears_the_programs_device_and_counts_what_it_says(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)
        rig.tell(ProgramPlayed(1_234, time.monotonic_ns()))

        rig.tell(FlushPlayback("barge-in"))

        assert rig.expect(PlaybackFlushed).played_samples == 1_234
        rig.expect(ProgramFlush)


def test_an_answer_is_cut_off_where_the_programs_device_was_cleared(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)

        rig.tell(FlushPlayback("barge-in"))
        flush = rig.expect(ProgramFlush)
        rig.tell(audio(4_800, item="b"))  # comes while the device is cleared
        assert rig.take(PlaybackFlushed) == []
        rig.tell(ProgramFlushed(flush.number + 1, 9, time.monotonic_ns()))  # answers another one
        rig.tell(ProgramFlushed(flush.number, 2_345, time.monotonic_ns()))

        flushed = rig.expect(PlaybackFlushed)
        assert (flushed.item_id, flushed.played_samples) == ("a", 2_345)
        assert rig.expect(ProgramPlayout, lambda m: m.pcm == pcm(4_800)).first_sample == 2_345


def test_a_program_that_does_not_answer_a_flush_is_waited_for_briefly(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)

        rig.tell(FlushPlayback("barge-in"))
        rig.expect(ProgramFlush)

        assert 0 < rig.expect(PlaybackFlushed).played_samples <= 4_800
        rig.tell(audio(4_800, item="b"))
        rig.expect(ProgramPlayout, lambda m: m.pcm == pcm(4_800))


def test_what_was_flushed_is_not_kept_until_the_programs_device_is_cleared(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)

        rig.tell(FlushPlayback("barge-in"))
        flush = rig.expect(ProgramFlush)

        rig.wait_handled(held=1)  # a next process would not play it
        rig.tell(ProgramFlushed(flush.number, 0, time.monotonic_ns()))
        rig.expect(PlaybackFlushed)


def test_a_raise_while_the_programs_device_is_cleared_does_not_lose_the_flush(
    tmp_path: Path,
) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)
        rig.tell(FlushPlayback("barge-in"))
        rig.expect(ProgramFlush)
        rig.tell(Inject("speaker", "raise"))
        rig.expect(Crashed)

        rig.open()

        assert rig.expect(PlaybackFlushed).item_id == "a"
        rig.tell(audio(4_800, item="b"))
        rig.expect(ProgramPlayout, lambda m: m.pcm == pcm(4_800))


def test_a_pause_goes_on_where_the_programs_device_was_cleared(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(48_000))
        rig.expect(ProgramPlayout)

        rig.tell(PausePlayback())
        flush = rig.expect(ProgramFlush)
        rig.tell(ProgramFlushed(flush.number, 2_400, time.monotonic_ns()))
        heard_ms = rig.expect(PlaybackPaused).heard_ms
        rig.take(ProgramPlayout)
        rig.tell(ResumePlayback())

        assert heard_ms == 100
        assert rig.expect(ProgramPlayout).first_sample == 2_400


@pytest.mark.parametrize("then", [(), (SetVolume(0.5),)])
def test_a_death_while_the_programs_device_is_cleared_for_a_pause_does_not_end_the_pause(
    tmp_path: Path, then: tuple[Message, ...]
) -> None:
    with ProcessRig(Speaker, tmp_path, output="program") as rig:
        message = audio(48_000)
        rig.tell(message)
        rig.expect(ProgramPlayout)
        rig.tell(PausePlayback())
        for other in then:
            rig.tell(other)
        rig.expect(ProgramFlush)
        rig.wait_handled(mail=1 + len(then))

        rig.kill()
        rig.take(ProgramPlayout)
        rig.reborn()
        rig.tell(message)
        with pytest.raises(AssertionError):
            rig.expect(ProgramPlayout, timeout_s=0.3)
        rig.tell(ResumePlayback())

        rig.expect(ProgramPlayout)


def test_a_raise_does_not_hand_audio_over_twice(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        message = audio(9_600, last=True)
        rig.tell(message)
        rig.expect(ProgramPlayout, lambda m: m.first_sample == 0)
        rig.tell(Inject("speaker", "raise"))
        rig.expect(Crashed)
        early = rig.take(ProgramPlayout)

        rig.open()
        rig.tell(message)
        finished(rig)

        total = pcm(9_600)[: 2 * 4_800] + b"".join(m.pcm for m in early + rig.take(ProgramPlayout))
        assert total == pcm(9_600)
