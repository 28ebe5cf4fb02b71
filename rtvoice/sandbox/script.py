"""What a test has the sandbox answer and hear, instead of what it would by itself."""

from __future__ import annotations

from collections import deque

from rtvoice.sandbox.brain import SpokenAnswer, ToolCalls

__all__ = ["Script"]


class Script:
    """Answers and hearings that wait for their turn, oldest first; filled from any thread.

    Attributes:
        answers: for the responses to come, of all sessions.
        hearings: what the spoken turns to come are heard as.
    """

    def __init__(self) -> None:
        self.answers: deque[SpokenAnswer | ToolCalls] = deque()
        self.hearings: deque[str] = deque()

    def next_answer(self) -> SpokenAnswer | ToolCalls | None:
        return self.answers.popleft() if self.answers else None

    def next_hearing(self) -> str | None:
        return self.hearings.popleft() if self.hearings else None
