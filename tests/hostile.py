"""Components that harm whoever trusts them, for tests of the supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from actors.base import Actor
from messages import CONTROL, DeadLetter, SetVolume
from tests.tiny import Echo


class Watchdog(Actor):
    """Wants to know of dead letters, and is opened once."""

    accepts: ClassVar = {DeadLetter: CONTROL, SetVolume: CONTROL}

    def opened(self) -> None:
        if not self.session.first:
            raise OSError("never again")


class DescribesAList(Echo):
    """Describes itself with what is no mapping."""

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        return ["speed", 1.0]  # type: ignore[return-value]
