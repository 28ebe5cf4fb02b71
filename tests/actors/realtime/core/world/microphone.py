"""The microphone of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import CapturedAudio, ReplayCapture, ReplayedAudio, ReplayEnded
from tests.actors.realtime.core.world.clock import BLOCK, NS, RATE
from tests.actors.realtime.core.world.sound import cough, spoken

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["Microphone"]


class Microphone:
    """Sends the user's audio block by block, and replays it on request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self._memory: list[tuple[int, bytes]] = []
        self._next = 0
        self._said: list[tuple[int, int, int]] = []
        """(first sample, last sample, number; 0 for a cough)"""

    def begin(self) -> None:
        self.clock.after(0.1, self._capture)

    def hear(self, number: int, seconds: float) -> None:
        """Have the user make a sound for so long, from now on; 0: cough."""
        now = (self.clock.now - self.clock.began) * RATE // NS
        first = max(self._next, now)
        self._said.append((first, first + round(seconds * RATE), number))

    def replay(self, request: ReplayCapture) -> None:
        tell = self.world.process.tell
        for first, pcm in self._memory:
            if first + BLOCK > request.from_sample:
                skip = max(0, request.from_sample - first)
                tell(ReplayedAudio(pcm[2 * skip :], first + skip, request.request_id))
        tell(ReplayEnded(self._next, request.request_id))

    def _capture(self) -> None:
        pcm = bytearray(2 * BLOCK)
        for first, last, number in self._said[-3:]:
            begin, end = max(first, self._next), min(last, self._next + BLOCK)
            if begin < end:
                sound = spoken(number, end - begin) if number else cough(end - begin)
                pcm[2 * (begin - self._next) : 2 * (end - self._next)] = sound
        self._memory.append((self._next, bytes(pcm)))
        del self._memory[: -30 * RATE // BLOCK]
        self.world.process.tell(CapturedAudio(bytes(pcm), self._next, self.clock.now))
        self._next += BLOCK
        self.clock.after(0.1, self._capture)
