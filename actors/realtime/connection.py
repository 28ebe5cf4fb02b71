"""One websocket to the server, which is read and written on the actor's thread and never blocks it.

Only connecting blocks (name, proxy, TCP, TLS, HTTP), and has a thread. Then the socket is in the
same wait as the actor's messages: an event of the server costs one wake-up.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from messages.urls import secrets_of, shown

if TYPE_CHECKING:
    from actors.base import Source
    from actors.inbox import Timer
    from actors.realtime.websocket import Socket

__all__ = [
    "Arrived",
    "Connection",
    "Loop",
    "PingAnswered",
    "ReceivedText",
    "WebsocketClosed",
    "WebsocketOpened",
    "WebsocketRefused",
]

STALL_S = 5.0
"""A connection that accepts no byte of what waits for this long counts as lost."""
PING_S, PONG_S = 5.0, 10.0
"""Interval of pings, and how long their answer may take. So a silent loss of the network is noticed
after 15 s at most, while the microphone can still replay the audio: it holds 30 s."""
_END_S = 0.5
"""How long a server that has closed the websocket may take to close the connection."""
_WAITING = 20_000
"""At most this many messages wait to be sent: more than a new session is sent at once, and more
than accumulate in `STALL_S`."""
_UNREAD = 50_000
"""At most this many received messages wait to be handled; with more, the connection is aborted."""
_STALLED = "the server accepts no more data"
_SHORTEST_SECRET = 8
"""Shorter keys are not removed from texts: for servers of their own people set keys such as "x",
which is part of many words."""


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


class PingAnswered(msgspec.Struct):
    """The server has answered a ping."""

    round_trip_s: float


Arrived = WebsocketOpened | WebsocketRefused | WebsocketClosed | ReceivedText | PingAnswered


class Loop(Protocol):
    """What a connection needs of the actor: see `actors.base.Actor`."""

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the actor's thread; from any thread."""

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Run ``call`` later."""

    def watch(self, source: Source, ready: Callable[[], None], *, write: bool = False) -> None:
        """Run ``ready`` whenever the source can be read or, with ``write``, written to."""

    def unwatch(self, source: Source) -> None:
        """End a watch."""


class Connection:
    """A websocket, from the attempt to connect to its end. It is used once, on the actor's thread.

    It is in `Actor.keep`, so it survives an actor that raises; the next actor calls `attend` again.
    What has arrived, and what waits to be sent, is still there then.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        secret: str = "",
        may_send: Callable[[], bool] | None = None,
    ) -> None:
        self.arrived: collections.deque[Arrived] = collections.deque()
        """What has happened, in order; the actor removes it."""
        self._url = url
        self._may_send = may_send
        self._headers = dict(headers)
        secrets = [each for each in (secret, *secrets_of(url)) if len(each) >= _SHORTEST_SECRET]
        self._secrets = [each.encode() for each in secrets]
        self._loop: Loop
        self._news: Callable[[], None] = _do_nothing
        self._socket: Socket | None = None
        """None: it is not open, or has ended."""
        self._over = False
        self._lock = threading.Lock()
        """For `_socket` and `_over`, while a thread connects."""
        self._is_attended = self._watches_writing = False
        self._checks_stall = self._awaits_end = False
        """Whether these timers run."""
        self._thread = threading.Thread(target=self._connect, name="connecting", daemon=True)

    def attend(self, loop: Loop, news: Callable[[], None]) -> None:
        """Belong to an actor: ``news`` is called on its thread whenever something has arrived."""
        self._loop, self._news = loop, news
        # The watch and the timers of an actor that has raised are gone.
        self._is_attended = self._checks_stall = self._awaits_end = False
        loop.post(self._begin)

    def start(self) -> None:
        """Begin to connect; the outcome is put into `arrived`."""
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Send a text message. What the socket does not accept at once is sent later, in order.

        It raises nothing: the end of the connection is reported through `arrived`.
        """
        socket = self._socket
        if socket is None:
            return
        if socket.waiting >= _WAITING:
            self.abort(_STALLED)
            return
        socket.send(data)
        if socket.waiting or socket.is_broken:
            self._settle(socket)

    def is_over(self) -> bool:
        """Return whether the connection has ended, or could not be opened."""
        return self._over

    def is_sending(self) -> bool:
        """Return whether messages wait for the socket."""
        return self._socket is not None and self._socket.waiting > 0

    def abort(self, reason: str = "") -> None:
        """End the connection at once, in any state."""
        if (socket := self._leave()) is not None:
            socket.close()
            self._arrive(WebsocketClosed(1006, reason))

    def close(self) -> None:
        """End the connection with a closing handshake; waits at most a second."""
        if (socket := self._leave()) is not None:
            socket.say_goodbye()

    def close_soon(self) -> None:
        """Close on a thread of its own, without waiting."""
        if (socket := self._leave()) is not None:
            threading.Thread(target=socket.say_goodbye, name="closing", daemon=True).start()

    def _leave(self) -> Socket | None:
        """End the use of the connection; return its socket, if it is open, for it to be closed."""
        with self._lock:  # a thread that connects closes the socket then
            self._over = True
            socket, self._socket = self._socket, None
        if socket is not None:
            self._loop.unwatch(socket)
        return socket

    # -- on the thread that connects ----------------------------------------------------------

    def _connect(self) -> None:
        from actors.realtime import websocket

        try:
            socket = websocket.connect(self._url, self._headers)
        except Exception as error:  # noqa: BLE001 - any exception means: no connection
            self._over = True
            status, code, text = websocket.explain(error, self._url)
            self.arrived.append(WebsocketRefused(status, code, self._clean(text)))
        else:
            socket.may_send = self._may_send
            with self._lock:
                if is_used := not self._over:
                    # First of all: an actor that comes now begins to read the socket at once.
                    self.arrived.append(WebsocketOpened(socket.server_ns))
                    self._socket = socket
            if not is_used:
                socket.say_goodbye()
                self.arrived.append(WebsocketClosed(1006, ""))
        self._loop.post(self._begin)

    # -- on the actor's thread ----------------------------------------------------------------

    def _begin(self) -> None:
        """Report what has arrived, and begin to read the socket if it is open."""
        socket = self._socket
        if socket is None or self._is_attended:
            self._news()
            return
        self._is_attended, self._watches_writing = True, socket.wants_write
        self._loop.watch(socket, self._proceed, write=self._watches_writing)
        self._loop.after(PING_S, self._keep_alive)
        self._proceed()  # also for what came with the response, or was read by our predecessor

    def _proceed(self) -> None:
        """Read and write what is possible, and report what has arrived."""
        socket = self._socket
        if socket is None:
            return
        self._receive(socket)
        socket.flush()
        self._settle(socket)
        self._news()

    def _receive(self, socket: Socket) -> None:
        pinged_s = socket.pinged_s
        messages = socket.receive()
        read_ns = time.monotonic_ns()
        if pinged_s is not None and socket.pinged_s is None and socket.round_trip_s is not None:
            self.arrived.append(PingAnswered(socket.round_trip_s))
        for data in messages:
            for secret in self._secrets:
                if secret in data:
                    data = data.replace(secret, b"[key]")  # noqa: PLW2901 - what is left is used
            self.arrived.append(ReceivedText(data, read_ns))

    def _settle(self, socket: Socket) -> None:
        """After reading or writing: end what is over, and wait for what is to come."""
        if socket.is_over:
            self._finish(socket)
            return
        if len(self.arrived) > _UNREAD:
            self.abort("too many events wait to be handled")
            return
        if socket.wants_write != self._watches_writing:
            self._watches_writing = socket.wants_write
            self._loop.watch(socket, self._proceed, write=self._watches_writing)
        if socket.waiting and not self._checks_stall:
            self._checks_stall = True
            self._loop.after(STALL_S / 5, self._check_stall)
        if (socket.is_closing or socket.is_broken) and not self._awaits_end:
            self._awaits_end = True
            self._loop.after(_END_S, self._end_anyway)
        if socket.has_more():
            self._loop.post(self._proceed)

    def _finish(self, socket: Socket) -> None:
        code, reason = socket.ending()
        if self._leave() is not None:
            socket.close()
            self._arrive(WebsocketClosed(code, self._clean(reason)))

    def _arrive(self, event: Arrived) -> None:
        self.arrived.append(event)
        self._loop.post(self._news)

    def _check_stall(self) -> None:
        """Abort the connection if the socket accepts nothing of what waits for `STALL_S`."""
        self._checks_stall = False
        if (socket := self._socket) is None:
            return
        # The system reports a socket as writable only when a third of its buffer is free, which can
        # take longer than this on a slow line.
        socket.flush()
        if socket.waiting and time.monotonic() - socket.progress_s >= STALL_S:
            self.abort(_STALLED)
            return
        self._settle(socket)

    def _keep_alive(self) -> None:
        """Send a ping, or abort the connection if the last one is not answered for `PONG_S`."""
        if (socket := self._socket) is None:
            return
        self._loop.after(PING_S, self._keep_alive)
        if socket.pinged_s is not None:
            self._proceed()  # the answer may be there, if our process was stopped for a while
            if self._socket is None:  # the end was there, or the actor has closed it
                return
        if socket.pinged_s is None:
            socket.ping()
            self._settle(socket)
        elif time.monotonic() - socket.pinged_s >= PONG_S:
            self.abort("the server does not answer a ping")

    def _end_anyway(self) -> None:
        """End the connection of a server that does not do so after the closing handshake."""
        if (socket := self._socket) is not None:
            self._finish(socket)

    def _clean(self, text: str) -> str:
        text = text.replace(self._url, shown(self._url))
        for secret in self._secrets:
            text = text.replace(secret.decode(), "[key]")
        return text


def _do_nothing() -> None:
    pass
