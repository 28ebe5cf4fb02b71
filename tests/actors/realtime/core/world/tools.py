"""The tools component of the world: one tool, which looks a number up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import ToolAnswer, ToolCall, ToolSpec

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["LOOKUP", "Tools"]

LOOKUP = ToolSpec("lookup", "Look a number up", {"type": "object", "properties": {}})


class Tools:
    """Answers each call once, sooner or later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._calls: list[str] = []

    def work(self, call: ToolCall) -> None:
        if call.call_id in self._calls:
            return
        self._calls.append(call.call_id)
        answer = ToolAnswer(call.call_id, call.name, f'"{len(self._calls)}"')
        clock = self.world.clock

        def done() -> None:
            self.world.process.tell(answer)
            clock.after(0.02, lambda: self.world.history.remember(answer))

        clock.after(self.world.random.choice([0.05, 0.5, 4.0]), done)
