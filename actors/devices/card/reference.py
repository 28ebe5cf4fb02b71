"""The reference ring: what the loudspeaker plays, and when it is heard, for the echo canceller.

The speaker's device callback writes it and the microphone reads it, in a memory-mapped file of the
session. No message is sent, and the ring outlives both processes. It imports no numpy, because the
callback of a sound card must not wait for it.

Layout (native byte order)::

    page 0     u64 written   number of blocks written so far; stored last
               u64 run       number of the current writer; a new process or device is a new run
               u32 bytes     length of the name
               ...           name of the device, UTF-8
    slots      512 of 1 KiB, block k in slot k % 512:
               u64 sequence  k + 1; 0 while the slot is being written
               u64 heard_ns  time.monotonic_ns() at which the first sample is heard
               u32 samples
               u32 run
               u32 late      1: the card reported an underrun before this block
               u32 unused
               int16 mono at 24 kHz

A reader skips a slot whose sequence differs from the expected one before or after the copy.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

from messages.transport.mapped import map_file

__all__ = ["NAME", "Played", "ReferenceReader", "ReferenceWriter"]

NAME = "speaker.reference"
_PAGE, _SLOTS, _SLOT = 4096, 512, 1024
_BYTES = _PAGE + _SLOTS * _SLOT
_HEAD = struct.Struct("=QQIIII")
_SEQUENCE = struct.Struct("=Q")
_LARGEST = (_SLOT - _HEAD.size) // 2
"""Samples that fit into a slot: 20 ms."""
_NAME_AT, _NAME_BYTES = 16, 1024
_NS_PER_SAMPLE = 1e9 / 24_000


class Played(NamedTuple):
    """A block that the loudspeaker was given."""

    heard_ns: int
    """``time.monotonic_ns()`` at which its first sample is heard, by the card's clock."""
    pcm: bytes
    """int16 little-endian mono, 24 kHz; with volume, fades and silence."""
    run: int
    """Number of its writer: it changes with each process and device."""
    late: bool
    """Whether the count lacks audio before this block: the card reported an underrun, or the
    reader missed blocks."""


class ReferenceWriter:
    """The speaker's end.

    Args:
        directory: The directory of the session.
        device: Name of the output device.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, directory: Path, device: str) -> None:
        path = directory / NAME
        if not path.exists():
            # Filled and then renamed: no reader ever maps a file that is too short.
            new = path.with_suffix(".new")
            map_file(new, _BYTES, os.O_CREAT | os.O_TRUNC).close()
            new.replace(path)
        self._map = map_file(path, _BYTES)
        self._written: int = _SEQUENCE.unpack_from(self._map, 0)[0]
        self._run = _SEQUENCE.unpack_from(self._map, 8)[0] + 1
        name = device.encode()[:_NAME_BYTES]
        struct.pack_into(f"=I{len(name)}s", self._map, _NAME_AT, len(name), name)
        _SEQUENCE.pack_into(self._map, 8, self._run)

    def write(self, pcm: bytes, heard_ns: int, *, late: bool = False) -> None:
        """Append a block; called on the device's thread."""
        for at in range(0, len(pcm), 2 * _LARGEST):
            part = pcm[at : at + 2 * _LARGEST]
            self._write(part, heard_ns + int(at // 2 * _NS_PER_SAMPLE), late and not at)

    def _write(self, pcm: bytes, heard_ns: int, late: bool) -> None:
        at = _PAGE + self._written % _SLOTS * _SLOT
        head = (heard_ns, len(pcm) // 2, self._run & 0xFFFF_FFFF, late, 0)
        _HEAD.pack_into(self._map, at, 0, *head)
        self._map[at + _HEAD.size : at + _HEAD.size + len(pcm)] = pcm
        self._written += 1
        _SEQUENCE.pack_into(self._map, at, self._written)
        _SEQUENCE.pack_into(self._map, 0, self._written)

    def close(self) -> None:
        """Unmap the file; the file itself remains."""
        self._map.close()


class ReferenceReader:
    """The microphone's end. The file may appear later, with the first sound card that plays."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._map: mmap.mmap | None = None
        self._next = -1
        """The block to read next; -1: reading begins with the newest."""
        self._missed = False

    @property
    def device(self) -> str:
        """Name of the device that plays, or has played last; empty: none has."""
        if not self._is_open():
            return ""
        assert self._map is not None
        size = min(struct.unpack_from("=I", self._map, _NAME_AT)[0], _NAME_BYTES)
        return bytes(self._map[_NAME_AT + 4 : _NAME_AT + 4 + size]).decode(errors="replace")

    def read(self) -> list[Played]:
        """Return the blocks that were written since the last call, oldest first."""
        if not self._is_open():
            return []
        assert self._map is not None
        written = _SEQUENCE.unpack_from(self._map, 0)[0]
        first = self._next if self._next >= 0 else max(written - 1, 0)
        if first < written - _SLOTS // 2:  # the writer may be about to overwrite what is older
            first, self._missed = written - 1, True
        blocks = []
        for number in range(first, written):
            block = self._block(number)
            if block is not None:
                blocks.append(block)
        self._next = written
        return blocks

    def _block(self, number: int) -> Played | None:
        assert self._map is not None
        at = _PAGE + number % _SLOTS * _SLOT
        sequence, heard_ns, samples, run, late, _ = _HEAD.unpack_from(self._map, at)
        begin = at + _HEAD.size
        pcm = bytes(self._map[begin : begin + 2 * min(samples, _LARGEST)])
        if sequence != number + 1 or _SEQUENCE.unpack_from(self._map, at)[0] != sequence:
            self._missed = True
            return None
        block = Played(heard_ns, pcm, run, bool(late) or self._missed)
        self._missed = False
        return block

    def _is_open(self) -> bool:
        if self._map is None:
            try:
                self._map = map_file(self._path, _BYTES, access=mmap.ACCESS_READ)
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Unmap the file."""
        if self._map is not None:
            self._map.close()
            self._map = None
