"""Processes that are known by a variable of their environment, and their end.

A child inherits the variable, and so do its children: they are found in /proc wherever they were
moved to. A component has a process group of its own, and what a killed program has started belongs
to init. Where there is no /proc, as on macOS, nothing is found.

Run as a program, it waits for the end of a process and ends all of these then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

__all__ = ["end", "started_by"]

_PATIENCE_S = 5.0


def started_by(name: str, value: str | None = None) -> dict[int, str]:
    """Return the processes that have a variable, and their command lines.

    Args:
        name: of the variable.
        value: that it must have; None: any.
    """
    wanted = f"{name}={value or ''}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(v == wanted if value else v.startswith(wanted) for v in variables):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = command.decode(errors="replace").strip()
    found.pop(os.getpid(), None)
    return found


def end(name: str, value: str | None = None) -> None:
    """Kill these processes, and what they start meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := started_by(name, value)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # the kernel tells nobody but a parent


if __name__ == "__main__":
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
    end(sys.argv[2])
