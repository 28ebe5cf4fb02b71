"""A terminal emulator, to see what the console shows."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["Screen"]

_PART = re.compile(r"\x1b\[[\d;]*[A-Za-z]|\x1b.|[^\x1b]", re.DOTALL)


class Screen:
    """Takes text as an xterm does.

    A letter in the last cell of a line leaves the cursor there: the next one goes to the next line,
    unless the cursor was moved in between.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._lines: list[list[str]] = [[] for _ in range(height)]
        """Cells, also those that have left the screen at its top."""
        self._row, self._column, self._full = 0, 0, False
        self._saved = (0, 0, False)

    def shows(self, text: str) -> list[str]:
        """Return the lines, from the first that ever was, to which a text leads."""
        for part in _PART.findall(text):
            self._take(part)
        lines = ["".join(line) for line in self._lines]
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def _take(self, part: str) -> None:
        top = len(self._lines) - self._height
        full, self._full = self._full, False
        match part:
            case "\n":  # which the terminal's driver makes the beginning of the next line
                self._down()
                self._column = 0
            case "\r":
                self._column = 0
            case "\x1bD":
                self._down()
            case "\x1b[A":
                self._row = max(self._row - 1, top)
            case "\x1b[B":
                self._row = min(self._row + 1, len(self._lines) - 1)
            case "\x1b7":
                self._full = full
                self._saved = (self._row - top, self._column, full)
            case "\x1b8":
                row, self._column, self._full = self._saved
                self._row = row + top
            case "\x1b[K":
                del self._lines[self._row][self._column :]
            case "\x1b[J":
                del self._lines[self._row][self._column :]
                for line in self._lines[self._row + 1 :]:
                    line.clear()
            case _:
                assert len(part) == 1, f"this terminal does not know {part!r}"
                self._put(part, full=full)

    def _put(self, letter: str, *, full: bool) -> None:
        line = self._lines[self._row]
        if unicodedata.combining(letter):
            line[self._column - 1 + full] += letter
            self._full = full
            return
        cells = [letter, ""] if unicodedata.east_asian_width(letter) in "FW" else [letter]
        if full or self._column + len(cells) > self._width:
            self._down()
            self._column = 0
            line = self._lines[self._row]
        line += " " * (self._column - len(line))
        line[self._column : self._column + len(cells)] = cells
        self._column += len(cells)
        if self._column == self._width:
            self._column, self._full = self._width - 1, True

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append([])
