"""One conversation of a service: its place, its state and why it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Literal

from rtvoice.agent import Agent
from rtvoice.service.admission import Place
from rtvoice.service.logs import of_session

__all__ = ["Conversation", "State"]

State = Literal["waiting", "starting", "running", "lost", "ending"]

_REASONS = {
    "stop tool": "assistant",
    "inactivity timeout": "inactivity",
    "end of input": "end_of_input",
    "budget": "budget",
    "the program asked": "program",
    "the program was cancelled": "cancelled",
}
"""Values of the label ``reason`` for what a history says; the label has few values."""


class Conversation:
    """A conversation from its place to its end."""

    def __init__(self, place: Place, agent: Agent, id: str, kind: str) -> None:  # noqa: A002
        self.place = place
        self.agent = agent
        self.id = id
        self.kind = kind
        self.state: State = "waiting"
        self.since = time.monotonic()
        self.ended_by = ""
        """Why the service ends it, if need be before it has begun; empty: it does not."""
        self._ending: set[asyncio.Task[Any]] = set()

    @property
    def ended_because(self) -> str:
        """The value of the label ``reason``, after the end."""
        return self.ended_by or _REASONS.get(self.agent.history.ended_because, "other")

    def described(self) -> dict[str, object]:
        """Return what ``/sessions`` shows."""
        seconds = round(time.monotonic() - self.since, 1)
        return {"id": self.id, "kind": self.kind, "state": self.state, "seconds": seconds}

    def end(self, why: str) -> None:
        """End it in order, as soon as it has started; later calls do nothing."""
        if not self.ended_by:
            self.ended_by = why
            if self.state != "waiting":
                self.state = "ending"
                with of_session(self.id):
                    self._spawn(self.agent.stop())

    def _spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
