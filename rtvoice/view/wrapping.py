"""Lines of text for a terminal: how many cells a text takes, and where it may be wrapped.

A terminal has cells. A letter takes one, a Chinese character two, an accent none. Scripts that are
written without spaces may be wrapped between any two letters, the others at words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["clusters", "printable", "shortened", "width_of", "words", "wrapped"]

_JOINER, _EMOJI_STYLE = "\u200d", "\ufe0f"
_HARMLESS = "\u200c\u200d"
"""Kept though `str.isprintable` rejects them: Persian words and emoji need the two joiners."""
_NOT_FIRST = ("Pe", "Pf", "Po", "Lm")
"""Categories of letters with which no line begins: brackets that close, full stops."""
_NOT_LAST = ("Ps", "Pi")
"""Those with which no line ends: brackets that open."""
_NO_SPACES = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
"""Thai and Lao, Burmese, Khmer: written without spaces, and not of double width."""


def printable(text: str, *, lines: bool = False) -> str:
    """Replace control characters: text of a model or a tool must not control the terminal.

    Args:
        text: Any text.
        lines: Whether line breaks are kept.
    """
    kept = _HARMLESS + ("\n" if lines else "")
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else " " for each in text)


@lru_cache(maxsize=4096)
def _cells(character: str) -> int:
    """Return how many cells a character takes on its own."""
    if unicodedata.category(character) in ("Cf", "Me", "Mn", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1


def clusters(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and cells of each letter with all that belongs to it: accents, joined emoji.

    A cluster is what must not be torn apart; it is coarser than a code point.
    """
    start, cells, joins = 0, 0, False
    for at, character in enumerate(text):
        own = _cells(character)
        is_tone = "\U0001f3fb" <= character <= "\U0001f3ff" and cells == 2
        if at and (own == 0 or joins or is_tone):
            if character == _EMOJI_STYLE and cells == 1:
                cells = 2
            joins = character == _JOINER and cells == 2
            continue
        if at:
            yield start, at, cells
        start, cells, joins = at, own, False
    if text:
        yield start, len(text), cells


def width_of(text: str) -> int:
    """Return how many cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(cells for _, _, cells in clusters(text))


def shortened(text: str, width: int) -> str:
    """Return a text in so many cells at most; one that is cut ends with an ellipsis."""
    if width_of(text) <= width:
        return text
    room, end = width - 1, 0
    for _, after, cells in clusters(text):
        room -= cells
        if room < 0:
            break
        end = after
    return f"{text[:end].rstrip()}…" if width > 0 else ""


def wrapped(text: str, width: int, used: int = 0) -> list[tuple[int, int]]:
    """Return the lines of a text as pairs of start and end; spaces at their ends are left out.

    Args:
        text: The text; it may have line breaks.
        width: Cells of a line.
        used: Cells of the first line that are taken already.
    """
    lines: list[tuple[int, int]] = []
    begin = 0
    for part in text.split("\n"):
        lines += [(begin + start, begin + end) for start, end in _wrapped(part, width, used)]
        begin += len(part) + 1
        used = 0
    return lines


def _wrapped(text: str, width: int, used: int) -> Iterator[tuple[int, int]]:
    """Yield the lines of a text without line breaks."""
    line_start, line_end, column = 0, 0, used
    for start, end, cells, blank in words(text):
        if column + cells > width and (column > 0 or line_end > line_start):
            if used or line_end > line_start:
                yield line_start, line_end
            line_start, column, used = start, 0, 0
        if cells > width:  # longer than a line: wherever it is full
            for first, after, own in clusters(text[start:end]):
                if column + own > width and column:
                    yield line_start, start + first
                    line_start, column = start + first, 0
                column += own
                line_end = start + after
            column += blank
            continue
        column += cells + blank
        line_end = end
    yield line_start, line_end


def words(text: str) -> list[tuple[int, int, int, int]]:
    """Return the parts that are not torn apart: start, end, cells, and cells of spaces behind."""
    return list(_words(text))


def _words(text: str) -> Iterator[tuple[int, int, int, int]]:
    start = end = cells = blank = 0
    before = ""
    for first, after, own in clusters(text):
        cluster = text[first:after]
        if cluster.isspace() and cluster != "\u00a0":
            blank += own
            before = ""
            continue
        if blank or (before and _may_break(before, cluster)):
            yield start, end, cells, blank
            start, cells, blank = first, 0, 0
        cells += own
        end, before = after, cluster
    if end > start or blank or not text:
        yield start, end, cells, blank


def _may_break(before: str, after: str) -> bool:
    """Return whether a line may end between two letters that no space separates."""
    if unicodedata.category(after[0]) in _NOT_FIRST:
        return False
    if unicodedata.category(before[0]) in _NOT_LAST:
        return False
    return _breaks_anywhere(before[0]) or _breaks_anywhere(after[0])


@lru_cache(maxsize=4096)
def _breaks_anywhere(character: str) -> bool:
    code = ord(character)
    return code > 0x0E00 and (
        unicodedata.east_asian_width(character) in "FW"
        or any(first <= code <= last for first, last in _NO_SPACES)
    )
