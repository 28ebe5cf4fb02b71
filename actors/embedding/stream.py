"""Delivers the messages of a session to a program."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from actors.embedding.loop_end import running_loop
from messages import Message

__all__ = ["EventStream", "Listener"]


class Listener(Protocol):
    """The interface of a receiver of messages, such as `EventStream`."""

    @property
    def kinds(self) -> tuple[type[Message], ...]:
        """The types of the messages to receive; after a change, call `Session.subscribe`."""

    def put(self, message: Message | None) -> None:
        """Receive a message, or None at the session's end.

        It is called on the event loop of the session or on its reading thread, for one message at a
        time, and must return at once.
        """


class EventStream:
    """Messages of a session for one reader; iterate with ``for`` in a thread or ``async for``.

    It ends with the session. If the reader is slower than the session, the oldest messages are
    dropped, and counted in ``dropped``.
    """

    def __init__(
        self,
        kinds: tuple[type[Message], ...],
        limit: int,
        on_close: Callable[[EventStream], None],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Begin empty.

        Args:
            kinds: The types of the messages to receive.
            limit: Number of messages that may wait.
            on_close: Called when the reader closes it.
            waiting: Returns the context in which `get` waits.
        """
        self.kinds = kinds
        self.dropped = 0
        self._limit = limit
        self._on_close = on_close
        self._waits = waiting
        self._messages: collections.deque[Message] = collections.deque()
        self._news = threading.Condition()
        self._ended = False
        self._waker: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, message: Message | None) -> None:
        """Add a message; None ends the stream."""
        with self._news:
            if message is None:
                self._ended = True
            else:
                if len(self._messages) >= self._limit:
                    self._messages.popleft()
                    self.dropped += 1
                self._messages.append(message)
            self._news.notify_all()
            waker = self._waker
        if waker is not None:
            if running_loop() is waker[0]:
                waker[1].set()
                return
            with contextlib.suppress(RuntimeError):  # the reader's loop is closed
                waker[0].call_soon_threadsafe(waker[1].set)

    def get(self, timeout_s: float | None = None) -> Message | None:
        """Wait for the next message and return it; None: the session has ended.

        Args:
            timeout_s: How long to wait at most; None: without limit.

        Raises:
            TimeoutError: If no message came in time.
        """
        with self._news:
            is_there = bool(self._messages or self._ended)
        with contextlib.nullcontext() if is_there else self._waits(), self._news:
            if not self._news.wait_for(lambda: self._messages or self._ended, timeout_s):
                raise TimeoutError(f"no event came within {timeout_s} s")
            return self._messages.popleft() if self._messages else None

    def close(self) -> None:
        """Stop listening."""
        self._on_close(self)
        self.put(None)

    def __iter__(self) -> Iterator[Message]:
        while (message := self.get()) is not None:
            yield message

    async def __aiter__(self) -> AsyncIterator[Message]:
        woken = asyncio.Event()
        self._waker = (asyncio.get_running_loop(), woken)
        while True:
            with self._news:
                message = self._messages.popleft() if self._messages else None
                ended = self._ended
                if message is None:
                    woken.clear()
            if message is not None:
                yield message
            elif ended:
                return
            else:
                await woken.wait()
