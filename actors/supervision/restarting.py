"""Restart policy: when a component that crashed is started again; no process, no clock."""

from __future__ import annotations

import collections

__all__ = ["RestartPolicy"]


class RestartPolicy:
    """When a component that crashed is started again (guarantee G4).

    Only crashes without progress in between count; handling a message of its own work is progress.
    They are counted on a clock that runs only while the component is well, so that a component
    that takes long to fail (while opening, or by hanging) exceeds the intensity too.
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
        """Times of the crashes, in seconds of being well."""
        self._well_s = 0.0
        self._last_start = -self.PERIOD_S
        self._parked = 0

    @property
    def row(self) -> int:
        """Number of crashes in a row without progress."""
        return len(self._crashes)

    def started(self, now: float) -> None:
        """Record the start of an incarnation."""
        self._last_start = now

    def crashed(self, now: float, *, progress: bool, well_s: float = 0.0) -> float | None:
        """Return the delay before the next start, or None if the restart intensity is exceeded.

        Args:
            now: Seconds of any monotonic clock.
            progress: Whether this incarnation has made progress (`Watch.progress`).
            well_s: Seconds for which this incarnation was open and not stuck.
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
        """Return the delay before a component that asked for a new process is started.

        There is no limit: what it waits for, such as a sound device, may come back.
        """
        return max(0.0, self._last_start + self.RENEWAL_SPACING_S - now)

    def soft(self) -> bool:
        """Return whether the next incarnation may run in the same process."""
        return self.row <= self.SOFT_RESTARTS

    def parked(self) -> float:
        """Return the delay before a component that exceeded its intensity is tried again."""
        delay = self.PARKED_S[min(self._parked, len(self.PARKED_S) - 1)]
        self._parked += 1
        self._crashes.clear()
        return delay
