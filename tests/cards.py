"""Virtual sound cards of a test's own, which it may break, and a conversation through them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import pytest

from tests.rig import TIMEOUT_S

__all__ = ["Card", "chirp", "in_real_time", "is_in", "likeness", "real_card"]

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "virtual-sound-card"
RATE = 24_000

real_card = pytest.mark.skipif(
    not os.environ.get("VIRTUAL_SOUND_CARD"),
    reason="NO SOUND CARD: set one up with scripts/virtual-sound-card (scripts/test does)",
)
P = ParamSpec("P")
Samples = np.ndarray[Any, np.dtype[np.float64]]


def in_real_time(test: Callable[P, None]) -> Callable[P, None]:
    """Skip a test that fails while other programs use the machine: a card does not wait."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        before, began = _foreign_cpu_s(), time.monotonic()
        try:
            test(*args, **kwargs)
        except AssertionError:
            foreign = (_foreign_cpu_s() - before) / (time.monotonic() - began)
            if foreign < 0.2:
                raise
            pytest.skip(f"OTHER PROGRAMS had {foreign:.0%} of a core, and sound faltered")

    return run


def _foreign_cpu_s() -> float:
    """Return how long all processes have run but this one, its children and the sound server."""
    if not Path("/proc/stat").exists():
        return 0.0
    busy = sum(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:4]))
    server = int((Path(os.environ["VIRTUAL_SOUND_CARD"]) / "pid").read_text())
    for pid in (os.getpid(), server):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        busy -= sum(map(int, fields[11:15]))  # its own and that of children that have ended
    return busy / os.sysconf("SC_CLK_TCK")


def chirp(seconds: float = 0.5, low: float = 300.0, high: float = 3000.0) -> bytes:
    """Return a sound that correlates with nothing but itself."""
    t = np.arange(int(seconds * RATE)) / RATE
    sound = 8000 * np.sin(2 * np.pi * (low * t + (high - low) / (2 * seconds) * t**2))
    return sound.astype("<i2").tobytes()


def likeness(heard: bytes, sound: bytes) -> float:
    """Return the highest normalized correlation of the sound with what was heard; 1 is equal."""
    data, wanted = _samples(heard), _samples(sound)
    if len(data) <= len(wanted):
        return 0.0
    size = len(data) + len(wanted)
    spectrum = np.fft.rfft(data, size) * np.conj(np.fft.rfft(wanted, size))
    match = np.fft.irfft(spectrum, size)[: len(data) - len(wanted)]
    at = int(match.argmax())
    there = data[at : at + len(wanted)]
    return float(match[at] / (np.linalg.norm(there) * np.linalg.norm(wanted) + 1))


def is_in(heard: bytes, sound: bytes) -> bool:
    """Tell whether some of a sound was heard; a busy machine may have spoilt the rest.

    Looked for are 200 ms of it, in the last 6 s that were heard.
    """
    size = 2 * RATE // 5
    pieces = [sound[at : at + size] for at in range(0, len(sound) - size + 1, size // 2 & ~1)]
    return any(likeness(heard[-12 * RATE :], piece) > 0.7 for piece in pieces)


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm[: len(pcm) & ~1], "<i2").astype(float)


class Card:
    """A virtual sound card; its devices come and go with its server.

    Args:
        options: of the script, such as ``--echo 60``.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self.variables: dict[str, str] = {}
        others = {name: v for name, v in os.environ.items() if name != "VIRTUAL_SOUND_CARD"}
        self._up(others)

    @property
    def path(self) -> Path:
        """Its directory."""
        return Path(self.variables["VIRTUAL_SOUND_CARD"])

    @property
    def environment(self) -> dict[str, str]:
        """The environment of programs that use it."""
        return {**os.environ, **self.variables}

    def add_devices_of(self, other: Card, prefix: str) -> None:
        """Have programs that use this card see the devices of another one, as if plugged in."""
        with (self.path / "asound.conf").open("a") as file:
            for name, device in (("mic", "room.monitor"), ("speaker", "speaker")):
                server = other.variables["PULSE_SERVER"]
                file.write(
                    f'pcm.{prefix}_{name} {{ type pulse server "{server}" device "{device}" '
                    f'hint {{ show on description "{prefix}" }} }}\n'
                )

    def plug_in(self, name: str) -> None:
        """Give its server another sink, and programs a device that hears what is played to it."""
        self.pactl("load-module", "module-null-sink", f"sink_name={name}", *_SINK)
        device = f'pcm.{name} {{ type pulse device "{name}.monitor" hint {{ show on }} }}'
        path = self.path / "asound.conf"
        if device not in path.read_text():
            path.write_text(f"{path.read_text()}{device}\n")

    def unplug(self, name: str) -> None:
        """Take such a sink away; the device stays in the list, as those of sound servers do."""
        modules = self.pactl("list", "short", "modules").splitlines()
        (module,) = (line.split()[0] for line in modules if f"sink_name={name} " in f"{line} ")
        self.pactl("unload-module", module)

    # -- what becomes of it -------------------------------------------------------------------

    def kill(self) -> None:
        """Take it away."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send its server a signal."""
        os.kill(int((self.path / "pid").read_text()), number)

    def revive(self) -> None:
        """Bring it back."""
        self._up(self.environment)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self.signal(signal.SIGCONT)
        subprocess.run([SCRIPT, "down"], env=self.environment, check=False)

    def pactl(self, *arguments: str) -> str:
        """Command its server."""
        done = subprocess.run(
            ["pactl", *arguments], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def _up(self, environment: dict[str, str]) -> None:
        done = subprocess.run(
            [SCRIPT, "up", *self._options, "--for", str(os.getpid())],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.variables = dict(re.findall(r"^export (\w+)='(.*)'$", done.stdout, re.MULTILINE))

    # -- its sound ----------------------------------------------------------------------------

    def play(self, pcm: bytes, sink: str = "room") -> None:
        """Play to one of its sinks: ``room`` is what its microphone hears."""
        subprocess.run(
            ["pacat", "--playback", f"--device={sink}", *_RAW],
            env=self.environment,
            input=pcm,
            timeout=len(pcm) / 2 / RATE + TIMEOUT_S,
            check=True,
        )

    @contextlib.contextmanager
    def listening(self, source: str = "speaker.monitor") -> Iterator[bytearray]:
        """Collect what one of its sinks plays."""
        heard = bytearray()
        process = subprocess.Popen(
            ["parec", f"--device={source}", *_RAW], env=self.environment, stdout=subprocess.PIPE
        )
        stream = process.stdout
        assert stream is not None

        def collect() -> None:
            while data := stream.read1(4096):  # type: ignore[attr-defined]
                heard.extend(data)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            process.kill()
            process.wait()
            thread.join()
            stream.close()


_SINK = ("norewinds=1", "rate=48000", "channels=1", "channel_map=mono")
_RAW = ("--raw", "--format=s16le", f"--rate={RATE}", "--channels=1", "--latency-msec=40")
