"""The sound check: opens the devices of a session, listens, and plays sounds to measure their echo.

``python -m actors.devices.card.soundcheck REQUEST`` runs as a process, as PortAudio may hang, crash
or write noise. It writes each result at once, as a line of JSON (`Finding`), so that the caller
knows in which step it hangs.
"""

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from actors.devices.base import Capture, Captured, Playback
from actors.devices.card.reference import ReferenceReader
from actors.devices.echo.choice import NoEngineError, why_not
from actors.devices.errors import DeviceError, DeviceLostError
from actors.devices.opening import is_file, open_capture, open_playback
from actors.devices.playout import Playout
from actors.devices.units import to_ns
from messages import SAMPLE_RATE, SILENCE_DBFS, EchoState, SessionInfo, Settings
from messages.paths import path_of_text, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

__all__ = [
    "DeviceOpened",
    "DeviceRefused",
    "Echo",
    "EchoCancelled",
    "Finding",
    "MicrophoneHeard",
    "Request",
    "Trying",
    "chirp",
    "echo_in",
    "heard_in",
    "murmur",
]

Direction = Literal["input", "output"]

_BLOCK_MS = 20
_FIRST_S, _QUIET_S, _ECHO_S = 5.0, 0.6, 0.9
"""Seconds to wait for missing audio; to listen before the chirp; to wait for its echo."""
_CHIRP_S, _CHIRP_HZ, _LOUDNESS = 0.4, (400.0, 3500.0), 0.15
_MURMUR_S, _STEP_S, _AFTER_S = 3.0, 0.1, 0.4
_SYLLABLE_S, _PAUSES = 0.2, 0.2
_CLEAR = 8.0
"""Ratio of the echo to the rest of the correlation from which it counts as heard; noise reaches 4
or 5."""
_FULL = 32_767
_MOST_S = 60.0


class Request(msgspec.Struct):
    """The devices to check, as settings; ``import_path`` is added to ``sys.path``."""

    input: str
    output: str
    import_path: tuple[str, ...] = ()
    echo_cancelling: Literal["auto", "on", "off"] = "auto"


# -- findings -------------------------------------------------------------------------------------


class Trying(msgspec.Struct, tag=True):
    """The step that comes next: opening a device, listening, or playing a sound."""

    what: Literal["input", "output", "listening", "chirp", "cancelling"]


class DeviceOpened(msgspec.Struct, tag=True):
    """A device that has opened."""

    direction: Direction
    name: str
    rate: int = 0
    """Sample rate of a sound card in Hz; 0: not a sound card."""
    channels: int = 0
    trouble: str = ""
    """A fault with which the device can still be used; empty: none."""


class DeviceRefused(msgspec.Struct, tag=True):
    """A device that does not open, or is lost during the check."""

    direction: Direction
    why: str
    """The reason, and what to do, as a sentence."""


class MicrophoneHeard(msgspec.Struct, tag=True):
    """Measurements of the captured audio."""

    speed: float
    """Duration of the audio divided by our clock; far from 1.0, the card's sample rate is wrong."""
    rms_dbfs: float
    """Level of the audio before the chirp."""
    peak_dbfs: float
    """Peak of all audio."""
    zeros: bool
    """Whether all samples are zero."""
    clipped: int
    """Number of samples at full scale."""


class Echo(msgspec.Struct, tag=True):
    """Measurements of the chirp as the microphone heard it."""

    heard: bool
    gain_db: float = 0.0
    """Level of the echo against the played chirp."""
    round_trip_ms: int = 0
    """Time from pushing the chirp until its first samples were delivered by the microphone."""
    shift_ms: int = 0
    """Time from playing the chirp until hearing it, by the times that the devices report."""


class EchoCancelled(msgspec.Struct, tag=True):
    """The state that the echo canceller reached; fields as in `messages.EchoState`."""

    state: Literal["off", "learning", "cancelled", "failed"]
    erle_db: float = 0.0
    delay_ms: int | None = None
    reason: str = ""


Finding = Trying | DeviceOpened | DeviceRefused | MicrophoneHeard | Echo | EchoCancelled
_Report = Callable[[Finding], None]
_Device = TypeVar("_Device", Capture, Playback)


# -- the check ------------------------------------------------------------------------------------


