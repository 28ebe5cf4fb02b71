"""The line that the user types at a terminal, from the bytes of the keys."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from rtvoice.view.wrapping import clusters

__all__ = ["END", "LineEditor"]

END = "\x04"
"""Ctrl-D in an empty line: the keyboard is closed."""
_KEYS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O]|$)|[^\x1b]", re.DOTALL)
"""A key: an escape sequence, or a character."""
_CUT_OFF = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?$")
"""The begin of an escape sequence whose end has not come."""


class LineEditor:
    """Takes keys and keeps the line: backspace, Ctrl-U, Ctrl-W; up and down are earlier lines."""

    def __init__(self) -> None:
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._history: list[str] = []
        self._at = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Take bytes of the terminal; yield each line that is complete, and `END`."""
        text = self._rest + self._decoder.decode(data)
        cut_off = _CUT_OFF.search(text)
        self._rest = text[cut_off.start() :] if cut_off is not None else ""
        for key in _KEYS.findall(text[: len(text) - len(self._rest)]):
            match key:
                case "\r" | "\n":
                    yield self._enter()
                case "\x04" if not self.text:
                    yield END
                case _:
                    self._edit(key)

    def _enter(self) -> str:
        line, self.text = self.text, ""
        if line.strip() and self._history[-1:] != [line]:
            self._history.append(line)
        self._at = len(self._history)
        return line

    def _edit(self, key: str) -> None:
        match key:
            case "\x7f" | "\b":
                *before, _ = ["", *(self.text[a:b] for a, b, _ in clusters(self.text))]
                self.text = "".join(before)
            case "\x15":
                self.text = ""
            case "\x17":
                self.text = self.text.rstrip().rpartition(" ")[0]
                self.text += " " if self.text else ""
            case "\x1b[A" | "\x1bOA" | "\x1b[B" | "\x1bOB":
                step = -1 if key[-1] == "A" else 1
                self._at = min(max(self._at + step, 0), len(self._history))
                self.text = (*self._history, "")[self._at]
            case _ if key.isprintable() or key in "\u200c\u200d":
                self.text += key
