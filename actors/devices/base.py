"""The interfaces of audio devices: `Capture` for input and `Playback` for output."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from messages import Message

if TYPE_CHECKING:
    from actors.devices.card.lookout import Lookout
    from actors.devices.playout import Playout

__all__ = ["INPUT_METHODS", "OUTPUT_METHODS", "Capture", "Captured", "Playback"]

INPUT_METHODS = ("start", "stop", "stream_chunks")
OUTPUT_METHODS = ("start", "stop", "play_chunk", "clear_buffer")
"""Methods that a device written by a user must have; see `actors.devices.own.hosted`."""


def _nothing() -> None:
    pass


class Captured(NamedTuple):
    """One block that a capture device delivers."""

    pcm: bytes
    """int16 little-endian mono, 24 kHz; all blocks of a device have the same length."""
    first_ns: int
    """``time.monotonic_ns()`` at which the first sample was recorded; an estimate of the device."""
    captured_ns: int
    """``time.monotonic_ns()`` at which the device delivered the last sample."""
    position: int = 0
    """Samples delivered so far from a file, this block included; 0 for other devices."""
    used: int = -1
    """In the last block of an input that ends: samples before its padding. Else -1."""
    lost: bool = False
    """Whether the device dropped audio before this block."""


class Capture(abc.ABC):
    """An open input device, made by `open_capture`; delivers nothing before `start`."""

    name: str = "input"
    card: ClassVar[bool] = False
    """True for a sound card: its microphone picks up the loudspeaker's sound (echo)."""
    check_s: ClassVar[float | None] = None
    """Interval of calls of `check`, in seconds; None: the device cannot be lost."""
    jump_ns: ClassVar[int] = 250_000_000
    """Lag of the blocks behind the clock that counts as a gap in the audio."""
    jump_loses: ClassVar[bool] = False
    """True: what was said during a gap is lost; False: the device was only paused."""
    stands_in_because: str = ""
    """Why the session started without a real device, which ``auto`` permits; empty: it did not."""
    news: tuple[Message, ...] = ()
    """Messages to send once it is open."""
    lookout: Lookout | None = None
    """Monitor that reports when a better device should be opened; None: none is wanted."""
    note_loss: Callable[[], None] = staticmethod(_nothing)
    """Records that the device was lost, so that the next one is reported even if it is the same."""
    trouble: str = ""
    """A fault with which the device goes on, as a sentence without full stop; empty: none."""

    @abc.abstractmethod
    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        """Begin to deliver blocks, on a thread of the device or in `pump`.

        Args:
            deliver: Called with each block.
            failed: Called if the device's thread ends with an error.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and release the device. Calling it twice is harmless."""

    def check(self, now_ns: int) -> None:  # noqa: B027 - most devices are never lost
        """Check that the device still works.

        Raises:
            DeviceLostError: If the device is lost; open a new one.
        """

    def note_cancelled(self) -> None:
        """Set `trouble`: the channels of the device cancel each other out."""
        self.trouble = (
            f"the channels of {self.name!r} cancel each other out, as if one were inverted: only "
            f"the loudest is used"
        )

    def faltered(self) -> int:
        """Return the number of overruns since the last call."""
        return 0

    def pump(self, now_ns: int) -> float | None:
        """Do the work of a device without a thread.

        Returns:
            Seconds until the next call; None: no call is needed.
        """
        return None


class Playback(abc.ABC):
    """An open output device, made by `open_playback`; pulls from a `Playout` once started."""

    name: str = "output"
    card: ClassVar[bool] = False
    """True for a sound card: a microphone in the room picks up its sound (echo)."""
    check_s: ClassVar[float | None] = None
    """Interval of calls of `check`, in seconds; None: the device cannot be lost."""
    prefill_ms: ClassVar[int] = 0
    """Prefill: audio buffered before an item starts, against underruns."""
    clears: ClassVar[bool] = False
    """True: `clear` discards audio that the device has taken and not played yet."""
    loses: ClassVar[bool] = False
    """Whether the death of this process loses audio that the device has taken and not played."""
    holds: ClassVar[bool] = False
    """Whether this is a stand-in that takes no audio until a real device is there."""
    scales: bool = False
    """Whether the device applies the volume; the playout then delivers audio at full volume."""
    trouble: str = ""
    """A fault with which the device goes on, as a phrase; empty: none."""
    stands_in_because: str = ""
    """Why the session started without a real device, which ``auto`` permits; empty: it did not."""
    news: tuple[Message, ...] = ()
    """Messages to send once it is open."""
    lookout: Lookout | None = None
    """Monitor that reports when a better device should be opened; None: none is wanted."""
    note_loss: Callable[[], None] = staticmethod(_nothing)
    """Records that the device was lost, so that the next one is reported even if it is the same."""
    writes: Path | None = None
    """The file that it writes; None: it writes none."""

    @abc.abstractmethod
    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        """Begin to take audio, on a thread of the device or in `pump`.

        Args:
            playout: The queue to take it from.
            failed: Called if the device's thread ends with an error.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop and release the device. Calling it twice is harmless."""

    def check(self, now_ns: int) -> None:  # noqa: B027 - most devices are never lost
        """Check that the device still works.

        Raises:
            DeviceLostError: If the device is lost; open a new one.
        """

    def faltered(self) -> int:
        """Return the number of underruns during playback since the last call."""
        return 0

    def heard_until(self, now_ns: int) -> int:
        """Return the time up to which all audio that was due has been played; usually now."""
        return now_ns

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        """Do the work of a device without a thread.

        Returns:
            The messages to send, and the seconds until the next call (None: call it when there is
            new audio).
        """
        return [], None

    def catch_up(self, now_ns: int) -> None:  # noqa: B027 - most devices are never behind
        """Take the audio that was due until now, if the device takes it later than it is due."""

    def clear(self, now_ns: int) -> list[Message]:
        """Begin to discard audio that was taken but not played, if `clears`.

        While `clearing` is true, the device takes nothing, and `heard_until` is an estimate; then
        call `flush`.

        Returns:
            The messages to send.
        """
        return []

    @property
    def clearing(self) -> bool:
        """Whether the device has not said yet where it had stopped when it was cleared."""
        return False

    @property
    def overheard(self) -> int:
        """Samples that `heard_until` has counted as heard too early, known after `clear`."""
        return 0

    def flush(self, now_ns: int) -> list[Message]:
        """Discard audio that was taken but not played, if `clears`; return the messages to send.

        It also ends a `clear` that has no answer.
        """
        return []

    def last_played(self, samples: int) -> tuple[int, bytes] | None:
        """Return the last audio that was played before this process started.

        Args:
            samples: At most this many samples.

        Returns:
            Its first sample on the timeline and the audio; None if unknown.
        """
        return None

    def set_volume(self, volume: float) -> list[Message]:
        """Change the volume, 0.0-1.0, if it `scales`; return the messages to send."""
        return []
