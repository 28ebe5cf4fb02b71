"""A service under uvicorn, on the loop of the test, and callers at real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from actors.history import Journal
from rtvoice import Agent
from rtvoice.service import CallInfo, Service
from rtvoice.testing import SandboxServer
from tests.rig import TIMEOUT_S

Json = dict[str, Any]


def seller(sandbox: SandboxServer, **settings: Any) -> Callable[[CallInfo], Agent]:
    """Return what makes agents that talk with this server."""
    given = {"inactivity_timeout_s": None, "transcription_model": "gpt-transcribe"} | settings
    return lambda _: Agent("You sell bicycles.", server=sandbox.url, **given)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds that no message reports."""
    async with asyncio.timeout(2 * TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    assert condition(), what


class Caller:
    """A caller at ``/talk``: hears all at once, and says so."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.sound = bytearray()
        self.told: list[Json] = []
        self.code: int | None = None
        self.reason = ""
        self._news = asyncio.Condition()
        self._clears = 0
        self._heard = 0
        self.reader = asyncio.ensure_future(self._read())

    async def hello(self, **fields: Any) -> Json:
        """Say hello, and return the answer."""
        await self.socket.send(json.dumps({"rate": 24000} | fields))
        return await self.expect("hello")

    async def expect(self, kind: str, **fields: Any) -> Json:
        """Wait until it was told something; return it."""
        found: list[Json] = []

        def look() -> bool:
            found[:] = [t for t in self.told if t["type"] == kind and fields.items() <= t.items()]
            return bool(found) or self.code is not None

        async with self._news, asyncio.timeout(3 * TIMEOUT_S):
            await self._news.wait_for(look)
        assert found, f"no {kind}: {self.told[-3:]}, closed: {self.code} {self.reason}"
        return found[0]

    async def hears(self, more: int = 1) -> None:
        """Wait until it has heard so many bytes more."""
        size = len(self.sound) + more
        async with self._news, asyncio.timeout(3 * TIMEOUT_S):
            await self._news.wait_for(lambda: len(self.sound) >= size)

    async def closed(self) -> tuple[int | None, str]:
        """Wait until the service closes the socket; return code and reason."""
        await asyncio.wait_for(asyncio.shield(self.reader), 3 * TIMEOUT_S)
        return self.code, self.reason

    def lose(self) -> None:
        """End the connection without a close frame."""
        self.socket.transport.abort()

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                await self._take(message)
        except ConnectionClosed:
            pass
        async with self._news:
            self.code, self.reason = self.socket.close_code, self.socket.close_reason or ""
            self._news.notify_all()

    async def _take(self, message: str | bytes) -> None:
        async with self._news:
            if isinstance(message, bytes):
                self.sound += message
                self._heard += len(message)
            else:
                self.told.append(json.loads(message))
                if self.told[-1]["type"] == "clear":
                    self._clears, self._heard = self.told[-1]["clears"], 0
            self._news.notify_all()
        report = {"type": "played", "ms": self._heard / 48, "clears": self._clears}
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(json.dumps(report))


class Stage:
    """A service that listens."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port

    def connect(self, path: str = "/talk", **options: Any) -> Any:
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, **options)

    @contextlib.asynccontextmanager
    async def caller(self, path: str = "/talk", **options: Any) -> AsyncIterator[Caller]:
        """Call."""
        async with self.connect(path, **options) as socket:
            caller = Caller(socket)
            try:
                yield caller
            finally:
                await socket.close()
                await caller.reader

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        return await asyncio.to_thread(fetched, self.port, path)

    async def state(self, state: str) -> None:
        """Wait until the only conversation is in a state."""
        await until(lambda: [s["state"] for s in self.service.sessions()] == [state], state)

    async def empty(self) -> None:
        """Wait until all conversations have ended."""
        await until(lambda: not self.service.sessions(), "they go on")


def whole_journals(folder: Path) -> list[list[Json]]:
    """Return the records of each journal of a service, of which no line is torn."""
    found = []
    for path in folder.glob("*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        for line in lines:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            assert int(checksum, 16) == zlib.crc32(text), line
            assert line.endswith(b"\n")
        journal = Journal(path)
        journal.close()
        assert (journal.damaged, len(journal.records)) == (0, len(lines))
        found.append(journal.records)
    return found


def fetched(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextlib.asynccontextmanager
async def serving(service: Service, app: Any = None) -> AsyncIterator[Stage]:
    """Run a service under uvicorn."""
    config = uvicorn.Config(
        app or service.asgi, port=0, log_config=None, ws_per_message_deflate=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.ensure_future(server.serve())
    await until(lambda: server.started or running.done(), "uvicorn does not start")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Stage(service, port)
    finally:
        await service.drain(0)
        server.should_exit = True
        await running
