"""The chosen device, its replacement when it is lost, and its return; with a fake PyAudio."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.base import StartAnew
from actors.devices.card import card, lookout
from actors.devices.card.listing import DeviceId, SoundDevice
from actors.devices.card.lookout import Lookout
from actors.devices.errors import (
    DeviceOpenError,
    NoSuchDeviceError,
    SoundLibraryError,
    SoundSystemStuckError,
)
from actors.devices.opening import open_capture, open_playback
from actors.devices.silence import NoPlayback, NullPlayback, SilenceCapture
from messages import DeviceChanged, Notice, SessionInfo, Settings
from tests.actors.devices.card.fake_pyaudio import DEVICES, FakePyAudio

Devices = tuple[tuple[str, int, int], ...]
WITHOUT_HEADSET = tuple(one for one in DEVICES if one[0] != "USB Headset")


class Machine:
    """A machine whose devices come and go, and one component after the other that opens one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self._first = True
        self.stuck: list[Exception] = []
        self.opened: dict[str, Any] = {}
        self.has()

    def has(self, devices: Devices = DEVICES, **options: Any) -> FakePyAudio:
        """Have these devices from now on."""
        module = FakePyAudio(devices, **options)
        self._patch.setitem(sys.modules, "pyaudio", module)
        return module

    def has_no_pyaudio(self) -> None:
        """Have no sound at all."""
        self._patch.setitem(sys.modules, "pyaudio", None)

    @property
    def session(self) -> SessionInfo:
        """What the next process is told."""
        return SessionInfo(epoch_ns=0, directory=str(self._folder), first=self._first)

    def opens(self, device: str, direction: str = "input") -> Any:
        """Open the device in the next process."""
        settings = Settings(**{direction: device})
        if direction == "input":
            opened: Any = open_capture(settings, self.session, 0, self.stuck.append)
        else:
            opened = open_playback(settings, self.session, self.stuck.append)
        self._first = False
        self.opened[direction] = opened
        opened.close()
        return opened

    def loses(self, direction: Any = "input") -> None:
        """Note that the device was lost."""
        self.opened[direction].note_loss()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(card, "find_spec", lambda _: object())
    return Machine(tmp_path, monkeypatch)


def listed(*names: str, host_api: str = "Fake", default: str = "") -> list[SoundDevice]:
    return [
        SoundDevice(n, name, host_api, 1, 1, 48_000, name == default, name == default)
        for n, name in enumerate(names)
    ]


# -- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["headset", "2"])
def test_the_chosen_device_is_opened_again_wherever_it_is_now(
    machine: Machine, setting: str
) -> None:
    assert machine.opens(setting).name == "USB Headset"

    machine.has((("Webcam", 1, 0), *reversed(DEVICES)))

    again = machine.opens(setting)
    assert again.name == "USB Headset"
    assert again.news == ()
    assert again.lookout is None


def test_the_default_device_takes_the_place_of_one_that_is_away(machine: Machine) -> None:
    machine.opens("2")
    machine.loses()
    machine.has(WITHOUT_HEADSET)

    instead = machine.opens("2")

    assert instead.name == "Built-in Microphone"
    assert instead.news == (
        DeviceChanged("microphone", "USB Headset", "Built-in Microphone", "it is not there"),
    )
    assert instead.lookout is not None


def test_the_chosen_device_is_used_when_it_is_back(machine: Machine) -> None:
    machine.opens("headset", "output")
    machine.has(WITHOUT_HEADSET)
    machine.opens("headset", "output")
    machine.has()

    back = machine.opens("headset", "output")

    assert back.news == (DeviceChanged("speaker", "USB Headset", "USB Headset", ""),)
    assert back.lookout is None


def test_another_device_that_is_chosen_during_the_session_is_opened(machine: Machine) -> None:
    machine.opens("headset")

    other = machine.opens("built")

    assert other.name == "Built-in Microphone"
    assert other.news == (DeviceChanged("microphone", "Built-in Microphone", other.name, ""),)
    assert machine.opens("built").name == "Built-in Microphone"
    assert machine.opens("headset").name == "USB Headset"


def test_a_device_that_was_lost_and_is_open_again_is_news(machine: Machine) -> None:
    machine.opens("headset")
    machine.loses()

    assert machine.opens("headset").news == (
        DeviceChanged("microphone", "USB Headset", "USB Headset", ""),
    )
    assert machine.opens("headset").news == ()  # its process has died for another reason


def test_without_any_device_silence_stands_in_and_what_is_said_waits(machine: Machine) -> None:
    machine.opens("default")
    machine.has(())

    capture = machine.opens("default")

    assert isinstance(capture, SilenceCapture)
    assert capture.news[0].using == "silence"
    assert capture.news[0].reason == "there is no input device on this machine"
    assert capture.lookout is not None


def test_what_is_said_waits_for_an_output_that_was_lost(machine: Machine) -> None:
    machine.opens("default", "output")
    machine.has(())

    assert isinstance(machine.opens("default", "output"), NoPlayback)


