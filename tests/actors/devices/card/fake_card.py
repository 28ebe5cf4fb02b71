"""Devices that are lost and found on command, for actors in the test's own process.

They are given by name (``tests.actors.devices.card.fake_card:capture``), as those of users are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.devices.base import Captured
from actors.devices.card.lookout import Lookout
from actors.devices.errors import DeviceLostError
from actors.devices.silence import NoPlayback, NullPlayback, SilenceCapture

__all__ = ["CAPTURE", "PLAYBACK", "WAITING", "FakeCapture", "FakePlayback", "made", "reset"]

CAPTURE = f"{__name__}:capture"
PLAYBACK = f"{__name__}:playback"
WAITING = f"{__name__}:waiting"
made: list[Any] = []
"""The devices that were opened, the newest last."""


def reset() -> None:
    """Forget what was opened."""
    made.clear()


class FakeLookout(Lookout):
    """Finds a device when it is told."""

    def __init__(self) -> None:
        self.find: Callable[[str], None]
        self.closed = False

    def start(self, found: Callable[[str], None]) -> None:
        self.find = found

    def close(self) -> None:
        self.closed = True


class _Fake:
    check_s = 0.01

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lost = ""
        """Why it is lost."""
        self.closed = False
        self.lookout = FakeLookout()
        made.append(self)

    def check(self, now_ns: int) -> None:
        if self.lost:
            raise DeviceLostError("fake", self.lost)

    def close(self) -> None:
        self.closed = True
        super().close()  # type: ignore[misc]


class FakeCapture(_Fake, SilenceCapture):
    """A microphone. ``sample`` is what it hears."""

    name = "fake"
    jump_loses = True
    sample = 0

    def _next(self, due: int) -> Captured:
        value = self.sample.to_bytes(2, "little", signed=True)
        return super()._next(due)._replace(pcm=value * self._block)


class FakePlayback(_Fake, NullPlayback):
    """A loudspeaker that dies with what it was given in the last ``late_ns``."""

    name = "fake"
    loses = True
    late_ns = 0

    def heard_until(self, now_ns: int) -> int:
        return now_ns - self.late_ns


class _Waiting(_Fake, NoPlayback):
    name = "null"


def capture() -> FakeCapture:
    """Open a microphone."""
    return FakeCapture(960)


def playback() -> FakePlayback:
    """Open a loudspeaker."""
    return FakePlayback()


def waiting() -> _Waiting:
    """Open the loudspeaker that is none, because one was lost."""
    return _Waiting()
