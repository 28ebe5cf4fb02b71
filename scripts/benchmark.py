"""Measure a session: start the real command, stamp PCM, read the stamps at the server's socket.

    python scripts/benchmark.py                     all figures, about two minutes
    python scripts/benchmark.py latency recovery    only these: start latency barge-in recovery load
                                                    agent core reconnect
    python scripts/benchmark.py floor               a conversation beside a bare websocket
    python scripts/benchmark.py console             CPU and memory of the console, and its delay
    python scripts/benchmark.py service             more and more callers of one service, a table
    python scripts/benchmark.py fleet               hosts that are killed, and the stores of a fleet
    python scripts/benchmark.py service --against 7992134    this revision and another one in turn
    python scripts/benchmark.py page                an answer in a browser beside one at a card
    python scripts/benchmark.py card                the same with a sound card, the virtual one
    python scripts/benchmark.py card --soak 600     with a soak of ten minutes (else 30 s)
    python scripts/benchmark.py faults --runs 100   every fault of every component, a table (long)

The benchmark itself is the Realtime server. Its devices run in the microphone and speaker
processes: each captured block contains the time of its capture, each delta the time at which it was
sent. The figures depend on the machine, so compare medians within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import bisect
import contextlib
import itertools
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import benchmark_console
import benchmark_core
import benchmark_fleet
import benchmark_page
import benchmark_service
from benchmark_devices import BLOCK_MS, PUT_LOG, stamp_of, stamped
from benchmark_floor import CLIENTS
from inject import Probe, sessions
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, Frame
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from messages import SupervisorRestarted
from supervisor import Session

# -- the server ---------------------------------------------------------------------------------


class _Connection(ServerConnection):
    """Takes the time of a message on the thread that reads the socket.

    So the time in which another thread wakes up is not measured.
    """

    heard: Callable[[bytes, int], None]

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self.heard(bytes(event.data), time.monotonic_ns())
        else:
            super().process_event(event)


class Server:
    """The server of the benchmark: it records what arrives, and speaks on command."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self.echoed: list[int] = []
        self.last_stamp = 0
        self.arrived: dict[str, int] = {}
        """When the last event of each type (or the answer to each call) arrived."""
        self.appends = 0
        self.append_times: list[int] = []
        self.truncated_ms: list[int] = []
        self._news = threading.Condition()
        self._socket: ServerConnection | None = None
        self._numbers = iter(range(1, 1_000_000_000))
        self._server = serve(
            self._talk,
            "127.0.0.1",
            0,
            compression=None,
            max_size=None,
            create_connection=_Connection,
        )
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/v1/realtime"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        assert self._socket is not None
        number = next(self._numbers)
        self._socket.send(json.dumps({"type": kind, "event_id": f"event_{number}", **fields}))

    def latencies_while_speaking(self, seconds: float) -> list[int]:
        """Give one answer after the other; return the ns from capture to here of each block."""
        self.latencies.clear()
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            self.answer(f"latency_{number}", chunks=10, ms=20, pace_s=0.07)
        return self.latencies[:]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until a condition is true."""
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                raise TimeoutError("the session did not do what was expected")

    def hears(self) -> bool:
        """Return whether audio has arrived."""
        return self.appends > 0

    def drop(self) -> int:
        """Break the connection without a close frame; return the time."""
        assert self._socket is not None
        socket, self.appends = self._socket, 0
        now = time.monotonic_ns()
        socket.socket.shutdown(2)
        return now

    def answer(
        self, name: str, chunks: int, ms: int = 200, pace_s: float = 0.0, sound: bytes = b""
    ) -> None:
        """Send an answer.

        Args:
            name: Part of its ids.
            chunks: Number of audio deltas.
            ms: Length of each delta.
            pace_s: Time between two deltas.
            sound: Audio of each delta; empty: stamps.
        """
        ids = {
            "response_id": f"resp_{name}",
            "item_id": f"item_{name}",
            "output_index": 0,
            "content_index": 0,
        }
        item = {"id": f"item_{name}", "type": "message", "role": "assistant", "content": []}
        response = {"id": f"resp_{name}", "object": "realtime.response", "output": []}
        self.send("response.created", response={**response, "status": "in_progress"})
        self.send(
            "response.output_item.added", response_id=f"resp_{name}", output_index=0, item=item
        )
        for _ in range(chunks):
            if pace_s:
                time.sleep(pace_s)
            delta = base64.b64encode(sound or stamped(48 * ms)).decode()
            self.send("response.output_audio.delta", delta=delta, **ids)
        self.send("response.output_audio.done", **ids)
        self.send("response.done", response={**response, "status": "completed"})

    def call(self, call_id: str) -> None:
        """Call a tool."""
        item = {
            "id": f"item_{call_id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": "get_current_time",
            "arguments": "{}",
        }
        response = {"id": f"resp_{call_id}", "object": "realtime.response", "output": []}
        self.send("response.created", response={**response, "status": "in_progress"})
        self.send(
            "response.output_item.done", response_id=response["id"], output_index=0, item=item
        )
        self.send("response.done", response={**response, "status": "completed"})

    def hear(self, item: str) -> None:
        """Send the events of a spoken turn of the user."""
        message = {"id": item, "type": "message", "role": "user", "content": []}
        self.send("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        self.send("conversation.item.added", item=message)
        self.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript="hello",
            usage={"type": "duration", "seconds": 1.0},
        )

    def _talk(self, socket: ServerConnection) -> None:
        assert isinstance(socket, _Connection)
        self._socket = socket
        socket.heard = self._heard
        self.send("session.created", session={"type": "realtime", "id": "sess_1"})
        socket.recv_events_thread.join()

    def _heard(self, text: bytes, now: int) -> None:
        event = json.loads(text)
        kind = event["type"]
        with self._news:
            if kind == "input_audio_buffer.append":
                self.appends += 1
                self.append_times.append(now)
                if made := stamp_of(base64.b64decode(event["audio"])):
                    self.last_stamp = made
                    self.latencies.append(now - made)
            elif kind == "age":
                self.echoed.append(event["ns"])
            elif kind == "conversation.item.truncate":
                self.truncated_ms.append(event["audio_end_ms"])
            elif kind == "conversation.item.create":
                kind = str(event["item"].get("call_id", kind))
            self.arrived[kind] = now
            self._news.notify_all()
        if kind == "session.update":
            self.send("session.updated", session=event["session"])


# -- the command --------------------------------------------------------------------------------


class Command:
    """The real command, running in its processes, and the events that it prints."""

    def __init__(self, folder: Path, server: str, *options: str) -> None:
        self.put_log = folder / "put"
        self.put_log.write_bytes(b"")
        self.events: list[tuple[int, dict[str, Any]]] = []
        self._news = threading.Condition()
        here = Path(__file__).resolve().with_name("benchmark_devices.py")
        command = [sys.executable, "-m", "supervisor", "--server", server, "--events", "-"]
        command += ["--input", f"{here}:StampedCapture", "--output", f"{here}:StampedPlayback"]
        command += [
            "--record",
            str(folder / "recording.wav"),
            "--inactivity-timeout",
            "0",
            *options,
        ]
        environment = {**os.environ, PUT_LOG: str(self.put_log)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each child compiles its imports
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def expect(self, name: str, since_ns: int = 0, **fields: object) -> tuple[int, dict[str, Any]]:
        """Wait for an event with these fields; return its time and the event."""

        def found() -> list[tuple[int, dict[str, Any]]]:
            return [
                (at, event)
                for at, event in self.events
                if event["event"] == name
                and at >= since_ns
                and all(event.get(key) == value for key, value in fields.items())
            ]

        with self._news:
            if not self._news.wait_for(found, 20.0):
                raise TimeoutError(f"no {name} came: {self.events[-3:]}")
        return found()[0]

    @property
    def pid(self) -> int:
        """The process id of the command itself, whose sessions are named after it."""
        return self._process.pid

    @property
    def pids(self) -> dict[str, int]:
        """The current process ids of the components, by name."""
        pids = dict(self.expect("session_started")[1]["pids"])
        for _, event in self.events:
            if event["event"] == "component_restarted":
                pids[event["component"]] = event["pid"]
        return pids

    def puts(self) -> list[tuple[int, int]]:
        """Return the times (sent, given to the device) of the blocks given to the loudspeaker."""
        data = self.put_log.read_bytes()
        notes = struct.iter_unpack("<QQ", data[: len(data) // 16 * 16])
        return [(made, given) for made, given in notes if made]

    def cleared(self) -> list[int]:
        """Return the times at which the loudspeaker's queue was cleared."""
        data = self.put_log.read_bytes()
        notes = struct.iter_unpack("<QQ", data[: len(data) // 16 * 16])
        return [at for made, at in notes if not made]

    def stop(self) -> None:
        """End the session."""
        self._process.terminate()
        self._process.wait(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.events.append((time.monotonic_ns(), json.loads(line)))
                self._news.notify_all()


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[Server, Command]]:
    """Run the command against our server; enter the body once it has sent some audio."""
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        command = Command(Path(folder), server.url, *options)
        try:
            command.expect("session_started")
            server.wait_for(lambda: server.appends > 10)
            yield server, command
        finally:
            command.stop()


def report(name: str, values_ms: list[float], limit_ms: float) -> None:
    """Print one figure, and whether its median keeps the limit."""
    ordered = sorted(values_ms)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    verdict = "ok" if p50 <= limit_ms else "MISSED"
    print(
        f"{name:44} p50 {p50:8.2f}  p99 {p99:8.2f}  worst {ordered[-1]:8.2f} ms"
        f"  (n={len(ordered)}, limit {limit_ms:g}) {verdict}",
        flush=True,
    )


# -- measurements -------------------------------------------------------------------------------


def measure_start(runs: int = 5) -> None:
    """Measure the time from the start of the command to the first audio at the server."""
    known = []
    for _ in range(runs):
        server = Server()
        with tempfile.TemporaryDirectory() as folder:
            command = Command(Path(folder), server.url)
            server.wait_for(server.hears)
            known.append((server.arrived["input_audio_buffer.append"] - command.started_ns) / 1e6)
            command.stop()
    report("start to first audio, server already there", known, 1000)
    own = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = Command(Path(folder), "sandbox", "--greeting", "Hello.")
            # The answer is requested together with the first audio.
            at, _ = command.expect("response_started")
            own.append((at - command.started_ns) / 1e6)
            command.stop()
    report("start to first answer, sandbox started too", own, 1500)


_AGENT = """
import asyncio, json, os, sys, time
begin = time.perf_counter()
import rtvoice
imported = time.perf_counter()
from rtvoice import Agent, AgentStartedEvent
agent = Agent(server=sys.argv[1], audio_input="silence", audio_output="null")
made = time.perf_counter()
started = []
agent.event_bus.subscribe(AgentStartedEvent, lambda event: started.append(time.perf_counter()))
async def main():
    entered = time.perf_counter()
    async with agent:
        await agent.wait_ready()
        ready = time.perf_counter()
        await agent.stop()
    print(json.dumps([imported - begin, made - begin, started[0] - entered, ready - entered]))
asyncio.run(main())
"""


def measure_agent(runs: int = 5) -> None:
    """Measure a program: its import, and the time from entering an agent until it is ready."""
    for what, limit_ms in (("server already there", 1200), ("sandbox started too", 1500)):
        found: list[list[float]] = []
        for _ in range(runs):
            server = Server().url if what == "server already there" else "sandbox"
            command = [sys.executable, "-c", _AGENT, server]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found.append([seconds * 1000 for seconds in json.loads(done.stdout)])
        imported, made, started, ready = (list(column) for column in zip(*found, strict=True))
        if what == "server already there":
            report("import rtvoice", imported, 150)
            report("import rtvoice, make an Agent", made, 300)
        report(f"enter to AgentStartedEvent, {what}", started, limit_ms)
        report(f"enter to ready, {what}", ready, limit_ms)


_SESSIONS = """
import json, sys, time
from pathlib import Path
begin = time.perf_counter()
from messages.transport import forking
from supervisor import Session

def cpu_ms(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

def pss_mib(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024

sessions, found = [], {"ready_ms": [], "cpu_ms": [], "pss_mib": []}
forkserver_ms = 0.0
for number in range(4):
    session = Session(server=sys.argv[1], input="silence", output="null")
    entered = begin if number == 0 else time.perf_counter()
    session.start()
    sessions.append(session)
    found["ready_ms"].append((time.perf_counter() - entered) * 1000)
    time.sleep(1.5)
    shared = forking.server_pid()
    pids = [pid for one in sessions for pid in one.started.pids.values()]
    cpu = sum(map(cpu_ms, session.started.pids.values()))
    if shared is not None:
        cpu += cpu_ms(shared) - forkserver_ms
        forkserver_ms = cpu_ms(shared)
    found["cpu_ms"].append(cpu)
    found["pss_mib"].append(sum(map(pss_mib, [*pids, *([shared] if shared else [])])))
for session in sessions:
    session.stop()
print(json.dumps(found))
"""


def measure_fork(runs: int = 20) -> None:
    """Measure sessions and restarts with and without fork, side by side."""
    ways = {"forked": "", "not forked": "0"}
    figures: dict[str, list[dict[str, list[float]]]] = {way: [] for way in ways}
    server = Server().url
    for _ in range(5):
        for way, value in ways.items():
            done = subprocess.run(
                [sys.executable, "-c", _SESSIONS, server],
                check=True,
                stdout=subprocess.PIPE,
                env={**os.environ, "RTVOICE_FORK": value},
            )
            figures[way].append(json.loads(done.stdout))
    rows: dict[str, Callable[[dict[str, list[float]]], float]] = {
        "first session of a program, import to ready, ms": lambda it: it["ready_ms"][0],
        "each further one, start to ready, ms": lambda it: statistics.mean(it["ready_ms"][1:]),
        "CPU of the first session's start, ms": lambda it: it["cpu_ms"][0],
        "CPU of each further one's, ms": lambda it: statistics.mean(it["cpu_ms"][1:]),
        "memory of the first session, PSS, MiB": lambda it: it["pss_mib"][0],
        "of each further one, PSS, MiB": lambda it: (it["pss_mib"][3] - it["pss_mib"][0]) / 3,
    }
    print("| | forked | not forked |\n|---|---|---|")
    for name, figure in rows.items():
        medians = (statistics.median(map(figure, figures[way])) for way in ways)
        print(f"| {name} | " + " | ".join(f"{median:.0f}" for median in medians) + " |", flush=True)
    for way, value in ways.items():
        print(f"\n{way}: ms from SIGKILL until it works again", flush=True)
        command = [sys.executable, __file__, "faults", "--only", "SIGKILL", "--runs", str(runs)]
        subprocess.run(command, check=True, env={**os.environ, "RTVOICE_FORK": value})
    print(flush=True)
    measure_supervisor(runs)


def measure_supervisor(runs: int = 20) -> None:
    """Measure how long a session is without a supervisor when that is killed."""
    for way, value in (("forked", ""), ("not forked", "0")):
        os.environ["RTVOICE_FORK"] = value
        server = Server()
        session = Session(server=server.url, input="silence", output="null", restarts=10**6)
        restarted = session.events(SupervisorRestarted)
        open_ms, heard_ms = [], []
        with session:
            server.wait_for(partial(_has_heard, server, 0))
            for _ in range(runs):
                assert session.started is not None
                server.appends = 0
                os.kill(session.started.pids["supervisor"], signal.SIGKILL)
                killed_ns = time.monotonic_ns()
                restarted.get(30.0)
                open_ms.append((time.monotonic_ns() - killed_ns) / 1e6)
                connected = server.appends  # of the session with the server before
                server.wait_for(partial(_has_heard, server, connected))
                heard_ms.append((time.monotonic_ns() - killed_ns) / 1e6)
        limit_ms = 500 if way == "forked" else 1500
        report(f"SIGKILL of the supervisor to all open, {way}", open_ms, limit_ms)
        report(f"to the user heard again, {way}", heard_ms, limit_ms)


def _has_heard(server: Server, count: int) -> bool:
    return server.appends > count


def measure_latency(seconds: float = 10.0) -> None:
    """Measure the latency of both directions through the hub, while both are in use."""
    with running() as (server, command):
        up = server.latencies_while_speaking(seconds)
        down = [given - made for made, given in command.puts()]
    bare_up, bare_down = _bare_latency()
    for name, through, bare in (
        ("captured block", up, bare_up),
        ("audio delta", down, bare_down),
    ):
        report(f"{name}, through all processes", [ns / 1e6 for ns in through], 0.8)
        report(f"{name}, a bare websocket alone", [ns / 1e6 for ns in bare], 0.8)


def _bare_latency() -> tuple[list[int], list[int]]:
    """Measure the latency of a websocket alone, which is the lower limit of the two figures."""
    server = Server()
    here = Path(__file__).resolve()
    with subprocess.Popen([sys.executable, here, "--bare", server.url]) as client:
        server.wait_for(lambda: server.appends >= 100)
        up = server.latencies[:]
        for number in range(100):
            time.sleep(0.07)
            server.send("delta", delta=base64.b64encode(stamped(960)).decode(), number=number)
        server.wait_for(lambda: len(server.echoed) >= 100)
        client.terminate()
    return up, server.echoed


def _be_bare_client(url: str) -> None:
    """Send stamps; then answer each stamp that arrives with its age."""
    with connect(url, compression=None) as socket:
        for _ in range(100):
            time.sleep(0.04)
            audio = base64.b64encode(stamped(1920)).decode()
            socket.send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')
        for text in socket:
            now, event = time.monotonic_ns(), json.loads(text)
            if event["type"] == "delta":
                age = now - stamp_of(base64.b64decode(event["delta"]))
                socket.send(json.dumps({"type": "age", "ns": age}))


def measure_floor(seconds: float = 16.0, runs: int = 15) -> None:
    """Measure a conversation and a bare websocket that does the same work, side by side."""
    figures = {client: _floor_of(client, seconds, runs) for client in CLIENTS}
    print("| | " + " | ".join(CLIENTS.values()) + " |\n|---|" + "---|" * len(CLIENTS))
    for name in figures["bare"]:
        floor = figures["bare"][name]
        found = (figures[client][name] for client in CLIENTS)
        cells = (f"{figure:.2f} ({figure / floor:.1f})" for figure in found)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _floor_of(client: str, seconds: float, runs: int) -> dict[str, float]:
    """Return the figures of one client: medians in ms, and CPU."""
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "put")
        log.write_bytes(b"")
        here = Path(__file__).resolve().with_name("benchmark_floor.py")
        program = [sys.executable, str(here), client, server.url]
        environment = {**os.environ, PUT_LOG: str(log)}
        with subprocess.Popen(program, env=environment, start_new_session=True) as running:
            server.wait_for(lambda: server.appends > 50)
            server.latencies.clear()
            cpu = _session_cpu_s(running.pid)
            begun = time.monotonic()
            for number in itertools.count():  # the assistant speaks 6 s in 8 s
                if time.monotonic() - begun > seconds:
                    break
                server.answer(f"steady_{number}", chunks=60, ms=100, pace_s=0.04)
                time.sleep(max(0.0, begun + 8 * (number + 1) - time.monotonic()))
            cpu = (_session_cpu_s(running.pid) - cpu) / (time.monotonic() - begun) * 60
            up = sorted(server.latencies)
            before = len(_puts(log))
            server.answer("dry", chunks=40, ms=40, pace_s=0.09)
            time.sleep(0.2)
            first: dict[int, int] = {}  # when a delta's first part came to the loudspeaker
            for made, given in _puts(log)[before:]:
                first.setdefault(made, given)
            down = [given - made for made, given in first.items() if made]
            cleared, truncated, called = [], [], []
            for number in range(runs):
                before = len(_puts(log))
                server.answer(f"barge_{number}", chunks=10, ms=200)
                _wait_for_puts(log, before + 1)
                time.sleep(0.3)
                server.arrived.pop("conversation.item.truncate", None)
                sent = time.monotonic_ns()
                server.send(
                    "input_audio_buffer.speech_started", audio_start_ms=0, item_id=f"u{number}"
                )
                server.wait_for(lambda: "conversation.item.truncate" in server.arrived)
                truncated.append(server.arrived["conversation.item.truncate"] - sent)
                cleared.append([given for made, given in _puts(log) if not made][-1] - sent)
                server.send(
                    "input_audio_buffer.speech_stopped", audio_end_ms=0, item_id=f"u{number}"
                )
                time.sleep(0.1)
            for number in range(runs):
                sent = time.monotonic_ns()
                server.call(f"call_{number}")
                server.wait_for(lambda number=number: f"call_{number}" in server.arrived)  # type: ignore[misc]
                called.append(server.arrived[f"call_{number}"] - sent)
                time.sleep(0.1)
            os.killpg(running.pid, signal.SIGKILL)
    return {
        "captured block → server, ms": statistics.median(up) / 1e6,
        "the same, p99": up[int(len(up) * 0.99)] / 1e6,
        "delta → dry loudspeaker, ms": statistics.median(down) / 1e6,
        "speech_started → cleared, ms": statistics.median(cleared) / 1e6,
        "speech_started → truncate, ms": statistics.median(truncated) / 1e6,
        "tool round trip, ms": statistics.median(called) / 1e6,
        "CPU-seconds a minute": cpu,
    }


def _wait_for_puts(log: Path, count: int) -> None:
    end = time.monotonic() + 20
    while len(_puts(log)) < count:
        if time.monotonic() > end:
            raise TimeoutError("the loudspeaker was not given what was expected")
        time.sleep(0.002)


def _puts(log: Path) -> list[tuple[int, int]]:
    data = log.read_bytes()
    return list(struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]))


