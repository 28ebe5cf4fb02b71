"""Finding processes by a variable of their environment, and ending them.

A child inherits the variable, and so do its children: they are found in /proc wherever they were
moved to. A component has a process group of its own, and what a killed program has started belongs
to init. Where there is no /proc, as on macOS, nothing is found.

Run as a program, it waits for the end of a process, and then ends all of these.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

__all__ = ["end", "started_by"]

_PATIENCE_S = 5.0


def started_by(name: str, value: str | None = None) -> dict[int, str]:
    """Return the processes that have a variable, and their command lines.

    Args:
        name: of the variable.
        value: that it must have; None: any.
    """
    start = b"\0" + f"{name}={value or ''}".encode()
    wanted = start + b"\0" if value else start
    found = {}
    for pid in _processes():
        with contextlib.suppress(OSError):  # it has just ended
            if wanted in b"\0" + _read(pid, "environ"):
                command = _read(pid, "cmdline").replace(b"\0", b" ")
                found[int(pid)] = command.decode(errors="replace").strip()
    found.pop(os.getpid(), None)
    return found


def _processes() -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir("/proc") as entries:
        return [entry.name for entry in entries if entry.name.isdigit()]
    return []


def _read(pid: str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - of each process, after each test
        return file.read()


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
