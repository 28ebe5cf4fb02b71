"""``--list-devices``."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from actors.devices.card.listing import SoundDevice
from actors.devices.errors import SoundLibraryError
from rtvoice.command import cli, listing

DEVICES = [
    SoundDevice(0, "Microphone", "ALSA", 2, 0, 48_000, True, False, (44_100, 48_000), ()),
    SoundDevice(1, "USB\nHeadset", "ALSA", 1, 2, 48_000, False, True, (16_000,), (48_000,)),
    SoundDevice(10, "In use", "JACK", 2, 2, 48_000),
    SoundDevice(11, "Monitor", "JACK", 2, 2, 48_000, input_rates=(48_000,)),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, devices: Any, out: Any = None, **how: Any) -> str:
    def look(*, rates: bool) -> Any:
        assert rates
        if isinstance(devices, Exception):
            raise devices
        return devices

    monkeypatch.setattr(listing, "list_devices", look)
    out = out or io.StringIO()
    assert listing.print_devices(out, **how) == 0
    return str(out.getvalue())


def test_the_devices_are_aligned_text_where_it_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, DEVICES).splitlines()

    assert lines[:5] == [
        "    name         host API  in  out  default  rates in kHz",
        " 0  Microphone   ALSA       2    -  in       44.1 48",
        " 1  USB Headset  ALSA       1    2  out      in: 16; out: 48",
        "10  In use       JACK       2    2           none: it is in use, or is not plugged in",
        "11  Monitor      JACK       2    2           in: 48; out: none",
    ]
    assert "--input and --output, or RTVOICE_INPUT and RTVOICE_OUTPUT" in lines[-1]


def test_a_terminal_gets_a_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, DEVICES, Terminal()).startswith("\x1b[1m    name")


def test_programs_get_json(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = json.loads(shown(monkeypatch, DEVICES, as_json=True))

    assert first["name"] == "Microphone"
    assert first["default_input"] is True
    assert first["input_rates"] == [44_100, 48_000]
    assert json.loads(shown(monkeypatch, [], as_json=True)) == []


def test_without_devices_the_alternatives_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, [])

    assert "no sound devices on this machine" in text
    assert "--input silence" in text


def test_without_pyaudio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(*, rates: bool) -> None:
        raise SoundLibraryError("input", "PyAudio is not installed")

    monkeypatch.setattr(listing, "list_devices", look)

    assert cli.run(["--list-devices"]) == 2
    said = capsys.readouterr()
    assert "PyAudio is not installed" in said.err
    assert "apt-get install portaudio19-dev" in said.err
    assert said.out == ""
