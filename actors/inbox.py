"""The inbox of an actor: frames of the channel, posted calls, timers and watched sources."""

from __future__ import annotations

import collections
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from messages import Stop
from messages.transport.channel import Channel

__all__ = ["Inbox", "InboxHost", "Timer"]


_STOP = Stop.tag()


class Timer:
    """A delayed call on the actor's thread."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Prevent the call, if it has not happened."""
        self.call = None


class InboxHost(Protocol):
    """What an inbox needs of the process around the actor."""

    channel: Channel
    epoch: int
    """Epoch of the incarnation that runs; frames for an earlier one are ignored."""
    over: bool
    """Whether no incarnation follows: the hub said stop, or is gone."""

    def wake(self) -> None:
        """End `wait`; from any thread."""

    def wait(self, timeout: float | None) -> list[Callable[[], None]]:
        """Sleep until there are frames, a wake-up, a ready source, or the timeout is over.

        Return the calls of the sources that are ready (`Actor.watch`).
        """


class Inbox:
    """The inbox that Pykka reads: posted calls first, then due timers, then frames."""

    def __init__(self, host: InboxHost) -> None:
        self._host = host
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._asleep = False

    def post(self, call: Callable[[], None]) -> None:
        """Queue a call and wake the actor; from any thread."""
        self._calls.append(call)
        if self._asleep:
            self._host.wake()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Queue a call for later; from the actor's thread."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def put(self, envelope: Envelope[Any]) -> None:
        """Take what Pykka itself sends, which is only its stop message."""
        self._calls.append(envelope.message)
        self._host.wake()

    def empty(self) -> bool:
        """Return True, so that Pykka drains nothing: the rest is for the next incarnation."""
        return True

    def get(self) -> Envelope[Any]:
        """Return the next call, timer or frame; sleeps until there is one."""
        host = self._host
        frames = host.channel.frames
        while True:
            if self._calls:
                return Envelope(self._calls.popleft())
            timeout = None
            while self._timers and timeout is None:
                due, _, timer = self._timers[0]
                if timer.call is None:  # cancelled
                    heapq.heappop(self._timers)
                elif (timeout := due - time.monotonic()) <= 0:
                    heapq.heappop(self._timers)
                    return Envelope(timer.call)
            if frames:
                frame = frames.popleft()
                if frame[5] != host.epoch:
                    continue  # sent to an earlier incarnation
                if frame[4] == _STOP:
                    host.over = True
                    return Envelope(_ActorStop())
                return Envelope(frame)
            if host.over:
                return Envelope(_ActorStop())
            self._asleep = True
            try:
                if not self._calls:  # else it was posted before `_asleep` was set
                    self._calls.extend(host.wait(timeout))
            finally:
                self._asleep = False
