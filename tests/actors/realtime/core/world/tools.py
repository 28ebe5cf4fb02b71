"""The tools component of the world: one tool, which looks a number up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import ToolAnswer, ToolCall, ToolSpec

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["LOOKUP", "Tools"]

LOOKUP = ToolSpec("lookup", "Look a number up", {"type": "object", "properties": {}})


class Tools:
    """Answers each call once, sooner or later; again, if the supervisor may have lost that."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._calls: list[str] = []
        self._answered: dict[str, ToolAnswer] = {}

    def die(self) -> None:
        """Give the answers again: they may be lost with the supervisor."""
        for answer in list(self._answered.values()):
            self._tell(answer)

    def work(self, call: ToolCall) -> None:
        if call.call_id in self._answered and self.world.supervisors > 1:
            self._tell(self._answered[call.call_id])
        if call.call_id in self._calls:
            return
        self._calls.append(call.call_id)
        answer = ToolAnswer(call.call_id, call.name, f'"{len(self._calls)}"')

        def done() -> None:
            self._answered[call.call_id] = answer
            self._tell(answer)

        self.world.clock.after(self.world.random.choice([0.05, 0.5, 4.0]), done)

    def _tell(self, answer: ToolAnswer) -> None:
        world = self.world
        world.process.tell(answer)
        world.clock.after(0.02, world.while_it_lives(lambda: world.history.remember(answer)))
