"""Reading WAV files of all kinds, and writing them."""

from __future__ import annotations

import struct
import sys
import wave
from array import array
from contextlib import closing
from math import pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from actors.devices.errors import (
    DeviceError,
    FileFormatError,
    HeaderlessFileError,
    NoSuchFileError,
    UnwritableFileError,
)
from actors.devices.sound.source import FileSource
from actors.devices.sound.wav import WavFrames, WavTarget


def tone(samples: int, rate: int = 24_000, hz: float = 440.0) -> list[float]:
    return [0.5 * sin(2 * pi * hz * i / rate) for i in range(samples)]


def wav(
    path: Path,
    data: bytes,
    *,
    kind: int = 1,
    channels: int = 1,
    rate: int = 24_000,
    bits: int = 16,
    extensible: bool = False,
    size: int | None = None,
    before: bytes = b"",
) -> Path:
    """Write a WAV file by hand, right or wrong."""
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * align, align, bits)
    if extensible:
        fmt = struct.pack("<H", 0xFFFE) + fmt[2:]
        fmt += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", kind) + b"\0" * 14
    chunks = before + b"fmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def encoded(samples: list[float], kind: int, bits: int) -> bytes:
    if kind == 3:
        return struct.pack(f"<{len(samples)}{'f' if bits == 32 else 'd'}", *samples)
    if bits == 8:
        return bytes(int(s * 127) + 128 for s in samples)
    if bits == 24:
        return b"".join(int(s * 8388607).to_bytes(3, "little", signed=True) for s in samples)
    scale, code = (32767, "h") if bits == 16 else (2147483647, "i")
    return struct.pack(f"<{len(samples)}{code}", *(int(s * scale) for s in samples))


def read_all(path: Path, position: int = 0) -> NDArray[np.int16]:
    data = b""
    with closing(FileSource(path, position)) as source:
        while piece := source.read(960):
            data += piece
    return np.frombuffer(data, "<i2")


def samples_of(path: Path) -> int:
    with closing(FileSource(path)) as source:
        return source.samples


def test_a_file_of_our_own_format_is_read_as_it_is(tmp_path: Path) -> None:
    data = encoded(tone(5000), 1, 16)
    path = wav(tmp_path / "a.wav", data)

    with closing(FileSource(path)) as source:
        assert isinstance(source.frames, WavFrames)
        assert source.frames.native
    assert samples_of(path) == 5000
    assert read_all(path).tobytes() == data


def test_reading_our_own_format_does_not_import_numpy() -> None:
    import subprocess

    code = (
        "import sys, actors.microphone, actors.speaker, actors.recorder\n"
        "import actors.devices.sound.files\n"
        "sys.exit('numpy' in sys.modules or 'pyaudio' in sys.modules)"
    )

    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_every_sample_format_sounds_the_same(
    tmp_path: Path, kind: int, bits: int, extensible: bool
) -> None:
    data = encoded(tone(4800), kind, bits)
    path = wav(tmp_path / "a.wav", data, kind=kind, bits=bits, extensible=extensible)

    got = read_all(path)

    expected = np.array(tone(4800)) * 32768
    assert len(got) == 4800
    assert np.abs(got - expected).max() < (400 if bits == 8 else 3)


def test_channels_are_mixed_to_one(tmp_path: Path) -> None:
    left_right = array("h", [1000, 3000] * 100).tobytes()

    got = read_all(wav(tmp_path / "a.wav", left_right, channels=2))

    assert got.tolist() == [2000] * 100


