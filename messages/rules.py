"""Overflow rules: what a mailbox does when messages come faster than they are handled."""

from __future__ import annotations

import msgspec

__all__ = [
    "CONTROL",
    "PCM_BYTES_PER_MS",
    "PCM_BYTES_PER_S",
    "SAMPLE_RATE",
    "Keep",
    "Newest",
    "Rule",
]

SAMPLE_RATE = 24_000
"""Samples a second of all audio inside a session (``audio/pcm`` of the Realtime API)."""
PCM_BYTES_PER_S = SAMPLE_RATE * 2
PCM_BYTES_PER_MS = PCM_BYTES_PER_S // 1000

_CONTROL_MESSAGES = 1000


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """How many messages of one type wait for one receiver, and what happens to the next one."""

    messages: int = 0
    """At most this many wait; 0: no bound by number."""
    size_bytes: int = 0
    """At most this many bytes of frames wait; 0: no bound by size."""
    drops: bool = False
    """When full: drop the oldest and count it (True), or restart the receiver as stuck (False)."""
    held: bool = False
    """The receiver says `Actor.done` for each in order; these do not count against other mail."""

    @property
    def replaces(self) -> bool:
        """Whether a message replaces the one before it: a position, say."""
        return self.drops and self.messages == 1


CONTROL = Rule(messages=_CONTROL_MESSAGES)
"""Never dropped. A full mailbox of control messages means a stuck actor, which is restarted."""


def Newest(messages: int) -> Rule:  # noqa: N802 - reads as the name of a rule
    """Keep the newest ``messages``; drop the oldest. 1: each replaces the one before it."""
    return Rule(messages=messages, drops=True)


def Keep(seconds: float, *, held: bool = False) -> Rule:  # noqa: N802 - reads as the name of a rule
    """Keep this much audio (16-bit mono at 24 kHz, by the size of its frames); drop the oldest."""
    return Rule(size_bytes=int(seconds * PCM_BYTES_PER_S), drops=True, held=held)
