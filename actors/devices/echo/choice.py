"""Decides whether we cancel the echo of the loudspeaker; imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec

from messages import Settings, UserError
from messages.hints import install

__all__ = [
    "MISSING",
    "NoEngineError",
    "cancels_itself",
    "is_headset",
    "why_not",
    "why_not_with",
]

_HEADSETS = ("headset", "headphone", "earphone", "earbud", "airpods", "hands-free", "handsfree")
_CANCELLERS = (
    *("echo-cancel", "echo cancel", "echocancel", "echo_cancel", "echo-reduc"),
    *("(aec)", "aec ", " aec", "krisp", "communications", "noise suppression and echo"),
)
"""What devices are named that cancel echo themselves: those of PulseAudio and PipeWire, Krisp, the
communications devices of Windows."""
MISSING = "pywebrtc-audio is not installed: "
"""The reason where the package is missing; the command that installs it follows."""


class NoEngineError(UserError):
    """Echo cancelling is demanded, and the package for it is not installed."""

    def __str__(self) -> str:
        return f"echo_cancelling is on, but {_missing()}"


def is_headset(device: str) -> bool:
    """Return whether a device is a headset, by its name: a microphone does not hear it play."""
    name = device.casefold()
    return any(kind in name for kind in _HEADSETS)


def cancels_itself(device: str) -> bool:
    """Return whether a device cancels echo itself, by its name."""
    name = f"{device.casefold()} "
    return any(kind in name for kind in _CANCELLERS)


def why_not(settings: Settings, microphone: str, *, cards: bool) -> str:
    """Return why the microphone's process cannot cancel echo; empty: it can.

    Args:
        settings: The settings of the session.
        microphone: Name of the microphone.
        cards: Whether the microphone is a sound card, and the loudspeaker is or may become one.

    Raises:
        NoEngineError: The settings demand it, and the package is not installed.
    """
    if settings.echo_cancelling == "off":
        return "it is switched off"
    if not cards:
        return "microphone and loudspeaker are not both sound cards"
    if why := why_not_with(settings, microphone):
        return why
    if find_spec("pywebrtc_audio") is None:
        if settings.echo_cancelling == "on":
            raise NoEngineError
        return _missing()
    return ""


def why_not_with(settings: Settings, device: str) -> str:
    """Return why echo is not cancelled with a device, by its name; empty: it is."""
    if settings.echo_cancelling == "on":
        return ""
    if is_headset(device):
        return f"{device} is a headset"
    if cancels_itself(device):
        return f"{device} cancels echo itself"
    return ""


def _missing() -> str:
    return f"{MISSING}{install('pywebrtc-audio')}"