def test_a_device_that_does_not_open_is_replaced_too(machine: Machine) -> None:
    machine.opens("headset")
    machine.has(refuse=lambda rate, channels: True, error=(-9985, "Device unavailable"))

    capture = machine.opens("headset")

    assert isinstance(capture, SilenceCapture)
    assert capture.news[0].reason == "it is in use by another program"


@pytest.mark.parametrize("setting", ["headset", "default"])
def test_when_the_session_begins_the_device_has_to_be_there(machine: Machine, setting: str) -> None:
    machine.has(())

    with pytest.raises(NoSuchDeviceError):
        machine.opens(setting)

    machine.has_no_pyaudio()
    with pytest.raises(SoundLibraryError):
        machine.opens(setting)


@pytest.mark.parametrize("direction", ["input", "output"])
def test_auto_begins_without_a_device_and_is_given_the_one_that_is_plugged_in(
    machine: Machine, direction: str
) -> None:
    machine.has(())

    nothing = machine.opens("auto", direction)
    died = machine.opens("auto", direction)
    machine.has()
    device = machine.opens("auto", direction)

    assert isinstance(nothing, SilenceCapture | NullPlayback)
    assert "on this machine" in nothing.stands_in_because
    assert nothing.lookout is not None
    assert type(died) is type(nothing)
    assert died.news == ()
    assert device.name.startswith("Built-in")
    assert device.news[0].using == device.name


def test_auto_without_pyaudio_looks_for_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has_no_pyaudio()
    monkeypatch.setattr(card, "find_spec", lambda _: None)

    nothing = machine.opens("auto")

    assert "PyAudio is not installed" in nothing.stands_in_because
    assert nothing.lookout is None


def test_the_choice_among_several_devices_is_reported(machine: Machine) -> None:
    machine.has((("USB a", 1, 0), ("USB b", 1, 0)))

    (told,) = machine.opens("usb").news

    assert isinstance(told, Notice)
    assert "took 0 'USB a' (Fake), not 1 'USB b' (Fake)" in told.text


# -- openings that do not return ------------------------------------------------------------------


class Noting(list[Exception]):
    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def append(self, error: Exception) -> None:
        super().append(error)
        self.over.set()


def hang(machine: Machine) -> Noting:
    machine.stuck = Noting()
    machine.has(refuse=lambda *_: not machine.stuck.over.wait(10))  # type: ignore[attr-defined]
    return machine.stuck


def test_a_start_that_does_not_return_ends_with_a_sentence(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "_FIRST_S", 0.05)
    errors = hang(machine)

    machine.opens("headset")

    assert type(errors[0]) is DeviceOpenError
    assert "'headset' does not open: it does not answer within 0.05 s" in str(errors[0])


def test_a_later_opening_that_does_not_return_asks_for_a_new_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.opens("default")
    monkeypatch.setattr(card, "ANSWER_S", 0.05)
    errors = hang(machine)

    machine.opens("default")

    assert type(errors[0]) is StartAnew


def test_after_an_opening_that_did_not_return_nothing_is_opened_blindly(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.opens("default")
    module = machine.has()
    with monkeypatch.context() as patch:
        patch.setattr(module, "refuse", die)
        with pytest.raises(KeyboardInterrupt):
            machine.opens("default")

    capture = machine.opens("default")
    again = machine.opens("default")

    assert isinstance(capture, SilenceCapture)
    assert capture.news[0].reason == "it did not open in time"
    assert capture.lookout is not None
    assert again.name == "Built-in Microphone"


@pytest.mark.parametrize(("locked", "opens"), [(False, "silence"), (True, "Built-in Microphone")])
def test_after_an_opening_that_hung_one_is_tried_again_if_a_lock_was_removed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, locked: bool, opens: str
) -> None:
    monkeypatch.setattr(card, "remove_locked_database", lambda: locked)
    machine.opens("default")

    why = dies_hanging(machine, monkeypatch)

    assert ("JACK" in str(why)) == locked
    assert type(why) is StartAnew
    assert machine.opens("default").name == opens


def test_a_lock_is_removed_once_and_then_the_opening_counts_as_one_that_hangs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "remove_locked_database", lambda: True)
    machine.opens("default")

    reasons = [str(dies_hanging(machine, monkeypatch)) for _ in range(2)]

    assert ["JACK" in reason for reason in reasons] == [True, False]
    assert machine.opens("default").name == "silence"


