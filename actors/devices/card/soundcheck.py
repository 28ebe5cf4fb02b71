"""The sound check: opens the devices of a session, listens, and plays a chirp to hear it again.

``python -m actors.devices.card.soundcheck REQUEST`` is a process of its own, as PortAudio may hang,
crash or chatter. What it finds out it writes at once, a line of JSON each (`Finding`), so that it
is known what it hangs in.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from actors.devices.base import Capture, Captured, Playback
from actors.devices.errors import DeviceError, DeviceLostError
from actors.devices.opening import is_file, open_capture, open_playback
from actors.devices.playout import Playout
from actors.devices.units import to_ns
from messages import SAMPLE_RATE, SILENCE_DBFS, SessionInfo, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

__all__ = [
    "DeviceOpened",
    "DeviceRefused",
    "Echo",
    "Finding",
    "MicrophoneHeard",
    "Request",
    "Trying",
    "chirp",
    "echo_in",
    "heard_in",
]

Direction = Literal["input", "output"]

_BLOCK_MS = 20
_FIRST_S, _QUIET_S, _ECHO_S = 5.0, 0.6, 0.9
"""How long to wait for what does not come; to listen before the chirp; for its echo, behind it."""
_CHIRP_S, _CHIRP_HZ, _LOUDNESS = 0.4, (400.0, 3500.0), 0.15
_CLEAR = 8.0
"""How much an echo has to stand out of what else is heard. Noise does so by 4 or 5."""
_FULL = 32_767
_MOST_S = 60.0


class Request(msgspec.Struct):
    """What is to be tried."""

    input: str
    output: str
    import_path: tuple[str, ...] = ()


# -- what is found out ----------------------------------------------------------------------------


class Trying(msgspec.Struct, tag=True):
    """What comes next: opening a device, listening, or the chirp."""

    what: Literal["input", "output", "listening", "chirp"]


class DeviceOpened(msgspec.Struct, tag=True):
    """A device that has opened."""

    direction: Direction
    name: str
    rate: int = 0
    """In Hz, of a sound card; 0: it is none."""
    channels: int = 0
    trouble: str = ""
    """What is wrong with it and does not keep it from being used."""


class DeviceRefused(msgspec.Struct, tag=True):
    """A device that does not open, or is lost at once."""

    direction: Direction
    why: str
    """A sentence that says what to do."""


class MicrophoneHeard(msgspec.Struct, tag=True):
    """What the microphone has delivered."""

    speed: float
    """Of the sound, by our clock: far from 1.0, the card's sample rate is not what it says."""
    rms_dbfs: float
    """Of what there is without the chirp."""
    peak_dbfs: float
    """Of all of it."""
    zeros: bool
    """Whether not one sample was other than zero."""
    clipped: int
    """How many samples were as loud as can be."""


class Echo(msgspec.Struct, tag=True):
    """What the microphone hears of the loudspeaker."""

    heard: bool
    gain_db: float = 0.0
    """How loud, compared with what was played."""
    round_trip_ms: int = 0
    """From handing the chirp over until its first samples were here."""
    shift_ms: int = 0
    """How much later it was heard than it was played, by the clocks of the devices."""


Finding = Trying | DeviceOpened | DeviceRefused | MicrophoneHeard | Echo
_Tell = Callable[[Finding], None]
_Device = TypeVar("_Device", Capture, Playback)


# -- trying ---------------------------------------------------------------------------------------


def check(request: Request, tell: _Tell) -> None:
    """Try the devices, and tell what is found out. No file is written to."""
    settings = Settings(input=request.input, output=request.output, block_ms=_BLOCK_MS)
    session = SessionInfo(epoch_ns=time.monotonic_ns(), directory="")
    playback: Playback | None = None
    capture: Capture | None = None
    try:
        if not is_file(request.output):
            tell(Trying("output"))
            playback = _open("output", lambda: open_playback(settings, session), tell)
        tell(Trying("input"))
        capture = _open("input", lambda: open_capture(settings, session), tell)
        if capture is not None and capture.card:
            _listen(capture, playback if playback and playback.card else None, tell)
    finally:
        for device in (playback, capture):
            if device is not None:
                device.close()


def _open(direction: Direction, opening: Callable[[], _Device], tell: _Tell) -> _Device | None:
    try:
        device = opening()
    except DeviceError as error:
        tell(DeviceRefused(direction, str(error)))
        return None
    rate, channels = getattr(device, "rate", 0), getattr(device, "channels", 0)
    tell(
        DeviceOpened(
            direction, device.name, rate, channels, device.stands_in_because or device.trouble
        )
    )
    return device


def _listen(capture: Capture, playback: Playback | None, tell: _Tell) -> None:
    """Listen for a while and, if there is a loudspeaker, play the chirp meanwhile."""
    ear, chirped = _Ear(capture), None
    try:
        tell(Trying("listening"))
        capture.start(ear.put, ear.fail)
        ear.wait(_BLOCK_MS / 1000)
        ear.wait(_QUIET_S)
        quiet = len(ear.blocks)
        if playback is not None:
            tell(Trying("chirp"))
            chirped = _play(playback, ear)
    except DeviceLostError as error:
        is_output = playback is not None and error.device == playback.name
        tell(DeviceRefused("output" if is_output else "input", str(error)))
        return
    tell(heard_in(ear.blocks, quiet))
    if chirped is not None:
        tell(echo_in(ear.blocks, *chirped))


