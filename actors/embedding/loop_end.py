"""The program's end of a channel on its event loop, without a thread between the two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from messages.transport.channel import AT_ONCE, Channel

__all__ = ["LoopEnd", "can_watch", "running_loop"]


def can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop runs and may watch a channel; that of Windows may not."""
    return AT_ONCE is not None and loop.is_running() and not loop.is_closed()


class LoopEnd:
    """Has an event loop wait until a channel can be read or written.

    All but `call` and `leave` belong on the loop's thread.

    Args:
        loop: The running loop.
        channel: The channel.
        readable: Called on the loop when the channel can be read.

    Raises:
        NotImplementedError: If the loop cannot watch sockets.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, channel: Channel, readable: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._socket = channel.duplicate()
        self._writes = False
        try:
            loop.add_reader(self._socket, readable)
        except BaseException:
            self._socket.close()
            raise

    def call(self, call: Callable[[], object]) -> None:
        """Run ``call`` on the loop; from any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed, which the session notices
            if running_loop() is self._loop:
                self._loop.call_soon(call)
            else:
                self._loop.call_soon_threadsafe(call)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run ``call`` on the loop after a while; from any thread."""
        self.call(lambda: self._loop.call_later(seconds, call))

    def when_writable(self, call: Callable[[], None] | None) -> None:
        """Call this each time the channel takes more; None: do not."""
        if self._socket.fileno() < 0:
            return
        if call is not None and not self._writes:
            self._loop.add_writer(self._socket, call)
        elif call is None and self._writes:
            self._loop.remove_writer(self._socket)
        self._writes = call is not None

    def leave(self) -> None:
        """Stop watching; from any thread, also if the loop is closed or blocked."""
        if running_loop() is self._loop:
            self._close()
            return
        try:
            self._loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # it is closed
            self._socket.close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self.when_writable(None)
            self._loop.remove_reader(self._socket)
            self._socket.close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread; None: there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
