"""Lists the sound devices and chooses the one that a setting names, without opening any here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from actors.devices.card.jack import remove_locked_database
from actors.devices.errors import NoSuchDeviceError, SoundLibraryError, SoundSystemStuckError

__all__ = [
    "DeviceId",
    "Direction",
    "Found",
    "SoundDevice",
    "choose",
    "list_devices",
    "sound_card_present",
    "why_not_open",
]

Direction = Literal["input", "output"]

_PROBE = Path(__file__).with_name("probe.py")
_PROBE_S = 10.0
_CARD_NUMBER = re.compile(r"\s*\((?:plug)?hw:\d+(?:,\d+)*\)")
"""The card number in an ALSA name, which changes when the device is plugged in again."""


class SoundDevice(msgspec.Struct, frozen=True):
    """A sound device as PortAudio lists it."""

    index: int
    """Its current number, which changes when other devices come or go."""
    name: str
    host_api: str
    """The sound system that provides it: ALSA, Core Audio, Windows WASAPI, …"""
    input_channels: int
    """0: not an input."""
    output_channels: int
    """0: not an output."""
    rate: int
    """Its default sample rate in Hz."""
    default_input: bool = False
    default_output: bool = False
    input_rates: tuple[int, ...] = ()
    """The usual sample rates that it supports as an input, in Hz; empty: not asked for."""
    output_rates: tuple[int, ...] = ()
    """The same as an output."""

    def channels(self, direction: Direction) -> int:
        """Return the number of its channels in a direction."""
        return self.input_channels if direction == "input" else self.output_channels

    def is_default(self, direction: Direction) -> bool:
        """Return whether it is the system's default in a direction."""
        return self.default_input if direction == "input" else self.default_output

    @property
    def id(self) -> DeviceId:
        """Its identity, which does not change with its index."""
        return DeviceId(self.host_api, self.name)


class DeviceId(NamedTuple):
    """The identity of a device; not its index, which another device may have tomorrow."""

    host_api: str
    name: str


# -- in another process ---------------------------------------------------------------------------


def list_devices(timeout_s: float = _PROBE_S, *, rates: bool = False) -> list[SoundDevice]:
    """Ask PortAudio for its devices, in another process.

    Args:
        timeout_s: How long to wait for an answer.
        rates: Whether to ask each device for its sample rates too.

    Raises:
        SoundLibraryError: If PyAudio is not installed, or PortAudio does not work.
    """
    found = _ask({"rates": rates}, timeout_s)
    if isinstance(found, str):
        raise SoundLibraryError("input", found)
    return msgspec.convert(found, list[SoundDevice])


def why_not_open(
    device: SoundDevice, direction: Direction, timeout_s: float = _PROBE_S
) -> str | None:
    """Open a device and close it again, in another process.

    Returns:
        Why it does not open; None: it opens.

    Raises:
        SoundSystemStuckError: If there is no answer in time.
    """
    channels = min(device.channels(direction), 2)
    try:
        found = _ask({"open": (device.index, direction, device.rate, channels)}, timeout_s)
    except SoundSystemStuckError:
        raise
    except SoundLibraryError as error:
        return error.reason
    return found if isinstance(found, str) else None


def sound_card_present(timeout_s: float = _PROBE_S) -> tuple[bool, bool]:
    """Return whether there is a default input, and a default output. Never raises."""
    if find_spec("pyaudio") is None:
        return False, False
    try:
        devices = list_devices(timeout_s)
    except SoundLibraryError:
        return False, False
    return any(one.default_input for one in devices), any(one.default_output for one in devices)


def _ask(request: dict[str, Any], timeout_s: float) -> Any:
    """Run the probe and return its answer.

    Raises:
        SoundLibraryError: If it does not answer.
    """
    try:
        # A second run helps if the first one hung in a locked database that is removed now.
        done = _run_probe(request, timeout_s) or _run_probe(request, timeout_s)
    except subprocess.TimeoutExpired:
        done = None
    except OSError as error:
        raise SoundLibraryError("input", f"no process can be started: {error}") from None
    if done is None:
        reason = f"PortAudio did not answer in {timeout_s:g} s"
        raise SoundSystemStuckError("input", reason)
    try:
        return json.loads(done.stdout)
    except ValueError:
        reason = f"PortAudio ended with {done.returncode}"
        raise SoundLibraryError("input", reason) from None


def _run_probe(
    request: dict[str, Any], timeout_s: float
) -> subprocess.CompletedProcess[bytes] | None:
    """Run the probe once.

    Returns:
        Its result; None: it hung in JACK's locked database, which is removed now: try again.

    Raises:
        subprocess.TimeoutExpired: If it hung elsewhere.
        OSError: If it cannot be started.
    """
    argument = json.dumps({**request, "path": sys.path})
    command = [sys.executable, "-S", "-P", str(_PROBE), argument]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            unlocked = remove_locked_database(process.pid)
            process.kill()
            if unlocked:
                return None
            raise
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


# -- choosing -------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The device chosen for a setting, and the other devices that fit as well."""

    device: SoundDevice
    others: tuple[SoundDevice, ...] = ()

    def __str__(self) -> str:
        """Return which device was chosen of several, as part of a sentence."""
        others = ", ".join(f"{one.index} {one.name!r} ({one.host_api})" for one in self.others)
        device = self.device
        return f"took {device.index} {device.name!r} ({device.host_api}), not {others}"


def choose(
    devices: Sequence[SoundDevice],
    wanted: str,
    direction: Direction,
    known: DeviceId | None = None,
) -> Found:
    """Return the device that a setting names: ``default``, an index, a name or a part of it.

    A whole name is better than the beginning of a name, and this is better than another part. Of
    several devices that fit equally well, the order is: the default device, devices of the
    default's host API, the first listed.

    Args:
        devices: All devices.
        wanted: The setting.
        direction: Input or output.
        known: The device that the setting named before; None: none was found yet.

    Raises:
        NoSuchDeviceError: If no device fits.
    """
    fitting = [one for one in devices if one.channels(direction) > 0]
    home = next((one.host_api for one in fitting if one.is_default(direction)), "")
    for fits in _tests(wanted, direction, known):
        found = [one for one in fitting if fits(one)]
        if found:
            found.sort(key=lambda one: (not one.is_default(direction), one.host_api != home))
            return Found(found[0], tuple(found[1:]))
    names = tuple(f"{one.index} {one.name}" for one in fitting)
    raise NoSuchDeviceError(wanted, direction, names)


_Test = Callable[[SoundDevice], bool]


def _tests(wanted: str, direction: Direction, known: DeviceId | None) -> list[_Test]:
    """Return the tests for a fitting device, the strictest first."""
    name = wanted.strip().casefold()
    if name == "default":
        return [lambda one: one.is_default(direction)]
    tests: list[_Test] = []
    if known is not None:
        tests += [lambda one: one.id == known, lambda one: _moved(one.id) == _moved(known)]
        if name.isdecimal():  # another device may have this index by now
            return tests
    if name.isdecimal():
        tests.append(lambda one: one.index == int(name))
    return [
        *tests,
        lambda one: one.name.casefold() == name,
        lambda one: one.name.casefold().startswith(name),
        lambda one: name in one.name.casefold(),
    ]


def _moved(device: DeviceId) -> DeviceId:
    """Return the identity of a device without the place where it is plugged in."""
    return device._replace(name=_CARD_NUMBER.sub("", device.name))
