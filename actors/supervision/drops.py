"""Reports what a full mailbox drops, at most once a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.supervision.tags import type_name
from messages import Message, MessagesDropped
from messages.transport.mailbox import Dropped

__all__ = ["DROPS_S", "DropReport"]

DROPS_S = 1.0
"""Minimum time between two reports."""


class DropReport:
    """Publishes what the mailbox of one component has dropped since the last report."""

    def __init__(self, name: str, publish: Callable[[Message], None]) -> None:
        self._name = name
        self._publish = publish
        self._published: dict[int, Dropped] = {}
        self._published_at = 0.0

    def publish_new(self, now: float, lost: Mapping[int, Dropped]) -> None:
        """Publish what was dropped since the last report, if that is long enough ago.

        Args:
            now: Seconds of `time.monotonic`; infinite for the last report.
            lost: Everything dropped since the start, by tag.
        """
        if now - self._published_at < DROPS_S:
            return
        self._published_at = now
        for tag, dropped in lost.items():
            before = self._published.get(tag, Dropped())
            if dropped.count > before.count:
                self._published[tag] = Dropped(dropped.count, dropped.audio_bytes)
                self._publish(
                    MessagesDropped(
                        self._name,
                        type_name(tag),
                        dropped.count - before.count,
                        dropped.audio_ms - before.audio_ms,
                    )
                )
