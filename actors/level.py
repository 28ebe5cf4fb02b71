"""How loud sound is: one level for each tenth of a second of it. No numpy: see `messages.Level`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from operator import mul

from messages import SAMPLE_RATE, SILENCE_DBFS

__all__ = ["LEVEL_SAMPLES", "Meter"]

LEVEL_SAMPLES = SAMPLE_RATE // 10
"""What one level is of."""
_LOUDEST = 32767


class Meter:
    """Measures 16-bit mono sound as it comes, in pieces of any length.

    A block of 40 ms takes 60 us, so that ten levels a second cost a seven-hundredth of a core.
    """

    def __init__(self) -> None:
        self._samples = self._squares = self._peak = 0

    def add(self, pcm: bytes) -> Iterator[tuple[float, float]]:
        """Take sound; give mean and peak in dBFS of each tenth of a second that is complete."""
        first, end = 0, len(pcm) // 2
        while first < end:
            samples = min(end - first, LEVEL_SAMPLES - self._samples)
            self._measure(pcm[2 * first : 2 * (first + samples)])
            first += samples
            if self._samples == LEVEL_SAMPLES:
                yield from self.rest()

    def rest(self) -> Iterator[tuple[float, float]]:
        """Give the level of what has come since the last one, as if silence followed, if any."""
        if self._samples:
            yield _dbfs(math.sqrt(self._squares / LEVEL_SAMPLES)), _dbfs(self._peak)
            self._samples = self._squares = self._peak = 0

    def _measure(self, pcm: bytes) -> None:
        samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
        self._samples += len(samples)
        self._squares += sum(map(mul, samples, samples))
        self._peak = max(self._peak, -min(samples), *samples)


def _dbfs(amplitude: float) -> float:
    if amplitude < 1e-9:
        return SILENCE_DBFS
    return round(min(max(20 * math.log10(amplitude / _LOUDEST), SILENCE_DBFS), 0.0), 1)