def _session_cpu_s(session: int) -> float:
    """Return the CPU time of all processes of a session of the operating system."""
    found = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def measure_barge_in(runs: int = 20) -> None:
    """Measure the time from speech_started until the queue is cleared, and until the truncation."""
    for queued_s, label in ((2, "2 s"), (600, "10 min")):
        cleared, times = [], []
        with running() as (server, command):
            for number in range(runs if queued_s < 60 else 5):
                name = f"barge_{number}"
                before = len(command.puts())
                server.answer(name, chunks=queued_s * 5, ms=200)
                while len(command.puts()) < before + 3:
                    time.sleep(0.01)
                time.sleep(0.3 if queued_s < 60 else 2.0)
                server.arrived.pop("conversation.item.truncate", None)
                sent = time.monotonic_ns()
                server.send(
                    "input_audio_buffer.speech_started", audio_start_ms=0, item_id=f"u{number}"
                )
                server.wait_for(lambda: "conversation.item.truncate" in server.arrived)
                times.append((server.arrived["conversation.item.truncate"] - sent) / 1e6)
                cleared.append((command.cleared()[-1] - sent) / 1e6)
        report(f"speech_started to queue cleared, {label} queued", cleared, 2.0)
        report(f"speech_started to truncate, {label} queued", times, 4.0)


