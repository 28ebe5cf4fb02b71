"""When a component that crashed is started again: decisions, without a process or a clock."""

from __future__ import annotations

import collections

__all__ = ["RestartPolicy"]


class RestartPolicy:
    """When a component that crashed is started again (guarantee G4).

    Counted are crashes without progress in between: progress is a message of its own work handled.
    They are counted on a clock that runs only while the component is well: one that takes long to
    fail, in opening or by hanging, is not tried for ever.
    """

    MAX_CRASHES = 5
    PERIOD_S = 10.0
    MIN_SPACING_S = 0.05
    MAX_DELAY_S = 2.0
    RENEWAL_SPACING_S = 1.0
    SOFT_RESTARTS = 2
    PARKED_S = (1.0, 2.0, 5.0, 10.0, 30.0)

    def __init__(self) -> None:
        self._crashes: collections.deque[float] = collections.deque()
        """When there were crashes, in seconds of being well."""
        self._well_s = 0.0
        self._last_start = -self.PERIOD_S
        self._parked = 0

    @property
    def row(self) -> int:
        """How many crashes there were without progress."""
        return len(self._crashes)

    def started(self, now: float) -> None:
        """Note that an incarnation is started."""
        self._last_start = now

    def crashed(self, now: float, *, progress: bool, well_s: float = 0.0) -> float | None:
        """Return how long to wait before the next start; None: the intensity is exceeded.

        Args:
            now: In seconds of any one clock.
            progress: Whether the incarnation has done any work of its own.
            well_s: How long it was open and not stuck.
        """
        if progress:
            self._crashes.clear()
            self._parked = 0
        self._well_s += well_s
        self._crashes.append(self._well_s)
        while self._well_s - self._crashes[0] > self.PERIOD_S:
            self._crashes.popleft()
        if self.row > self.MAX_CRASHES:
            return None
        delay = 0.0 if self.row == 1 else self.MIN_SPACING_S * 2.0 ** (self.row - 2)
        return max(min(delay, self.MAX_DELAY_S), self._last_start + self.MIN_SPACING_S - now)

    def renewed(self, now: float) -> float:
        """Return how long to wait before the next start of one that has asked for a new process.

        That is tried for ever: what it waits for, a sound device say, may come back.
        """
        return max(0.0, self._last_start + self.RENEWAL_SPACING_S - now)

    def soft(self) -> bool:
        """Return whether a raise may be answered in the same process."""
        return self.row <= self.SOFT_RESTARTS

    def parked(self) -> float:
        """Return how long to wait before trying again what has exceeded its intensity."""
        delay = self.PARKED_S[min(self._parked, len(self.PARKED_S) - 1)]
        self._parked += 1
        self._crashes.clear()
        return delay
