"""The actions that the core returns; the shell performs them in order."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.realtime.wire import ClientEvent
from messages import Message, ToolAnswer

__all__ = [
    "Action",
    "ConnectAfter",
    "Disconnect",
    "KeepOutput",
    "Publish",
    "SaveState",
    "SendEvent",
    "Swap",
    "WriteLog",
]


class SendEvent(msgspec.Struct):
    """Send an event to the server."""

    event: ClientEvent
    spare: bool = False
    """Whether to use the connection of the standby session; the same in the actions below."""


class Publish(msgspec.Struct):
    """Send a message to every component that accepts its type."""

    message: Message
    ahead: bool = False
    """Whether to send it as a datagram too, because its receiver waits for it; see
    `Actor.send_ahead`."""


class KeepOutput(msgspec.Struct):
    """Keep the answer to a call, as the one that counts, for the next process and history.

    It may have come straight, and to nobody else.
    """

    answer: ToolAnswer


class ConnectAfter(msgspec.Struct):
    """Connect to the server after a delay."""

    seconds: float
    reason: str
    """Why a connection is needed, for the log."""
    spare: bool = False


class Disconnect(msgspec.Struct):
    """Close the connection, and discard what still arrives from it."""

    reason: str
    spare: bool = False


class Swap(msgspec.Struct):
    """Close the connection, and make that of the standby session the current one."""

    reason: str


class SaveState(msgspec.Struct):
    """Save the state for the next process of this component."""

    state: msgspec.Raw
    """`Core.saved`, encoded with MessagePack."""
    recorded: bool = True
    """Whether more has changed than `Saved.playing`, which matters only while the session runs."""


class WriteLog(msgspec.Struct):
    """Write a log record. It must never contain what was said."""

    level: Literal["debug", "info", "warning", "error"]
    text: str
    fields: dict[str, Any] = {}


Action = SendEvent | Publish | KeepOutput | ConnectAfter | Disconnect | SaveState | Swap | WriteLog
