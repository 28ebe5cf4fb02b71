"""Reads a sound file as the session's audio, int16 mono at 24 kHz, from any position."""

from __future__ import annotations

import stat
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from actors.devices.errors import NoSuchFileError, OtherFormatError, UnreadableFileError
from actors.devices.sound.wav import WavFrames
from messages import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FileSource", "Frames"]


_PIECES_PER_S = 4
"""Number of pieces in which a second is converted. A whole second of 64 channels at 192 kHz would
take a quarter of a gigabyte of memory."""


class Frames(Protocol):
    """The interface of an open sound file of any format."""

    rate: int
    """Sample rate in Hz."""
    channels: int
    """Number of channels."""
    frames: int
    """Number of frames that can be read."""
    missing: int
    """Number of further frames that the header promises."""

    def seek(self, frame: int) -> None: ...

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next frames in the range of int16, fewer at the end.

        Their shape is ``(n_frames, channels)``.
        """
        ...

    def close(self) -> None: ...


class FileSource:
    """A sound file in any readable format, converted to int16 mono at 24 kHz.

    Only a file in another format needs numpy. It is imported here, when the file is opened, because
    an import can take longer than a handler may.

    Raises:
        NoSuchFileError: If the file does not exist.
        UnreadableFileError: If it cannot be opened.
        FileFormatError: If it is not a sound file that can be read here.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        frames = self.frames = _open(path)
        self.samples = (2 * frames.frames * SAMPLE_RATE + frames.rate) // (2 * frames.rate)
        """Its length in samples of 24 kHz."""
        self.position = min(position, self.samples)
        self._native = frames if isinstance(frames, WavFrames) and frames.native else None
        self._converter: _FileConverter | None = None
        if self._native:
            self._native.seek(self.position)
        else:  # now: a handler may not take as long as the import of numpy can
            self._converter = _FileConverter(self.frames, self.position)

    def read(self, samples: int) -> bytes:
        """Return the next samples as int16 little-endian mono, 24 kHz; fewer at the end."""
        samples = min(samples, self.samples - self.position)
        if samples <= 0:
            return b""
        self.position += samples
        if self._native:
            return self._native.read_raw(samples)
        assert self._converter is not None
        return self._converter.read(samples)

    @property
    def cancelled(self) -> bool:
        """Whether channels have cancelled each other out; if so, only the loudest is returned."""
        return self._converter is not None and self._converter.downmix.cancelled

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        self.frames.close()


def _open(path: Path) -> Frames:
    file = _opened(path)
    try:
        return WavFrames(file, path)
    except OtherFormatError as error:
        file.close()
        from actors.devices.sound.coded import CodedFrames

        return CodedFrames(path, error)
    except BaseException:
        file.close()
        raise


def _opened(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableFileError(path, "it is a folder; give the name of a WAV file")
        if not stat.S_ISREG(mode):  # opening a pipe could block for ever
            raise UnreadableFileError(path, "it is a pipe or a device; write it to a file first")
        return path.open("rb")
    except FileNotFoundError:
        raise NoSuchFileError(path) from None
    except PermissionError:
        raise UnreadableFileError(path, "this user may not read it; have it allowed") from None
    except OSError as error:
        raise UnreadableFileError(path, f"{error.strerror}; give another one") from None


class _FileConverter:
    """Converts a file piece by piece to int16 at 24 kHz."""

    _WARM_UP = 64
    """Samples before the position, converted and discarded against a click at the start."""

    def __init__(self, frames: Frames, position: int) -> None:
        from actors.devices.sound.convert import Downmix, to_pcm
        from actors.devices.sound.resample import Resampler

        self._to_pcm = to_pcm
        step = gcd(frames.rate, SAMPLE_RATE)
        whole = max(0, position - self._WARM_UP) // (SAMPLE_RATE // step)
        self._frames = frames
        self._frame = whole * (frames.rate // step)
        self._skip = position - whole * (SAMPLE_RATE // step)
        self.downmix = Downmix(frames.channels, frames.rate)
        self._resampler = Resampler(frames.rate, SAMPLE_RATE)
        self._ready = bytearray()
        self._flushed = False
        frames.seek(self._frame)

    def read(self, samples: int) -> bytes:
        while len(self._ready) < 2 * (samples + self._skip) and not self._flushed:
            self._convert_more()
        del self._ready[: 2 * self._skip]
        self._skip = 0
        pcm = bytes(self._ready[: 2 * samples])
        del self._ready[: 2 * samples]
        return pcm + bytes(2 * samples - len(pcm))

    def _convert_more(self) -> None:
        count = min(self._frames.rate // _PIECES_PER_S, self._frames.frames - self._frame)
        self._frame += count
        mono = self.downmix.mix(self._frames.read(count))
        self._ready += self._to_pcm(self._resampler.process(mono))
        if self._frame == self._frames.frames:
            self._flushed = True
            self._ready += self._to_pcm(self._resampler.flush())
