"""Answers and transcripts that a test sets, in place of the sandbox's own."""

from __future__ import annotations

from collections import deque

from rtvoice.sandbox.brain import SpokenAnswer, ToolCalls

__all__ = ["Script"]


class Script:
    """Queues of answers and transcripts; filled from any thread.

    Attributes:
        answers: Answers of the next responses, in all sessions.
        hearings: Transcripts of the next spoken turns.
    """

    def __init__(self) -> None:
        self.answers: deque[SpokenAnswer | ToolCalls] = deque()
        self.hearings: deque[str] = deque()

    def next_answer(self) -> SpokenAnswer | ToolCalls | None:
        return self.answers.popleft() if self.answers else None

    def next_hearing(self) -> str | None:
        return self.hearings.popleft() if self.hearings else None
