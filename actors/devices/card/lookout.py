"""Finds out that a better sound device is there, or that the one in use is gone."""

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
"""A sound system that has not answered after so long is away."""
_SOON_S = (0.5, 1.0)
_OFTEN_S, _SELDOM_S, _OFTEN = 2.0, 5.0, 30
"""How often is looked for a device that is away: for a minute, and from then on."""


class Lookout:
    """Finds out when there is a device that goes before the one in use, and opens.

    It asks a fresh process each time, which costs 30 ms of CPU.

    Args:
        wanted: the setting.
        direction: of the device.
        known: which device the setting has meant.
        using: which device is in use; None: a stand-in, before which any device goes.
        at_once: whether to look without waiting.
        seldom: whether nothing is missing, and there is time.
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
        """Look out, on a thread of its own; ``found`` is called once, with the reason to change."""
        self._closed = closed = threading.Event()
        run = functools.partial(self._run, found, closed)
        threading.Thread(target=run, name="lookout", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()

    def reason(self) -> str:
        """Look once; return why another device is to be opened, or nothing."""
        device = self.look()
        return f"the device {device.name!r} is there" if device is not None else ""

    def look(self) -> SoundDevice | None:
        """Return the device that is there and opens."""
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
    """Finds out that the device in use is gone, although a sound server plays on elsewhere.

    A device that cannot be opened a second time while we use it tells nothing. Nor does a machine
    that is too busy to answer: while ours plays, it may be there.
    """

    _shared: bool | None = None
    _missed = 0

    def reason(self) -> str:
        """Return why another device is to be opened, or nothing; it has to be missed twice."""
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