def check(request: Request, report: _Report) -> None:
    """Check the devices and report each finding; an output file is not written."""
    settings = Settings(
        input=request.input,
        output=request.output,
        block_ms=_BLOCK_MS,
        echo_cancelling=request.echo_cancelling,
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = SessionInfo(epoch_ns=time.monotonic_ns(), directory=folder)
        _check(request, settings, session, report)


def _check(request: Request, settings: Settings, session: SessionInfo, report: _Report) -> None:
    playback: Playback | None = None
    capture: Capture | None = None
    try:
        if not is_file(request.output):
            report(Trying("output"))
            playback = _open("output", lambda: open_playback(settings, session), report)
        report(Trying("input"))
        capture = _open("input", lambda: open_capture(settings, session), report)
        if capture is not None and capture.card:
            speaker = playback if playback and playback.card else None
            _listen(capture, speaker, settings, session, report)
    finally:
        for device in (playback, capture):
            if device is not None:
                device.close()


def _open(direction: Direction, opening: Callable[[], _Device], report: _Report) -> _Device | None:
    try:
        device = opening()
    except DeviceError as error:
        report(DeviceRefused(direction, printable(str(error))))
        return None
    rate, channels = getattr(device, "rate", 0), getattr(device, "channels", 0)
    report(
        DeviceOpened(
            direction,
            printable(device.name),
            rate,
            channels,
            device.stands_in_because or device.trouble,
        )
    )
    return device


def _listen(
    capture: Capture,
    playback: Playback | None,
    settings: Settings,
    session: SessionInfo,
    report: _Report,
) -> None:
    """Listen for a while and, if there is a loudspeaker, play meanwhile."""
    ear, playout = _Ear(capture), Playout()
    try:
        report(Trying("listening"))
        capture.start(ear.put, ear.fail)
        ear.wait(_BLOCK_MS / 1000)
        ear.wait(_QUIET_S)
        quiet = len(ear.blocks)
        if playback is not None:
            report(Trying("chirp"))
            chirped = _play(playback, playout, ear)
        report(heard_in(ear.blocks, quiet))
        if playback is not None:
            echo = echo_in(ear.blocks, *chirped)
            report(echo)
            if echo.heard:
                report(Trying("cancelling"))
                report(_cancelled(capture, playout, ear, settings, session))
    except DeviceLostError as error:
        is_output = playback is not None and error.device == playback.name
        report(DeviceRefused("output" if is_output else "input", str(error)))


def _cancelled(
    capture: Capture, playout: Playout, ear: _Ear, settings: Settings, session: SessionInfo
) -> EchoCancelled:
    """Play three seconds of something like speech, and have its echo cancelled."""
    try:
        why = why_not(settings, capture.name, cards=True)
    except NoEngineError as error:
        why = str(error)
    if why:
        return EchoCancelled("off", reason=why)
    from actors.devices.echo.canceller import EchoCanceller

    canceller = EchoCanceller(ReferenceReader(session.file(".")), settings)
    playout.push("murmur", 0, murmur().astype("<i2").tobytes(), last=True)
    state, done = EchoState("learning"), len(ear.blocks)
    for _ in range(round((_MURMUR_S + _AFTER_S) / _STEP_S)):
        ear.wait(_STEP_S)
        for block in ear.blocks[done:]:
            now_ns = time.monotonic_ns()
            canceller.process(block.pcm, block.first_ns, now_ns, lost=block.lost)
            done += 1
        if canceller.state(0).state != "learning":
            state = canceller.state(0)
    return EchoCancelled(state.state, state.erle_db, state.delay_ms, state.reason)


def _play(playback: Playback, playout: Playout, ear: _Ear) -> tuple[int, int]:
    """Play the chirp.

    Returns:
        When it was pushed, and when its first sample was played, in nanoseconds.

    Raises:
        DeviceLostError: If the device does not play it.
    """
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
    """Collects the blocks of a microphone."""

    def __init__(self, capture: Capture) -> None:
        self.blocks: list[Captured] = []
        self._capture = capture
        self._failure: Exception | None = None
        self._news = threading.Condition()

    def put(self, block: Captured) -> None:
        """Append a block; called on the device's thread."""
        with self._news:
            self.blocks.append(block)
            self._news.notify_all()

    def fail(self, error: Exception) -> None:
        """Record the error with which a device's thread has ended."""
        with self._news:
            self._failure = error
            self._news.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until this much more audio has come.

        Raises:
            DeviceLostError: If it does not come.
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


# -- measurements ---------------------------------------------------------------------------------


def chirp() -> Samples:
    """Return a soft rising tone; 24 kHz, in the range of int16.

    It correlates with hardly anything but itself, so that it is found in noise and speech.
    """
    import numpy as np

    low, high = _CHIRP_HZ
    t = np.arange(round(_CHIRP_S * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * (low * t + (high - low) / (2 * _CHIRP_S) * t**2))
    fade = np.minimum(1.0, np.minimum(t, t[::-1]) / 0.02)
    return np.asarray(np.round(_LOUDNESS * _FULL * fade * tone))


def murmur() -> Samples:
    """Return something like speech; 24 kHz, in the range of int16.

    It has syllables with a pitch and two formants each, and pauses: of steady noise the engine
    takes away less than of a voice.
    """
    import numpy as np

    rng, length = np.random.default_rng(1), round(_SYLLABLE_S * SAMPLE_RATE)
    t = np.linspace(0.0, 1.0, length)
    parts: list[Samples] = []
    while sum(map(len, parts)) < _MURMUR_S * SAMPLE_RATE:
        pitch = rng.uniform(95, 160) * (1 + rng.uniform(-0.2, 0.2) * t)
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        first, second = rng.uniform(300, 800), rng.uniform(900, 2400)
        voice = 0.02 * rng.standard_normal(length)
        for harmonic in range(1, 30):
            hz = harmonic * pitch.mean()
            loudness = 1 / (1 + ((hz - first) / 120) ** 2) + 0.5 / (1 + ((hz - second) / 200) ** 2)
            voice += loudness * np.sin(harmonic * phase + rng.uniform(0, 6.28))
        voice *= np.sin(np.pi * t)
        parts.append(_LOUDNESS * _FULL * voice / np.abs(voice).max())
        if rng.random() < _PAUSES:
            parts.append(np.zeros(length))
    return np.round(np.concatenate(parts)[: round(_MURMUR_S * SAMPLE_RATE)])


def heard_in(blocks: list[Captured], quiet: int) -> MicrophoneHeard:
    """Measure the captured audio.

    Args:
        blocks: All blocks.
        quiet: Number of blocks before the chirp.
    """
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
    """Look for the chirp in the captured audio, by correlation.

    Args:
        blocks: The captured audio, without gaps.
        pushed_ns: When the chirp was pushed.
        played_ns: When its first sample was played, by the loudspeaker's times.
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
    sys.path.extend(map(path_of_text, request.import_path))
    faulthandler.dump_traceback_later(_MOST_S, exit=True)  # ends us even if the caller is gone
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # output printed by a user's device must not mix with the findings

    def report(finding: Finding) -> None:
        out.write(msgspec.json.encode(finding) + b"\n")
        out.flush()

    check(request, report)


if __name__ == "__main__":
    _main()
