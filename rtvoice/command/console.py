"""The console of the command: transcript, keyboard, events as JSON lines, log records.

A separate thread does all the writing, so that a slow terminal or a full pipe never blocks the
thread that reads what the session says.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TextIO

import msgspec

from actors.embedding.event_file import event_line
from messages import (
    SILENCE_DBFS,
    AssistantTranscript,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    EchoState,
    Event,
    InputLevel,
    Interrupt,
    Interrupted,
    Level,
    Log,
    Message,
    OutputLevel,
    SendText,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    SetMuted,
    SoundFaltered,
    StartTalking,
    StopSession,
    StopTalking,
    SupervisorRestarted,
    ToolAnswer,
    ToolCall,
    Turn,
    UserSpeechStopped,
)
from rtvoice.view.sentences import count_of, sentence, short

__all__ = [
    "Console",
    "ConsoleTranscript",
    "Keyboard",
    "in_foreground",
    "keyboard_help",
    "no_keyboard",
]

_MAX_QUEUED = 10_000
"""Messages that may wait for a slow terminal; more are dropped."""
_CRASH_LINE_S = 1.0
"""Time that a crash waits for its restart, to be shown with it in one line."""


# -- the transcript ---------------------------------------------------------------------------


class ConsoleTranscript:
    """Writes a conversation to a stream, line by line.

    Args:
        stream: Where to write.
        live: Whether the stream is a terminal, on which the assistant's text appears as it arrives.
        colour: Whether to use colours.
    """

    def __init__(self, stream: TextIO, *, live: bool, colour: bool) -> None:
        self._stream: TextIO | None = stream
        self._live = live
        self._colour = colour
        self._open = ""
        """Id of the item whose text is being written, without a line break yet; empty: none."""
        self._column = 0
        """Number of terminal cells that this text takes, computed by `_column_after`."""
        self._streamed: set[str] = set()
        self._typed: set[str] = set()
        self._asked: list[str] = []
        """Ids of user speech whose transcript has not arrived."""
        self._held: list[Message] = []
        """Parts of an answer, which wait so that the transcript of the question comes first."""
        self._started = False
        self._end: SessionEnded | None = None
        self._meter = False
        """Whether the cursor is in the line with the levels."""
        self._below = False
        """Whether the levels are in the line below the cursor."""
        self._shown = ""

    def typed(self, item_id: str) -> None:
        """Record that the user has typed this turn: the terminal shows it already."""
        self._typed.add(item_id)

    def line(self, text: str, style: str = "") -> None:
        """Write one complete line."""
        self.break_line()
        self._write(f"{self._styled(_clean(text), style)}\n")

    def break_line(self) -> None:
        """End the line that is being written, if any."""
        if self._meter:
            self._write("")
        if self._open:
            self._open = ""
            self._write("\n")

    def show(self, message: Message) -> None:
        """Write a message, if the transcript shows messages of its type."""
        match message:
            case AssistantTranscript() | ToolCall() | ToolAnswer() if self._asked:
                self._held.append(message)
            case AssistantTranscript():
                self._piece(message)
            case Turn():
                self._turn(message)
            case UserSpeechStopped(item_id) if item_id:
                self._asked.append(item_id)
            case SessionEnded():
                self._flush_held()
                for text in _summary(message) if self._started else ():
                    self.line(text, "dim")
            case SessionStarted():
                self._started = True
                self.line(_header(message), "dim")
            case _:
                text, style = _bracket(message)
                if text:
                    self.line(f"[{text}]", style)

    def keep_end(self, message: Message) -> None:
        """Keep what `show_end` needs of a message that is not shown."""
        self._started |= isinstance(message, SessionStarted)
        if isinstance(message, SessionEnded):
            self._end = message

    def show_end(self) -> None:
        """Write the summary of a session whose messages were not shown."""
        if self._end is not None:
            self.show(self._end)

    def levels(self, text: str) -> None:
        """Show the levels in the last line, below the text of the assistant.

        The text must always have the same length, so that it overwrites the previous one. What the
        user is typing stays.
        """
        text = text[: self._width() - 2]
        if not self._live or ((self._meter or self._below) and text == self._shown):
            return
        self._shown = text
        if self._open:
            self._show_below(text)
            return
        show = f"\x1b7\r{text}\x1b8" if self._meter else f"{text} "  # save, restore the cursor
        self._meter = False
        self._write(show)
        self._meter = True

    def _show_below(self, text: str) -> None:
        if self._column % self._width() == 0:
            return  # the line is full: after moving away, the next letter would overwrite its last
        # Down and up once, which scrolls if need be; then save, go down, write, restore the cursor.
        self._write(f"\x1bD\x1b[A\x1b7\x1b[B\r{text}\x1b8")
        self._below = True

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            return 80

    def _turn(self, turn: Turn) -> None:
        if turn.role == "user":
            if turn.item_id in self._asked:  # earlier speech got no transcript: it was noise
                del self._asked[: self._asked.index(turn.item_id) + 1]
            if turn.item_id not in self._typed:
                self._write_turn("you", _words_of(turn))
            if not self._asked:
                self._flush_held()
            return
        self._flush_held()  # turns arrive in order, so no earlier transcript will come
        if turn.item_id not in self._streamed:
            self._write_turn("assistant", turn.text)
        elif self._open == turn.item_id:
            self.break_line()

    def _write_turn(self, who: str, text: str) -> None:
        self.break_line()
        self._write(f"{self._styled(f'{who}:', who)} {_clean(text)}\n")

    def _piece(self, piece: AssistantTranscript) -> None:
        if not self._live:
            return
        if self._open != piece.item_id:
            self.break_line()
            again = "… " if piece.item_id in self._streamed else ""
            self._write(f"{self._styled('assistant:', 'assistant')} {again}")
            self._column = len(f"assistant: {again}")
            self._open = piece.item_id
            self._streamed.add(piece.item_id)
        text = _clean(piece.delta)
        below = self._below
        self._write(text)
        self._column = _column_after(self._column, text, self._width())
        if below:
            self._show_below(self._shown)

    def _flush_held(self) -> None:
        held, self._held = self._held, []
        self._asked.clear()
        for message in held:
            self.show(message)

    def _styled(self, text: str, style: str) -> str:
        code = _STYLES.get(style) if self._colour else None
        return f"\x1b[{code}m{text}\x1b[0m" if code else text

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        if self._meter:
            self._meter = False
            text = f"\r\x1b[K{text}"
        if self._below:
            self._below = False
            text = f"\x1b[J{text}"  # erases from the cursor to the end of the screen
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # the reader has closed it: write nothing more


_HARMLESS = " \t\u200c\u200d"
"""Kept though `str.isprintable` rejects them: Persian words and emoji need the two joiners."""
_STYLES = {"you": "1;36", "assistant": "1;32", "dim": "2", "tool": "33", "bad": "31"}


def _clean(text: str) -> str:
    """Replace control characters: text of a model or a tool must not control the terminal."""
    return "".join(
        character if character.isprintable() or character in _HARMLESS else " "
        for character in text
    )


def _column_after(column: int, text: str, width: int) -> int:
    """Return how many cells are taken after a text; ``column`` were taken before it."""
    for character in text:
        if character == "\t":
            column = min((column // 8 + 1) * 8, (column // width + 1) * width - 1)
        elif unicodedata.east_asian_width(character) in "FW":
            # A wide character that does not fit goes to the next line, and leaves a cell empty.
            column += 3 if column % width == width - 1 else 2
        elif unicodedata.category(character) not in ("Cf", "Me", "Mn"):
            column += 1
    return column


def _words_of(turn: Turn) -> str:
    if turn.image is not None:
        return f"[an image] {turn.text}".rstrip()
    return turn.text or ("(nothing)" if turn.transcribed else "(speech, not transcribed)")


def _header(started: SessionStarted) -> str:
    server = "the sandbox" if started.sandbox else started.server or "the OpenAI service"
    return (
        f"[server: {server}; microphone: {started.input}; speaker: {started.output}; "
        f"{len(started.pids)} processes]"
    )


def _bracket(message: Message) -> tuple[str, str]:
    """Return what to write about a message in brackets, and its style."""
    match message:
        case ToolCall(name=name, arguments=arguments):
            given = "" if arguments.strip() in ("", "{}") else f" {short(arguments)}"
            return f"tool {name}{given}", "tool"
        case ToolAnswer(name=name, output=output):
            return f"tool {name}: {short(output)}", "tool"
        case Interrupted(heard_ms=heard_ms, text_heard=heard):
            if not heard_ms:
                return "interrupted before anything was heard", "dim"
            words = f", heard: {short(heard)}" if heard else ""
            return f"interrupted after {heard_ms / 1000:.1f} s{words}", "dim"
        case SoundFaltered(text=text):
            return f"sound faltered {text}", "dim"
    text, is_trouble = sentence(message)
    return text, "bad" if is_trouble else "dim"


_METER_CELLS, _METER_FROM_DBFS, _ECHO_CELLS = 10, -60.0, 19


def _bar(name: str, level: Level | None) -> str:
    share = 1 - (level.peak_dbfs if level else SILENCE_DBFS) / _METER_FROM_DBFS
    full = min(max(round(share * _METER_CELLS), 0), _METER_CELLS)
    return f"{name} [{'#' * full:-<{_METER_CELLS}}]"


def _echo(state: EchoState | None) -> str:
    """Return what is known of the loudspeaker's echo, for the line of the levels."""
    if state is None:
        return ""
    taken = f" echo -{state.erle_db:.0f} dB" if state.erle_db > 0 else " no echo"
    texts = {"cancelled": taken, "failed": " echo not cancelled"}
    return texts.get(state.state, "").ljust(_ECHO_CELLS)  # each hides the one before it