def test_of_two_channels_in_antiphase_the_louder_is_heard(tmp_path: Path) -> None:
    left_right = array("h", [1000, -900] * 4_800).tobytes()
    path = wav(tmp_path / "a.wav", left_right, channels=2)

    with closing(FileSource(path)) as source:
        got = source.read(4_800)
        cancelled = source.cancelled

    assert got == array("h", [1000] * 4_800).tobytes()
    assert cancelled


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_another_rate_keeps_pitch_level_and_length(tmp_path: Path, rate: int) -> None:
    data = encoded(tone(2 * rate, rate), 1, 16)

    got = read_all(wav(tmp_path / "a.wav", data, rate=rate)).astype(float)

    spectrum = np.abs(np.fft.rfft(got * np.hanning(len(got))))
    assert len(got) == 48_000
    assert spectrum.argmax() * 24_000 / len(got) == pytest.approx(440, abs=1)
    assert np.sqrt((got**2).mean()) == pytest.approx(0.5 * 32768 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
@pytest.mark.parametrize("position", [0, 1, 960, 12_345])
def test_reading_can_begin_anywhere(tmp_path: Path, rate: int, position: int) -> None:
    path = wav(tmp_path / "a.wav", encoded(tone(rate, rate), 1, 16), rate=rate)
    whole = read_all(path)

    rest = read_all(path, position)

    assert len(rest) == 24_000 - position
    assert np.abs(rest.astype(int) - whole[position:]).max() <= 1


def test_a_torn_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", bytes(2001), size=96_000)

    assert samples_of(path) == 1000


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_a_file_written_to_a_pipe_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = wav(tmp_path / "a.wav", bytes(2000), size=size)

    assert samples_of(path) == 1000


def test_other_chunks_are_skipped(tmp_path: Path) -> None:
    before = b"LIST" + struct.pack("<I", 5) + b"INFO!\0"
    path = wav(tmp_path / "a.wav", bytes(2000), before=before)

    assert samples_of(path) == 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"ID3 this is something else entirely", "is not a WAV file"),
        (b"RIFF\x04\0\0\0WAVE", "without samples"),
        (b"RIFF\x04\0\0\0WAVEdata\x04\0\0\0abcd", "without samples"),
        (b"RIFF\x04\0\0\0WAVEfmt \x04\0\0\0abcd", "broken header"),
    ],
)
def test_what_is_no_wav_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)

    with pytest.raises(FileFormatError, match=said) as caught:
        FileSource(path)

    assert "a.wav" in str(caught.value)


@pytest.mark.parametrize("name", ["question.raw", "QUESTION.PCM", "a.s16le"])
def test_samples_without_a_header_are_refused_with_what_is_missing(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(tone(4800), 1, 16))

    with pytest.raises(HeaderlessFileError, match=r"sample rate.*format.*channels") as caught:
        FileSource(path)

    assert "sox -t raw -r 24000" in str(caught.value)


def test_a_wav_file_may_have_the_name_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.raw", encoded(tone(4800), 1, 16))

    assert samples_of(path) == 4800


@pytest.mark.parametrize("name", ["a.wav", "a.raw"])
def test_a_compressed_wav_file_is_refused(tmp_path: Path, name: str) -> None:
    path = wav(tmp_path / name, bytes(100), kind=0x161, bits=16)  # Windows Media Audio

    with pytest.raises(FileFormatError, match="format 353 with 16 bits"):
        FileSource(path)


@pytest.mark.parametrize(("bits", "stored"), [(12, 16), (20, 24)])
def test_samples_of_odd_sizes_are_the_upper_bits_of_whole_bytes(
    tmp_path: Path, bits: int, stored: int
) -> None:
    data = encoded(tone(4800), 1, stored)
    path = wav(tmp_path / "a.wav", data, bits=stored)
    whole = bytearray(path.read_bytes())
    whole[34:36] = struct.pack("<H", bits)
    path.write_bytes(whole)

    got = read_all(path)

    assert np.abs(got - np.array(tone(4800)) * 32768).max() < 3


def test_24_bits_may_lie_in_four_bytes(tmp_path: Path) -> None:
    """As ``arecord -f S24_LE`` writes them."""
    packed = encoded(tone(4800), 1, 24)
    padded = b"".join(packed[at : at + 3] + b"\xff" for at in range(0, len(packed), 3))
    path = wav(tmp_path / "a.wav", padded, bits=24)
    whole = bytearray(path.read_bytes())
    whole[28:34] = struct.pack("<IH", 4 * 24_000, 4)
    path.write_bytes(whole)

    got = read_all(path)

    assert samples_of(path) == 4800
    assert np.abs(got - np.array(tone(4800)) * 32768).max() < 3


def test_no_samples_and_another_chunk_are_no_samples(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", b"LIST\4\0\0\0INFO", size=0)

    with pytest.raises(FileFormatError, match="without samples"):
        samples_of(path)


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize("promised", [2000, 4000])
def test_a_file_that_may_be_longer_than_4_gib_has_its_length_elsewhere(
    tmp_path: Path, name: bytes, promised: int
) -> None:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, promised, 0, 0)
    path = wav(tmp_path / "a.wav", bytes(2000) + b"LIST", size=0xFFFF_FFFF, before=ds64)
    path.write_bytes(name + path.read_bytes()[4:])

    with closing(FileSource(path)) as source:
        assert source.samples == (1000 if promised == 2000 else 1002)
        assert source.frames.missing == (0 if promised == 2000 else 998)


