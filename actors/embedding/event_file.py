"""Events as lines of JSON in a file: ``--events`` and the folder of a session."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from typing import Any, BinaryIO

import msgspec

from actors.redaction import Redact, redacted
from messages import AssistantTranscript, Event, Level, Message, RoundTrip, message_types

__all__ = ["EventFile", "event_line"]

_logger = logging.getLogger("rtvoice.agent")

_CLOSE_S = 2.0
"""Time limit for writing what is queued, at the end of the program."""
_LEFT_OUT = (AssistantTranscript, RoundTrip)
"""They come often, and `Turn` has the text."""


def event_line(event: Event | Level, t: float) -> bytes:
    """Return an event as one line of JSON."""
    fields = msgspec.structs.asdict(event)
    name = event.event or type(event).__name__
    return msgspec.json.encode({"event": name, "t": round(t, 3), **fields}) + b"\n"


class EventFile:
    """Writes the events of a session to a file, on a thread of its own: a disk may be slow.

    It is a listener of the session.

    Args:
        file: Where to write; it is closed at the end.
        head: The first line.
        redact: What each text passes; None: nothing.
    """

    kinds: tuple[type[Message], ...] = tuple(
        kind
        for kind in message_types().values()
        if issubclass(kind, Event) and kind is not Event and kind not in _LEFT_OUT
    )

    def __init__(self, file: BinaryIO, head: dict[str, Any], redact: Redact | None) -> None:
        self._file = file
        self._redact = redact
        self._queue: queue.SimpleQueue[tuple[float, Event | None]] = queue.SimpleQueue()
        self._began = time.monotonic()
        file.write(msgspec.json.encode(head) + b"\n")
        file.flush()
        self._thread = threading.Thread(target=self._run, name="event file", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, message: Message | None) -> None:
        """Queue an event; None: the session is over."""
        if message is None or isinstance(message, Event):
            self._queue.put((time.monotonic() - self._began, message))

    def close(self) -> None:
        """Write what is queued, and close the file."""
        atexit.unregister(self.close)
        self._queue.put((0.0, None))
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            with self._file as file:
                while True:
                    t, event = self._queue.get()
                    if event is None:
                        break
                    if self._redact is not None:
                        event = redacted(event, self._redact)
                    file.write(event_line(event, t))
                    if self._queue.empty():
                        file.flush()
        except OSError as error:
            _logger.warning("the events cannot be written any more: %s", error)
