"""What Linux tells about a process from outside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["children", "command", "descriptors", "environment", "memory", "parent", "state"]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def state(pid: int) -> str:
    """Return a letter, such as S for one that sleeps and Z for one that is not reaped."""
    return _stat(pid)[0]


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def children(pid: int) -> list[int]:
    """Return its child processes, and those that are not reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


def descriptors(pid: int) -> int:
    """Return how many descriptors it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def memory(pid: int) -> bytes:
    """Return all of its memory that can be written to."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:  # noqa: PTH123
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(edge, 16) for edge in span.split("-"))
            if rights[:2] == "rw":
                file.seek(start)
                with contextlib.suppress(OSError):  # that of a device
                    found.append(file.read(end - start))
    return b"".join(found)
