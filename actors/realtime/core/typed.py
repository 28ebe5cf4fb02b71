"""Typed turns and images, until the server has confirmed them."""

from __future__ import annotations

from collections.abc import Callable

from actors.realtime import wire
from actors.realtime.core import restore
from actors.realtime.core.context import Context
from actors.realtime.core.state import Ask, TypedTurn, UnansweredTurn
from messages import ItemPlaced, ItemRemoved, SendImage, SendText, SentImage, UserItem

__all__ = ["TYPED", "Typed"]

TYPED = "text "
"""Begins the intent of an event that creates a typed item; the id of the item follows."""
_SENT = 3
"""Confirmed turns that are kept; each carries its text."""
_SEEN = 20
"""At most this many item ids are remembered, to recognise a turn that is delivered twice."""


class Typed:
    """Sends typed turns and images. The unconfirmed ones are in `Saved.texts`."""

    def __init__(self, context: Context, interrupt: Callable[[int], None]) -> None:
        self._context = context
        self._interrupt = interrupt

    def types(self, message: SendText, now: int) -> None:
        """Interrupt, send a text and have it answered; an item delivered twice is sent once."""
        self._append(TypedTurn(message.item_id or f"text_{now:x}", message.text), now)

    def shows(self, message: SendImage, image: SentImage, now: int) -> None:
        """Send an image; if it is to be answered, interrupt and have it answered."""
        text = TypedTurn(message.item_id, message.text, image=image)
        self._append(text, now, respond=message.respond)

    def _append(self, text: TypedTurn, now: int, *, respond: bool = True) -> None:
        context, saved, item_id = self._context, self._context.saved, text.item_id
        if item_id in saved.seen_texts:
            return
        saved.seen_texts = [*saved.seen_texts[1 - _SEEN :], item_id]
        if respond:
            self._interrupt(now)
        wire_id = restore.wire_id(item_id)
        context.chain.append(wire_id)
        context.chain.alias(wire_id, item_id)
        before, at = context.chain.previous(wire_id), context.capture.timeline.next_sample
        context.publish(UserItem(item_id, before, text.text, False, False, at, at, text.image))
        if context.has_conversation:
            item = restore.text_item(item_id, "user", text.text, text.image)
            context.send(wire.ItemCreate(item, context.event_id(f"{TYPED}{item_id}")))
        text.placed = before is not None
        saved.texts.append(text)
        if respond:
            context.turns.keep(UnansweredTurn(item_id, False))
            context.responses.want(Ask(), [wire_id])
        context.activity.touch(now)

    def confirmed(self, wire_id: str) -> None:
        """Record that the server has the item."""
        saved = self._context.saved
        for text in saved.texts:
            if restore.wire_id(text.item_id) == wire_id:
                saved.texts = [other for other in saved.texts if other is not text]
                saved.sent_texts = [*saved.sent_texts, text][-_SENT:]
                break

    def refused(self, item_id: str) -> None:
        """Drop an item that the server refuses, from the history too."""
        context, saved = self._context, self._context.saved
        saved.texts = [text for text in saved.texts if text.item_id != item_id]
        context.turns.refused(item_id)
        context.publish(ItemRemoved(item_id, "the server refuses it"))
        context.responses.seen(restore.wire_id(item_id))  # it is not waited for
        context.chain.drop(restore.wire_id(item_id))

    def place(self, history: list[str]) -> None:
        """Publish the place of texts that were typed before the item order was known.

        Args:
            history: the item ids of the history, in order.
        """
        saved = self._context.saved
        lacking = [text for text in saved.sent_texts if text.item_id not in history]
        texts = [*lacking, *saved.texts]
        ids = {text.item_id for text in texts}  # they may come after those that are placed
        before = next((item_id for item_id in reversed(history) if item_id not in ids), None)
        for text in texts:
            if text.placed and text.item_id in history:
                continue
            text.placed = True
            if self._context.resumes and text.item_id not in history:  # lost with the supervisor
                self._context.publish(
                    UserItem(text.item_id, before, text.text, False, False, 0, 0, text.image)
                )
            else:
                self._context.publish(ItemPlaced(text.item_id, before))
            before = text.item_id
