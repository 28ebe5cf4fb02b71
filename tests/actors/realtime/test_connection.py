"""The connection, without the actor, on a real socket."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from actors.realtime import connection as module
from actors.realtime.address import is_local
from actors.realtime.alone import Alone
from actors.realtime.connection import (
    Arrived,
    Connection,
    ReceivedText,
    WebsocketClosed,
    WebsocketOpened,
    WebsocketRefused,
)
from actors.realtime.core.restore import MAX_ITEMS
from tests.actors.realtime.raw import RawServer
from tests.actors.realtime.server import ScriptedServer, scripted_server
from tests.rig import TIMEOUT_S


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as running:
        yield running


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a test has opened."""
    yield
    while _wakers:
        waker = _wakers.pop()
        waker.connection.abort()
        waker.loop.__exit__(None, None, None)


_wakers: list[Waker] = []


class Waker:
    """Runs a connection, and waits for what arrives."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.loop = Alone()
        self.wakes = 0
        _wakers.append(self)
        connection.attend(self.loop, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def run(self, until: Callable[[], object]) -> None:
        assert self.loop.run(until, TIMEOUT_S)

    def next(self) -> Arrived:
        self.run(lambda: self.connection.arrived)
        return self.connection.arrived.popleft()

    def until(self, fits: Callable[[Arrived], bool]) -> Arrived:
        while not fits(what := self.next()):
            pass
        return what


def _open(url: str, **headers: str) -> tuple[Connection, Waker]:
    connection = Connection(url, headers, "secret-key")
    waker = Waker(connection)
    connection.start()
    return connection, waker


def test_messages_arrive_after_the_opening_in_order(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()

    for number in range(50):
        peer.send("n", number=number)

    assert isinstance(waker.next(), WebsocketOpened)
    for number in range(50):
        text = waker.next()
        assert isinstance(text, ReceivedText)
        assert json.loads(text.data)["number"] == number
    connection.close()


def test_the_opening_reports_the_time_of_the_server(
    server: tuple[ScriptedServer, str],
) -> None:
    began = int(time.time())

    _, waker = _open(server[1])
    opened = waker.next()

    assert isinstance(opened, WebsocketOpened)
    assert opened.server_ns is not None
    assert began <= opened.server_ns / 1e9 <= time.time()


def test_a_message_in_pieces_arrives_whole(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()

    peer.connection.send(iter(['{"type":', '"pie', 'ces"}']))

    text = waker.next()
    assert isinstance(text, ReceivedText)
    assert json.loads(text.data) == {"type": "pieces"}
    connection.close()


def test_a_large_message_arrives(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()

    sending = threading.Thread(target=lambda: peer.send("large", audio="x" * 4_000_000))
    sending.start()

    text = waker.next()
    sending.join(TIMEOUT_S)
    assert isinstance(text, ReceivedText)
    assert len(text.data) > 4_000_000
    connection.close()


def test_what_is_sent_arrives_in_order_whatever_its_size(
    server: tuple[ScriptedServer, str],
) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()
    sizes = [10, 50_000, 10, 20, 200_000, 10, 15_000, 10]

    for number, size in enumerate(sizes):
        data = json.dumps({"type": "x", "number": number, "pad": "x" * size})
        connection.send(data.encode())

    received = [peer.expect("x") for _ in sizes]
    assert [event["number"] for event in received] == list(range(len(sizes)))
    connection.close()


def test_the_end_is_reported_with_code_and_reason(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()

    peer.close(4000, "invalid_request_error.odd")

    closed = waker.until(lambda what: isinstance(what, WebsocketClosed))
    assert closed == WebsocketClosed(4000, "invalid_request_error.odd")
    assert connection.is_over()
    connection.send(b"{}")  # is harmless


def test_a_broken_connection_ends_with_1006(server: tuple[ScriptedServer, str]) -> None:
    _, waker = _open(server[1])
    server[0].peer().drop()

    closed = waker.until(lambda what: isinstance(what, WebsocketClosed))

    assert isinstance(closed, WebsocketClosed)
    assert closed.code == 1006


def test_an_abort_does_not_wait(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    server[0].peer()
    waker.next()

    connection.abort()

    assert isinstance(waker.next(), WebsocketClosed)


def test_closing_while_it_connects_leaves_nothing_open(
    server: tuple[ScriptedServer, str],
) -> None:
    connection, waker = _open(server[1])

    connection.close_soon()

    waker.until(lambda what: isinstance(what, WebsocketClosed | WebsocketRefused))


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (
            401,
            '{"error": {"code": "invalid_api_key", "message": "sk-..ab"}}',
            "invalid_api_key",
            "",
        ),
        (
            429,
            '{"error": {"type": "insufficient_quota", "message": "no"}}',
            "insufficient_quota",
            "no",
        ),
        (503, "busy", "", "HTTP 503"),
        (500, '{"error": "odd"}', "", "HTTP 500: odd"),
        (502, '{"message": "no upstream", "code": 7}', "7", "HTTP 502: no upstream"),
        (422, '{"detail": "no such field"}', "", "HTTP 422: no such field"),
        (500, '{"error": {"message": ["a"]}}', "", "HTTP 500"),
        (500, "[]", "", "HTTP 500"),
    ],
)
def test_a_refusal_says_why(
    server: tuple[ScriptedServer, str], status: int, body: str, code: str, says: str
) -> None:
    server[0].refuse = [(status, body)]
    _, waker = _open(server[1])

    refused = waker.next()

    assert isinstance(refused, WebsocketRefused)
    assert (refused.status, refused.code) == (status, code)
    assert says in refused.text
    assert "sk-" not in refused.text


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("http://127.0.0.1/", "invalid_url", "ws://"),
        ("nonsense", "invalid_url", "ws://"),
        ("ws://127.0.0.1:1/", "", "refused"),
    ],
)
def test_what_cannot_be_reached_says_why(url: str, code: str, says: str) -> None:
    _, waker = _open(url)

    refused = waker.next()

    assert isinstance(refused, WebsocketRefused)
    assert (refused.status, refused.code) == (0, code)
    assert says in refused.text.lower()
    assert refused.text


def test_the_secret_is_removed_from_received_text(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()

    peer.send("x", text="the secret-key is")
    text = waker.next()
    assert isinstance(text, ReceivedText)
    assert b"secret-key" not in text.data
    peer.close(4000, "about secret-key")

    closed = waker.next()
    assert isinstance(closed, WebsocketClosed)
    assert closed.reason == "about [key]"
    connection.close()


def test_the_secrets_of_the_url_are_removed_from_received_text(
    server: tuple[ScriptedServer, str],
) -> None:
    url = server[1].replace("ws://", "ws://ada:pass-word-1@") + "?api-key=canary%2F77&model=m"
    _, waker = _open(url)
    waker.until(lambda what: isinstance(what, WebsocketOpened))
    peer = server[0].peer()

    peer.send("x", text="canary/77 canary%2F77 pass-word-1 and the model is m")

    text = waker.until(lambda what: isinstance(what, ReceivedText))
    assert isinstance(text, ReceivedText)
    assert json.loads(text.data)["text"] == "[key] [key] [key] and the model is m"


def test_a_short_key_is_not_removed_from_received_text(
    server: tuple[ScriptedServer, str],
) -> None:
    connection = Connection(server[1], {}, "x")
    waker = Waker(connection)
    connection.start()
    peer = server[0].peer()
    waker.next()

    peer.send("response.output_text.delta")

    text = waker.next()
    assert isinstance(text, ReceivedText)
    assert json.loads(text.data)["type"] == "response.output_text.delta"
    connection.close()


def test_too_many_unread_messages_end_the_connection(
    monkeypatch: pytest.MonkeyPatch, server: tuple[ScriptedServer, str]
) -> None:
    monkeypatch.setattr(module, "_UNREAD", 100)
    connection, waker = _open(server[1])
    peer = server[0].peer()

    with contextlib.suppress(ConnectionClosed):
        for number in range(1000):
            peer.send("n", number=number)
            waker.loop.run(connection.is_over, 0.001)

    waker.run(connection.is_over)
    peer.connection.recv_events_thread.join(TIMEOUT_S)
    assert 100 < len(connection.arrived) < 1000
    assert connection.arrived[-1] == WebsocketClosed(1006, "too many events wait to be handled")


def test_too_many_unsent_messages_end_the_connection(
    monkeypatch: pytest.MonkeyPatch, server: tuple[ScriptedServer, str]
) -> None:
    monkeypatch.setattr(module, "_WAITING", 20)
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()
    peer.stop_reading()
    data = json.dumps({"type": "x", "pad": "x" * 500_000}).encode()

    for _ in range(100):
        connection.send(data)

    assert isinstance(waker.next(), WebsocketClosed)


def test_a_whole_conversation_may_wait_for_a_slow_line() -> None:
    with RawServer() as server:
        connection, waker = _open(server.url)
        server.accept()
        waker.next()
        data = json.dumps({"type": "x", "pad": "x" * 1000}).encode()

        for _ in range(3 * MAX_ITEMS):  # all of what another session was told, taken back, and told
            connection.send(data)

        assert connection.is_sending()
        assert not connection.is_over()


def test_a_burst_of_messages_is_reported_once(server: tuple[ScriptedServer, str]) -> None:
    connection, waker = _open(server[1])
    peer = server[0].peer()
    waker.next()
    waker.loop.run(lambda: False, 0.05)
    wakes = waker.wakes

    peer.connection.socket.sendall(b"\x81\x02{}" * 20)
    waker.run(lambda: len(connection.arrived) == 20)

    assert waker.wakes - wakes <= 2


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("ws://127.0.0.1:80/x", True),
        ("ws://localhost/x", True),
        ("ws://[::1]:5/x", True),
        ("wss://api.openai.com/v1", False),
        ("ws://example.org/127.0.0.1", False),
        ("ws://user:password@localhost:5/x", True),
        ("ws://localhost@example.org/x", False),
        ("ws://example.org?@localhost", False),
        ("ws://localhost.example.org/x", False),
        ("ws://127.example.org/x", False),
    ],
)
def test_addresses_of_this_machine_are_recognised(url: str, local: bool) -> None:
    assert is_local(url) is local
