"""Files as devices: a sound file as input, and a WAV file as output."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from actors.devices.base import Captured
from actors.devices.silence import PacedCapture, PacedPlayback
from actors.devices.sound.source import FileSource
from actors.devices.sound.wav import WavTarget
from actors.devices.units import to_ns, to_samples
from actors.files import why_not
from messages import SessionInfo

__all__ = ["FileCapture", "FilePlayback"]


_HEARD = 20
"""A missing part of a file is reported if it is longer than 1/20 of a second."""


class FileCapture(PacedCapture):
    """A sound file, delivered in real time, and silence after its end.

    Args:
        path: The file.
        block: Length of a block in samples.
        position: Where to start in the file, in samples of 24 kHz.

    Raises:
        NoSuchFileError: If the file does not exist.
        UnreadableFileError: If it cannot be opened.
        FileFormatError: If it is not a sound file that can be read here.
    """

    def __init__(self, path: Path, block: int, position: int = 0) -> None:
        super().__init__(block)
        self.name = str(path)
        self._source = FileSource(path, position)
        self._ended = False
        form = self._source.frames
        if form.missing * _HEARD > form.rate:
            there, all_of_it = form.frames / form.rate, (form.frames + form.missing) / form.rate
            self.trouble = (
                f"the file {self.name!r} was cut off: it has {there:.1f} s of {all_of_it:.1f} s, "
                f"which are used"
            )

    def close(self) -> None:
        super().close()
        self._source.close()

    def _next(self, due: int) -> Captured:
        first_ns = due - to_ns(self._block)
        if self._ended:
            return Captured(self._silence, first_ns, due, self._source.position)
        pcm = self._source.read(self._block)
        if self._source.cancelled:
            self.note_cancelled()
        self._ended = self._source.position >= self._source.samples
        used = len(pcm) // 2 if self._ended else -1
        pcm += bytes(2 * self._block - len(pcm))
        return Captured(pcm, first_ns, due, self._source.position, used)


class FilePlayback(PacedPlayback):
    """A WAV file as output; it starts with the session.

    Audio is written at the time at which it is played; the rest is silence. After a restart, the
    next incarnation continues the file.

    Raises:
        UnwritableFileError: If the file cannot be written.
    """

    def __init__(self, path: Path, session: SessionInfo) -> None:
        super().__init__()
        self.name = str(path)
        self._epoch_ns = session.epoch_ns
        self._target = WavTarget(path, 1, fresh=session.first)
        self.writes = path
        self._next_sample = 0
        # A dead incarnation may have written a block whose end is still to come.
        self._begin_ns = session.epoch_ns + to_ns(self._target.frames)

    def close(self) -> None:
        try:
            self.catch_up(time.monotonic_ns())
            with contextlib.suppress(OSError):  # only silence is missing then
                self._target.extend(to_samples(time.monotonic_ns() - self._epoch_ns))
        finally:
            super().close()
            self._target.close()

    def last_played(self, samples: int) -> tuple[int, bytes]:
        first = max(0, self._target.frames - samples)
        return first, self._target.read(first, samples)

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        if not contiguous:
            self._next_sample = max(to_samples(at_ns - self._epoch_ns), self._next_sample)
        try:
            self._target.write(self._next_sample, pcm)
            self.trouble = ""
        except OSError as error:  # a full disk, for example; the next block is tried again
            self.trouble = f"cannot write to {self.name!r}: {why_not(Path(self.name), error)}"
        self._next_sample += len(pcm) // 2
