"""One run of an agent: its session, and how what happens there reaches the program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.embedding.session import Session
from messages import (
    INACTIVITY_TIMEOUT,
    AssistantItem,
    ComponentRestarted,
    Connected,
    Disconnected,
    Event,
    FlushPlayback,
    Message,
    NotRunningError,
    Reconnected,
    RtvoiceError,
    SessionEnded,
    SessionEnding,
    SessionStarted,
    StopSession,
    SupervisorDiedError,
    WantWireEvents,
    WireEvent,
)
from rtvoice.bus import EventBus
from rtvoice.events import (
    AgentStartedEvent,
    AgentStoppedEvent,
    OutputAudioBufferClearEvent,
    UserInactivityTimeoutEvent,
)
from rtvoice.in_force import InForce
from rtvoice.transcript import Transcript
from rtvoice.views import ConversationHistory
from rtvoice.wire import decode_wire_event, wire_names

__all__ = ["PLACED", "Run", "prepare_logging", "user_import_path"]

_logger = logging.getLogger("rtvoice.agent")

_STOP_S = 10.0
"""The supervisor ends a session within 5 s; it is killed after this."""
_HANDLERS_S = 2.0
"""How long handlers may go on after the end."""


PLACED = ("server", "input", "output", "tools", "named_tools", "builtin_tools", "components")
"""What of a session runs somewhere, and where is logged."""


class Subscribed:
    """What the program wants to be told: its subscriptions, and what the transcript needs."""

    def __init__(self, bus: EventBus, always: Iterable[type[Message]]) -> None:
        self.kinds: tuple[type[Message], ...] = ()
        self.wire_names: tuple[str, ...] = ()
        """Names of the events of the Realtime API."""
        self._bus = bus
        self._always: tuple[type[Message], ...] = (Event, WireEvent, *always)
        self.look()

    def look(self) -> bool:
        """Look what is subscribed to. Return whether that has changed."""
        subscribed = self._bus.kinds
        kinds: set[type[Message]] = set(self._always)
        kinds.update(kind for kind in subscribed if issubclass(kind, Message))
        if any(issubclass(OutputAudioBufferClearEvent, kind) for kind in subscribed):
            kinds.add(FlushPlayback)
        names: set[str] = set()
        for kind in subscribed:
            names |= wire_names(kind)
        before = self.kinds, self.wire_names
        self.kinds = tuple(sorted(kinds, key=lambda kind: kind.__qualname__))
        self.wire_names = tuple(sorted(names))
        return before != (self.kinds, self.wire_names)


class Run:
    """A conversation from its start to its end, on one event loop.

    It is a listener of its `Session`: `put` is called on the session's reading thread.
    """

    def __init__(
        self,
        session: Callable[[tuple[str, ...]], Session],
        bus: EventBus,
        in_force: InForce,
    ) -> None:
        """Make a session.

        Args:
            session: returns it, given the names of the wire events that are wanted.
            bus: where events are delivered.
            in_force: the settings it begins with.
        """
        self.in_force = in_force
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._transcript = Transcript()
        self._started = False
        self._stop_reason: str | None = None
        """Why it was asked to stop; None: it was not."""
        self._told_stop = False
        self._failure: RtvoiceError | None = None
        self._ended = threading.Event()
        """The session has ended; the loop may not know it yet."""
        self._over = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended_because = ""
        self._subscribed = Subscribed(bus, self._transcript.kinds)
        self._session = session(self._subscribed.wire_names)

    # -- what the program wants to be told ----------------------------------------------------

    @property
    def kinds(self) -> tuple[type[Message], ...]:
        """The messages that `put` takes, for the session."""
        return self._subscribed.kinds

    def subscriptions_changed(self) -> None:
        """Have the supervisor and realtime know of it; from any thread."""
        if not self._over.is_set() and self._subscribed.look() and self._started:
            self._session.subscribe()
            self._session.send(WantWireEvents(self._subscribed.wire_names))

    # -- life ---------------------------------------------------------------------------------

    async def start(self, places: Mapping[str, Any]) -> None:
        """Start the session.

        Args:
            places: what it consists of, by the names in `PLACED`; logged once it runs.

        Raises:
            SessionFailedError: a component cannot start; the reason says which and why.
            SupervisorDiedError: the supervisor ended without a word.
        """
        self._bus.bind(self._loop)
        self._session.listen(self)
        try:
            await self._session.__aenter__()
        except BaseException as error:
            if isinstance(error, RtvoiceError):
                self._failure = error
            self._session.kill()  # if it lives, it is not wanted any more
            cancelled = isinstance(error, asyncio.CancelledError)
            why = "the program was cancelled" if cancelled else str(error)
            self._ended_because = self._ended_because or why
            self._set_over()
            await self._finish(drain=not cancelled)
            raise
        _log_places(places, self._session.started)
        self._session.subscribe()  # what has been subscribed to since
        self._session.send(WantWireEvents(self._subscribed.wire_names))

    def begin_to_stop(self, reason: str) -> None:
        """Have the session end in order; from any thread. Again: do nothing."""
        self._stop_reason = self._stop_reason or reason
        if self._started and not self._over.is_set():
            self._session.send(StopSession(reason))

    async def stop(self, reason: str) -> None:
        """End the session in order and wait for that, 10 s at most; on any loop."""
        self.begin_to_stop(reason)
        if self.is_over:
            return
        if asyncio.get_running_loop() is not self._loop:
            await asyncio.to_thread(self._wait_for_end)
            return
        try:
            async with asyncio.timeout(_STOP_S):
                await self._over.wait()
        except TimeoutError:
            self._session.kill()
            await self._over.wait()

    def _wait_for_end(self) -> None:
        """Wait on a thread: the conversation's loop may be busy, or closed."""
        if not self._ended.wait(_STOP_S):
            self._session.kill()
            self._ended.wait()

    async def last(self) -> None:
        """Wait for the end; if that is cancelled, end the session in order and at once.

        Raises:
            SessionFailedError: the session has failed.
            SupervisorDiedError: the supervisor has died.
        """
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            await self.abandon("the program was cancelled")
            raise
        await self._finish()
        if self._failure is not None:
            raise self._failure

    async def abandon(self, reason: str) -> None:
        """End the session in order because the program has something else on its mind."""
        try:
            await self.stop(reason)
        except asyncio.CancelledError:  # a second time: at once
            self._session.kill()
            await self._finish(drain=False)
            raise
        await self._finish()

    async def _finish(self, *, drain: bool = True) -> None:
        if drain:
            await self._bus.drain(_HANDLERS_S)
        self._bus.bind(None)

    async def wait_ready(self, timeout_s: float | None) -> None:
        """Wait until the server has begun the session; on any loop.

        Raises:
            TimeoutError: it takes longer.
            RtvoiceError: it has ended before that.
        """
        if asyncio.get_running_loop() is not self._loop and not self._loop.is_closed():
            waiting = self._wait_ready(timeout_s)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waiting, self._loop))
        else:
            await self._wait_ready(timeout_s)

    async def _wait_ready(self, timeout_s: float | None) -> None:
        if self.is_over:
            raise self._failure or self._not_running()
        ready = asyncio.ensure_future(self._ready.wait())
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait(
                {ready, over}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
            over.cancel()
        if self._over.is_set():
            raise self._failure or self._not_running()
        if not self._ready.is_set():
            raise TimeoutError(f"the agent is not ready after {timeout_s:g} s")

    # -- how it is ----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self._over.is_set() or (self._ended.is_set() and self._loop.is_closed())

    @property
    def is_running(self) -> bool:
        """Whether something can be asked of it."""
        return self._started and not self.is_over

    @property
    def is_ready(self) -> bool:
        """Whether there is a session with the server."""
        return self.is_running and self._ready.is_set()

    def history(self) -> ConversationHistory:
        """Return the conversation so far."""
        return self._transcript.history(self._ended_because)

    # -- talking to it ------------------------------------------------------------------------

    def need(self) -> None:
        """See that something can be asked of it.

        Raises:
            NotRunningError: it is starting, or over.
        """
        if not self.is_running:
            raise self._not_running()

    def send(self, message: Message) -> None:
        """Say something to the components.

        Raises:
            NotRunningError: there are none.
        """
        self.need()
        self._session.send(message)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change the conversation.

        Args:
            changes: parameters of `Agent.update`, each of them valid.

        Raises:
            AgentError: they do not go with the rest.
            NotRunningError: there are no components.
        """
        self.need()
        for message in self.in_force.change(changes):
            self.send(message)
        tools, builtin_tools = changes.get("tools"), changes.get("builtin_tools")
        if tools is not None or builtin_tools is not None:
            self._session.set_tools(tools, builtin_tools=builtin_tools)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return how the components are; all that was sent before has reached them.

        Raises:
            NotRunningError: there are none.
            TimeoutError: the supervisor does not answer.
        """
        self.need()
        try:
            return await self._session.status_async()
        except SupervisorDiedError:
            raise self._not_running() from None

    def _not_running(self) -> NotRunningError:
        if not self.is_over:
            return NotRunningError("the agent is still starting")
        error = NotRunningError(f"the conversation is over: {self._ended_because}")
        error.__cause__ = self._failure
        return error

    # -- on the session's reading thread ------------------------------------------------------

    def put(self, message: Message | None) -> None:
        """Take a message of the session; None: it has ended."""
        match message:
            case None:
                self._end()
                return
            case WireEvent(name, _, json):
                self._deliver_wire(name, json)
            case FlushPlayback(reason):
                self._bus.deliver(OutputAudioBufferClearEvent(reason))
            case SessionStarted():
                self._started = True  # before those are told who may ask something of it
                if self._stop_reason is not None:  # asked for meanwhile
                    self.begin_to_stop(self._stop_reason)
                self._transcript.take(message)
                self._bus.deliver(AgentStartedEvent(message.pids))
            case SessionEnding(reason):
                self._ended_because = reason
                if reason == INACTIVITY_TIMEOUT:
                    self._bus.deliver(UserInactivityTimeoutEvent(self.in_force.timeout_s))
                self._tell_stop(reason)
            case SessionEnded(reason):
                self._ended_because = reason
            case Connected() | Reconnected():
                self._on_loop(self._ready.set)
            case Disconnected() | ComponentRestarted("realtime", process=True):
                self._on_loop(self._ready.clear)
            case _:
                if isinstance(message, AssistantItem) and message.audio_samples:
                    self.in_force.has_spoken = True
                self._transcript.take(message)
        self._bus.deliver(message)

    def _deliver_wire(self, name: str, json: bytes) -> None:
        try:
            self._bus.deliver(decode_wire_event(name, json))
        except KeyError:  # nobody can have subscribed to it
            pass
        except (msgspec.MsgspecError, ValueError) as error:
            logging.getLogger("rtvoice.events").warning("%s is not as documented: %s", name, error)

    def _tell_stop(self, reason: str) -> None:
        if not self._told_stop:
            self._told_stop = True
            self._bus.deliver(AgentStoppedEvent(reason))

    def _end(self) -> None:
        try:
            self._session.wait(1.0)
        except RtvoiceError as error:
            if not self._over.is_set():  # or it is the start that was given up
                self._failure = error
                self._ended_because = str(error)
        except TimeoutError:  # it was never started
            self._ended_because = self._ended_because or "it was not started"
        self._tell_stop(self._ended_because)
        self._ended.set()
        self._on_loop(self._set_over)

    def _set_over(self) -> None:
        self._over.set()
        self._bus.end_streams()  # what is in the block may wait for their end

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


def user_import_path() -> tuple[str, ...]:
    """Return where the modules of the program are: beside its script, and where it runs."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [str(Path(script).resolve().parent)] if script else []
    with contextlib.suppress(OSError):
        folders.append(os.getcwd())  # noqa: PTH109 - as it is called
    return tuple(dict.fromkeys(folders))


def prepare_logging(level: str | None) -> None:
    """See that nothing is printed where the program has set up no logging.

    Args:
        level: of the logger ``rtvoice``; None: as it is.
    """
    logger = logging.getLogger("rtvoice")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())
    if level is not None:
        logger.setLevel(level)


def _log_places(described: Mapping[str, Any], started: SessionStarted | None) -> None:
    """Say once where each tool and device runs."""
    pids = started.pids if started is not None else {}

    def child(name: str) -> str:
        return f"in process {pids.get(name, '?')} ({name})"

    parts = []
    for what, component in (("input", "microphone"), ("output", "speaker")):
        device = described[what]
        place = f"{device!r} {child(component)}"
        if not isinstance(device, str):
            place = f"{type(device).__name__} in this program"
        parts.append(f"{what}: {place}")
    if described["tools"]:
        parts.append(f"tools: {', '.join(described['tools'])} in this program")
    if described["named_tools"]:
        parts.append(f"tools: {described['named_tools']} {child('tools')}")
    if described["builtin_tools"]:
        parts.append(f"built-in tools: {', '.join(described['builtin_tools'])} {child('tools')}")
    parts += [
        f"component {name}: {target} {child(name)}"
        for name, target in described["components"].items()
    ]
    _logger.info("started on %s; %s", described["server"], "; ".join(parts))
