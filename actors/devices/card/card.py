"""The sound card of a session: opens the chosen device or a stand-in, and waits for its return.

Each process of the microphone or the speaker opens only one device: PortAudio lists the devices
once per process, and an opening that hangs cannot be cancelled. A record in a file connects the
processes: it names the chosen device, by host API and name, and the device last used. While another
device stands in, a `Lookout` watches for the chosen one, from outside this process, so that
playback is not disturbed; when it is there, the actor starts again in a new process.
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

__all__ = ["CardKind", "open_card"]

D = TypeVar("D", bound=Capture | Playback)

_FIRST_S = 10.0
"""Deadline for opening a device: Bluetooth takes time, and so does the start of a sound server."""
_FOLLOWING = ("ALSA", "JACK", "PulseAudio", "PipeWire")
"""Host APIs whose default device follows when the system's default changes."""
_COMPONENTS = {"input": "microphone", "output": "speaker"}


class _Record(msgspec.Struct, frozen=True):
    """The record that each process leaves in the file for the next."""

    wanted: str = ""
    """The device that was chosen."""
    known: DeviceId | None = None
    """The chosen device; None: the default is wanted, or no device was found yet."""
    using: str | None = None
    """Name of the device used last; None: it was lost."""
    opening: bool = False
    """Whether a device is being opened. If still True at the next start, that call hung or died."""
    had_one: bool = False
    """Whether any process of the session has opened a real device."""
    unlocked: bool = False
    """Whether JACK's database was removed since a device was last opened."""


class CardKind(NamedTuple, Generic[D]):
    """A direction and the functions that open its devices."""

    direction: Direction
    device: Callable[[str, DeviceId | None], D]
    """Opens the device that a setting names; see `actors.devices.card.listing.choose`."""
    stand_in: Callable[[bool], D]
    """Opens the stand-in; its argument: whether the session has had a real device."""

    @property
    def component(self) -> str:
        """The component that uses the device: ``microphone`` or ``speaker``."""
        return _COMPONENTS[self.direction]


# -- opening --------------------------------------------------------------------------------------


def open_card(
    wanted: str, session: SessionInfo, kind: CardKind[D], stuck: Callable[[Exception], None]
) -> D:
    """Open the device that a setting names, or a stand-in.

    At the start of the session the device must be there, unless the setting is ``auto``; then a
    machine without a device gets a stand-in. Later any device that opens will do.

    Args:
        wanted: The setting.
        session: The session.
        kind: The direction and the functions that open its devices.
        stuck: Called, on another thread, when the opening does not return.

    Raises:
        DeviceError: If the device cannot be opened at the start of the session.
    """
    auto = wanted.lower() == "auto"
    wanted = "default" if auto else wanted
    opening = _Opening(kind, wanted, session)

    def retry_or_wait() -> None:
        if opening.unlock():
            stuck(StartAnew("JACK's database was left locked by a program that was killed"))
        elif not session.first:
            stuck(StartAnew(f"its device did not open within {ANSWER_S:g} s"))

    def give_up() -> None:
        reason = f"it does not answer within {_FIRST_S:g} s"
        stuck(DeviceOpenError(wanted, kind.direction, reason))

    with _within(ANSWER_S, retry_or_wait), _within(_FIRST_S, give_up):
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
    """Call ``overdue``, on another thread, if the body takes longer than this."""
    timer = threading.Timer(seconds, overdue)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Opening(Generic[D]):
    """One opening of a device, guided by the record of earlier processes."""

    def __init__(self, kind: CardKind[D], wanted: str, session: SessionInfo) -> None:
        self._kind = kind
        self._wanted = wanted
        self._first = session.first
        self._path = _path(session, kind.direction)
        record = _read(self._path)
        if record.wanted != wanted:  # another device was chosen during the session
            record = msgspec.structs.replace(record, wanted=wanted, known=None, opening=False)
        self._record = _Record(unlocked=record.unlocked) if session.first else record
        self._why = ""
        """Why a device other than the wanted one is opened; empty: the wanted one is opened."""

    def unlock(self) -> bool:
        """Remove JACK's database if the opening hangs in it, at most once until a device opens.

        Returns:
            Whether a new process should try again, with the same record.
        """
        if self._record.unlocked or not remove_locked_database():
            return False
        _write(self._path, msgspec.structs.replace(self._record, unlocked=True))
        return True

    def of_the_wanted(self) -> D:
        """Open the wanted device and no other."""
        return self._kind.device(self._wanted, self._record.known)

    def of_any(self) -> D:
        """Open the wanted device or, on a machine without one, a stand-in."""
        try:
            return self.of_the_wanted()
        except (NoSuchDeviceError, SoundLibraryError) as error:
            self._why = error.reason
            device = self._stand_in()
            device.stands_in_because = str(error)
            return device

    def again(self) -> D:
        """Open the wanted device, else the default, else a stand-in.

        After an opening that did not return, open the stand-in at once: a further try could hang
        too. Its lookout then tries the devices in another process.
        """
        if self._record.opening:
            self._why = "it did not open in time"
            return self._stand_in()
        # If this process is ended because the opening hangs, the next one finds this.
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
        """Write the record, and set the device's `news` and `lookout`."""
        found: Found | None = getattr(device, "found", None)
        known = self._record.known
        if found is not None and not self._why and self._wanted != "default":
            known = found.device.id  # an index or a part of a name may fit another device later
        device.news = tuple(self._news(device, found, known))
        device.lookout = self._lookout(found, known)
        device.note_loss = self._note_loss
        had_one = self._record.had_one or found is not None
        _write(self._path, _Record(self._wanted, known, device.name, had_one=had_one))

    def _note_loss(self) -> None:
        _write(self._path, msgspec.structs.replace(_read(self._path), using=None))

    def _news(self, device: D, found: Found | None, known: DeviceId | None) -> Iterator[Message]:
        if not self._first:
            if device.name != self._record.using:
                wanted = known.name if known else self._wanted
                yield DeviceChanged(self._kind.component, wanted, device.name, self._why)
        elif found is not None and found.others and self._wanted != "default":
            text = f"Several devices fit {self._kind.direction} {self._wanted!r}: {found}."
            yield Notice(text)

    def _lookout(self, found: Found | None, known: DeviceId | None) -> Lookout | None:
        """Return the monitor for a better device.

        None: no other device is wanted, or its sound system changes to it without our help.
        """
        if find_spec("pyaudio") is None:
            return None
        using = found.device.id if found is not None else None
        if self._why:
            at_once = self._record.opening  # the opening was perhaps only slow
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
    """Return whether a sound server may move our stream to another device without telling us.

    An ALSA device that is not hardware usually belongs to PulseAudio or PipeWire. It can also be
    opened a second time, by which `Presence` sees whether it is still there.
    """
    return device.host_api == "ALSA" and "hw:" not in device.name


# -- the record -----------------------------------------------------------------------------------


def _path(session: SessionInfo, direction: Direction) -> Path | None:
    return session.file(f"{direction}-device") if session.directory else None


def _read(path: Path | None) -> _Record:
    if path is not None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes(), type=_Record)
    return _Record()


def _write(path: Path | None, record: _Record) -> None:
    if path is not None:
        new = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the next process chooses without it
            new.write_bytes(msgspec.json.encode(record))
            new.replace(path)
