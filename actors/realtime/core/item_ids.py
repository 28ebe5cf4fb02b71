"""The translation of item ids, for servers that refuse ours and assign their own.

The other modules of the core use only our ids. Here they are replaced in events that are sent and
received.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from actors.realtime import wire
from actors.realtime.core.errors import Meaning, meaning

__all__ = ["ItemIds"]

_CREATED = 6000
"""At most this many unconfirmed creations are remembered: more than a new session is sent at
once."""
# Servers that refuse an id without naming the parameter mention "id" in the message. The ids of
# calls, events and preceding items are other ids.
_ABOUT_IDS = re.compile(r"\bid\b", re.IGNORECASE)
_ABOUT_OTHERS = re.compile(r"(call|previous_item|event)[ _]id", re.IGNORECASE)

_Item = dict[str, Any]


class _Created(msgspec.Struct):
    """An item that was sent, and that the server has neither confirmed nor refused."""

    item: _Item
    previous_item_id: str | None
    has_id: bool
    """Whether the item was sent with our id."""


class ItemIds:
    """The item ids of one server session.

    Args:
        are_ours: Whether items are created with our ids; False: the server has refused one.
    """

    def __init__(self, *, are_ours: bool = True) -> None:
        self.are_ours = are_ours
        self._created: dict[str, _Created] = {}
        """The unconfirmed items, by the id of the event that creates them."""
        self._events: dict[str, str] = {}
        """The ids of these events, by our id of the item."""
        self._nameless: dict[str, _Item] = {}
        """The unconfirmed items that were sent without an id, by our id."""
        self._theirs: dict[str, str] = {}
        """The server's id of an item, by ours, where the two differ."""
        self._ours: dict[str, str] = {}
        """Our id of an item, by the server's, where the two differ."""

    # -- what is sent -------------------------------------------------------------------------

    def sent(self, event: wire.ClientEvent) -> wire.ClientEvent:
        """Record an event, and return it with the ids that the server knows."""
        match event:
            case wire.ItemCreate(item, event_id, previous):
                if len(self._created) >= _CREATED:
                    self._forget(next(iter(self._events)))
                return self._create(_Created(item, previous, self.are_ours), event_id)
            case wire.ItemDelete(item_id, event_id) if item_id in self._theirs:
                return wire.ItemDelete(self._theirs.pop(item_id), event_id)
            case wire.Truncate(item_id) if item_id in self._theirs:
                return msgspec.structs.replace(event, item_id=self._theirs[item_id])
        return event

    def _create(self, created: _Created, event_id: str) -> wire.ItemCreate:
        item, previous = created.item, created.previous_item_id
        self._forget(item["id"])  # an output may be sent again
        self._created[event_id], self._events[item["id"]] = created, event_id
        if previous in self._nameless:
            previous = None  # no id of it is known yet; the newest place is better than none
        elif previous is not None:
            previous = self._theirs.get(previous, previous)
        if not created.has_id:
            self._nameless[item["id"]] = item
            item = {name: value for name, value in item.items() if name != "id"}
        return wire.ItemCreate(item, event_id, previous)

    def _forget(self, item_id: str) -> None:
        """Forget how an item was created: the server has confirmed or refused it."""
        self._created.pop(self._events.pop(item_id, ""), None)

    def is_unknown(self, item_id: str) -> bool:
        """Return whether the server has not told yet which id it gave an item of ours."""
        return item_id in self._nameless

    def attributed(self, error: wire.ErrorBody) -> wire.ErrorBody:
        """Return an error about an id with the id of its event, if only one event can be meant."""
        if error.event_id is None and len(self._created) == 1 and _is_about_the_id(error):
            return msgspec.structs.replace(error, event_id=next(iter(self._created)))
        return error

    def refused(self, error: wire.ErrorBody, new_event_id: str) -> wire.ItemCreate | None:
        """Return an event that creates an item without an id, if the server refuses its id.

        None: the error is about something else.
        """
        created = self._created.get(error.event_id or "")
        if created is None:
            return None
        self._forget(created.item["id"])
        if not created.has_id:
            self._nameless.pop(created.item["id"], None)
            return None
        if not _is_about_the_id(error):
            return None
        self.are_ours = created.has_id = False
        return self._create(created, new_event_id)

    # -- what is received ---------------------------------------------------------------------

    def received(self, event: object, is_known: Callable[[str], bool]) -> object:
        """Return an event of the server with our ids.

        Args:
            event: The event of the server.
            is_known: Returns whether the item with a server's id is known already.
        """
        if isinstance(event, wire.ItemAdded | wire.ItemCreated | wire.ItemDone):
            item_id = event.item.id
            self._forget(item_id)
            if self._nameless and item_id not in self._ours and not is_known(item_id):
                self._recognise(event.item)
            if not self._ours:
                return event
            item = msgspec.structs.replace(event.item, id=self._ours.get(item_id, item_id))
            previous = self._previous(event.previous_item_id)
            return msgspec.structs.replace(event, item=item, previous_item_id=previous)
        if isinstance(event, wire.Committed) and self._ours:
            previous = self._previous(event.previous_item_id)
            return msgspec.structs.replace(event, previous_item_id=previous)
        return event

    def _recognise(self, item: wire.Item) -> None:
        """Match a new item of the server with the oldest item sent without an id that it can be.

        The server confirms items in the order in which they were sent.
        """
        for item_id, sent in self._nameless.items():
            if sent["type"] != item.type or sent.get("call_id") != item.call_id:
                continue
            if sent.get("role") in (item.role, None) or item.role is None:
                del self._nameless[item_id]
                self._forget(item_id)
                self._theirs[item_id], self._ours[item.id] = item.id, item_id
                return

    def _previous(self, item_id: str | None) -> str | None:
        return None if item_id is None else self._ours.get(item_id, item_id)


def _is_about_the_id(error: wire.ErrorBody) -> bool:
    """Return whether the server refuses the id of an item itself.

    The refusal of an id that exists already is not meant: then the item is there.
    """
    if meaning(error) is Meaning.HARMLESS:
        return False
    if error.param:
        return error.param.rpartition(".")[2] == "id"
    message = error.message or ""
    return bool(_ABOUT_IDS.search(_ABOUT_OTHERS.sub("", message)))
