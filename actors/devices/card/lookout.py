"""The hot-plug monitor: reports when a better sound device is there, or the one in use is gone."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

from actors.devices.card.listing import (
    DeviceId,
    Direction,
    SoundDevice,
    choose,
    list_devices,
    why_not_open,
)
from actors.devices.errors import NoSuchDeviceError, SoundLibraryError, SoundSystemStuckError

__all__ = ["ANSWER_S", "Lookout", "Presence"]

ANSWER_S = 3.0
"""Time after which a sound system that does not answer counts as missing."""
_SOON_S = (0.5, 1.0)
_OFTEN_S, _SELDOM_S, _OFTEN = 2.0, 5.0, 30
"""Seconds between looks for a missing device: during the first minute (30 looks), and after it."""


class Lookout:
    """Watches for a device that is better than the one in use, and that opens.

    Each look runs a new process, which costs 30 ms of CPU: a running PortAudio never sees new
    devices.

    Args:
        wanted: The setting.
        direction: The direction of the device.
        known: The device that the setting named before.
        using: The device in use; None: a stand-in, so that any device is better.
        at_once: Whether to look for the first time without waiting.
        seldom: Whether the wanted device is in use, so that rare looks are enough.
    """

    def __init__(
        self,
        wanted: str,
        direction: Direction,
        known: DeviceId | None,
        using: DeviceId | None,
        *,
        at_once: bool = False,
        seldom: bool = False,
    ) -> None:
        self._wanted, self._direction = wanted, direction
        self._known, self._using = known, using
        self._at_once, self._seldom = at_once, seldom
        self._closed = threading.Event()

    def start(self, found: Callable[[str], None]) -> None:
        """Start to watch on a new thread; it calls ``found`` once, with the reason to change."""
        self._closed = closed = threading.Event()
        run = functools.partial(self._run, found, closed)
        threading.Thread(target=run, name="lookout", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def reason(self) -> str:
        """Look once; return why another device should be opened, or an empty text."""
        device = self.look()
        return f"the device {device.name!r} is there" if device is not None else ""

    def look(self) -> SoundDevice | None:
        """Return the best device that is there and opens; None: there is none."""
        try:
            devices = list_devices(ANSWER_S)
        except SoundLibraryError:
            return None
        for device in self._better(devices):
            with contextlib.suppress(SoundSystemStuckError):
                if why_not_open(device, self._direction, ANSWER_S) is None:
                    return device
        return None

    def _better(self, devices: list[SoundDevice]) -> Iterator[SoundDevice]:
        settings = [self._wanted] if self._using is not None else [self._wanted, "default"]
        for setting in dict.fromkeys(settings):
            with contextlib.suppress(NoSuchDeviceError):
                device = choose(devices, setting, self._direction, self._known).device
                if device.id != self._using:
                    yield device

    def _run(self, found: Callable[[str], None], closed: threading.Event) -> None:
        for wait_s in self._pauses():
            if closed.wait(wait_s):
                return
            reason = self.reason()
            if reason and not closed.is_set():
                found(reason)
                return

    def _pauses(self) -> Iterator[float]:
        if self._at_once:
            yield 0.0
        if not self._seldom:
            yield from _SOON_S
            for _ in range(_OFTEN):
                yield _OFTEN_S
        while True:
            yield _SELDOM_S


class Presence(Lookout):
    """Watches whether the device in use is gone, although a sound server plays on elsewhere.

    The device counts as gone if it cannot be opened a second time. This proves nothing about a
    device that never opens a second time while we use it, so this is tested first. A sound system
    that does not answer proves nothing either: the machine may only be busy.
    """

    _shared: bool | None = None
    """Whether the device can be opened a second time while we use it; None: not known yet."""
    _missed = 0

    def reason(self) -> str:
        """Return why another device should be opened, or an empty text.

        One failed look is not enough; the device must be missing twice in a row.
        """
        if self._shared is False:
            return ""
        try:
            there = self._is_there()
        except SoundLibraryError:
            return ""
        if self._shared is None:
            self._shared = there
            return ""
        self._missed = 0 if there else self._missed + 1
        return "its device is gone, and something else plays" if self._missed > 1 else ""

    def _is_there(self) -> bool:
        with contextlib.suppress(NoSuchDeviceError):
            devices = list_devices(ANSWER_S)
            device = choose(devices, self._wanted, self._direction, self._known).device
            return why_not_open(device, self._direction, ANSWER_S) is None
        return False
