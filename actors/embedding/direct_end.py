"""The program's end of what goes straight between it and the components of a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from actors.embedding.loop_end import running_loop
from messages import Message, decode
from messages.transport.direct import DirectInbox, DirectSender

__all__ = ["DirectEnd"]


class DirectEnd:
    """Sends datagrams to the components, and has an event loop wait for theirs.

    All but `send`, `drain`, `leave` and `was_ahead` belong on the loop's thread.

    Args:
        base: The beginning of all addresses; see `DirectSender`.
        tags: The types to receive.
        loop: The running loop.
        readable: Called on the loop when something has come.
    """

    def __init__(
        self,
        base: Path,
        tags: Iterable[int],
        loop: asyncio.AbstractEventLoop,
        readable: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sender = DirectSender(base)
        # Only Linux keeps what has arrived when a socket is shut down: see `leave`.
        self._inbox = DirectInbox(base, tags if sys.platform == "linux" else ())
        self._watched = self._inbox.socket
        if self._watched is not None:
            loop.add_reader(self._watched, readable)

    @property
    def receives(self) -> bool:
        """Whether components can send to it."""
        return self._inbox.socket is not None

    def send(self, frame: bytes) -> bool:
        """Send a frame to the component that takes its type; see `DirectSender.send`."""
        return self._sender.send(frame)

    def drain(self) -> Iterator[Message]:
        """Yield what has come."""
        while self._inbox.socket is not None and (frame := self._inbox.take()) is not None:
            yield decode(frame)

    def was_ahead(self, frame: bytes) -> bool:
        """Return whether a frame that comes through the supervisor was handled already."""
        return self._inbox.was_ahead(frame)

    def leave(self) -> None:
        """Receive nothing more; `drain` still yields what has come. From any thread."""
        if self._watched is None:
            self._sender.close()
            return
        # From here on nobody can send to it: no message is accepted and then never read.
        with contextlib.suppress(OSError):
            self._watched.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Release everything; from any thread."""
        self._sender.close()
        watched, self._watched = self._watched, None
        if watched is None:
            return
        if running_loop() is self._loop:
            self._unwatch(watched)
            return
        try:
            self._loop.call_soon_threadsafe(self._unwatch, watched)
        except RuntimeError:  # it is closed
            self._inbox.close()

    def _unwatch(self, watched: socket.socket) -> None:
        self._loop.remove_reader(watched)
        self._inbox.close()
