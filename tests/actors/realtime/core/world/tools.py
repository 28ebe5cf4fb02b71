"""The tools component of the world: one tool, which looks a number up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import ToolAnswer, ToolCall, ToolSpec

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["LOOKUP", "Tools"]

LOOKUP = ToolSpec("lookup", "Look a number up", {"type": "object", "properties": {}})


class Tools:
    """Answers each call once, sooner or later; again, if the supervisor may have lost that.

    A call that runs when the supervisor dies may be interrupted.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._calls: dict[str, ToolCall] = {}
        self._answered: dict[str, ToolAnswer] = {}

    def die(self) -> None:
        """Give the answers again: they may be lost with the supervisor."""
        for answer in list(self._answered.values()):
            self._tell(answer)
        for call_id, call in self._calls.items():
            if call_id not in self._answered and self.world.random.random() < 0.3:
                self._answer(ToolAnswer(call_id, call.name, '"interrupted"'))

    def work(self, call: ToolCall) -> None:
        if call.call_id in self._answered and self.world.supervisors > 1:
            self._tell(self._answered[call.call_id])
        if call.call_id in self._calls:
            return
        self._calls[call.call_id] = call
        answer = ToolAnswer(call.call_id, call.name, f'"{len(self._calls)}"')
        after_s = self.world.random.choice([0.05, 0.5, 4.0])
        self.world.clock.after(after_s, lambda: self._answer(answer))

    def _answer(self, answer: ToolAnswer) -> None:
        if answer.call_id not in self._answered:
            self._answered[answer.call_id] = answer
            self._tell(answer)

    def _tell(self, answer: ToolAnswer) -> None:
        world = self.world
        world.process.tell(answer)
        late_s = world.random.choice([0.02, 0.02, 0.5])  # it comes straight to realtime
        world.clock.after(late_s, world.while_it_lives(lambda: world.history.remember(answer)))
