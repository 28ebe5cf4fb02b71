"""The speaker of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from messages import AssistantAudio, FlushPlayback, PlaybackFlushed, PlaybackLost, PlayedPosition
from tests.actors.realtime.core.world.clock import NS, RATE

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["Loudspeaker"]


class Loudspeaker:
    """Plays in real time, reports its position, and stops when it is flushed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.queue: list[list[Any]] = []
        """[item_id, samples received, samples played, whether all of it is here]"""
        self.played: dict[str, int] = {}
        self.silenced: set[str] = set()
        """Responses whose audio is discarded."""
        self._responses: dict[str, str] = {}
        self.is_paused = False
        self._since = 0
        self._ticking = False
        self._told_ns = 0

    def take(self, audio: AssistantAudio) -> None:
        self.advance()
        assert not (audio.pcm and audio.response_id in self.silenced), "it was interrupted"
        self._responses[audio.item_id] = audio.response_id
        item = next((item for item in self.queue if item[0] == audio.item_id), None)
        if item is None:
            item = [audio.item_id, 0, 0, False]
            self.queue.append(item)
        assert audio.first_sample <= item[1] or not item[1], "something is missing"
        item[1] = max(item[1], audio.first_sample + len(audio.pcm) // 2)
        item[3] = item[3] or audio.last
        self._tick_soon()

    def advance(self) -> None:
        now = self.clock.now
        left = (now - self._since) * RATE // NS
        self._since = now
        while self.queue and not self.is_paused:
            item = self.queue[0]
            step = min(left, item[1] - item[2])
            item[2] += step
            left -= step
            self.played[item[0]] = max(self.played.get(item[0], 0), item[2])
            if item[2] < item[1] or not (item[3] or len(self.queue) > 1):
                break
            self.queue.pop(0)
            self._tell(PlayedPosition(item[0], item[2], now, True))

    def pause(self, *, paused: bool) -> None:
        self.advance()
        self.is_paused = paused
        self._tick_soon()

    def flush(self, message: FlushPlayback) -> None:
        self.advance()
        self.is_paused = False
        item_id, played = "", 0
        if self.queue:
            item_id, _, played, _ = self.queue[0]
            self.silenced.update(self._responses[item[0]] for item in self.queue)
        self.queue.clear()
        flushed = PlaybackFlushed(item_id, played, self.clock.now, message.sent_ns)
        late = self.world.is_rough and self.world.random.random() < 0.1
        self.clock.after(0.4 if late else 0.0, lambda: self._tell(flushed))

    def die(self) -> None:
        """Say where it has stopped; what it has not played is lost."""
        self.advance()
        self.is_paused = False
        if self.queue:
            item_id, _, played, _ = self.queue[0]
            self.world.process.tell(PlaybackLost(item_id, played), is_kept=True)
        self.queue.clear()

    def _tell(self, message: PlayedPosition | PlaybackFlushed) -> None:
        self.world.process.tell(message)

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.clock.after(0.02, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self.advance()
        if self.queue:
            item_id, _, played, _ = self.queue[0]
            if self.clock.now >= self._told_ns + NS // 10:
                self._told_ns = self.clock.now
                self._tell(PlayedPosition(item_id, played, self.clock.now))
            self._tick_soon()
