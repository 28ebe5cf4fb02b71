"""Devices of the user's own, given by name: loaded in the process that uses them."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TypeVar

from actors.devices.base import Capture, DeviceError, Playback

__all__ = ["NamedDeviceError", "is_name", "load_capture", "load_playback"]

_NAME = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_]\w*)")

Device = TypeVar("Device", bound=Capture | Playback)


class NamedDeviceError(DeviceError):
    """A name that leads to no device."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name!r} is no device: {self.reason}"


def is_name(setting: str) -> bool:
    """Tell whether a device setting is ``module:attr`` or ``file.py:attr``."""
    return _NAME.fullmatch(setting) is not None


def load_capture(name: str) -> Capture:
    """Return the input device of that name: an `actors.devices.base.Capture`, or a class of one.

    Raises:
        NamedDeviceError: there is none.
    """
    return _load(name, Capture)  # type: ignore[type-abstract]


def load_playback(name: str) -> Playback:
    """Return the output device of that name: an `actors.devices.base.Playback`, or a class of one.

    Raises:
        NamedDeviceError: there is none.
    """
    return _load(name, Playback)  # type: ignore[type-abstract]


def _load(name: str, kind: type[Device]) -> Device:
    match = _NAME.fullmatch(name)
    assert match is not None, name
    try:
        found = getattr(_module(match["place"]), match["attribute"])
        device = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, OSError) as error:
        raise NamedDeviceError(name, str(error)) from error
    if not isinstance(device, kind):
        raise NamedDeviceError(
            name,
            f"it is of type {type(device).__name__}, not an actors.devices.base.{kind.__name__}",
        )
    return device


def _module(place: str) -> object:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser().resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
