"""Lines of the standard input that are said one after the other, where it is a pipe or a file."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TextIO

from messages import Level, Message, SendText, StopSession
from rtvoice.view import View

__all__ = ["PipedLines", "is_piped"]

_LOOK_S = 0.25
"""The longest time between two looks at whether a line is answered: some answers never come."""


def is_piped(stream: TextIO) -> bool:
    """Return whether lines can be read from a stream: it is a pipe or a file, not ``/dev/null``."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


class PipedLines:
    """Says each line once the answer to the one before it was heard, and then ends the session.

    An input without any line, such as that of a job in the background, ends nothing.

    Args:
        stream: The input.
        send: Called with each message, on a thread of its own.
        show: Called with id and text of each line before it is sent.
    """

    wants: frozenset[type[Message]] = frozenset(
        kind for kind in View.kinds if not issubclass(kind, Level)
    )

    def __init__(
        self,
        stream: TextIO,
        send: Callable[[Message], None],
        show: Callable[[str, str], None],
    ) -> None:
        self._stream = stream
        self._send = send
        self._show = show
        self._view = View()
        self._news = threading.Condition()
        self._began_s = time.monotonic()

    def start(self) -> None:
        """Start the thread that reads."""
        threading.Thread(target=self._run, name="piped lines", daemon=True).start()

    def receive(self, message: Message) -> None:
        """Receive a message of the session."""
        with self._news:
            self._view.take(message, self._now_s())
            self._news.notify_all()

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _run(self) -> None:
        self._wait_until(lambda: self._view.started is not None)
        said = False
        try:
            with os.fdopen(os.dup(self._stream.fileno()), errors="replace") as lines:
                for line in lines:
                    if text := line.strip():
                        self._say(text)
                        said = True
        except (OSError, ValueError):
            return  # closed: the session goes on
        if said:
            self._send(StopSession("end of input"))

    def _say(self, text: str) -> None:
        item_id = os.urandom(16).hex()
        self._show(item_id, text)
        sent_s = self._now_s()
        self._send(SendText(text, item_id))
        self._wait_until(lambda: self._view.is_answered(item_id, sent_s))

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        with self._news:
            while not condition():
                self._news.wait(_LOOK_S)
                self._view.look(self._now_s())
