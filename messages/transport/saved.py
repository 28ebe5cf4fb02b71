"""The state of a component in a mapped file of the session, for the case that the supervisor dies.

A component saves often, and while the user waits; a store into a mapped file takes microseconds,
where writing and renaming a file would take several hundred.

Layout (native byte order): two halves, each of

    u64 number    how often state was saved; the higher valid one counts
    u32 length    of the state
    u32 crc32     of number and state
    ...           the state

The half that does not count is overwritten, so that whenever the process dies, the other is whole.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from pathlib import Path

from messages.paths import path_of_text
from messages.transport.mapped import map_file

__all__ = ["StateFile", "read_state", "remove_state"]

_HEAD = struct.Struct("=QII")
_NUMBER = struct.Struct("=Q")
_LEAST_BYTES = 8192
"""Of a half."""


def _path(directory: str | Path, name: str) -> Path:
    return Path(path_of_text(str(directory)), f"{name}.saved")


class StateFile:
    """The component's end."""

    def __init__(self, directory: str | Path, name: str) -> None:
        self._path = _path(directory, name)
        self._map: mmap.mmap | None = None
        self._half = 0
        """Size of a half in bytes."""
        self._number = 0

    def write(self, state: bytes) -> bool:
        """Save the state of the component. Return False if it cannot be written.

        The file is removed then, so that no older state is read. That needs neither space nor a
        descriptor, of which there may be none left.
        """
        try:
            if self._map is None or self._half < _HEAD.size + len(state):
                self._map = self._mapped(_HEAD.size + len(state))
        except OSError:
            self._map = None
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        self._number += 1
        at = self._number % 2 * self._half
        _write_half(self._map, at, self._number, state)
        return True

    def _mapped(self, least: int) -> mmap.mmap:
        """Make a file that is large enough, with what an earlier process has saved last."""
        number, state = _newest(self._path)
        self._number = number
        self._half = _LEAST_BYTES
        while self._half < 2 * least or self._half < _HEAD.size + len(state):
            self._half *= 2
        new = self._path.with_suffix(".new")
        made = map_file(new, 2 * self._half, os.O_CREAT | os.O_TRUNC)
        _write_half(made, number % 2 * self._half, number, state)
        new.replace(self._path)
        return made


def _write_half(data: mmap.mmap, at: int, number: int, state: bytes) -> None:
    _NUMBER.pack_into(data, at, 0)  # not valid until all of it is there
    data[at + _HEAD.size : at + _HEAD.size + len(state)] = state
    _HEAD.pack_into(data, at, number, len(state), _checksum(number, state))


def _checksum(number: int, state: bytes) -> int:
    return zlib.crc32(state, zlib.crc32(_NUMBER.pack(number)))


def _newest(path: Path) -> tuple[int, bytes]:
    """Return number and state of the half that counts; 0: none does."""
    try:
        data = path.read_bytes()
    except OSError:
        return 0, b""
    half = len(data) // 2
    found = (0, b"")
    for at in (0, half) if half > _HEAD.size else ():
        number, length, checksum = _HEAD.unpack_from(data, at)
        state = data[at + _HEAD.size : at + _HEAD.size + length]
        if number > found[0] and length <= half - _HEAD.size:
            if checksum == _checksum(number, state):
                found = number, state
    return found


def read_state(directory: str | Path, name: str) -> bytes | None:
    """Return the state that a component has saved last; None: there is none, or it is damaged."""
    number, state = _newest(_path(directory, name))
    return state if number else None


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
