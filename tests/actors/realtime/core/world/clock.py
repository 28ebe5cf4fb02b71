"""The clock of the world, and its calendar of events."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["BLOCK", "MS", "NS", "RATE", "Clock"]

NS, MS = 1_000_000_000, 1_000_000
"""Nanoseconds in a second, and in a millisecond."""
RATE = 24_000
BLOCK = RATE // 10
"""Samples that the microphone hands over at once."""


class Clock:
    """Time that passes only in `run`, from one thing to do to the next."""

    def __init__(self) -> None:
        self.now = self.began = 1_000_000 * NS
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after_ns(self, delay: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._order), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.after_ns(int(seconds * NS), do)

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * NS)
        while self._heap and self._heap[0][0] <= end:
            self.now, _, do = heapq.heappop(self._heap)
            do()
        self.now = end
