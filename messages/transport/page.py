"""The accounting page: what each child has begun and handled, readable after its death.

One small mapped file a session, a slot a child, eight unsigned 64-bit numbers a slot. The child
writes with plain stores, which survive any way of dying; the hub reads. A message is accounted in
one of two lanes: ordinary mail, and held messages that are done later (`Rule.held`).
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["HELD", "LOCAL", "MAIL", "PAGE_BYTES", "SLOTS", "Page", "Slot"]

MAIL, HELD, LOCAL = 0, 1, 2
"""Lanes. LOCAL is work of the actor's own (a timer, something a device told it)."""

PAGE_BYTES = 4096
_FIELDS = 8
SLOTS = PAGE_BYTES // 8 // _FIELDS

_IN_HAND, _WAKE, _LOCAL = 2, 3, 5
_LANE_SHIFT = 56


class Page:
    """The mapped file."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.write(descriptor, bytes(PAGE_BYTES))  # a hole, on a full disk, kills who writes
            self._map = mmap.mmap(descriptor, PAGE_BYTES)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("Q")

    def slot(self, index: int) -> Slot:
        """Return one child's numbers."""
        return Slot(index, self._numbers[index * _FIELDS : (index + 1) * _FIELDS])


class Slot:
    """The numbers of one child."""

    __slots__ = ("_numbers", "index")

    def __init__(self, index: int, numbers: memoryview) -> None:
        self.index = index
        """Its number in the page."""
        self._numbers = numbers

    def clear(self) -> None:
        """Hub: a new incarnation counts from zero."""
        for field in range(_FIELDS):
            self._numbers[field] = 0

    def handled(self, lane: int) -> int:
        """Hub: how much of this lane the incarnation has handled."""
        return int(self._numbers[_LOCAL if lane == LOCAL else lane])

    def in_hand(self) -> tuple[int, int] | None:
        """Hub: (lane, sequence number) of what was begun and has not returned; from 1."""
        value = int(self._numbers[_IN_HAND])
        if not value:
            return None
        return (value >> _LANE_SHIFT) - 1, value & ((1 << _LANE_SHIFT) - 1)

    def wake_at(self, lane: int, handled: int) -> None:
        """Hub: ask the child to say `Room` once it has handled this many."""
        self._numbers[_WAKE + lane] = handled

    def begin(self, lane: int, number: int) -> None:
        """Child: the handler is called with message ``number`` of this lane."""
        self._numbers[_IN_HAND] = (lane + 1) << _LANE_SHIFT | number

    def end(self) -> None:
        """Child: the handler has returned."""
        self._numbers[_IN_HAND] = 0

    def end_local(self, number: int) -> None:
        """Child: work of its own is done."""
        self._numbers[_LOCAL] = number
        self._numbers[_IN_HAND] = 0

    def settle(self, lane: int, handled: int) -> bool:
        """Child: so many are handled. Return whether the hub wants to be woken."""
        numbers = self._numbers
        numbers[lane] = handled
        wake = numbers[_WAKE + lane]
        if wake and handled >= wake:
            numbers[_WAKE + lane] = 0
            return True
        return False
