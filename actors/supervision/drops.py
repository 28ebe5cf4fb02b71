"""Telling what a full mailbox drops, in one message a second at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.supervision.tags import type_name
from messages import Message, MessagesDropped
from messages.transport.mailbox import Dropped

__all__ = ["DROPS_S", "DropReport"]

DROPS_S = 1.0
"""How often it is told at most that a mailbox drops messages."""


class DropReport:
    """What of the drops of one component has been told."""

    def __init__(self, name: str, publish: Callable[[Message], None]) -> None:
        self._name = name
        self._publish = publish
        self._told: dict[int, Dropped] = {}
        self._told_at = 0.0

    def tell(self, now: float, lost: Mapping[int, Dropped]) -> None:
        """Tell what was dropped since the last time.

        Args:
            now: In seconds of `time.monotonic`; infinite: for the last time.
            lost: All that was dropped so far, by tag.
        """
        if now - self._told_at < DROPS_S:
            return
        self._told_at = now
        for tag, dropped in lost.items():
            before = self._told.get(tag, Dropped())
            if dropped.count > before.count:
                self._told[tag] = Dropped(dropped.count, dropped.audio_bytes)
                self._publish(
                    MessagesDropped(
                        self._name,
                        type_name(tag),
                        dropped.count - before.count,
                        dropped.audio_ms - before.audio_ms,
                    )
                )