def measure_recovery(runs: int = 5) -> None:
    """Measure the time from a SIGKILL until the component works again."""
    limits = {"history": 200, "tools": 200, "microphone": 300, "speaker": 300, "recorder": 300}
    with running() as (server, command):
        for component, limit in {**limits, "realtime": 400}.items():
            times = []
            for number in range(runs):
                time.sleep(0.3)  # the component must work for a while between two faults
                pid, fault = command.pids[component], time.monotonic_ns()
                os.kill(pid, signal.SIGKILL)
                times.append(
                    (_works_again(server, command, component, number, fault) - fault) / 1e6
                )
            report(f"SIGKILL of {component} to works again", times, limit)


def measure_reconnect(runs: int = 5) -> None:
    """Measure the time from the loss of the connection until audio arrives over a new one."""
    times = []
    with running() as (server, _command):
        for _ in range(runs):
            time.sleep(10.5)  # after a shorter session, the reconnection is delayed
            lost = server.drop()
            server.wait_for(server.hears)
            times.append((time.monotonic_ns() - lost) / 1e6)
    report("connection lost to first audio sent over a new one", times, 150)


def measure_core() -> None:
    """Measure the core of the realtime component alone, in this process."""
    rates = [benchmark_core.events_per_s(0.5) for _ in range(5)]
    print(f"core: {statistics.median(rates):.0f} server events a second (at least 20000)")
    delta = statistics.median(benchmark_core.delta_us() for _ in range(5))
    print(f"core: audio delta, read from the socket to sent on: {delta:.1f} us (at most 60)")
    sizes = benchmark_core.memory_kib(10_000)
    print("core: KiB held after each 1000 turns: " + " ".join(f"{size:.0f}" for size in sizes))


