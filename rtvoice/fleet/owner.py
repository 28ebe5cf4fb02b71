"""Who holds a conversation: a process of a machine, which can be proven dead."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_dead", "owner_of_this_process"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def owner_of_this_process(name: str) -> str:
    """Return this process as an owner: host, boot of the machine, process id, start time.

    Args:
        name: The name of the host, without ``/``.
    """
    return "/".join((name.replace("/", "_"), _boot_id(), str(os.getpid()), _started(os.getpid())))


def is_dead(owner: str) -> bool:
    """Return whether an owner is proven dead: same boot, and its process is gone or another one.

    False where nothing is known, as of other machines and outside Linux.
    """
    try:
        _, boot, pid, started = owner.split("/")
    except ValueError:
        return False
    return bool(boot) and boot == _boot_id() and _started(int(pid)) != started


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty: it is gone, or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
