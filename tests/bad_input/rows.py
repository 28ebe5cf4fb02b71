"""The table of docs/bad-input.md, and the functions that make its rows happen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bad_input.stage import Talk

__all__ = ["DOCUMENT", "ROWS", "Outcome", "Row", "World", "row", "rows_of"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "bad-input.md"
_ENDS = {"goes on": None, "ends, 0": 0, "ends, 2": 2, "ends, 3": 3}
_NOT_FOR_USERS = re.compile(
    r"Traceback|\[Errno|<class|\b(?:[a-z_]+\.)*[A-Z]\w*(?:Error|Exception|Warning)\b"
)


class Outcome(NamedTuple):
    """What came of an input."""

    text: str
    """All that the user saw of it."""
    code: int | None
    """The exit code; None: the session goes on."""


class Row(NamedTuple):
    """One line of the table."""

    input: str
    quotes: tuple[str, ...]
    """What the user sees; ``…`` stands for anything. Empty: nothing is seen."""
    code: int | None

    def check(self, outcome: Outcome) -> None:
        """Fail unless it happened as it is written."""
        # A busy machine may say so.
        outcome = outcome._replace(text=re.sub(r"\[Still starting: [^]]*\]\n?", "", outcome.text))
        for quote in self.quotes:
            pattern = ".*?".join(map(re.escape, quote.split("…")))
            assert re.search(pattern, outcome.text), f"not {quote!r} but:\n{outcome.text}"
        if not self.quotes:
            assert outcome.text.strip() == ""
        assert outcome.code == self.code, outcome.text
        told = " ".join(self.quotes)
        assert "crashed" in told or "crashed" not in outcome.text, outcome.text
        allowed = _NOT_FOR_USERS.findall(told)
        assert set(_NOT_FOR_USERS.findall(outcome.text)) <= set(allowed), outcome.text


class World(NamedTuple):
    """What a function that makes a row happen may use."""

    folder: Path
    """Empty, and the current one."""
    patch: pytest.MonkeyPatch
    talk: Callable[[], Talk]
    """Returns a conversation that all rows share which it survives."""

    def file(self, name: str, content: bytes | str) -> str:
        """Write a file and return its name."""
        data = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(data)
        return name


ROWS: dict[str, Callable[[World], Outcome]] = {}

_Make = Callable[[World], Outcome]


def row(what: str) -> Callable[[_Make], _Make]:
    """Name the row of the table that a function makes happen."""

    def note(make: _Make) -> _Make:
        assert what not in ROWS, what
        ROWS[what] = make
        return make

    return note


def rows_of(document: Path = DOCUMENT) -> list[Row]:
    """Return the rows of all tables in the document."""
    found = []
    for line in document.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 3 and cells[2] in _ENDS:
            quotes = tuple(re.findall(r"`([^`]+)`", cells[1]))
            assert quotes or cells[1] == "nothing", line
            found.append(Row(cells[0].replace("`", ""), quotes, _ENDS[cells[2]]))
    return found