def _works_again(server: Server, command: Command, component: str, number: int, fault: int) -> int:
    """Return the time at which the component had done its work on a request after the fault."""
    match component:
        case "tools":
            server.call(f"call_{number}")
            server.wait_for(lambda: f"call_{number}" in server.arrived)
            return server.arrived[f"call_{number}"]
        case "history":
            server.hear(f"heard_{number}")
            return command.expect("turn", fault, item_id=f"heard_{number}")[0]
        case "microphone" | "realtime":
            server.wait_for(lambda: server.last_stamp > fault)
            return time.monotonic_ns()
        case "speaker":
            server.answer(f"again_{number}", chunks=1, ms=20)
            while not (puts := [given for made, given in command.puts() if made > fault]):
                time.sleep(0.001)
            return puts[0]
        case _:
            return command.expect("component_restarted", fault, component=component)[0]


def measure_faults(runs: int = 10, only: Sequence[str] = ()) -> None:
    """Measure the time from each fault of each component until it works again; print a table."""
    print("| component | fault | p50 | p99 | worst | runs |")
    print("|---|---|---|---|---|---|")
    with running("--probes") as (server, command):
        command.expect("session_started")
        probe = next(probe for probe in sessions() if probe.pid == command.pid)
        number = itertools.count()
        for component in ("microphone", "speaker", "realtime", "tools", "history", "recorder"):
            for fault in only or _FAULTS:
                count = runs if fault not in _HANGS else max(1, runs // 10)
                times = []
                for _ in range(count):
                    time.sleep(0.3)  # the component must work for a while between two faults
                    times.append(_break(server, command, probe, component, fault, next(number)))
                ordered = sorted(times)
                p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
                print(
                    f"| {component} | {fault} | {p50:.0f} | {p99:.0f} | {ordered[-1]:.0f} "
                    f"| {count} |",
                    flush=True,
                )


_FAULTS = ("raise", "exit", "memory", "torn-frame", "SIGKILL", "hang", "gil", "SIGSTOP")
_HANGS = ("hang", "gil", "SIGSTOP")


def _break(
    server: Server, command: Command, probe: Probe, component: str, fault: str, number: int
) -> float:
    """Inject a fault; return the milliseconds until the component works again."""
    broken = time.monotonic_ns()
    probe.inject(component, fault)
    if fault in _HANGS:  # work that it does before it hangs must not count as the recovery
        command.expect("component_crashed", broken, component=component)
    return (_works_again(server, command, component, 10_000 + number, broken) - broken) / 1e6


def measure_load(seconds: float = 30.0) -> None:
    """Measure CPU and memory of a conversation in which the assistant speaks 6 s in 10 s."""
    with running() as (server, command):
        pids = command.pids
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        number = 0
        while time.monotonic() - begun < seconds:
            number += 1
            server.answer(f"load_{number}", chunks=30, ms=200, pace_s=0.05)
            time.sleep(max(0.0, begun + 10 * number - time.monotonic()))
        minutes = (time.monotonic() - begun) / 60
        used = {name: (_cpu_s(pid) - before[name]) / minutes for name, pid in pids.items()}
        pss = {name: _pss_mib(pid) for name, pid in pids.items()}
    for name in sorted(pids, key=lambda name: -used[name]):
        print(f"  {name:12} {used[name]:6.2f} CPU-s a minute  {pss[name]:6.1f} MiB PSS")
    for what, total, limit in (
        ("CPU-seconds a minute, all together", sum(used.values()), 4),
        ("MiB PSS, all together", sum(pss.values()), 95),
    ):
        verdict = "ok" if total <= limit else "MISSED"
        print(f"{what:44} {total:8.2f}  (limit {limit}) {verdict}", flush=True)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


# -- with a sound card --------------------------------------------------------------------------

_HERE = Path(__file__).resolve()
_ON_CARD = (
    "--full-duplex",
    "--input",
    f"{_HERE.with_name('benchmark_devices.py')}:CardCapture",
    "--output",
    f"{_HERE.with_name('benchmark_devices.py')}:CardPlayback",
)


def measure_card(soak_s: float = 30.0) -> None:
    """Measure everything that involves a sound card, with the virtual one."""
    with _virtual_card():
        _measure_card_latency()
        _measure_card_barge_in()
        _measure_card_load()
        _measure_card_soak(soak_s)


def measure_echo(seconds: float = 30.0) -> None:
    """Measure what cancelling echo costs: CPU of the microphone, and latency."""
    if os.environ.get("VIRTUAL_SOUND_CARD"):
        print("echo needs a card of its own: unset VIRTUAL_SOUND_CARD")
        return
    with _virtual_card("--echo", "60", "--echo-gain", "60%"):
        with_it = _echo_costs("auto", 20, seconds)
        without = _echo_costs("off", 40, seconds)
        verdict = "ok" if with_it - without <= 30 else "MISSED"
        what = "microphone, CPU that cancelling echo takes"
        print(f"{what:44} {with_it - without:8.2f} ms/s (limit 30) {verdict}", flush=True)


def _echo_costs(setting: str, block_ms: int, seconds: float) -> float:
    """Report the latency to the socket; return the CPU time of the microphone in ms a second."""
    os.environ[BLOCK_MS] = str(block_ms)
    devices = ("--input", f"{_HERE.with_name('benchmark_devices.py')}:LoggedCapture")
    options = ("--echo-cancelling", setting, *devices, "--output", "speaker")
    with running(*options) as (server, command):
        murmur = _murmur()
        time.sleep(2.0)
        server.append_times.clear()
        pid = _pid_now(command, "microphone")
        before, begun = _cpu_s(pid), time.monotonic()
        while time.monotonic() < begun + seconds:
            server.answer(f"echo_{time.monotonic_ns()}", chunks=1, sound=murmur)
            time.sleep(5.0)
        cpu_ms = (_cpu_s(pid) - before) / (time.monotonic() - begun) * 1000
        captured = sorted((delivered, first) for first, delivered in command.puts())
        took = [_latency_ms(captured, at) for at in server.append_times]
    lag_ms = _lag_ms() if setting == "auto" else 0.0
    name = f"microphone to websocket, echo cancelling {setting}"
    report(name, [each + lag_ms for each in took], 35 if lag_ms else 45)
    print(f"{'microphone, CPU, echo cancelling ' + setting:44} {cpu_ms:8.2f} ms/s", flush=True)
    return cpu_ms


def _latency_ms(captured: list[tuple[int, int]], at: int) -> float:
    """Return the age of the first sample of a block that arrives: the last that was delivered."""
    return (at - captured[bisect.bisect(captured, (at, 0)) - 1][1]) / 1e6


def _lag_ms() -> float:
    """Return how long the canceller itself holds the sound back."""
    from actors.devices.card.reference import ReferenceReader
    from actors.devices.echo.canceller import EchoCanceller
    from messages import Settings

    return EchoCanceller(ReferenceReader(Path()), Settings()).lag / 24


def _murmur() -> bytes:
    from actors.devices.card.soundcheck import murmur

    return murmur().astype("<i2").tobytes()


@contextlib.contextmanager
def _virtual_card(*options: str) -> Iterator[None]:
    """Use the virtual card that is up, or start one."""
    script = str(_HERE.with_name("virtual-sound-card"))
    if os.environ.get("VIRTUAL_SOUND_CARD"):
        yield
        return
    up = [script, "up", *options, "--for", str(os.getpid())]
    exports = subprocess.run(up, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in exports.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        os.environ[name] = value.strip("'")
    try:
        yield
    finally:
        subprocess.run([script, "down"], check=True)


def _measure_card_latency(seconds: float = 15.0) -> None:
    """Measure the latency between the card and the socket, in both directions."""
    for block_ms, limit_ms in ((40, 45), (20, 25)):
        os.environ[BLOCK_MS] = str(block_ms)
        heard: list[float] = []
        with running(*_ON_CARD, "--block-ms", str(block_ms)) as (server, command):
            time.sleep(1.0)  # the first times of a card are not reliable
            server.latencies.clear()
            end, number = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                number += 1
                sent = time.monotonic_ns()
                server.answer(f"card_{number}", chunks=3)
                command.expect("playback_ended", item_id=f"item_card_{number}")
                heard.append(min(at - made for made, at in command.puts() if made >= sent) / 1e6)
                time.sleep(0.1 + 0.013 * (number % 8))
            up = [ns / 1e6 for ns in server.latencies]
        report(f"microphone to websocket, block_ms={block_ms}", up, limit_ms)
        report(f"audio delta to the air, block_ms={block_ms}", heard, 80)


def _measure_card_barge_in(runs: int = 15) -> None:
    """Measure the time from speech_started until the card is silent, and the truncation's error.

    The card's monitor, a microphone that hears what the card plays, is the reference.
    """
    import array
    import random

    from actors.devices.card.portaudio import PortAudioCapture

    chosen = random.Random(1)
    noise = array.array("h", (chosen.choice((-8000, 8000)) for _ in range(4800))).tobytes()
    blocks: list[Any] = []
    monitor = PortAudioCapture("speaker_monitor", 480)
    monitor.start(blocks.append, print)
    silent, errors = [], []
    with running("--full-duplex", "--input", "silence", "--output", "speaker") as (server, _):
        time.sleep(1.0)
        for number in range(runs):
            blocks.clear()
            server.answer(f"barge_{number}", chunks=15, sound=noise)
            time.sleep(0.6 + 0.017 * number)
            sent = time.monotonic_ns()
            server.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=f"u{number}")
            server.wait_for(partial(_more_than, server.truncated_ms, number))
            time.sleep(0.25)
            heard = array.array("h", b"".join(block.pcm for block in blocks))
            loud = [place for place, sample in enumerate(heard) if abs(sample) > 100]
            block, rest = divmod(loud[-1], 480)
            silent.append((blocks[block].first_ns + rest * 1e9 / 24_000 - sent) / 1e6)
            errors.append(abs(server.truncated_ms[number] - (loud[-1] + 1 - loud[0]) / 24))
    monitor.close()
    report("speech_started to silence in the air", silent, 60)
    report("truncated, against what was in the air", errors, 5)


def _more_than(things: Sequence[object], count: int) -> bool:
    return len(things) > count


def _measure_card_load(seconds: float = 30.0) -> None:
    """Measure CPU of microphone and speaker, while the assistant speaks 6 s in 10 s."""
    with running("--full-duplex", "--input", "mic", "--output", "speaker") as (server, command):
        _converse(server, 5.0)  # a microphone that hears only zeros is reopened once
        pids = {name: _pid_now(command, name) for name in ("microphone", "speaker")}
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        _converse(server, seconds)
        took = time.monotonic() - begun
        for name, cpu_s in before.items():
            if pids[name] != _pid_now(command, name):
                print(f"{name:44} lost its device meanwhile: the machine is too busy")
                continue
            percent = (_cpu_s(pids[name]) - cpu_s) / took * 100
            verdict = "ok" if percent <= 3 else "MISSED"
            print(f"{name:44} {percent:8.2f} % of a core  (limit 3) {verdict}", flush=True)
    for name, direction in (("microphone", "input"), ("speaker", "output")):
        percent_text = subprocess.run(
            [sys.executable, __file__, "--bare-stream", direction],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        what = f"{name}, a bare stream that does nothing"
        print(f"{what:44} {float(percent_text):8.2f} % of a core", flush=True)


def _be_bare_stream(direction: Any, seconds: float = 15.0) -> None:
    """Print the CPU time of a stream whose callback does nothing, in percent of a core."""
    import pyaudio

    from actors.devices.card.listing import choose, list_devices

    frames, name = (480, "mic") if direction == "input" else (288, "speaker")
    device = choose(list_devices(), name, direction).device
    silence = bytes(2 * frames)
    audio = pyaudio.PyAudio()
    where: dict[str, Any] = {direction: True, f"{direction}_device_index": device.index}
    stream = audio.open(
        rate=24_000,
        channels=1,
        format=pyaudio.paInt16,
        frames_per_buffer=frames,
        stream_callback=lambda *_: (silence, pyaudio.paContinue),
        **where,
    )
    time.sleep(1.0)
    before, begun = _cpu_s(os.getpid()), time.monotonic()
    time.sleep(seconds)
    print((_cpu_s(os.getpid()) - before) / (time.monotonic() - begun) * 100)
    stream.close()
    audio.terminate()


def _pid_now(command: Command, component: str) -> int:
    """Return the current process id of a component; 0: there is none."""
    supervisor = command.pids["supervisor"]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "cmdline").read_bytes().rstrip(b"\0").rpartition(b"\0")[2]
            parent = _parent(int(process.name))
            # Its parent may be the fork server, which is a child of the supervisor.
            if name == component.encode() and supervisor in (parent, _parent(parent)):
                return int(process.name)
    return 0


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) if pid else 0