def _summary(ended: SessionEnded) -> Iterator[str]:
    turns, calls = count_of(ended.turns, "turn"), count_of(ended.tool_calls, "tool call")
    how = "failed" if ended.failed else "ended"
    yield f"[{how} after {ended.seconds:.1f} s: {ended.reason}; {turns}, {calls}]"
    if ended.restarts:
        parts = ", ".join(
            f"{name} {count_of(count, 'time')}" for name, count in ended.restarts.items()
        )
        yield f"[restarted: {parts}]"
    if ended.lost:
        yield f"[lost: {'; '.join(ended.lost)}]"
    elif ended.restarts:
        yield "[lost: nothing]"
    if ended.faltered:
        yield f"[sound faltered: {'; '.join(ended.faltered)}]"
    if ended.files:
        yield f"[written: {', '.join(ended.files)}]"


# -- the peer ---------------------------------------------------------------------------------


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
            transcript, live=live, colour=live and _colours_wanted()
        )
        self._errors = errors
        self._error_colour = errors.isatty() and _colours_wanted()
        self._events = events
        self._log_level = log_level
        self._render_log: Callable[[Log], str] | None = None
        self._queue: queue.SimpleQueue[tuple[float, Any]] = queue.SimpleQueue()
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

    def typed(self, item_id: str) -> None:
        """Record that the user has typed a turn; called before the turn is sent."""
        self._queue.put((0.0, lambda: self._transcript.typed(item_id)))

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
                self.complain(
                    f"rtvoice: the events cannot be written any more ({error.strerror or error}); "
                    f"the conversation goes on"
                )
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
                self._transcript.levels(self._meter())
            case EchoState():
                self._echo = message
            case SessionFailed(reason):
                self._transcript.break_line()
                self.complain(f"rtvoice: {reason}")
            case SessionEnded():
                self._show_old_crashes(all_of_them=True)
                self._transcript.show(message)
            case _:
                self._transcript.show(message)

    def _meter(self) -> str:
        heard, played = self._levels.get(InputLevel), self._levels.get(OutputLevel)
        return f"{_bar('mic', heard)} {_bar('speaker', played)}{_echo(self._echo)}"

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
        if self._errors.isatty():
            self._transcript.break_line()
        self.complain(self._render_log(record))

    def complain(self, text: str) -> None:
        """Write a line to the stream of failures, on any thread."""
        if self._held is not None:
            self._held.append(text)
            return
        try:
            print(text, file=self._errors, flush=True)
        except (OSError, ValueError):
            pass  # the stream is closed


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


