"""Starts processes that are connected by a channel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from messages.errors import ConfigurationError

__all__ = ["environment_with_us", "interpreter", "resident_bytes", "spawn", "waited_s"]

_PYTHON = "RTVOICE_PYTHON"
"""Environment variable that names another Python for the processes than our own."""
_ROOT = str(Path(__file__).resolve().parents[2])


def environment_with_us(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with our packages first in ``PYTHONPATH``.

    Otherwise another package of the same name could be imported instead.
    """
    path = base.get("PYTHONPATH")
    return {**base, "PYTHONPATH": f"{_ROOT}{os.pathsep}{path}" if path else _ROOT}


def interpreter() -> str:
    """Return the Python to start processes with: the one in `_PYTHON`, else our own.

    Raises:
        ConfigurationError: If our own cannot be started again, such as an embedded Python.
    """
    named = os.environ.get(_PYTHON, "").strip()
    if named:
        return named
    own = sys.executable
    if own and "python" in os.path.basename(own).lower():  # noqa: PTH119 - it may not be a path
        return own
    raise ConfigurationError(
        f"this program runs in {own or 'an embedded Python'}, which cannot start the processes "
        f"of a session: set {_PYTHON} to the Python in which rtvoice is installed"
    )


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None: it has ended, or it is not Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def waited_s(pid: int) -> float:
    """Return how many seconds a process was ready to run but got no CPU; 0.0 if unknown."""
    waited_ns = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            waited_ns = max(waited_ns, int((task / "schedstat").read_text().split()[1]))
    return waited_ns / 1e9


@contextlib.contextmanager
def _closed_on_error(connection: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        connection.close()
        raise


def spawn(
    arguments: Sequence[str], environment: Mapping[str, str], output: socket.socket | None = None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``python -m ARGUMENTS`` with a channel as its standard input.

    The process gets its own process group. So Ctrl-C does not reach it, and if its parent dies
    while it is stopped (SIGSTOP), the kernel ends it. It takes the channel with
    `channel.adopt_stdio`.

    Args:
        arguments: The module and its arguments.
        environment: The whole environment of the process.
        output: Receives its standard output and error; None: standard output is discarded, and
            errors go to our standard error.

    Returns:
        The process and our end of the channel.

    Raises:
        ConfigurationError: If there is no Python to start.
        OSError: If the system has no process or descriptor left.
    """
    command = [interpreter(), "-P", "-m", *arguments]
    ours, theirs = socket.socketpair()
    stdout = subprocess.DEVNULL if output is None else output.fileno()
    stderr = None if output is None else output.fileno()
    with theirs, _closed_on_error(ours):
        if sys.platform == "win32":  # never tested; a process there cannot inherit a socket
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env=dict(environment),
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
            )
            shared = theirs.share(process.pid)
            assert process.stdin is not None
            process.stdin.write(len(shared).to_bytes(4, "little") + shared)
            process.stdin.flush()
        else:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=stdout,
                stderr=stderr,
                env=dict(environment),
                process_group=0,
            )
    return process, ours
