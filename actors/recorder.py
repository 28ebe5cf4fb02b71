"""The recorder: the conversation as a stereo file, the user left, the assistant right."""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import ClassVar

from actors.base import Actor
from actors.devices.errors import UnwritableFileError
from actors.devices.opening import is_file
from actors.devices.recent import recent_sound
from actors.devices.sound.wav import WavTarget
from actors.files import path_of, same_file, why_not
from messages import (
    SAMPLE_RATE,
    AudioLost,
    CapturedAudio,
    FileOpened,
    Keep,
    Message,
    Notice,
    PlayedAudio,
)

__all__ = ["Recorder"]

_LEFT, _RIGHT = 0, 1
_REOPEN_S = 1.0
"""Seconds between two tries to open a file that could not be written."""


class Recorder(Actor):
    """Records what was captured and played, each at its position on the timeline of the session.

    Each block is in the file when it counts as handled, and the file is whole at any moment.
    Without a path it does nothing. A disk that is full is reported once, and tried again with each
    block.
    """

    accepts: ClassVar = {CapturedAudio: Keep(seconds=30), PlayedAudio: Keep(seconds=30)}

    def opened(self) -> None:
        self._target: WavTarget | None = None
        self._retry_at = 0.0
        self._failing = False
        self._lost = 0
        self._path: Path | None = None
        if self.settings.recording_path is None:
            return
        self._path = path_of(self.settings.recording_path)
        if self.session.first:
            self._refuse_devices(self._path)
            self._target = WavTarget(self._path, 2, fresh=True)
            self.send(FileOpened(str(self._path)))
            self.log.info("recording", path=str(self._path))
        elif self.session.resumed == "supervisor":
            self._catch_up()

    def handle(self, message: Message) -> None:
        if self._path is None:
            return
        match message:
            case CapturedAudio():
                self._record(_LEFT, message.first_sample, message.pcm)
            case PlayedAudio():
                self._record(_RIGHT, message.first_sample, message.pcm)

    def closed(self) -> None:
        if self._lost:
            self._report_loss()
        if self._target is not None:
            self._target.close()

    def _catch_up(self) -> None:
        """Record what the supervisor that has died had not passed on; some of it is recorded."""
        for channel, component in ((_LEFT, "microphone"), (_RIGHT, "speaker")):
            self._record(channel, *recent_sound(self.session, component))

    def _refuse_devices(self, path: Path) -> None:
        for setting in (self.settings.input, self.settings.output):
            if is_file(setting) and same_file(path, path_of(setting)):
                raise UnwritableFileError(path, "it is the input or the output; record elsewhere")

    def _record(self, channel: int, first: int, pcm: bytes) -> None:
        if first < 0:
            pcm, first = pcm[-2 * first :], 0
        if len(pcm) < 2:
            return
        try:
            target = self._open()
            if target is not None:
                _mix(target, channel, first, pcm)
        except (OSError, UnwritableFileError) as error:
            self._lost += len(pcm) // 2
            self._say_failing(error)
        else:
            if target is None:
                self._lost += len(pcm) // 2
            elif self._failing:
                self._failing = False
                self._report_loss()

    def _open(self) -> WavTarget | None:
        """Return the open file; None if opening it has failed less than `_REOPEN_S` ago."""
        if self._target is None and self._path is not None:
            now = time.monotonic()
            if now < self._retry_at:
                return None
            self._retry_at = now + _REOPEN_S
            self._target = WavTarget(self._path, 2, fresh=False)
        return self._target

    def _report_loss(self) -> None:
        ms, self._lost = self._lost * 1000 // SAMPLE_RATE, 0
        self.send(AudioLost("recorder", ms, "the recording could not be written"))

    def _say_failing(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self.log.info("recording fails", path=str(self._path), error=str(error))
            self.send(Notice(f"The recording has a hole from here on: {self._reason(error)}."))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, OSError) and self._path is not None:
            error = UnwritableFileError(self._path, why_not(self._path, error))
        return str(error)


def _mix(target: WavTarget, channel: int, first: int, pcm: bytes) -> None:
    """Write one channel of a stretch of the file and leave the other as it is."""
    mono = array("h", pcm[: len(pcm) & ~1])
    old = target.read(first, len(mono))
    both = array("h", old + bytes(4 * len(mono) - len(old)))
    both[channel::2] = mono
    target.write(first, both.tobytes())
