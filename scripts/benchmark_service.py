"""The programs of ``python scripts/benchmark.py service``: a service, its callers, their server.

The service is the real command, ``rtvoice serve``. The callers are tasks of the benchmark, each at
a websocket of its own: they send a stamped block every 40 ms, and report what they have played.
The Realtime server is a process of its own, in which each conversation is spoken to for 6 s in 8 s.
It takes the time of a block when it reads it from its socket.

With ``--against REVISION`` an earlier revision is measured in the same run, in turn with this one:
same callers, same server. A revision that has no service gets a small ASGI application in which the
caller's websocket is a device of the agent, as its guide advised.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from benchmark_devices import stamp_of, stamped
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame

from rtvoice.service.load import Processes, busy_seconds

_BLOCK_S, _BLOCK_BYTES = 0.04, 1920
_BYTES_A_MS = 48
_LIMIT_MS = 20
_AT_LEAST = 20
"""So many conversations are measured in any case: other programs may cost the p99 of fewer."""
_TRIES = 3
"""How often a level that misses the limit is measured, the best of which counts."""
_STARTING_S = 180.0
_AGAINST_S = 16.0
"""How long each revision is measured in a run: two answers of each conversation."""
_RATIO = 0.8
"""CPU of this revision in parts of that of 7992134, which had a device in the program."""

_SHOP = """
from rtvoice import Agent

def make_agent(call):
    return Agent(builtin_tools=(), inactivity_timeout_s=None)
"""

_EARLIER = """
import asyncio
import json

from rtvoice import Agent
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice


class Visitor(AudioInputDevice, AudioOutputDevice):
    def __init__(self, receive, send):
        self._receive, self._send = receive, send
        self.played_ms = 0.0
        self._before_ms = 0.0
        self._clears = 0
        self.is_over = asyncio.Event()

    async def start(self): ...

    async def stop(self): ...

    @property
    def is_active(self):
        return self._active

    async def stream_chunks(self):
        while (event := await self._receive())["type"] == "websocket.receive":
            if event.get("bytes"):
                yield event["bytes"]
            else:
                told = json.loads(event["text"])
                if told.get("type") == "played" and told["clears"] == self._clears:
                    self.played_ms = self._before_ms + told["ms"]
        self.is_over.set()

    async def tell(self, kind, **fields):
        text = json.dumps({"type": kind, **fields})
        await self._send({"type": "websocket.send", "text": text})

    async def play_chunk(self, chunk):
        await self._send({"type": "websocket.send", "bytes": chunk})

    async def clear_buffer(self):
        self._clears += 1
        self._before_ms = self.played_ms
        await self.tell("clear", clears=self._clears)


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise RuntimeError("callers only")
    await receive()
    await send({"type": "websocket.accept"})
    visitor = Visitor(receive, send)
    agent = Agent(
        audio_input=visitor,
        audio_output=visitor,
        builtin_tools=(),
        inactivity_timeout_s=None,
        start_timeout_s=60,
    )
    async with agent:
        await visitor.tell("started")
        await visitor.is_over.wait()
        await agent.stop()
