"""Message tags: all that the hub reads of most messages."""

from __future__ import annotations

from actors.supervision.summary import NOTED
from messages import (
    ConversationOver,
    FatalError,
    MayPass,
    ProgramCapture,
    ProgramFlushed,
    ProgramPlayed,
    message_types,
)

__all__ = [
    "AUDIO_TAGS",
    "HUB_TAGS",
    "ON_DEMAND_TAGS",
    "PASSING_TAGS",
    "ROUTED_FROM",
    "SOUND_TAGS",
    "type_name",
]

ROUTED_FROM = 20
"""Tags below this one are between a child and the hub; see `messages`."""
AUDIO_TAGS = range(20, 40)
"""Tags of `messages.audio`."""
SOUND_TAGS = frozenset(
    kind.tag() for kind in (ProgramCapture, ProgramPlayed, ProgramFlushed, MayPass)
)
"""Tags of the program's own sound, of what it has played, and of how it can be sent."""
HUB_TAGS = frozenset(kind.tag() for kind in (*NOTED, ConversationOver, FatalError))
"""Tags of the messages that the hub itself decodes; all others are routed unread."""
PASSING_TAGS = tuple(tag for tag, kind in message_types().items() if kind.passes)
"""Tags of the messages that go straight to the program if no component wants them."""
ON_DEMAND_TAGS = tuple(tag for tag, kind in message_types().items() if kind.on_demand)
"""Tags of the messages that are sent only if somebody wants them."""


def type_name(tag: int) -> str:
    """Return the name of a message type, or its tag if the type is a user's own."""
    kind = message_types().get(tag)
    return kind.__name__ if kind else f"tag {tag}"
