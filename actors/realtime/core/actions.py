"""What the core wants done; the shell does it in this order."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.realtime.wire import ClientEvent
from messages import Message

__all__ = [
    "Action",
    "ConnectAfter",
    "Disconnect",
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
    """Of the connection that stands by, as below."""


class Publish(msgspec.Struct):
    """Give a message to whoever accepts it."""

    message: Message


class ConnectAfter(msgspec.Struct):
    """Connect to the server, so much later."""

    seconds: float
    reason: str
    spare: bool = False


class Disconnect(msgspec.Struct):
    """Close the connection; nothing that still comes from it is wanted."""

    reason: str
    spare: bool = False


class Swap(msgspec.Struct):
    """Close the connection; the one that stood by is the connection from here on."""

    reason: str


class SaveState(msgspec.Struct):
    """Save the state for the next process."""

    state: msgspec.Raw
    """`Core.saved`, encoded with MessagePack."""


class WriteLog(msgspec.Struct):
    """Write a log record. Never what was said."""

    level: Literal["debug", "info", "warning", "error"]
    text: str
    fields: dict[str, Any] = {}


Action = SendEvent | Publish | ConnectAfter | Disconnect | SaveState | Swap | WriteLog
