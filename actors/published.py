"""The newest changes of the conversation that realtime has published, in a file of the session.

Realtime forgets what it has published. Until history has it, only the supervisor has; when that
dies, the next history reads this file. Applying a change twice does no harm, so it says nothing of
what history has.

Each record is the length and the CRC-32 of a message, and the message. A file that is long enough
is renamed, in place of the one before it, and a new one begun.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from messages import Message, SessionInfo, decode, encode

__all__ = ["PublishedChanges", "published_changes"]

_HEAD = struct.Struct("=II")
_ENOUGH_BYTES = 32_768
"""More than realtime publishes while history is busy or restarted."""


class PublishedChanges:
    """Where realtime keeps them. What cannot be written, because the disk is full, is left out."""

    def __init__(self, session: SessionInfo) -> None:
        self._path, self._before = _paths(session)
        self._waiting: list[bytes] = []
        """Records that are not written yet."""
        self._file = -1
        if session.directory:
            self._open(os.O_TRUNC if session.first else 0)

    def put(self, message: Message) -> None:
        """Keep a change that is published, once it is written."""
        frame = encode(message)
        self._waiting += (_HEAD.pack(len(frame), zlib.crc32(frame)), frame)

    @property
    def is_written(self) -> bool:
        """Whether nothing is to be written."""
        return not self._waiting

    def forget(self) -> None:
        """Leave out what is not written."""
        self._waiting.clear()

    def write(self) -> None:
        """Write what was put in, right before the state that says that it is published."""
        records = b"".join(self._waiting)
        self._waiting.clear()
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._file, records)
            if os.fstat(self._file).st_size >= _ENOUGH_BYTES:
                self.close()
                self._path.replace(self._before)
                self._open(0)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, flags, 0o600)


def published_changes(session: SessionInfo) -> Iterator[Message]:
    """Yield the newest changes that realtime has published, in order."""
    for path in reversed(_paths(session)):
        with contextlib.suppress(OSError):
            yield from _changes(path.read_bytes())


def _changes(data: bytes) -> Iterator[Message]:
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        frame = data[at - length : at]
        if zlib.crc32(frame) != checksum:
            return  # the disk was full
        yield decode(frame)


def _paths(session: SessionInfo) -> tuple[Path, Path]:
    return session.file("realtime.published"), session.file("realtime.published.before")
