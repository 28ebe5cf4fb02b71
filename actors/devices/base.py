"""What every device has in common: its two interfaces, its errors, and how one is chosen."""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from actors.files import path_of, same_file
from messages import PCM_BYTES_PER_MS, SAMPLE_RATE, Message, SessionInfo, Settings, UserError

if TYPE_CHECKING:
    from actors.devices.card import Lookout
    from actors.devices.playout import Playout

__all__ = [
    "INPUT_METHODS",
    "OUTPUT_METHODS",
    "Capture",
    "Captured",
    "DeviceBusyError",
    "DeviceError",
    "DeviceLostError",
    "DeviceOpenError",
    "DeviceRateError",
    "FileFormatError",
    "NoSuchDeviceError",
    "NoSuchFileError",
    "OtherFormatError",
    "Playback",
    "SoundLibraryError",
    "SoundSystemStuckError",
    "UnreadableFileError",
    "UnwritableFileError",
    "block_samples",
    "is_file",
    "is_name",
    "open_capture",
    "open_playback",
    "refuse_as_output",
    "to_ns",
    "to_samples",
]

INPUT_METHODS = ("start", "stop", "stream_chunks")
OUTPUT_METHODS = ("start", "stop", "play_chunk", "clear_buffer")
"""What a device has that a user writes (`actors.devices.hosted`)."""

_NS_PER_S = 1_000_000_000
_BLOCK_MS = (10, 100)
_NODES = Path("/dev/snd")
"""Where Linux has the sound devices."""
_LIST = "python -m supervisor --list-devices shows them"


def to_samples(ns: int) -> int:
    """Return how many samples fit into so much time, rounded."""
    return (ns * SAMPLE_RATE + _NS_PER_S // 2) // _NS_PER_S


def to_ns(samples: int) -> int:
    """Return how long so many samples last, in nanoseconds."""
    return samples * _NS_PER_S // SAMPLE_RATE


def block_samples(settings: Settings) -> int:
    """Return the length of a captured block."""
    shortest, longest = _BLOCK_MS
    return min(max(settings.block_ms, shortest), longest) * PCM_BYTES_PER_MS // 2


# -- errors ---------------------------------------------------------------------------------------


class DeviceError(UserError):
    """A microphone or a speaker that cannot be used; its sentence says what to do."""

    reason: str = ""
    """What is wrong, in a phrase."""


class NoSuchDeviceError(DeviceError):
    """No sound device has this name or index. ``names`` are those that there are."""

    def __init__(self, wanted: str, direction: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(wanted, direction, names)
        self.wanted, self.direction, self.names = wanted, direction, names
        self.reason = "it is not there"
        if wanted == "default":
            self.reason = f"there is no {direction} device on this machine"

    def __str__(self) -> str:
        what = self.reason
        if self.wanted != "default":
            what = f"no {self.direction} device is named {self.wanted!r} or has that index"
        if self.names:
            return f"{what}; there are: {', '.join(self.names)}"
        return f"{what}. {_forbidden()}{_without_sound_card(self.direction)}"


class DeviceOpenError(DeviceError):
    """A sound device that is there and does not open: busy, refused, broken."""

    def __init__(self, device: str, direction: str, reason: str) -> None:
        super().__init__(device, direction, reason)
        self.device, self.direction, self.reason = device, direction, reason

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} does not open: {self.reason}; is another "
            f"program using it, and may this one? {_forbidden()}Otherwise choose another "
            f"{self.direction} device ({_LIST})"
        )


class DeviceBusyError(DeviceOpenError):
    """A sound device that another program has for itself."""

    def __init__(self, device: str, direction: str) -> None:
        super().__init__(device, direction, "it is in use by another program")

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} is in use by another program: end that, "
            f"or choose another {self.direction} device ({_LIST})"
        )


class DeviceRateError(DeviceOpenError):
    """A sound device that takes no sample rate that it was offered."""

    def __init__(self, device: str, direction: str, rates: tuple[int, ...]) -> None:
        tried = " nor ".join(f"{rate / 1000:g}" for rate in rates)
        super().__init__(device, direction, f"it takes neither {tried} kHz")
        self.rates = rates

    def __str__(self) -> str:
        return (
            f"the {self.direction} device {self.device!r} does not open: {self.reason}; set "
            f"another rate in the sound settings of the system, or choose another device ({_LIST})"
        )


class DeviceLostError(DeviceError):
    """A device that worked and delivers or takes nothing any more: unplugged, server gone."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(device, reason)
        self.device, self.reason = device, reason

    def __str__(self) -> str:
        return f"the sound device {self.device!r} is lost: {self.reason}"


class SoundLibraryError(DeviceError):
    """PyAudio or PortAudio is not there, or does not work on this machine."""

    def __init__(self, direction: str, reason: str) -> None:
        super().__init__(direction, reason)
        self.direction, self.reason = direction, reason

    def __str__(self) -> str:
        return (
            f"no sound card can be used, because {self.reason}. To install what is needed: "
            f"pip install pyaudio, on Linux after apt-get install portaudio19-dev, on "
            f"macOS after brew install portaudio. {_without_sound_card(self.direction)}"
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
        return f"there is no input file {str(self.path)!r}; is its name right?"


class FileFormatError(DeviceError):
    """A file that is not the WAV file it should be."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{str(self.path)!r} {self.reason}; give a WAV file with samples of 8, 16, 24 or 32 "
            f"bits or floats (ffmpeg -i FILE out.wav makes one)"
        )


