"""A scripted Realtime server on a real socket: the test sends each event itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.rig import TIMEOUT_S

__all__ = ["Peer", "ScriptedServer", "scripted_server"]


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.request: Request = connection.request  # type: ignore[assignment]
        self.received: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._taken = 0
        self._numbers = itertools.count(1)
        self._resume = threading.Event()
        self._resume.set()

    def run(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._resume.wait(TIMEOUT_S)
                event = json.loads(self.connection.recv())
                with self._news:
                    self.received.append(event)
                    self._news.notify_all()

    def send(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}
        self.connection.send(json.dumps(event))

    def send_raw(self, text: str) -> None:
        self.connection.send(text)

    def expect(self, kind: str) -> dict[str, Any]:
        """Return the next event of this type; those before it are skipped."""

        def find() -> bool:
            while self._taken < len(self.received):
                self._taken += 1
                if self.received[self._taken - 1]["type"] == kind:
                    return True
            return False

        with self._news:
            if not self._news.wait_for(find, TIMEOUT_S):
                raise AssertionError(f"no {kind}; there were {self.kinds()}")
            return self.received[self._taken - 1]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.received]

    def begin(self, **session: Any) -> dict[str, Any]:
        """Begin the session and confirm its configuration."""
        self.send("session.created", session={"type": "realtime", "id": "s", **session})
        update = self.expect("session.update")
        self.send("session.updated", session=update["session"])
        return update

    def stop_reading(self) -> None:
        self._resume.clear()

    def read_on(self) -> None:
        self._resume.set()

    def drop(self) -> None:
        """Break the connection without a word."""
        self.connection.socket.shutdown(2)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.connection.close(code, reason)


class ScriptedServer:
    """Accepts connections; the test takes them one by one."""

    def __init__(self) -> None:
        self.peers: queue.Queue[Peer] = queue.Queue()
        self.refuse: list[tuple[int, str]] = []
        """(status, body) for the next handshakes."""
        self.handshakes = 0
        self.all: list[Peer] = []

    def peer(self) -> Peer:
        return self.peers.get(timeout=TIMEOUT_S)

    def _process_request(self, connection: ServerConnection, _: Request) -> Response | None:
        self.handshakes += 1
        if not self.refuse:
            return None
        status, body = self.refuse.pop(0)
        return connection.respond(status, body)

    def _handle(self, connection: ServerConnection) -> None:
        peer = Peer(connection)
        self.all.append(peer)
        self.peers.put(peer)
        peer.run()

    def serve(self) -> Server:
        return serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            compression=None,
            max_size=None,
            close_timeout=1,
        )


@contextlib.contextmanager
def scripted_server() -> Iterator[tuple[ScriptedServer, str]]:
    """Run a server; yield it and its URL."""
    scripted = ScriptedServer()
    with scripted.serve() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        yield scripted, f"ws://127.0.0.1:{port}/v1/realtime"
        for peer in scripted.all:
            peer.read_on()
        server.shutdown()
        thread.join(TIMEOUT_S)
