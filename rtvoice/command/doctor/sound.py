"""Checks of PortAudio and its devices, which are opened, recorded from and played on."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

import msgspec

from actors.devices.card.listing import SoundDevice, list_devices
from actors.devices.card.soundcheck import (
    DeviceOpened,
    DeviceRefused,
    Echo,
    EchoCancelled,
    Finding,
    MicrophoneHeard,
    Request,
    Trying,
)
from actors.devices.echo.choice import is_headset
from actors.devices.errors import SoundLibraryError, SoundSystemStuckError
from messages import SAMPLE_RATE
from messages.hints import install
from rtvoice.command.doctor.result import Result, ok, problem, warning
from rtvoice.sandbox.launch import child_environment

__all__ = ["SOUND_S", "devices", "sound"]

_LIST_S, _STEP_S = 6.0, 8.0
SOUND_S = 6 * _STEP_S
"""Limit of the whole check; each step has the limit `_STEP_S`."""
_OFF = 0.05
"""Tolerance of a card's measured sample rate; on a busy machine two seconds give 3 % error."""
_CLIPPED = 10
"""Number of clipped samples above which a microphone is too loud."""
_NAMES = {"input": "microphone", "output": "speaker"}
_STEPS = {
    "input": ("microphone", "opening it"),
    "output": ("speaker", "opening it"),
    "listening": ("microphone", "listening"),
    "chirp": ("speaker", "playing"),
    "cancelling": ("echo", "cancelling it"),
}
_BEFORE = {
    "linux": "apt-get install portaudio19-dev, then ",
    "darwin": "brew install portaudio, then ",
    "win32": "",
}
_RESTART = {
    "linux": "restart it (systemctl --user restart pipewire pulseaudio) or log in again",
    "darwin": "restart it (sudo killall coreaudiod)",
}
_PERMISSION = {
    "darwin": (
        "allow this terminal to use it (System Settings, Privacy & Security, Microphone), and "
        "restart the terminal"
    ),
    "win32": (
        "allow apps to use it (Settings, Privacy & security, Microphone), and look for a switch on "
        "it"
    ),
}


# -- the devices ----------------------------------------------------------------------------------


def devices(found: list[SoundDevice]) -> Iterator[Result]:
    """Check the list of devices, and append the devices to ``found`` for the checks that follow."""
    try:
        found += list_devices(_LIST_S)
    except SoundLibraryError as error:
        hangs = isinstance(error, SoundSystemStuckError)
        advice = f"it hangs: {_restart()}" if hangs else f"to install it: {_install()}"
        yield warning("sound", f"no sound card can be used: {error.reason}; {advice}")
        return
    inputs = [one for one in found if one.input_channels]
    outputs = [one for one in found if one.output_channels]
    if not found:
        yield warning("sound", "PortAudio works, but finds no devices on this machine")
        return
    apis = ", ".join(sorted({one.host_api for one in found}))
    default = [
        next((repr(one.name) for one in found if getattr(one, f"default_{direction}")), "none")
        for direction in _NAMES
    ]
    text = (
        f"PortAudio works ({apis}), with {len(inputs)} microphones and {len(outputs)} speakers; by "
        f"default {default[0]} and {default[1]}"
    )
    yield warning("sound", text) if "none" in default else ok("sound", text)


def _install() -> str:
    before = _BEFORE.get(sys.platform, "install PortAudio, then ")
    after = " (with Python 3.13 or earlier)" if sys.platform == "win32" else ""
    return f"{before}{install('pyaudio')}{after}"


def _restart() -> str:
    return _RESTART.get(sys.platform, "restart the machine")


# -- the sound check ------------------------------------------------------------------------------