class OtherFormatError(FileFormatError):
    """A file that is no plain WAV file, and might be read if ``soundfile`` were installed."""

    def __str__(self) -> str:
        return f"{super().__str__()}; pip install soundfile adds FLAC, Ogg, MP3 and more"


class UnreadableFileError(DeviceError):
    """A file that is there and cannot be opened."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot read {str(self.path)!r}: {self.reason}"


class UnwritableFileError(DeviceError):
    """A file to which nothing can be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot write to {str(self.path)!r}: {self.reason}"


def _forbidden() -> str:
    """Return a sentence if this user may not use the devices that there are; where one can see."""
    nodes = [node for node in _NODES.glob("pcm*") if not os.access(node, os.R_OK | os.W_OK)]
    if not nodes:
        return ""
    return (
        f"This user may not use the sound devices in {_NODES}: add it to the group audio "
        f"(sudo usermod -aG audio $USER) and log in anew. "
    )


def _without_sound_card(direction: str) -> str:
    other = "silence" if direction == "input" else "null"
    return f"Without a sound card use {other!r} or a WAV file as {direction}"


# -- interfaces -----------------------------------------------------------------------------------


class Captured(NamedTuple):
    """One block that a capture device delivers."""

    pcm: bytes
    """int16 little-endian mono, 24 kHz, always of the same length."""
    first_ns: int
    """``time.monotonic_ns()`` at which its first sample was heard, as well as the device knows."""
    captured_ns: int
    """``time.monotonic_ns()`` at which the device had delivered its last sample."""
    position: int = 0
    """Of a file: how many samples have been delivered, this block included."""
    used: int = -1
    """Of the last block of an input that ends: how many samples are of the input. Else -1."""
    lost: bool = False
    """Whether something before this block is lost."""


class Capture(abc.ABC):
    """An open input device. Made by `open_capture`; delivers nothing before `start`."""

    name: str = "input"
    card: ClassVar[bool] = False
    """Whether it hears the room."""
    check_s: ClassVar[float | None] = None
    """How often `check` is to be called; None: it never fails."""
    jump_ns: ClassVar[int] = 250_000_000
    """How far its blocks may fall behind the clock before they are taken for later sound."""
    jump_loses: ClassVar[bool] = False
    """Whether something is lost when they do."""
    stands_in_because: str = ""
    """Why there is no device at all, since the session began; empty: there is one."""
    news: tuple[Message, ...] = ()
    """What is to be told of it once it is open."""
    lookout: Lookout | None = None
    """Finds a better device, if there can be one: then it is to be opened anew."""
    trouble: str = ""
    """A sentence about what is wrong with it and does not end it; empty: nothing is."""

    @abc.abstractmethod
    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        """Begin to deliver, on a thread of the device's own or in `pump`.

        Args:
            deliver: is called with each block.
            failed: is called if the device's thread ends with an error.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and release the device. Calling it twice is harmless."""

    def check(self, now_ns: int) -> None:  # noqa: B027 - most are never lost
        """Raise if the device is lost.

        Raises:
            DeviceLostError: open a new one.
        """

    def faltered(self) -> int:
        """Return how often it was not served in time since this was last asked."""
        return 0

    def pump(self, now_ns: int) -> float | None:
        """Do the work of a device without a thread; return in how many seconds to call again."""
        return None


class Playback(abc.ABC):
    """An open output device. Made by `open_playback`; takes from a `Playout` once started."""

    name: str = "output"
    card: ClassVar[bool] = False
    """Whether it is heard in the room."""
    check_s: ClassVar[float | None] = None
    """How often `check` is to be called; None: it never fails."""
    prefill_ms: ClassVar[int] = 0
    """How much audio should wait before an item starts, so that it does not falter."""
    clears: ClassVar[bool] = False
    """Whether a flush also takes back what the device was given and has not played."""
    loses: ClassVar[bool] = False
    """Whether what it has taken and not played is gone when this process dies."""
    holds: ClassVar[bool] = False
    """Whether it takes nothing for now: there is no device, and one is waited for."""
    scales: bool = False
    """Whether the device applies the volume itself, so that what it is given is at full volume."""
    trouble: str = ""
    """A sentence about what goes wrong without ending it; empty: nothing does."""
    stands_in_because: str = ""
    """Why there is no device at all, since the session began; empty: there is one."""
    news: tuple[Message, ...] = ()
    """What is to be told of it once it is open."""
    lookout: Lookout | None = None
    """Finds a better device, if there can be one: then it is to be opened anew."""
    writes: Path | None = None
    """The file it writes, if it does."""

    @abc.abstractmethod
    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        """Begin to take audio, on a thread of the device's own or in `pump`.

        Args:
            playout: to take it from.
            failed: is called if the device's thread ends with an error.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and release the device. Calling it twice is harmless."""

    def check(self, now_ns: int) -> None:  # noqa: B027 - most are never lost
        """Raise if the device is lost.

        Raises:
            DeviceLostError: open a new one.
        """

    def faltered(self) -> int:
        """Return how often it was not served in time while it played, since this was last asked."""
        return 0

    def heard_until(self, now_ns: int) -> int:
        """Return the moment up to which everything due has been played; usually now."""
        return now_ns

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        """Do the work of a device without a thread.

        Returns:
            What to send, and in how many seconds to call again (None: when there is new audio).
        """
        return [], None

    def flush(self, now_ns: int) -> list[Message]:
        """Forget what was taken and not played, if `clears`; return what to send."""
        return []

    def last_played(self, samples: int) -> tuple[int, bytes] | None:
        """Return the last that it has played before this process, and where on the timeline.

        None: it does not know.
        """
        return None

    def set_volume(self, volume: float) -> list[Message]:
        """Change the volume, 0.0-1.0, if it `scales`; return what to send."""
        return []


