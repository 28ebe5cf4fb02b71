"""A sound card's microphone that hears its loudspeaker, for an actor in the test's own process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from actors.devices.base import Captured
from actors.devices.card.reference import ReferenceWriter
from actors.devices.silence import SilenceCapture

__all__ = ["CAPTURE", "Echoing", "capture"]

CAPTURE = f"{__name__}:capture"
_SLOT, _AHEAD = 240, 8
"""The loudspeaker takes 10 ms at a time, and is 80 ms ahead."""
_BLOCK = 480


class Echoing(SilenceCapture):
    """What is played is written to the ring as it is heard; both are played over and over."""

    name = "Built-in Microphone"
    card = True
    directory = Path()
    played = heard = b""

    def start(self, *arguments: Any) -> None:
        super().start(*arguments)
        self._ring = ReferenceWriter(self.directory, "Built-in Output")
        self._begun_ns = time.monotonic_ns()
        self._written = self._captured = 0

    def _next(self, due: int) -> Captured:
        block = super()._next(due)
        while self._written < self._captured + self._block // _SLOT + _AHEAD:
            at_ns = block.first_ns + (self._written - self._captured) * 10_000_000
            self._ring.write(_part(self.played, self._written), at_ns)
            self._written += 1
        numbers = range(self._captured, self._captured + self._block // _SLOT)
        self._captured += len(numbers)
        return block._replace(pcm=b"".join(_part(self.heard, number) for number in numbers))


def _part(pcm: bytes, number: int) -> bytes:
    at = number % (len(pcm) // (2 * _SLOT)) * 2 * _SLOT
    return pcm[at : at + 2 * _SLOT]


def capture() -> Echoing:
    """Open it."""
    return Echoing(_BLOCK)
