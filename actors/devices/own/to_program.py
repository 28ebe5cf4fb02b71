"""Sends a device in the program what the speaker has for it, past the supervisor if it can.

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
        """Number of the `AskToPass` that is not answered; 0: there is none."""
        self._passes = False
        """Whether the program has all that was sent through the supervisor."""
        self._sent_since = False
        """Whether a message was sent through the supervisor after the question."""

    def send(self, message: Message) -> None:
        """Send a message with `Message.passes`."""
        actor, is_wanted = self._actor, self._actor.is_wanted(ProgramPlayout)
        if self._passes and not is_wanted and actor.send_past(message):
            return
        self._passes, self._sent_since = False, True
        actor.send(message)
        if not self._asked and not is_wanted:
            self.ask()

    def ask(self) -> None:
        """Ask whether everything has arrived that was sent until now."""
        self._asked, self._sent_since = time.monotonic_ns(), False  # a new number in any process
        self._actor.send(AskToPass(self._asked))

    def answered(self, answer: MayPass) -> None:
        """Take the program's answer."""
        if answer.number != self._asked:
            return
        self._asked = 0
        if self._sent_since:
            self.ask()
        else:
            self._passes = True
