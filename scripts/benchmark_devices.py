"""Devices for the benchmark: a microphone that hears the time, a loudspeaker that takes notes.

Loaded in the microphone and speaker processes, so it imports no more than they do.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

from actors.devices.base import Captured, to_ns
from actors.devices.silence import PacedCapture, PacedPlayback
from messages import Message

__all__ = ["PUT_LOG", "StampedCapture", "StampedPlayback", "stamp_of", "stamped"]

_STAMP = struct.Struct("<4sQ")
_MAGIC = b"\x07stm"
_BLOCK_MS = 40
PUT_LOG = "RTVOICE_BENCHMARK_LOG"
_PLAYED_BYTES = 960
"""The device's block: 20 ms."""


def stamped(length: int) -> bytes:
    """Return PCM that says when it was made, in each 20 ms of it."""
    block = _STAMP.pack(_MAGIC, time.monotonic_ns()).ljust(_PLAYED_BYTES, b"\0")
    return (block * (length // _PLAYED_BYTES + 1))[:length]


def stamp_of(pcm: bytes) -> int:
    """Return when PCM was made, by the first stamp in it; 0: there is none."""
    place = pcm.find(_MAGIC)
    if not 0 <= place <= len(pcm) - _STAMP.size:
        return 0
    return int(_STAMP.unpack_from(pcm, place)[1])


class StampedCapture(PacedCapture):
    """A microphone that hears the time."""

    name = "stamps"

    def __init__(self) -> None:
        super().__init__(24 * _BLOCK_MS)

    def _next(self, due: int) -> Captured:
        return Captured(b"", due - to_ns(self._block), due)

    def start(self, deliver: Any, failed: Any) -> None:
        """Stamp when the block is delivered."""
        length = 2 * self._block
        super().start(lambda block: deliver(block._replace(pcm=stamped(length))), failed)


class StampedPlayback(PacedPlayback):
    """A loudspeaker that notes when it was given what."""

    name = "stamps"

    def __init__(self) -> None:
        super().__init__()
        self._log = open(os.environ[PUT_LOG], "ab", buffering=0)  # noqa: SIM115, PTH123 - for life

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        if made := stamp_of(pcm):
            self._log.write(struct.pack("<QQ", made, time.monotonic_ns()))

    def flush(self, now_ns: int) -> list[Message]:
        """Note when the queue has been cleared."""
        self._log.write(struct.pack("<QQ", 0, time.monotonic_ns()))
        return super().flush(now_ns)
