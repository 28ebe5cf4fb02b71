"""Devices paced by a clock instead of hardware: silence as input, and outputs nobody hears."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.devices.base import Capture, Captured, Playback
from actors.devices.playout import Playout
from actors.devices.units import to_ns
from messages import SAMPLE_RATE, Message

__all__ = ["NoPlayback", "NullPlayback", "PacedCapture", "PacedPlayback", "SilenceCapture"]

_BLOCK = 20 * SAMPLE_RATE // 1000
_LONG_BLOCK = 100 * SAMPLE_RATE // 1000
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
    """An output that takes blocks in real time on the actor's thread; no wake-ups in silence."""

    def __init__(self) -> None:
        self._playout: Playout | None = None
        self._start_ns: int | None = None
        """Start time of the audio being played; None: nothing is played."""
        self._taken = 0
        """Samples taken since then."""
        self._begin_ns = 0
        """Nothing is played before this time."""
        self._most = _BLOCK
        """Samples that are taken at once."""

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout

    def close(self) -> None:
        self._playout = None

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        if self._playout is None:
            return [], None
        due = now_ns if self._start_ns is None else self._start_ns + to_ns(self._taken)
        if self._start_ns is None or now_ns - due > _LATE_NS:
            due = self._start_ns = max(now_ns, self._begin_ns)
            self._taken = 0
        while due <= now_ns:
            pcm = self._playout.take(self._most, due)
            if not pcm:
                self._start_ns = None
                return [], None
            self._put(pcm, due, contiguous=self._taken > 0)
            self._taken += len(pcm) // 2
            due = self._start_ns + to_ns(self._taken)
        return [], (due - now_ns) / 1e9

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        """Play a block whose first sample is due at ``at_ns``."""


class NullPlayback(PacedPlayback):
    """The output ``null``: plays in real time and discards the audio.

    Args:
        exact: Whether to take no more at once than other devices, so that the death of the process
            costs a recording no more; otherwise it is woken less often.
    """

    name = "null"
    clears = True

    def __init__(self, *, exact: bool = False) -> None:
        super().__init__()
        self._most = _BLOCK if exact else _LONG_BLOCK

    def flush(self, now_ns: int) -> list[Message]:
        self._start_ns = None  # what it had taken is taken back
        return []

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        pass


class NoPlayback(Playback):
    """Stands in for a lost device: takes nothing, so that the audio waits for the next device."""

    name = "null"
    holds = True

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        pass

    def close(self) -> None:
        pass