# -- the keyboard -----------------------------------------------------------------------------


def keyboard_help(*, push_to_talk: bool) -> Sequence[str]:
    """Return the lines that explain the keyboard."""
    enter = "Enter begins your turn and ends it" if push_to_talk else "Enter interrupts"
    return (f"Type a line to say it; {enter}, m mutes, q quits.",)


def no_keyboard(*, push_to_talk: bool) -> Sequence[str]:
    """Return the lines to show where there is no terminal."""
    if not push_to_talk:
        return ()
    return ("Nothing that you say is heard: there is no terminal in which Enter begins a turn.",)


class Keyboard:
    """Reads lines from a terminal on its own thread, and sends them as messages.

    Args:
        stream: The terminal.
        send: Called with each message.
        console: Shows the effect of a key.
        push_to_talk: Returns whether push-to-talk is on. Then Enter begins a turn and ends it: a
            terminal does not report when a key is released.
    """

    def __init__(
        self,
        stream: TextIO,
        send: Callable[[Message], None],
        console: Console,
        *,
        push_to_talk: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._send = send
        self._console = console
        self._muted = False
        self._push_to_talk = push_to_talk
        self._talking = False

    def start(self) -> None:
        """Start the thread that reads until the stream ends."""
        threading.Thread(target=self.read, name="keyboard", daemon=True).start()

    def read(self) -> None:
        """Read lines and obey them; the end of the stream (Ctrl-D) ends the session."""
        rest = b""
        try:
            # Not through the stream's buffer: a thread inside it blocks the end of the process.
            while data := os.read(self._stream.fileno(), 4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.obey(line.decode(errors="replace"))
        except (OSError, ValueError):
            return  # in the background, or closed: the session goes on without a keyboard
        self._send(StopSession("the keyboard was closed"))

    def obey(self, line: str) -> None:
        """Send the message that a line stands for: a command, or words of the user."""
        text = line.strip()
        match text:
            case "" if self._push_to_talk():
                self._toggle_turn()
            case "":
                self._send(Interrupt())
            case "m":
                self._muted = not self._muted
                self._send(SetMuted(self._muted))
                self._console.say("[muted; m again to be heard]" if self._muted else "[unmuted]")
            case "q":
                self._send(StopSession("the user quit"))
            case _:
                item_id = os.urandom(16).hex()
                self._console.typed(item_id)
                self._send(SendText(text, item_id))

    def _toggle_turn(self) -> None:
        self._talking = not self._talking
        now = time.monotonic_ns()
        self._send(StartTalking(now) if self._talking else StopTalking(now))
        said = "[listening; Enter when you have finished]" if self._talking else "[heard]"
        self._console.say(said)


def in_foreground(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that this process may read.

    In the background it may not: the terminal stops a process that does (SIGTTIN).
    """
    if not stream.isatty():
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:
        return False
