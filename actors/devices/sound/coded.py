"""Sound files that are no plain WAV files (FLAC, Ogg, MP3, AIFF, …), where libsndfile is installed.

Imported at need: it brings numpy and cffi with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.devices.errors import FileFormatError, OtherFormatError
from actors.devices.sound.wav import refuse_beyond_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CodedFrames"]

_LOUDEST = 1000.0
"""Times full scale: no sum of channels overflows. What is played is clipped at full scale."""


class CodedFrames:
    """The frames of a file that libsndfile reads; see `actors.devices.sound.source`.

    Args:
        path: of the file.
        unknown: is raised where the package ``soundfile`` is not installed.

    Raises:
        FileFormatError: libsndfile does not read it either.
    """

    def __init__(self, path: Path, unknown: OtherFormatError) -> None:
        try:
            import soundfile
        except (ImportError, OSError):  # OSError: the package is there, and no libsndfile
            raise unknown from None
        self._library = soundfile
        self._path = path
        self._next = self._at = 0
        """The frame to be read next, and the one before which the decoder is."""
        try:
            self._file = self._opened()
        except soundfile.SoundFileError:
            raise FileFormatError(path, unknown.reason) from None
        try:
            refuse_beyond_limits(path, self._file.channels, self._file.samplerate)
            self.rate: int = self._file.samplerate
            self.frames = self._readable(self._file.frames)
            self.missing = self._file.frames - self.frames
            if not self.frames:
                raise FileFormatError(path, "has no samples that can be read")
        except BaseException:
            self._file.close()
            raise

    def seek(self, frame: int) -> None:
        """Go to a frame, by what is read next."""
        self._next = frame

    def read(self, frames: int) -> NDArray[np.float32]:
        """Return the next frames as mono in the range of int16; what is damaged is silence."""
        import numpy as np

        first, self._next = self._next, self._next + frames
        try:
            self._go_to(first)
            found = self._file.read(frames, dtype="float32", always_2d=True)
            self._at += len(found)
        except self._library.SoundFileError:  # and this decoder is of no use any more
            self._begin_again()
            return np.zeros(frames, np.float32)
        # Floats in a file may be anything: nothing is that loud, and what is no number is silence.
        sane = np.nan_to_num(np.clip(found, -_LOUDEST, _LOUDEST))
        mono: NDArray[np.float32] = sane.mean(axis=1, dtype=np.float32) * np.float32(32768.0)
        return mono

    def _opened(self) -> Any:
        """Open the file. Its position is left alone: after each ``read``, soundfile would seek."""
        steady = type("Steady", (self._library.SoundFile,), {"seekable": lambda _: False})
        return steady(self._path)

    def _begin_again(self) -> None:
        self._file.close()
        self._file, self._at = self._opened(), 0

    def _go_to(self, frame: int) -> None:
        """Have the decoder before a frame. Of MP3 only what comes from the start is exact."""
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
        """Return how many frames there are of those that the header promises.

        A file that was cut off is found out by its last frame, and its end by halving.
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
        """Return whether a frame can be read. A decoder that has failed is of no use any more."""
        try:
            with self._library.SoundFile(self._path) as file:
                file.seek(frame)
                return len(file.read(1)) == 1
        except self._library.SoundFileError:
            return False
