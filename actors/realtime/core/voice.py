"""How long somebody has been speaking, by loudness: enough to tell a word from a cough.

Measured only while there is something to decide, and cheaply: every third sample, in plain Python.
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
"""Samples of the recent past by which it is known how loud the room is."""
_FLOOR_WINDOWS = 5
"""The room is as loud as the quietest so many windows (100 ms) in a row."""
_ABOVE_FLOOR = 6.0
"""Voice has so much more power than the room: 8 dB."""
_LEAST = (32768 * 10 ** (-50 / 20)) ** 2
"""Below this power (-50 dB of full scale) nothing is voice, however quiet the room."""


class Measure:
    """Counts how long somebody was loud.

    Args:
        before: what was captured before, as the measure of the room.
    """

    def __init__(self, before: bytes = b"") -> None:
        self.voiced_ms = 0
        """How long it was louder than the room."""
        self._limit = max(_LEAST, _ABOVE_FLOOR * _floor(_powers(before)))
        self._rest = b""

    def hear(self, pcm: bytes) -> bool:
        """Take the next audio. Return whether somebody was loud in it."""
        pcm = self._rest + pcm
        whole = len(pcm) // (2 * _WINDOW) * 2 * _WINDOW
        self._rest = pcm[whole:]
        loud = sum(power > self._limit for power in _powers(pcm[:whole]))
        self.voiced_ms += loud * _WINDOW_MS
        return loud > 0


def _powers(pcm: bytes) -> list[float]:
    """Return the mean of the squares in each whole window."""
    samples = array("h", pcm[: len(pcm) & ~1])
    if sys.byteorder == "big":
        samples.byteswap()
    found = []
    for start in range(0, len(samples) - _WINDOW + 1, _WINDOW):
        some = samples[start : start + _WINDOW : _STRIDE]
        found.append(sum(map(operator.mul, some, some)) / len(some))
    return found


def _floor(powers: list[float]) -> float:
    runs = [
        sum(powers[start : start + _FLOOR_WINDOWS]) / _FLOOR_WINDOWS
        for start in range(len(powers) - _FLOOR_WINDOWS + 1)
    ]
    return min(runs, default=0.0)
