"""The plain console of the command: transcript, events as JSON lines, log records.

A separate thread does all the writing, so that a slow terminal or a full pipe never blocks the
thread that reads what the session says.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, TextIO

import msgspec

from actors.embedding.event_file import event_line
from messages import (
    AssistantTranscript,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    EchoState,
    Event,
    InputLevel,
    Level,
    Log,
    Message,
    OutputLevel,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    SupervisorRestarted,
    Turn,
)
from rtvoice.command.printing import discard_rest, fitting
from rtvoice.command.transcript import ConsoleTranscript, bar, echo_text
from rtvoice.view.sentences import count_of

__all__ = ["Console"]

_MAX_QUEUED = 10_000
"""Messages that may wait for a slow terminal; more are dropped."""
_CRASH_LINE_S = 1.0
"""Time that a crash waits for its restart, to be shown with it in one line."""


class Console:
    """Shows a session. `receive` only queues a message.

    Args:
        transcript: The stream of the transcript.
        errors: The stream of failures and log records.
        events: Where to write events as JSON lines; None: nowhere.
        log_level: Records below this level are not shown.
        levels: Whether to show the loudness of both sides, and to write it among the events.
    """

    # One class with many attributes: a single thread writes three streams, and needs to know what
    # was shown on each.

    def __init__(
        self,
        *,
        transcript: TextIO,
        errors: TextIO,
        events: BinaryIO | None = None,
        log_level: int = logging.WARNING,
        levels: bool = False,
    ) -> None:
        live = transcript.isatty()
        self.wants: frozenset[type[Message]] = frozenset({*_event_types(), Log})
        if levels and (live or events is not None):
            self.wants |= {InputLevel, OutputLevel}
        if not live and events is None:
            self.wants -= {AssistantTranscript}
        self.dropped = 0
        """Messages that were not shown because the terminal was too slow."""
        self.events_closed: Callable[[], None] = lambda: None
        """Called on the console's thread when the reader of the events has closed the pipe."""
        self.hints: Callable[[], Sequence[str]] = lambda: ()
        """Returns the lines to show when the session has started."""
        self.sandbox_hints: Callable[[], Sequence[str]] = lambda: ()
        """Returns more such lines, for a session with the sandbox."""
        self._transcript = ConsoleTranscript(
            transcript,
            live=live,
            colour=live and _colours_wanted(),
            failed=partial(self._cannot_write, "the transcript"),
        )
        self._errors = errors
        self._error_colour = errors.isatty() and _colours_wanted()
        self._events = events
        self._log_level = log_level
        self._render_log: Callable[[Log], str] | None = None
        self._queue: queue.SimpleQueue[tuple[float, Any]] = queue.SimpleQueue()
        self._typing: str | None = None
        """What the user is typing; None: the terminal shows it itself."""
        self._held: list[str] | None = None
        """Failures that wait for the end of another console; None: there is none."""
        self._began = time.monotonic()
        self._crashed: dict[str, tuple[float, ComponentCrashed]] = {}
        self._turns: set[str] = set()
        self._levels: dict[type[Level], Level] = {}
        self._echo: EchoState | None = None
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    # -- called on other threads --------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether the transcript is shown in a terminal."""
        return self._transcript.is_live

    def receive(self, message: Message) -> None:
        """Queue a message of the session."""
        # The two messages that end a session are never dropped: they say why.
        waiting = self._queue.qsize()
        if waiting >= _MAX_QUEUED and not isinstance(message, SessionFailed | SessionEnded):
            self.dropped += 1
            return
        self._queue.put((time.monotonic() - self._began, message))

    def say(self, text: str) -> None:
        """Queue a line of our own; safe in a signal handler (`SimpleQueue.put` is reentrant)."""
        self._queue.put((0.0, text))

    def typed(self, item_id: str, text: str | None = None) -> None:
        """Record that the user has typed a turn; called before the turn is sent.

        Args:
            item_id: The id of the turn.
            text: Its text, to be shown; None: the terminal shows it already.
        """
        self._queue.put((0.0, lambda: self._transcript.typed(item_id, text)))

    def typing(self, text: str | None) -> None:
        """Show what the user is typing, below everything else; None: there is no such line."""

        def show() -> None:
            self._typing = text
            self._show_bottom()

        self._queue.put((0.0, show))

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is queued, and end the thread. Return whether it has ended in time."""
        self._queue.put((0.0, None))
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def hold(self) -> None:
        """Show nothing until `release`, as another console has the screen; events are written."""
        self._held = []

    def release(self) -> None:
        """Show the failures that were held back, and from now on everything."""
        held, self._held = self._held or [], None
        for text in held:
            self.complain(text)
        self._queue.put((0.0, self._transcript.show_end))

    # -- on the console's thread --------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                t, item = self._queue.get(timeout=0.2 if self._crashed else None)
            except queue.Empty:
                self._show_old_crashes()
                continue
            if item is None:
                break
            if isinstance(item, str):
                if self._held is None:
                    self._transcript.line(item, "dim")
            elif isinstance(item, Log):
                if self._held is None:
                    self._log(item)
            elif isinstance(item, Message):
                self._event(item, t)
            else:
                item()
            self._show_old_crashes()
        self._transcript.break_line()
        self._transcript.bottom("")
        if self.dropped:
            self._transcript.line(
                f"[{count_of(self.dropped, 'event')} not shown: the terminal was too slow]"
            )

    def _event(self, message: Message, t: float) -> None:
        if isinstance(message, Turn):
            # A history that crashes while it publishes a turn publishes it again.
            if message.item_id in self._turns:
                return
            self._turns.add(message.item_id)
        if self._events is not None and isinstance(message, Event | Level):
            try:
                self._events.write(event_line(message, t))
                self._events.flush()
            except (BrokenPipeError, ValueError):
                self._events = None
                self.events_closed()
            except OSError as error:
                self._events = None
                self._cannot_write("the events", error.strerror or str(error))
        if self._held is not None and not isinstance(message, SessionFailed):
            self._transcript.keep_end(message)
            return
        match message:
            case ComponentCrashed(component):
                self._crashed[component] = (time.monotonic(), message)
            case ComponentRestarted(component) | ComponentParked(component):
                self._crashed.pop(component, None)
                self._transcript.show(message)
            case SupervisorRestarted():
                self._crashed.clear()
                self._transcript.show(message)
            case SessionStarted():
                self._transcript.show(message)
                for hint in (*(self.sandbox_hints() if message.sandbox else ()), *self.hints()):
                    self._transcript.line(hint, "dim")
            case Level():
                self._levels[type(message)] = message
                self._show_bottom()
            case EchoState():
                self._echo = message
            case SessionFailed(reason):
                self._complain_between_lines(f"rtvoice: {reason}")
            case SessionEnded():
                self._show_old_crashes(all_of_them=True)
                self._transcript.show(message)
            case _:
                self._transcript.show(message)

    def _show_bottom(self) -> None:
        if self._typing:
            self._transcript.bottom(f"> {self._typing}")
        elif self._levels:
            self._transcript.bottom(self._meter())
        else:
            self._transcript.bottom("> " if self._typing is not None else "")

    def _meter(self) -> str:
        heard, played = self._levels.get(InputLevel), self._levels.get(OutputLevel)
        return f"{bar('mic', heard)} {bar('speaker', played)}{echo_text(self._echo)}"

    def _show_old_crashes(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        for component, (at, crash) in list(self._crashed.items()):
            if all_of_them or now - at > _CRASH_LINE_S:
                del self._crashed[component]
                self._transcript.show(crash)

    def _log(self, record: Log) -> None:
        level = logging.getLevelName(record.level)
        if not isinstance(level, int) or level < self._log_level:
            return
        if self._render_log is None:
            self._render_log = _log_renderer(colours=self._error_colour)
        self._complain_between_lines(self._render_log(record))

    def _complain_between_lines(self, text: str) -> None:
        """Write a line to the stream of failures, which may be the terminal of the transcript."""
        if self._errors.isatty():
            self._transcript.break_line()
            self._transcript.bottom("")
        self.complain(text)
        self._show_bottom()

    def complain(self, text: str) -> None:
        """Write a line to the stream of failures, on any thread."""
        if self._held is not None:
            self._held.append(text)
            return
        try:
            self._errors.write(f"{fitting(text, self._errors)}\n")  # as a whole: two threads write
            self._errors.flush()
        except (OSError, ValueError):
            discard_rest(self._errors)

    def _cannot_write(self, what: str, why: str) -> None:
        self.complain(
            f"rtvoice: {what} cannot be written any more ({why}); the conversation goes on"
        )


def _event_types() -> Iterator[type[Message]]:
    waiting: list[type[Message]] = [Event]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if kind is not Event:
            yield kind


def _colours_wanted() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _log_renderer(*, colours: bool) -> Callable[[Log], str]:
    """Return a function that renders a record. Called late, since importing structlog is slow."""
    from structlog.dev import ConsoleRenderer

    render = ConsoleRenderer(colors=colours)

    def text_of(record: Log) -> str:
        event: dict[str, Any] = {
            "timestamp": time.strftime("%H:%M:%S"),
            "level": record.level.lower(),
            "event": record.text,
        }
        if record.component:
            event["component"] = record.component
        for name, value in record.fields.items():
            event[name] = msgspec.msgpack.decode(value)
        if "traceback" in event:
            event["exception"] = event.pop("traceback")
        return str(render(None, "", event))

    return text_of
