"""A process that a fork server has forked for us."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time

import msgspec

from messages.transport.fork_protocol import ANSWER_BYTES, Answer
from messages.transport.lifeline import Lifeline

__all__ = ["EXIT_UNKNOWN", "Forked", "can_be_read"]

EXIT_UNKNOWN = 256
"""In place of an exit code: the fork server, which would know it, has ended before."""


class Forked:
    """A forked process, with the interface of `subprocess.Popen` that is needed here."""

    def __init__(
        self, pid: int, pidfd: int, answers: socket.socket, lifeline: Lifeline | None
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lifeline = lifeline
        """Held as long as we live."""
        self._pidfd = pidfd
        # A bare descriptor: a socket would warn if it is freed before we are, in a cycle.
        self._answers = answers.detach()
        os.set_blocking(self._answers, False)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: If it still runs.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        with self._lock, contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _look(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        answers = self._answers
        if answers >= 0 and can_be_read(answers, deadline):
            with self._lock:
                self._hear()
        pidfd = self._pidfd
        if self.returncode is None and self._answers < 0 and pidfd >= 0:
            # The fork server has ended; the process may live on.
            if can_be_read(pidfd, deadline):
                with self._lock:
                    self._ended(EXIT_UNKNOWN)
        return self.returncode

    def _hear(self) -> None:
        """Read the exit code; the lock is held."""
        if self._answers < 0:
            return
        try:
            data = _received(self._answers)
        except BlockingIOError:
            return
        descriptor, self._answers = self._answers, -1
        os.close(descriptor)
        if data:
            self._ended(msgspec.msgpack.decode(data, type=Answer).code)

    def _ended(self, code: int | None) -> None:
        """Note the exit code, unless another thread has; the lock is held."""
        if self.returncode is None:
            self.returncode = code
            descriptor, self._pidfd = self._pidfd, -1
            os.close(descriptor)
            if self._lifeline is not None:
                self._lifeline.close()

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self._answers >= 0:
            os.close(self._answers)


def _received(answers: int) -> bytes:
    """Return an answer; empty: the fork server has ended.

    Raises:
        BlockingIOError: If there is none yet.
    """
    with contextlib.suppress(ConnectionResetError):
        return os.read(answers, ANSWER_BYTES)
    # The child has ended without reading its environment: the kernel reports that first.
    return os.read(answers, ANSWER_BYTES)


def can_be_read(
    thing: socket.socket | int, deadline: float | None, *, unless: socket.socket | None = None
) -> bool:
    """Wait until there is something to read, or until the other socket has no peer any more."""
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    poll = select.poll()
    poll.register(thing, select.POLLIN)
    if unless is not None:
        poll.register(unless, 0)  # no events: hang-up only
    return bool(poll.poll(None if timeout is None else timeout * 1000))
