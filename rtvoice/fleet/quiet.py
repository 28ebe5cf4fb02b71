"""Whether a conversation is at a pause: nobody speaks, and nothing is being done."""

from __future__ import annotations

import asyncio
import time

from messages import (
    Connected,
    Disconnected,
    Interrupted,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    PlaybackStarted,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    SessionStarted,
    ToolAnswer,
    ToolCall,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice.agent import Agent
from rtvoice.view import View

__all__ = ["Quiet"]

_KINDS = (
    *(
        SessionStarted,
        Connected,
        Disconnected,
        Reconnected,
        UserItem,
        UserSpeechStarted,
        UserSpeechStopped,
    ),
    *(ResponseStarted, ResponseEnded, PlaybackStarted, PlaybackEnded, PlaybackPaused),
    *(PlaybackResumed, Interrupted, ToolCall, ToolAnswer),
)


class Quiet:
    """Watches a conversation for pauses.

    Args:
        agent: The agent, before its conversation begins.
    """

    def __init__(self, agent: Agent) -> None:
        self._view = View()
        self._news = asyncio.Event()
        bus = agent.event_bus
        self._subscriptions = [bus.subscribe(kind, self._take) for kind in _KINDS]

    def close(self) -> None:
        """Watch no longer; whoever waits goes on."""
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions = []
        self._news.set()

    @property
    def is_now(self) -> bool:
        """Whether there is a pause, or nothing is watched any more."""
        return not self._subscriptions or self._view.phase in ("listening", "muted")

    async def wait(self) -> None:
        """Wait for a pause, or for `close`."""
        while not self.is_now:
            self._news.clear()
            await self._news.wait()

    def _take(self, event: object) -> None:
        self._view.take(event, time.monotonic())  # type: ignore[arg-type]
        self._view.changes()
        self._news.set()