def _play(playback: Playback, ear: _Ear) -> tuple[int, int]:
    """Play the chirp; return when it was handed over and when its first sample was played.

    Raises:
        DeviceLostError: it is not played.
    """
    playout = Playout()
    playback.start(playout, ear.fail)
    pushed_ns = time.monotonic_ns()
    playout.push("chirp", 0, chirp().astype("<i2").tobytes(), last=True)
    ear.wait(_CHIRP_S + _ECHO_S)
    now_ns = time.monotonic_ns()
    playback.check(now_ns)
    audio = playout.settle(playback.heard_until(now_ns)).audio
    if not audio:
        raise DeviceLostError(playback.name, "it takes no sound")
    return pushed_ns, audio[0].run_ns + to_ns(audio[0].offset)


class _Ear:
    """Keeps what a microphone delivers."""

    def __init__(self, capture: Capture) -> None:
        self.blocks: list[Captured] = []
        self._capture = capture
        self._failure: Exception | None = None
        self._news = threading.Condition()

    def put(self, block: Captured) -> None:
        """Take a block, on the device's thread."""
        with self._news:
            self.blocks.append(block)
            self._news.notify_all()

    def fail(self, error: Exception) -> None:
        """Take the error with which a device's thread has ended."""
        with self._news:
            self._failure = error
            self._news.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until so much more sound has come.

        Raises:
            DeviceLostError: it does not come.
        """
        enough = len(self.blocks) + round(seconds * 1000 / _BLOCK_MS)
        end = time.monotonic() + seconds + _FIRST_S
        with self._news:
            while len(self.blocks) < enough:
                self._news.wait(0.1)
                self._capture.check(time.monotonic_ns())
                if self._failure is not None or time.monotonic() > end:
                    why = str(self._failure or "it delivers too little sound")
                    raise DeviceLostError(self._capture.name, why)


# -- what was heard -------------------------------------------------------------------------------


def chirp() -> Samples:
    """Return a soft tone that rises, which is found in anything; 24 kHz, in the range of int16."""
    import numpy as np

    low, high = _CHIRP_HZ
    t = np.arange(round(_CHIRP_S * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * (low * t + (high - low) / (2 * _CHIRP_S) * t**2))
    fade = np.minimum(1.0, np.minimum(t, t[::-1]) / 0.02)
    return np.asarray(np.round(_LOUDNESS * _FULL * fade * tone))


def heard_in(blocks: list[Captured], quiet: int) -> MicrophoneHeard:
    """Return what sound is like, of which so many blocks, the first, are without the chirp."""
    import numpy as np

    samples = _samples(blocks)
    loudest = np.abs(samples)
    mean = float(np.sqrt(np.mean(_samples(blocks[:quiet]) ** 2)))
    elapsed_ns = blocks[-1].captured_ns - blocks[0].captured_ns
    speed = to_ns(len(samples) - len(blocks[0].pcm) // 2) / max(elapsed_ns, 1)
    return MicrophoneHeard(
        speed=round(speed, 3),
        rms_dbfs=_dbfs(mean / _FULL),
        peak_dbfs=_dbfs(float(loudest.max()) / _FULL),
        zeros=not samples.any(),
        clipped=int((loudest >= _FULL).sum()),
    )


def echo_in(blocks: list[Captured], pushed_ns: int, played_ns: int) -> Echo:
    """Look for the chirp.

    Args:
        blocks: what was captured, without gaps.
        pushed_ns: when the chirp was handed over.
        played_ns: when its first sample was played, by the loudspeaker's clock.
    """
    import numpy as np

    samples, sound = _samples(blocks), chirp()
    size = len(samples) + len(sound)
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(sound, size))
    match = np.abs(np.fft.irfft(spectrum, size)[: len(samples) - len(sound)])
    at = int(match.argmax())
    aside = np.ones(len(match), bool)
    aside[max(0, at - SAMPLE_RATE // 50) : at + SAMPLE_RATE // 50] = False
    around = float(np.sqrt(np.mean(match[aside] ** 2))) if aside.any() else 0.0
    if match[at] < _CLEAR * around or not match[at]:
        return Echo(heard=False)
    gain = float(match[at] / (sound @ sound))
    heard_ns = blocks[0].first_ns + to_ns(at)
    here_ns = blocks[2 * at // len(blocks[0].pcm)].captured_ns
    return Echo(
        heard=True,
        gain_db=round(20 * float(np.log10(gain)), 1),
        round_trip_ms=round((here_ns - pushed_ns) / 1e6),
        shift_ms=round((heard_ns - played_ns) / 1e6),
    )


def _samples(blocks: list[Captured]) -> Samples:
    import numpy as np

    return np.frombuffer(b"".join(block.pcm for block in blocks), "<i2").astype(np.float64)


def _dbfs(amplitude: float) -> float:
    import numpy as np

    floor = 10 ** (SILENCE_DBFS / 20)
    return round(20 * float(np.log10(min(max(amplitude, floor), 1.0))), 1)


# -- the process ----------------------------------------------------------------------------------


def _main() -> None:
    request = msgspec.json.decode(sys.argv[1], type=Request)
    sys.path.extend(request.import_path)
    faulthandler.dump_traceback_later(_MOST_S, exit=True)  # whatever becomes of who has started us
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a device of the user's prints is none of ours

    def tell(finding: Finding) -> None:
        out.write(msgspec.json.encode(finding) + b"\n")
        out.flush()

    check(request, tell)


if __name__ == "__main__":
    _main()
