"""The operating-system process of a child: how it is started and ended, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

from messages.transport.forked import EXIT_UNKNOWN, Forked
from messages.transport.lifeline import Lifeline
from messages.transport.spawning import ending, is_stopped, spawn

__all__ = ["EXIT_GRACE_S", "Process"]

EXIT_GRACE_S = 1.0
"""A child is killed this long after its channel has ended, or after it was told to stop."""


class Process:
    """An operating-system process with a channel, and with a pipe for its standard error.

    Only `wait` blocks. The process is reaped once `ended` has returned True. The kernel kills it,
    and what it has started, as soon as our process ends.
    """

    def __init__(
        self, arguments: list[str], environment: dict[str, str], *, forked: bool = True
    ) -> None:
        """Start ``python -m ARGUMENTS``.

        Args:
            arguments: The module and its arguments.
            environment: The whole environment of the process.
            forked: Whether the fork server may fork the process.

        Raises:
            OSError: The system has no process or descriptor left.
        """
        self._lifeline = Lifeline()
        self.stderr, their_stderr = socket.socketpair()
        try:
            with their_stderr:
                self._popen, self.connection = spawn(
                    arguments, environment, their_stderr, self._lifeline, forked=forked
                )
        except OSError:
            self.stderr.close()
            self._lifeline.close()
            raise
        self.pid = self._popen.pid
        self.forked = isinstance(self._popen, Forked)
        """Whether the fork server has forked the process."""
        self._group_ended = False

    def kill(self) -> None:
        """Send SIGKILL to the process (on Windows: terminate it)."""
        self._popen.kill()  # does nothing to a process that has been reaped

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._popen.send_signal(number)

    def ended(self) -> bool:
        """Return whether the process has ended; if so, reap it."""
        if self._popen.poll() is None:
            return False
        self._end_group()
        return True

    def wait(self) -> None:
        """Wait up to `EXIT_GRACE_S` for the end of the process, after `kill`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(EXIT_GRACE_S)
        self._end_group()

    def _end_group(self) -> None:
        """Kill the processes that it has started and left behind, such as workers of a tool.

        Once only: the kernel may reuse the number of the group when none of them lives any more.
        """
        if hasattr(os, "killpg") and not self._group_ended:
            self._group_ended = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._lifeline.close()

    @property
    def stopped(self) -> bool:
        """Whether the process is known to be stopped (SIGSTOP), so that it cannot answer."""
        return is_stopped(self.pid)

    @property
    def killed_from_outside(self) -> bool:
        """Whether SIGKILL or SIGTERM ended the process: no program sends itself these by mistake.

        An unknown exit code counts as such a signal.
        """
        outside = (-signal.SIGTERM, -getattr(signal, "SIGKILL", 9), EXIT_UNKNOWN)
        return self._popen.returncode in outside

    @property
    def succeeded(self) -> bool:
        """Whether the process has ended with exit code 0."""
        return self._popen.returncode == 0

    @property
    def cause(self) -> str:
        """How it ended, in one line."""
        return ending(self._popen.returncode)