def dies_hanging(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """Hang in the opening until somebody ends the process; return why."""
    errors = Noting()
    machine.stuck = errors
    module = machine.has()
    with monkeypatch.context() as patch:
        patch.setattr(card, "ANSWER_S", 0.05)
        patch.setattr(module, "refuse", lambda *_: die(errors.over.wait(10)))
        with pytest.raises(KeyboardInterrupt):
            machine.opens("default")
    return errors[0]


def die(*_: object) -> bool:
    raise KeyboardInterrupt


# -- looking out ----------------------------------------------------------------------------------


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[SoundDevice]:
    """The devices that a lookout finds; those whose name begins with "busy" do not open."""
    devices: list[SoundDevice] = []
    monkeypatch.setattr(lookout, "list_devices", lambda _: list(devices))
    monkeypatch.setattr(
        lookout, "why_not_open", lambda one, *_: "busy" if one.name.startswith("busy") else None
    )
    return devices


HEADSET, BUILT_IN = DeviceId("Fake", "headset"), DeviceId("Fake", "built-in")


@pytest.mark.parametrize(
    ("using", "names", "found"),
    [
        (BUILT_IN, ["built-in"], None),
        (BUILT_IN, ["built-in", "headset"], "headset"),
        (None, ["built-in"], "built-in"),
        (None, ["built-in", "headset"], "headset"),
        (None, [], None),
    ],
)
def test_only_a_device_that_goes_before_the_one_in_use_is_found(
    there: list[SoundDevice], using: DeviceId | None, names: list[str], found: str | None
) -> None:
    there.extend(listed(*names, default="built-in"))

    device = Lookout("1", "input", HEADSET, using).look()

    assert (device.name if device else None) == found


def test_a_device_that_does_not_open_is_not_found(there: list[SoundDevice]) -> None:
    there.extend(listed("busy headset", "built-in", default="built-in"))

    assert Lookout("headset", "input", None, BUILT_IN).look() is None
    device = Lookout("headset", "input", None, None).look()
    assert device is not None
    assert device.name == "built-in"


def test_a_sound_system_that_does_not_answer_has_no_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: float) -> None:
        raise SoundLibraryError("input", "PortAudio did not answer in 3 s")

    monkeypatch.setattr(lookout, "list_devices", refuse)

    assert Lookout("headset", "input", None, None).look() is None


def test_a_default_that_changes_is_found_where_portaudio_does_not_follow_it(
    machine: Machine, there: list[SoundDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    there.extend(listed("Built-in Microphone", "USB", default="USB"))

    lookout = machine.opens("default").lookout
    device = lookout.look()
    there[:] = listed("Built-in Microphone", default="Built-in Microphone")
    assert lookout.look() is None
    monkeypatch.setattr(card, "_FOLLOWING", ("Fake",))

    assert device.name == "USB"
    assert machine.opens("default").lookout is None


@pytest.mark.parametrize(
    ("name", "host_api", "watched"),
    [("headset", "ALSA", True), ("headset (hw:1,0)", "ALSA", False), ("headset", "MME", False)],
)
def test_a_device_of_a_sound_server_is_missed_although_something_plays(
    machine: Machine, there: list[SoundDevice], name: str, host_api: str, watched: bool
) -> None:
    machine.has(((name, 1, 0),), host_api=host_api)
    lookout = machine.opens("headset").lookout

    assert (lookout is not None) == watched
    if watched:
        there.extend(listed("headset", host_api=host_api))
        assert [lookout.reason() for _ in range(3)] == ["", "", ""]
        there.clear()
        assert [bool(lookout.reason()) for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("what", ["list_devices", "why_not_open"])
def test_a_device_is_not_missed_because_a_busy_machine_does_not_answer(
    machine: Machine, there: list[SoundDevice], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    machine.has((("headset", 1, 0),), host_api="ALSA")
    watcher = machine.opens("headset").lookout
    there.extend(listed("headset"))
    assert watcher.reason() == ""

    def does_not_answer(*_: object) -> None:
        raise SoundSystemStuckError("input", "PortAudio did not answer in 3 s")

    monkeypatch.setattr(lookout, what, does_not_answer)

    assert [watcher.reason() for _ in range(3)] == ["", "", ""]
    assert Lookout("headset", "input", None, None).look() is None


def test_a_device_that_only_one_program_can_open_is_never_missed(
    machine: Machine, there: list[SoundDevice]
) -> None:
    machine.has((("front", 1, 0),), host_api="ALSA")
    lookout = machine.opens("front").lookout

    assert [lookout.reason() for _ in range(5)] == [""] * 5


def test_a_lookout_calls_once_and_not_after_it_was_closed(
    there: list[SoundDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_SOON_S", ())
    monkeypatch.setattr(lookout, "_OFTEN_S", 0.01)
    found: list[str] = []
    called = threading.Event()

    def note(name: str) -> None:
        found.append(name)
        called.set()

    watcher = Lookout("headset", "input", None, None)
    watcher.start(note)
    watcher.close()
    watcher.start(note)
    there.extend(listed("headset"))

    assert called.wait(10)
    assert found == ["the device 'headset' is there"]


def test_a_device_is_looked_for_soon_then_often_then_seldom() -> None:
    pauses = Lookout("headset", "input", None, None, at_once=True)._pauses()
    seldom = Lookout("default", "input", None, None, seldom=True)._pauses()

    taken = [next(pauses) for _ in range(40)]

    assert taken[:4] == [0.0, 0.5, 1.0, 2.0]
    assert sum(wait_s == 2.0 for wait_s in taken) == 30
    assert taken[-1] == next(seldom) == 5.0
