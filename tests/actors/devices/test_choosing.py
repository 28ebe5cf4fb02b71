"""The device that a setting names, and the error if there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from actors.devices.errors import (
    DeviceError,
    NoSuchFileError,
    SoundLibraryError,
    UnwritableFileError,
)
from actors.devices.opening import open_capture, open_playback
from actors.devices.own.program import ProgramInput, ProgramOutput, ProgramRateError
from actors.devices.silence import NullPlayback, SilenceCapture
from actors.devices.sound.files import FileCapture, FilePlayback
from actors.devices.sound.wav import WavTarget
from actors.devices.units import block_samples, to_ns, to_samples
from messages import SessionInfo, Settings
from messages.hints import install

SESSION = SessionInfo(epoch_ns=0, directory="")


def wav(path: Path) -> Path:
    target = WavTarget(path, 1, fresh=True)
    target.write(0, bytes(2))
    target.close()
    return path


@pytest.mark.parametrize("name", ["silence", "null", "Silence", " null "])
def test_silence_and_null_mean_both_directions(name: str) -> None:
    assert isinstance(open_capture(Settings(input=name), SESSION), SilenceCapture)
    assert isinstance(open_playback(Settings(output=name), SESSION), NullPlayback)


def test_program_is_the_programs_device() -> None:
    assert isinstance(open_capture(Settings(input="program"), SESSION), ProgramInput)
    assert isinstance(open_playback(Settings(output="program"), SESSION), ProgramOutput)


def test_a_wav_path_is_a_file(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.WAV")

    capture = open_capture(Settings(input=str(path)), SESSION)
    capture.close()
    playback = open_playback(Settings(output=str(tmp_path / "b.wav")), SESSION)
    playback.close()

    assert isinstance(capture, FileCapture)
    assert isinstance(playback, FilePlayback)


def test_an_existing_file_needs_no_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wav(tmp_path / "speech")

    capture = open_capture(Settings(input="speech"), SESSION)
    capture.close()

    assert isinstance(capture, FileCapture)


@pytest.mark.parametrize("name", ["foo.wav", "no/such/thing"])
def test_a_file_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(NoSuchFileError, match=name):
        open_capture(Settings(input=name), SESSION)


@pytest.mark.parametrize("name", ["a.wav", "symbolic.wav", "hard.wav"])
def test_the_input_is_not_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"precious")
    (tmp_path / "symbolic.wav").symlink_to(path)
    (tmp_path / "hard.wav").hardlink_to(path)

    with pytest.raises(UnwritableFileError, match="it is the input"):
        open_playback(Settings(input=str(path), output=str(tmp_path / name)), SESSION)

    assert path.read_bytes() == b"precious"


def test_a_file_that_is_no_wav_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"precious")

    with pytest.raises(UnwritableFileError, match=r"thesis\.txt"):
        open_playback(Settings(output=str(path)), SESSION)

    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("direction", ["input", "output"])
def test_without_pyaudio_the_error_says_what_to_install(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)

    choose = open_capture if direction == "input" else open_playback

    with pytest.raises(SoundLibraryError) as caught:
        choose(Settings(), SESSION)

    said = str(caught.value)
    assert install("pyaudio") in said
    assert "portaudio19-dev" in said
    assert "brew install portaudio" in said
    assert ("silence" if direction == "input" else "null") in said


def test_a_rate_of_the_program_that_cannot_be_converted_is_refused() -> None:
    with pytest.raises(ProgramRateError, match="4000"):
        open_playback(Settings(output="program", program_output_rate=4_000), SESSION)


@pytest.mark.parametrize(("block_ms", "samples"), [(40, 960), (10, 240), (1, 240), (500, 2400)])
def test_blocks_have_a_length_within_limits(block_ms: int, samples: int) -> None:
    assert block_samples(Settings(block_ms=block_ms)) == samples


def test_samples_and_time_are_the_same_thing() -> None:
    assert [to_samples(to_ns(n)) for n in range(1000)] == list(range(1000))
    assert to_samples(-1_000_000_000) == -24_000


def test_every_error_is_a_device_error_with_a_sentence() -> None:
    for kind in DeviceError.__subclasses__():
        assert kind.__name__.endswith("Error")
        assert "__str__" in vars(kind)
