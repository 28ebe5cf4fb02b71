"""The event bus of an agent: delivers events to the subscribers of their type.

Events arrive on any thread; handlers run on the agent's event loop. Each subscription has a bounded
queue and, while events wait in it, a task of its own. So each handler gets its events in order, and
one that raises or is slow does not affect the others.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import inspect
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from actors.embedding.loop_end import running_loop

__all__ = ["EventBus", "EventStream", "Subscription"]

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)

_logger = logging.getLogger("rtvoice.events")

QUEUED = 1000
"""Default limit of events that wait for one subscriber."""


class _Queue:
    """A bounded queue of events for one subscriber; it drops the oldest. Filled on any thread."""

    def __init__(self, kinds: tuple[type[Any], ...], limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_queued is {limit}; it must be 1 or more")
        self.kinds = kinds
        self.dropped = 0
        """How many events were dropped because the subscriber was too slow."""
        self._limit = limit
        self._events: collections.deque[Any] = collections.deque()
        self._lock = threading.Lock()

    def _add(self, event: Any) -> bool:
        """Add an event. Return whether the oldest was dropped to make room."""
        with self._lock:
            full = len(self._events) >= self._limit
            if full:
                self._events.popleft()
                self.dropped += 1
            self._events.append(event)
            return full

    def _next(self) -> Any | None:
        with self._lock:
            return self._events.popleft() if self._events else None

    def put(self, event: Any) -> None:
        """Queue an event, on any thread."""
        raise NotImplementedError


class Subscription(_Queue, Generic[E]):
    """The handle that `EventBus.subscribe` returns.

    Calling it unsubscribes, and so does leaving it as a context manager.

    Example:
        ```python
        from rtvoice import Agent, Turn

        agent = Agent()
        subscription = agent.event_bus.subscribe(Turn, print)
        subscription.unsubscribe()
        ```
    """

    def __init__(
        self, bus: EventBus, kind: type[E], handler: Callable[[E], object], limit: int
    ) -> None:
        super().__init__((kind,), limit)
        self.handler = handler
        self._bus = bus
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def unsubscribe(self) -> None:
        """Stop calling the handler, also for events that wait. Later calls do nothing."""
        self._closed = True
        with self._lock:
            self._events.clear()
        self._bus.remove(self)

    __call__ = unsubscribe

    def __enter__(self) -> Subscription[E]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        name = getattr(self.handler, "__qualname__", repr(self.handler))
        return f"<Subscription {self.kinds[0].__name__} -> {name}>"

    def put(self, event: Any) -> None:
        """Queue an event, on any thread."""
        # Warn at 1, 2, 4, 8, … dropped events, so that a slow handler does not flood the log.
        if self._add(event) and (self.dropped & (self.dropped - 1)) == 0:
            _logger.warning(
                "%r is too slow: %d events have been dropped so far, the oldest first",
                self,
                self.dropped,
            )
        self._bus.on_loop(self._work)

    def _work(self) -> None:
        if self._task is None and self._events and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            self._work()  # an event may have arrived after the task found the queue empty

    async def _run(self) -> None:
        while not self._closed and (event := self._next()) is not None:
            try:
                result = self.handler(event)
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError:
                # Only if this task itself is being cancelled: a handler may have awaited a task of
                # the program that was cancelled, which must not end the subscription.
                if cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                    raise
                _logger.warning("%r was cancelled by something it awaited", self, exc_info=True)
            except Exception:
                _logger.exception("%r raised", self)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the handler; None: no event waits."""
        return self._task


