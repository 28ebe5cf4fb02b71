"""The websocket, based on the `websockets` package; imported by the thread that connects.

Importing that package takes about 60 ms, so no other module of the component imports it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket as sockets
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from websockets.exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.frames import DATA_OPCODES, Frame
from websockets.sync import client
from websockets.sync.client import get_proxy  # type: ignore[attr-defined] # it has moved twice
from websockets.uri import parse_uri

from actors.realtime.address import is_local
from messages.hints import install

__all__ = ["USER_AGENT", "Socket", "connect", "explain"]

USER_AGENT = "rtvoice/0.1.0"
"""A constant, because looking the version up with `importlib.metadata` takes longer than
connecting."""
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
PING_S, PONG_S = 5.0, 10.0
"""Interval of pings, and how long their answer may take. So a silent loss of the network is noticed
after 15 s at most, while the microphone can still replay the audio: it holds 30 s."""


class Socket(client.ClientConnection):
    """A websocket that passes each message on, on the thread that reads the network.

    `recv` would need a second thread and one more wake-up per message.
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
        """Handle an event of the protocol: the handshake, or a frame."""
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
        """Return the socket's descriptor; negative: it is closed."""
        return self.socket.fileno()

    def server_ns(self) -> int | None:
        """Return the server's unix time at the handshake, in ns; None: it sent no date."""
        date = self.response.headers.get("Date") if self.response is not None else None
        try:
            return int(parsedate_to_datetime(date).timestamp()) * 1_000_000_000 if date else None
        except (ValueError, OverflowError):
            return None

    def write(self, data: bytes) -> None:
        """Send a text message; blocks while the socket's buffer is full. Never raises."""
        with contextlib.suppress(WebSocketException, OSError):
            self.send(data, text=True)

    def wait(self) -> tuple[int, str]:
        """Wait until the connection has ended. Return its close code and reason."""
        self.recv_events_thread.join()
        return self.protocol.close_code or 1006, self.protocol.close_reason or ""

    def say_goodbye(self) -> None:
        """Close with a handshake; waits for the server's reply for at most `CLOSE_TIMEOUT_S`."""
        with contextlib.suppress(WebSocketException, OSError):
            self.close()

    def abort(self) -> None:
        """Break the connection, from any thread, even if other threads are blocked in it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(sockets.SHUT_RDWR)


def connect(
    url: str,
    headers: Mapping[str, str],
    on_open: Callable[[Socket], None],
    on_message: Callable[[Any], None],
) -> Socket:
    """Open a websocket. It calls both functions on its own thread, ``on_open`` first.

    Raises:
        Exception: The websocket could not be opened; `explain` returns the reason.
    """

    def create(*args: Any, **kwargs: Any) -> Socket:
        return Socket(*args, on_open=on_open, on_message=on_message, **kwargs)

    connection = client.connect(
        url,
        additional_headers=dict(headers),
        user_agent_header=USER_AGENT,
        compression=None,
        max_size=None,  # the default of 1 MiB would close the connection on a long event
        ping_interval=PING_S,
        ping_timeout=PONG_S,
        proxy=_proxy_for(url),
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        create_connection=cast(type[Socket], create),  # a function will do: it is only called
    )
    assert isinstance(connection, Socket)
    return connection


def explain(error: Exception, url: str = "") -> tuple[int, str, str]:
    """Return why a websocket could not be opened.

    Args:
        error: The exception of `connect`.
        url: The URL of the server.

    Returns:
        The HTTP status, or 0; the code of the error in the body, or our own, or an empty string;
        and the reason in one line, for people.
    """
    match error:
        case InvalidStatus():
            return _refused(error)
        case InvalidURI():
            return 0, "invalid_url", "it is not a ws:// or wss:// URL"
        case ssl.SSLCertVerificationError(verify_message=why):
            return 0, "untrusted_certificate", f"the server's certificate is not trusted ({why})"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return 0, "no_tls", "it does not speak TLS"
        case ssl.SSLError(reason=why):
            return 0, "", f"TLS fails ({str(why).lower().replace('_', ' ')})"
        case InvalidMessage():
            return 0, "", "it does not answer in HTTP (should its address begin with wss://?)"
    if proxy := _proxy_of(url):
        return 0, "", _through(proxy, error, _variable_of(url))
    return 0, "", _in_words(error, url)


def _through(proxy: str, error: Exception, variable: str) -> str:
    match error:
        case InvalidProxyStatus(response=response):
            what = f"the proxy {proxy} refuses (HTTP {response.status_code})"
        case ImportError():
            return f"the SOCKS proxy {proxy} needs a package: {install('python-socks')}"
        case InvalidProxy() | ProxyError():
            what = f"{variable} is not a valid proxy; write it as http://host:port"
            return f"{what}, or have NO_PROXY name the server"
        case _:
            what = f"no connection through the proxy {proxy} ({_in_words(error, '')})"
    return f"{what}; is {variable} right, or should NO_PROXY name the server?"


def _in_words(error: Exception, url: str) -> str:
    match error:
        case sockets.gaierror():
            host = urlsplit(url).hostname or "its name"
            return f"{host} is not known (a wrong name, or no network)"
        case TimeoutError():
            return f"no answer within {OPEN_TIMEOUT_S:.0f} s"
        case ConnectionRefusedError():
            return "nothing listens there (Connection refused)"
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH, strerror=why):
            return f"there is no route to it ({why})"
        case OSError(strerror=str(why)):
            return why
    return (str(error).splitlines() or [type(error).__name__])[0]


def _proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for a server, from the environment; None: no proxy.

    As for curl, ``host:port`` means an HTTP proxy.
    """
    if is_local(url):
        return None
    proxy = get_proxy(parse_uri(url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _variable_of(url: str) -> str:
    """Return the name of the environment variable that holds the proxy for a URL."""
    proxy = get_proxy(parse_uri(url))
    named = [
        name
        for name in os.environ
        if name.lower().endswith("_proxy") and os.environ[name] in (proxy, f"http://{proxy}")
    ]
    return named[0].upper() if named else "HTTPS_PROXY"


def _proxy_of(url: str) -> str:
    """Return host and port of the proxy for a URL, without its password; empty: no proxy."""
    if not url or is_local(url):
        return ""
    try:
        return urlsplit(_proxy_for(url) or "").netloc.rpartition("@")[2]
    except (WebSocketException, ValueError):
        return ""


def _words_of(body: bytes | bytearray) -> tuple[str, str]:
    """Return code and message of a JSON error body; gateways use more than one shape."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(whole, dict):
        return "", ""
    error = whole.get("error")
    fields = error if isinstance(error, dict) else whole
    code = fields.get("code") or fields.get("type") or ""
    words = (error, fields.get("message"), fields.get("detail"))
    message = next((text for text in words if isinstance(text, str)), "")
    return str(code), message


def _refused(error: InvalidStatus) -> tuple[int, str, str]:
    status = error.response.status_code
    code, message = _words_of(error.response.body or b"")
    if status in (401, 403):
        message = ""  # it quotes a part of the key
    text = f"HTTP {status}" + (
        f": {message.splitlines()[0].rstrip('.')}" if message.strip() else ""
    )
    return status, code, text
