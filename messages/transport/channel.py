"""A channel: blocking exchange of frames over a connected socket.

The hub uses non-blocking ends in its loop instead; see `messages.transport.loop`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import sys
import threading
import weakref

from messages.base import Message
from messages.transport.frame import HEAD_BYTES, Splitter, encode, missing_bytes

__all__ = ["AT_ONCE", "Channel", "adopt_stdio"]

AT_ONCE: int | None = getattr(socket, "MSG_DONTWAIT", None)
"""Flag for a call that does not block on a blocking socket; None: there is none (Windows)."""
_READ_BYTES = 65536

_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
_duplicates: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Close the channels in a process forked from ours, such as a worker of a pool.

    While it kept a copy of the socket open, the hub would not notice our end.
    """
    for channel in list(_channels):
        channel.connection.close()
    for duplicate in list(_duplicates):
        duplicate.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class Channel:
    """Reads and writes whole frames; any thread may write, but only one thread may read."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        _channels.add(self)
        self.frames: collections.deque[bytes] = collections.deque()
        """Frames that were read from the socket but not returned by `read` yet."""
        self._splitter = Splitter()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.connection.fileno()

    def write(self, message: Message, epoch: int = 0) -> None:
        """Send a message.

        Raises:
            OSError: If the other side is gone.
        """
        self.write_frame(encode(message, epoch))

    def write_frame(self, frame: bytes) -> None:
        """Send the frame of a message.

        Raises:
            OSError: If the other side is gone.
        """
        with self._lock:
            self.connection.sendall(frame)

    def send_at_once(self, frame: bytes, start: int) -> int:
        """Send what the socket takes of a frame from this byte on; return how much that is.

        Use it only where no other thread writes, and if `AT_ONCE` is not None.

        Raises:
            BlockingIOError: If the socket is full.
            OSError: If the other side is gone.
        """
        assert AT_ONCE is not None
        return self.connection.send(memoryview(frame)[start:], AT_ONCE)

    def duplicate(self) -> socket.socket:
        """Return the socket on another descriptor, for an event loop to watch.

        So the loop never watches a descriptor that another thread has closed, and that may belong
        to something else by now. A forked process closes it.
        """
        duplicate = self.connection.dup()
        _duplicates.add(duplicate)
        return duplicate

    def read_first(self) -> bytes:
        """Return the first frame without reading a byte more: another reader takes the channel.

        Raises:
            EOFError: If the other side is gone.
            FrameError: If the bytes are not a frame.
        """
        data = b""
        while missing := HEAD_BYTES - len(data) if len(data) < HEAD_BYTES else missing_bytes(data):
            try:
                piece = self.connection.recv(missing)
            except ConnectionError:
                piece = b""
            if not piece:
                raise EOFError("the channel has ended")
            data += piece
        return data

    def fill(self, flags: int = 0) -> None:
        """Read once and append whole frames to `frames`; blocks if there is nothing to read.

        Args:
            flags: `AT_ONCE`, or 0.

        Raises:
            BlockingIOError: If there is nothing to read, with `AT_ONCE`.
            EOFError: If the other side is gone.
            FrameError: If the bytes are not a frame.
        """
        try:
            # Not into a buffer: that is one copy more.
            data = self.connection.recv(_READ_BYTES, flags)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError("the channel has ended")
        self.frames.extend(self._splitter.feed(data))

    def read(self) -> bytes:
        """Return the next frame; blocks until there is one.

        Raises:
            EOFError: If the other side is gone.
            FrameError: If the bytes are not a frame.
        """
        while not self.frames:
            self.fill()
        return self.frames.popleft()

    def close(self) -> None:
        """Close the connection; a reader gets EOFError."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def adopt_stdio() -> Channel:
    """Return the channel that a process inherited as its standard input, on another descriptor.

    No subprocess inherits the new descriptor. Standard input becomes empty, and standard output
    goes to standard error. So neither a stray ``print`` nor a subprocess of a tool can read from
    the channel, write to it or keep it open.
    """
    if sys.platform == "win32":  # `spawn` writes a copy of the socket there
        size = int.from_bytes(sys.stdin.buffer.read(4), "little")
        connection = socket.fromshare(sys.stdin.buffer.read(size))
    else:
        connection = socket.socket(fileno=os.dup(0))
    connection.setblocking(True)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return Channel(connection)
