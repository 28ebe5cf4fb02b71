"""The ids of items that we create: ours or, at servers that refuse those, the server's.

Everything else in the core goes by our ids. Here they are put into what is sent and what comes.
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
"""So many creations are remembered: more than a new session is told at once."""
_ABOUT_IDS = re.compile(r"\bid\b", re.IGNORECASE)
_ABOUT_OTHERS = re.compile(r"(call|previous_item|event)[ _]id", re.IGNORECASE)

_Item = dict[str, Any]


class _Created(msgspec.Struct):
    """An item that was sent, until it is known how the server took it."""

    item: _Item
    previous_item_id: str | None
    has_id: bool
    """Whether it was sent with its id."""


class ItemIds:
    """The ids of the items in one session with the server.

    Args:
        are_ours: whether items are created with ids of ours; False: the server has refused one.
    """

    def __init__(self, *, are_ours: bool = True) -> None:
        self.are_ours = are_ours
        self._created: dict[str, _Created] = {}
        """Items that the server has not told yet, by the id of the event."""
        self._events: dict[str, str] = {}
        """The ids of the events that created them, by the id of the item."""
        self._nameless: dict[str, _Item] = {}
        """Items that were sent without an id and that the server has not told yet, by ours."""
        self._theirs: dict[str, str] = {}
        self._ours: dict[str, str] = {}

    # -- what is sent -------------------------------------------------------------------------

    def sent(self, event: wire.ClientEvent) -> wire.ClientEvent:
        """Return an event as the server has to get it."""
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
        if previous is not None:
            previous = self._theirs.get(previous, previous)
        if not created.has_id:
            self._nameless[item["id"]] = item
            item = {name: value for name, value in item.items() if name != "id"}
        return wire.ItemCreate(item, event_id, previous)

    def _forget(self, item_id: str) -> None:
        """Forget how an item was created: the server has told it, or refused it."""
        self._created.pop(self._events.pop(item_id, ""), None)

    def refused(self, error: wire.ErrorBody, new_event_id: str) -> wire.ItemCreate | None:
        """Return how an item can be created whose id the server refuses.

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

    # -- what comes ---------------------------------------------------------------------------

    def received(self, event: object, is_known: Callable[[str], bool]) -> object:
        """Return an event of the server with our ids.

        Args:
            event: of the server.
            is_known: whether an item is known already by the id that the server has given it.
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
        """Note the server's id of an item: it tells them in the order in which they were sent."""
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
    """Return whether an item was refused because of its id, which does not exist already."""
    if meaning(error) is Meaning.HARMLESS:
        return False
    if error.param:
        return error.param.rpartition(".")[2] == "id"
    message = error.message or ""
    return bool(_ABOUT_IDS.search(_ABOUT_OTHERS.sub("", message)))
