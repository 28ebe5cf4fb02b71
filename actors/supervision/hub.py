"""The interface through which supervised processes call the hub, without importing it."""

from __future__ import annotations

import enum
from typing import Protocol

from messages import Message, Settings
from messages.transport.loop import Loop

__all__ = ["Hub", "SessionStage"]


class SessionStage(enum.Enum):
    """How far a session is."""

    STARTING = enum.auto()
    """Not every component has been opened yet."""
    RUNNING = enum.auto()
    ENDING = enum.auto()
    CANCELLED = enum.auto()
    """It ends before every component was opened."""

    @property
    def is_last(self) -> bool:
        """Whether the session ends."""
        return self in (SessionStage.ENDING, SessionStage.CANCELLED)


class Hub(Protocol):
    """What a component's process and the sandbox's process need of the hub."""

    loop: Loop
    settings: Settings
    stage: SessionStage

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment of its process."""

    def open_next(self) -> None:
        """Open the next component, if everything that it needs is there."""

    def start_failed(self, name: str, error: str, trace: str) -> None:
        """End a session that has not started, with the reason."""

    def publish(self, message: Message) -> None:
        """Deliver a message to everyone who accepts its type."""

    def log(self, name: str, level: str, text: str) -> None:
        """Log a line on behalf of a process."""
