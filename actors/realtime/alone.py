"""A loop for a `Connection` without an actor: that of the doctor, and of tests."""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType

from actors.base import Source
from actors.inbox import Timer

__all__ = ["Alone"]


class Alone:
    """Runs calls, timers and the calls of watched sockets while its owner waits in `run`.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[Timer] = []
        self._selector = selectors.SelectSelector()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._awake)

    def __enter__(self) -> Alone:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def post(self, call: Callable[[], None]) -> None:
        """See `Loop`."""
        self._calls.append(call)
        with contextlib.suppress(OSError):  # enough wake-ups are pending, or it is over
            self._waker.send(b"x")

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """See `Loop`."""
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def watch(self, source: Source, ready: Callable[[], None], *, write: bool = False) -> None:
        """See `Loop`."""
        self.unwatch(source)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        self._selector.register(source, events, ready)

    def unwatch(self, source: Source) -> None:
        """See `Loop`."""
        with contextlib.suppress(KeyError, RuntimeError):  # it is not watched, or all is over
            self._selector.unregister(source)

    def run(self, until: Callable[[], object], timeout_s: float) -> bool:
        """Run what there is to run until a condition holds; return False if it does not in time."""
        end_s = time.monotonic() + timeout_s
        while not until():
            now_s = time.monotonic()
            if now_s >= end_s:
                return False
            due = [timer for timer in self._timers if timer.due <= now_s]
            self._timers = [timer for timer in self._timers if timer.due > now_s]
            self._calls.extend(timer.call for timer in due if timer.call is not None)
            if self._calls:
                self._calls.popleft()()
                continue
            next_s = min([end_s, *(timer.due for timer in self._timers)])
            for key, _ in self._selector.select(max(0.0, next_s - now_s)):
                self._calls.append(key.data)
        return True

    def _awake(self) -> None:
        self._woken.recv(4096)
