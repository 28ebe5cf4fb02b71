"""The recorder: both sides of the conversation at their time, in a file that is always valid."""

from __future__ import annotations

import errno
import wave
from array import array
from pathlib import Path

import msgspec
import pytest

from actors.devices.recent import RecentSound
from actors.devices.sound.wav import WavTarget
from actors.recorder import Recorder
from messages import AudioLost, CapturedAudio, Crashed, Inject, Message, Notice, PlayedAudio
from tests.actors.process import ProcessRig
from tests.rig import Rig


def pcm(samples: int, value: int) -> bytes:
    return array("h", [value] * samples).tobytes()


def captured(first: int, samples: int = 960, value: int = 1) -> CapturedAudio:
    return CapturedAudio(pcm(samples, value), first, 0)


def played(first: int, samples: int = 960, value: int = 2) -> PlayedAudio:
    return PlayedAudio(pcm(samples, value), "a", first)


def tracks(path: Path) -> tuple[list[int], list[int]]:
    """Return what is left and right in a recording."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 24_000, 2)
        both = array("h", file.readframes(file.getnframes()))
    return both[0::2].tolist(), both[1::2].tolist()


def record(rig: Rig, *messages: Message) -> None:
    for message in messages:
        rig.tell(message)
    rig.wait_handled(mail=len(messages))


def test_the_user_is_left_and_the_assistant_right_each_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 3, 1), played(2, 3, 2))

        assert tracks(path) == ([1, 1, 1, 0, 0], [0, 0, 2, 2, 2])


def test_where_nothing_was_heard_there_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(2, 1, 1), captured(5, 1, 1))

        assert tracks(path)[0] == [0, 0, 1, 0, 0, 1]


def test_what_comes_late_or_twice_is_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(4, 2, 3), played(0, 6, 7), captured(0, 5, 1), captured(0, 2, 9))

        assert tracks(path) == ([9, 9, 1, 1, 1, 3], [7] * 6)


def test_what_was_before_the_session_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, played(-2, 3, 5), played(-9, 3, 6))

        assert tracks(path)[1] == [5]


def test_without_a_path_nothing_is_recorded(tmp_path: Path) -> None:
    with Rig(Recorder, tmp_path) as rig:
        before = set(tmp_path.iterdir())

        record(rig, captured(0), played(0))

        assert set(tmp_path.iterdir()) == before


def test_a_recording_of_an_earlier_session_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"\1" * 100_000)
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 2))

    assert tracks(path) == ([1, 1], [0, 0])


def test_after_a_raise_it_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 2))
        rig.session = msgspec.structs.replace(rig.session, first=False)
        rig.tell(Inject("recorder", "raise"))
        rig.restart()

        record(rig, played(2, 1))

        assert tracks(path) == ([1, 1, 0], [0, 0, 2])


def test_after_a_death_everything_handled_is_there_and_time_stays_aligned(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with ProcessRig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 100), played(50, 100))
        rig.kill()
        with path.open("ab") as file:
            file.write(b"torn")  # as if it had died before the header was written
        rig.reborn()

        record(rig, captured(200, 100))

        left, right = tracks(path)
        assert left == [1] * 100 + [0] * 50 + left[150:151] + [0] * 49 + [1] * 100
        assert right[50:150] == [2] * 100


def test_a_path_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    with Rig(Recorder, tmp_path) as rig:
        path = str(tmp_path / "no" / "talk.wav")
        rig.settings = msgspec.structs.replace(rig.settings, recording_path=path)
        rig.tell(Inject("recorder", "raise"))
        rig.expect(Crashed)

        rig.open(wait=False)
        crash = rig.expect(Crashed)

        assert crash.during == "open"
        assert crash.plain, "it is told as a sentence"
        assert "no/talk.wav" in crash.error


@pytest.mark.parametrize("name", ["talk.wav", "link.wav"])
@pytest.mark.parametrize("device", ["input", "output"])
def test_a_recording_does_not_overwrite_a_device(tmp_path: Path, device: str, name: str) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"precious")
    (tmp_path / "link.wav").hardlink_to(path)
    with Rig(Recorder, tmp_path) as rig:
        changed = {"recording_path": str(path), device: str(tmp_path / name)}
        rig.settings = msgspec.structs.replace(rig.settings, **changed)
        rig.tell(Inject("recorder", "raise"))
        rig.expect(Crashed)

        rig.open(wait=False)

        assert "record elsewhere" in rig.expect(Crashed).error
        assert path.read_bytes() == b"precious"


def test_a_full_disk_is_reported_once_and_recording_continues_with_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 10))
        with monkeypatch.context() as patch:

            def full(self: WavTarget, frame: int, data: bytes) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(WavTarget, "write", full)
            for first in (10, 20, 30):
                rig.tell(captured(first, 10))
            rig.wait_handled(mail=4)
        rig.tell(captured(40, 10))
        rig.wait_handled(mail=5)
        rig.tell(Inject("recorder", "raise"))
        rig.expect(Crashed)

        notices = rig.take(Notice)

        assert len(notices) == 1
        assert "the disk is full" in notices[0].text
        lost = rig.take(AudioLost)
        assert [(loss.component, loss.audio_ms) for loss in lost] == [("recorder", 1)]
        assert tracks(path)[0] == [1] * 10 + [0] * 30 + [1] * 10


def test_a_file_that_vanishes_later_is_no_crash(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    path = folder / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 10))
        path.unlink()
        folder.rmdir()
        rig.session = msgspec.structs.replace(rig.session, first=False)
        rig.tell(Inject("recorder", "raise"))
        rig.restart()

        record(rig, captured(10, 10), captured(20, 10))
        rig.tell(Inject("recorder", "raise"))
        rig.expect(Crashed)

        notices = rig.take(Notice)
        assert len(notices) == 1
        assert "there is no folder" in notices[0].text


def test_what_a_dead_supervisor_had_not_passed_on_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    with Rig(Recorder, tmp_path, recording_path=str(path)) as rig:
        record(rig, captured(0, 2, 1))
        session = rig.session
    for component, value in (("microphone", 1), ("speaker", 2)):
        RecentSound(session, component).put(0, pcm(5, value))
    rig = Rig(Recorder, tmp_path, recording_path=str(path))
    rig.session = msgspec.structs.replace(session, first=False, resumed="supervisor")

    with rig:
        record(rig, captured(7, 1, 1))

    assert tracks(path) == ([1] * 5 + [0, 0, 1], [2] * 5 + [0] * 3)
