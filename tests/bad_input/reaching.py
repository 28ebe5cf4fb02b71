"""Servers that cannot be reached, or that refuse the connection."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from messages import SendText
from rtvoice.testing import SandboxServer
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.stage import Sitting
from tests.fake_server import FakeServer

KEY = "sk-test-1234567890"
_NO_ADDRESS = "wss://realtime.invalid/v1/realtime"
"""A server whose name cannot be resolved."""


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen on loopback and let ``answer`` do what it likes with each connection; yield host:port.

    Whatever it raises is what the client has deserved.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def refusing(status: str, code: str = "", message: str = "") -> Callable[[socket.socket], None]:
    """Return what refuses every request."""
    body = json.dumps({"error": {"code": code, "message": message}}) if code else ""

    def answer(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096) or b"\r\n\r\n"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())

    return answer


def _ends(url: str, **settings: object) -> Outcome:
    with Sitting("realtime", server=url, **settings) as sitting:
        sitting.ends_by_itself()
    assert KEY not in sitting.screen.getvalue()
    return Outcome(sitting.text(), sitting.code)


def tries_again(url: str) -> Outcome:
    with Sitting("realtime", server=url) as sitting:
        sitting.sees("trying again")
        assert sitting.code is None
    assert sitting.code == 0
    assert KEY not in sitting.screen.getvalue()
    return Outcome(sitting.text(), None)


def tries_again_through(world: World, variable: str, proxy: str) -> Outcome:
    """Reach for a server through the proxy that an environment variable names."""
    world.patch.setenv(variable, proxy)
    return tries_again(_NO_ADDRESS)


@row("A key that the server refuses (401)")
def wrong_key(world: World) -> Outcome:
    world.patch.setenv("OPENAI_API_KEY", KEY)
    with listening(refusing("401 Unauthorized", "x", f"Incorrect API key: {KEY}.")) as there:
        return _ends(f"ws://{there}/v1/realtime")


@row("A key with an impossible character")
def impossible_key(world: World) -> Outcome:
    world.patch.setenv("OPENAI_API_KEY", f"“{KEY}”")
    return _ends("ws://127.0.0.1:1/v1/realtime")


@row("An account without credit (429, insufficient_quota)")
def no_quota(world: World) -> Outcome:
    with listening(refusing("429 Too Many Requests", "insufficient_quota", "No more.")) as there:
        return _ends(f"ws://{there}/v1/realtime")


@row("Too many connections (429)")
def rate_limited(world: World) -> Outcome:
    refuse = refusing("429 Too Many Requests", "rate_limit_exceeded", "Rate limit reached.")
    with listening(refuse) as there:
        return tries_again(f"ws://{there}/v1/realtime")


@row("A model that does not exist (404)")
def no_model(world: World) -> Outcome:
    refuse = refusing("404 Not Found", "model_not_found", "The model does not exist.")
    with listening(refuse) as there:
        return _ends(f"ws://{there}/v1/realtime", model="gpt-none")


def _fatal_event(code: str) -> Outcome:
    with FakeServer() as server, Sitting("realtime", server=server.url, model="gpt-none") as talk:
        server.wait_for(lambda: len(server.connections) > 0)
        server.connections[0].tell("error", error={"code": code, "message": "No."})
        talk.ends_by_itself()
    return Outcome(talk.text(), talk.code)


@row("A model that does not exist, as an event")
def no_model_event(world: World) -> Outcome:
    return _fatal_event("model_not_found")


@row("An account without credit, as an event")
def no_quota_event(world: World) -> Outcome:
    return _fatal_event("insufficient_quota")


@row("A server without the Realtime API (404)")
def no_realtime_api(world: World) -> Outcome:
    with listening(refusing("404 Not Found")) as there:
        return _ends(f"ws://{there}/")


@row("No network, or no server at the address")
def nothing_listens(world: World) -> Outcome:
    return tries_again("ws://127.0.0.1:1/v1/realtime")


@row("A server that begins no session, for `--connect-timeout` (60 s)")
def silent(world: World) -> Outcome:
    with SandboxServer() as sandbox:
        return _ends(f"{sandbox.url}?misbehave=omit+session.created", connect_timeout_s=1.0)


@row("A server that is not there, for `--connect-timeout`")
def never_there(world: World) -> Outcome:
    return _ends("ws://127.0.0.1:1/v1/realtime", connect_timeout_s=1.0)


@row("A server that goes away, for `--outage-timeout` (300 s)")
def goes_away(world: World) -> Outcome:
    with (
        FakeServer() as server,
        Sitting("realtime", server=server.url, outage_timeout_s=1.0) as talk,
    ):
        connection = server.connection(0)
        talk.sees("server: ")
        server.refuse = 1000
        connection.drop()
        talk.ends_by_itself()
    return Outcome(talk.text(), talk.code)


@row("A server name that cannot be resolved")
def unknown_name(world: World) -> Outcome:
    return tries_again(_NO_ADDRESS)


@contextlib.contextmanager
def _self_signed() -> Iterator[str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("NO OPENSSL COMMAND: no server with a certificate of its own can be started")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = [openssl, "req", "-x509", "-days", "2", "-out", "certificate.pem"]
    subprocess.run([*command, *key.split(), *name.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    with listening(answer) as there:
        yield there


@row("A certificate that is not trusted")
def untrusted(world: World) -> Outcome:
    with _self_signed() as there:
        return _ends(f"wss://{there}/v1/realtime")


@row("wss:// to a server without TLS")
def no_tls(world: World) -> Outcome:
    def answer(connection: socket.socket) -> None:
        connection.recv(1)  # of what is no request
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.recv(4096)

    with listening(answer) as there:
        return _ends(f"wss://{there}/v1/realtime")


@row("ws:// to a server with TLS")
def needs_tls(world: World) -> Outcome:
    with _self_signed() as there:
        return tries_again(f"ws://{there}/v1/realtime")


@row("A proxy that refuses")
def proxy_refuses(world: World) -> Outcome:
    with listening(refusing("407 Proxy Authentication Required")) as there:
        return tries_again_through(world, "https_proxy", f"http://user:{KEY}@{there}")


@row("A proxy that is not there")
def no_proxy(world: World) -> Outcome:
    return tries_again_through(world, "https_proxy", "http://127.0.0.1:1")


@row("Text that is typed although no server was ever reached")
def typed_in_vain(world: World) -> Outcome:
    with Sitting("realtime", "history", server="ws://127.0.0.1:1") as sitting:
        sitting.sees("trying again")
        sitting.supervisor.send(SendText("Good evening.", "text-1"))
        sitting.sees("you: Good evening.")
    assert sitting.code == 0
    return Outcome(sitting.text(), None)
