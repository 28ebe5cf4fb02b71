"""WAV files: what is in one (`WavSource`), and one that is whole at every moment (`WavTarget`).

The format: http://soundfile.sapp.org/doc/WaveFormat and, for the extensible header,
https://learn.microsoft.com/windows/win32/api/mmreg/ns-mmreg-waveformatextensible.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from actors.devices.base import (
    FileFormatError,
    NoSuchFileError,
    UnreadableFileError,
    UnwritableFileError,
)
from actors.files import open_alone, why_not
from messages import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WavFormat", "WavSource", "WavTarget", "read_format"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
_RATES = range(8_000, 192_001)
_MAX_CHANNELS = 64
_UNKNOWN_BYTES = 0x7FFF_0000
"""From here on the length of the data is one that a program wrote which did not know it."""
_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MAX_DATA_BYTES = 0xFFFF_FFFF - _HEAD.size


class WavFormat(NamedTuple):
    """What the samples of a file are, and where in it they lie."""

    kind: int
    channels: int
    rate: int
    bits: int
    data_start: int
    frames: int
    missing: int = 0
    """Frames that the header promises and the file does not have."""

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    @property
    def native(self) -> bool:
        """Whether the samples are what a session uses, so that there is nothing to convert."""
        return self[:4] == (_PCM, 1, SAMPLE_RATE, 16)


def read_format(file: BinaryIO, path: Path) -> WavFormat:
    """Read the chunks of a WAV file up to its samples.

    A length of the data that the file does not have (torn off, or written to a pipe) is corrected.

    Raises:
        FileFormatError: it is no WAV file, or none that can be read here.
    """
    riff = file.read(12)
    if len(riff) < 12 or riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        raise FileFormatError(path, "is not a WAV file" if riff else "is empty")
    kind = channels = rate = bits = 0
    while len(head := file.read(8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data":
            if not kind:
                break
            start = file.tell()
            there = file.seek(0, os.SEEK_END) - start
            frame_bytes = channels * bits // 8
            frames = min(size or there, there) // frame_bytes
            if not frames:
                break
            missing = size // frame_bytes - frames if size < _UNKNOWN_BYTES else 0
            return WavFormat(kind, channels, rate, bits, start, frames, max(0, missing))
        if name == b"fmt ":
            body = file.read(size + size % 2)
            kind, channels, rate, bits = _format(body, path)
        else:
            file.seek(size + size % 2, os.SEEK_CUR)
    raise FileFormatError(path, "is a WAV file without samples")


def _format(body: bytes, path: Path) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise FileFormatError(path, "has a broken header")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if kind == _EXTENSIBLE and len(body) >= 26:
        kind = int.from_bytes(body[24:26], "little")
    if bits not in _BITS.get(kind, ()):
        raise FileFormatError(path, f"is a WAV file of format {kind} with {bits} bits")
    if not 0 < channels <= _MAX_CHANNELS:
        raise FileFormatError(path, f"has {channels} channels, and 1 to {_MAX_CHANNELS} are read")
    if rate not in _RATES:
        limits = f"{_RATES.start} to {_RATES.stop - 1} Hz"
        raise FileFormatError(path, f"has a sample rate of {rate} Hz, and {limits} are read")
    return kind, channels, rate, bits


class WavSource:
    """The samples of a WAV file as a session uses them, from any position on.

    Only a file in another format needs numpy, which is imported with its first block.

    Raises:
        NoSuchFileError: it does not exist.
        UnreadableFileError: it cannot be opened.
        FileFormatError: it is no WAV file that is understood here.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self._file = _opened(path)
        try:
            self.format = read_format(self._file, path)
        except BaseException:
            self._file.close()
            raise
        self.samples = (2 * self.format.frames * SAMPLE_RATE + self.format.rate) // (
            2 * self.format.rate
        )
        """How many samples of 24 kHz it has."""
        self.position = min(position, self.samples)
        self._converter: _Converter | None = None
        if self.format.native:
            self._file.seek(self.format.data_start + 2 * self.position)

    def read(self, samples: int) -> bytes:
        """Return the next samples as int16 little-endian mono, 24 kHz; fewer at the end."""
        samples = min(samples, self.samples - self.position)
        if samples <= 0:
            return b""
        self.position += samples
        if self.format.native:
            return self._file.read(2 * samples)
        if self._converter is None:
            self._converter = _Converter(self._file, self.format, self.position - samples)
        return self._converter.read(samples)

    def close(self) -> None:
        self._file.close()


