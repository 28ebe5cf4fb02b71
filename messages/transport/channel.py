"""A channel: frames over one connected socket, for the side that may block.

The hub's own ends never block and are part of its loop; see `messages.transport.loop`.
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
from messages.transport.frame import Splitter, encode

__all__ = ["Channel", "adopt_stdio"]

_READ_BYTES = 65536

_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a process forked from ours (a pool of workers), let go: a copy would hide our end."""
    for channel in list(_channels):
        channel.connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class Channel:
    """Whole frames in and out. Any thread may write; one thread at a time reads."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        _channels.add(self)
        self.frames: collections.deque[bytes] = collections.deque()
        """Frames that have been read and not been taken."""
        self._splitter = Splitter()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.connection.fileno()

    def write(self, message: Message, epoch: int = 0) -> None:
        """Send a message.

        Raises:
            OSError: the other side is gone.
        """
        self.write_frame(encode(message, epoch))

    def write_frame(self, frame: bytes) -> None:
        """Send the frame of a message.

        Raises:
            OSError: the other side is gone.
        """
        with self._lock:
            self.connection.sendall(frame)

    def fill(self) -> None:
        """Read once and put whole frames into `frames`; blocks if there is nothing to read.

        Raises:
            EOFError: the other side is gone.
            FrameError: what came is no frame.
        """
        try:
            size = self.connection.recv_into(self._buffer)
        except ConnectionError:
            size = 0
        data = bytes(self._buffer[:size])
        if not data:
            raise EOFError("the channel has ended")
        self.frames.extend(self._splitter.feed(data))

    def read(self) -> bytes:
        """Return the next frame; blocks until there is one.

        Raises:
            EOFError: the other side is gone.
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
    """Make the channel of a process out of its standard input, and leave nothing of it behind.

    The channel moves to a private descriptor that no subprocess inherits; standard input becomes
    empty and standard output goes where standard error goes, so that a stray ``print`` or a tool's
    own subprocess can neither read nor write nor keep open the channel.
    """
    if sys.platform == "win32":  # a socket is handed over by value there, see supervisor
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
