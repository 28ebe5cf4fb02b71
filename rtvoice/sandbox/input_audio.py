"""The input audio buffer and its events; it has no clock but the audio that it gets."""

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
"""Audio kept while nobody speaks, for the prefix padding of the next turn."""
_MAX_BYTES: Final = 600_000 * BYTES_PER_MS
"""Audio kept of a turn: ten minutes; the beginning of a longer turn is dropped."""


class SpeechBegan(NamedTuple):
    """Speech began; `at` is its first sample in the session, including the prefix padding."""

    at: int


class SpeechEnded(NamedTuple):
    """Speech ended; `at` is the sample after the silence that ended it."""

    at: int


class StayedIdle(NamedTuple):
    """Nobody spoke for `idle_timeout_ms` after an answer, from sample `since` to sample `at`."""

    since: int
    at: int


Change = SpeechBegan | SpeechEnded | StayedIdle


class InputAudio:
    """Audio that the client has appended and that is not committed.

    Positions count samples at 24 kHz since the session began.

    Args:
        settings: The `audio.input` of the session.
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
        """Number of samples appended since the session began."""
        return self._start + len(self._pcm) // 2

    @property
    def start(self) -> int:
        """Position of the oldest sample in the buffer."""
        return self._start

    def configure(self, settings: dict[str, Any]) -> None:
        """Apply other settings, also to speech that has begun."""
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
        """Append audio in the session's input format; return the events of turn detection.

        Raises:
            RefusedError: It is more than 15 MiB, or not a whole number of samples.
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
        # Speech that has just ended is not committed yet: keep its audio.
        if not any(isinstance(change, SpeechEnded) for change in changes):
            self._drop(len(self._pcm) - room)
        return changes

    def take(self, first: int, end: int) -> bytes:
        """Remove and return the audio between two positions; discard what lies before it.

        Raises:
            RefusedError: It is less than 100 ms.
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
        """Discard all audio that is not committed."""
        self._drop(len(self._pcm))
        self.reset_detector()

    def reset_detector(self) -> None:
        """Forget speech that has begun: its end is not reported."""
        if self._detector is not None:
            self._detector.reset()

    def await_idle(self, playback_samples: int) -> None:
        """Start the idle timeout, which begins after an answer of this length has been played."""
        settings = self._settings["turn_detection"] or {}
        timeout_ms = settings.get("idle_timeout_ms")
        speaking = self._detector is not None and self._detector.speaking
        if timeout_ms is not None and not speaking:
            self._idle_since = self.end
            self._idle_until = self.end + playback_samples + timeout_ms * SAMPLES_PER_MS

    def _own_detector(self) -> SpeechDetector | None:
        settings = self._settings["turn_detection"]
        if settings is not None and self._detector is None:
            # Importing numpy takes 0.15 s, so wait for the first audio.
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
