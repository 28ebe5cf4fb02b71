"""Overflow rules: what a mailbox does if messages come faster than they are handled."""

from __future__ import annotations

import msgspec

__all__ = [
    "CONTROL",
    "DIRECT",
    "PCM_BYTES_PER_MS",
    "PCM_BYTES_PER_S",
    "SAMPLE_RATE",
    "Keep",
    "Newest",
    "Rule",
]

SAMPLE_RATE = 24_000
"""Sample rate in Hz of all audio inside a session (``audio/pcm`` of the Realtime API)."""
PCM_BYTES_PER_S = SAMPLE_RATE * 2
PCM_BYTES_PER_MS = PCM_BYTES_PER_S // 1000

_CONTROL_MESSAGES = 1000


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """How many messages of a type may wait for a receiver, and what happens when it is full."""

    messages: int = 0
    """Most messages that may wait; 0: no limit by number."""
    size_bytes: int = 0
    """Most bytes of frames that may wait; 0: no limit by size."""
    drops: bool = False
    """When full: drop the oldest and count it (True), or restart the receiver as stuck (False)."""
    held: bool = False
    """Whether the receiver acknowledges each message later, in order, with `Actor.done`. Such
    messages do not count against other mail."""
    direct: bool = False
    """Whether to take messages straight from their sender, ahead of the supervisor or past it
    (`messages.transport.direct`). One component can do so for each type."""

    @property
    def replaces(self) -> bool:
        """Whether a message, such as a position, replaces the message before it."""
        return self.drops and self.messages == 1


CONTROL = Rule(messages=_CONTROL_MESSAGES)
"""The rule of control messages: never dropped; a full mailbox means a stuck actor, which is
restarted."""
DIRECT = Rule(messages=_CONTROL_MESSAGES, direct=True)
"""The rule of control messages that somebody waits for; see `Rule.direct`."""


def Newest(messages: int, *, direct: bool = False) -> Rule:  # noqa: N802 - reads as the name of a rule
    """Keep this many of the newest messages and drop the oldest; 1: each replaces the last one."""
    return Rule(messages=messages, drops=True, direct=direct)


def Keep(  # noqa: N802 - reads as the name of a rule
    seconds: float, *, held: bool = False, direct: bool = False
) -> Rule:
    """Keep this much audio (16-bit mono at 24 kHz, by the size of its frames); drop the oldest."""
    size = int(seconds * PCM_BYTES_PER_S)
    return Rule(size_bytes=size, drops=True, held=held, direct=direct)
