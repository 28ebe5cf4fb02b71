"""The history component of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.conversation import Conversation
from messages import ConversationItem, HistoryRequest, HistorySnapshot, Message, Turn
from tests.actors.realtime.core.world.clock import NS

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["History"]


class History:
    """Applies messages about items, publishes turns, and answers requests for the history."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.turns: list[Turn] = []
        self._journal: list[Message] = []
        self._conversation = Conversation()

    def items(self) -> tuple[ConversationItem, ...]:
        return self._conversation.items()

    def previous(self) -> dict[str, str | None]:
        """The item before each item."""
        return {item.item_id: item.previous for item in self._conversation._items.values()}

    def mentioned(self) -> list[str]:
        """The items that other items or places name, and that never came."""
        items = self._conversation._items.values()
        return [item.item_id for item in items if not (item.kind or item.removed)]

    def die(self, changes: list[Message]) -> None:
        """Go on from the journal, and the changes on their way."""
        self._conversation = Conversation()
        for message in [*self._journal, *changes]:
            self._conversation.apply(message, self.clock.now / NS)
        self._journal += changes
        for turn in self.turns:
            self._conversation.mark_published(turn.item_id)
        self.tell_turns()

    def remember(self, message: Message) -> None:
        self._journal.append(message)
        self._conversation.apply(message, self.clock.now / NS)
        self.tell_turns()

    def tell_turns(self) -> None:
        turns, _ = self._conversation.turns(self.clock.now / NS)
        for turn in turns:
            self._conversation.mark_published(turn.item_id)
            self.turns.append(turn)

    def snapshot(self, request: HistoryRequest) -> None:
        late = self.world.is_rough and self.world.random.random() < 0.2
        snapshot = HistorySnapshot(request.request_id, self.items())
        self.clock.after(1.0 if late else 0.0, lambda: self.world.process.tell(snapshot))