def test_a_header_that_promises_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 0xFFFF_FFF0))
    with path.open("r+b") as file:
        file.truncate(2**33)  # a hole, which takes no room on the disk either

    with pytest.raises(FileFormatError):
        FileSource(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFileError, match=r"nothing\.wav"):
        FileSource(tmp_path / "nothing.wav")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from([{}, {"bits": 24, "extensible": True}, {"kind": 3, "bits": 64, "channels": 2}]),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=6),
    st.integers(0, 200) | st.none(),
)
@example({"kind": 3, "bits": 64, "channels": 2}, [(34, 25)], 100)  # floats beyond all measure
@example({"kind": 3, "bits": 64, "channels": 2}, [(34, 25)], None)
def test_whatever_stands_in_a_header_it_is_read_or_named(
    tmp_path: Path, form: dict[str, Any], changes: list[tuple[int, int]], length: int | None
) -> None:
    data = encoded(tone(300), form.get("kind", 1), form.get("bits", 16))
    path = wav(tmp_path / "a.wav", data, **form)
    whole = bytearray(path.read_bytes())
    for place, value in changes:
        whole[place] = value
    path.write_bytes(whole[:length])

    said = "a.wav"
    try:
        read_all(path)
    except DeviceError as error:
        said = str(error)
    assert "a.wav" in said


# -- writing --------------------------------------------------------------------------------------


def read_back(path: Path) -> tuple[int, int, bytes]:
    with wave.open(str(path)) as file:
        return file.getnchannels(), file.getframerate(), file.readframes(file.getnframes())


def test_a_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    target = WavTarget(path, 1, fresh=True)
    assert read_back(path) == (1, 24_000, b"")

    target.write(0, b"abcd")
    assert read_back(path) == (1, 24_000, b"abcd")

    target.write(4, b"ef")
    assert read_back(path) == (1, 24_000, b"abcd" + bytes(4) + b"ef")


def test_writing_in_the_middle_leaves_the_rest(tmp_path: Path) -> None:
    target = WavTarget(tmp_path / "a.wav", 2, fresh=True)
    target.write(0, b"aaaabbbbcccc")

    target.write(1, b"BBBB")

    assert target.read(0, 99) == b"aaaaBBBBcccc"
    assert target.read(7, 1) == b""


def test_a_torn_file_is_repaired_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    first = WavTarget(path, 1, fresh=True)
    first.write(0, b"abcd")
    with path.open("ab") as file:
        file.write(b"efg")  # data whose header was never written, and half a sample

    again = WavTarget(path, 1, fresh=False)

    assert read_back(path) == (1, 24_000, b"abcdef")
    again.write(3, b"gh")
    assert read_back(path) == (1, 24_000, b"abcdefgh")


def test_a_fresh_file_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(100_000))

    WavTarget(path, 1, fresh=True)

    assert read_back(path) == (1, 24_000, b"")


def test_extending_adds_silence(tmp_path: Path) -> None:
    target = WavTarget(tmp_path / "a.wav", 1, fresh=True)
    target.write(0, b"ab")

    target.extend(3)
    target.extend(2)

    assert read_back(tmp_path / "a.wav")[2] == b"ab" + bytes(4)


def test_a_file_ends_where_its_header_cannot_count_any_more(tmp_path: Path) -> None:
    target = WavTarget(tmp_path / "a.wav", 1, fresh=True)

    with pytest.raises(OSError, match="4 GiB"):
        target.write(2**32, b"ab")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on files")
def test_a_disk_that_fills_leaves_a_file_that_is_whole_as_far_as_it_goes(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.wav"
    target = WavTarget(path, 1, fresh=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    target.write(0, pcm := encoded(tone(480), 1, 16))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_501, hard))  # in the middle of a sample
    try:
        with pytest.raises(OSError, match="too large"):
            target.write(480, pcm)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.stat().st_size == 1_501
    assert read_back(path) == (1, 24_000, pcm)
    with closing(FileSource(path)) as source:
        assert (source.samples, source.frames.missing) == (480, 0)
    target.write(960, pcm)
    assert read_back(path)[2][-960:] == pcm


def test_an_unwritable_path_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnwritableFileError, match="there is no folder"):
        WavTarget(tmp_path / "no" / "a.wav", 1, fresh=True)
    with pytest.raises(UnwritableFileError, match="it is a folder"):
        WavTarget(tmp_path, 1, fresh=True)
