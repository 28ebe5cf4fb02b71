"""The hub's event loop and its non-blocking ends of channels.

One thread waits for everything: frames of the components, text that processes print, timers, and
calls from other threads. Apart from this wait, nothing here blocks.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from messages.transport.frame import FrameError, Splitter

__all__ = ["Line", "Loop", "watch_text"]

_READ_BYTES = 65536


class Loop:
    """The event loop of the hub: a selector, timers, and calls from other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """A buffer shared by all readers on this loop; faster than a new one for each read."""
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self.watch(self._woken, lambda _: self._run_calls())

    def watch(self, thing: Any, ready: Callable[[int], None], *, write: bool = False) -> None:
        """Call ``ready`` when ``thing`` can be read (or also written)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if thing in self._selector.get_map():
            self._selector.modify(thing, events, ready)
        else:
            self._selector.register(thing, events, ready)

    def unwatch(self, thing: Any) -> None:
        """Stop watching ``thing``."""
        self._selector.unregister(thing)

    def time(self) -> float:
        """Return the time by the loop's clock, in seconds."""
        return time.monotonic()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run ``call`` after a while, on the loop's thread."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), call))

    def call(self, call: Callable[[], None]) -> None:
        """Run ``call`` soon on the loop's thread; may be used in any thread or signal handler."""
        self._calls.append(call)
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"x")

    def turn(self) -> None:
        """Wait for the next events, and handle them and the timers that are due."""
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        # A handler may close the source of a later event here: therefore `Line._ready` checks it.
        for key, events in self._selector.select(timeout):
            key.data(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Close the loop, and everything that is still watched."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._waker.close()

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()


class Line:
    """The hub's end of a channel: reads and writes frames in its loop, without blocking.

    Args:
        loop: The loop.
        connection: The connected socket.
        on_frame: Called with each frame.
        on_end: Called once when the other side has ended, with the error in its frames, or empty.
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._on_frame = on_frame
        self._on_end = on_end
        self._frames = Splitter()
        self._unsent = bytearray()
        self._closed = False
        connection.setblocking(False)
        loop.watch(connection, self._ready)

    @property
    def unsent(self) -> int:
        """Number of bytes that the socket has not accepted yet."""
        return len(self._unsent)

    def write(self, frames: list[bytes]) -> None:
        """Send frames; bytes that the socket does not accept now are sent later.

        If the other side is gone, nothing is raised here: reading reports its end.
        """
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.watch(self._socket, self._ready, write=True)

    def flush_all(self) -> None:
        """Send everything; the socket must have been made blocking."""
        self._socket.sendall(self._unsent)
        self._unsent.clear()

    def drain(self) -> None:
        """Read what there is to read now."""
        while not self._closed and self._read():
            pass

    def close(self) -> None:
        """Close at once; neither callback is called after this."""
        if not self._closed:
            self._closed = True
            self._loop.unwatch(self._socket)
            self._socket.close()

    def _ready(self, events: int) -> None:
        if self._closed:
            return
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ:
            self._read()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.watch(self._socket, self._ready)

    def _read(self) -> bool:
        """Read once; return whether there was anything."""
        buffer = self._loop.buffer
        try:
            size = self._socket.recv_into(buffer)
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        data = bytes(buffer[:size])
        if not data:
            self.close()
            self._on_end("")
            return False
        try:
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        except FrameError as error:  # nothing after it can be trusted
            self.close()
            self._on_end(f"wrote what is not a message: {error}")
            return False
        return True


def watch_text(
    loop: Loop, source: socket.socket, said: Callable[[str], None]
) -> Callable[[int], None]:
    """Call ``said`` with each line of text from ``source``, until it ends.

    Returns:
        A function that reads the text that is there at once; its argument is ignored.
    """
    rest = b""
    source.setblocking(False)

    def ready(_: int) -> None:
        nonlocal rest
        if source.fileno() < 0:
            return
        try:
            data = source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _READ_BYTES:  # a line without end must not fill the memory
            lines.append(rest)
            rest = b""
        if not data:
            loop.unwatch(source)
            source.close()
            lines.append(rest)
        for line in lines:
            if line.strip():
                said(line.decode("utf-8", "replace").rstrip())

    loop.watch(source, ready)
    return ready
