"""The turns of the user that have no answer yet."""

from __future__ import annotations

from collections.abc import Container

from actors.realtime.core.restore import Plan
from actors.realtime.core.state import Saved, UnansweredTurn

__all__ = ["Turns"]

_UNANSWERED = 20
"""At most this many turns are kept that the program has not asked to have answered."""


class Turns:
    """Keeps each turn until it is answered, in case a new session has to hear it again.

    Speech before `Saved.safe_sample` need not be heard again: it is answered, or has its text.
    """

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def keep(self, turn: UnansweredTurn) -> None:
        """Keep a turn until it is answered."""
        turns = self._saved.turns
        turns.append(turn)
        if not turn.wanted and len(turns) > _UNANSWERED:
            self._is_safe(turns.pop(0))

    def answered(self, seen: Container[str] | None = None) -> None:
        """Drop the turns that have an answer now, or get none.

        Args:
            seen: item ids of the turns that the answer is about; later turns stay. None: all.
        """
        saved = self._saved
        count = len(saved.turns)
        while seen is not None and count and saved.turns[count - 1].item_id not in seen:
            count -= 1
        for turn in saved.turns[:count]:
            self._is_safe(turn)
        saved.turns = saved.turns[count:]
        saved.repeats = 0

    def withdraw(self) -> None:
        """Ask for no answer to these turns: the program has interrupted it."""
        for turn in self._saved.turns:
            turn.wanted = False

    def refused(self, item_id: str) -> None:
        """Drop a typed turn that the server refuses."""
        self._saved.turns = [turn for turn in self._saved.turns if turn.item_id != item_id]

    def noise(self, turn: UnansweredTurn) -> None:
        """Skip a sound that was not speech, unless speech before it has to be heard again."""
        if not any(other.spoken for other in self._saved.turns):
            self._is_safe(turn)

    def have_text(self, item_ids: Container[str]) -> None:
        """Mark the turns whose text is in the history."""
        for turn in self._saved.turns:
            if turn.item_id in item_ids:
                turn.transcribed = True

    def transcribed(self, item_id: str) -> None:
        """Mark a turn whose transcript has come; an empty one counts too, it was a noise."""
        self.have_text([item_id])
        for turn in self._saved.turns:
            if turn.spoken and not turn.transcribed:
                break
            self._is_safe(turn)

    def restored(self, plan: Plan) -> None:
        """Drop the turns that a new session hears again, and those that are given up."""
        saved = self._saved
        saved.turns = [
            turn for turn in saved.turns if turn not in plan.again and turn not in plan.given_up
        ]
        if plan.again or plan.given_up:
            saved.repeats = saved.repeats + 1 if plan.again else 0
        saved.safe_sample = max(saved.safe_sample, plan.from_sample)

    def _is_safe(self, turn: UnansweredTurn) -> None:
        """Record that a turn, and what was said before it, need not be heard again."""
        self._saved.safe_sample = max(self._saved.safe_sample, turn.last_sample)
