"""Starts processes that are connected by a channel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from messages.errors import ConfigurationError
from messages.transport import forking
from messages.transport.forked import EXIT_UNKNOWN
from messages.transport.lifeline import Lifeline, arm

__all__ = [
    "Started",
    "cpu_seconds",
    "ending",
    "environment_with_us",
    "interpreter",
    "is_stopped",
    "resident_bytes",
    "spawn",
    "start_fork_server",
    "waited_s",
]

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
        f"of a session: set {_PYTHON} to the Python interpreter in which rtvoice is installed"
    )


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None: it has ended, or it is not Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process has used; None: it has ended, or it is not Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def ending(code: int | None) -> str:
    """Return how a process has ended, in one line.

    Args:
        code: Its exit code; negative: a signal; None: it has not ended yet.
    """
    if code is None:
        return "closed its channel"
    if code == EXIT_UNKNOWN:
        return "ended; how is unknown, since the fork server has ended before it"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"


def is_stopped(pid: int) -> bool:
    """Return whether a process is known to be stopped by a signal (SIGSTOP); it cannot answer."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] in (b"T", b"t")


def waited_s(pid: int) -> float:
    """Return how many seconds a process was ready to run but got no CPU; 0.0 if unknown."""
    waited_ns = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            waited_ns = max(waited_ns, int((task / "schedstat").read_text().split()[1]))
    return waited_ns / 1e9


class Started(Protocol):
    """A process, as far as `subprocess.Popen` and `Forked` are alike."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None: it runs. See `forked.EXIT_UNKNOWN`."""

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code."""

    def kill(self) -> None:
        """Send it SIGKILL."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""


def start_fork_server() -> None:
    """Start the fork server of this process, unless it has one or processes are not forked here.

    Raises:
        ConfigurationError: If there is no Python to start.
        OSError: If the system has no process or descriptor left.
    """
    forking.start(interpreter(), environment_with_us(os.environ))


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: socket.socket | None = None,
    lifeline: Lifeline | None = None,
    *,
    forks: bool = False,
    forked: bool = True,
) -> tuple[Started, socket.socket]:
    """Start ``python -m ARGUMENTS`` with a channel as its standard input.

    It is forked from the fork server if there is one. The process gets its own process group. So
    Ctrl-C does not reach it, and if its parent dies while it is stopped (SIGSTOP), the kernel ends
    it. It takes the channel with `channel.adopt_stdio`.

    Args:
        arguments: The module and its arguments.
        environment: The whole environment of the process.
        output: Receives its standard output and error; None: standard output is discarded, and
            errors go to our standard error.
        lifeline: The line on which its process group depends; None: it may outlive us.
        forks: Whether the process may itself fork children; if so, we wait for a fork server
            that is still starting.
        forked: Whether the fork server may fork the process.

    Returns:
        The process and our end of the channel.

    Raises:
        ConfigurationError: If there is no Python to start.
        OSError: If the system has no process or descriptor left.
    """
    python = interpreter()
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        process: Started | None = None
        if forked and forking.available():
            start_fork_server()
            process = _fork(arguments, environment, theirs, output, lifeline, forks=forks)
        if process is None:
            process = _popen(
                [python, "-P", "-m", *arguments], environment, theirs, output, lifeline
            )
        undo.pop_all()
    if lifeline is not None:
        lifeline.pass_on()
    return process, ours


def _fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    channel: socket.socket,
    output: socket.socket | None,
    lifeline: Lifeline | None,
    *,
    forks: bool,
) -> Started | None:
    server = forking.server_pid()
    if server is None or is_stopped(server):  # it would not answer
        return None
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123 - a descriptor is needed
        if output is not None:
            streams = [output.fileno(), output.fileno()]
        else:
            streams = [nothing.fileno(), 2 if forking.is_open(2) else nothing.fileno()]
        passed = [channel.fileno(), *streams]
        return forking.fork(arguments, environment, passed, lifeline, forks=forks, patient=forks)


def _popen(
    command: list[str],
    environment: Mapping[str, str],
    channel: socket.socket,
    output: socket.socket | None,
    lifeline: Lifeline | None,
) -> Started:
    if sys.platform == "win32":  # never tested; a process there cannot inherit a socket
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            env=dict(environment),
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
        shared = channel.share(process.pid)
        assert process.stdin is not None
        process.stdin.write(len(shared).to_bytes(4, "little") + shared)
        process.stdin.flush()
        return process
    process = subprocess.Popen(
        command,
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL if output is None else output.fileno(),
        stderr=None if output is None else output.fileno(),
        env=dict(environment),
        pass_fds=() if lifeline is None else (lifeline.theirs,),
        process_group=0,
    )
    if lifeline is not None:  # here, not in the child, which would take a while to get so far
        arm(lifeline.theirs, process.pid)
    return process
