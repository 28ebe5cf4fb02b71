"""The talk: its entries in the order of the conversation, and which of them have changed."""

from __future__ import annotations

from typing import Any

from rtvoice.view.state import Entry

__all__ = ["Entries", "is_aside"]


class Entries:
    """The entries of the talk, found by their ids. A change of one is recorded with `touch`."""

    def __init__(self) -> None:
        self.all: list[Entry] = []
        """In the order of the conversation."""
        self._index: dict[str, Entry] = {}
        self._dirty: set[str] = set()
        self._removed: list[str] = []

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._index

    def find(self, entry_id: str) -> Entry | None:
        """Return an entry; None: there is none."""
        return self._index.get(entry_id)

    def touch(self, entry_id: str) -> None:
        """Record that an entry has changed."""
        self._dirty.add(entry_id)

    def add(self, entry: Entry) -> None:
        """Add an entry as the last one."""
        self._index[entry.id] = entry
        self.all.append(entry)
        self._dirty.add(entry.id)

    def entry(self, entry_id: str, kind: Any, state: Any, at_s: float, **new: Any) -> Entry:
        """Return an entry, which is about to change; a new one comes last, and has these values."""
        entry = self._index.get(entry_id)
        if entry is None:
            entry = Entry(entry_id, kind, state=state, at_s=round(at_s, 3), **new)
            self.add(entry)
        self._dirty.add(entry_id)
        return entry

    def place(self, entry: Entry, previous: str | None) -> None:
        """Move an entry behind another one, unless nothing but asides stands between them."""
        before = self._index.get(previous) if previous else None
        if before is None:
            return
        at, after = self.position(entry), self.position(before)
        if at == after + 1 or all(is_aside(each) for each in self.all[after + 1 : at]):
            return
        self.all.remove(entry)
        self.all.insert(self.position(before) + 1, entry)
        self._dirty.add(entry.id)

    def position(self, entry: Entry) -> int:
        """Return the index of an entry; the newest are looked at first."""
        for number in range(len(self.all) - 1, -1, -1):
            if self.all[number] is entry:
                return number
        raise KeyError(entry.id)

    def after(self, entry_id: str) -> list[Entry]:
        """Return the entries behind another one; none if there is no such entry."""
        entry = self._index.get(entry_id)
        return self.all[self.position(entry) + 1 :] if entry is not None else []

    def rename(self, before: str, after: str) -> None:
        """Give an entry another id; if another one has it, the entry is removed."""
        entry = self._index.pop(before)
        self._removed.append(before)
        self._dirty.discard(before)
        if after in self._index:
            self.all.remove(entry)
            return
        entry.id = after
        self._index[after] = entry
        self._dirty.add(after)

    def remove(self, entry_id: str) -> None:
        """Remove an entry, if there is one."""
        entry = self._index.pop(entry_id, None)
        if entry is not None:
            self.all.remove(entry)
            self._removed.append(entry_id)
            self._dirty.discard(entry_id)

    def remove_unsaid(self) -> None:
        """Remove speech of the user that has become no turn."""
        for entry in reversed(self.all):
            if entry.kind == "user":
                if entry.state == "partial" and entry.spoken and not entry.text:
                    self.remove(entry.id)
                return

    def changes(self) -> tuple[list[tuple[str, Entry]], list[str]]:
        """Return what has changed since the last call.

        Returns:
            The entries that are new or different, in the order of the talk, each with the id of the
            entry before it; and the ids of the entries that are gone.
        """
        dirty, self._dirty = self._dirty, set()
        removed, self._removed = self._removed, []
        if not dirty:
            return [], removed
        changed: list[tuple[str, Entry]] = []
        before = ""
        for entry in self.all:
            if entry.id in dirty:
                changed.append((before, entry))
            before = entry.id
        return changed, removed


def is_aside(entry: Entry) -> bool:
    """Return whether an entry is no turn: a tool call, or a sentence of the program."""
    return entry.kind in ("notice", "trouble", "tool")
