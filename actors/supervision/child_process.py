"""The process of a component on the hub's loop: its frames, its stacks, and its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from actors.supervision.process import EXIT_GRACE_S, Process
from messages.transport.loop import Line, Loop, watch_text

__all__ = ["ChildProcess"]

_LAST_WORDS_S = 0.15
"""How long a child that hangs may take to write its stacks before it is killed. Usually it takes a
millisecond; one that is stopped writes nothing."""
_LOOK_S = 0.01
_REAP_S = 0.001
_SHOW_STACKS: int | None = getattr(signal, "SIGUSR1", None)
"""Signal on which a child writes the stacks of its threads (`actors.host.main`)."""
_FATAL = "Fatal Python error:"
_STACK_LINES = 500
_STACK_LINE_CHARS = 2000


class ChildProcess:
    """A process with a channel, from its start until it is reaped.

    The end of its channel is its death: if it has not exited `EXIT_GRACE_S` later, it is killed.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        environment: dict[str, str],
        *,
        read: Callable[[bytes], None],
        said: Callable[[str], None],
        ended: Callable[[ChildProcess], None],
    ) -> None:
        """Start the process of a component.

        Args:
            loop: The hub's loop, which calls the functions below.
            name: Name of the component.
            environment: The whole environment of the process.
            read: Called with each frame that it writes.
            said: Called with each line that it prints, other than the stacks at its end.
            ended: Called once, after it was reaped; not after `abandon`.

        Raises:
            OSError: The system has no process or descriptor left.
        """
        self._loop = loop
        self._ended = ended
        self._said = said
        self._process = Process(["actors", name], environment)
        self.pid = self._process.pid
        self.forked = self._process.forked
        """Whether the fork server has forked the process."""
        self.failure = ""
        """Why the process was killed or is about to end; empty: no reason is known."""
        self.connected = True
        """Whether the channel to the process is open."""
        self._line = Line(loop, self._process.connection, read, self._channel_ended)
        self._drain = watch_text(loop, self._process.stderr, self._hear)
        self._traceback = ""
        self._stacks: list[str] | None = None
        """Lines of the stacks that the process writes when it hangs or has a fatal error."""
        self._seen_ended = self._over = False

    @property
    def ending(self) -> str:
        """How the process ended, in one line."""
        return self._process.cause

    @property
    def cause(self) -> str:
        """Why the process ended, in one line."""
        return self.failure or self.ending

    @property
    def killed_from_outside(self) -> bool:
        """Whether SIGKILL or SIGTERM ended the process, and the supervisor had not sent it."""
        return not self.failure and self._process.killed_from_outside

    @property
    def in_order(self) -> bool:
        """Whether the process ended with exit code 0 and no `failure` is known."""
        return not self.failure and self._process.succeeded

    @property
    def trace(self) -> str:
        """Traceback or stacks of its end; empty: unknown."""
        return self._traceback or "\n".join(self._stacks or ())

    def write(self, frames: list[bytes]) -> None:
        """Send it frames, if its channel is open."""
        if self.connected:
            self._line.write(frames)

    def drain(self) -> None:
        """Read the frames that it has written."""
        self._line.drain()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.signal(number)

    def kill(self, why: str = "") -> None:
        """End it at once; the first reason given counts as its `failure`."""
        self.failure = self.failure or why
        self._process.kill()

    def kill_later(self) -> None:
        """Kill it in `EXIT_GRACE_S`, if it has not ended by then."""
        self._loop.later(EXIT_GRACE_S, self._process.kill)

    def blame(self, why: str, trace: str) -> None:
        """Record why it is about to end by itself."""
        self.failure = why
        self._traceback = trace

    def kill_hung(self, why: str) -> None:
        """Kill it, after it has written its stacks (unless it is stopped)."""
        self.failure = why
        if _SHOW_STACKS is None or self._process.stopped:
            self._process.kill()
            return
        self._stacks = []
        self._process.signal(_SHOW_STACKS)
        self._hear_out(time.monotonic() + _LAST_WORDS_S, 0)

    def is_stopped(self) -> bool:
        """Return whether it is known to be stopped by a signal."""
        return self._process.stopped

    def abandon(self) -> None:
        """Kill it and wait for its end; ``ended`` is not called."""
        self._over = True
        self._process.kill()
        self._process.wait()
        self._disconnect()

    def wait(self) -> None:
        """Wait for its end after `kill`, when the loop does not run any more."""
        self._process.wait()

    def look(self) -> bool:
        """Return whether it has ended although its channel is open, and reap it then.

        The first call that finds it ended waits for the next one, since frames may be unread. If
        the channel is still open then, another process keeps it open.
        """
        if not self.connected or not self._process.ended():
            return False
        if not self._seen_ended:
            self._seen_ended = True
            return False
        self._line.close()
        self._channel_ended("")
        return True

    def _disconnect(self) -> None:
        self.connected = False
        self._line.close()

    def _channel_ended(self, why: str) -> None:
        self.connected = False
        if why:
            self.kill(why)
        self._reap(time.monotonic() + EXIT_GRACE_S)

    def _reap(self, deadline: float) -> None:
        if self._over:
            return
        if not self._process.ended():
            if time.monotonic() > deadline:
                self._process.kill()
            self._loop.later(_REAP_S, lambda: self._reap(deadline))
            return
        self._over = True
        self._drain(0)  # what it has printed last may be unread
        self._ended(self)

    def _hear(self, line: str) -> None:
        if self._stacks is None and line.startswith(_FATAL):
            self._stacks = []
        if self._stacks is not None and len(self._stacks) < _STACK_LINES:
            self._stacks.append(line[:_STACK_LINE_CHARS])
        else:
            self._said(line)

    def _hear_out(self, deadline: float, lines: int) -> None:
        """Kill a process that hangs, once it has written its stacks."""
        said = len(self._stacks or ())
        if (said and said == lines) or time.monotonic() > deadline:
            self._process.kill()
        else:
            self._loop.later(_LOOK_S, lambda: self._hear_out(deadline, said))
