"""Errors of devices; the text of each says what to do."""

from __future__ import annotations

import os
from pathlib import Path

from messages import UserError
from messages.hints import install, rtvoice
from messages.paths import path_of_text

__all__ = [
    "DeviceBusyError",
    "DeviceError",
    "DeviceLostError",
    "DeviceOpenError",
    "DeviceRateError",
    "FileFormatError",
    "HeaderlessFileError",
    "NoSuchDeviceError",
    "NoSuchFileError",
    "OtherFormatError",
    "SoundLibraryError",
    "SoundSystemStuckError",
    "UnreadableFileError",
    "UnwritableFileError",
]

_NODES = Path("/dev/snd")
"""Folder of the sound devices on Linux."""


class DeviceError(UserError):
    """Raised for an input or output device that cannot be used; the text says what to do."""

    reason: str = ""
    """The fault as a short phrase, for use inside another sentence."""


class NoSuchDeviceError(DeviceError):
    """No sound device has this name or index; ``names`` lists the devices that are there."""

    def __init__(self, wanted: str, direction: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(wanted, direction, names)
        self.wanted, self.direction, self.names = wanted, direction, names
        self.reason = "it is not there"
        if wanted == "default":
            self.reason = f"there is no {direction} device on this machine"

    def __str__(self) -> str:
        what = self.reason
        if self.wanted != "default":
            wanted = path_of_text(self.wanted)
            what = f"no {self.direction} device is named {wanted!r} or has that index"
        if self.names:
            return f"{what}; there are: {', '.join(self.names)}"
        return f"{what}. {_forbidden()}{_without_sound_card(self.direction)}"


class DeviceOpenError(DeviceError):
    """A sound device that is there but does not open: it is busy, forbidden or broken."""

    def __init__(self, device: str, direction: str, reason: str) -> None:
        super().__init__(device, direction, reason)
        self.device, self.direction, self.reason = device, direction, reason

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} does not open: {self.reason}. Perhaps "
            f"another program is using it, or this program may not. {_forbidden()}Otherwise choose "
            f"another {self.direction} device ({_list()})"
        )


class DeviceBusyError(DeviceOpenError):
    """A sound device that another program uses exclusively."""

    def __init__(self, device: str, direction: str) -> None:
        super().__init__(device, direction, "it is in use by another program")

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} is in use by another program: end that, "
            f"or choose another {self.direction} device ({_list()})"
        )


class DeviceRateError(DeviceOpenError):
    """A sound device that supports none of the sample rates ``rates``, in Hz."""

    def __init__(self, device: str, direction: str, rates: tuple[int, ...]) -> None:
        tried = " nor ".join(f"{rate / 1000:g}" for rate in rates)
        super().__init__(device, direction, f"it supports neither {tried} kHz")
        self.rates = rates

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} does not open: {self.reason}; set "
            f"another rate in the sound settings of the system, or choose another device "
            f"({_list()})"
        )


class DeviceLostError(DeviceError):
    """A device that worked and then stopped: it was unplugged, or its sound server ended."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(device, reason)
        self.device, self.reason = device, reason

    def __str__(self) -> str:
        return f"the sound device {self.device!r} is lost: {self.reason}"


class SoundLibraryError(DeviceError):
    """PyAudio or PortAudio is not installed, or does not work on this machine."""

    def __init__(self, direction: str, reason: str) -> None:
        super().__init__(direction, reason)
        self.direction, self.reason = direction, reason

    def __str__(self) -> str:
        return (
            f"no sound card can be used, because {self.reason}. To install what is needed: "
            f"{install('pyaudio')} (before it, on Linux apt-get install portaudio19-dev, on "
            f"macOS brew install portaudio). {_without_sound_card(self.direction)}"
        )


class SoundSystemStuckError(SoundLibraryError):
    """PortAudio does not answer, because the sound system hangs."""

    def __str__(self) -> str:
        return (
            f"no sound card can be used, because {self.reason}: the sound system hangs. Restart it "
            f"(on Linux systemctl --user restart pipewire pulseaudio, on macOS sudo killall "
            f"coreaudiod), or log in again. {_without_sound_card(self.direction)}"
        )


class NoSuchFileError(DeviceError):
    """An input file that is not there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no input file {str(self.path)!r}; check its name"


class FileFormatError(DeviceError):
    """An input file that is not a readable WAV file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{str(self.path)!r} {self.reason}; give a WAV file with samples of 8, 16, 24 or 32 "
            f"bits or floats (ffmpeg -i FILE out.wav makes one)"
        )


class OtherFormatError(FileFormatError):
    """A file that is not a plain WAV file; the package ``soundfile`` may be able to read it."""

    def __str__(self) -> str:
        return f"{super().__str__()}; {install('soundfile')} adds FLAC, Ogg, MP3 and more"


class HeaderlessFileError(FileFormatError):
    """A file of samples alone, by its name and its content: nothing says how to read them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "has no header")

    def __str__(self) -> str:
        return (
            f"{str(self.path)!r} has no header that gives its sample rate, its sample format and "
            f"its number of channels; give a WAV file. For 24 kHz, 16 bits, mono, sox -t raw "
            f"-r 24000 -e signed -b 16 -c 1 FILE out.wav makes one, or ffmpeg -f s16le -ar 24000 "
            f"-ac 1 -i FILE out.wav"
        )


class UnreadableFileError(DeviceError):
    """An input file that is there but cannot be opened."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot read {str(self.path)!r}: {self.reason}"


class UnwritableFileError(DeviceError):
    """An output file that cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot write to {str(self.path)!r}: {self.reason}"


def _list() -> str:
    return f"{rtvoice('--list-devices')} shows them"


def _forbidden() -> str:
    """Return a sentence if this user lacks permission for sound devices, which Linux shows."""
    nodes = [node for node in _NODES.glob("pcm*") if not os.access(node, os.R_OK | os.W_OK)]
    if not nodes:
        return ""
    return (
        f"This user may not use the sound devices in {_NODES}: add it to the group audio "
        f"(sudo usermod -aG audio $USER) and log in again. "
    )


def _without_sound_card(direction: str) -> str:
    other = "silence" if direction == "input" else "null"
    return f"Without a sound card use {other!r} or a WAV file as {direction}"
