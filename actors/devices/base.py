"""The two interfaces that every device has: `Capture` and `Playback`."""

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
"""What a device has that a user writes (`actors.devices.own.hosted`)."""


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
