"""The transcript of a conversation as lines of text."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from messages import (
    SILENCE_DBFS,
    AssistantTranscript,
    EchoState,
    Interrupted,
    Level,
    Message,
    SessionEnded,
    SessionStarted,
    SoundFaltered,
    ToolAnswer,
    ToolCall,
    Turn,
    UserSpeechStopped,
)
from rtvoice.view.sentences import count_of, sentence, short

__all__ = ["ConsoleTranscript", "bar", "echo_text"]


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


def bar(name: str, level: Level | None) -> str:
    share = 1 - (level.peak_dbfs if level else SILENCE_DBFS) / _METER_FROM_DBFS
    full = min(max(round(share * _METER_CELLS), 0), _METER_CELLS)
    return f"{name} [{'#' * full:-<{_METER_CELLS}}]"


def echo_text(state: EchoState | None) -> str:
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
