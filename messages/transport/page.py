"""The accounting page: the messages each child has started and handled, readable after its death.

It is one small mapped file per session, with one slot per child and eight unsigned 64-bit numbers
per slot. The child writes them with plain stores, which survive any kind of death; the hub reads
them. Each message belongs to one of two lanes: ordinary mail, or held messages, which are
acknowledged later (`Rule.held`).
"""

from __future__ import annotations

import os
from pathlib import Path

from messages.transport.mapped import map_file

__all__ = ["HELD", "LOCAL", "MAIL", "PAGE_BYTES", "SLOTS", "Page", "Slot"]

MAIL, HELD, LOCAL = 0, 1, 2
"""The lanes. LOCAL is work that is not a message: a timer, or a call posted by a device."""

PAGE_BYTES = 4096
_FIELDS = 8
SLOTS = PAGE_BYTES // 8 // _FIELDS

_IN_HAND, _WAKE, _LOCAL = 2, 3, 5
_LANE_SHIFT = 56


class Page:
    """The mapped file, which holds one `Slot` for each child."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_CREAT | os.O_EXCL if create else 0
        self._map = map_file(path, PAGE_BYTES, flags)
        self._numbers = memoryview(self._map).cast("Q")

    def slot(self, index: int) -> Slot:
        """Return the slot of one child."""
        return Slot(index, self._numbers[index * _FIELDS : (index + 1) * _FIELDS])


class Slot:
    """The part of the page that belongs to one child; each method says which side may call it."""

    __slots__ = ("_numbers", "index")

    def __init__(self, index: int, numbers: memoryview) -> None:
        self.index = index
        """Its index in the page."""
        self._numbers = numbers

    def clear(self) -> None:
        """Hub: reset all numbers for a new incarnation."""
        for field in range(_FIELDS):
            self._numbers[field] = 0

    def handled(self, lane: int) -> int:
        """Hub: return how many messages of this lane the incarnation has handled."""
        return int(self._numbers[_LOCAL if lane == LOCAL else lane])

    def in_hand(self) -> tuple[int, int] | None:
        """Hub: return lane and sequence number (from 1) of the message in hand; None: none is.

        A message is in hand from the start of its handler until the handler returns.
        """
        value = int(self._numbers[_IN_HAND])
        if not value:
            return None
        return (value >> _LANE_SHIFT) - 1, value & ((1 << _LANE_SHIFT) - 1)

    def wake_at(self, lane: int, handled: int) -> None:
        """Hub: ask the child to send `Room` once it has handled this many messages of the lane."""
        self._numbers[_WAKE + lane] = handled

    def begin(self, lane: int, number: int) -> None:
        """Child: record that the handler is called with message ``number`` of this lane."""
        # One number, so that lane and sequence number are stored at once; 0 means none.
        self._numbers[_IN_HAND] = (lane + 1) << _LANE_SHIFT | number

    def end(self) -> None:
        """Child: record that the handler has returned."""
        self._numbers[_IN_HAND] = 0

    def end_local(self, number: int) -> None:
        """Child: record that its local work ``number`` is done."""
        self._numbers[_LOCAL] = number
        self._numbers[_IN_HAND] = 0

    def settle(self, lane: int, handled: int) -> bool:
        """Child: record how many messages are handled; return whether to send `Room`."""
        numbers = self._numbers
        numbers[lane] = handled
        wake = numbers[_WAKE + lane]
        if wake and handled >= wake:
            numbers[_WAKE + lane] = 0
            return True
        return False