"""
"""The service of a revision that has none."""


# -- the server -------------------------------------------------------------------------------


class Conversation(ServerConnection):
    """A socket of the server, which handles a message when it is read."""

    ages_ns: ClassVar[list[int]] = []
    """Age of each block that has arrived, of all conversations."""

    def process_event(self, event: Any) -> None:
        if not (isinstance(event, Frame) and event.opcode in DATA_OPCODES):
            super().process_event(event)
            return
        now, message = time.monotonic_ns(), json.loads(bytes(event.data))
        if message["type"] == "input_audio_buffer.append":
            if made := stamp_of(base64.b64decode(message["audio"])):
                self.ages_ns.append(now - made)
        elif message["type"] == "session.update":
            self._updating = asyncio.ensure_future(
                self.tell("session.updated", session=message["session"])
            )

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        event_id = f"event_{time.monotonic_ns()}"
        await self.send(json.dumps({"type": kind, "event_id": event_id, **fields}))

    async def answer(
        self, name: str, chunks: int = 60, ms: int = 100, pace_s: float = 0.04
    ) -> None:
        """Send an answer: 6 s of sound in 2.4 s."""
        response = {"id": f"resp_{name}", "object": "realtime.response", "output": []}
        item = {"id": f"item_{name}", "type": "message", "role": "assistant", "content": []}
        of_item = {"response_id": f"resp_{name}", "output_index": 0}
        of_part = {**of_item, "item_id": f"item_{name}", "content_index": 0}
        sound = base64.b64encode(b"\1\0" * (_BYTES_A_MS * ms // 2)).decode()
        await self.tell("response.created", response={**response, "status": "in_progress"})
        await self.tell("response.output_item.added", item=item, **of_item)
        for _ in range(chunks):
            await asyncio.sleep(pace_s)
            await self.tell("response.output_audio.delta", delta=sound, **of_part)
        await self.tell("response.output_audio.done", **of_part)
        await self.tell("response.done", response={**response, "status": "completed"})


async def serve_conversations(
    speak: Callable[[Conversation, int], Coroutine[Any, Any, None]],
) -> None:
    """Serve until killed; print the URL.

    Args:
        speak: Called with each connection and its number; speaks until that is closed.
    """
    numbers = itertools.count()

    async def talk(socket: ServerConnection) -> None:
        assert isinstance(socket, Conversation)
        number = next(numbers)
        await socket.tell("session.created", session={"type": "realtime", "id": f"sess_{number}"})
        with contextlib.suppress(ConnectionClosed):
            await speak(socket, number)

    options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
    async with serve(talk, "127.0.0.1", 0, create_connection=Conversation, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}/v1/realtime", flush=True)
        await server.wait_closed()


async def be_server() -> None:
    """Serve until killed; for each line that comes, print the ages of the blocks since the last."""

    async def speak(socket: Conversation, number: int) -> None:
        begun = time.monotonic() + 1 + number * 0.618 % 1 * 8  # not all speak at once
        for turn in itertools.count():
            await asyncio.sleep(max(0.0, begun + 8 * turn - time.monotonic()))
            await socket.answer(f"{number}_{turn}")

    def report() -> None:
        if not sys.stdin.readline():
            os._exit(0)
        print(json.dumps(Conversation.ages_ns), flush=True)
        Conversation.ages_ns.clear()

    asyncio.get_running_loop().add_reader(0, report)
    await serve_conversations(speak)


class _Server:
    """The server's process."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).resolve())]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._line().strip()

    async def ages_ms(self) -> list[float]:
        """Return the ages of the blocks that have arrived since the last call, sorted."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = await asyncio.to_thread(self._line)
        return sorted(ns / 1e6 for ns in json.loads(line))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


# -- the service and its callers --------------------------------------------------------------


@contextlib.contextmanager
def _serving(url: str, *options: str) -> Iterator[tuple[int, int]]:
    """Run the command; yield its process id and its port."""
    command = (sys.executable, "-m", "supervisor", "serve", "shop.py:make_agent")
    limits = ("--port", "0", "--cpu-limit", "none", "--lag-limit-ms", "none")
    with (
        tempfile.TemporaryDirectory() as folder,
        _running((*command, *limits, *options), Path(folder), _SHOP, url) as found,
    ):
        yield found


@contextlib.contextmanager
def _serving_earlier(url: str, checkout: Path) -> Iterator[tuple[int, int]]:
    """Run another revision; yield its process id and its port."""
    if (checkout / "rtvoice" / "service").exists():
        code, arguments = _SHOP, "supervisor serve shop.py:make_agent --cpu-limit none"
        arguments += " --lag-limit-ms none"
    else:
        code, arguments = _EARLIER, "uvicorn shop:app --lifespan off"
    command = (sys.executable, "-m", *arguments.split(), "--port", "0")
    with _running(command, checkout, code, url) as found:
        yield found


@contextlib.contextmanager
def _running(
    command: tuple[str, ...], folder: Path, code: str, url: str
) -> Iterator[tuple[int, int]]:
    """Run a command with a module ``shop`` in its folder; yield its process id and its port."""
    (folder / "shop.py").write_text(code)
    log = folder / "log"
    environment = {**os.environ, "RTVOICE_SERVER": url}
    if (folder / "rtvoice").exists():
        environment["PYTHONPATH"] = str(folder)  # before the revision that is installed
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=output) as process,
    ):
        try:
            while not (found := re.search(r"http://127.0.0.1:(\d+)", log.read_text())):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield process.pid, int(found[1])
        finally:
            process.kill()


class _Line(ClientConnection):
    """The socket of a caller, which handles a message when it is read."""

    caller: _Caller

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self.caller.came(bytes(event.data), is_sound=event.opcode == 2)
        else:
            super().process_event(event)


class _Caller:
    """A caller who speaks all the time, and plays what comes."""

    def __init__(self, port: int, number: int, hello: str = '{"rate": 24000}') -> None:
        self._hello = hello
        self.started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """When the conversation had started; an exception: why it has not."""
        self._url = f"ws://127.0.0.1:{port}/talk"
        self._number = number
        self._clears = 0
        self._got_ms = 0.0
        self._until = 0.0
        """When all of it will have been played."""
        self._calling = asyncio.ensure_future(self._call())

    def came(self, data: bytes, *, is_sound: bool) -> None:
        """Take a frame."""
        if is_sound:
            ms = len(data) / _BYTES_A_MS
            self._got_ms += ms
            self._until = max(self._until, time.monotonic()) + ms / 1000
            return
        told = json.loads(data)
        if told["type"] == "started":
            self.started.set_result(time.monotonic())
        elif told["type"] == "clear":
            self._clears, self._got_ms, self._until = told["clears"], 0.0, 0.0

    async def hang_up(self) -> None:
        """End the call."""
        self._calling.cancel()
        await asyncio.gather(self._calling, return_exceptions=True)

    def check(self) -> None:
        """Raise what has ended the call, if it has ended."""
        if self._calling.done():
            self._calling.result()

    async def _call(self) -> None:
        try:
            async with connect(
                self._url, compression=None, create_connection=_Line, open_timeout=_STARTING_S
            ) as socket:
                assert isinstance(socket, _Line)
                socket.caller = self
                await socket.send(self._hello)
                await self._speak(socket)
        except (ConnectionClosed, InvalidStatus, OSError) as error:
            if not self.started.done():
                self.started.set_exception(error)
            raise

    async def _speak(self, socket: _Line) -> None:
        await asyncio.sleep(self._number * 0.618 % 1 * _BLOCK_S)  # not all in the same moment
        due = time.monotonic()
        while True:
            await socket.send(stamped(_BLOCK_BYTES))
            left_ms = (self._until - time.monotonic()) * 1000
            if left_ms > -2 * _BLOCK_S * 1000:
                ms = self._got_ms - max(0.0, left_ms)
                played = {"type": "played", "ms": round(ms, 1), "clears": self._clears}
                await socket.send(json.dumps(played))
            due += _BLOCK_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))


# -- measurements -----------------------------------------------------------------------------


class _Row(NamedTuple):
    conversations: int
    cpu: float
    """CPU-seconds of the service for a minute of a conversation."""
    pss_mib: float
    p50_ms: float
    p99_ms: float
    own_cores: float
    """Of callers and server: what the benchmark takes from the machine."""
    other_cores: float
    """Of all other programs."""


async def _measure(count: int, pid: int, server: _Server, seconds: float) -> _Row:
    service, all_of_us = Processes(pid), Processes()
    await server.ages_ms()
    busy, begun = busy_seconds(), time.monotonic()
    service.cores(), all_of_us.cores()
    await asyncio.sleep(seconds)
    cores, ours = service.cores(), all_of_us.cores()
    others = (busy_seconds() - busy) / (time.monotonic() - begun) - ours
    ages = await server.ages_ms()
    if len(ages) < 0.5 * count * seconds / _BLOCK_S:
        raise RuntimeError(f"only {len(ages)} blocks of {count} conversations have arrived")
    p99 = ages[int(len(ages) * 0.99)]
    pss = service.pss_mib()
    median = statistics.median(ages)
    return _Row(count, cores * 60 / count, pss, median, p99, ours - cores, max(0.0, others))


async def _rows(server: _Server, seconds: float) -> AsyncIterator[_Row]:
    """Yield a row for more and more conversations, until there are too many."""
    callers: list[_Caller] = []
    with _serving(server.url) as (pid, port):
        for count in itertools.chain((1, 5), itertools.count(10, 10)):
            callers += [_Caller(port, number) for number in range(len(callers), count)]
            try:
                async with asyncio.timeout(_STARTING_S):
                    await asyncio.gather(*(caller.started for caller in callers))
            except InvalidStatus as refused:
                print(f"\n{count} conversations: {refused.response.body.decode().strip()}")
                break
            await asyncio.sleep(9.0)  # until each has been spoken to
            tries: list[_Row] = []
            while len(tries) < _TRIES and not any(row.p99_ms <= _LIMIT_MS for row in tries):
                tries.append(await _measure(count, pid, server, seconds))
            for caller in callers:
                caller.check()
            best = min(tries, key=lambda row: row.p99_ms)
            yield best
            if best.p99_ms > _LIMIT_MS and count >= _AT_LEAST:
                break
        for caller in callers:
            await caller.hang_up()


async def _row(
    server: _Server, serving: contextlib.AbstractContextManager[tuple[int, int]], count: int
) -> _Row:
    """Measure so many conversations, started one after the other."""
    callers: list[_Caller] = []
    with serving as (pid, port):
        async with asyncio.timeout(_STARTING_S):
            for number in range(count):
                callers.append(_Caller(port, number))
                await callers[-1].started
        await asyncio.sleep(9.0)  # until each has been spoken to
        row = await _measure(count, pid, server, _AGAINST_S)
        for caller in callers:
            caller.check()
            await caller.hang_up()
    return row


@contextlib.contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    """Yield a folder with the files of a revision."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", revision], cwd=root, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


