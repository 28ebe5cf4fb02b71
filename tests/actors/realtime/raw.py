"""A server whose every byte the test itself sends and takes, with TLS or without."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tests.rig import TIMEOUT_S

__all__ = ["Certificate", "RawPeer", "RawServer", "certificate_in"]


class Certificate(NamedTuple):
    """The files of a certificate for 127.0.0.1."""

    certificate: Path
    key: Path


def certificate_in(folder: Path) -> Certificate:
    """Make a certificate that signs itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("NO OPENSSL COMMAND: no server with a certificate of its own can be started")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-keyout", str(made.key), "-out", str(made.certificate)]
    command = [openssl, "req", "-x509", "-days", "2", *key, *name, *out]
    subprocess.run(command, check=True, capture_output=True)
    return made


class RawServer:
    """Accepts one connection at a time, when the test says so. Use as a context manager."""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT_S)
        # A small window, so that the client soon notices what is read and what is not.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._open = contextlib.ExitStack()
        scheme = "ws" if certificate is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1/realtime"

    def __enter__(self) -> RawServer:
        self._open.enter_context(self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def accept(self, follows: bytes = b"") -> RawPeer:
        """Accept a connection and its websocket; ``follows`` is sent with the HTTP response."""
        connected, _ = self._listener.accept()
        self._open.enter_context(connected)
        connected.settimeout(TIMEOUT_S)
        return RawPeer(connected, self._context, follows)


class RawPeer:
    """One connection, as the server sees it."""

    def __init__(
        self, connected: socket.socket, context: ssl.SSLContext | None, follows: bytes
    ) -> None:
        self.socket = connected
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if context is not None:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._shake_hands(self._tls)
        self._protocol = ServerProtocol(max_size=None)
        while self._protocol.state is State.CONNECTING and not self._protocol.events:
            self._protocol.receive_data(self.read())
        request = self._protocol.events_received()[0]
        assert isinstance(request, Request)
        self._protocol.send_response(self._protocol.accept(request))
        self.put(self.encrypted(b"".join(self._protocol.data_to_send()) + follows))

    def frame(self, data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
        """Return the bytes of a frame."""
        return Frame(opcode, data, fin).serialize(mask=False)

    def encrypted(self, data: bytes) -> bytes:
        """Return the bytes on the wire: with TLS, one or more records."""
        if self._tls is None:
            return data
        while data:
            data = data[self._tls.write(data) :]
        return self._outgoing.read()

    def put(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def send(self, data: bytes, opcode: Opcode = Opcode.TEXT) -> None:
        """Send a whole message."""
        self.put(self.encrypted(self.frame(data, opcode)))

    def read(self) -> bytes:
        """Return some bytes of what the client sends; empty: it has ended the connection."""
        if self._tls is None:
            return self.socket.recv(65536)
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65536)
                if not data:
                    return b""
                self._incoming.write(data)

    def frames(self) -> Iterator[Frame]:
        """Return what the client sends, frame by frame, until it ends the connection."""
        while data := self.read():
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                assert isinstance(event, Frame)
                yield event

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.put(self._outgoing.read())
                self._incoming.write(self.socket.recv(65536))
        self.put(self._outgoing.read())
