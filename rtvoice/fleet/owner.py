"""Who holds a conversation: a process of a machine, which can be proven dead."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["boot_id", "is_dead", "is_here", "owner_of_this_process", "pid_of"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PIDS = Path("/proc/self/ns/pid")


def owner_of_this_process(name: str) -> str:
    """Return this process as an owner: host, where it runs, process id, start time.

    Args:
        name: The name of the host, without ``/``.
    """
    where = f"{boot_id()}:{_namespace()}"
    return "/".join((name.replace("/", "_"), where, str(os.getpid()), _started(os.getpid())))


def pid_of(owner: str) -> int:
    """Return the process id of an owner, which means something only where `is_here` is true."""
    return int(owner.split("/")[2])


def is_here(owner: str) -> bool:
    """Return whether an owner runs, or ran, where its process id means what it means here.

    That is in the same boot of the same machine, and in the same namespace of process ids: two
    containers have the same boot id, and process 1 of one is not that of the other.
    """
    try:
        _, where, _, _ = owner.split("/")
    except ValueError:
        return False
    return bool(boot_id()) and where == f"{boot_id()}:{_namespace()}"


def is_dead(owner: str) -> bool:
    """Return whether an owner is proven dead: its process is gone, or is another one by now.

    False where nothing is known, as of other machines and outside Linux.
    """
    if not is_here(owner):
        return False
    pid, started = pid_of(owner), owner.rpartition("/")[2]
    found = _started(pid)
    return found != started and not (found == "" and _is_hidden(pid))


def boot_id() -> str:
    """Return the id of this start of the machine; empty: it is not known."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(_PIDS.readlink()).strip("pid:[]")
    except OSError:
        return ""


def _is_hidden(pid: int) -> bool:
    """Return whether a process of somebody else is there that /proc does not show (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _started(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty: it is gone, or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
