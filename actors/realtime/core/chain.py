"""The order of the items: which one stands before which, as the server and as history know them."""

from __future__ import annotations

import collections
from collections.abc import Mapping

__all__ = ["Chain"]

_REMEMBERED = 1000


class Chain:
    """The items of one session with the server. History may know some of them by other ids."""

    def __init__(self) -> None:
        self._before: collections.OrderedDict[str, str | None] = collections.OrderedDict()
        self._tail: str | None = None
        self._last: str | None = None
        """The item that the server has told last."""
        self._untold: set[str] = set()
        """Items that are sent and that the server has not told."""
        self._root: str | None = None
        self._aliases: collections.OrderedDict[str, str | None] = collections.OrderedDict()
        self._left_out: set[str] = set()
        """Items that have no other id in history: it has none of them."""

    def __contains__(self, item_id: object) -> bool:
        """Tell whether the server has the item."""
        return item_id in self._before

    def restart(self, aliases: Mapping[str, str]) -> None:
        """Begin a session with the server, some of whose items have other ids."""
        self._before.clear()
        self._aliases.clear()
        self._left_out.clear()
        self._aliases.update(aliases)
        self._tail = self._last = self._root = None
        self._untold.clear()

    def join(self, last_of_history: str | None) -> None:
        """Take note that everything new comes after this item, even if it was not replayed."""
        self._root = last_of_history
        if self._tail is not None and last_of_history is not None:
            if self._known(self._tail) != last_of_history:
                self._aliases[self._tail] = last_of_history

    def append(self, item_id: str) -> None:
        """Take note of an item that is sent: it is the last one, until the server has told it."""
        self._untold.add(item_id)
        self._add(item_id, self._tail)

    def note(self, item_id: str, previous: str | None = None) -> list[str]:
        """Take note of an item that the server tells, or has for certain.

        Some servers do not say what stands before it. They tell the items in their order, so that
        it is the one that they have told before.

        Returns:
            The items that were known and stand elsewhere than was thought.
        """
        if not item_id:
            return []
        is_news = item_id not in self._before or item_id in self._untold
        if is_news:
            self._untold.discard(item_id)
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
        """Return what stands right behind an item, on the way from it to ``last``."""
        at: str | None = last
        for _ in range(len(self._before)):
            before = self._before.get(at) if at is not None else None
            if before is None:
                return None
            if before == item_id:
                return at
            at = before
        return None

    def known_as(self, item_id: str) -> str:
        """Return the id by which history knows an item."""
        return self._aliases.get(item_id) or item_id

    def before(self, item_id: str) -> str | None:
        """Return what stands before an item at the server; None: it is the first."""
        return self._before.get(item_id)

    def alias(self, item_id: str, known: str) -> None:
        """Take note that history knows an item by another id."""
        if item_id != known:
            self._set_alias(item_id, known)

    def hide(self, item_id: str) -> None:
        """Take note that history knows nothing of an item that is about to be appended."""
        self._left_out.add(item_id)
        self._set_alias(item_id, self._tail)

    def drop(self, item_id: str) -> list[str]:
        """Take note that an item is deleted, or none of history's.

        Returns:
            What follows it, which stands behind the one before it now.
        """
        self._untold.discard(item_id)
        self._left_out.add(item_id)
        self._set_alias(item_id, self._before.get(item_id))
        return self._followers(item_id)

    def _followers(self, item_id: str) -> list[str]:
        """Return what history knows right behind an item, also if a server tells a circle."""
        found: list[str] = []
        left_out, seen = [item_id], {item_id}
        while left_out:
            before = left_out.pop()
            behind = [item for item, at in self._before.items() if at == before]
            for item in behind:
                if item not in seen:
                    seen.add(item)
                    (left_out if item in self._left_out else found).append(item)
        return found

    def previous(self, item_id: str) -> str | None:
        """Return what history knows before an item; None: it is the first."""
        if item_id in self._before:
            return self._known(self._before[item_id])
        return self._known(self._tail)

    def _set_alias(self, item_id: str, known: str | None) -> None:
        self._aliases[item_id] = known
        if len(self._aliases) > _REMEMBERED:
            self._left_out.discard(self._aliases.popitem(last=False)[0])

    def _known(self, item_id: str | None) -> str | None:
        for _ in range(len(self._aliases) + 1):
            if item_id is None or item_id not in self._aliases:
                break
            item_id = self._aliases[item_id]
        return item_id or self._root
