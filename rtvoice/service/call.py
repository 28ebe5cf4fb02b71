"""One call: a conversation with a caller at a socket, which may be lost and replaced."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from messages import (
    AssistantTranscript,
    Interrupted,
    NotRunningError,
    PlaybackEnded,
    RtvoiceError,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice.agent import Agent
from rtvoice.service.commands import Stop
from rtvoice.service.conversation import Conversation
from rtvoice.service.errors import Draining
from rtvoice.service.feed import Feed
from rtvoice.service.frames import (
    FAILED,
    GOING_AWAY,
    NORMAL,
    RESTART,
    BadFrameError,
    Command,
    HungUp,
    Wire,
)
from rtvoice.service.line import Line
from rtvoice.service.logs import session_id
from rtvoice.service.socket import Closed, Socket
from rtvoice.service.tokens import Token

__all__ = ["Call", "Kept"]

_logger = logging.getLogger("rtvoice.service")

_KEPT_S = 5.0
"""How much of what a caller says while the conversation starts is kept: the newest."""
_PIECE_S = 0.04
"""Length of the pieces in which sound is passed on: that of the microphone's blocks, which waits
for a whole one anyway. Callers send 20 ms at a time; each message wakes three threads."""
_AHEAD_S = 5.0
"""How far a caller's sound may be ahead of real time before it is not read any more."""


class Kept:
    """What a caller has said before the conversation has started."""

    def __init__(self, sample_rate: int, most_s: float = _KEPT_S) -> None:
        self._most = int(most_s * sample_rate) * 2
        self._pieces: collections.deque[bytes] = collections.deque()
        self._size = 0

    def add(self, pcm: bytes) -> None:
        """Keep a piece; of more than five seconds the oldest are dropped."""
        self._pieces.append(pcm)
        self._size += len(pcm)
        while self._size > self._most:
            self._size -= len(self._pieces.popleft())

    def take(self) -> list[bytes]:
        """Return all of it, and keep nothing."""
        pieces = list(self._pieces)
        self._pieces.clear()
        self._size = 0
        return pieces