async def measure_against(revision: str, count: int = 10, runs: int = 5) -> None:
    """Print what conversations cost with this revision and with another one, run in turn."""
    this: list[_Row] = []
    other: list[_Row] = []
    server = _Server()
    try:
        with _checked_out(revision) as folder:
            for run in range(runs):
                for is_this in (True, False) if run % 2 else (False, True):
                    if is_this:
                        this.append(await _row(server, _serving(server.url), count))
                    else:
                        other.append(
                            await _row(server, _serving_earlier(server.url, folder), count)
                        )
    finally:
        server.close()
    _compare(revision, this, other)


def _compare(revision: str, this: list[_Row], other: list[_Row]) -> None:
    count, runs = this[0].conversations, len(this)
    print(
        f"\n| {count} conversations, median of {runs} runs | CPU-seconds a conversation-minute"
        " | of each run | memory (PSS) of each | captured block → server, p99 | other programs"
        " |\n|" + "---|" * 6
    )
    for name, rows in (("this revision", this), (revision, other)):
        cpu = statistics.median(row.cpu for row in rows)
        pss = statistics.median(row.pss_mib for row in rows)
        p99 = statistics.median(row.p99_ms for row in rows)
        others = statistics.median(row.other_cores for row in rows)
        each = ", ".join(f"{row.cpu:.2f}" for row in rows)
        print(
            f"| {name} | {cpu:.2f} | {each} | {pss / count:.0f} MiB | {p99:.1f} ms | {others:.2f} |"
        )
    ratio = statistics.median(r.cpu for r in this) / statistics.median(r.cpu for r in other)
    verdict = "ok" if ratio <= _RATIO else "MISSED"
    print(f"CPU, this revision / {revision}: {ratio:.2f} (limit {_RATIO}) {verdict}", flush=True)


