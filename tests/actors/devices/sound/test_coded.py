"""Sound files that only libsndfile reads: FLAC, Ogg, MP3 and more, whole and cut off."""

from __future__ import annotations

import subprocess
import sys
import wave
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actors.devices.errors import FileFormatError
from actors.devices.opening import is_file
from actors.devices.sound.files import FileCapture
from actors.devices.sound.source import FileSource
from messages import SAMPLE_RATE
from messages.hints import install
from tests.actors.devices.sound.test_wav import encoded, read_all, tone, wav

soundfile = pytest.importorskip("soundfile", reason="NO SOUNDFILE: pip install soundfile")

EXACT = {"FLAC": {}, "AIFF": {}, "AU": {}, "CAF": {}, "W64": {}, "WAV": {"subtype": "ULAW"}}
LOSSY = {"OGG": {}, "OPUS": {"format": "OGG", "subtype": "OPUS"}, "MP3": {}}


def made(folder: Path, kind: str, seconds: float = 1.0, channels: int = 1) -> Path:
    """Return a file of a format, with the tone of `tone` in it, at 48 kHz."""
    samples = np.array(tone(int(48_000 * seconds), 48_000))
    path = folder / f"a.{kind.lower()}"
    options = {"format": kind, **{**EXACT, **LOSSY}[kind]}
    soundfile.write(path, np.column_stack([samples] * channels), 48_000, **options)
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", [*EXACT, *LOSSY])
def test_every_format_sounds_the_same(tmp_path: Path, kind: str, channels: int) -> None:
    got = read_all(made(tmp_path, kind, channels=channels)).astype(float)

    heard, meant = got[2_000:22_000], np.array(tone(24_000))[2_000:22_000] * 32768
    assert len(got) == 24_000
    likeness = heard @ meant / (np.linalg.norm(heard) * np.linalg.norm(meant))
    assert likeness > (0.999 if kind in EXACT else 0.99)
    assert np.linalg.norm(heard) == pytest.approx(np.linalg.norm(meant), rel=0.02)


def test_of_two_channels_in_antiphase_one_is_heard(tmp_path: Path) -> None:
    sound = np.array(tone(24_000))
    soundfile.write(tmp_path / "a.flac", np.column_stack([sound, -sound]), 24_000)

    got = read_all(tmp_path / "a.flac")

    assert np.abs(got - sound * 32768).max() <= 1


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_a_file_is_read_in_blocks_as_at_once(tmp_path: Path, kind: str) -> None:
    """Soundfile itself seeks after each block, after which an MP3 decoder is out of step."""
    path = tmp_path / f"a.{kind.lower()}"
    seconds = np.arange(5 * 24_000) / 24_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * (200 + 300 * seconds) * seconds), 24_000)
    at_once, _ = soundfile.read(path)

    got = read_all(path)

    assert np.abs(got - at_once * 32768).max() <= 1


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_reading_can_begin_anywhere(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    whole = read_all(path).astype(int)

    rest = read_all(path, 12_345)

    assert len(rest) == 24_000 - 12_345
    assert np.abs(rest[100:] - whole[12_445:]).max() <= 1


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "AIFF"])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes_and_reported(
    tmp_path: Path, kind: str
) -> None:
    whole = made(tmp_path, kind, seconds=4)
    data = whole.read_bytes()
    torn = tmp_path / f"torn.{kind.lower()}"
    torn.write_bytes(data[: len(data) // 2])

    got = read_all(torn)
    with closing(FileCapture(torn, 960)) as capture:
        trouble = capture.trouble

    assert 24_000 < len(got) < 72_000
    assert np.abs(got[-2_400:-1_000]).max() > 8_000, "it is the tone up to the end"
    if kind != "AIFF":  # whose library takes the length from the file
        assert "was cut off: it has" in trouble
        assert "of 4.0 s" in trouble


def test_what_is_damaged_in_the_middle_is_silence_and_the_rest_is_read(tmp_path: Path) -> None:
    path = made(tmp_path, "FLAC", seconds=4)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3_000] = bytes(3_000)
    path.write_bytes(data)

    got = read_all(path)

    assert len(got) == 96_000
    assert np.abs(got[:20_000]).max() > 15_000
    assert np.abs(got[-20_000:]).max() > 15_000


@pytest.mark.parametrize("content", [b"", b"ID3\x04 and so on", b"fLaC", b"OggS" + bytes(200)])
def test_what_is_no_sound_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(content)

    with pytest.raises(FileFormatError, match="give a WAV file") as caught:
        FileSource(path)

    assert "adds FLAC" not in str(caught.value)


def test_without_soundfile_it_is_said_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path, "FLAC")
    monkeypatch.setitem(sys.modules, "soundfile", None)

    with pytest.raises(FileFormatError, match=f"{install('soundfile')} adds FLAC"):
        FileSource(path)


def test_soundfile_is_imported_only_for_what_needs_it(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", encoded(tone(480, 48_000), 1, 16), rate=48_000)
    code = (
        "import sys; from pathlib import Path; from actors.devices.sound.source import FileSource\n"
        f"FileSource(Path({str(path)!r})).read(100)\n"
        "sys.exit('soundfile' in sys.modules)"
    )

    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", ["talk.flac", "TALK.MP3", "a/b", "talk.wav", "talk.raw"])
def test_files_are_known_by_their_names(name: str) -> None:
    assert is_file(name)
    assert not is_file("USB Headset 2.0")


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100])
def test_what_a_file_needs_is_imported_as_it_is_opened(tmp_path: Path, rate: int) -> None:
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(4 * rate))
    code = (
        "import sys; from pathlib import Path\n"
        "from actors.devices.sound.source import FileSource\n"
        f"source = FileSource(Path({str(tmp_path / 'in.wav')!r})); before = set(sys.modules)\n"
        "source.read(1000); source.read(100_000); sys.exit(repr(set(sys.modules) - before))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr.strip() == "set()"