def sound(request: Request, duplex: str = "auto") -> Iterator[Result]:
    """Open the devices, listen, and play a chirp.

    Args:
        request: The devices to open.
        duplex: Whether the assistant listens while it speaks, as in `messages.Settings`.
    """
    names, echo, cancelled = [], None, EchoCancelled("off")
    for finding in _findings(request):
        match finding:
            case DeviceOpened(name=name):
                names.append(name)
                yield from _opened(finding)
            case DeviceRefused(direction, why):
                yield problem(_NAMES[direction], why)
            case MicrophoneHeard():
                yield from _heard(finding)
            case Echo():
                echo = finding
            case EchoCancelled():
                cancelled = finding
            case Result():
                yield finding
    if echo is not None:
        worn = any(is_headset(name) for name in names)
        half = duplex == "half" or (duplex == "auto" and not worn)
        yield _echo(echo, cancelled, duplex, half=half)


def _opened(device: DeviceOpened) -> Iterator[Result]:
    name = _NAMES[device.direction]
    if device.trouble:
        yield warning(name, f"{device.name}: {device.trouble}")
    elif not device.rate:
        yield ok(name, f"{device.name} can be used")
    else:
        channels = "mono" if device.channels == 1 else f"{device.channels} channels"
        converted = "" if device.rate == SAMPLE_RATE else f", converted to {SAMPLE_RATE} Hz"
        yield ok(name, f"{device.name!r} opens ({device.rate} Hz, {channels}{converted})")


def _heard(heard: MicrophoneHeard) -> Iterator[Result]:
    if heard.zeros:
        advice = _PERMISSION.get(sys.platform, "look for a switch on it, and at the mixer")
        text = f"it delivers nothing but zeros: {advice}"
        yield problem("level", text) if sys.platform == "darwin" else warning("level", text)
        return
    level = f"{heard.rms_dbfs:.0f} dBFS, the loudest {heard.peak_dbfs:.0f} dBFS"
    if heard.clipped > _CLIPPED:
        yield warning("level", f"the microphone is too loud ({level}, clipped): turn it down")
    else:
        yield ok("level", f"the microphone hears {level}")
    if abs(heard.speed - 1) > _OFF:
        yield warning(
            "rate",
            f"the microphone delivers {heard.speed:.2f} times the sound of its sample rate: what "
            f"you say would be at the wrong pitch; choose another device",
        )


def _echo(echo: Echo, cancelled: EchoCancelled, duplex: str, *, half: bool) -> Result:
    if not echo.heard:
        text = "the microphone does not hear the speaker: a headset, or turned down"
        if half:
            text += "; with a headset, --full-duplex lets you interrupt by speaking"
        return ok("echo", text)
    heard = (
        f"the microphone hears the speaker ({echo.gain_db:.0f} dB, there and back in "
        f"{echo.round_trip_ms} ms)"
    )
    if cancelled.state == "cancelled" and duplex != "half":
        away = "" if cancelled.delay_ms is None else f", {cancelled.delay_ms} ms away"
        text = f"{heard}, and its echo is cancelled by {cancelled.erle_db:.0f} dB{away}"
        return ok("echo", f"{text}: you can interrupt the assistant by speaking")
    if half:
        why = f", and the echo is not cancelled ({cancelled.reason})" if cancelled.reason else ""
        return warning(
            "echo",
            f"{heard}{why}, so the assistant does not listen while it speaks; to interrupt it by "
            f"speaking, wear a headset",
        )
    return warning(
        "echo",
        f"{heard}, and the assistant listens while it speaks: it would interrupt itself; wear a "
        f'headset, or use half-duplex (no --full-duplex, Agent(duplex="half"))',
    )


def _findings(request: Request) -> Iterator[Finding | Result]:
    """Run the sound check in a separate process; report the step in which it hangs or dies."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "actors.devices.card.soundcheck", _encoded(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    step = ("sound", "starting")
    try:
        while True:
            try:
                line = lines.get(timeout=_STEP_S)
            except queue.Empty:
                yield problem(step[0], f"{step[1]} takes more than {_STEP_S:g} s: {_restart()}")
                return
            if not line:
                break
            finding = msgspec.json.decode(line, type=Finding)
            if isinstance(finding, Trying):
                step = _STEPS[finding.what]
            yield finding
        if code := process.wait(_STEP_S):
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            yield problem(step[0], f"{step[1]} ends the process ({died}): choose another device")
    finally:
        process.kill()
        process.wait()


def _encoded(request: Request) -> str:
    return msgspec.json.encode(request).decode()


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")
