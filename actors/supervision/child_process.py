"""The process of a component on the hub's loop: its frames, its last words, and its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from actors.supervision.process import EXIT_GRACE_S, Process
from messages.transport.loop import Line, Loop, watch_text

__all__ = ["ChildProcess"]

_LAST_WORDS_S = 0.15
"""How long a child that hangs has to say where, before it is killed; one that is stopped says
nothing, and one that runs has usually done so after a millisecond."""
_LOOK_S = 0.01
_REAP_S = 0.001
_SHOW_STACKS: int | None = getattr(signal, "SIGUSR1", None)
"""A child answers it with the stacks of its threads (`actors.host.main`)."""
_FATAL = "Fatal Python error:"
_STACK_LINES = 500
_STACK_LINE_CHARS = 2000


class ChildProcess:
    """A process with a channel, from its start until it is reaped; it is not used again.

    It is over when its channel ends: what does not end within a second of that is killed.
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
            loop: Calls everything that follows.
            name: Of the component.
            environment: The whole environment of the process.
            read: Takes each frame that it writes.
            said: Takes each line that it prints, but for the stacks that it shows at its end.
            ended: Called once, when it was reaped; not after `abandon`.

        Raises:
            OSError: the system gives us no process or no descriptor.
        """
        self._loop = loop
        self._ended = ended
        self._said = said
        self._process = Process(["actors", name], environment)
        self.pid = self._process.pid
        self.failure = ""
        """Why it was killed, or is about to end; empty: for no reason of ours."""
        self.connected = True
        """Whether its channel has not ended."""
        self._line = Line(loop, self._process.connection, read, self._channel_ended)
        self._drain = watch_text(loop, self._process.stderr, self._hear)
        self._traceback = ""
        self._stacks: list[str] | None = None
        """What it writes of its stacks, once it hangs or has had a fatal error."""
        self._seen_ended = self._over = False

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return self._process.cause

    @property
    def cause(self) -> str:
        """Why it ended, in words."""
        return self.failure or self.ending

    @property
    def killed_from_outside(self) -> bool:
        """Whether it was ended by a signal that is not ours, nor its own by mistake."""
        return not self.failure and self._process.killed_from_outside

    @property
    def in_order(self) -> bool:
        """Whether it ended by itself, with exit code 0."""
        return not self.failure and self._process.succeeded

    @property
    def trace(self) -> str:
        """Where it was when it ended, as far as that is known."""
        return self._traceback or "\n".join(self._stacks or ())

    def write(self, frames: list[bytes]) -> None:
        """Send it frames, if its channel has not ended."""
        if self.connected:
            self._line.write(frames)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.signal(number)

    def kill(self, why: str = "") -> None:
        """End it at once, with a reason if that is a failure; the first counts."""
        self.failure = self.failure or why
        self._process.kill()

    def kill_later(self) -> None:
        """End it if it does not end by itself."""
        self._loop.later(EXIT_GRACE_S, self._process.kill)

    def blame(self, why: str, trace: str) -> None:
        """Note why it is about to end by itself."""
        self.failure = why
        self._traceback = trace

    def kill_hung(self, why: str) -> None:
        """End it, once it has said where it is stuck (if it is not stopped)."""
        self.failure = why
        if _SHOW_STACKS is None or self._process.stopped:
            self._process.kill()
            return
        self._stacks = []
        self._process.signal(_SHOW_STACKS)
        self._hear_out(time.monotonic() + _LAST_WORDS_S, 0)

    def abandon(self) -> None:
        """End it and wait for that; ``ended`` is not called."""
        self._over = True
        self._process.kill()
        self._process.wait()
        self._disconnect()

    def wait(self) -> None:
        """Wait for the end of what was killed, where no loop looks at it any more."""
        self._process.wait()

    def look(self) -> bool:
        """Return whether it has ended although its channel has not, and is reaped now.

        Seen once, what it has written may not have been read; when it is seen again, something
        else keeps the channel open.
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
        self._drain(0)  # its last words may be unread
        self._ended(self)

    def _hear(self, line: str) -> None:
        if self._stacks is None and line.startswith(_FATAL):
            self._stacks = []
        if self._stacks is not None and len(self._stacks) < _STACK_LINES:
            self._stacks.append(line[:_STACK_LINE_CHARS])
        else:
            self._said(line)

    def _hear_out(self, deadline: float, lines: int) -> None:
        """End a process that hangs, once it has nothing more to say."""
        said = len(self._stacks or ())
        if (said and said == lines) or time.monotonic() > deadline:
            self._process.kill()
        else:
            self._loop.later(_LOOK_S, lambda: self._hear_out(deadline, said))
