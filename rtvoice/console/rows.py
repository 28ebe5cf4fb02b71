"""Rows of the screen: pieces of text with the names of their styles."""

from __future__ import annotations

from collections.abc import Sequence

from rtvoice.view.wrapping import printable, shortened, width_of, wrapped

__all__ = ["Row", "Span", "cut", "joined", "padded", "paragraph", "row_width", "text_of"]

Span = tuple[str, str]
"""A text and its style: names, separated by spaces. ``@NAME`` is what a click on it does."""
Row = tuple[Span, ...]


def text_of(row: Row) -> str:
    """Return the text of a row."""
    return "".join(text for text, _ in row)


def row_width(row: Row) -> int:
    """Return how many cells a row takes."""
    return sum(width_of(text) for text, _ in row)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text in exactly so many cells; one that is too long is cut."""
    text = shortened(text, width)
    space = " " * (width - width_of(text))
    return f"{space}{text}" if right else f"{text}{space}"


def cut(row: Row, width: int) -> Row:
    """Return as much of a row as fits."""
    kept: list[Span] = []
    room = width
    for text, style in row:
        own = width_of(text)
        if own > room:
            kept.append((shortened(text, room), style))
            break
        kept.append((text, style))
        room -= own
    return tuple(kept)


def joined(parts: Sequence[Row], width: int, separator: str = " · ") -> Row:
    """Return as many of the parts, the first ones, as fit into a row."""
    row: Row = ()
    for part in parts:
        longer = (*row, (separator, "dim"), *part) if row else part
        if row_width(longer) > width:
            break
        row = longer
    return row


def paragraph(spans: Sequence[Span], width: int, first: Row = (), rest: Row = ()) -> list[Row]:
    """Return styled text, wrapped.

    Args:
        spans: The text.
        width: Cells of a row.
        first: What stands before the first row.
        rest: What stands before the others; as wide as ``first``.
    """
    text = "".join(printable(piece, lines=True) for piece, _ in spans)
    rows: list[Row] = []
    room = max(width - row_width(first), 1)
    for start, end in wrapped(text, room):
        rows.append((*(rest if rows else first), *_between(spans, start, end)))
    return rows


def _between(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """Return the pieces between two positions of the whole text."""
    pieces: list[Span] = []
    at = 0
    for text, style in spans:
        low, high = max(start - at, 0), min(end - at, len(text))
        if low < high:
            pieces.append((printable(text[low:high]), style))
        at += len(text)
    return pieces
