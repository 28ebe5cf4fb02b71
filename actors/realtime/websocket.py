"""The websocket, based on the `websockets` package; imported by the thread that connects.

Importing that package takes about 60 ms, so no other module of the component imports it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import socket as sockets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.sync import client
from websockets.sync.client import get_proxy  # type: ignore[attr-defined] # it has moved twice
from websockets.uri import parse_uri

from actors.realtime.address import is_local
from actors.realtime.frames import FrameSplitter, text_frame
from messages.hints import install

__all__ = ["USER_AGENT", "Socket", "connect", "explain"]

USER_AGENT = "rtvoice/0.1.0"
"""A constant, because looking the version up with `importlib.metadata` takes longer than
connecting."""
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
_READ_BYTES = 65536
_RECORD_BYTES = 16384
"""The longest record of TLS, https://www.rfc-editor.org/rfc/rfc8446#section-5.1."""
_SWITCHING, _END_OF_HEAD = b"HTTP/1.1 101", b"\r\n\r\n"
_READS = 8
"""At most so many reads at once; with TLS, each of them is a record."""


class Socket:
    """An open websocket. It never blocks and never raises; one thread at a time uses it.

    It can be waited for: as long as `wants_write` is false until it can be read, otherwise until it
    can be read or written to. `receive` and `flush` do then what is possible.
    """

    def __init__(
        self,
        connected: sockets.socket,
        protocol: ClientProtocol,
        server_ns: int | None,
        rest: bytes = b"",
    ) -> None:
        """Take over a socket after the handshake.

        Args:
            connected: The socket.
            protocol: What has spoken the handshake; it is given frames only that `FrameSplitter`
                does not unpack.
            server_ns: See the attribute.
            rest: What has come after the handshake.
        """
        self.server_ns = server_ns
        """The server's unix time at the handshake, in ns; None: it sent no date."""
        self.progress_s = 0.0
        """When the waiting messages began to wait or, later, when the socket accepted some bytes of
        them; ``time.monotonic()``."""
        self.pinged_s: float | None = None
        """When the ping was sent that has not been answered yet; None: there is none."""
        self.round_trip_s: float | None = None
        """How long the answer to the last ping took; None: there was none yet."""
        self.may_send: Callable[[], bool] | None = None
        """Is asked before each write; once it says no, nothing is sent any more."""
        self.is_over = False
        """Whether nothing can arrive any more: the server has closed, or the network has failed."""
        self.is_broken = False
        """Whether nothing can be sent any more; what has arrived can still be read."""
        self._socket = connected
        self._protocol = protocol
        self._pending = connected.pending if isinstance(connected, ssl.SSLSocket) else None
        """How many bytes TLS has decrypted that are not read yet; None: there is no TLS."""
        self._waiting: collections.deque[memoryview] = collections.deque()
        """Frames for the socket; the first may be what is left of one."""
        self._frames = FrameSplitter()
        self._came_early = rest
        """What has come after the handshake, and was not taken yet."""
        self._parts: list[bytes] = []
        """Fragments of a message that is not complete."""
        self._ping = b""
        self._reading_writes = self._writing_reads = False
        """Whether TLS has to write before it can read on, and to read before it can write on."""
        connected.setblocking(False)

    def fileno(self) -> int:
        """Return the socket's descriptor; negative: it is closed."""
        return self._socket.fileno()

    # -- receiving ----------------------------------------------------------------------------

    def receive(self) -> list[bytes]:
        """Read what there is, up to `_READ_BYTES` a few times, and return the messages in it."""
        messages: list[bytes] = []
        early, self._came_early = self._came_early, b""
        if early:
            self._take(early, messages)
        for _ in range(_READS):
            data = self._read()
            if data is None:
                break
            if not data:
                self._protocol.receive_eof()
                self.is_over = True
                break
            self._take(data, messages)
            if len(data) < _READ_BYTES and self._pending is None:
                break  # a record of TLS is smaller, and another one may be there
        return messages

    def _take(self, data: bytes, messages: list[bytes]) -> None:
        """Append the messages in what was read, and answer pings and a close."""
        protocol = self._protocol
        for message, frame in self._frames.feed(data):
            if message is not None:
                if protocol.state is State.OPEN:  # after the end of the server, nothing counts
                    messages.append(message)
                continue
            protocol.receive_data(frame)
            messages += self._messages()
            self._frames.unpacks = not self._parts
            self._write(protocol.data_to_send())

    def has_more(self) -> bool:
        """Return whether bytes can be read for which a wait for the socket does not end.

        TLS decrypts a whole record at once.
        """
        return self._pending is not None and not self.is_over and self._pending() > 0

    def _read(self) -> bytes | None:
        """Return some bytes; None: there are none yet; empty: there will never be any."""
        self._reading_writes = False
        try:
            return self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self._reading_writes = True
            return None
        except (OSError, ValueError):  # ssl raises ValueError for a socket that is shut down
            return b""

    def _messages(self) -> list[bytes]:
        messages: list[bytes] = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode in DATA_OPCODES:
                data = bytes(event.data)
                if event.fin and not self._parts:
                    messages.append(data)
                    continue
                self._parts.append(data)
                if event.fin:
                    messages.append(b"".join(self._parts))
                    self._parts = []
            elif event.opcode is Opcode.PONG and event.data == self._ping:
                if self.pinged_s is not None:
                    self.round_trip_s = time.monotonic() - self.pinged_s
                self.pinged_s = None
        return messages

    # -- sending ------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send a text message; what the socket does not accept at once waits for `flush`."""
        if self._protocol.state is State.OPEN and not self.is_broken:
            self._write([text_frame(data, os.urandom(4))])

    def ping(self) -> None:
        """Send a ping, unless one is not answered yet, or it had to wait for messages."""
        if self.pinged_s is None and not self._waiting and self._protocol.state is State.OPEN:
            self._ping = os.urandom(4)
            self.pinged_s = time.monotonic()
            self._protocol.send_ping(self._ping)
            self._write(self._protocol.data_to_send())

    def flush(self) -> None:
        """Write as much of what waits as the socket accepts."""
        waiting, self._writing_reads = self._waiting, False
        if waiting and self.may_send is not None and not self.may_send():
            waiting.clear()
            self.is_broken = True
            return
        is_plain = self._pending is None
        while waiting:
            frame = waiting[0]
            try:
                # Of several records TLS would report none as sent before it has sent them all.
                size = self._socket.send(frame if is_plain else frame[:_RECORD_BYTES])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                return  # for TLS, the next attempt begins with the same bytes, as it has to
            except ssl.SSLWantReadError:
                self._writing_reads = True
                return
            except (OSError, ValueError):
                waiting.clear()
                self.is_broken = True
                return
            if size == len(frame):
                waiting.popleft()
            else:
                waiting[0] = frame[size:]
            self.progress_s = time.monotonic()

    @property
    def waiting(self) -> int:
        """How many messages wait for the socket; one may have been sent in part."""
        return len(self._waiting)

    @property
    def wants_write(self) -> bool:
        """Whether to wait until the socket can be written to, too."""
        return self._reading_writes or (bool(self._waiting) and not self._writing_reads)

    def _write(self, frames: list[bytes]) -> None:
        waited = bool(self._waiting)
        # An empty one means the end of all that is sent, for which the socket is closed instead.
        self._waiting.extend(memoryview(frame) for frame in frames if frame)
        if self._waiting and not waited:
            self.progress_s = time.monotonic()
            self.flush()

    # -- the end ------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether the server has closed the websocket, or has broken its protocol."""
        return self._protocol.state is State.CLOSING

    def ending(self) -> tuple[int, str]:
        """Return the close code and reason of the server."""
        close = self._protocol.close_rcvd
        return (close.code, close.reason) if close is not None else (1006, "")

    def say_goodbye(self) -> None:
        """Close with a handshake; waits for the server's reply for at most `CLOSE_TIMEOUT_S`.

        If messages wait, the connection is broken off: it is too slow.
        """
        end_s = time.monotonic() + CLOSE_TIMEOUT_S
        if self.may_send is not None and not self.may_send():
            self.close()
            return
        with contextlib.suppress(OSError, ValueError):
            if not self._waiting and self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._socket.settimeout(CLOSE_TIMEOUT_S)
                self._socket.sendall(b"".join(self._protocol.data_to_send()))
                while (left_s := end_s - time.monotonic()) > 0:
                    self._socket.settimeout(left_s)
                    if not self._socket.recv(_READ_BYTES):
                        break
        self.close()

    def close(self) -> None:
        """Break the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(sockets.SHUT_RDWR)
        self._socket.close()


class _Opening:
    """The opening handshake on a connected socket, on the calling thread.

    `websockets.sync.client.connect` does the rest: name, proxy, TCP, TLS, redirects. Its own class
    for a connection, which has these methods too, starts a thread that reads the socket for good.
    """

    def __init__(self, connected: sockets.socket, protocol: ClientProtocol, **_: object) -> None:
        self.recv_events_thread = self
        self._socket = connected
        self._protocol = protocol
        self._response: Response | None = None
        self._rest = b""
        """What has come after the response."""

    def handshake(
        self, headers: Mapping[str, str] | None, user_agent: str | None, timeout: float
    ) -> None:
        """Send the request and read the response, with what may follow it."""
        protocol, end_s = self._protocol, time.monotonic() + timeout
        request = protocol.connect()
        request.headers.update(headers or {})
        request.headers["User-Agent"] = user_agent or USER_AGENT
        protocol.send_request(request)
        self._socket.settimeout(timeout)
        with _only_timeouts():
            self._socket.sendall(b"".join(protocol.data_to_send()))
        received = b""
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            data = b""
            with _only_timeouts():
                self._socket.settimeout(max(0.001, end_s - time.monotonic()))
                data = self._socket.recv(_READ_BYTES)
            received += data
            is_opening = received.startswith(_SWITCHING[: len(received)])
            end = received.find(_END_OF_HEAD) if is_opening else -1
            if end >= 0:  # a response that opens it has no body
                end += len(_END_OF_HEAD)
                data, self._rest = data[: len(data) - len(received) + end], received[end:]
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        self._response = cast(Response, protocol.events.pop(0))

    def opened(self) -> Socket:
        """Return the open websocket."""
        return Socket(self._socket, self._protocol, self._server_ns(), self._rest)

    def _server_ns(self) -> int | None:
        date = self._response.headers.get("Date") if self._response is not None else None
        try:
            return int(parsedate_to_datetime(date).timestamp()) * 1_000_000_000 if date else None
        except (ValueError, OverflowError):
            return None

    def close_socket(self) -> None:
        """Close the socket, after the handshake has failed."""
        self._socket.close()

    def join(self) -> None:
        """Wait for no thread, since there is none."""

    def start_keepalive(self) -> None:
        """Start no thread: pings are sent by `Connection`."""


@contextlib.contextmanager
def _only_timeouts() -> Iterator[None]:
    """Suppress errors of the network, after which a read finds out what the server has sent."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError:
        pass


def connect(url: str, headers: Mapping[str, str]) -> Socket:
    """Open a websocket; blocks.

    Raises:
        Exception: The websocket could not be opened; `explain` returns the reason.
    """
    opening: object = client.connect(
        url,
        additional_headers=dict(headers),
        user_agent_header=USER_AGENT,
        compression=None,
        max_size=None,  # the default of 1 MiB would close the connection on a long event
        proxy=_proxy_for(url),
        open_timeout=OPEN_TIMEOUT_S,
        create_connection=cast(type[client.ClientConnection], _Opening),
    )
    assert isinstance(opening, _Opening)
    return opening.opened()


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
