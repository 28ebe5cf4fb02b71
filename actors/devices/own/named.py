"""Loads devices written by the user, given as ``module:attr`` or ``file.py:attr``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.devices.base import INPUT_METHODS, OUTPUT_METHODS, Capture, Playback
from actors.devices.errors import DeviceError
from actors.loading import LoadError, load, raised
from messages.paths import path_of_text, printable

__all__ = ["NamedDeviceError", "load_capture", "load_playback"]


class NamedDeviceError(DeviceError):
    """Raised for a name that does not lead to a device."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{path_of_text(self.name)!r} is not a device: {self.reason}"


def load_capture(name: str, block: int) -> Capture:
    """Return the input device of this name.

    The name may lead to an `rtvoice.audio.devices.AudioInputDevice`, to an
    `actors.devices.base.Capture`, or to a class or function that makes one.

    Args:
        name: ``module:attr`` or ``file.py:attr``.
        block: Length of a block in samples.

    Raises:
        NamedDeviceError: If the name does not lead to an input device.
    """
    device = _load(name, "input device", Capture, INPUT_METHODS)
    if isinstance(device, Capture):
        return device
    from actors.devices.own.local import LocalCapture

    return LocalCapture(printable(name), device, block)


def load_playback(name: str) -> Playback:
    """Return the output device of this name.

    The name may lead to an `rtvoice.audio.devices.AudioOutputDevice`, to an
    `actors.devices.base.Playback`, or to a class or function that makes one.

    Raises:
        NamedDeviceError: If the name does not lead to an output device.
    """
    device = _load(name, "output device", Playback, OUTPUT_METHODS)
    if isinstance(device, Playback):
        return device
    from actors.devices.own.local import LocalPlayback

    return LocalPlayback(printable(name), device)


def _load(name: str, noun: str, kind: type, methods: tuple[str, ...]) -> Any:
    def fits(thing: object) -> bool:
        return isinstance(thing, kind) or all(hasattr(thing, key) for key in methods)

    try:
        found = load(name, noun, fits)
    except LoadError as error:
        raise NamedDeviceError(name, error.problem) from error
    device = _made(name, found) if _makes_one(found, fits) else found
    if fits(device) and not isinstance(device, type):
        return device
    missing = " and no ".join(key for key in methods if not hasattr(device, key))
    raise NamedDeviceError(
        name,
        f"it is of type {type(device).__name__} and has no {missing}; name an {noun} "
        f"(rtvoice.audio.devices), its class, or a function that returns one",
    )


def _makes_one(found: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(found, type) or (callable(found) and not fits(found))


def _made(name: str, make: Callable[[], object]) -> object:
    try:
        return make()
    except BaseException as error:
        raise NamedDeviceError(name, f"making it failed: {raised(error)}") from error
