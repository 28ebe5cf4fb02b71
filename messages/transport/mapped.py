"""Mapped files: numbers and audio that survive the process, and that another one can read."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["map_file"]


def map_file(
    path: Path, size: int, flags: int = 0, *, access: int = mmap.ACCESS_DEFAULT
) -> mmap.mmap:
    """Map the beginning of a file.

    With O_CREAT, a file that is missing or too short is filled with zeros first. They are written,
    not left as a hole: on a full disk, a store into a mapped hole kills the process with SIGBUS.

    Args:
        path: The file.
        size: Bytes to map.
        flags: O_CREAT, O_EXCL and O_TRUNC, as in ``os.open``.
        access: ACCESS_DEFAULT of ``mmap`` (to read and write) or ACCESS_READ.

    Raises:
        OSError: The file cannot be opened or filled.
        ValueError: Without O_CREAT, the file is too short.
    """
    descriptor = os.open(path, os.O_RDWR | flags | getattr(os, "O_BINARY", 0), 0o600)
    try:
        if flags & os.O_CREAT and os.fstat(descriptor).st_size < size:
            _fill(descriptor, size)
        return mmap.mmap(descriptor, size, access=access)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, size: int) -> None:
    while size:  # if the disk is nearly full, the first write is short and the next one raises
        size -= os.write(descriptor, bytes(size))
