"""The state that a screen shows: plain data, which ``msgspec.to_builtins`` turns into JSON."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

__all__ = ["Counts", "Entry", "Latency", "Phase", "Process", "Waits"]

Phase = Literal[
    "starting",
    "listening",
    "hearing you",
    "thinking",
    "speaking",
    "paused",
    "muted",
    "reconnecting",
    "ending",
    "ended",
    "failed",
]
"""What the conversation does, in one word."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One entry of the talk: a turn, a tool call, or a sentence of the program."""

    id: str
    """The id of the item or the call; of a notice, a number of its own."""
    kind: Literal["user", "assistant", "tool", "notice", "trouble"]
    text: str = ""
    """What is known of the text so far; of a tool call, its name."""
    heard: int = 0
    """Of an answer: the number of characters of ``text`` that were heard. While it is spoken, an
    estimate by the share of its audio."""
    state: Literal["partial", "complete", "interrupted", "cut off", "failed"] = "complete"
    """``partial``: more may come. ``interrupted``: the assistant was, after ``heard`` characters.
    ``cut off``: the answer ended incomplete. ``failed``: of a tool call; of speech: there is no
    transcript."""
    at_s: float = 0.0
    """When it began, in seconds since the start of the session."""
    arguments: str = ""
    """Of a tool call: JSON text as the model wrote it."""
    output: str = ""
    """Of a tool call: the answer for the model."""
    seconds: float | None = None
    """Of a tool call: how long it took; None: it runs."""
    spoken: bool = False
    """Whether a turn of the user was spoken, not typed."""
    image: bool = False
    """Whether a turn of the user has an image."""


class Process(msgspec.Struct, omit_defaults=True):
    """One process of the session."""

    name: str
    pid: int = 0
    state: Literal["starting", "up", "down", "parked"] = "starting"
    """``down``: it has crashed and is being restarted; ``parked``: it crashes again and again, and
    is started later."""
    restarts: int = 0
    back_ms: float | None = None
    """How long its last restart took; None: there was none."""
    died_s: float | None = None
    """When its last death became known, in seconds since the start of the session; None: it has
    not died."""
    cause: str = ""
    """Why it died last."""
    memory_bytes: int | None = None
    cpu: float | None = None
    """Cores that it has used since the last look; None: not known."""
    mailbox: int = 0
    """Messages that wait for it."""
    device: str = ""
    """Of microphone and speaker: the device in use."""


class Latency(msgspec.Struct, omit_defaults=True):
    """The steps of one answer, in milliseconds from the end of the user's speech."""

    item_id: str
    heard_ms: int
    """Until its first sample was heard."""
    committed_ms: int | None = None
    """Until the server had committed the speech."""
    received_ms: int | None = None
    """Until the first audio was received."""


class Waits:
    """How long the user has waited for answers: the last one by steps, and all of them."""

    def __init__(self) -> None:
        self.last: Latency | None = None
        self._all: list[int] = []

    def add(self, latency: Latency) -> None:
        """Add the latency of an answer."""
        self.last = latency
        self._all.append(latency.heard_ms)

    def __len__(self) -> int:
        return len(self._all)

    def percentile(self, percent: float) -> int | None:
        """Return the latency in milliseconds that so many percent do not exceed; None: no answer.

        The nearest-rank method: a value that was measured, never one in between.
        """
        if not self._all:
            return None
        rank = math.ceil(percent / 100 * len(self._all))
        return sorted(self._all)[max(rank, 1) - 1]


class Counts(msgspec.Struct, omit_defaults=True):
    """What has gone wrong so far, in numbers."""

    restarts: int = 0
    reconnects: int = 0
    interruptions: int = 0
    underruns: int = 0
    """Gaps and crackles of the sound."""
    lost_ms: int = 0
    """Audio that was lost."""
    lost: int = 0
    """Messages that were lost."""
