"""The list of sound devices, and the choice of one by a setting."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from actors.devices.card import listing
from actors.devices.card.listing import DeviceId, Found, SoundDevice, choose
from actors.devices.card.probe import answer
from actors.devices.errors import NoSuchDeviceError, SoundLibraryError, SoundSystemStuckError
from tests.actors.devices.card.fake_pyaudio import FakePyAudio
from tests.cards import real_card


def device(index: int, name: str, host_api: str = "ALSA", **more: Any) -> SoundDevice:
    return SoundDevice(index, name, host_api, 1, 2, 48_000, **more)


ON_WINDOWS = [
    device(0, "Sound Mapper", "MME", default_input=True),
    device(1, "Headset (Acme)", "MME"),
    device(2, "Headset (Acme)", "DirectSound"),
    device(3, "Headset (Acme)", "WASAPI"),
    device(4, "The headset's microphone", "MME"),
]


# -- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"), [("3", 3), ("headset", 1), ("Headset (Acme)", 1), ("microphone", 4)]
)
def test_an_index_goes_before_a_name_and_a_beginning_before_a_middle(
    wanted: str, found: int
) -> None:
    assert choose(ON_WINDOWS, wanted, "input").device.index == found


def test_of_several_host_apis_that_of_the_default_is_used_and_others_reported() -> None:
    at_last = [one for one in ON_WINDOWS if one.index != 0]
    at_last.append(device(5, "Built-in", "WASAPI", default_input=True))

    found = choose(at_last, "headset", "input")

    assert found.device.index == 3
    assert str(found) == (
        "took 3 'Headset (Acme)' (WASAPI), not 1 'Headset (Acme)' (MME), "
        "2 'Headset (Acme)' (DirectSound)"
    )


def test_of_several_names_the_default_is_taken() -> None:
    devices = [device(0, "USB a"), device(1, "USB b", default_output=True)]

    assert choose(devices, "usb", "output") == Found(devices[1], (devices[0],))


def test_an_input_is_no_output() -> None:
    devices = [SoundDevice(0, "Webcam", "ALSA", 1, 0, 48_000)]

    with pytest.raises(NoSuchDeviceError):
        choose(devices, "webcam", "output")


def test_a_device_that_was_chosen_by_its_index_is_found_at_another_one() -> None:
    before = [device(0, "Built-in"), device(1, "USB")]
    known = choose(before, "1", "input").device.id

    after = [device(0, "USB"), device(1, "Webcam"), device(2, "Built-in")]

    assert choose(after, "1", "input", known).device.index == 0


def test_an_index_is_no_other_device_once_its_own_has_gone() -> None:
    with pytest.raises(NoSuchDeviceError):
        choose([device(0, "Built-in"), device(1, "1st")], "1", "input", DeviceId("ALSA", "USB"))


def test_a_device_is_the_same_in_another_socket() -> None:
    known = DeviceId("ALSA", "USB Headset: Audio (hw:1,0)")
    devices = [device(0, "Webcam: Audio (hw:1,0)"), device(1, "USB Headset: Audio (hw:3,0)")]

    assert choose(devices, "7", "input", known).device.index == 1


def test_a_device_that_is_known_goes_before_others_of_the_same_name() -> None:
    assert choose(ON_WINDOWS, "headset", "input", ON_WINDOWS[2].id).device.index == 2


# -- the probe ------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePyAudio]:
    def install(**options: Any) -> FakePyAudio:
        module = FakePyAudio(**options)
        monkeypatch.setitem(sys.modules, "pyaudio", module)
        return module

    return install


def test_devices_are_listed(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()

    names = {one["name"]: one for one in answer({})}

    assert names["USB Headset"]["host_api"] == "Fake"
    assert [name for name, one in names.items() if one["default_input"]] == ["Built-in Microphone"]
    assert module.alive == 0


def test_the_rates_are_listed_that_a_device_takes(fake: Callable[..., FakePyAudio]) -> None:
    fake(refuse=lambda rate, channels: rate != 48_000)

    microphone = answer({"rates": True})[0]

    assert (microphone["input_rates"], microphone["output_rates"]) == ([48_000], [])


def test_a_device_is_tried_out(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    assert answer({"open": [2, "input", 48_000, 1]}) is None
    assert module.streams[0].closed

    fake(refuse=lambda rate, channels: True)
    assert "Invalid sample rate" in answer({"open": [2, "input", 48_000, 1]})


def test_the_lack_of_pyaudio_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)

    assert answer({}) == "PyAudio is not installed"


def test_without_pyaudio_there_is_no_sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "find_spec", lambda name: None)

    assert listing.sound_card_present() == (False, False)


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent/python"])
def test_a_probe_that_crashes_or_cannot_be_started_means_no_sound_card(
    monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(listing, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "executable", python)

    assert listing.sound_card_present() == (False, False)
    with pytest.raises(SoundLibraryError):
        listing.list_devices()


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyaudio")

    with pytest.raises(SoundSystemStuckError, match=r"did not answer in 0\.001 s") as caught:
        listing.list_devices(0.001)

    assert "Restart it" in str(caught.value)
    assert "install" not in str(caught.value)


@pytest.mark.card
@real_card
def test_the_virtual_card_is_found_and_its_devices_open() -> None:
    pytest.importorskip("pyaudio")

    devices = {one.name: one for one in listing.list_devices(rates=True)}

    assert listing.sound_card_present() == (True, True)
    assert {"mic", "speaker", "room"} <= devices.keys()
    assert {24_000, 48_000} <= {*devices["mic"].input_rates}
    assert listing.why_not_open(devices["mic"], "input") is None
    assert listing.why_not_open(devices["speaker"], "output") is None
