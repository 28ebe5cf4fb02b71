"""Reads sound files other than plain WAV files (FLAC, Ogg, MP3, AIFF, …) with libsndfile.

Import it only when needed: it also imports numpy and cffi.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.devices.errors import FileFormatError, OtherFormatError
from actors.devices.sound.wav import refuse_beyond_limits

__all__ = ["CodedFrames"]

_LOUDEST = 1000.0
"""Limit of float samples, times full scale, so that no sum of channels overflows. Playback clips at
full scale anyway."""


class CodedFrames:
    """The frames of a file that libsndfile reads; see `actors.devices.sound.source.Frames`.

    Args:
        path: The file.
        unknown: Raised if the package ``soundfile`` is not installed.

    Raises:
        FileFormatError: If libsndfile cannot read the file either.
    """

    def __init__(self, path: Path, unknown: OtherFormatError) -> None:
        try:
            import soundfile
        except (ImportError, OSError):  # OSError: the package is installed without libsndfile
            raise unknown from None
        self._library = soundfile
        # It would encode a path that is not UTF-8 as UTF-8.
        self._name = str(path) if sys.platform == "win32" else os.fsencode(path)
        self._next = self._at = 0
        """The next frame to read, and the position of the decoder; `read` brings them together."""
        try:
            self._file = self._opened()
        # TypeError: libsndfile is not asked about a file whose name ends in .raw.
        except (soundfile.SoundFileError, TypeError):
            raise FileFormatError(path, unknown.reason) from None
        try:
            refuse_beyond_limits(path, self._file.channels, self._file.samplerate)
            self.rate: int = self._file.samplerate
            self.channels: int = self._file.channels
            self.frames = self._readable(self._file.frames)
            self.missing = self._file.frames - self.frames
            if not self.frames:
                raise FileFormatError(path, "has no samples that can be read")
        except BaseException:
            self._file.close()
            raise

    def seek(self, frame: int) -> None:
        """Set the frame at which the next `read` begins."""
        self._next = frame

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next frames in the range of int16; a damaged part is silence."""
        first, self._next = self._next, self._next + frames
        try:
            self._go_to(first)
            found = self._file.read(frames, dtype="float32", always_2d=True)
            self._at += len(found)
        except self._library.SoundFileError:  # after an error, a decoder cannot be used any more
            self._begin_again()
            return np.zeros((frames, self.channels), np.float32)
        # A file may hold any float: limit what is too loud, and play NaN as silence.
        sane: NDArray[np.float32] = np.nan_to_num(np.clip(found, -_LOUDEST, _LOUDEST))
        return sane * np.float32(32768.0)

    def _opened(self) -> Any:
        """Open the file with ``seekable`` off; otherwise soundfile would seek after each read."""
        steady = type("Steady", (self._library.SoundFile,), {"seekable": lambda _: False})
        return steady(self._name)

    def _begin_again(self) -> None:
        self._file.close()
        self._file, self._at = self._opened(), 0

    def _go_to(self, frame: int) -> None:
        """Move the decoder to a frame.

        An MP3 file is decoded from its start up to there, as seeking in it is not exact.
        """
        if frame == self._at:
            return
        if self._file.format != "MP3":
            self._file.seek(frame)
            self._at = frame
            return
        if frame < self._at:
            self._begin_again()
        while self._at < frame:
            skipped = self._file.read(min(frame - self._at, self.rate), always_2d=True)
            if not len(skipped):
                return
            self._at += len(skipped)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _readable(self, promised: int) -> int:
        """Return how many of the frames that the header promises can be read.

        If the last frame cannot be read, the file was cut off; a binary search finds its end.
        """
        if promised > 0 and self._has(promised - 1):
            return promised
        there, not_there = 0, promised
        while there < not_there:
            middle = (there + not_there) // 2
            if self._has(middle):
                there = middle + 1
            else:
                not_there = middle
        return there

    def _has(self, frame: int) -> bool:
        """Return whether a frame can be read, with a new decoder, as a failed one is unusable."""
        try:
            with self._library.SoundFile(self._name) as file:
                file.seek(frame)
                return len(file.read(1)) == 1
        except self._library.SoundFileError:
            return False