class Call:
    """A call from its first socket until the conversation is over.

    It has more attributes than other classes: one for each thing that a caller's socket,
    conversation and token can be waiting for.

    Args:
        conversation: The conversation, whose agent has `line` as its output.
        line: The caller as a device.
        token: With it a lost caller comes again.
        keep_s: How long a lost caller is waited for.
        hold: Starts the conversation, and waits for its end.
        over: Called at the end.
        feed: What the caller is shown; None: no view was asked for.
    """

    def __init__(
        self,
        conversation: Conversation,
        line: Line,
        token: Token,
        keep_s: float,
        hold: Callable[[Conversation], AbstractAsyncContextManager[Agent]],
        over: Callable[[Call], None],
        feed: Feed | None = None,
    ) -> None:
        self.conversation = conversation
        self.token = token
        self.sample_rate = line.sample_rate
        self._line = line
        self._keep_s = keep_s
        self._hold = hold
        self._on_over = over
        self._feed = feed
        self._kept = Kept(line.sample_rate)
        self._pieces: list[bytes] = []
        """Sound that is not passed on yet, because it is shorter than `_PIECE_S`."""
        self._waiting = 0
        """How many bytes these are."""
        self._enough = int(_PIECE_S * line.sample_rate) * 2
        self._socket: Socket | None = None
        self._wire: Wire | None = None
        self._lost: asyncio.TimerHandle | None = None
        self._began = time.monotonic()
        self._heard_s = 0.0
        self._over = asyncio.Event()
        self._failure = ""
        self._abandoned = ""
        """Why it goes on elsewhere; empty: it does not."""
        for kind in (
            *(Turn, AssistantTranscript, UserSpeechStarted, UserSpeechStopped),
            *(Interrupted, PlaybackEnded),
        ):
            conversation.agent.event_bus.subscribe(kind, self._tell)
        self._task = asyncio.ensure_future(self._run())

    @property
    def has_view(self) -> bool:
        """Whether the caller is shown a view."""
        return self._feed is not None

    @property
    def is_lost(self) -> bool:
        """Whether the caller is waited for."""
        return self._socket is None and not self._over.is_set()

    @property
    def failure(self) -> str:
        """Why the conversation has failed; empty: it has not."""
        return self._failure

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended."""
        return self._over.is_set()

    # -- the conversation ---------------------------------------------------------------------

    async def _run(self) -> None:
        session_id.set(self.conversation.id)  # this task serves no other
        try:
            async with self._hold(self.conversation) as agent:
                if pieces := self._kept.take():
                    agent._capture_at(pieces, self.sample_rate)  # noqa: SLF001 - made for this
                if self._socket is None:  # the caller was lost while it started
                    self.conversation.state = "lost"
                await self._say("started")
        except Draining:  # since it got its place
            self.conversation.ended_by = "drained"
        except RtvoiceError as error:
            self._failure = str(error)
            _logger.error("conversation %s failed: %s", self.conversation.id, error)
        except asyncio.CancelledError:
            pass  # the caller has hung up while it started
        except Exception:  # a bug: the caller is told something
            self._failure = "the conversation has failed; the log of the service says why"
            _logger.exception("conversation %s failed", self.conversation.id)
        finally:
            self._over.set()
            if self._feed is not None:
                self._feed.close()
            if self._lost is not None:
                self._lost.cancel()
            self._on_over(self)

    def end(self, why: str) -> None:
        """End the conversation; one that has not started is not started any more."""
        if self.conversation.state in ("waiting", "starting"):
            self.conversation.ended_by = self.conversation.ended_by or why
            self._task.cancel()
        else:
            self.conversation.end(why)

    def expect(self) -> None:
        """Wait for the caller, who has not come yet or was lost; after `keep_s`, end."""
        if self._socket is None and self._lost is None:
            loop = asyncio.get_running_loop()
            self._lost = loop.call_later(self._keep_s, self.end, "lost")

    def abandon(self, why: str, text: str) -> None:
        """End it at once: its processes are killed, and its caller is told to come again.

        Args:
            why: As for the metrics.
            text: The reason that the caller is told, with close code 1012.
        """
        self.conversation.ended_by = why
        self._abandoned = text
        self._task.cancel()
        self.conversation.agent._kill()  # noqa: SLF001 - made for this

    # -- the caller ---------------------------------------------------------------------------

    async def attend(self, socket: Socket, wire: Wire, *, resumed: bool) -> None:
        """Serve a socket until it ends, or the conversation does.

        Raises:
            BadFrameError: The caller has sent what is not allowed; the conversation ends.
        """
        session_id.set(self.conversation.id)  # the task of a socket serves no other conversation
        await self._take_up(socket, wire)
        token = {"token": self.token.text} if wire.resumes else {}
        about = {"session": self.conversation.id, "rate": self.sample_rate, "resumed": resumed}
        view = {"view": self._feed.scope} if self._feed is not None else {}
        await socket.send(wire.tell("hello", **about, **token, **view))
        if self._feed is not None:
            self._feed.attach(lambda fields: socket.send(wire.tell("view", **fields)))
        reading = asyncio.ensure_future(self._read(socket, wire))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
            if self._socket is not socket:  # the caller has come again before this one was lost
                return
            if reading.done():
                self._leave(reading.exception())
            else:
                await self._say_goodbye(socket)
        finally:
            reading.cancel()
            over.cancel()

    async def _take_up(self, socket: Socket, wire: Wire) -> None:
        if self._lost is not None:
            self._lost.cancel()
            self._lost = None
        before, self._socket, self._wire = self._socket, socket, wire
        if self.conversation.state == "lost":
            self.conversation.state = "running"
        if before is not None:
            with contextlib.suppress(NotRunningError):
                self.conversation.agent.interrupt()  # its sound is on the way to the other socket
        self._line.attach(socket, wire)
        if before is not None:
            await before.close(NORMAL, "the conversation goes on at another socket")

    async def _read(self, socket: Socket, wire: Wire) -> None:
        """Read until the caller hangs up; how a socket ends otherwise is raised."""
        while not isinstance(received := wire.received(await socket.frame()), HungUp):
            if isinstance(received, Stop):
                self.end("hung_up")
            elif isinstance(received, Command):
                await self._obey(received)
            elif received:
                self._hear(received)
                ahead_s = self._heard_s - (time.monotonic() - self._began)
                if ahead_s > _AHEAD_S:
                    await asyncio.sleep(ahead_s - _AHEAD_S)

    async def _obey(self, command: Command) -> None:
        assert self._feed is not None  # without a view there are no commands
        if problem := await self._feed.obey(command):
            await self._say("refused", text=problem)

    def _hear(self, pcm: bytes) -> None:
        now = time.monotonic() - self._began
        self._heard_s = max(self._heard_s, now - _AHEAD_S) + len(pcm) / 2 / self.sample_rate
        if self.conversation.state in ("waiting", "starting"):
            self._kept.add(pcm)
            return
        self._pieces.append(pcm)
        self._waiting += len(pcm)
        if self._waiting < self._enough:
            return
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        try:
            # Here the sound is copied, once: from the frames of the caller into that of a message.
            self.conversation.agent._capture_at(pieces, self.sample_rate)  # noqa: SLF001 - as above
        except NotRunningError:
            pass  # it has just ended

    def _leave(self, error: BaseException | None) -> None:
        """Take note of the end of the socket: the caller has hung up, or was lost."""
        self._socket = None
        self._line.detach()
        is_lost = isinstance(error, Closed) and (error.lost or (error.left and self.has_view))
        if self._feed is not None:
            self._feed.detach()
        if is_lost and self._wire and self._wire.resumes:
            self._wait_for_caller()
            return
        self.end("bad_input" if isinstance(error, BadFrameError) else "hung_up")
        if error is not None and not isinstance(error, Closed):
            raise error

    def _wait_for_caller(self) -> None:
        if self.conversation.state == "running":
            self.conversation.state = "lost"
            try:
                self.conversation.agent.interrupt()  # what nobody hears was not said
            except NotRunningError:
                return
        self.expect()

    async def _say_goodbye(self, socket: Socket) -> None:
        reason = self.conversation.agent.history.ended_because
        if self._feed is not None:
            await self._feed.end(self._failure)
        if self._abandoned:
            await socket.close(RESTART, self._abandoned)
        elif self._failure:
            await socket.close(FAILED, self._failure)
        elif self.conversation.ended_by == "drained":
            await socket.close(GOING_AWAY, "the service is ending")
        else:
            await self._say("ended", reason=reason)
            await socket.close(NORMAL, reason)

    # -- events -------------------------------------------------------------------------------

    async def _say(self, kind: str, **fields: object) -> None:
        if self._socket is not None and self._wire is not None:
            await self._socket.send(self._wire.tell(kind, **fields))

    async def _tell(self, event: object) -> None:
        match event:
            case Turn(role, text, item_id):
                await self._say("turn", item_id=item_id, role=role, text=text)
            case AssistantTranscript(item_id, delta):
                await self._say("transcript", item_id=item_id, delta=delta)
            case UserSpeechStarted(item_id):
                await self._say("speech_started", item_id=item_id)
            case UserSpeechStopped(item_id):
                await self._say("speech_stopped", item_id=item_id)
            case Interrupted(item_id, heard_ms):
                await self._say("interrupted", item_id=item_id, heard_ms=heard_ms)
            case PlaybackEnded(item_id):
                await self._say("playback_ended", item_id=item_id)
