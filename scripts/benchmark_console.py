"""What the console costs: ``python scripts/benchmark.py console``.

The real command runs in a pseudo-terminal of 120x40, in which the panels are beside the talk. While
both speak, user and assistant are noise whose loudness changes, with text for both as it comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import pty
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmark_devices import PUT_LOG

__all__ = ["measure"]

_COLUMNS, _LINES = 120, 40
_SETTLE_S = 3.0
"""Time for the start: imports, and the first drawing of the screen."""
_RATE = 24_000
_STORY = "Once upon a time there was a small lighthouse on a rock at the edge of the sea."
_OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def measure(make_server: Callable[[], Any], seconds: float = 20.0) -> None:
    """Measure CPU and memory of the console's process, and what it costs a captured block.

    Args:
        make_server: Returns a server of the benchmark.
        seconds: Length of each measurement.
    """
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        _write_speech(speech, 2 * seconds + 4 * _SETTLE_S)
        _measure_cost("while nothing is said", make_server, seconds, 3.0, "silence", b"")
        with wave.open(str(speech)) as file:
            sound = file.readframes(_RATE // 5)
        _measure_cost("while both speak", make_server, seconds, 8.0, str(speech), sound)
    p99: dict[str, list[float]] = {"plain lines": [], "the console": []}
    for name in (*p99, *reversed(p99), *p99, *reversed(p99)):
        more = ["--plain"] if name == "plain lines" else []
        values = [ns / 1e6 for ns in _latencies(make_server, seconds / 2, more)]
        p99[name].append(sorted(values)[int(len(values) * 0.99)])
        print(
            f"captured block to server, {name:17} p50 {statistics.median(values):8.2f}  "
            f"p99 {p99[name][-1]:8.2f} ms  (n={len(values)})",
            flush=True,
        )
    plain_ms, console_ms = (statistics.median(p99[name]) for name in p99)
    _judge("p99 of a captured block, more than plain", console_ms - plain_ms, 1.0, "ms")


def _measure_cost(
    what: str,
    make_server: Callable[[], Any],
    seconds: float,
    limit: float,
    source: str,
    sound: bytes,
) -> None:
    server = make_server()
    with _console(server.url, "--input", source, "--output", "null") as process:
        server.wait_for(lambda: server.appends > 10)
        time.sleep(_SETTLE_S)
        before, begun = _cpu_s(process.pid), time.monotonic()
        number = 0
        while time.monotonic() - begun < seconds:
            if not sound:
                time.sleep(0.1)
                continue
            number += 1
            _speak(server, f"answer{number}", sound)
        used = (_cpu_s(process.pid) - before) / (time.monotonic() - begun)
        resident, proportional = _memory_mib(process.pid)
    _judge(f"CPU of the console {what}", 100 * used, limit, "% of a core")
    print(f"{'':44} {proportional:8.2f} MiB PSS", flush=True)
    _judge(f"memory of the console {what}", resident, 55.0, "MiB RSS")


def _judge(what: str, value: float, limit: float, unit: str) -> None:
    verdict = "ok" if value <= limit else "MISSED"
    print(f"{what:44} {value:8.2f} {unit}  (limit {limit:g}) {verdict}", flush=True)


def _latencies(make_server: Callable[[], Any], seconds: float, more: list[str]) -> list[int]:
    """Return the nanoseconds from the capture of each block to its arrival at the server."""
    here = Path(__file__).resolve().with_name("benchmark_devices.py")
    devices = ["--input", f"{here}:StampedCapture", "--output", f"{here}:StampedPlayback"]
    server = make_server()
    with (
        tempfile.NamedTemporaryFile() as log,
        _console(server.url, *devices, *more, put_log=log.name),
    ):
        server.wait_for(lambda: server.appends > 10)
        time.sleep(_SETTLE_S)
        latencies: list[int] = server.latencies_while_speaking(seconds)
        return latencies


def _speak(server: Any, name: str, sound: bytes) -> None:
    """Speak for some seconds, with text, while the user does too."""
    ids = {"response_id": f"resp_{name}", "item_id": f"item_{name}"}
    server.send("input_audio_buffer.speech_started", item_id=f"user_{name}", audio_start_ms=0)
    stop = threading.Event()

    def text() -> None:
        words = _STORY.split()
        for number in range(1000):
            if stop.wait(0.2):
                return
            word = f"{words[number % len(words)]} "
            places: dict[str, Any] = {"output_index": 0, "content_index": 0}
            server.send("response.output_audio_transcript.delta", delta=word, **ids, **places)

    writer = threading.Thread(target=text)
    writer.start()
    server.answer(name, chunks=25, ms=200, pace_s=0.19, sound=sound)
    stop.set()
    writer.join()


def _write_speech(path: Path, seconds: float) -> None:
    """Write noise whose loudness changes as that of speech does."""
    chosen = random.Random(1)
    samples = bytearray()
    noise = [chosen.uniform(-1, 1) for _ in range(_RATE)]
    for at in range(int(seconds * _RATE)):
        loudness = abs(math.sin(at / _RATE * 7.3)) * abs(math.sin(at / _RATE * 1.9))
        samples += struct.pack("<h", int(12_000 * loudness * noise[at % _RATE]))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(bytes(samples))


@contextlib.contextmanager
def _console(
    server: str, *options: str, put_log: str = os.devnull
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in a terminal that somebody reads."""
    master, slave = pty.openpty()
    size = struct.pack("HHHH", _LINES, _COLUMNS, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    command = [sys.executable, "-c", _OWN_TERMINAL, "-m", "supervisor", "--server", server]
    process = subprocess.Popen(
        [*command, *options, "--inactivity-timeout", "0"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", PUT_LOG: put_log},
    )
    threading.Thread(target=_drain, args=(master,), daemon=True).start()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        os.close(slave)


def _drain(master: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(master, 1 << 16):
            pass


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> tuple[float, float]:
    """Return resident and proportional memory."""
    found = {"Rss:": 0.0, "Pss:": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name = line.split()[0]
        if name in found:
            found[name] = int(line.split()[1]) / 1024
    return found["Rss:"], found["Pss:"]
