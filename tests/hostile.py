"""Components that harm whoever trusts them, for tests of the supervisor."""

from __future__ import annotations

from typing import ClassVar

from actors.base import Actor
from messages import CONTROL, DeadLetter, SetVolume


class Watchdog(Actor):
    """Wants to know of dead letters, and is opened once."""

    accepts: ClassVar = {DeadLetter: CONTROL, SetVolume: CONTROL}

    def opened(self) -> None:
        if not self.session.first:
            raise OSError("never again")
