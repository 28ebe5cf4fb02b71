"""The event bus of an agent: who has subscribed to what, and how it reaches them.

Events come on any thread; handlers run on the agent's event loop. Each subscription has a bounded
queue and, while there is something in it, a task of its own, so that a handler that raises or is
slow harms nobody else, and order is kept.
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

__all__ = ["EventBus", "EventStream", "Subscription"]

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)

_logger = logging.getLogger("rtvoice.events")

QUEUED = 1000
"""Events that wait for one subscriber at most, if it does not ask for another number."""


class _Queue:
    """Events that wait for one subscriber: bounded, the oldest go first. Filled on any thread."""

    def __init__(self, kinds: tuple[type[Any], ...], limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_queued is {limit}; it must be 1 or more")
        self.kinds = kinds
        self.dropped = 0
        """How many events were thrown away because the subscriber was too slow."""
        self._limit = limit
        self._events: collections.deque[Any] = collections.deque()
        self._lock = threading.Lock()

    def _add(self, event: Any) -> bool:
        """Add an event. Return whether one was thrown away for it."""
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
        """Take an event, on any thread."""
        raise NotImplementedError


class Subscription(_Queue, Generic[E]):
    """What `EventBus.subscribe` returns: the handle by which to unsubscribe.

    It is a context manager, and it can be called, both of which unsubscribe.

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
        """Have the handler called no more, not even for events that wait; again: do nothing."""
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
        """Take an event, on any thread."""
        if self._add(event) and (self.dropped & (self.dropped - 1)) == 0:  # 1, 2, 4, 8, …
            _logger.warning(
                "%r is too slow: %d events were dropped so far, the oldest first",
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
            self._work()  # one may have come after the last look

    async def _run(self) -> None:
        while not self._closed and (event := self._next()) is not None:
            try:
                result = self.handler(event)
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError:
                if cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                    raise
                _logger.warning("%r was cancelled by something it awaited", self, exc_info=True)
            except Exception:
                _logger.exception("%r raised", self)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the handler now, if anything does."""
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
        """The reader's loop, which may be another than the agent's."""

    def put(self, event: Any) -> None:
        """Take an event, on any thread."""
        self._add(event)
        self._wake()

    def end(self) -> None:
        """Take note that there will be no more; on any thread."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Stop listening; what was not read is thrown away."""
        with self._lock:
            self._events.clear()
        self._bus.remove(self)
        self.end()

    def _wake(self) -> None:
        if self._reader is not None and self._news is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._reader.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[E_co]:
        self._news = news = asyncio.Event()
        self._reader = asyncio.get_running_loop()
        try:
            while True:
                news.clear()
                if (event := self._next()) is not None:
                    yield event
                elif self._ended:
                    return
                else:
                    await news.wait()
        finally:
            self.close()


class EventBus:
    """Passes events on to those who have subscribed to their type; `Agent.event_bus`.

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
        """Take what is done with events that a program publishes.

        Args:
            publish: is given each.
            changed: is called when what is subscribed to has changed.
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
        """Have a handler called with each event of a type, before, during or after the run.

        Handlers run on the agent's event loop, one event after the other. One that raises is
        logged with its traceback under ``rtvoice.events``; one that is slow is not waited for by
        anybody else.

        Args:
            kind: a class of `rtvoice.events`, a base class of some, or one of your own that you
                publish.
            handler: a function or a coroutine function of one argument, the event.
            max_queued: events that may wait for the handler, 1 or more; past that the oldest is
                dropped, counted in ``dropped`` of the handle, and told as a warning.

        Returns:
            The handle by which to unsubscribe.

        Raises:
            TypeError: ``kind`` is no class, or ``handler`` cannot be called.
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
        """Undo `subscribe` by what was given to it; not subscribed: do nothing."""
        for subscription in list(self._subscriptions):
            if subscription.kinds == (kind,) and subscription.handler == handler:
                subscription.unsubscribe()

    def publish(self, event: object) -> None:
        """Publish an event.

        `StopAgentCommand` stops the agent. Client events go through the rules of the conversation:
        `ResponseCreateEvent` asks for an answer when nobody speaks, `ResponseCancelEvent`
        interrupts, `SessionUpdateEvent` changes settings, `InputAudioBufferAppendEvent` is captured
        audio (with ``audio_input="program"``). Messages of your own components are sent to them.
        Events of your own types reach their subscribers.

        Raises:
            EventError: such an event cannot be published, and why.
            NotRunningError: the agent does not run.
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
        """Forget a subscriber."""
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
        """Everything that is subscribed to."""
        with self._lock:
            queues: list[_Queue] = [*self._subscriptions, *self._streams]
        return {kind for queue in queues for kind in queue.kinds}

    def deliver(self, event: object) -> None:
        """Pass an event on to its subscribers, from any thread; between conversations, to none."""
        if self._loop is None:
            return
        queues = self._matching.get(type(event))
        for queue in self._match(type(event)) if queues is None else queues:
            queue.put(event)

    def _match(self, kind: type[Any]) -> tuple[_Queue, ...]:
        with self._lock:
            queues: list[_Queue] = [*self._subscriptions, *self._streams]
            found = tuple(queue for queue in queues if issubclass(kind, queue.kinds))
            if not self._streams:  # they come and go by themselves
                self._matching[kind] = found
            return found

    def bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Have handlers run on this loop from now on, in the context of the caller."""
        self._loop = loop
        self._context = contextvars.copy_context()

    def on_loop(self, call: Callable[[], None]) -> None:
        """Have something done on the loop."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(call, context=self._context)

    def end_streams(self) -> None:
        """End all streams; on the loop."""
        for stream in list(self._streams):
            stream.end()

    async def drain(self, timeout_s: float) -> None:
        """Wait until handlers have handled what there is; cancel those that take longer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await asyncio.sleep(0)  # what was put on other threads before this gets its task
        while tasks := self._tasks():
            left_s = deadline - loop.time()
            _, late = await asyncio.wait(tasks, timeout=max(0.0, left_s))
            if late and loop.time() >= deadline:
                for task in late:
                    task.cancel()
                _logger.warning(
                    "%d handlers were still busy %g s after the end and are cancelled",
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
