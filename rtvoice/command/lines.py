"""Text on a stream: at a terminal, whole words, and a line at the bottom that stays there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TextIO

from rtvoice.command.printing import discard_rest
from rtvoice.view.wrapping import clusters, width_of, words

__all__ = ["Lines"]

_READER_IS_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""Errors of a pipe without a reader, and of a terminal whose window was closed."""


class Lines:
    """Writes text that comes in pieces.

    At a terminal it breaks lines between words itself, so that it knows in which cell the text
    ends; below it, or in its place where no text is open, stands the bottom line. The cursor is at
    the end of the bottom line, where the user types.

    Args:
        stream: Where to write.
        live: Whether it is a terminal.
        failed: Called once with the reason if the stream cannot be written to. Not called for a
            reader that has closed it.
    """

    def __init__(
        self, stream: TextIO, *, live: bool, failed: Callable[[str], None] = lambda _: None
    ) -> None:
        self._stream: TextIO | None = stream
        self._live = live
        self._failed = failed
        self._column = 0
        """Cells that the open line takes."""
        self._pending = ""
        """A word whose end has not come yet."""
        self._blank = 0
        """Spaces to write before the next word of the same line."""
        self._style = ""
        self._bottom = ""
        self._bottom_is_shown = False
        self._bottom_is_below = False
        """Whether it is shown below text, to whose end the cursor goes back."""

    @property
    def is_live(self) -> bool:
        """Whether the stream is a terminal that is still there."""
        return self._live and self._stream is not None

    @property
    def width(self) -> int:
        """Cells of a line; the last cell is left empty, since a terminal is undecided after it."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            columns = 80
        return max((columns or 80) - 1, 8)

    # -- text ---------------------------------------------------------------------------------

    def write(self, text: str, style: str = "") -> None:
        """Write a piece of the open line. The last word is written with the piece after it.

        Args:
            text: Text without control characters.
            style: Number of a style of the terminal; empty: none.
        """
        if not self._live:
            self._put(_styled(text, style))
            return
        if style != self._style and self._pending:
            self._put(self._take("", all_of_it=True))
        self._style = style
        self._put(self._take(text, all_of_it=False))

    def end_line(self) -> None:
        """End the open line, if there is one."""
        if not self._live:
            self._put("\n")
            return
        rest = self._take("", all_of_it=True)
        if self._column or rest:
            self._column = 0
            self._put(f"{rest}\n")
        self._blank = 0

    def _take(self, text: str, *, all_of_it: bool) -> str:
        """Return what is to be written now, with line breaks."""
        text, self._pending = self._pending + text, ""
        parts = words(text)
        if not all_of_it and parts and not parts[-1][3]:  # more of the last word may come
            start = parts.pop()[0]
            self._pending = text[start:]
        width, written = self.width, ""
        for start, end, cells, blank in parts:
            if end > start:
                if self._column and self._column + self._blank + cells > width:
                    written += "\n"
                    self._column = 0
                else:
                    written += " " * self._blank
                    self._column += self._blank
                self._blank = 0
                written += self._broken(text[start:end], width)
            self._blank += blank
        return _styled(written, self._style)

    def _broken(self, word: str, width: int) -> str:
        """Return a word, with line breaks where it is longer than a line."""
        written = ""
        for start, end, cells in clusters(word):
            if self._column + cells > width:
                written += "\n"
                self._column = 0
            written += word[start:end]
            self._column += cells
        return written

    # -- the bottom line ----------------------------------------------------------------------

    def bottom(self, text: str) -> None:
        """Show a line below all text; of a text that is too long, its end. Empty: no line."""
        if not self.is_live or (text == self._bottom and self._bottom_is_shown):
            return
        hidden = self._hide_bottom()
        self._bottom = _end_of(text, self.width)
        self._raw(hidden + self._show_bottom())

    def _hide_bottom(self) -> str:
        if not self._bottom_is_shown:
            return ""
        self._bottom_is_shown = False
        return "\r\x1b[K\x1b8" if self._bottom_is_below else "\r\x1b[K"

    def _show_bottom(self) -> str:
        if not self._bottom:
            return ""
        self._bottom_is_shown, self._bottom_is_below = True, self._column > 0
        if not self._bottom_is_below:
            return self._bottom
        # Down and up once, which scrolls if need be; then save the place of the text, and go down.
        return f"\x1bD\x1b[A\x1b7\x1b[B\r{self._bottom}"

    def _put(self, text: str) -> None:
        if self._live and text:
            text = self._hide_bottom() + text + self._show_bottom()
        self._raw(text)

    def _raw(self, text: str) -> None:
        if self._stream is None or not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            discard_rest(self._stream)
            self._stream = None
            if isinstance(error, OSError) and error.errno not in _READER_IS_GONE:
                self._failed(error.strerror or str(error))


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text


def _end_of(text: str, width: int) -> str:
    """Return the end of a text, as much as fits into a line."""
    missing, begin = width_of(text) - width, 0
    for _, end, cells in clusters(text):
        if missing <= 0:
            break
        missing, begin = missing - cells, end
    return text[begin:]
