"""Devices that are nothing but a clock, and what every device has that a clock paces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from actors.devices.base import Capture, Captured, Playback, to_ns
from actors.devices.playout import Playout
from messages import SAMPLE_RATE

__all__ = ["NullPlayback", "PacedCapture", "PacedPlayback", "SilenceCapture"]

_BLOCK = 20 * SAMPLE_RATE // 1000
_LATE_NS = 1_000_000_000
"""A clock that is so far behind (process stopped, machine asleep) starts anew."""
_JOIN_S = 1.0


class PacedCapture(Capture):
    """Delivers blocks in real time, without drift, on the actor's thread: one wake-up a block."""

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
    """Silence, in real time."""

    name = "silence"


class PacedPlayback(Playback):
    """Takes blocks in real time, on a thread of its own that sleeps while nothing is queued."""

    def __init__(self) -> None:
        self._playout: Playout | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout
        self._thread = _started("playback", lambda: self._run(playout), failed)

    def close(self) -> None:
        self._closing.set()
        if self._playout is not None:
            self._playout.interrupt()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, playout: Playout) -> None:
        while playout.wait(self._closing):
            self._play(playout, time.monotonic_ns())

    def _play(self, playout: Playout, start_ns: int) -> None:
        """Take one block after the other, each when its first sample is due, until none is left."""
        samples = 0
        while True:
            due = start_ns + to_ns(samples)
            late = time.monotonic_ns() - due
            if late > _LATE_NS:
                return
            if self._closing.wait(max(0, -late) / 1e9):
                return
            pcm = playout.take(_BLOCK, due)
            if not pcm:
                return
            self._put(pcm, due, contiguous=samples > 0)
            samples += len(pcm) // 2

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        """Play a block whose first sample is due at ``at_ns``."""


class NullPlayback(PacedPlayback):
    """Plays in real time to nobody."""

    name = "null"

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        pass


def _started(
    name: str, run: Callable[[], None], failed: Callable[[Exception], None]
) -> threading.Thread:
    def guarded() -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - raised again by the actor
            failed(error)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
