"""Devices given by name: loaded where they are used, refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.devices.opening import is_file, is_name, open_capture, open_playback
from actors.devices.own.named import NamedDeviceError
from actors.devices.silence import NullPlayback, SilenceCapture
from messages import SessionInfo, Settings

SESSION = SessionInfo(epoch_ns=0, directory="")
DEVICES = """
from actors.devices.silence import NullPlayback, SilenceCapture


class Mine(SilenceCapture):
    def __init__(self):
        super().__init__(960)


speaker = NullPlayback()
number = 7
"""


@pytest.fixture
def devices(tmp_path: Path) -> str:
    path = tmp_path / "my_devices.py"
    path.write_text(DEVICES, encoding="utf-8")
    return str(path)


def test_a_class_in_a_file_is_a_microphone(devices: str) -> None:
    capture = open_capture(Settings(input=f"{devices}:Mine"), SESSION)

    assert isinstance(capture, SilenceCapture)
    assert type(capture).__name__ == "Mine"


def test_an_object_in_a_file_is_a_loudspeaker(devices: str) -> None:
    assert isinstance(open_playback(Settings(output=f"{devices}:speaker"), SESSION), NullPlayback)


def test_an_object_in_a_module_is_found() -> None:
    name = "actors.devices.silence:NullPlayback"

    assert isinstance(open_playback(Settings(output=name), SESSION), NullPlayback)


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ("number", "it is of type int and has no start and no stop and no stream_chunks"),
        ("nobody", "nobody"),
    ],
)
def test_what_is_no_device_is_refused_by_name(devices: str, attribute: str, told: str) -> None:
    with pytest.raises(NamedDeviceError) as caught:
        open_capture(Settings(input=f"{devices}:{attribute}"), SESSION)

    assert attribute in str(caught.value)
    assert told in str(caught.value)


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(NamedDeviceError, match=r"none\.py"):
        open_capture(Settings(input="none.py:Mine"), SESSION)


@pytest.mark.parametrize("name", ["default", "3", "USB: Microphone", "C:\\talk.wav", "hw:0,0"])
def test_names_of_cards_and_files_are_no_names_of_code(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["mine.py:Mine", "sub/mine.py:Mine", "package.mine:Mine"])
def test_names_of_code_are_no_files(name: str) -> None:
    assert is_name(name)
    assert not is_file(name)
