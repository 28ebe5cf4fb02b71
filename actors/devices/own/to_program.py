"""What the speaker sends a device in the program: past the supervisor where that keeps the order.

The supervisor keeps nothing of what is for the program, which does not die while the session goes
on: so nothing is lost if it is left out.
"""

from __future__ import annotations

import time

from actors.base import Actor
from messages import AskToPass, MayPass, Message, ProgramPlayout

__all__ = ["ToProgram"]


class ToProgram:
    """Sends messages to the program, each of them once and in order.

    They go straight once the program has said that nothing is under way through the supervisor. If
    one cannot, because the program has not read for a second, say, or reads on a thread, it and
    those after it go through the supervisor, until the program says so again.
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._asked = 0
        """Number of the last `AskToPass`."""
        self._passes = False
        """Whether the program has answered it."""

    def send(self, message: Message) -> None:
        """Send a message with `Message.passes`."""
        actor = self._actor
        if self._passes and not actor.is_wanted(ProgramPlayout) and actor.send_past(message):
            return
        actor.send(message)
        self.ask()

    def ask(self) -> None:
        """Ask whether everything has arrived that was sent until now."""
        self._passes = False
        self._asked = time.monotonic_ns()  # no process has used this number before
        self._actor.send(AskToPass(self._asked))

    def answered(self, answer: MayPass) -> None:
        """Take the program's answer; that to an earlier question does not count."""
        self._passes = answer.number == self._asked
