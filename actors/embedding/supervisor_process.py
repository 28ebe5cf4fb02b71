"""The supervisor of a session as its program sees it: a process that is replaced when it dies."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from actors.embedding.direct_end import DirectEnd
from actors.embedding.loop_end import LoopEnd
from actors.embedding.outbox import Outbox
from actors.supervision.directory import make_directory, page_path
from messages import (
    FrameError,
    Message,
    RtvoiceError,
    SessionFailedError,
    SessionStarted,
    StartSession,
    SupervisorDiedError,
    SupervisorRestarted,
    decode,
)
from messages.exit_codes import EXIT_USAGE
from messages.paths import text_of_path
from messages.transport.channel import AT_ONCE, Channel
from messages.transport.spawning import Started, ending, environment_with_us, spawn

__all__ = ["SupervisorProcess"]

_RESTARTS_S = 60.0
"""Time in which the number of restarts is limited."""


class SupervisorProcess:
    """Starts a supervisor, reads what it sends, and replaces it when it dies.

    The directory of the session is the program's, so that the next supervisor finds in it what the
    one before has left.
    """

    def __init__(
        self,
        order: Callable[[str, bool], StartSession],
        outbox: Outbox,
        api_key: str | None,
        restarts: int,
    ) -> None:
        """Describe it; nothing is started yet.

        Args:
            order: Returns the first message, given the directory, and whether it resumes.
            outbox: Sends the other messages.
            api_key: The key for the service; None: that of the environment.
            restarts: How many times within a minute it is replaced.
        """
        self._order = order
        self._outbox = outbox
        self._api_key = api_key
        self._restarts = restarts
        self._directory: Path | None = None
        self._process: Started | None = None
        self._channel: Channel
        self._killed = False
        self._deaths: collections.deque[float] = collections.deque()
        """When it has died, within the last minute."""
        self._death: tuple[float, str] | None = None
        """When it has died, and why, until the next one has opened all components; None: it
        runs."""
        self.bug = ""
        """The exception that ends it, as it has said."""
        self.failure: RtvoiceError | None = None
        """Why it was not replaced; None: it was, or there was no need."""

    @property
    def pid(self) -> int | None:
        """The process id of the latest one; None: none was started."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """The exit code of the latest one; None: it runs, or none was started."""
        return self._process.returncode if self._process is not None else None

    def start(self) -> None:
        """Start the first one.

        Raises:
            ConfigurationError: If the directory of the session cannot be made.
            SessionFailedError: If no process can be started.
        """
        self._directory = make_directory()
        try:
            self._spawn(resumed=False)
        except BaseException:
            self.clean_up()
            raise

    def kill(self) -> None:
        """Kill it, also one that is being started; it is not replaced."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def wait(self) -> int:
        """Wait for the end of the latest one; return its exit code."""
        assert self._process is not None
        self._outbox.detach()
        code = self._process.wait()
        self._channel.close()
        return code

    def clean_up(self) -> None:
        """Remove the directory: one that was killed has left it."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def hang_up(self) -> None:
        """End the channel, as the death of the program does."""
        self._channel.close()

    def messages(
        self, may_resume: Callable[[], bool], problem: Exception | None = None
    ) -> Iterator[Message]:
        """Yield what one supervisor after the other sends, until the session is over.

        Args:
            may_resume: Returns whether one that has died is to be replaced.
            problem: What `arrived` has raised; None: nothing.
        """
        while True:
            broken = ""
            try:
                if problem is not None:
                    raise problem
                while True:
                    yield decode(self._channel.read())
            except EOFError:
                pass
            except FrameError as error:
                broken = str(error)
                assert self._process is not None
                self._process.kill()
            problem = None
            if not self._replace(broken, may_resume):
                return

    def arrived(self, *, reads: bool, direct: DirectEnd) -> Iterator[Message]:
        """Yield what has arrived from the supervisor and straight, without blocking.

        Args:
            reads: Whether to read from the channel first; False: only what was read before.
            direct: Where messages come straight.

        Raises:
            EOFError: If it has ended.
            FrameError: If it sends what is not a frame.
        """
        if reads:
            with contextlib.suppress(BlockingIOError):
                self._channel.fill(AT_ONCE or 0)
        # First what has come straight: it was sent before what its sender sent the supervisor.
        yield from direct.drain()
        while self._channel.frames:
            frame = self._channel.frames.popleft()
            if not direct.was_ahead(frame):
                yield decode(frame)

    def watch(self, loop: asyncio.AbstractEventLoop, readable: Callable[[], None]) -> LoopEnd:
        """Have a loop call ``readable`` when the supervisor has sent something; on its thread.

        Raises:
            NotImplementedError: If the loop cannot watch sockets.
            OSError: If the supervisor has been hung up.
        """
        return LoopEnd(loop, self._channel, readable)

    def direct(
        self, loop: asyncio.AbstractEventLoop, tags: Iterable[int], readable: Callable[[], None]
    ) -> DirectEnd:
        """Have a loop call ``readable`` when a component has sent something straight.

        Args:
            loop: The running loop; this is called on its thread.
            tags: The types to receive.
            readable: What to call.
        """
        assert self._directory is not None
        assert self.pid is not None
        return DirectEnd(page_path(self._directory, self.pid), tags, loop, readable)

    def restarted(self, message: SessionStarted) -> SupervisorRestarted | None:
        """Return what to publish in place of the start of a session that goes on; None: it begins.

        Args:
            message: What the supervisor has sent when all components were open.
        """
        if self._death is None:
            return None
        (died, cause), self._death = self._death, None
        ms = round((time.monotonic() - died) * 1000, 1)
        return SupervisorRestarted(message.pids["supervisor"], cause, ms, message.items)

    def _spawn(self, *, resumed: bool) -> None:
        environment = environment_with_us(os.environ)
        if self._api_key is not None:
            environment["RTVOICE_API_KEY"] = self._api_key
        try:
            self._process, ours = spawn(["rtvoice.peer"], environment, forks=True)
        except OSError as error:
            why = f"the supervisor cannot start: no process can be started: {error}"
            raise SessionFailedError(why) from error
        if self._killed:  # while the process was started
            self.kill()
        self._channel = Channel(ours)
        with contextlib.suppress(OSError):  # it has ended; the reader notices
            self._channel.write(self._order(text_of_path(str(self._directory)), resumed))
        self._outbox.attach(self._channel)

    def _replace(self, broken: str, may_resume: Callable[[], bool]) -> bool:
        """Start another one; return False if that is not to be."""
        code = self.wait()
        if self._killed or code == EXIT_USAGE or not may_resume():
            return False
        now, cause = time.monotonic(), self.bug or broken or ending(code)
        self.bug = ""
        while self._deaths and now - self._deaths[0] > _RESTARTS_S:
            self._deaths.popleft()
        self._deaths.append(now)
        if len(self._deaths) > self._restarts:
            why = f"the supervisor has ended: {cause}"
            if self._restarts:
                why = f"{why}; it has died {len(self._deaths)} times within {_RESTARTS_S:g} s"
            self.failure = SupervisorDiedError(why)
            return False
        self._death = self._death or (now, cause)
        try:
            self._spawn(resumed=True)
        except RtvoiceError as error:
            self.failure = error
            return False
        return True
