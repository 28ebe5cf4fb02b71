"""WAV files: a reader (`WavFrames`), and a writer whose file is valid at any time (`WavTarget`).

The format is described at http://soundfile.sapp.org/doc/WaveFormat, the extensible header at
https://learn.microsoft.com/windows/win32/api/mmreg/ns-mmreg-waveformatextensible, and the format of
files over 4 GiB at https://tech.ebu.ch/docs/tech/tech3306.pdf (RF64; BW64 is the same).
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from actors.devices.errors import (
    FileFormatError,
    HeaderlessFileError,
    OtherFormatError,
    UnwritableFileError,
)
from actors.devices.sound.wav_format import FLOAT, PCM, WavFormat
from actors.devices.units import RATES
from actors.files import open_alone, why_not
from messages import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WavFormat", "WavFrames", "WavTarget", "read_format", "refuse_beyond_limits"]

_EXTENSIBLE = 0xFFFE
_BITS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
_MAX_CHANNELS = 64
_HEADERLESS = (".f32", ".pcm", ".raw", ".s16", ".s16le", ".sw")
"""Ends of the names of files that usually have samples and no header."""
_HEADS = (b"RIFF", b"RF64", b"BW64")
_LONG_BYTES = 0xFFFF_FFFF
"""Data length that stands for the length in the chunk ``ds64``."""
_MOST_HEAD_BYTES = 4096
_UNKNOWN_BYTES = 0x7FFF_0000
"""A data length from here on is a placeholder of a program that did not know the length."""
_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MAX_DATA_BYTES = 0xFFFF_FFFF - _HEAD.size


def read_format(file: BinaryIO, path: Path) -> WavFormat:
    """Read the chunks of a WAV file up to its samples.

    A wrong data length is corrected: the file may be cut off, or written to a pipe.

    Raises:
        FileFormatError: If it is not a WAV file that can be read here.
    """
    riff = file.read(12)
    if not riff:
        raise FileFormatError(path, "is empty")
    if len(riff) < 12 or riff[:4] not in _HEADS or riff[8:] != b"WAVE":
        if path.suffix.lower() in _HEADERLESS:
            raise HeaderlessFileError(path)
        raise OtherFormatError(path, "is not a WAV file")
    kind = channels = rate = bits = sample_bytes = long_size = 0
    while len(head := file.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data":
            if not kind:
                break
            start = file.tell()
            there = file.seek(0, os.SEEK_END) - start
            size = long_size if size == _LONG_BYTES and long_size else size
            frame_bytes = channels * sample_bytes
            # 0 is also a placeholder, of a program that was ended before it knew the length.
            if not size and _goes_on(file, start):
                break
            frames = min(size or there, there) // frame_bytes
            if not frames:
                break
            missing = size // frame_bytes - frames if size < _UNKNOWN_BYTES or long_size else 0
            missing = max(0, missing)
            return WavFormat(kind, channels, rate, bits, start, frames, missing, sample_bytes)
        body = file.read(min(size, _MOST_HEAD_BYTES))
        if name == b"fmt ":
            kind, channels, rate, bits, sample_bytes = _format(body, path)
        elif name == b"ds64":
            long_size = int.from_bytes(body[8:16], "little")
        file.seek(size + size % 2 - len(body), os.SEEK_CUR)  # chunks have an even length
    raise FileFormatError(path, "is a WAV file without samples")


def _goes_on(file: BinaryIO, start: int) -> bool:
    """Return whether a chunk begins at a place: a name of letters, and a length that fits."""
    file.seek(start)
    head, rest = file.read(8), file.seek(0, os.SEEK_END) - start
    name = head[:4]
    fits = int.from_bytes(head[4:], "little") + 8 <= rest
    return len(head) == 8 and name.isascii() and name.strip().isalpha() and fits


def _format(body: bytes, path: Path) -> tuple[int, int, int, int, int]:
    if len(body) < 16:
        raise FileFormatError(path, "has a broken header")
    kind, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", body)
    if kind == _EXTENSIBLE and len(body) >= 26:
        kind = int.from_bytes(body[24:26], "little")
    if kind == PCM:
        bits = (bits + 7) // 8 * 8  # 12 or 20 bits are the upper bits of whole bytes
    if bits not in _BITS.get(kind, ()):
        raise OtherFormatError(path, f"is a WAV file of format {kind} with {bits} bits")
    refuse_beyond_limits(path, channels, rate)
    sample_bytes = bits // 8
    if kind == PCM and bits == 24 and align == 4 * channels:  # as arecord -f S24_LE writes
        sample_bytes = 4
    return kind, channels, rate, bits, sample_bytes


def refuse_beyond_limits(path: Path, channels: int, rate: int) -> None:
    """Check that a file with these channels, at this rate in Hz, can be read here.

    Raises:
        FileFormatError: If it cannot be read.
    """
    if not 0 < channels <= _MAX_CHANNELS:
        raise FileFormatError(path, f"has {channels} channels, not 1 to {_MAX_CHANNELS}")
    if rate not in RATES:
        limits = f"{RATES.start} to {RATES.stop - 1} Hz"
        raise FileFormatError(path, f"has a sample rate of {rate} Hz, not {limits}")


class WavFrames:
    """The frames of a WAV file; see `actors.devices.sound.source.Frames`.

    `read` is only for a file that is not `native`, since it needs numpy.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.format = read_format(file, path)
        self.rate, self.channels = self.format.rate, self.format.channels
        self.frames = self.format.frames
        self.missing, self.native = self.format.missing, self.format.native
        self._file = file
        if not self.native:
            from actors.devices.sound.samples import floats

            self._floats = floats

    def seek(self, frame: int) -> None:
        """Set the frame at which the next read begins."""
        self._file.seek(self.format.data_start + frame * self.format.frame_bytes)

    def read_raw(self, frames: int) -> bytes:
        """Return the bytes of the next frames unconverted; useful if the format is `native`."""
        return self._file.read(frames * self.format.frame_bytes)

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next frames in the range of int16, shape ``(n_frames, channels)``."""
        return self._floats(self.read_raw(frames), self.format)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WavTarget:
    """A 16-bit WAV file at 24 kHz, written at any position; its header is valid after each write.

    Args:
        path: The file.
        channels: 1 or 2.
        fresh: Whether to start an empty file. Otherwise our earlier file is continued, with its
            header repaired.

    Raises:
        UnwritableFileError: If it cannot be opened for writing.
    """

    def __init__(self, path: Path, channels: int, *, fresh: bool) -> None:
        self.path = path
        self._frame_bytes = 2 * channels
        try:
            self._file = open_alone(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UnwritableFileError(path, why_not(path, error)) from None
        try:
            size = os.fstat(self._file).st_size
            if fresh and size:  # only now: until it is locked, another process may be writing it
                os.ftruncate(self._file, 0)
                size = 0
            self.frames = max(0, size - _HEAD.size) // self._frame_bytes
            self._write_head()
        except OSError as error:
            os.close(self._file)
            raise UnwritableFileError(path, why_not(path, error)) from None

    @property
    def max_frames(self) -> int:
        """Most frames that a WAV file can have: its header counts bytes with 32 bits."""
        return _MAX_DATA_BYTES // self._frame_bytes

    def write(self, frame: int, data: bytes) -> None:
        """Write frames at a position; a gap after the present end is silence.

        Raises:
            OSError: If the disk is full or gone, or the file would exceed 4 GiB.
        """
        end = frame + len(data) // self._frame_bytes
        if end > self.max_frames:
            raise OSError(errno.EFBIG, "a WAV file ends at 4 GiB")
        _write_at(self._file, data, _HEAD.size + frame * self._frame_bytes)
        if end > self.frames:
            self.frames = end
            self._write_head()

    def read(self, frame: int, frames: int) -> bytes:
        """Return the frames at a position; fewer at the end."""
        frames = max(0, min(frames, self.frames - frame))
        offset = _HEAD.size + frame * self._frame_bytes
        return _read_at(self._file, frames * self._frame_bytes, offset)

    def extend(self, frames: int) -> None:
        """Extend the file to this length with silence.

        Raises:
            OSError: If the disk is gone.
        """
        frames = min(frames, self.max_frames)
        if frames > self.frames:
            os.ftruncate(self._file, _HEAD.size + frames * self._frame_bytes)
            self.frames = frames
            self._write_head()

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write_head(self) -> None:
        channels = self._frame_bytes // 2
        size = self.frames * self._frame_bytes
        head = _HEAD.pack(
            b"RIFF", size + _HEAD.size - 8, b"WAVE",
            b"fmt ", 16, PCM, channels, SAMPLE_RATE,
            SAMPLE_RATE * self._frame_bytes, self._frame_bytes, 16,
            b"data", size,
        )  # fmt: skip
        _write_at(self._file, head, 0)


def _write_at(file: int, data: bytes, offset: int) -> None:
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(file, data, offset)
        else:
            os.lseek(file, offset, os.SEEK_SET)
            written = os.write(file, data)
        data = data[written:]
        offset += written


def _read_at(file: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file, size, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, size)
