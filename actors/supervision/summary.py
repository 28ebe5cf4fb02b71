"""The summary at the end of a session: turns, calls, losses, underruns."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import msgspec

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

__all__ = ["NOTED", "Summary", "SummaryState"]

NOTED = (Turn, ToolCall, AudioLost, DeadLetter, FileOpened, SoundFaltered)
"""The message types that `Summary.note` needs."""
_LOST = 100
"""At most this many losses are listed one by one; the others are counted."""
_REMEMBERED = 1000
"""The newest turns and calls that are remembered, to recognise one that comes twice."""


class SummaryState(msgspec.Struct):
    """What a `Summary` has collected, as it is kept for the next supervisor."""

    counts: dict[str, int] = {}
    told: list[str] = []
    files: list[str] = []
    lost: list[str] = []
    more_lost: int = 0
    faltered: list[SoundFaltered] = []


class Summary:
    """Collects the summary of a session from the messages that are routed."""

    def __init__(self, before: SummaryState | None = None) -> None:
        """Begin with what an earlier supervisor has collected."""
        before = before or SummaryState()
        self._counts: collections.Counter[str] = collections.Counter(before.counts)
        self._seen: dict[str, None] = dict.fromkeys(before.told)
        self._files: dict[str, None] = dict.fromkeys(before.files)
        self._lost: list[str] = list(before.lost)
        self._more_lost = before.more_lost
        self._faltered = {(one.component, one.reason): one for one in before.faltered}

    @property
    def state(self) -> SummaryState:
        """What was collected so far."""
        return SummaryState(
            dict(self._counts),
            list(self._seen),
            list(self._files),
            list(self._lost),
            self._more_lost,
            list(self._faltered.values()),
        )

    @property
    def items(self) -> int:
        """Number of turns and tool calls."""
        return self._counts["Turn"] + self._counts["ToolCall"]

    def note(self, message: Message) -> bool:
        """Record a message; return False if it is a repetition that must not be delivered."""
        match message:
            case Turn(item_id=its_id) | ToolCall(call_id=its_id):
                kind = type(message).__name__
                if its_id not in self._seen:
                    self._seen[its_id] = None
                    if len(self._seen) > _REMEMBERED:
                        del self._seen[next(iter(self._seen))]
                    self._counts[kind] += 1
                else:  # history died after it had published the turn and before it saved that
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
        """Record a loss, in words."""
        if len(self._lost) < _LOST:
            self._lost.append(what)
        else:
            self._more_lost += 1

    def faltered(self, name: str) -> int:
        """Return the number of underruns and gaps of a component; from any thread."""
        faltered = list(self._faltered.values())  # a copy: another thread may change it
        return sum(one.count for one in faltered if one.component == name)

    def ended(
        self,
        reason: str,
        restarts: Mapping[str, int],
        left: Iterable[str],
        seconds: float,
        *,
        failed: bool,
    ) -> SessionEnded:
        """Return the message that ends the session.

        Args:
            reason: Why the session ends.
            restarts: Number of restarts after crashes, by component.
            left: The messages that the end itself loses, in words.
            seconds: Length of the session.
            failed: Whether a failure ends the session.
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
            tuple(one.text for one in self._faltered.values()),
        )
