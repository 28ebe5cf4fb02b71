"""Frames with a whole text message, as nearly every event has, without the `websockets` package.

The package takes 25 to 50 µs for a frame, a tenth of an event's whole way. What is not such a
frame, or is wrong, is left to it. https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from websockets.frames import apply_mask  # type: ignore[attr-defined] # written in C

from messages.transport.frame import Pieces

__all__ = ["FrameSplitter", "text_frame"]

_FINAL_TEXT, _MASKED = 0x81, 0x80
_SHORT, _MEDIUM, _LONG = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_IN_16_BITS, _IN_64_BITS = 126, 127
"""Lengths that mean that the length follows."""
_FINAL, _RESERVED, _CONTROL = 0x80, 0x70, 0x8
_OPCODES = (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)
_LONGEST = 1 << 63
"""The length of a frame is less."""


def text_frame(data: bytes, mask: bytes) -> bytes:
    """Return the frame of a text message to a server.

    Args:
        data: The message, in UTF-8.
        mask: Four random bytes.
    """
    size = len(data)
    if size < _IN_16_BITS:
        head = _SHORT.pack(_FINAL_TEXT, _MASKED | size)
    elif size < 1 << 16:
        head = _MEDIUM.pack(_FINAL_TEXT, _MASKED | _IN_16_BITS, size)
    else:
        head = _LONG.pack(_FINAL_TEXT, _MASKED | _IN_64_BITS, size)
    return b"".join((head, mask, apply_mask(data, mask)))


class FrameSplitter:
    """Splits what a server sends, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self.unpacks = True
        """Whether the messages of whole text frames are taken out; False: a message in fragments is
        under way."""
        self._pieces = Pieces()
        self._is_wrong = False
        """Whether a frame has come that no server may send: nothing after it can be split."""

    def feed(self, data: bytes) -> Iterator[tuple[bytes | None, bytes]]:
        """Yield, for each whole frame, its text message and nothing, or None and the frame.

        One that no server may send is yielded with all that follows, as soon as its head shows it.
        """
        data = self._pieces.join(data)
        at, end = 0, len(data)
        while at < end:
            head, size = _measured(data, at, end)
            if self._is_wrong or size >= _LONGEST or _is_wrong(data, at, end):
                self._is_wrong = True
                yield None, data[at:]
                return
            stop = at + head + size
            if not head or stop > end:
                self._pieces.keep(data[at:], stop - end if head else 1)
                return
            if data[at] == _FINAL_TEXT and self.unpacks:
                yield data[at + head : stop], b""
            else:
                yield None, data[at:stop]
            at = stop


def _is_wrong(data: bytes, at: int, end: int) -> bool:
    """Return whether a frame begins that no server may send, as far as its head is there."""
    opcode = data[at] & 0x0F
    if data[at] & _RESERVED or opcode not in _OPCODES:
        return True
    if at + 2 > end:
        return False
    too_long = data[at + 1] >= _IN_16_BITS or not data[at] & _FINAL
    return bool(data[at + 1] & _MASKED) or (opcode >= _CONTROL and too_long)


def _measured(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the lengths of head and data of an unmasked frame; (0, 0): they are not there yet."""
    if at + 2 > end:
        return 0, 0
    size, head = data[at + 1] & ~_MASKED, 2
    if size >= _IN_16_BITS:
        head += 2 if size == _IN_16_BITS else 8
        if at + head > end:
            return 0, 0
        size = int.from_bytes(data[at + 2 : at + head], "big")
    return head, size
