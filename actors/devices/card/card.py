"""The sound card of a session: the device that was chosen, what takes its place, its return.

A process of a microphone or a speaker opens one device in its life: PortAudio lists the devices
once, and an opening that hangs cannot be cancelled. From one process to the next goes a record, in
a file: which device was chosen, by host API and name, and which one is used. While that is not the
chosen one, a `Lookout` finds out when it is there again, without disturbing anything; then the
actor starts anew.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from actors.base import StartAnew
from actors.devices.base import Capture, Playback
from actors.devices.card.jack import remove_locked_database
from actors.devices.card.listing import DeviceId, Direction, Found
from actors.devices.card.lookout import ANSWER_S, Lookout, Presence
from actors.devices.errors import (
    DeviceError,
    DeviceOpenError,
    NoSuchDeviceError,
    SoundLibraryError,
)
from messages import DeviceChanged, Message, Notice, SessionInfo

__all__ = ["CardKind", "note_loss", "open_card"]

D = TypeVar("D", bound=Capture | Playback)

_FIRST_S = 10.0
"""At the start there is time: for Bluetooth, for a sound server that has to be started."""
_FOLLOWING = ("ALSA", "JACK", "PulseAudio", "PipeWire")
"""Host APIs whose default device stays the system's default when that changes."""
_COMPONENTS = {"input": "microphone", "output": "speaker"}


class _Record(msgspec.Struct, frozen=True):
    """What one process leaves to the next."""

    known: DeviceId | None = None
    """The device that was chosen, if it was not the default."""
    using: str | None = None
    """The name of the device that was used last; None: it was lost."""
    opening: bool = False
    """Whether the process has ended while it opened one."""
    had_one: bool = False
    """Whether there has been any device."""
    unlocked: bool = False
    """Whether JACK's database was removed since a device was opened."""


class CardKind(NamedTuple, Generic[D]):
    """A direction, and how its devices are opened."""

    direction: Direction
    device: Callable[[str, DeviceId | None], D]
    """Opens the device that a setting means; see `actors.devices.card.listing.choose`."""
    stand_in: Callable[[bool], D]
    """Opens the device that is none; it is told whether there has been one."""

    @property
    def component(self) -> str:
        """Whose device it is."""
        return _COMPONENTS[self.direction]


# -- opening --------------------------------------------------------------------------------------


def open_card(
    wanted: str, session: SessionInfo, kind: CardKind[D], stuck: Callable[[Exception], None]
) -> D:
    """Open the device that a setting means, or what takes its place.

    When the session begins, what is wanted has to be there, unless it is ``auto``: then a machine
    without any device has a stand-in.

    Args:
        wanted: the setting.
        session: of which it is the device.
        kind: the direction.
        stuck: is called, on another thread, when the opening does not return.

    Raises:
        DeviceError: the device of a session that begins cannot be opened.
    """
    auto = wanted.lower() == "auto"
    wanted = "default" if auto else wanted
    opening = _Opening(kind, wanted, session)

    def see_why() -> None:
        if opening.unlock():
            stuck(StartAnew("JACK's database was left locked by a program that was killed"))
        elif not session.first:
            stuck(StartAnew(f"its device did not open within {ANSWER_S:g} s"))

    def give_up() -> None:
        reason = f"it does not answer within {_FIRST_S:g} s"
        stuck(DeviceOpenError(wanted, kind.direction, reason))

    with _within(ANSWER_S, see_why), _within(_FIRST_S, give_up):
        if not session.first:
            device = opening.again()
        elif auto:
            device = opening.of_any()
        else:
            device = opening.of_the_wanted()
    opening.finish(device)
    return device


@contextlib.contextmanager
def _within(seconds: float, overdue: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, overdue)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def note_loss(session: SessionInfo, direction: Direction) -> None:
    """Note that the device that was used is lost: the next one is news, even if it is the same."""
    path = _path(session, direction)
    _write(path, msgspec.structs.replace(_read(path), using=None))


