"""One websocket to the server, with its own threads, so that the actor never waits for the network.

Events go into `Connection.arrived`, and `Connection.wake` is called. A message to send is written
by the caller's thread if the socket accepts it at once, as it nearly always does; otherwise a
sending thread writes the waiting messages, in order.
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
"""A connection that accepts no data for this long counts as lost."""
_SLOWEST = 32 * 1024
"""Bytes per second of the slowest line that is supported: an image of 1 MiB may take 40 s."""
_WAITING = 20_000
"""At most this many messages wait to be sent: more than a new session is sent at once, and more
than accumulate in `STALL_S`."""
_UNREAD = 50_000
"""At most this many received messages wait to be handled; with more, the connection is aborted."""
_SHORTEST_SECRET = 8
"""Shorter keys are not removed from texts: for servers of their own people set keys such as "x",
which is part of many words."""
_DIRECT_BYTES = 16384
"""Larger messages may not fit into the socket's buffer, so the sending thread writes them."""


class WebsocketOpened(msgspec.Struct):
    """The websocket is open."""

    server_ns: int | None = None
    """Unix time by the server's clock, in whole seconds; None: the server sent no date."""


class WebsocketRefused(msgspec.Struct):
    """The websocket could not be opened. No field contains the key."""

    status: int
    """HTTP status; 0: there was no HTTP response."""
    code: str
    """Code of the error in the body of the response, or our own; empty: unknown."""
    text: str
    """The reason, for people."""


class WebsocketClosed(msgspec.Struct):
    """The websocket was open and has ended."""

    code: int
    reason: str


class ReceivedText(msgspec.Struct):
    """A message of the server."""

    data: bytes
    read_ns: int
    """``time.monotonic_ns()`` when it was read from the socket."""


Arrived = WebsocketOpened | WebsocketRefused | WebsocketClosed | ReceivedText


class Connection:
    """A websocket, from the attempt to connect to its end. It is used once.

    It is in `Actor.keep`, so it survives an actor that raises; the next actor sets `wake` again.
    """

    def __init__(self, url: str, headers: Mapping[str, str], secret: str = "") -> None:
        self.arrived: collections.deque[Arrived] = collections.deque()
        """What has happened, in order; the actor removes it."""
        self.wake: Callable[[], None] = _do_nothing
        """Called, from any thread, when something is put into an empty `arrived`."""
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

        It raises nothing: the end of the connection is reported through `arrived`.
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
        """Return whether the connection has ended, or could not be opened."""
        return self._over

    def is_sending(self) -> bool:
        """Return whether messages wait for the socket."""
        return self._sending

    def is_stalled(self) -> bool:
        """Return whether the socket has accepted none of the waiting messages for `STALL_S`."""
        return self._sending and time.monotonic() - self._progress_s >= STALL_S

    def abort(self) -> None:
        """End the connection at once, even if its threads are blocked."""
        self._over = True
        if self._socket is not None:
            self._socket.abort()

    def close(self) -> None:
        """End the connection with a closing handshake; waits at most a second."""
        self._closed = True
        socket = self._socket
        if socket is not None and not self._sending:
            socket.say_goodbye()
        self.abort()

    def close_soon(self) -> None:
        """Close on a thread of its own, without waiting."""
        self._closed = True
        threading.Thread(target=self.close, name="closing", daemon=True).start()

    def _takes_more(self, socket: Socket) -> bool:
        if self._poll is not None:
            events = self._poll.poll(0)
            return bool(events) and bool(events[0][1] & select.POLLOUT)
        try:
            return bool(select.select([], [socket.fileno()], [], 0)[1])
        except (OSError, ValueError):
            return True  # it is closed: writing then does nothing

    # -- on other threads ---------------------------------------------------------------------

    def _send_waiting(self) -> None:
        """Send the waiting messages, then end the thread."""
        socket = self._socket
        assert socket is not None
        while True:
            with self._more:
                if not self._waiting or self._over:
                    self._waiting.clear()
                    self._sending = False
                    return
                data = self._waiting.popleft()
            # A large message on a slow line is no stall: add the time that it may take.
            self._progress_s = time.monotonic() + len(data) / _SLOWEST
            socket.write(data)
            self._progress_s = time.monotonic()

    def _run(self) -> None:
        from actors.realtime import websocket

        try:
            socket = websocket.connect(
                self._url, self._headers, self._arrive_open, self._arrive_text
            )
        except Exception as error:  # noqa: BLE001 - any exception means: no connection
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
        """Report that the websocket is open; called before its first message."""
        if self._poll is not None and socket.fileno() >= 0:
            self._poll.register(socket.fileno(), select.POLLOUT)
        self._socket = socket
        self._arrive(WebsocketOpened(socket.server_ns()))

    def _arrive_text(self, data: Any) -> None:
        """Report a message, on the thread that reads the socket, with secrets replaced."""
        read_ns = time.monotonic_ns()
        data = bytes(data)
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"[key]")
        if len(self.arrived) >= _UNREAD:
            self.abort()
            return
        self._arrive(ReceivedText(data, read_ns))

    def _arrive(self, event: Arrived) -> None:
        self.arrived.append(event)
        # The actor handles events until none is left: one wake-up for the first is enough.
        if len(self.arrived) == 1:
            self.wake()

    def _clean(self, text: str) -> str:
        text = text.replace(self._url, shown(self._url))
        for secret in self._secrets:
            text = text.replace(secret.decode(), "[key]")
        return text


def _do_nothing() -> None:
    pass
