"""Hosts as processes of this machine, a gateway, and a caller who comes again."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from rtvoice.fleet.engine import Fleet
from rtvoice.fleet.gateway import Gateway
from rtvoice.fleet.local import LocalEngine
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import pid_of
from rtvoice.fleet.process import HostOptions
from rtvoice.fleet.store import HostRow, SessionRow
from tests.fake_server import Connection, FakeServer
from tests.orphans import end, started_by
from tests.rig import TIMEOUT_S

TTL_S = 2.0
AGENT = """
import time
from rtvoice import Agent, Tools

def make_agent(call):
    tools = Tools()

    @tools.action("Order something.")
    def order(what: str) -> str:
        with open({runs!r}, "a") as file:
            file.write(what + "\\n")
        time.sleep({tool_s})
        return "ordered " + what

    return Agent("", server={server!r}, tools=tools, transcription_model="gpt-transcribe",
                 inactivity_timeout_s=None)
"""
_SILENCE = bytes(2 * 960)
MARK = "RTVOICE_FLEET_TEST"
"""Variable in the environment of whatever belongs to a test."""


async def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait for a condition that other processes make true."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.02)


class Called(abc.ABC):
    """A fleet whose gateway callers ask."""

    @abc.abstractmethod
    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask the gateway; return status and content of the answer."""

    async def call(self) -> Caller:
        """Begin a conversation, and call its host."""
        status, found = await self.ask("POST", "/sessions", b"{}")
        assert status == 201, found
        caller = Caller(self, found["id"], found["token"])
        caller.start()
        await until(lambda: caller.connected, "the caller is not connected")
        return caller


class Rig(Called):
    """A fleet, and the server that its conversations talk with."""

    def __init__(
        self, folder: Path, url: str | Callable[[str], str], server: FakeServer, **options: Any
    ) -> None:
        self.server = server
        self.runs = folder / "runs"
        tool_s = options.pop("tool_s", 0.0)
        self._agent = folder / "agent.py"
        self._agent.write_text(AGENT.format(server=server.url, runs=str(self.runs), tool_s=tool_s))
        self._url = url if callable(url) else lambda _: url
        self.store = open_store(self._url(""))
        self._options = {"ttl_s": TTL_S, "cpu_limit": None, **options}
        self.engine = LocalEngine(self.store, 2, self._host)
        self.fleet = Fleet(self.store)
        self.gateway = Gateway(self.fleet)

    def _host(self, name: str) -> HostOptions:
        agent = f"{self._agent}:make_agent"
        return HostOptions(name=name, store=self._url(name), agent=agent, **self._options)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """Run it; in the end everything that it has started is killed."""
        before = os.environ.get(MARK)
        os.environ[MARK] = value = before or f"{os.getpid()}-{time.time_ns()}"
        try:
            await self.engine.start()
            yield self
        finally:
            await self.engine.close()
            end(MARK, value)
            for child in getattr(self.engine, "children", ()):
                child.wait()
            if before is None:
                del os.environ[MARK]
            for host in self.store.hosts():
                self.store.forget(host.name, host.owner)
            for row in self.store.live():
                self.store.end(row.id, row.epoch, "test over")
            self.store.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask the gateway."""
        sent: list[dict[str, Any]] = []
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        await self.gateway(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    def connection(self, number: int) -> Connection:
        """Return a connection of the server; waits for it."""
        return self.server.connection(number)

    async def row(self, session_id: str) -> SessionRow:
        """Return what the store knows of a conversation."""
        row = await self.fleet.status(session_id)
        assert row is not None
        return row

    async def host(self, session_id: str) -> HostRow:
        """Return the host of a conversation; waits for one."""
        end_s = time.monotonic() + TIMEOUT_S
        while (found := await self.fleet.locate(session_id)) is None:
            assert time.monotonic() < end_s, "nobody holds it"
            await asyncio.sleep(0.02)
        return found

    def pid(self, host: HostRow) -> int:
        """Return the process id of a host."""
        return pid_of(host.owner)

    def tree(self, host: HostRow) -> list[int]:
        """Return the processes of a host: itself, and all that it has started."""
        found, grown = {self.pid(host)}, True
        while grown:
            known = len(found)
            for pid in started_by(MARK, os.environ[MARK]):
                with contextlib.suppress(OSError, IndexError):
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    if int(stat.rpartition(")")[2].split()[1]) in found:
                        found.add(pid)
            grown = len(found) > known
        return sorted(found)

    async def taken(self, session_id: str, epoch: int, timeout_s: float = TIMEOUT_S) -> HostRow:
        """Wait until a conversation has a further owner; return its host."""
        end_s = time.monotonic() + timeout_s
        while (await self.row(session_id)).epoch <= epoch:
            assert time.monotonic() < end_s, "nobody takes it"
            await asyncio.sleep(0.02)
        return await self.host(session_id)

    def numbers(self, session_id: str) -> list[int]:
        """Return the numbers of the records of a conversation."""
        run = self.store.run  # type: ignore[attr-defined]
        values = {"id": session_id}
        statement = "select number from fleet_record where session = :id order by number"
        return [int(row[0]) for row in run(statement, values)[0]]


class Caller:
    """A caller who speaks all the time, and asks the gateway where to go on when cut off."""

    def __init__(self, fleet: Called, session_id: str, token: str) -> None:
        self.session_id = session_id
        self.token = token
        self.heard = bytearray()
        self.heard_at: list[float] = []
        """When sound came that is not silent."""
        self.codes: list[int] = []
        """With which the sockets were closed."""
        self.connected = 0
        """How many sockets were open."""
        self._fleet = fleet
        self._task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None

    def start(self) -> None:
        """Begin to call."""
        self._task = asyncio.create_task(self._run())

    def give_up(self) -> None:
        """Break the socket, as somebody does who hears nothing."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def hang_up(self) -> None:
        """Call no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            status, found = 0, {}
            with contextlib.suppress(OSError):  # the gateway is ending
                status, found = await self._fleet.ask(
                    "GET", f"/sessions/{self.session_id}", token=self.token
                )
            if status == 410:
                return
            if status == 200:
                with contextlib.suppress(OSError, websockets.InvalidHandshake):
                    await self._talk(found["url"])
            await asyncio.sleep(0.05)

    async def _talk(self, url: str) -> None:
        async with connect(f"{url}?token={self.token}", open_timeout=1.0) as socket:
            await socket.send(json.dumps({"rate": 24_000, "token": self.token}))
            self._socket = socket
            speaking = asyncio.create_task(self._speak(socket))
            try:
                async for frame in socket:
                    self._take(frame)
            except websockets.ConnectionClosed:
                pass
            finally:
                speaking.cancel()
                self.codes.append(socket.close_code or 1006)

    async def _speak(self, socket: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.send(_SILENCE)
                await asyncio.sleep(0.04)

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            self.connected += json.loads(frame)["type"] == "hello"
            return
        self.heard += frame
        if any(frame):
            self.heard_at.append(time.monotonic())


def kill(*pids: int) -> None:
    """Kill processes."""
    send(signal.SIGKILL, *pids)


def send(number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes that may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
