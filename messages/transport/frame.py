"""The frame of a message on a channel: ``u32 length | u8 tag | u8 epoch | msgpack body``.

The length counts everything after itself. The hub does not read the body: it routes by the tag, and
by the epoch (the incarnation of the component, modulo 256) it discards frames of an earlier
incarnation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from messages.base import Message, decoder_of
from messages.paths import printable

__all__ = [
    "HEAD_BYTES",
    "FrameError",
    "Pieces",
    "Splitter",
    "decode",
    "encode",
    "encode_sound",
    "epoch_of",
    "missing_bytes",
    "split",
    "tag_of",
    "with_epoch",
]

HEAD_BYTES = 6
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Longest frame; a greater length can only come from a broken writer."""

_HEAD = struct.Struct("<IBB")
_SHORT, _LONG = struct.Struct(">BH"), struct.Struct(">BI")
"""The heads of binary data in MessagePack (bin 16, bin 32)."""
_NO_BYTES = b"\xc4\0"
"""Binary data without a byte (bin 8)."""
_length = struct.Struct("<I").unpack_from
_encoder = msgspec.msgpack.Encoder()
_EPOCHS = [bytes((epoch,)) for epoch in range(256)]


class FrameError(Exception):
    """Raised for bytes that are not a frame, or for a frame that is not a known message."""


def encode(message: Message, epoch: int = 0) -> bytes:
    r"""Return the frame of a message; lone surrogates in its texts become ``\udcff``."""
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError:
        body = _encoder.encode(_printable(message))
    return _HEAD.pack(len(body) + 2, type(message).tag(), epoch) + body


def encode_sound(message: Message, pieces: Sequence[bytes], epoch: int = 0) -> bytes:
    """Return the frame of a message with sound, which is copied once: from its pieces to here.

    Args:
        message: The message; its first field, ``pcm``, is empty.
        pieces: What this field is to be.
        epoch: The incarnation.
    """
    body = _encoder.encode(message)
    at = body.index(_NO_BYTES)  # before it are the length of the array and the tag
    size = sum(map(len, pieces))
    head = _SHORT.pack(0xC5, size) if size < 0x10000 else _LONG.pack(0xC6, size)
    total = len(body) - len(_NO_BYTES) + len(head) + size
    start = _HEAD.pack(total + 2, type(message).tag(), epoch)
    return b"".join((start, body[:at], head, *pieces, body[at + len(_NO_BYTES) :]))


def _printable(value: Any) -> Any:
    """Return a message, or a part of one, with all its texts printable."""
    match value:
        case str():
            return printable(value)
        case msgspec.Struct():
            parts = msgspec.structs.asdict(value)
            return msgspec.structs.replace(value, **{k: _printable(v) for k, v in parts.items()})
        case dict():
            return {_printable(key): _printable(each) for key, each in value.items()}
        case tuple() | list():
            return type(value)(map(_printable, value))
        case _:
            return value


def decode(frame: bytes) -> Message:
    """Return the message of a whole frame.

    Raises:
        FrameError: If the tag is unknown in this process, or the body does not fit its type.
    """
    try:
        message = decoder_of(frame[4]).decode(memoryview(frame)[HEAD_BYTES:])
    except KeyError:
        raise FrameError(f"no message type has the tag {frame[4]}") from None
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise FrameError(f"the body of a frame with tag {frame[4]} is broken: {error}") from error
    assert isinstance(message, Message)
    return message


def tag_of(frame: bytes) -> int:
    """Return the tag of a frame without reading its body."""
    return frame[4]


def epoch_of(frame: bytes) -> int:
    """Return the epoch of a frame without reading its body."""
    return frame[5]


def with_epoch(frame: bytes, epoch: int) -> bytes:
    """Return the frame with its epoch replaced."""
    return frame if frame[5] == epoch else frame[:5] + _EPOCHS[epoch] + frame[HEAD_BYTES:]


def missing_bytes(data: bytes) -> int:
    """Return how many bytes are missing of the frame that begins with ``data``.

    Raises:
        FrameError: If no frame has this length.
    """
    size = int(_length(data, 0)[0]) + 4
    if size < HEAD_BYTES or size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size} bytes is not valid")
    return max(0, size - len(data))


def split(data: bytes) -> Iterator[bytes]:
    """Yield the whole frames at the front of ``data``; the caller keeps the rest.

    Raises:
        FrameError: If a length is not valid; then nothing after it can be trusted.
    """
    start, end = 0, len(data)
    while end - start >= HEAD_BYTES:
        size = _length(data, start)[0] + 4
        if size < HEAD_BYTES or size > MAX_FRAME_BYTES:
            raise FrameError(f"{size} bytes is not a valid length of a frame")
        if end - start < size:
            return
        yield data if size == end else data[start : start + size]
        start += size


class Pieces:
    """Joins the pieces of a stream until a frame can be complete; so a long one is copied once."""

    __slots__ = ("_missing", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        """The beginning of an incomplete frame."""
        self._missing = 0
        """Bytes that must still come before it can be complete."""

    def join(self, data: bytes) -> bytes:
        """Return a piece behind what was kept; nothing, if no frame can be complete with it."""
        if not self._rest:
            return data
        self._rest += data
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        data = bytes(self._rest)
        self._rest.clear()
        return data

    def keep(self, rest: bytes, missing: int) -> None:
        """Keep the beginning of a frame, of which so many bytes are missing at least."""
        self._rest += rest
        self._missing = missing


class Splitter:
    """Splits the bytes of a channel, in pieces of any size, into frames."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces = Pieces()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are complete with ``data``.

        Raises:
            FrameError: If a length is not valid; then nothing after it can be trusted.
        """
        data = self._pieces.join(data)
        used = 0
        for frame in split(data):
            used += len(frame)
            yield frame
        if used < len(data):
            rest = data[used:] if used else data
            size = _length(rest)[0] + 4 if len(rest) >= 4 else HEAD_BYTES
            self._pieces.keep(rest, size - len(rest))
