"""The item order: which item precedes which, at the server and in history."""

from __future__ import annotations

import collections
from collections.abc import Mapping

__all__ = ["Chain"]

_REMEMBERED = 1000
"""At most this many items, and aliases, are remembered: the newest."""


class Chain:
    """The order of the items of one server session, and their ids in history.

    An id in history differs where the API did not accept it. History lacks some items, such as
    those of a type that it does not keep.
    """

    def __init__(self) -> None:
        self._before: collections.OrderedDict[str, str | None] = collections.OrderedDict()
        """The item that precedes each item at the server; None: it is the first."""
        self._tail: str | None = None
        """The last item."""
        self._last: str | None = None
        """The item that the server has confirmed last."""
        self._unconfirmed: set[str] = set()
        """Items that were sent and that the server has not confirmed."""
        self._root: str | None = None
        """The last item of history that was there before the session; new items follow it."""
        self._root_at: str | None = None
        """The last item that was sent when the session began. Whatever follows it at the server
        follows `_root` in history."""
        self._aliases: collections.OrderedDict[str, str | None] = collections.OrderedDict()
        """The id in history for an id at the server. For an item that history lacks: the item
        that precedes it, by its id at the server."""
        self._left_out: set[str] = set()
        """Items that history lacks."""

    def __contains__(self, item_id: object) -> bool:
        """Return whether the server has the item, or was sent it."""
        return item_id in self._before

    def restart(self, aliases: Mapping[str, str]) -> None:
        """Begin a server session.

        Args:
            aliases: ids in history, by the ids at the server that differ from them.
        """
        self._before.clear()
        self._aliases.clear()
        self._left_out.clear()
        self._aliases.update(aliases)
        self._tail = self._last = self._root = self._root_at = None
        self._unconfirmed.clear()

    def join(self, last_of_history: str | None) -> None:
        """Record that all new items follow the last item of history.

        That item itself may not have been replayed to this session.
        """
        self._root = last_of_history
        if last_of_history is not None:
            self._root_at = self._tail

    def append(self, item_id: str) -> None:
        """Record an item that is sent. It counts as the last one until the server confirms it."""
        self._unconfirmed.add(item_id)
        self._add(item_id, self._tail)

    def note(self, item_id: str, previous: str | None = None) -> list[str]:
        """Record an item that the server reports, or is certain to have.

        Some servers do not name the item before it. They report items in order, so the item
        reported before is taken.

        Returns:
            The known items whose place has changed.
        """
        if not item_id:
            return []
        is_news = item_id not in self._before or item_id in self._unconfirmed
        if is_news:
            self._unconfirmed.discard(item_id)
            previous = previous or self._last
            self._last = item_id
        if item_id in self._before:
            return self._move(item_id, previous)
        self._add(item_id, previous)
        return []

    def _add(self, item_id: str, previous: str | None) -> None:
        self._before[item_id] = previous
        self._tail = item_id
        if len(self._before) > _REMEMBERED:
            self._before.popitem(last=False)

    def _move(self, item_id: str, previous: str | None) -> list[str]:
        was = self._before[item_id]
        if previous is None or previous == item_id:
            return []
        if previous == self._tail:
            self._tail = item_id
        if previous == was:
            return []
        self._before[item_id] = previous
        behind = self._behind(item_id, previous)
        if behind is None:
            return [item_id]
        self._before[behind] = was
        return [behind, item_id]

    def _behind(self, item_id: str, last: str) -> str | None:
        """Return the item that follows an item on the path to ``last``; None: there is none."""
        at: str | None = last
        for _ in range(len(self._before)):  # bounded: a server may report a cycle
            before = self._before.get(at) if at is not None else None
            if before is None:
                return None
            if before == item_id:
                return at
            at = before
        return None

    def known_as(self, item_id: str) -> str:
        """Return the id of an item in history."""
        return self._aliases.get(item_id) or item_id

    def before(self, item_id: str) -> str | None:
        """Return the item that precedes an item at the server; None: it is the first."""
        return self._before.get(item_id)

    def alias(self, item_id: str, known: str) -> None:
        """Record the id of an item in history."""
        if item_id != known:
            self._set_alias(item_id, known)

    def hide(self, item_id: str) -> None:
        """Record that history lacks an item that is about to be appended."""
        self._left_out.add(item_id)
        self._set_alias(item_id, self._tail)

    def is_left_out(self, item_id: str) -> bool:
        """Return whether history lacks an item."""
        return item_id in self._left_out

    def drop(self, item_id: str) -> list[str]:
        """Record that an item is deleted, or that history lacks it.

        Returns:
            The items that follow it: in history, they now follow the item before it.
        """
        self._unconfirmed.discard(item_id)
        self._left_out.add(item_id)
        self._set_alias(item_id, self._before.get(item_id, self._tail))
        return self._followers(item_id)

    def _followers(self, item_id: str) -> list[str]:
        """Return the items of history that directly follow an item."""
        found: list[str] = []
        left_out, seen = [item_id], {item_id}  # `seen`: a server may report a cycle
        while left_out:
            before = left_out.pop()
            behind = [item for item, at in self._before.items() if at == before]
            for item in behind:
                if item not in seen:
                    seen.add(item)
                    (left_out if item in self._left_out else found).append(item)
        return found

    def previous(self, item_id: str) -> str | None:
        """Return the item that precedes an item in history; None: it is the first."""
        if item_id in self._before:
            return self._known(self._before[item_id])
        return self._known(self._tail)

    def _set_alias(self, item_id: str, known: str | None) -> None:
        self._aliases[item_id] = known
        if len(self._aliases) > _REMEMBERED:
            self._left_out.discard(self._aliases.popitem(last=False)[0])

    def _known(self, item_id: str | None) -> str | None:
        for _ in range(len(self._aliases) + 1):
            if item_id is not None and item_id == self._root_at:
                return self._root
            if item_id is None or item_id not in self._aliases:
                break
            if item_id in self._left_out and item_id in self._before:
                item_id = self._before[item_id]  # it may have been moved since it has its alias
            else:
                item_id = self._aliases[item_id]
        return item_id or self._root