class EventStream(_Queue, Generic[E_co]):
    """Events for one reader: ``async for event in agent.events(Turn)``.

    It begins when it is made and ends with the conversation. When the reader is slower than the
    conversation, the oldest events are dropped and counted in ``dropped``.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent, Turn

        async def main() -> None:
            agent = Agent(server="sandbox", audio_input="silence", audio_output="null")
            async with agent:
                turns = agent.events(Turn)
                agent.send_text("what is your name")
                async for turn in turns:
                    print(turn.role, turn.text)
                    if turn.role == "assistant":
                        break
                await agent.stop()

        asyncio.run(main())
        ```
    """

    def __init__(self, bus: EventBus, kinds: tuple[type[Any], ...], limit: int) -> None:
        super().__init__(kinds, limit)
        self._bus = bus
        self._ended = False
        self._news: asyncio.Event | None = None
        self._reader: asyncio.AbstractEventLoop | None = None
        """The loop of the reader, which may differ from that of the agent."""

    def put(self, event: Any) -> None:
        """Queue an event, on any thread."""
        self._add(event)
        self._wake()

    def end(self) -> None:
        """End the stream once the queued events are read; on any thread."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """End the stream and discard the events that were not read."""
        with self._lock:
            self._events.clear()
        self._bus.remove(self)
        self.end()

    def _wake(self) -> None:
        if self._reader is not None and self._news is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._reader.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[E_co]:
        self._news = news = asyncio.Event()
        self._reader = asyncio.get_running_loop()
        try:
            while True:
                news.clear()  # before looking: an event that arrives after that sets it again
                if (event := self._next()) is not None:
                    yield event
                elif self._ended:
                    return
                else:
                    await news.wait()
        finally:
            self.close()


class EventBus:
    """Delivers events to the subscribers of their type; `Agent.event_bus`.

    Example:
        ```python
        from rtvoice import Agent, InputAudioTranscriptionCompleted, StopAgentCommand

        agent = Agent(transcription_model="gpt-transcribe")

        async def on_transcription(event: InputAudioTranscriptionCompleted) -> None:
            print(f"Transcribed: {event.transcript}")

        agent.event_bus.subscribe(InputAudioTranscriptionCompleted, on_transcription)
        ```
    """

    def __init__(
        self, publish: Callable[[Any], None], changed: Callable[[], None] = lambda: None
    ) -> None:
        """Create a bus without subscribers.

        Args:
            publish: Called with each event that the program publishes.
            changed: Called after each change of the subscriptions.
        """
        self._publish = publish
        self._changed = changed
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription[Any]] = []
        self._streams: weakref.WeakSet[EventStream[Any]] = weakref.WeakSet()
        self._matching: dict[type[Any], tuple[_Queue, ...]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()

    # -- for programs -------------------------------------------------------------------------

    def subscribe(
        self, kind: type[E], handler: Callable[[E], object], *, max_queued: int = QUEUED
    ) -> Subscription[E]:
        """Call a handler with each event of a type; before, during or after a conversation.

        A handler runs on the agent's event loop and gets one event after the other. If it raises,
        the traceback is logged under ``rtvoice.events``. A slow handler delays no other one.

        Args:
            kind: A class of `rtvoice.events`, a base class of some, or a class of your own that you
                publish.
            handler: A function or a coroutine function with one argument, the event.
            max_queued: Most events that may wait for the handler, 1 or more. When more arrive, the
                oldest is dropped, counted in ``dropped`` of the handle, and a warning is logged.

        Returns:
            The handle, which can unsubscribe.

        Raises:
            TypeError: ``kind`` is not a class, or ``handler`` cannot be called.
        """
        _check_kind(kind)
        if not callable(handler):
            raise TypeError(f"give a function or a coroutine function, not {handler!r}")
        subscription = Subscription(self, kind, handler, max_queued)
        with self._lock:
            self._subscriptions.append(subscription)
            self._matching = {}
        self._changed()
        return subscription

    def unsubscribe(self, kind: type[E], handler: Callable[[E], object]) -> None:
        """Undo `subscribe` with these arguments; does nothing if there is no such subscription."""
        for subscription in list(self._subscriptions):
            if subscription.kinds == (kind,) and subscription.handler == handler:
                subscription.unsubscribe()

    def publish(self, event: object) -> None:
        """Publish an event.

        `StopAgentCommand` stops the agent. Client events are commands to rtvoice, which decides
        what the server is sent: `ResponseCreateEvent` requests an answer as soon as nobody speaks,
        `ResponseCancelEvent` interrupts, `SessionUpdateEvent` changes settings,
        `InputAudioBufferAppendEvent` is captured audio (with ``audio_input="program"``). Messages
        of your own components are sent to them. Events of your own types reach their subscribers.

        Raises:
            EventError: Such an event cannot be published; the message says why.
            NotRunningError: The agent does not run.
        """
        self._publish(event)

    # -- for the agent ------------------------------------------------------------------------

    def stream(self, kinds: tuple[type[Any], ...], max_queued: int) -> EventStream[Any]:
        """Return a stream of events of these types."""
        for kind in kinds:
            _check_kind(kind)
        stream: EventStream[Any] = EventStream(self, kinds, max_queued)
        with self._lock:
            self._streams.add(stream)
            self._matching = {}
        self._changed()
        return stream

    def remove(self, queue: _Queue) -> None:
        """Remove a subscriber; does nothing if it is not subscribed."""
        with self._lock:
            if isinstance(queue, Subscription):
                if queue not in self._subscriptions:
                    return
                self._subscriptions.remove(queue)
            elif isinstance(queue, EventStream):
                self._streams.discard(queue)
            self._matching = {}
        self._changed()

    @property
    def kinds(self) -> set[type[Any]]:
        """The types that are subscribed to."""
        with self._lock:
            queues: list[_Queue] = [*self._subscriptions, *self._streams]
        return {kind for queue in queues for kind in queue.kinds}

    def deliver(self, event: object) -> None:
        """Queue an event for its subscribers, from any thread; drop it between conversations."""
        if self._loop is None:
            return
        queues = self._matching.get(type(event))
        for queue in self._match(type(event)) if queues is None else queues:
            queue.put(event)

    def _match(self, kind: type[Any]) -> tuple[_Queue, ...]:
        with self._lock:
            queues: list[_Queue] = [*self._subscriptions, *self._streams]
            found = tuple(queue for queue in queues if issubclass(kind, queue.kinds))
            if not self._streams:  # a stream that is garbage-collected leaves the cache unaware
                self._matching[kind] = found
            return found

    def bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run handlers on this loop from now on, in the context of the caller; None: on no loop."""
        self._loop = loop
        self._context = contextvars.copy_context()

    def on_loop(self, call: Callable[[], None]) -> None:
        """Schedule a call on the loop of the handlers, from any thread."""
        if self._loop is None:
            return
        if running_loop() is self._loop:
            self._loop.call_soon(call, context=self._context)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, context=self._context)

    def end_streams(self) -> None:
        """End all streams; called on the loop of the handlers."""
        for stream in list(self._streams):
            stream.end()

    async def drain(self, timeout_s: float) -> None:
        """Wait until the handlers have handled all queued events; then cancel those still busy."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await asyncio.sleep(0)  # lets events that other threads have queued get their tasks
        while tasks := self._tasks():
            left_s = deadline - loop.time()
            _, late = await asyncio.wait(tasks, timeout=max(0.0, left_s))
            if late and loop.time() >= deadline:
                for task in late:
                    task.cancel()
                _logger.warning(
                    "cancelled %d handlers that were still busy %g s after the end",
                    len(late),
                    timeout_s,
                )
                await asyncio.wait(late, timeout=1.0)
                return

    def _tasks(self) -> set[asyncio.Task[None]]:
        with self._lock:
            subscriptions = list(self._subscriptions)
        mine = asyncio.current_task()
        return {one.task for one in subscriptions if one.task is not None and one.task is not mine}


def _check_kind(kind: object) -> None:
    if not isinstance(kind, type):
        raise TypeError(f"give a class of events, such as rtvoice.Turn, not {kind!r}")
