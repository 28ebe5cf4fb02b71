"""The lease of a conversation: its processes check it before they send anything.

The host that holds a conversation writes into a mapped file until when its lease is good for sure.
Whoever sends something to the outside compares that with the clock before each write: so nothing is
sent after that moment, even if the host is frozen, dead or cut off, and cannot say so.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from messages import UserError
from messages.transport.mapped import map_file

__all__ = ["Lease", "LeaseLostError", "lease_of"]

_BYTES = 4096


class LeaseLostError(UserError):
    """The lease has run out: somebody else may hold the conversation by now."""

    def __str__(self) -> str:
        return "the lease of this conversation has run out"


class Lease:
    """The mapped file: one number, ``time.monotonic_ns()`` of the moment until which it is good.

    Args:
        path: The file.
        create: Whether to make it; it says then that the lease has run out.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_CREAT | os.O_TRUNC if create else 0
        self._map: mmap.mmap = map_file(path, _BYTES, flags)
        self._numbers = memoryview(self._map).cast("Q")

    def extend(self, until_ns: int) -> None:
        """Host: set until when it is good; 0: it is lost."""
        self._numbers[0] = until_ns

    @property
    def is_good(self) -> bool:
        """True while the lease has not run out."""
        return time.monotonic_ns() < int(self._numbers[0])


def lease_of(path: str | None) -> Lease | None:
    """Return the lease that a setting names; None: there is none, and everything may be sent.

    Raises:
        OSError: It cannot be opened.
    """
    return Lease(Path(path)) if path is not None else None
