"""One websocket to the server: threads of its own, so that nobody waits for the network.

What comes is put into `Connection.arrived`, and `Connection.wake` is called. What is sent is
written by the caller's thread if the socket takes it at once, which it nearly always does; if not,
by a thread that waits for the socket, in order.
"""

from __future__ import annotations

import collections
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from messages.urls import secrets_of, shown

if TYPE_CHECKING:
    from actors.realtime.websocket import Socket

__all__ = [
    "Arrived",
    "Connection",
    "ReceivedText",
    "WebsocketClosed",
    "WebsocketOpened",
    "WebsocketRefused",
]

STALL_S = 5.0
"""A connection that takes nothing for so long is lost."""
_SLOWEST = 32 * 1024
"""Bytes a second that a line takes at least: an image of 1 MiB may take 40 s."""
_WAITING = 20_000
"""Frames that may wait to be sent: more than a new session is told, or a stall of 5 s needs."""
_UNREAD = 50_000
"""Messages that may wait to be handled; past this nobody handles them any more."""
_SHORTEST_SECRET = 8
"""A shorter key is none: servers of one's own are given "x", which is in many words."""
_DIRECT_BYTES = 16384
"""Larger frames might not fit into the socket's buffer, and are left to the sending thread."""


class WebsocketOpened(msgspec.Struct):
    """The websocket is open."""

    server_ns: int | None = None
    """What the server's clock shows (unix time), to the second; None: it does not say."""


class WebsocketRefused(msgspec.Struct):
    """There is no websocket, and why. Never with the key in it."""

    status: int
    """Of HTTP; 0: it did not come to that."""
    code: str
    """Of an error in the body of the response."""
    text: str


class WebsocketClosed(msgspec.Struct):
    """The websocket was open and has ended."""

    code: int
    reason: str


class ReceivedText(msgspec.Struct):
    """A message of the server."""

    data: bytes
    read_ns: int
    """``time.monotonic_ns()`` when it had been read."""


Arrived = WebsocketOpened | WebsocketRefused | WebsocketClosed | ReceivedText


class Connection:
    """A websocket from the attempt to connect until its end. It is used once.

    Lives in `Actor.keep`, so it survives an actor that raises; the next one sets `wake` anew.
    """

    def __init__(self, url: str, headers: Mapping[str, str], secret: str = "") -> None:
        self.arrived: collections.deque[Arrived] = collections.deque()
        """What happened, in order; taken by the actor."""
        self.wake: Callable[[], None] = _nobody
        """Called, from any thread, when `arrived` was empty and is not any more."""
        self._url = url
        self._headers = dict(headers)
        secrets = [each for each in (secret, *secrets_of(url)) if len(each) >= _SHORTEST_SECRET]
        self._secrets = [each.encode() for each in secrets]
        self._socket: Socket | None = None
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._waiting: collections.deque[bytes] = collections.deque()
        self._more = threading.Condition()
        self._sending = False
        self._progress_s = 0.0
        self._closed = False
        self._over = False
        self._thread = threading.Thread(target=self._run, name="websocket", daemon=True)

    def start(self) -> None:
        """Begin to connect; the outcome is put into `arrived`."""
        self._thread.start()

    def send(self, data: bytes) -> bool:
        """Send a text message. Return False if it has to wait for the socket.

        Nothing is raised: that the connection has ended is told by `arrived`.
        """
        socket = self._socket
        if socket is None or self._over:
            return True
        if not self._sending and len(data) <= _DIRECT_BYTES and self._takes_more(socket):
            socket.write(data)
            return True
        with self._more:
            if len(self._waiting) >= _WAITING:
                self.abort()
                return True
            self._waiting.append(data)
            if not self._sending:
                self._sending = True
                self._progress_s = time.monotonic()
                threading.Thread(target=self._send_waiting, name="sender", daemon=True).start()
        return False

    def is_over(self) -> bool:
        """Tell whether the connection has ended, or never was."""
        return self._over

    def is_sending(self) -> bool:
        """Tell whether something waits for the socket."""
        return self._sending

    def is_stalled(self) -> bool:
        """Tell whether the socket has taken nothing of what waits for `STALL_S`."""
        return self._sending and time.monotonic() - self._progress_s >= STALL_S

    def abort(self) -> None:
        """End the connection at once, whatever its threads wait for."""
        self._over = True
        if self._socket is not None:
            self._socket.abort()

    def close(self) -> None:
        """End the connection, saying so to the server; waits at most a second."""
        self._closed = True
        socket = self._socket
        if socket is not None and not self._sending:
            socket.say_goodbye()
        self.abort()

    def close_soon(self) -> None:
        """Do `close` without waiting."""
        self._closed = True
        threading.Thread(target=self.close, name="closing", daemon=True).start()

    def _takes_more(self, socket: Socket) -> bool:
        if self._poll is not None:
            events = self._poll.poll(0)
            return bool(events) and bool(events[0][1] & select.POLLOUT)
        try:
            return bool(select.select([], [socket.fileno()], [], 0)[1])
        except (OSError, ValueError):
            return True  # it is closed, which writing finds out

    # -- on other threads ---------------------------------------------------------------------

    def _send_waiting(self) -> None:
        """Send what waits, then end."""
        socket = self._socket
        assert socket is not None
        while True:
            with self._more:
                if not self._waiting or self._over:
                    self._waiting.clear()
                    self._sending = False
                    return
                data = self._waiting.popleft()
            # A long frame may take its time, on a slow line.
            self._progress_s = time.monotonic() + len(data) / _SLOWEST
            socket.write(data)
            self._progress_s = time.monotonic()

    def _run(self) -> None:
        from actors.realtime import websocket

        try:
            socket = websocket.connect(
                self._url, self._headers, self._arrive_open, self._arrive_text
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
            self._over = True
            status, code, text = websocket.explain(error, self._url)
            self._arrive(WebsocketRefused(status, code, self._clean(text)))
            return
        if self._closed:
            socket.say_goodbye()
        code_, reason = socket.wait()
        self._over = True
        self._arrive(WebsocketClosed(code_, self._clean(reason)))

    def _arrive_open(self, socket: Socket) -> None:
        """Take note that the websocket is open, before anything comes of it."""
        if self._poll is not None and socket.fileno() >= 0:
            self._poll.register(socket.fileno(), select.POLLOUT)
        self._socket = socket
        self._arrive(WebsocketOpened(socket.server_ns()))

    def _arrive_text(self, data: Any) -> None:
        """Take a message, on the thread that reads the socket."""
        read_ns = time.monotonic_ns()
        data = bytes(data)
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"[key]")
        if len(self.arrived) >= _UNREAD:
            self.abort()
            return
        self._arrive(ReceivedText(data, read_ns))

    def _arrive(self, what: Arrived) -> None:
        self.arrived.append(what)
        # Whoever takes them goes on until there is none: one wake-up for the first is enough.
        if len(self.arrived) == 1:
            self.wake()

    def _clean(self, text: str) -> str:
        text = text.replace(self._url, shown(self._url))
        for secret in self._secrets:
            text = text.replace(secret.decode(), "[key]")
        return text


def _nobody() -> None:
    pass
