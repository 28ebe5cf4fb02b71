"""The order of a conversation: items become known in any order, turns are published in theirs.

No thread, no clock, no file: messages and times in, turns out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from messages import (
    AssistantItem,
    ConversationItem,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    Message,
    OutputReplaced,
    SentImage,
    ToolAnswer,
    ToolCall,
    Turn,
    UserItem,
    UserTranscript,
    output_item_id,
)

__all__ = ["ITEM_MESSAGES", "Conversation"]

ITEM_MESSAGES: tuple[type[Message], ...] = (
    UserItem,
    UserTranscript,
    AssistantItem,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    ToolCall,
    ToolAnswer,
    OutputReplaced,
)
"""The messages that `Conversation.apply` accepts."""
TRANSCRIPT_S = 10.0
"""How long a turn waits for its transcript, or for the answer before it to be complete."""
PREVIOUS_S = 1.0
"""How long a turn waits for its previous item to become known."""

_Kind = Literal["", "user", "assistant", "call", "output"]


class _KnownItem(msgspec.Struct):
    """What is known about an item; ``kind`` is empty while it has only been mentioned."""

    item_id: str
    kind: _Kind = ""
    previous: str | None = None
    number: int = 0
    """Counts items in the order in which they became known."""
    known_at: float = 0.0
    text: str = ""
    spoken: bool = False
    expects_transcript: bool = False
    transcript_came: bool = False
    transcript_failed: bool = False
    status: str = "completed"
    audio_samples: int = 0
    heard: str | None = None
    """The part of ``text`` that was heard, if it was interrupted."""
    removed: bool = False
    published: bool = False
    blocks_since: float | None = None
    """Since when this unfinished answer has delayed the publication of a later turn."""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    first_sample: int = 0
    last_sample: int = 0
    image: SentImage | None = None

    @property
    def is_turn(self) -> bool:
        """True for what the user or the assistant has said; False for calls and removed items."""
        if self.kind == "assistant":
            said = self.status == "in_progress" or self.text or self.audio_samples
            return bool(said) and not self.removed
        return self.kind == "user" and not self.removed

    @property
    def awaits_transcript(self) -> bool:
        """True while a transcript is expected and has not arrived."""
        return self.expects_transcript and not self.transcript_came

    @property
    def transcribed(self) -> bool:
        """True: ``text`` has the words of the turn; False: it was spoken, and has no transcript."""
        return not self.spoken or (self.transcript_came and not self.transcript_failed)


class Conversation:
    """The items of a conversation, in its order, however they became known.

    Times are in seconds of any one clock, passed in.
    """

    def __init__(self) -> None:
        self._items: dict[str, _KnownItem] = {}
        self._outputs: dict[str, str] = {}
        self._replacements: dict[str, str] = {}
        """Of outputs that have not come yet, what they were replaced with, by call id."""
        self._named: set[str] = set()
        """Ids of the items that others were put behind."""
        self._ordered: list[_KnownItem] | None = []
        self._roots: dict[str, _KnownItem] = {}
        self._count = 0

    # -- what happens -------------------------------------------------------------------------

    def apply(self, message: Message, now: float) -> bool:
        """Apply a message; return whether it changed anything."""
        match message:
            case UserItem():
                return self._change(message.item_id, now, self._user, message)
            case UserTranscript():
                return self._change(message.item_id, now, self._transcript, message)
            case AssistantItem():
                return self._change(message.item_id, now, self._assistant, message)
            case Interrupted():
                return self._change(message.item_id, now, self._interrupted, message)
            case ItemPlaced():
                return self._change(message.item_id, now, self._placed, message)
            case ItemRemoved():
                return self._change(message.item_id, now, self._removed, message)
            case ToolCall():
                item_id = message.item_id or message.call_id
                return self._change(item_id, now, self._call, message)
            case ToolAnswer(call_id=call_id):
                if call_id in self._outputs:
                    return False
                item_id = message.item_id or output_item_id(call_id)
                return self._change(item_id, now, self._answer, message)
            case OutputReplaced(call_id=call_id):
                if call_id in self._outputs:
                    return self._change(self._outputs[call_id], now, self._replaced, message)
                self._replacements[call_id] = message.output
        return False

    def mark_published(self, item_id: str) -> None:
        """Record that a turn was published."""
        if item_id in self._items:
            self._items[item_id].published = True

    def _change(self, item_id: str, now: float, change: Any, message: Message) -> bool:
        item = self._items.get(item_id)
        before = None if item is None else msgspec.structs.replace(item)
        if item is None:
            self._count += 1
            item = self._items[item_id] = _KnownItem(item_id, number=self._count, known_at=now)
        change(item, message)
        if before is None or (before.kind, before.previous) != (item.kind, item.previous):
            self._ordered = None
        if item.kind and not (before and before.kind):
            self._count += 1
            item.number, item.known_at = self._count, now
        return item != before

    def _user(self, item: _KnownItem, message: UserItem) -> None:
        self._place(item, "user", message.previous_item_id)
        item.text = item.text or message.text
        item.spoken = message.spoken and not message.text
        item.expects_transcript = item.spoken and message.transcript_expected
        item.first_sample, item.last_sample = message.first_sample, message.last_sample
        item.image = message.image

    def _transcript(self, item: _KnownItem, message: UserTranscript) -> None:
        item.text, item.transcript_failed = message.text, message.error is not None
        item.transcript_came = True

    def _assistant(self, item: _KnownItem, message: AssistantItem) -> None:
        first = not item.kind
        self._place(item, "assistant", message.previous_item_id)
        if message.status == "in_progress" and not first and item.status != "in_progress":
            return
        item.status = message.status
        item.text = message.text or item.text
        item.audio_samples = max(item.audio_samples, message.audio_samples)

    def _interrupted(self, item: _KnownItem, message: Interrupted) -> None:
        item.heard = message.text_heard

    def _placed(self, item: _KnownItem, message: ItemPlaced) -> None:
        self._put_behind(item, message.previous_item_id)

    def _removed(self, item: _KnownItem, message: ItemRemoved) -> None:
        item.removed = True

    def _call(self, item: _KnownItem, message: ToolCall) -> None:
        is_new = not item.kind
        self._place(item, "call", message.previous_item_id)
        item.call_id, item.name, item.arguments = message.call_id, message.name, message.arguments
        if is_new and message.call_id in self._outputs:  # nobody has an output before its call
            self._put_behind(self._items[self._outputs[message.call_id]], item.item_id)

    def _answer(self, item: _KnownItem, message: ToolAnswer) -> None:
        # The service appends it to the conversation, and `ItemPlaced` says where. Until then it
        # counts as the last item.
        last = next((other for other in reversed(self._order()) if other.kind), None)
        if item.item_id in self._named:  # what follows it is there already, perhaps the last item
            calls = (other for other in self._items.values() if other.kind == "call")
            last = next((call for call in calls if call.call_id == message.call_id), None)
        self._place(item, "output", item.previous or (last.item_id if last else None))
        item.call_id, item.name = message.call_id, message.name
        item.output = self._replacements.pop(message.call_id, message.output)
        self._outputs[message.call_id] = item.item_id

    def _replaced(self, item: _KnownItem, message: OutputReplaced) -> None:
        item.output = message.output

    def _place(self, item: _KnownItem, kind: _Kind, previous: str | None) -> None:
        item.kind = kind
        if previous is not None:
            self._put_behind(item, previous)

    def _put_behind(self, item: _KnownItem, previous: str | None) -> None:
        """Move an item.

        If it goes behind an item that follows it, what has followed it directly stays where it is,
        and follows the item before it: no items ever follow each other in a circle.
        """
        if previous in (item.previous, item.item_id):
            return
        if item.item_id in self._named:
            at = self._items.get(previous or "")
            while at is not None and at.previous != item.item_id:
                at = self._items.get(at.previous or "")
            if at is not None:
                at.previous = item.previous
        item.previous = previous
        if previous is not None:
            self._named.add(previous)

    # -- order --------------------------------------------------------------------------------

    def _order(self) -> list[_KnownItem]:
        """Return all items, each after its previous item, siblings as they became known."""
        if self._ordered is None:
            self._ordered = list(self._walk())
        return self._ordered

    def _walk(self) -> Iterator[_KnownItem]:
        after: dict[str | None, list[_KnownItem]] = {}
        for item in sorted(self._items.values(), key=lambda item: item.number):
            known = item.previous if item.previous in self._items else None
            after.setdefault(known, []).append(item)
        self._roots = {}
        for root in after.get(None, ()):
            stack = [root]
            while stack:
                item = stack.pop()
                self._roots[item.item_id] = root
                yield item
                stack.extend(reversed(after.get(item.item_id, ())))

    # -- turns to publish ---------------------------------------------------------------------

    def turns(self, now: float) -> tuple[list[Turn], float]:
        """Return the turns to publish now, in order, and the time at which more may be due."""
        pending = [item for item in self._order() if item.is_turn and not item.published]
        turns: list[Turn] = []
        for place, item in enumerate(pending):
            due = self._due(item)
            if due == math.inf and any(self._due(later) <= now for later in pending[place + 1 :]):
                if item.blocks_since is None:
                    item.blocks_since = now
                due = item.blocks_since + TRANSCRIPT_S
            if due > now:
                return turns, due
            turns.append(_turn(item))
        return turns, math.inf

    def newest(self, count: int) -> list[Turn]:
        """Return the newest turns of those that were published, in order."""
        return [_turn(item) for item in self._order() if item.is_turn and item.published][-count:]

    def _due(self, item: _KnownItem) -> float:
        """Return the time from which a turn may be published; inf: unknown yet."""
        if item.kind == "assistant" and item.status == "in_progress":
            return math.inf
        due = item.known_at + TRANSCRIPT_S if item.awaits_transcript else 0.0
        root = self._roots[item.item_id]
        if root.previous is not None or not root.kind:  # its previous item is not known yet
            due = max(due, root.known_at + PREVIOUS_S)
        return due

    def items(self) -> tuple[ConversationItem, ...]:
        """Return the conversation as a new session is told it."""
        there = [item for item in self._order() if item.kind and not item.removed]
        calls = {item.call_id for item in there if item.kind == "call"}
        return tuple(
            _remembered(item) for item in there if item.kind != "output" or item.call_id in calls
        )

    def text_of(self, item_id: str) -> str:
        """Return the whole text of an item, including what was not heard."""
        item = self._items.get(item_id)
        return item.text if item else ""


def _remembered(item: _KnownItem) -> ConversationItem:
    if item.kind == "call":
        return ConversationItem(
            item.item_id,
            "function_call",
            "assistant",
            call_id=item.call_id,
            name=item.name,
            arguments=item.arguments,
        )
    if item.kind == "output":
        return ConversationItem(
            item.item_id,
            "function_call_output",
            call_id=item.call_id,
            name=item.name,
            output=item.output,
        )
    return ConversationItem(
        item.item_id,
        "message",
        "user" if item.kind == "user" else "assistant",
        item.text if item.heard is None else item.heard,
        transcribed=item.transcribed,
        complete=item.status == "completed",
        interrupted=item.heard is not None,
        first_sample=item.first_sample,
        last_sample=item.last_sample,
        image=item.image,
    )


def _turn(item: _KnownItem) -> Turn:
    role: Literal["user", "assistant"] = "user" if item.kind == "user" else "assistant"
    return Turn(role, item.text, item.item_id, item.transcribed, item.image)
