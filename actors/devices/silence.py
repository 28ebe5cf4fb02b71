"""Devices paced by a clock instead of hardware: silence as input, and outputs nobody hears."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.devices.base import Capture, Captured, Playback
from actors.devices.playout import Playout
from actors.devices.units import to_ns, to_samples
from messages import SAMPLE_RATE, Message

__all__ = ["NoPlayback", "NullPlayback", "PacedCapture", "PacedPlayback", "SilenceCapture"]

_BLOCK = 20 * SAMPLE_RATE // 1000
_LATEST = 100 * SAMPLE_RATE // 1000
"""A block is taken at most this much later than it is due, which is the interval of reports."""
_LEAST_QUEUED = 100 * SAMPLE_RATE // 1000
"""With less in the queue, each block is taken when it is due."""
_LATE_NS = 1_000_000_000
"""Lag after which the clock restarts at now instead of catching up: the process was stopped, or the
machine was asleep."""


class PacedCapture(Capture):
    """An input that delivers blocks in real time on the actor's thread, without drift."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._silence = bytes(2 * block)
        self._deliver: Callable[[Captured], None] | None = None
        self._due = 0

    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        self._deliver = deliver
        self._due = time.monotonic_ns() + to_ns(self._block)

    def close(self) -> None:
        self._deliver = None

    def pump(self, now_ns: int) -> float | None:
        if self._deliver is None:
            return None
        block_ns = to_ns(self._block)
        if now_ns - self._due > _LATE_NS:
            self._due = now_ns
        while self._due <= now_ns:
            self._deliver(self._next(self._due))
            self._due += block_ns
        return (self._due - now_ns) / 1e9

    def _next(self, due: int) -> Captured:
        """Return the block that ends at ``due``."""
        return Captured(self._silence, due - to_ns(self._block), due)


class SilenceCapture(PacedCapture):
    """The input ``silence``."""

    name = "silence"


class PacedPlayback(Playback):
    """An output that takes audio in real time on the actor's thread; no wake-ups in silence.

    While enough is queued it takes several blocks at once, after they were due, since a wake-up
    costs more than a block. So `catch_up` comes before each question what was played, and before a
    pause, a flush or another volume. Each block is taken when it is due if it is the first, if
    little is queued, so that the supervisor sends more in time, and in a pause.
    """

    def __init__(self) -> None:
        self._playout: Playout | None = None
        self._start_ns: int | None = None
        """Start time of the audio being played; None: nothing is played."""
        self._taken = 0
        """Samples taken since then."""
        self._begin_ns = 0
        """Nothing is played before this time."""

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout

    def close(self) -> None:
        self._playout = None

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        if self._playout is None:
            return [], None
        if self._start_ns is None:
            self._begin(max(now_ns, self._begin_ns))
            self.catch_up(now_ns)
        elif self._next(self._playout) <= now_ns:
            self.catch_up(now_ns)
        if self._start_ns is None:
            return [], None
        return [], (self._next(self._playout) - now_ns) / 1e9

    def catch_up(self, now_ns: int) -> None:
        if self._playout is None or self._start_ns is None:
            return
        if now_ns - self._due() > _LATE_NS:
            self._begin(now_ns)
        while (due := self._due()) <= now_ns:
            blocks = to_samples(now_ns - due) // _BLOCK + 1
            pcm = self._playout.take(blocks * _BLOCK, due)
            if not pcm:
                self._start_ns = None
                return
            self._put(pcm, due, contiguous=self._taken > 0)
            self._taken += len(pcm) // 2

    def _begin(self, now_ns: int) -> None:
        self._start_ns, self._taken = now_ns, 0

    def _due(self) -> int:
        """Return when the next block is due, while something is played."""
        assert self._start_ns is not None
        return self._start_ns + to_ns(self._taken)

    def _next(self, playout: Playout) -> int:
        """Return when to take the blocks that are due then."""
        spare = 0 if playout.paused else max(0, playout.queued - _LEAST_QUEUED)
        return self._due() + to_ns(min(_LATEST, spare))

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        """Play audio whose first sample is due at ``at_ns``."""


class NullPlayback(PacedPlayback):
    """The output ``null``: plays in real time and discards the audio."""

    name = "null"
    clears = True

    def flush(self, now_ns: int) -> list[Message]:
        self._start_ns = None  # what it had taken is taken back
        return []


class NoPlayback(Playback):
    """Stands in for a lost device: takes nothing, so that the audio waits for the next device."""

    name = "null"
    holds = True

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        pass

    def close(self) -> None:
        pass
