"""The state of a component in a mapped file of the session, for the case that the supervisor dies.

A component saves often, and while the user waits; a store into a mapped file takes microseconds,
where writing and renaming a file would take several hundred.

With the state it writes what it has sent before and the supervisor has not been given yet: waking
the supervisor takes longer than anything else that happens while a tool call is waited for.

Layout (native byte order): two halves, each of

    u64 number    how often state was saved; the higher valid one counts
    u32 length    of the state
    u32 length    of the frames that the supervisor lacks
    u32 crc32     of all that
    ...           the state, and the frames

The half that does not count is overwritten, so that whenever the process dies, the other is whole.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from messages.paths import path_of_text
from messages.transport.mapped import map_file

__all__ = ["Saved", "StateFile", "read_saved", "read_state", "remove_state"]

_HEAD = struct.Struct("=QIII")
_NUMBER = struct.Struct("=Q")
_LEAST_BYTES = 8192
"""Of a half."""


def _path(directory: str | Path, name: str) -> Path:
    return Path(path_of_text(str(directory)), f"{name}.saved")


class Saved(NamedTuple):
    """What a component has saved last."""

    number: int = 0
    """How often it had saved by then; 0: it has not, or the file is damaged."""
    state: bytes = b""
    unsent: bytes = b""
    """Frames that it had sent before, and written to its channel only once the supervisor has been
    sent a `Save` with this number."""


class StateFile:
    """The component's end."""

    def __init__(self, directory: str | Path, name: str) -> None:
        self._path = _path(directory, name)
        self._map: mmap.mmap | None = None
        self._half = 0
        """Size of a half in bytes."""
        self.number = 0
        """That of what was saved last."""

    def write(self, state: bytes, unsent: bytes = b"") -> bool:
        """Save the state of the component. Return False if it cannot be written.

        The file is removed then, so that no older state is read. That needs neither space nor a
        descriptor, of which there may be none left.
        """
        length = _HEAD.size + len(state) + len(unsent)
        try:
            if self._map is None or self._half < length:
                self._map = self._mapped(length)
        except OSError:
            self._map = None
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        self.number += 1
        at = self.number % 2 * self._half
        _write_half(self._map, at, Saved(self.number, state, unsent))
        return True

    def _mapped(self, least: int) -> mmap.mmap:
        """Make a file that is large enough, with what an earlier process has saved last."""
        saved = _newest(self._path)
        self.number = saved.number
        self._half = _LEAST_BYTES
        while self._half < 2 * least or self._half < _length(saved):
            self._half *= 2
        new = self._path.with_suffix(".new")
        made = map_file(new, 2 * self._half, os.O_CREAT | os.O_TRUNC)
        _write_half(made, saved.number % 2 * self._half, saved)
        new.replace(self._path)
        return made


def _length(saved: Saved) -> int:
    return _HEAD.size + len(saved.state) + len(saved.unsent)


def _write_half(data: mmap.mmap, at: int, saved: Saved) -> None:
    number, state, unsent = saved
    _NUMBER.pack_into(data, at, 0)  # not valid until all of it is there
    data[at + _HEAD.size : at + _length(saved)] = state + unsent
    _HEAD.pack_into(data, at, number, len(state), len(unsent), _checksum(saved))


def _checksum(saved: Saved) -> int:
    number, state, unsent = saved
    head = struct.pack("=QII", number, len(state), len(unsent))
    return zlib.crc32(unsent, zlib.crc32(state, zlib.crc32(head)))


def _newest(path: Path) -> Saved:
    """Return the half that counts."""
    found = Saved()
    try:
        data = path.read_bytes()
    except OSError:
        return found
    half = len(data) // 2
    for at in (0, half) if half > _HEAD.size else ():
        number, length, rest, checksum = _HEAD.unpack_from(data, at)
        begin, end = at + _HEAD.size, at + _HEAD.size + length
        if number > found.number and length + rest <= half - _HEAD.size:
            saved = Saved(number, data[begin:end], data[end : end + rest])
            if checksum == _checksum(saved):
                found = saved
    return found


def read_saved(directory: str | Path, name: str) -> Saved:
    """Return what a component has saved last."""
    return _newest(_path(directory, name))


def read_state(directory: str | Path, name: str) -> bytes | None:
    """Return the state that a component has saved last; None: there is none, or it is damaged."""
    saved = read_saved(directory, name)
    return saved.state if saved.number else None


def remove_state(directory: str | Path, name: str) -> None:
    """Forget what a component has saved: it cannot be opened with it.

    The file stays, because the process of the component may have mapped it.
    """
    path = _path(directory, name)
    with contextlib.suppress(OSError, ValueError):
        size = path.stat().st_size
        data = map_file(path, size)
        for at in (0, size // 2):
            _NUMBER.pack_into(data, at, 0)
        data.close()
