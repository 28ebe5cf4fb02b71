"""Between the threads of a session and the screen: a queue, and work that may take a while."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from messages import Level, Log, Message, SessionEnded, SessionFailed, WantWireEvents
from messages.errors import RtvoiceError
from messages.transport.spawning import cpu_seconds, resident_bytes
from rtvoice.view import PARTIAL_TRANSCRIPT, View

__all__ = ["OURS", "Conversation", "Link", "News", "Over", "Processes", "Said"]

_MAX_QUEUED = 10_000
"""Messages that may wait for the screen; more are dropped, but not those that end a session."""
_STATUS_S = 1.0


class Conversation(Protocol):
    """What the console does to the session."""

    def send(self, message: Message) -> None:
        """Send a message to the components."""

    def inject(self, component: str, fault: str) -> None:
        """Inject a fault into a component."""

    def processes(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return pid, memory, CPU time and more of each process."""

    def interrupted(self) -> bool:
        """Note that Ctrl-C was pressed; return whether the session was killed for it."""

    def has_push_to_talk(self) -> bool:
        """Return whether push-to-talk is on."""


OURS = "console"
"""The name of our own process."""


class Processes(NamedTuple):
    """What is known of the processes."""

    status: Mapping[str, Mapping[str, Any]]


class Said(NamedTuple):
    """A sentence for the user, about something that was asked for."""

    text: str
    is_trouble: bool = False


class Over(NamedTuple):
    """The session has ended; nothing comes after this."""


News = Message | Processes | Said | Over | Callable[[], None]
"""What the screen takes; a function is called there."""


class Link:
    """The listener of a session that has a screen; `take` is called on the screen's thread.

    Args:
        forward: Is given each message too, on the session's thread; it must return at once.
    """

    wants: frozenset[type[Message]] = frozenset({*View.kinds, Log})

    def __init__(self, forward: Callable[[Message], None]) -> None:
        self._forward = forward
        self._news: collections.deque[tuple[float, News]] = collections.deque()
        self._conversation: Conversation | None = None
        self._over = threading.Event()
        self._epoch_s = time.monotonic()
        self.dropped = 0
        """Messages that the screen was too slow for."""

    # -- on the session's threads -------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Queue a message of the session."""
        self._forward(message)
        if len(self._news) >= _MAX_QUEUED and not isinstance(message, SessionFailed | SessionEnded):
            self.dropped += not isinstance(message, Level)
            return
        self.put(message)

    def put(self, news: News) -> None:
        """Queue something for the screen; from any thread."""
        self._news.append((self.now_s(), news))

    def over(self) -> None:
        """Note that the session has ended."""
        self._over.set()
        self.put(Over())

    def wait_over(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the session; return whether it has ended."""
        return self._over.wait(timeout_s)

    # -- on the screen's thread ---------------------------------------------------------------

    def now_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._epoch_s

    def take(self) -> list[tuple[float, News]]:
        """Return what has come since the last call, each with the time at which it came."""
        taken: list[tuple[float, News]] = []
        while self._news and len(taken) < _MAX_QUEUED:
            taken.append(self._news.popleft())
        return taken

    def begin(self, conversation: Conversation) -> None:
        """Begin to ask for the processes once a second."""
        self._conversation = conversation
        threading.Thread(target=self._ask, name="status", daemon=True).start()

    def run(self, work: Callable[[], Said | None]) -> None:
        """Do something that may take a while on a thread of its own, and show what it returns."""

        def do() -> None:
            try:
                said = work()
            except (RtvoiceError, TimeoutError, OSError) as error:
                said = Said(str(error), is_trouble=True)
            if said is not None:
                self.put(said)

        threading.Thread(target=do, name="work", daemon=True).start()

    def want_partial_transcripts(self) -> None:
        """Ask realtime for the pieces of the user's transcripts."""
        if self._conversation is not None:
            self._conversation.send(WantWireEvents((PARTIAL_TRANSCRIPT,)))

    def _ask(self) -> None:
        assert self._conversation is not None
        while not self._over.wait(_STATUS_S):
            try:
                status = self._conversation.processes(2 * _STATUS_S)
                self.put(Processes({**status, OURS: _our_own()}))
            except (RtvoiceError, TimeoutError):
                continue  # no supervisor at the moment; its restart is an event


def _our_own() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "memory_bytes": resident_bytes(pid), "cpu_seconds": cpu_seconds(pid)}