# -- choosing -------------------------------------------------------------------------------------

_NOTHING = ("silence", "null")
_NAME = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)")
_FILES = (".wav", ".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64")


def is_file(setting: str) -> bool:
    """Tell whether a device setting means a file: by its looks, or because there is one."""
    if setting.strip().lower() in (*_NOTHING, "program") or is_name(setting):
        return False
    separators = [mark for mark in (os.sep, os.altsep) if mark]
    looks_like_one = setting.lower().endswith(_FILES) or any(mark in setting for mark in separators)
    return looks_like_one or path_of(setting).is_file()


def is_name(setting: str) -> bool:
    """Tell whether a device setting is ``module:attr`` or ``file.py:attr``."""
    return _NAME.fullmatch(setting) is not None


def _no_matter(_: Exception) -> None:
    pass


def open_capture(
    settings: Settings,
    session: SessionInfo,
    position: int = 0,
    stuck: Callable[[Exception], None] = _no_matter,
) -> Capture:
    """Open the input device that ``settings.input`` names.

    Args:
        settings: of the session.
        session: of the session.
        position: where to go on in a file, in samples of 24 kHz.
        stuck: is called, on another thread, when a sound card does not answer.

    Raises:
        DeviceError: it cannot be opened.
    """
    wanted = settings.input.strip() or "default"
    block = block_samples(settings)
    if wanted.lower() in _NOTHING:
        from actors.devices.silence import SilenceCapture

        return SilenceCapture(block)
    if wanted.lower() == "program":
        from actors.devices.program import ProgramInput

        return ProgramInput(block, goes_on=not session.first)
    if is_name(wanted):
        from actors.devices.named import load_capture

        return load_capture(wanted, block)
    if is_file(wanted):
        from actors.devices.files import FileCapture

        return FileCapture(path_of(wanted), block, position)
    from actors.devices.card import Kind, open_card
    from actors.devices.portaudio import PortAudioCapture
    from actors.devices.silence import SilenceCapture

    kind = Kind[Capture](
        "input",
        lambda name, known: PortAudioCapture(name, block, known),
        lambda _: SilenceCapture(block),
    )
    return open_card(wanted, session, kind, stuck)


def open_playback(
    settings: Settings,
    session: SessionInfo,
    stuck: Callable[[Exception], None] = _no_matter,
) -> Playback:
    """Open the output device that ``settings.output`` names.

    Args:
        settings: of the session.
        session: of the session.
        stuck: is called, on another thread, when a sound card does not answer.

    Raises:
        DeviceError: it cannot be opened.
    """
    wanted = settings.output.strip() or "default"
    if wanted.lower() in _NOTHING:
        from actors.devices.silence import NullPlayback

        return NullPlayback()
    if wanted.lower() == "program":
        from actors.devices.program import ProgramOutput

        return ProgramOutput(settings.program_output_rate, scales=settings.program_output_scales)
    if is_name(wanted):
        from actors.devices.named import load_playback

        return load_playback(wanted)
    if is_file(wanted):
        from actors.devices.files import FilePlayback

        path = path_of(wanted)
        refuse_as_output(path, settings)
        return FilePlayback(path, session)
    from actors.devices.card import Kind, open_card
    from actors.devices.portaudio import PortAudioPlayback
    from actors.devices.silence import NoPlayback, NullPlayback

    kind = Kind[Playback](
        "output",
        PortAudioPlayback,
        lambda had_one: NoPlayback() if had_one else NullPlayback(),
    )
    return open_card(wanted, session, kind, stuck)


def refuse_as_output(path: Path, settings: Settings) -> None:
    """See that what the assistant says may be written into a file.

    Raises:
        UnwritableFileError: it may not.
    """
    if path.suffix.lower() != ".wav":
        raise UnwritableFileError(path, "it would be a WAV file; let its name end in .wav")
    if is_file(settings.input) and same_file(path, path_of(settings.input)):
        raise UnwritableFileError(path, "it is the input; choose another output")
