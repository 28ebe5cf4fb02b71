"""Where echo is cancelled: by the names of the devices, the setting and the package."""

from __future__ import annotations

import importlib.util
import re

import pytest

from actors.devices.echo import choice
from messages import Settings
from messages.hints import install


@pytest.fixture
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: importlib.util.find_spec("json"))


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize(
    ("microphone", "why"),
    [
        ("MacBook Pro Microphone", ""),
        ("HDA Intel PCH: ALC257 Analog (hw:0,0)", ""),
        ("AirPods of Ada", "AirPods of Ada is a headset"),
        ("Echo-Cancel Source", "Echo-Cancel Source cancels echo itself"),
        ("Krisp Microphone", "Krisp Microphone cancels echo itself"),
        ("Default Communications Device", "Default Communications Device cancels echo itself"),
        ("Built-in (AEC)", "Built-in (AEC) cancels echo itself"),
        ("Kinect USB Audio", ""),
    ],
)
def test_auto_goes_by_the_names_of_devices_and_on_does_not(microphone: str, why: str) -> None:
    assert choice.why_not(Settings(), microphone, cards=True) == why
    assert choice.why_not(Settings(echo_cancelling="on"), microphone, cards=True) == ""


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("setting", ["auto", "on"])
def test_nothing_but_sound_cards_has_an_echo(setting: str) -> None:
    why = choice.why_not(Settings(echo_cancelling=setting), "silence", cards=False)

    assert why == "microphone and loudspeaker are not both sound cards"


def test_without_the_package_it_is_off_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)

    how = f"pywebrtc-audio is not installed: {install('pywebrtc-audio')}"
    assert choice.why_not(Settings(), "Built-in", cards=True) == how
    with pytest.raises(choice.NoEngineError, match=re.escape(f"is on, but {how}")):
        choice.why_not(Settings(echo_cancelling="on"), "Built-in", cards=True)
    assert choice.why_not(Settings(echo_cancelling="off"), "Built-in", cards=True)