def _opened(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableFileError(path, "it is a folder; give the name of a WAV file")
        if not stat.S_ISREG(mode):  # opening a pipe could wait for ever
            raise UnreadableFileError(path, "it is a pipe or a device; write it to a file first")
        return path.open("rb")
    except FileNotFoundError:
        raise NoSuchFileError(path) from None
    except PermissionError:
        raise UnreadableFileError(path, "this user may not read it; have it allowed") from None
    except OSError as error:
        raise UnreadableFileError(path, f"{error.strerror}; give another one") from None


class _Converter:
    """Any format to int16 mono at 24 kHz, a second of the file at a time."""

    _WARM_UP = 64
    """Samples before the position that the resampler hears first: no click at the start."""

    def __init__(self, file: BinaryIO, form: WavFormat, position: int) -> None:
        from math import gcd

        from actors.devices.resample import Resampler

        step = gcd(form.rate, SAMPLE_RATE)
        whole = max(0, position - self._WARM_UP) // (SAMPLE_RATE // step)
        self._file, self._form = file, form
        self._frame = whole * (form.rate // step)
        self._skip = position - whole * (SAMPLE_RATE // step)
        self._resampler = Resampler(form.rate, SAMPLE_RATE)
        self._ready = bytearray()
        file.seek(form.data_start + self._frame * form.frame_bytes)

    def read(self, samples: int) -> bytes:
        while len(self._ready) < 2 * (samples + self._skip) and self._more():
            pass
        del self._ready[: 2 * self._skip]
        self._skip = 0
        pcm = bytes(self._ready[: 2 * samples])
        del self._ready[: 2 * samples]
        return pcm + bytes(2 * samples - len(pcm))

    def _more(self) -> bool:
        from actors.devices.convert import to_pcm

        left = self._form.frames - self._frame
        if left < 0:
            return False
        frames = min(self._form.rate, left)
        raw = self._file.read(frames * self._form.frame_bytes)
        self._frame += frames
        self._ready += to_pcm(self._resampler.process(_mono(raw, self._form)))
        if self._frame == self._form.frames:
            self._ready += to_pcm(self._resampler.flush())
            self._frame += 1
        return True


def _mono(raw: bytes, form: WavFormat) -> NDArray[np.float32]:
    """Return float32 mono in the range of int16."""
    import numpy as np

    from actors.devices.convert import downmixed

    raw = raw[: len(raw) // form.frame_bytes * form.frame_bytes]
    wide: NDArray[np.float32]
    if form.kind == _FLOAT:
        wide = np.frombuffer(raw, f"<f{form.bits // 8}").astype(np.float32) * 32768.0
    elif form.bits == 8:
        wide = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) * 256.0
    elif form.bits == 24:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        padded = np.zeros((len(parts), 4), np.uint8)
        padded[:, 1:] = parts
        wide = padded.view("<i4").reshape(-1).astype(np.float32) / 65536.0
    else:
        scale = np.float32(2.0 ** (16 - form.bits))
        wide = np.frombuffer(raw, f"<i{form.bits // 8}").astype(np.float32) * scale
    return downmixed(np.nan_to_num(wide), form.channels)


class WavTarget:
    """A 16-bit file at 24 kHz, written at any position; its header is true after each write.

    Args:
        path: of the file.
        channels: 1 or 2.
        fresh: begin anew. Otherwise a file of ours is gone on with, its header repaired.

    Raises:
        UnwritableFileError: it cannot be opened for writing.
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
            if fresh and size:  # not before it is known to be ours alone
                os.ftruncate(self._file, 0)
                size = 0
            self.frames = max(0, size - _HEAD.size) // self._frame_bytes
            self._write_head()
        except OSError as error:
            os.close(self._file)
            raise UnwritableFileError(path, why_not(path, error)) from None

    @property
    def max_frames(self) -> int:
        """How many frames a WAV file can have: its header counts bytes with 32 bits."""
        return _MAX_DATA_BYTES // self._frame_bytes

    def write(self, frame: int, data: bytes) -> None:
        """Write frames at a position; silence is between the end so far and there.

        Raises:
            OSError: the disk is full, or gone.
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
        """Make the file this long, with silence at its end.

        Raises:
            OSError: the disk is gone.
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
            b"fmt ", 16, _PCM, channels, SAMPLE_RATE,
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
