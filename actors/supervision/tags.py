"""What the hub sees of a message without reading it: its tag."""

from __future__ import annotations

from messages import message_types

__all__ = ["AUDIO_TAGS", "ROUTED_FROM", "type_name"]

ROUTED_FROM = 20
"""Tags below are between a child and the hub; see `messages`."""
AUDIO_TAGS = range(20, 40)
"""Those of `messages.audio`."""


def type_name(tag: int) -> str:
    """Return the name of a type; of a user's own, which nobody knows here, its tag."""
    kind = message_types().get(tag)
    return kind.__name__ if kind else f"tag {tag}"
