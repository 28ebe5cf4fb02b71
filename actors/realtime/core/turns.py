"""The turns of the user that have no answer yet."""

from __future__ import annotations

from collections.abc import Container

from actors.realtime.core.restore import Plan
from actors.realtime.core.state import Saved, UnansweredTurn

__all__ = ["Turns"]

_UNANSWERED = 20
"""Maximum number of kept turns; past it, a turn that needs no answer drops the oldest turn."""


class Turns:
    """Keeps each turn until it is answered, so that a new session can hear it again."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def keep(self, turn: UnansweredTurn) -> None:
        """Keep a turn until it is answered."""
        turns = self._saved.turns
        turns.append(turn)
        if not turn.wanted and len(turns) > _UNANSWERED:
            self._mark_safe(turns.pop(0))

    def answered(self, seen: Container[str] | None = None) -> None:
        """Drop the turns that are answered now, or will not be answered.

        Args:
            seen: item ids of the turns that the response has seen; turns after them stay. None:
                drop all turns.
        """
        saved = self._saved
        count = len(saved.turns)
        while seen is not None and count and saved.turns[count - 1].item_id not in seen:
            count -= 1
        for turn in saved.turns[:count]:
            self._mark_safe(turn)
        saved.turns = saved.turns[count:]
        saved.repeats = 0

    def withdraw(self) -> None:
        """Let no new session answer the turns: the program has interrupted the answer."""
        for turn in self._saved.turns:
            turn.wanted = False

    def refused(self, item_id: str) -> None:
        """Drop a typed turn that the server refuses."""
        self._saved.turns = [turn for turn in self._saved.turns if turn.item_id != item_id]

    def noise(self, turn: UnansweredTurn) -> None:
        """Record that a turn was noise, so that it need not be heard again.

        If speech before it may have to be heard again, the noise is heard again with it.
        """
        if not any(other.spoken for other in self._saved.turns):
            self._mark_safe(turn)

    def have_text(self, item_ids: Container[str]) -> None:
        """Mark the turns whose text is in the history."""
        for turn in self._saved.turns:
            if turn.item_id in item_ids:
                turn.transcribed = True

    def transcribed(self, item_id: str) -> None:
        """Mark a turn whose transcript has come. It is noise if the transcript is empty."""
        self.have_text([item_id])
        # Audio is replayed from one sample on, so a turn is safe only if all before it are.
        for turn in self._saved.turns:
            if turn.spoken and not turn.transcribed:
                break
            self._mark_safe(turn)

    def restored(self, plan: Plan) -> None:
        """Drop the turns that a new session hears again, and those that are given up.

        Turns that it hears again become new items, and so new turns.
        """
        saved = self._saved
        saved.turns = [
            turn for turn in saved.turns if turn not in plan.again and turn not in plan.given_up
        ]
        if plan.given_up and not plan.again:
            saved.repeats = 0
        elif plan.again or saved.hears_again:
            saved.repeats += 1
        saved.safe_sample = max(saved.safe_sample, plan.from_sample)

    def _mark_safe(self, turn: UnansweredTurn) -> None:
        """Record that a turn, and all speech before it, need not be heard again."""
        self._saved.safe_sample = max(self._saved.safe_sample, turn.last_sample)
