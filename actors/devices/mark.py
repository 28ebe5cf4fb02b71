"""Marks: a few numbers in a memory-mapped file that survive the death of the process.

Writing one takes nanoseconds and survives SIGKILL. `Actor.save` would send a message to the
supervisor each time, which is too much for numbers that change with every block of audio.
"""

from __future__ import annotations

import mmap
import os

from messages import SessionInfo
from messages.transport.mapped import map_file

__all__ = ["ItemMark", "Mark"]

_BYTES = 4096


class Mark:
    """An array of unsigned 64-bit numbers in a file of the session; all zero at its start."""

    def __init__(self, session: SessionInfo, name: str) -> None:
        self._map = _map(session, name)
        self._numbers = memoryview(self._map).cast("Q")

    def __getitem__(self, index: int) -> int:
        return int(self._numbers[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._numbers[index] = value

    def close(self) -> None:
        """Unmap the file; the file itself remains."""
        self._numbers.release()
        self._map.close()


class ItemMark:
    """The speaker's mark: samples taken of the current item and of the one before; the volume.

    It also holds how much of the current item was heard, as of the last report.

    The file has two records of an item. Number 0 says which one is current. A new item is written
    to the other record, and number 0 is switched last: whenever the process dies, the current
    record is complete.
    """

    _ACTIVE, _VOLUME, _HEARD = 0, 1, 2
    _RECORDS = (128, 256)
    _ITEM_BYTES = 100

    def __init__(self, session: SessionInfo, name: str) -> None:
        self._map = _map(session, name)
        self._numbers = memoryview(self._map).cast("Q")
        self._active = int(self._numbers[self._ACTIVE]) & 1
        self._item = self._read(self._active)[0]

    @property
    def volume(self) -> float | None:
        """The last volume set, 0.0-1.0; None: none was set."""
        value = int(self._numbers[self._VOLUME])
        return (value - 1) / 1_000_000 if value else None

    @volume.setter
    def volume(self, volume: float) -> None:
        self._numbers[self._VOLUME] = round(volume * 1_000_000) + 1

    def taken(self) -> dict[str, int]:
        """Return the samples taken by item id, the current item last."""
        both = (self._read(1 - self._active), self._read(self._active))
        return {item: taken for item, taken in both if item}

    @property
    def unheard(self) -> int:
        """Samples of the current item that were taken but are not known to be heard."""
        return max(0, self._read(self._active)[1] - int(self._numbers[self._HEARD]))

    @property
    def heard(self) -> tuple[str, int]:
        """The current item, and how many samples of it are known to be heard."""
        return self._read(self._active)[0], int(self._numbers[self._HEARD])

    def note_heard(self, item_id: str, heard: int | None = None) -> None:
        """Record how many samples of an item were heard; None: all that were taken.

        Ignored if it is not the current item.
        """
        name, taken = self._read(self._active)
        if name == item_id:
            self._numbers[self._HEARD] = taken if heard is None else heard

    def set(self, item_id: str, taken: int) -> None:
        """Record how many samples of an item were taken."""
        if item_id != self._item:
            self._begin(item_id, taken)
        else:
            self._numbers[self._RECORDS[self._active] // 8] = taken

    def close(self) -> None:
        """Unmap the file; the file itself remains."""
        self._numbers.release()
        self._map.close()

    def _begin(self, item_id: str, taken: int) -> None:
        name = item_id.encode()[: self._ITEM_BYTES]
        at = self._RECORDS[1 - self._active]
        self._numbers[at // 8] = taken
        self._numbers[at // 8 + 1] = len(name)
        self._map[at + 16 : at + 16 + len(name)] = name
        self._numbers[self._HEARD] = 0
        self._active = 1 - self._active
        self._numbers[self._ACTIVE] = self._active  # last: from here on the new record counts
        self._item = item_id

    def _read(self, record: int) -> tuple[str, int]:
        at = self._RECORDS[record]
        taken, size = self._numbers[at // 8], self._numbers[at // 8 + 1]
        name = self._map[at + 16 : at + 16 + min(size, self._ITEM_BYTES)]
        return name.decode(errors="replace"), int(taken)


def _map(session: SessionInfo, name: str) -> mmap.mmap:
    path = session.file(name)
    if not (session.directory and path.parent.is_dir()):
        return mmap.mmap(-1, _BYTES)  # anonymous memory: nothing survives the process then
    return map_file(path, _BYTES, os.O_CREAT | (os.O_TRUNC if session.first else 0))