class _Opening(Generic[D]):
    """One opening, by what is known from the processes before."""

    def __init__(self, kind: CardKind[D], wanted: str, session: SessionInfo) -> None:
        self._kind = kind
        self._wanted = wanted
        self._first = session.first
        self._path = _path(session, kind.direction)
        record = _read(self._path)
        self._record = _Record(unlocked=record.unlocked) if session.first else record
        self._why = ""
        """Why it is not the wanted device; empty: it is."""

    def unlock(self) -> bool:
        """Free an opening that hangs in JACK's database, once; return whether it is worth to retry.

        The next process opens as this one did.
        """
        if self._record.unlocked or not remove_locked_database():
            return False
        _write(self._path, msgspec.structs.replace(self._record, unlocked=True))
        return True

    def of_the_wanted(self) -> D:
        """Open the device that is wanted, and none else."""
        return self._kind.device(self._wanted, self._record.known)

    def of_any(self) -> D:
        """Open the device that is wanted or, on a machine without one, a stand-in."""
        try:
            return self.of_the_wanted()
        except (NoSuchDeviceError, SoundLibraryError) as error:
            self._why = error.reason
            device = self._stand_in()
            device.stands_in_because = str(error)
            return device

    def again(self) -> D:
        """Open what there is. After an opening that did not return, nothing is tried blindly."""
        if self._record.opening:
            self._why = "it did not open in time"
            return self._stand_in()
        _write(self._path, msgspec.structs.replace(self._record, opening=True))
        try:
            return self.of_the_wanted()
        except DeviceError as error:
            self._why = error.reason
        if self._wanted != "default":
            with contextlib.suppress(DeviceError):
                return self._kind.device("default", None)
        return self._stand_in()

    def _stand_in(self) -> D:
        return self._kind.stand_in(self._record.had_one)

    def finish(self, device: D) -> None:
        """Note which device it is, what is to be told of it, and how a better one is found."""
        found: Found | None = getattr(device, "found", None)
        known = self._record.known
        if found is not None and not self._why and self._wanted != "default":
            known = found.device.id
        device.news = tuple(self._news(device, found, known))
        device.lookout = self._lookout(found, known)
        had_one = self._record.had_one or found is not None
        _write(self._path, _Record(known, device.name, had_one=had_one))

    def _news(self, device: D, found: Found | None, known: DeviceId | None) -> Iterator[Message]:
        if not self._first:
            if device.name != self._record.using:
                wanted = known.name if known else self._wanted
                yield DeviceChanged(self._kind.component, wanted, device.name, self._why)
        elif found is not None and found.others and self._wanted != "default":
            text = f"Several devices fit {self._kind.direction} {self._wanted!r}: {found}."
            yield Notice(text)

    def _lookout(self, found: Found | None, known: DeviceId | None) -> Lookout | None:
        """Return what finds a better device; None: there is none, or it is found by itself."""
        if find_spec("pyaudio") is None:
            return None
        using = found.device.id if found is not None else None
        if self._why:
            at_once = self._record.opening  # it was slow, perhaps
            return Lookout(self._wanted, self._kind.direction, known, using, at_once=at_once)
        if using is None:
            return None
        if self._wanted == "default" and using.host_api not in _FOLLOWING:
            return Lookout("default", self._kind.direction, None, using, seldom=True)
        if self._wanted != "default" and _may_be_moved(using):
            direction = self._kind.direction
            return Presence(self._wanted, direction, known, using, at_once=True, seldom=True)
        return None


def _may_be_moved(device: DeviceId) -> bool:
    """Tell whether a sound server may play elsewhere for us, and let others try the device out.

    A device of ALSA that is no hardware is usually one of PulseAudio or PipeWire.
    """
    return device.host_api == "ALSA" and "hw:" not in device.name


# -- the record -----------------------------------------------------------------------------------


def _path(session: SessionInfo, direction: Direction) -> Path | None:
    return Path(session.directory) / f"{direction}-device" if session.directory else None


def _read(path: Path | None) -> _Record:
    if path is not None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=_Record)
    return _Record()


def _write(path: Path | None, record: _Record) -> None:
    if path is not None:
        new = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the device is chosen as it was at first
            new.write_bytes(msgspec.json.encode(record))
            new.replace(path)
