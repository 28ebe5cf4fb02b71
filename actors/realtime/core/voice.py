"""Detection of voice by loudness; its length distinguishes a word from a cough.

It runs only while an interruption is in doubt, and looks at every third sample, because it is plain
Python on the actor's thread.
"""

from __future__ import annotations

import operator
import sys
from array import array

from messages import SAMPLE_RATE

__all__ = ["ROOM", "Measure"]

_WINDOW_MS = 20
_WINDOW = _WINDOW_MS * SAMPLE_RATE // 1000
_STRIDE = 3
ROOM = 2 * SAMPLE_RATE
"""Samples of earlier audio from which the noise floor of the room is measured."""
_FLOOR_WINDOWS = 5
"""The noise floor is the mean power of the quietest run of this many windows (100 ms)."""
_ABOVE_FLOOR = 6.0
"""Minimum ratio of voice power to the noise floor: 8 dB."""
_LEAST = (32768 * 10 ** (-50 / 20)) ** 2
"""Minimum power of voice: -50 dB of full scale, also in a quieter room."""


class Measure:
    """Counts the milliseconds of audio that are louder than the room.

    Args:
        before: audio captured before, int16 mono, for the noise floor; empty: none.
    """

    def __init__(self, before: bytes = b"") -> None:
        self.voiced_ms = 0
        """Milliseconds louder than the room so far."""
        self._limit = max(_LEAST, _ABOVE_FLOOR * _floor(_powers(before)))
        self._rest = b""

    def hear(self, pcm: bytes) -> bool:
        """Measure the next audio. Return whether a part of it was louder than the room."""
        pcm = self._rest + pcm
        whole = len(pcm) // (2 * _WINDOW) * 2 * _WINDOW
        self._rest = pcm[whole:]
        loud = sum(power > self._limit for power in _powers(pcm[:whole]))
        self.voiced_ms += loud * _WINDOW_MS
        return loud > 0


def _powers(pcm: bytes) -> list[float]:
    """Return the power of each whole window: the mean of the squares of its samples."""
    samples = array("h", pcm[: len(pcm) & ~1])
    if sys.byteorder == "big":
        samples.byteswap()
    found = []
    for start in range(0, len(samples) - _WINDOW + 1, _WINDOW):
        some = samples[start : start + _WINDOW : _STRIDE]
        found.append(sum(map(operator.mul, some, some)) / len(some))
    return found


def _floor(powers: list[float]) -> float:
    """Return the noise floor: the lowest mean power of a run of windows."""
    runs = [
        sum(powers[start : start + _FLOOR_WINDOWS]) / _FLOOR_WINDOWS
        for start in range(len(powers) - _FLOOR_WINDOWS + 1)
    ]
    return min(runs, default=0.0)