async def _burst(server: _Server, count: int = 20) -> tuple[list[float], int]:
    """Have so many call at once; return after how many seconds each was served, and the refused."""
    options = ("--max-sessions", str(count), "--queue", str(count), "--queue-s", "10")
    with _serving(server.url, *options) as (_, port):
        begun = time.monotonic()
        callers = [_Caller(port, number) for number in range(count)]
        async with asyncio.timeout(_STARTING_S):
            found = await asyncio.gather(*(c.started for c in callers), return_exceptions=True)
        for caller in callers:
            await caller.hang_up()
    served = sorted(at - begun for at in found if isinstance(at, float))
    return served, count - len(served)


async def _crowd(server: _Server, count: int = 20, places: int = 4) -> None:
    """Print how soon those with a place are served, and the others refused."""
    with _serving(server.url, "--max-sessions", str(places)) as (_, port):
        begun = time.monotonic()
        lone = _Caller(port, 0)
        alone_s = await lone.started - begun
        await lone.hang_up()
    with _serving(server.url, "--max-sessions", str(places)) as (_, port):
        refused: list[float] = []
        begun = time.monotonic()
        callers = [_Caller(port, number) for number in range(count)]
        for caller in callers:
            caller.started.add_done_callback(
                lambda done: refused.append(time.monotonic() - begun) if done.exception() else None
            )
        found = await asyncio.gather(*(c.started for c in callers), return_exceptions=True)
        for caller in callers:
            await caller.hang_up()
    served = max(at - begun for at in found if isinstance(at, float))
    print(
        f"{count} callers and {places} places: {count - len(refused)} served, the last after "
        f"{served:.2f} s (limit: {2 * alone_s:.2f} s, twice what one alone takes), the others "
        f"refused after {1000 * max(refused):.0f} ms at most (limit: 100 ms)"
    )


async def measure(seconds: float = 16.0) -> None:
    """Print the table of conversations, and how many are served of twenty callers at once."""
    server = _Server()
    try:
        print(
            "| conversations | CPU-seconds a conversation-minute | memory (PSS) of all"
            " | of a further one | captured block → server, p50 | p99"
            " | cores: callers and server | other programs |\n|" + "---|" * 8
        )
        before: _Row | None = None
        async for row in _rows(server, seconds):
            further = "—"
            if before is not None:
                more = row.conversations - before.conversations
                further = f"{(row.pss_mib - before.pss_mib) / more:.0f} MiB"
            print(
                f"| {row.conversations} | {row.cpu:.1f} | {row.pss_mib:.0f} MiB | {further}"
                f" | {row.p50_ms:.1f} ms | {row.p99_ms:.1f} ms"
                f" | {row.own_cores:.2f} | {row.other_cores:.2f} |",
                flush=True,
            )
            before = row
        served, refused = await _burst(server)
        print(
            f"\n20 callers at once: {len(served)} served, the first after {served[0]:.1f} s, "
            f"the last after {served[-1]:.1f} s; {refused} refused (limit: all within 8 s)"
        )
        await _crowd(server)
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(be_server())
