"""One run of an agent: owns its `Session`, and passes the session's messages to the program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
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
    ProgramCapture,
    Reconnected,
    RtvoiceError,
    SessionEnded,
    SessionEnding,
    SessionStarted,
    StopSession,
    SupervisorDiedError,
    UsageUpdated,
    WantWireEvents,
    WireEvent,
)
from messages.paths import printable
from messages.urls import shown
from rtvoice.bus import EventBus
from rtvoice.events import (
    AgentStartedEvent,
    AgentStoppedEvent,
    OutputAudioBufferClearEvent,
    UserInactivityTimeoutEvent,
)
from rtvoice.in_force import InForce
from rtvoice.prices import Usage
from rtvoice.transcript import Transcript
from rtvoice.views import ConversationHistory
from rtvoice.wire import decode_wire_event, wire_names

__all__ = ["PLACED", "Run", "prepare_logging", "user_import_path"]

_logger = logging.getLogger("rtvoice.agent")

_STOP_S = 10.0
"""Time after which a supervisor that still runs is killed; a session should end within 5 s."""
_HANDLERS_S = 2.0
"""Time that event handlers have to finish after the session has ended."""


PLACED = ("server", "input", "output", "tools", "named_tools", "builtin_tools", "components")
"""Settings that name the devices, tools, components and server of a session; logged at start."""


class Subscribed:
    """The messages that a run needs: for the subscriptions of the program and the transcript."""

    def __init__(self, bus: EventBus, always: Iterable[type[Message]]) -> None:
        self.kinds: tuple[type[Message], ...] = ()
        self.wire_names: tuple[str, ...] = ()
        """Names of the events of the Realtime API that are subscribed to."""
        self._bus = bus
        self._always: tuple[type[Message], ...] = (Event, WireEvent, *always)
        self.look()

    def look(self) -> bool:
        """Read the subscriptions of the bus again. Return whether they have changed."""
        subscribed = self._bus.kinds
        kinds: set[type[Message]] = set(self._always)
        kinds.update(kind for kind in subscribed if issubclass(kind, Message))
        if any(issubclass(OutputAudioBufferClearEvent, kind) for kind in subscribed):
            kinds.add(FlushPlayback)  # `Run.put` derives the event from this message
        names: set[str] = set()
        for kind in subscribed:
            names |= wire_names(kind)
        before = self.kinds, self.wire_names
        self.kinds = tuple(sorted(kinds, key=lambda kind: kind.__qualname__))
        self.wire_names = tuple(sorted(names))
        return before != (self.kinds, self.wire_names)


class Run:
    """One conversation from its start to its end, on one event loop.

    It is the listener of its `Session`: `put` is called on the loop or on a thread of the session.

    It is longer than other classes: one conversation, from its start to its end, with all that a
    program can ask of it.
    """

    def __init__(
        self,
        session: Callable[[tuple[str, ...]], Session],
        bus: EventBus,
        in_force: InForce,
    ) -> None:
        """Create the session, without starting it.

        Args:
            session: Returns the session; its argument is the names of the wire events to forward.
            bus: Where events are delivered.
            in_force: The settings that the session starts with.
        """
        self.in_force = in_force
        self.usage = Usage()
        """What the conversation has used so far."""
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._transcript = Transcript()
        self._started = False
        self._stop_reason: str | None = None
        """Why the session was asked to stop; None: it was not asked."""
        self._stop_published = False
        self._failure: RtvoiceError | None = None
        self._ended = threading.Event()
        """Set on the session's thread when the session has ended; `_over` follows on the loop."""
        self._over = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended_because = ""
        self._subscribed = Subscribed(bus, self._transcript.kinds)
        self._session = session(self._subscribed.wire_names)

    # -- subscriptions ------------------------------------------------------------------------

    @property
    def kinds(self) -> tuple[type[Message], ...]:
        """The types of messages that the session passes to `put`."""
        return self._subscribed.kinds

    def subscriptions_changed(self) -> None:
        """Send changed subscriptions to the supervisor and to realtime; from any thread."""
        if not self._over.is_set() and self._subscribed.look() and self._started:
            self._session.subscribe()
            self._session.send(WantWireEvents(self._subscribed.wire_names))

    # -- life ---------------------------------------------------------------------------------

    async def start(self, places: Mapping[str, Any]) -> None:
        """Start the session.

        Args:
            places: The values of the settings in `PLACED`; logged once the session runs.

        Raises:
            SessionFailedError: A component cannot start; the reason says which and why.
            SupervisorDiedError: The supervisor ended without giving a reason.
        """
        self._bus.bind(self._loop)
        if (resume := self.in_force.settings.resume) is not None:
            from actors.embedding.session_folder import journal_of
            from actors.history import messages_in

            with contextlib.suppress(OSError):  # the session cannot start then, and says why
                self._transcript.restore(messages_in(journal_of(resume)))
        self._session.listen(self)
        try:
            await self._session.__aenter__()
        except BaseException as error:
            if isinstance(error, RtvoiceError):
                self._failure = error
            self._session.kill()  # the supervisor may be alive still: leave no process behind
            cancelled = isinstance(error, asyncio.CancelledError)
            why = "the program was cancelled" if cancelled else str(error)
            self._ended_because = self._ended_because or why
            self._set_over()
            await self._finish(drain=not cancelled)
            raise
        _log_places(places, self._session.started)
        self._session.subscribe()  # subscriptions may have changed while the session started
        self._session.send(WantWireEvents(self._subscribed.wire_names))

    def kill(self) -> None:
        """Kill all processes of the conversation."""
        self._session.kill()

    def begin_to_stop(self, reason: str) -> None:
        """Request a graceful end; from any thread. Later calls do nothing."""
        self._stop_reason = self._stop_reason or reason
        if self._started and not self._over.is_set():
            self._session.send(StopSession(reason))

    async def stop(self, reason: str) -> None:
        """End the session gracefully and wait for its end; kill it after 10 s. On any loop."""
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
        """Wait on a thread of the caller: the loop of the conversation may be busy or closed."""
        with self._session.blocking():
            if not self._ended.wait(_STOP_S):
                self._session.kill()
                self._ended.wait()

    async def last(self) -> None:
        """Wait until the session ends. A cancellation ends it gracefully, without further delay.

        Raises:
            SessionFailedError: The session has failed.
            SupervisorDiedError: The supervisor has died.
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
        """End the session gracefully because the program was cancelled or has raised."""
        try:
            await self.stop(reason)
        except asyncio.CancelledError:  # cancelled a second time: do not wait any longer
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
            TimeoutError: The session is not ready after ``timeout_s``.
            RtvoiceError: The session has ended before it was ready.
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

    # -- state --------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self._over.is_set() or (self._ended.is_set() and self._loop.is_closed())

    @property
    def is_running(self) -> bool:
        """Whether the session has started and not ended, so that it takes messages."""
        return self._started and not self.is_over

    @property
    def is_ready(self) -> bool:
        """Whether the session is connected to the server."""
        return self.is_running and self._ready.is_set()

    def history(self) -> ConversationHistory:
        """Return the conversation so far."""
        return self._transcript.history(self._ended_because)

    # -- messages to the session --------------------------------------------------------------

    def need(self) -> None:
        """Raise unless the session takes messages.

        Raises:
            NotRunningError: The session is starting, or has ended.
        """
        if not self.is_running:
            raise self._not_running()

    def send(self, message: Message) -> None:
        """Send a message to the components that accept it.

        Raises:
            NotRunningError: The session is starting, or has ended.
        """
        self.need()
        self._session.send(message)

    def send_sound(self, message: ProgramCapture, pieces: Sequence[bytes]) -> None:
        """Send captured sound; see `Session.send_sound`.

        Raises:
            NotRunningError: The session is starting, or has ended.
        """
        self.need()
        self._session.send_sound(message, pieces)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change settings of the conversation.

        Args:
            changes: Parameters of `Agent.update`; each value has been checked alone.

        Raises:
            AgentError: The new values contradict each other or the settings in force.
            NotRunningError: The session is starting, or has ended.
        """
        self.need()
        for message in self.in_force.change(changes):
            self.send(message)
        tools, builtin_tools = changes.get("tools"), changes.get("builtin_tools")
        if tools is not None or builtin_tools is not None:
            self._session.set_tools(tools, builtin_tools=builtin_tools)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each component.

        Raises:
            NotRunningError: The session is starting, or has ended.
            TimeoutError: The supervisor does not answer.
        """
        return await self._answered(self._session.status_async)

    async def processes(self) -> dict[str, dict[str, Any]]:
        """Return what `status` returns, and pid, memory and CPU time of supervisor and sandbox.

        Raises:
            NotRunningError: The session is starting, or has ended.
            TimeoutError: The supervisor does not answer.
        """
        return await self._answered(self._session.processes_async)

    async def _answered(
        self, ask: Callable[[], Awaitable[dict[str, dict[str, Any]]]]
    ) -> dict[str, dict[str, Any]]:
        self.need()
        try:
            return await ask()
        except SupervisorDiedError:
            raise self._not_running() from None

    async def confirm(self) -> None:
        """Wait until the messages sent before are safe, whichever process dies.

        Raises:
            NotRunningError: The session is starting, or has ended.
            TimeoutError: The supervisor does not answer.
        """
        self.need()
        try:
            await self._session.confirm_async()
        except SupervisorDiedError:
            raise self._not_running() from None

    def _not_running(self) -> NotRunningError:
        if not self.is_over:
            return NotRunningError("the agent is still starting")
        error = NotRunningError(f"the conversation is over: {self._ended_because}")
        error.__cause__ = self._failure
        return error

    # -- on the loop, or on the session's thread ----------------------------------------------

    def put(self, message: Message | None) -> None:
        """Handle a message of the session; None: the session has ended."""
        match message:
            case None:
                self._end()
                return
            case WireEvent(name, _, json):
                self._deliver_wire(name, json)
            case FlushPlayback(reason):
                self._bus.deliver(OutputAudioBufferClearEvent(reason))
            case SessionStarted():
                self._started = True  # before subscribers get the event and may send something
                if self._stop_reason is not None:  # requested during the start
                    self.begin_to_stop(self._stop_reason)
                self._transcript.take(message)
                self._bus.deliver(AgentStartedEvent(message.pids))
            case SessionEnding(reason):
                self._ended_because = reason
                if reason == INACTIVITY_TIMEOUT:
                    self._bus.deliver(UserInactivityTimeoutEvent(self.in_force.timeout_s))
                self._publish_stop(reason)
            case SessionEnded(reason):
                self._ended_because = reason
            case UsageUpdated(_, tokens, dollars):
                self.usage = Usage(tokens, dollars)
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
        except KeyError:  # an event without a class of ours: nobody can have subscribed to it
            pass
        except (msgspec.MsgspecError, ValueError) as error:
            logging.getLogger("rtvoice.events").warning("%s is not as documented: %s", name, error)

    def _publish_stop(self, reason: str) -> None:
        if not self._stop_published:
            self._stop_published = True
            self._bus.deliver(AgentStoppedEvent(reason))

    def _end(self) -> None:
        try:
            self._session.wait(1.0)
        except RtvoiceError as error:
            if not self._over.is_set():  # else `start` has failed and has set the reason
                self._failure = error
                self._ended_because = str(error)
        except TimeoutError:  # the session was never started
            self._ended_because = self._ended_because or "it was not started"
        self._publish_stop(self._ended_because)
        self._ended.set()
        self._on_loop(self._set_over)

    def _set_over(self) -> None:
        self._over.set()
        self._bus.end_streams()  # the body of `async with agent` may be waiting for their end

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


def user_import_path() -> tuple[str, ...]:
    """Return the folders of the program's modules: that of its script, and the current one."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [str(Path(script).resolve().parent)] if script else []
    with contextlib.suppress(OSError):
        folders.append(os.getcwd())  # noqa: PTH109 - a string is needed
    return tuple(dict.fromkeys(folders))


def prepare_logging(level: str | None) -> None:
    """Keep `logging` from printing our warnings where the program has not set it up.

    Args:
        level: Level of the logger ``rtvoice``; None: it stays unchanged.
    """
    logger = logging.getLogger("rtvoice")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())
    if level is not None:
        logger.setLevel(level)


def _log_places(described: Mapping[str, Any], started: SessionStarted | None) -> None:
    """Log where each device, tool and component runs."""
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
    _logger.info("started on %s; %s", shown(described["server"]), printable("; ".join(parts)))
