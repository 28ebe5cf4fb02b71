"""The talk: the entries of the view as rows, wrapped again only where they have changed."""

from __future__ import annotations

from rtvoice.console.entries import rows_of
from rtvoice.console.rows import Row
from rtvoice.view import View

__all__ = ["Talk"]


class Talk:
    """The rows of all entries. It needs no screen.

    Args:
        view: The state.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._width = 0
        self._blocks: dict[str, list[Row]] = {}
        """The rows of each entry."""
        self._unfolded: set[str] = set()
        self.chosen = ""
        """Id of the tool call that Enter unfolds; empty: none."""
        self.rows: list[Row] = []

    def update(self, width: int) -> bool:
        """Take the changes of the view; return whether the rows are different."""
        changed, removed = self._view.changes()
        if width != self._width:
            self._width = width
            self._blocks.clear()
            changed = [("", entry) for entry in self._view.entries]
        if not changed and not removed:
            return False
        for entry_id in removed:
            self._blocks.pop(entry_id, None)
        for _, entry in changed:
            self._wrap(entry.id)
        self._collect()
        return True

    def _wrap(self, entry_id: str) -> None:
        entry = self._view.find(entry_id)
        if entry is not None:
            unfolded, chosen = entry_id in self._unfolded, entry_id == self.chosen
            self._blocks[entry_id] = rows_of(
                entry, max(self._width, 20), unfolded=unfolded, chosen=chosen
            )

    def _collect(self) -> None:
        self.rows = [row for entry in self._view.entries for row in self._blocks.get(entry.id, ())]

    def unfold(self, entry_id: str) -> None:
        """Show a tool call as a whole, or fold it again."""
        self._unfolded ^= {entry_id}
        self._wrap(entry_id)
        self._collect()

    def choose(self, step: int) -> None:
        """Choose the tool call before or after the chosen one; if none is, the newest."""
        ids = [entry.id for entry in self._view.entries if entry.kind == "tool"]
        before = self.chosen
        if not ids:
            return
        self.chosen = ids[(ids.index(before) + step) % len(ids)] if before in ids else ids[-1]
        for entry_id in (before, self.chosen):
            self._wrap(entry_id)
        self._collect()

    def leave(self) -> None:
        """Choose no tool call any more."""
        before, self.chosen = self.chosen, ""
        self._wrap(before)
        self._collect()

    def place_of(self, entry_id: str) -> tuple[int, int]:
        """Return the first row of an entry, and how many it has."""
        first = 0
        for entry in self._view.entries:
            count = len(self._blocks.get(entry.id, ()))
            if entry.id == entry_id:
                return first, count
            first += count
        return first, 0
