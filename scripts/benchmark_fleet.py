"""The programs of ``python scripts/benchmark.py fleet``: hosts that are killed, and the stores.

The fleet is the real command, ``rtvoice fleet``, with two hosts and a store in a file. Its Realtime
server, a process of its own, speaks to each conversation without a pause. One host is killed; the
silence of a caller is that between the last sound before and the first sound after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmark_service import Conversation, serve_conversations
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rtvoice.fleet.opening import open_store  # noqa: E402
from rtvoice.fleet.owner import pid_of  # noqa: E402
from rtvoice.fleet.store import Store  # noqa: E402

__all__ = ["measure"]

_CALLERS = 20
_RUNS = 3
_WAIT_S = 60.0
_SESSIONS = 1000
_STORE_S = 3.0
_CONNECTIONS = 4
_LINE = b"0badcafe " + json.dumps({"what": "Turn", "text": "x" * 200}).encode()
_SHOP = """
from rtvoice import Agent

def make_agent(call):
    return Agent(builtin_tools=(), inactivity_timeout_s=None, start_timeout_s=60)
"""


# -- the server -------------------------------------------------------------------------------


async def be_server() -> None:
    """Serve until killed: speak to whoever connects, as fast as it is heard."""

    async def speak(socket: Conversation, number: int) -> None:
        for turn in itertools.count():
            await socket.answer(f"{number}_{turn}", chunks=600, ms=100, pace_s=0.1)

    await serve_conversations(speak)


# -- the fleet and its callers ----------------------------------------------------------------


class _Caller:
    """A caller who asks the gateway where to go on when cut off."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self.id = ""
        self.host = ""
        self.heard: list[float] = []
        self._token = ""

    async def run(self) -> None:
        """Call until cancelled."""
        found = await asyncio.to_thread(self._ask, "POST", "/sessions", b"{}")
        assert found is not None, "no place"
        self.id, self._token = found["id"], found["token"]
        while True:
            if found is not None:
                self.host = found["url"]
                with contextlib.suppress(OSError, InvalidHandshake, ConnectionClosed):
                    await self._talk(found["url"])
            await asyncio.sleep(0.05)
            found = await asyncio.to_thread(self._ask, "GET", f"/sessions/{self.id}", b"")

    async def _talk(self, url: str) -> None:
        async with connect(f"{url}?token={self._token}", compression=None) as socket:
            await socket.send(json.dumps({"rate": 24_000, "token": self._token}))
            speaking = asyncio.create_task(self._speak(socket))
            try:
                async for frame in socket:
                    if isinstance(frame, bytes) and any(frame):
                        self.heard.append(time.monotonic())
            finally:
                speaking.cancel()

    @staticmethod
    async def _speak(socket: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(bytes(1920))
                await asyncio.sleep(0.04)

    def _ask(self, method: str, path: str, body: bytes) -> dict[str, Any] | None:
        request = urllib.request.Request(
            self._gateway + path,
            method=method,
            data=body or None,
            headers={"authorization": f"Bearer {self._token}"},
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=20) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
        return None


@contextlib.contextmanager
def _fleet(server: str) -> Iterator[tuple[str, Store]]:
    """Run the command; yield the gateway's URL and the store."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").write_text(_SHOP)
        store = f"sqlite:///{folder}/fleet.db"
        options = ("--agent", "shop.py:make_agent", "--port", "0", "--cpu-limit", "none")
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "fleet", "--store", store, *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RTVOICE_SERVER": server}
            | {"OPENAI_API_KEY": "sk-none", "RTVOICE_LOG_LEVEL": "ERROR"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        url = None
        while url is None:
            line = process.stderr.readline()
            assert line, "the fleet has ended"
            url = re.search(r"at (http://\S+) ", line)
        reading = threading.Thread(target=process.stderr.read, daemon=True)
        reading.start()
        opened = open_store(store)
        try:
            yield url[1], opened
        finally:
            opened.close()
            process.send_signal(signal.SIGINT)
            process.wait()
            reading.join()
            process.stderr.close()


async def _silences(server: str) -> list[float]:
    """Return the silence of each caller whose host was killed, in seconds."""
    with _fleet(server) as (gateway, store):
        callers = [_Caller(gateway) for _ in range(_CALLERS)]
        tasks = []
        for caller in callers:
            tasks.append(asyncio.create_task(caller.run()))
            await asyncio.sleep(0.6)  # until the hosts have reported their room
        try:
            await _until(lambda: all(len(caller.heard) > 50 for caller in callers))
            (url, count), *_ = Counter(caller.host for caller in callers).most_common()
            host = next(each for each in store.hosts() if url.startswith(f"ws{each.url[4:]}"))
            cut_off = [caller for caller in callers if caller.host == url]
            os.kill(pid_of(host.owner), signal.SIGKILL)
            killed_at = time.monotonic()
            await _until(lambda: all(each.heard[-1] > killed_at + 1 for each in cut_off))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        print(f"  a host with {count} of {_CALLERS} conversations was killed", flush=True)
        return [_gap(caller.heard, killed_at) for caller in cut_off]


def _gap(heard: list[float], at: float) -> float:
    """Return the longest silence from a time on, or around it."""
    near = [each for each in heard if each > at - 1]
    return max(after - before for before, after in itertools.pairwise(near))


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the fleet did not do what was expected")
        await asyncio.sleep(0.05)


# -- the stores -------------------------------------------------------------------------------


def _measure_store(name: str, url: str) -> None:
    store = open_store(url)
    ids = [f"{time.time_ns():x}{number:04}" for number in range(_SESSIONS)]
    for session_id in ids:
        store.create(session_id, b"{}", "hash")
        store.acquire(session_id, "benchmark", "host", 600.0)
    renewed, began = 0, time.monotonic()
    while time.monotonic() - began < _STORE_S:
        renewed += len(store.renew("benchmark", 600.0))
    renewals = renewed / (time.monotonic() - began)
    times: list[float] = []

    def append(part: int) -> int:
        mine, done, until = open_store(url), 0, time.monotonic() + _STORE_S
        while time.monotonic() < until:
            for session_id in ids[part::_CONNECTIONS]:
                at = time.monotonic()
                mine.append(session_id, 1, done // len(ids[part::_CONNECTIONS]) + 1, [_LINE])
                times.append(time.monotonic() - at)
                done += 1
                if time.monotonic() > until:
                    break
        mine.close()
        return done

    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        appends = sum(threads.map(append, range(_CONNECTIONS))) / _STORE_S
    p99 = statistics.quantiles(times, n=100)[98] * 1e3
    print(
        f"  {name}: {renewals:,.0f} renewals/s ({_SESSIONS} a statement), {appends:,.0f} appends/s "
        f"on {_CONNECTIONS} connections, p99 {p99:.1f} ms",
        flush=True,
    )
    store.close()


def measure() -> None:
    """Measure both, and print what was found."""
    program = [sys.executable, str(Path(__file__).resolve())]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        print(f"silence of a caller whose host is killed, of {_RUNS} runs:", flush=True)
        found = sorted(each for _ in range(_RUNS) for each in asyncio.run(_silences(url)))
        p95 = statistics.quantiles(found, n=20)[18]
        print(f"  p50 {statistics.median(found):.2f} s, p95 {p95:.2f} s, most {found[-1]:.2f} s")
    finally:
        server.kill()
        server.communicate()
    print(f"the stores, with {_SESSIONS} conversations:")
    with tempfile.TemporaryDirectory() as folder:
        _measure_store("SQLite", f"sqlite:///{folder}/fleet.db")
    from tests.postgres import PROGRAMS, running

    if PROGRAMS is None:
        print("  Postgres: not installed")
        return
    with running() as postgres:
        _measure_store("Postgres", postgres.url)


if __name__ == "__main__":
    asyncio.run(be_server())
