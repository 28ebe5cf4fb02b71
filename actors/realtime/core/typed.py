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

        A text that history has stays where it is there. The server is sent the other texts after
        the whole history, so that is their place in history too.

        Args:
            history: the item ids of the history, in order.
        """
        saved, context = self._context.saved, self._context
        behind = dict(zip(history, [None, *history], strict=False))
        last = history[-1] if history else None
        for text in (*saved.sent_texts, *saved.texts):
            item_id, is_known = text.item_id, text.item_id in behind
            before = behind[item_id] if is_known else last
            if not is_known:
                last = item_id
            may_follow_lost = context.resumes  # the item before it may be lost with the supervisor
            if is_known and text.placed and not may_follow_lost:
                continue
            text.placed = True
            if context.resumes and not is_known:  # lost with the supervisor
                context.publish(
                    UserItem(item_id, before, text.text, False, False, 0, 0, text.image)
                )
            else:
                context.publish(ItemPlaced(item_id, before))
