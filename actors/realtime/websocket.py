"""The websocket itself, on the `websockets` package; imported by the thread that connects.

Importing that package costs some 60 ms, which is why nothing else here does it.
"""

from __future__ import annotations

import contextlib
import json
import socket as sockets
from collections.abc import Callable, Mapping
from typing import Any, cast

from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.sync import client

from actors.realtime.connection import is_local

__all__ = ["USER_AGENT", "Socket", "connect", "explain"]

USER_AGENT = "rtvoice/0.1.0"
"""Written out: asking importlib.metadata takes longer than connecting."""
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
PING_S, PONG_S = 5.0, 10.0
"""A network that is silently gone is noticed after 15 s at most: the microphone remembers 30 s."""


class Socket(client.ClientConnection):
    """A websocket that hands every message over on the thread that reads the network.

    `recv` would cost a second thread and one more wake-up for each message.
    """

    def __init__(
        self,
        *args: Any,
        on_open: Callable[[Socket], None],
        on_message: Callable[[Any], None],
        **kwargs: Any,
    ) -> None:
        self._on_open = on_open
        self._on_message = on_message
        self._parts: list[bytes] = []
        super().__init__(*args, **kwargs)
        self.pending_legacy_warning = False  # `Connection` closes us, no context manager does

    def process_event(self, event: Any) -> None:
        """Take what the protocol has found: the handshake, or a frame of a message."""
        if self.response is None:
            super().process_event(event)
            if self.protocol.handshake_exc is None:
                self._on_open(self)
        elif not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and not self._parts:
            self._on_message(event.data)
        else:
            self._parts.append(bytes(event.data))
            if event.fin:
                data, self._parts = b"".join(self._parts), []
                self._on_message(data)

    def fileno(self) -> int:
        """Return the descriptor to wait on; negative: it is closed."""
        return self.socket.fileno()

    def write(self, data: bytes) -> None:
        """Send a text message; blocks while the socket's buffer is full. Does not raise."""
        with contextlib.suppress(WebSocketException, OSError):
            self.send(data, text=True)

    def wait(self) -> tuple[int, str]:
        """Sleep until the connection has ended. Return its close code and reason."""
        self.recv_events_thread.join()
        return self.protocol.close_code or 1006, self.protocol.close_reason or ""

    def say_goodbye(self) -> None:
        """Close in order; waits for the server's answer for `CLOSE_TIMEOUT_S` at most."""
        with contextlib.suppress(WebSocketException, OSError):
            self.close()

    def abort(self) -> None:
        """Break the connection, from any thread, whatever the others wait for."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(sockets.SHUT_RDWR)


def connect(
    url: str,
    headers: Mapping[str, str],
    on_open: Callable[[Socket], None],
    on_message: Callable[[Any], None],
) -> Socket:
    """Open a websocket. The functions are called on its thread, ``on_open`` first.

    Raises:
        Exception: there is none; `explain` says why.
    """

    def create(*args: Any, **kwargs: Any) -> Socket:
        return Socket(*args, on_open=on_open, on_message=on_message, **kwargs)

    connection = client.connect(
        url,
        additional_headers=dict(headers),
        user_agent_header=USER_AGENT,
        compression=None,
        max_size=None,
        ping_interval=PING_S,
        ping_timeout=PONG_S,
        proxy=None if is_local(url) else True,
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        create_connection=cast(type[Socket], create),  # it is only called
    )
    assert isinstance(connection, Socket)
    return connection


def explain(error: Exception) -> tuple[int, str, str]:
    """Return (HTTP status or 0, code of an error in the body, one line for people)."""
    if isinstance(error, InvalidStatus):
        return _refused(error)
    if isinstance(error, InvalidURI):
        return 0, "invalid_url", "this is no ws:// or wss:// URL"
    if isinstance(error, TimeoutError):
        return 0, "", f"no answer within {OPEN_TIMEOUT_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return 0, "", error.strerror
    return 0, "", (str(error).splitlines() or [type(error).__name__])[0]


def _refused(error: InvalidStatus) -> tuple[int, str, str]:
    status = error.response.status_code
    code = message = ""
    try:
        body = json.loads(error.response.body or b"")["error"]
        code, message = str(body.get("code") or body.get("type") or ""), str(body.get("message"))
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # a body of another kind says nothing to us
    if status in (401, 403):
        message = ""  # it quotes from the key
    text = f"HTTP {status}" + (f": {message.splitlines()[0]}" if message.strip() else "")
    return status, code, text
