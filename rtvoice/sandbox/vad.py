"""Detection of speech by energy: samples in, positions out; no clock, no thread."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtvoice.sandbox.audio import RATE

__all__ = ["SpeechDetector", "Started", "Stopped", "levels_db", "speech_span"]

_WINDOW: Final = RATE // 100
"""Samples of a window: 10 ms. The windows do not depend on how the audio is divided into blocks."""
_WINDOW_MS: Final = 10

_QUIETEST_DB: Final = -58.0
"""Lowest level of speech in any room, in dB of full scale, at threshold 0.5."""
_MARGIN_DB: Final = 12.0
"""How much louder than the room speech is, at threshold 0.5; each 0.1 changes it by 1.6 dB."""
_DB_PER_THRESHOLD: Final = 16.0
_HYSTERESIS_DB: Final = 4.0
"""How much quieter speech may be after its beginning."""

_FLOOR_BLOCK: Final = 4
"""Windows in a block of the noise floor: 40 ms, as long as the closure before a `t`."""
_FLOOR_BLOCKS: Final = 100
"""Blocks of which the quietest is the noise floor: 4 s, then a steady noise is part of it."""
_FIRST_FLOOR_DB: Final = -50.0
"""Upper limit of the noise floor in the first second, when nothing is known of the room."""
_FIRST_BLOCKS: Final = 25
_FLOOR_RANGE_DB: Final = (-75.0, -20.0)

_ONSET_WINDOWS: Final = 5
_ONSET_OF: Final = 7
"""Speech begins when 5 of 7 windows are loud; a click makes fewer loud."""

_EAGERNESS_MS: Final = {"high": 400, "auto": 600, "medium": 600, "low": 1000}
"""Silence that ends a turn under semantic_vad, by eagerness. The sandbox cannot know whether a
sentence is complete."""


_UNDER_PEAK_DB: Final = 35.0
"""Range of levels in speech, down from its loudest window."""
_SILENCE_DB: Final = -75.0
"""Level of the loudest window up to which a segment has no speech."""


class Started(NamedTuple):
    """Speech began; `at` is its first sample, including the prefix padding."""

    at: int


class Stopped(NamedTuple):
    """Speech ended; `at` is the sample after the silence that ended it."""

    at: int


class SpeechDetector:
    """Finds speech in a stream of int16 at 24 kHz.

    A window of 10 ms is loud if it is louder than the noise floor by a margin. The noise floor is
    the level of the quietest 40 ms in the last 4 s. Positions count samples since the stream began.

    Args:
        settings: The `turn_detection` of the session.
        position: Position of the next sample.
    """

    def __init__(self, settings: dict[str, Any], position: int = 0) -> None:
        self.configure(settings)
        self._position = position
        self._rest = np.zeros(0, np.int16)
        self._block: list[float] = []
        self._floors: deque[float] = deque(maxlen=_FLOOR_BLOCKS)
        self._first = _FIRST_BLOCKS
        self.reset()

    @property
    def speaking(self) -> bool:
        return self._speaking

    def configure(self, settings: dict[str, Any]) -> None:
        """Apply other settings, also to speech that has begun."""
        threshold = settings.get("threshold", 0.5) - 0.5
        self._margin_db = _MARGIN_DB + _DB_PER_THRESHOLD * threshold
        self._quietest_db = _QUIETEST_DB + _DB_PER_THRESHOLD * threshold
        self._prefix = settings.get("prefix_padding_ms", 300) * RATE // 1000
        silence_ms = settings.get("silence_duration_ms", _EAGERNESS_MS["auto"])
        if settings["type"] == "semantic_vad":
            silence_ms = _EAGERNESS_MS[settings["eagerness"]]
        self._silence_windows = max(1, -(-silence_ms // _WINDOW_MS))

    def reset(self) -> None:
        """Forget speech that has begun, but keep the noise floor."""
        self._speaking = False
        self._silent = 0
        self._recent: deque[bool] = deque(maxlen=_ONSET_OF)

    def feed(self, pcm: bytes) -> list[Started | Stopped]:
        """Process the next audio.

        Args:
            pcm: int16 little-endian mono, 24 kHz, of any length.

        Returns:
            The beginnings and ends of speech in it, in order.
        """
        samples = np.concatenate((self._rest, np.frombuffer(pcm, "<i2")))
        count = len(samples) // _WINDOW
        self._rest = samples[count * _WINDOW :]
        if not count:
            return []
        levels = levels_db(samples[: count * _WINDOW]).tolist()
        return [change for level in levels if (change := self._window(level)) is not None]

    def _window(self, level_db: float) -> Started | Stopped | None:
        self._position += _WINDOW
        self._update_floor(level_db)
        limit = max(self._floor_db() + self._margin_db, self._quietest_db)
        if self._speaking:
            return self._while_speaking(level_db > limit - _HYSTERESIS_DB)
        return self._while_quiet(level_db > limit)

    def _while_quiet(self, loud: bool) -> Started | None:
        self._recent.append(loud)
        if sum(self._recent) < _ONSET_WINDOWS:
            return None
        first = len(self._recent) - self._recent.index(True)
        self.reset()
        self._speaking = True
        return Started(self._position - first * _WINDOW - self._prefix)

    def _while_speaking(self, loud: bool) -> Stopped | None:
        # One loud window in silence is a click; two in a row are speech.
        self._recent.append(loud)
        again = loud and len(self._recent) > 1 and self._recent[-2]
        self._silent = 0 if again else self._silent + 1
        if self._silent < self._silence_windows:
            return None
        self.reset()
        return Stopped(self._position)

    def _floor_db(self) -> float:
        floor = min(self._floors, default=_FIRST_FLOOR_DB)
        return min(floor, _FIRST_FLOOR_DB) if self._first else floor

    def _update_floor(self, level_db: float) -> None:
        self._block.append(level_db)
        if len(self._block) < _FLOOR_BLOCK:
            return
        # Average the powers, not the levels: one quiet window must not look like a quiet room.
        mean = 10 * math.log10(sum(10 ** (db / 10) for db in self._block) / _FLOOR_BLOCK)
        low, high = _FLOOR_RANGE_DB
        self._floors.append(min(high, max(low, mean)))
        self._block.clear()
        self._first = max(0, self._first - 1)


def levels_db(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the level of each complete window of 10 ms, in dB of full scale."""
    count = len(samples) // _WINDOW
    windows = samples[: count * _WINDOW].reshape(count, _WINDOW).astype(np.float32)
    power = np.einsum("ij,ij->i", windows, windows) / (_WINDOW * 32768.0**2)
    levels: NDArray[np.float32] = 10 * np.log10(power + 1e-12)
    return levels


def speech_span(samples: NDArray[np.int16]) -> tuple[int, int]:
    """Return where speech begins and ends in a segment, relative to its loudest window.

    Returns:
        The first sample, and the sample after the last one; `(0, 0)` for silence.
    """
    levels = levels_db(samples)
    if not len(levels) or levels.max() <= _SILENCE_DB:
        return 0, 0
    loud = np.flatnonzero(levels > levels.max() - _UNDER_PEAK_DB)
    return int(loud[0]) * _WINDOW, (int(loud[-1]) + 1) * _WINDOW
