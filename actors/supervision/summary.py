"""What is said of a session at its end: what was done, what was lost, where sound faltered."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

from messages import (
    AudioLost,
    DeadLetter,
    FileOpened,
    Message,
    SessionEnded,
    SoundFaltered,
    ToolCall,
    Turn,
)

__all__ = ["NOTED", "Summary"]

NOTED = (Turn, ToolCall, AudioLost, DeadLetter, FileOpened, SoundFaltered)
"""The messages that `Summary.note` wants to see."""
_LOST = 100
"""How many losses are named one by one."""
_TOLD = 1000
"""How many turns and calls are remembered, so as not to tell or count them twice."""


class Summary:
    """The account of a session, kept by the hub from what passes it."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._told: dict[str, None] = {}
        self._files: dict[str, None] = {}
        self._lost: list[str] = []
        self._more_lost = 0
        self._faltered: dict[tuple[str, str], SoundFaltered] = {}

    def note(self, message: Message) -> bool:
        """Take notice of a message; return whether it is news, and to be passed on."""
        match message:
            case Turn(item_id=told) | ToolCall(call_id=told):
                kind = type(message).__name__
                if told not in self._told:
                    self._told[told] = None
                    if len(self._told) > _TOLD:
                        del self._told[next(iter(self._told))]
                    self._counts[kind] += 1
                else:  # history died between telling a turn and noting that it did
                    return not isinstance(message, Turn)
            case SoundFaltered(name, reason):
                before = self._faltered.get((name, reason))
                self._faltered[name, reason] = before.plus(message) if before else message
            case AudioLost(name, audio_ms, reason):
                self.lose(f"{audio_ms} ms of sound at the {name} ({reason})")
            case DeadLetter(name, what, reason, about=about):
                self.lose(f"{' '.join(filter(None, (what, about)))} to {name} ({reason})")
            case FileOpened(path):
                self._files[path] = None
        return True

    def lose(self, what: str) -> None:
        """Note in words what was lost; named one by one up to a bound."""
        if len(self._lost) < _LOST:
            self._lost.append(what)
        else:
            self._more_lost += 1

    def faltered(self, name: str) -> int:
        """Return how often sound has faltered at a component; from any thread."""
        told = list(self._faltered.values())  # at once
        return sum(one.count for one in told if one.component == name)

    def ended(
        self,
        reason: str,
        restarts: Mapping[str, int],
        left: Iterable[str],
        seconds: float,
        *,
        failed: bool,
    ) -> SessionEnded:
        """Return what is told at the end.

        Args:
            reason: Why the session ends.
            restarts: How often each component was started again after a crash.
            left: In words, what is lost by the end itself.
            seconds: How long the session took.
            failed: Whether it ends because it could not go on.
        """
        lost = [*self._lost, *left]
        if self._more_lost:
            lost.append(f"{self._more_lost} more, each told when it happened")
        return SessionEnded(
            reason,
            self._counts["Turn"],
            self._counts["ToolCall"],
            {name: count for name, count in restarts.items() if count},
            tuple(lost),
            tuple(self._files),
            round(seconds, 3),
            failed,
            tuple(told.text for told in self._faltered.values()),
        )
