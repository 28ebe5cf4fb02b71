"""The newest changes of the conversation that realtime has published, in files of the session.

Realtime forgets what it has published. Until history has it, only the supervisor has; when that
dies, the next history reads these files. Applying a change twice does no harm, so they say nothing
of what history has.

Outputs of tools have a file of their own: they may be long, and are not to push out what is short.
They are those that the server was sent, for which tools may have others by now. The next process of
realtime reads them too: until history has an output, nobody else knows that it was sent.

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

from messages import Message, OutputReplaced, SessionInfo, ToolAnswer, decode, encode

__all__ = ["PublishedChanges", "published_changes", "sent_outputs"]

_HEAD = struct.Struct("=II")
_CHANGES, _OUTPUTS = "realtime.published", "realtime.outputs"
_ENOUGH_BYTES = {_CHANGES: 32_768, _OUTPUTS: 262_144}
"""More than realtime publishes while history is busy or restarted."""


class PublishedChanges:
    """Where realtime keeps them. What cannot be written, because the disk is full, is left out."""

    def __init__(self, session: SessionInfo) -> None:
        self._files = {name: _File(session, name) for name in _ENOUGH_BYTES}

    def put(self, message: Message) -> None:
        """Keep a change that is published, once it is written."""
        is_output = isinstance(message, ToolAnswer | OutputReplaced)
        self._files[_OUTPUTS if is_output else _CHANGES].put(message)

    @property
    def is_written(self) -> bool:
        """Whether nothing is to be written."""
        return not any(file.waiting for file in self._files.values())

    def forget(self) -> None:
        """Leave out what is not written."""
        for file in self._files.values():
            file.waiting.clear()

    def write(self) -> None:
        """Write what was put in, right before the state that says that it is published."""
        for file in self._files.values():
            file.write()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class _File:
    """One of the files, and the one before it."""

    def __init__(self, session: SessionInfo, name: str) -> None:
        self._path, self._before = _paths(session, name)
        self._enough_bytes = _ENOUGH_BYTES[name]
        self.waiting: list[bytes] = []
        """Records that are not written yet."""
        self._file = -1
        if session.directory:
            self._open(os.O_TRUNC if session.first else 0)

    def put(self, message: Message) -> None:
        frame = encode(message)
        self.waiting += (_HEAD.pack(len(frame), zlib.crc32(frame)), frame)

    def write(self) -> None:
        records = b"".join(self.waiting)
        self.waiting.clear()
        if self._file < 0 or not records:
            return
        with contextlib.suppress(OSError):
            os.write(self._file, records)
            if os.fstat(self._file).st_size >= self._enough_bytes:
                self.close()
                self._path.replace(self._before)
                self._open(0)

    def close(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, flags, 0o600)


def published_changes(session: SessionInfo) -> Iterator[Message]:
    """Yield the newest changes that realtime has published, in order; the outputs come last."""
    yield from _read(session, _CHANGES)
    yield from _read(session, _OUTPUTS)


def sent_outputs(session: SessionInfo) -> Iterator[ToolAnswer | OutputReplaced]:
    """Yield the newest outputs that the server was sent, and what has replaced them, in order."""
    for message in _read(session, _OUTPUTS):
        assert isinstance(message, ToolAnswer | OutputReplaced)
        yield message


def _read(session: SessionInfo, name: str) -> Iterator[Message]:
    for path in reversed(_paths(session, name)):
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


def _paths(session: SessionInfo, name: str) -> tuple[Path, Path]:
    return session.file(name), session.file(f"{name}.before")
