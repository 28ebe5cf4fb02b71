"""The connection and its bytes: cut anywhere, with TLS or without, late, too many, or none."""

from __future__ import annotations

import itertools
import json
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.frames import Frame, Opcode

from actors.realtime import connection as module
from actors.realtime import websocket
from actors.realtime.alone import Alone
from actors.realtime.connection import (
    Arrived,
    Connection,
    PingAnswered,
    ReceivedText,
    WebsocketClosed,
    WebsocketOpened,
)
from tests.actors.realtime.raw import Certificate, RawPeer, RawServer, certificate_in
from tests.rig import TIMEOUT_S, until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate_in(tmp_path_factory.mktemp("certificate"))


class Line:
    """A connection, its loop and its server."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.connection = Connection(server.url, {}, "secret-key")
        self.loop = Alone()
        self.news: Callable[[], None] = lambda: None
        self.attend()

    def attend(self) -> None:
        self.connection.attend(self.loop, lambda: self.news())

    def open(self, follows: bytes = b"") -> RawPeer:
        self.connection.start()
        peer = self.server.accept(follows)
        assert isinstance(self.next(), WebsocketOpened)
        return peer

    def run(self, condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> bool:
        return self.loop.run(condition, timeout_s)

    def next(self) -> Arrived:
        assert self.run(lambda: self.connection.arrived), "nothing arrives"
        return self.connection.arrived.popleft()

    def texts(self, count: int) -> list[bytes]:
        found = [self.next() for _ in range(count)]
        return [each.data for each in found if isinstance(each, ReceivedText)]

    def frame(self, peer: RawPeer) -> Frame:
        """Run the connection until it has sent something; return the first frame of it."""
        assert self.run(lambda: select.select([peer.socket], [], [], 0)[0]), "nothing is sent"
        return next(peer.frames())

    def pass_by(self, seconds: float) -> None:
        """Let the connection run for a while in which nothing may arrive."""
        assert not self.run(lambda: self.connection.arrived, seconds)


@pytest.fixture(params=["ws", "wss"])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    certificate = request.getfixturevalue("certificate") if request.param == "wss" else None
    if certificate is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    with RawServer(certificate) as server:
        line = Line(server)
        with line.loop:
            yield line
            line.connection.abort()


tls = pytest.mark.parametrize("line", ["wss"], indirect=True)


# -- what arrives ----------------------------------------------------------------------------------


def test_a_message_that_comes_byte_by_byte_arrives_whole(line: Line) -> None:
    peer = line.open()

    for byte in peer.encrypted(peer.frame(b'{"type": "slow"}')):
        line.pass_by(0.002)
        peer.put(bytes([byte]))

    assert line.texts(1) == [b'{"type": "slow"}']


def test_half_a_record_keeps_nobody_waiting(line: Line) -> None:
    peer = line.open()
    data = peer.encrypted(peer.frame(b'{"type": "cut"}'))

    peer.put(data[:10])
    began = time.monotonic()
    line.pass_by(0.05)
    line.connection.send(b"{}")
    took_s = time.monotonic() - began
    peer.put(data[10:])

    assert line.texts(1) == [b'{"type": "cut"}']
    assert next(peer.frames()).data == b"{}"
    assert took_s < 1


def test_what_comes_with_the_response_arrives(line: Line) -> None:
    frames = b"".join(Frame(Opcode.TEXT, data).serialize(mask=False) for data in (b"1", b"2"))

    line.open(frames)

    assert line.texts(2) == [b"1", b"2"]


def test_many_messages_at_once_arrive_in_order(line: Line) -> None:
    peer = line.open()
    texts = [b"%d" % number for number in range(500)]

    for text in texts:  # with TLS, a record each
        peer.send(text)

    assert line.texts(500) == texts


def test_a_message_larger_than_any_buffer_arrives(line: Line) -> None:
    peer = line.open()
    text = b"x" * 5_000_000
    sending = threading.Thread(target=peer.send, args=(text,))
    sending.start()

    assert line.texts(1) == [text]
    sending.join(TIMEOUT_S)


@tls
def test_what_tls_has_decrypted_already_arrives_though_nothing_more_comes(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "_READ_BYTES", 5)
    monkeypatch.setattr(websocket, "_READS", 2)
    peer = line.open()

    peer.put(peer.encrypted(b"".join(peer.frame(b"%03d" % number) for number in range(100))))

    assert line.texts(100) == [b"%03d" % number for number in range(100)]


def test_fragments_with_a_ping_between_them_are_joined(line: Line) -> None:
    peer = line.open()

    peer.put(peer.encrypted(peer.frame(b"one ", fin=False)))
    peer.send(b"?", Opcode.PING)
    peer.put(peer.encrypted(peer.frame(b"two ", Opcode.CONT, fin=False)))
    line.pass_by(0.02)
    peer.put(peer.encrypted(peer.frame(b"three", Opcode.CONT)))

    assert line.texts(1) == [b"one two three"]
    pong = next(peer.frames())
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"?")


def test_what_was_read_and_not_handled_is_there_for_the_next_incarnation(line: Line) -> None:
    peer = line.open()
    peer.put(peer.encrypted(peer.frame(b"1") + peer.frame(b"2") + peer.frame(b"3")[:2]))
    assert line.run(lambda: len(line.connection.arrived) == 2)
    line.loop.unwatch(line.connection._socket)  # type: ignore[arg-type] # as after a raise

    peer.put(peer.encrypted(peer.frame(b"3")[2:]))
    line.attend()

    assert line.texts(3) == [b"1", b"2", b"3"]


# -- what is sent ----------------------------------------------------------------------------------


def test_an_image_for_a_slow_server_stays_before_the_sound_after_it(line: Line) -> None:
    peer = line.open()
    sent = [b"i" * 12_000_000, *(b"%d" % number * 500 for number in range(300))]
    for data in sent:
        line.connection.send(data)
    was_sending = line.connection.is_sending()
    received: list[bytes] = []

    def read() -> None:
        received.extend(bytes(frame.data) for frame in itertools.islice(peer.frames(), len(sent)))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()

    assert was_sending
    assert line.run(lambda: not reading.is_alive())
    assert received == sent
    assert not line.connection.is_sending()
    began = time.thread_time()
    line.pass_by(0.3)
    assert time.thread_time() - began < 0.1


def test_a_server_that_reads_nothing_can_still_be_heard(line: Line) -> None:
    peer = line.open()
    line.connection.send(b"i" * 12_000_000)

    peer.send(b"one")

    assert line.texts(1) == [b"one"]
    assert line.connection.is_sending()


def test_a_socket_that_accepts_nothing_costs_no_cpu(line: Line) -> None:
    line.open()
    line.connection.send(b"i" * 12_000_000)
    line.pass_by(0.1)
    began = time.thread_time()

    line.pass_by(0.5)

    assert time.thread_time() - began < 0.1


def test_a_server_that_accepts_no_byte_is_given_up(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.3)
    line.open()

    line.connection.send(b"i" * 12_000_000)

    line.pass_by(0.15)
    assert line.next() == WebsocketClosed(1006, "the server accepts no more data")


def test_a_slow_line_may_take_longer_for_an_image_than_a_stall(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.4)
    peer = line.open()
    line.connection.send(b"i" * 12_000_000)

    for _ in range(12):
        line.pass_by(0.1)
        peer.socket.recv(2**20)

    assert line.connection.is_sending()
    assert not line.connection.is_over()


# -- pings -----------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.1)
    monkeypatch.setattr(module, "PONG_S", 0.2)


def test_pings_are_sent_and_one_that_is_answered_keeps_the_connection(
    line: Line, hasty: None
) -> None:
    peer = line.open()
    seen = []

    for _ in range(5):
        ping = line.frame(peer)
        seen.append(ping.opcode)
        peer.send(bytes(ping.data), Opcode.PONG)

    assert seen == [Opcode.PING] * 5
    assert not line.connection.is_over()


def test_a_server_that_does_not_answer_a_ping_is_given_up(line: Line, hasty: None) -> None:
    peer = line.open()
    began = time.monotonic()

    closed = line.next()

    assert closed == WebsocketClosed(1006, "the server does not answer a ping")
    assert time.monotonic() - began >= 0.3
    assert [frame.opcode for frame in peer.frames()] == [Opcode.PING]


def test_the_answer_to_another_ping_does_not_count(line: Line, hasty: None) -> None:
    peer = line.open()
    line.frame(peer)

    peer.send(b"odd", Opcode.PONG)

    assert isinstance(line.next(), WebsocketClosed)
    assert list(peer.frames()) == []  # no other ping


def test_after_a_pause_of_the_process_an_answer_that_is_there_counts(
    line: Line, hasty: None
) -> None:
    peer = line.open()
    peer.send(bytes(line.frame(peer).data), Opcode.PONG)

    time.sleep(0.4)  # the process is stopped

    assert isinstance(line.next(), PingAnswered)
    line.pass_by(0.02)
    assert not line.connection.is_over()


def test_the_time_until_a_ping_is_answered_is_reported(line: Line, hasty: None) -> None:
    began = time.monotonic()
    peer = line.open()
    ping = line.frame(peer)
    line.pass_by(0.05)

    peer.send(bytes(ping.data), Opcode.PONG)
    answered = line.next()

    assert isinstance(answered, PingAnswered)
    assert 0.05 <= answered.round_trip_s <= time.monotonic() - began


def test_a_connection_that_is_closed_by_what_comes_with_the_answer_sends_no_ping(
    line: Line, hasty: None
) -> None:
    peer = line.open()
    ping = line.frame(peer)
    peer.put(peer.encrypted(peer.frame(b"bye") + peer.frame(bytes(ping.data), Opcode.PONG)))
    line.news = line.connection.close_soon

    time.sleep(0.2)  # the process is stopped

    line.run(lambda: False, 0.2)
    assert isinstance(line.next(), PingAnswered)
    assert line.texts(1) == [b"bye"]
    assert [frame.opcode for frame in peer.frames()] == [Opcode.CLOSE]


def test_no_ping_waits_behind_an_image(line: Line, hasty: None) -> None:
    line.open()

    line.connection.send(b"i" * 12_000_000)

    line.pass_by(0.6)
    assert not line.connection.is_over()


# -- the end ---------------------------------------------------------------------------------------


def test_closing_shakes_hands_without_blocking(line: Line) -> None:
    peer = line.open()
    began = time.monotonic()

    line.connection.close_soon()

    took_s = time.monotonic() - began
    close = next(peer.frames())
    assert (close.opcode, bytes(close.data)) == (Opcode.CLOSE, b"\x03\xe8")
    assert took_s < 0.1
    peer.send(bytes(close.data), Opcode.CLOSE)
    peer.socket.close()
    assert not line.connection.arrived


def test_closing_a_server_that_says_nothing_ends_in_time(line: Line) -> None:
    peer = line.open()
    began = time.monotonic()

    line.connection.close()

    assert 0.4 < time.monotonic() - began < 2
    assert [frame.opcode for frame in peer.frames()] == [Opcode.CLOSE]


def test_closing_a_stalled_connection_does_not_wait(line: Line) -> None:
    line.open()
    line.connection.send(b"i" * 12_000_000)
    began = time.monotonic()

    line.connection.close()

    assert time.monotonic() - began < 0.3
    assert line.connection.is_over()


def test_a_server_that_says_goodbye_and_does_not_hang_up_is_left(line: Line) -> None:
    peer = line.open()

    peer.send(b"\x03\xe9bye", Opcode.CLOSE)

    assert line.next() == WebsocketClosed(1001, "bye")
    assert next(peer.frames()).opcode is Opcode.CLOSE


def test_what_was_said_before_the_end_is_not_lost_by_a_failing_write(line: Line) -> None:
    peer = line.open()
    peer.send(b"last words")
    peer.send(b"\x0f\xa0over", Opcode.CLOSE)
    peer.socket.close()
    time.sleep(0.05)

    for _ in range(5):
        line.connection.send(b"x" * 1000)

    assert line.texts(1) == [b"last words"]
    assert line.next() == WebsocketClosed(4000, "over")


def test_what_a_server_says_after_its_goodbye_does_not_count(line: Line) -> None:
    peer = line.open()
    goodbye = peer.frame(b"\x03\xe8", Opcode.CLOSE)

    peer.put(peer.encrypted(peer.frame(b"before") + goodbye + peer.frame(b"after")))

    assert line.texts(1) == [b"before"]
    assert isinstance(line.next(), WebsocketClosed)
    assert not line.connection.arrived


def test_a_server_that_breaks_the_protocol_is_left(line: Line) -> None:
    peer = line.open()

    peer.put(peer.encrypted(b"\xff" * 40))

    closed = line.next()
    assert isinstance(closed, WebsocketClosed)
    assert closed.code == 1006
    assert next(peer.frames()).opcode is Opcode.CLOSE


@tls
def test_a_record_that_cannot_be_decrypted_ends_the_connection(line: Line) -> None:
    peer = line.open()
    data = bytearray(peer.encrypted(peer.frame(b"true")))
    data[-1] ^= 1

    peer.put(bytes(data))

    assert line.next() == WebsocketClosed(1006, "")


def test_an_abort_in_the_middle_of_a_message_ends_it(line: Line) -> None:
    peer = line.open()
    peer.put(peer.encrypted(peer.frame(b"whole"))[:4])
    line.connection.send(b"i" * 12_000_000)
    line.pass_by(0.02)

    line.connection.abort()

    assert line.next() == WebsocketClosed(1006, "")
    line.connection.send(b"{}")  # is harmless
    line.connection.abort()
    line.connection.close()
    line.pass_by(0.02)


def test_an_abort_while_it_connects_leaves_nothing_open(line: Line) -> None:
    line.connection.start()
    line.connection.abort()

    peer = line.server.accept()

    assert isinstance(line.next(), WebsocketClosed)
    assert [frame.opcode for frame in peer.frames()] == [Opcode.CLOSE]


def test_no_thread_is_left_once_the_websocket_is_open(line: Line) -> None:
    before = set(threading.enumerate())
    line.open()

    until(lambda: set(threading.enumerate()) <= before, "a thread is left")


# -- TLS that wants the opposite -------------------------------------------------------------------


class Odd:
    """A socket of TLS that first wants to write before it reads, or to read before it writes."""

    def __init__(self, real: ssl.SSLSocket) -> None:
        self.real = real
        self.reading_writes = self.writing_reads = False
        self._taken: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def recv(self, size: int) -> bytes:
        if self._taken:
            return self._taken.pop()
        data = self.real.recv(size)
        self.writing_reads = False
        if self.reading_writes:
            self.reading_writes = False
            self._taken = [data]  # of which select knows nothing any more
            raise ssl.SSLWantWriteError
        return data

    def send(self, data: bytes) -> int:
        if self.writing_reads:
            raise ssl.SSLWantReadError
        return self.real.send(data)


def _odd(line: Line) -> Odd:
    inner = line.connection._socket
    assert inner is not None
    odd = Odd(inner._socket)  # type: ignore[arg-type]
    inner._socket = odd  # type: ignore[assignment]
    return odd


@tls
def test_a_read_that_has_to_write_first_is_done_when_it_can(line: Line) -> None:
    peer = line.open()
    _odd(line).reading_writes = True

    peer.send(b"one")

    assert line.run(lambda: line.connection.arrived, 1.0)
    assert line.texts(1) == [b"one"]


@tls
def test_a_write_that_has_to_read_first_waits_for_that_without_cpu(line: Line) -> None:
    peer = line.open()
    line.pass_by(0.02)  # the keys for a resumed session have been read
    _odd(line).writing_reads = True

    line.connection.send(b"one")
    began = time.thread_time()
    line.pass_by(0.3)
    cpu_s = time.thread_time() - began
    peer.send(b"two")

    assert line.texts(1) == [b"two"]
    assert next(peer.frames()).data == b"one"
    assert cpu_s < 0.1


def test_the_key_is_removed_from_a_message_cut_in_the_key(line: Line) -> None:
    peer = line.open()
    data = peer.encrypted(peer.frame(json.dumps({"a": "the secret-key is"}).encode()))

    peer.put(data[: len(data) // 2])
    line.pass_by(0.02)
    peer.put(data[len(data) // 2 :])

    assert line.texts(1) == [b'{"a": "the [key] is"}']