def _converse(server: Server, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        server.answer(f"talk_{time.monotonic_ns()}", chunks=min(30, int(seconds * 3)), pace_s=0.05)
        time.sleep(max(0.0, min(begun + 10, end) - time.monotonic()))


def _measure_card_soak(seconds: float) -> None:
    """Count underruns and overruns while one core is fully loaded and the assistant speaks."""
    with running("--full-duplex", "--input", "mic", "--output", "speaker") as (server, command):
        burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                server.answer(
                    f"soak_{time.monotonic_ns()}", chunks=50, pace_s=0.18
                )  # 10 s of audio in 9 s
        finally:
            burner.kill()
            burner.wait()
    faltered = [event for _, event in command.events if event["event"] == "sound_faltered"]
    for component in ("microphone", "speaker"):
        count = sum(event["count"] for event in faltered if event["component"] == component)
        verdict = "ok" if count == 0 else "MISSED"
        what = f"{component}, one core loaded, {seconds:g} s"
        print(f"{what:44} {count:8} times faltered  (limit 0) {verdict}", flush=True)


def measure_service(against: str | None = None, runs: int = 5) -> None:
    """Measure more and more conversations, and twenty callers at once; or two revisions."""
    if against is not None:
        asyncio.run(benchmark_service.measure_against(against, runs=runs))
    else:
        asyncio.run(benchmark_service.measure())


def measure_console() -> None:
    """Measure the process of the console, and a captured block beside it."""
    benchmark_console.measure(Server)


MEASURES: dict[str, Callable[[], None]] = {
    "start": measure_start,
    "latency": measure_latency,
    "barge-in": measure_barge_in,
    "recovery": measure_recovery,
    "load": measure_load,
    "agent": measure_agent,
    "card": measure_card,
    "echo": measure_echo,
    "core": measure_core,
    "reconnect": measure_reconnect,
    "faults": measure_faults,
    "fork": measure_fork,
    "floor": measure_floor,
    "service": measure_service,
    "fleet": benchmark_fleet.measure,
    "console": measure_console,
    "page": benchmark_page.measure,
}
_ON_DEMAND = ("faults", "fork", "floor", "service", "fleet", "console", "page")
"""What is measured only if it is named: it takes minutes."""


def main() -> None:
    """Run the measurements that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = ", ".join(MEASURES)
    parser.add_argument(
        "what", nargs="*", help=f"any of {every}; default all but {', '.join(_ON_DEMAND)}"
    )
    parser.add_argument("--runs", type=int, default=10, help="runs of each fault, or revision (10)")
    parser.add_argument(
        "--against", metavar="REVISION", help="measure service and this revision of it in turn"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="only these faults")
    parser.add_argument("--soak", type=float, default=30.0, help="seconds of the card's soak (30)")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--bare-stream", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        with contextlib.suppress(ConnectionClosed):
            _be_bare_client(given.bare)
        return
    if given.bare_stream:
        _be_bare_stream(given.bare_stream)
        return
    chosen = given.what
    if unknown := set(chosen) - set(MEASURES):
        parser.error(f"{unknown.pop()!r} is not a measurement; give any of {', '.join(MEASURES)}")
    for name in chosen or [name for name in MEASURES if name not in _ON_DEMAND]:
        if name == "faults":
            measure_faults(given.runs, given.only)
        elif name == "fork":
            measure_fork(given.runs)
        elif name == "card":
            measure_card(given.soak)
        elif name == "service":
            measure_service(given.against, given.runs)
        else:
            MEASURES[name]()


if __name__ == "__main__":
    main()
