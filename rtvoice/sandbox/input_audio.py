"""The input audio buffer, and what happens in it. Its clock is the audio that comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rtvoice.sandbox.audio import BYTES_PER_MS, Decoder
from rtvoice.sandbox.conversation import SAMPLES_PER_MS
from rtvoice.sandbox.errors import RefusedError

if TYPE_CHECKING:
    from rtvoice.sandbox.vad import SpeechDetector

__all__ = ["InputAudio", "SpeechBegan", "SpeechEnded", "StayedIdle"]

_MAX_APPEND_BYTES: Final = 15 * 1024 * 1024
_MIN_COMMIT_MS: Final = 100
_KEPT_BYTES: Final = 5_000 * BYTES_PER_MS
"""Audio kept while nobody speaks: as much as the context of a turn needs."""
_MAX_BYTES: Final = 600_000 * BYTES_PER_MS
"""A push-to-talk turn of ten minutes; of a longer one the beginning is lost."""


class SpeechBegan(NamedTuple):
    """Speech began. `at`: its first sample in the session, the prefix padding included."""

    at: int


class SpeechEnded(NamedTuple):
    """Speech ended. `at`: the sample after the silence that showed it."""

    at: int


class StayedIdle(NamedTuple):
    """Nobody spoke for `idle_timeout_ms` after an answer. From sample `since` to sample `at`."""

    since: int
    at: int


Change = SpeechBegan | SpeechEnded | StayedIdle


class InputAudio:
    """Audio that the client has appended and the server has not committed.

    Positions count samples at 24 kHz since the session began.

    Args:
        settings: `audio.input` of the session.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._pcm = bytearray()
        self._start = 0
        self._decoder = Decoder(settings["format"])
        self._detector: SpeechDetector | None = None
        self._idle_since: int | None = None
        self._idle_until = 0

    @property
    def end(self) -> int:
        """Samples that came in since the session began."""
        return self._start + len(self._pcm) // 2

    @property
    def start(self) -> int:
        """Position of the oldest sample that is still here."""
        return self._start

    def configure(self, settings: dict[str, Any]) -> None:
        """Apply other settings; speech that has begun goes on."""
        old, self._settings = self._settings, settings
        if settings["format"] != old["format"]:
            self._decoder = Decoder(settings["format"])
        if settings["turn_detection"] == old["turn_detection"]:
            return
        self._idle_since = None
        if settings["turn_detection"] is None:
            self._detector = None
        elif self._detector is not None:
            self._detector.configure(settings["turn_detection"])

    def append(self, data: bytes) -> list[Change]:
        """Take audio in the session's input format.

        Raises:
            RefusedError: it is too much at once, or not a whole number of samples.
        """
        if len(data) > _MAX_APPEND_BYTES:
            raise RefusedError(
                "Invalid 'audio': more than 15 MiB in one event.",
                code="invalid_value",
                param="audio",
            )
        pcm = self._decoder.decode(data)
        detector = self._own_detector()
        self._pcm += pcm
        changes = self._detect(detector, pcm) if detector is not None else []
        room = _KEPT_BYTES if detector is not None and not detector.speaking else _MAX_BYTES
        # Audio of speech that has just ended is still to be taken.
        if not any(isinstance(change, SpeechEnded) for change in changes):
            self._drop(len(self._pcm) - room)
        return changes

    def take(self, first: int, end: int) -> bytes:
        """Take the audio between two positions, and forget what lies before.

        Raises:
            RefusedError: it is less than 100 ms.
        """
        first = max(first, self._start)
        length = 2 * max(0, end - first)
        if length < _MIN_COMMIT_MS * BYTES_PER_MS:
            raise RefusedError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_MIN_COMMIT_MS}ms of audio, but buffer only has "
                f"{length / BYTES_PER_MS:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._drop(2 * (first - self._start))
        pcm = bytes(self._pcm[:length])
        self._drop(length)
        self._idle_since = None
        return pcm

    def clear(self) -> None:
        """Forget everything that was not committed."""
        self._drop(len(self._pcm))
        self.reset_detector()

    def reset_detector(self) -> None:
        """Forget speech that has begun."""
        if self._detector is not None:
            self._detector.reset()

    def await_idle(self, playback_samples: int) -> None:
        """Watch for a user who stays silent after an answer of that length."""
        settings = self._settings["turn_detection"] or {}
        timeout_ms = settings.get("idle_timeout_ms")
        speaking = self._detector is not None and self._detector.speaking
        if timeout_ms is not None and not speaking:
            self._idle_since = self.end
            self._idle_until = self.end + playback_samples + timeout_ms * SAMPLES_PER_MS

    def _own_detector(self) -> SpeechDetector | None:
        settings = self._settings["turn_detection"]
        if settings is not None and self._detector is None:
            # numpy takes 0.15 s to import: not before the first audio.
            from rtvoice.sandbox.vad import SpeechDetector

            self._detector = SpeechDetector(settings, self.end)
        return self._detector

    def _detect(self, detector: SpeechDetector, pcm: bytes) -> list[Change]:
        from rtvoice.sandbox.vad import Started

        changes: list[Change] = []
        for change in detector.feed(pcm):
            self._idle_since = None
            if isinstance(change, Started):
                changes.append(SpeechBegan(change.at))
            else:
                changes.append(SpeechEnded(change.at))
        if self._idle_since is not None and self.end >= self._idle_until:
            changes.append(StayedIdle(self._idle_since, self.end))
            self._idle_since = None
        return changes

    def _drop(self, count: int) -> None:
        if count > 0:
            self._start += count // 2
            del self._pcm[:count]
