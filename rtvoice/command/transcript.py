"""The transcript of a conversation as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from rtvoice.command.lines import Lines
from rtvoice.view.sentences import count_of, sentence, server_of, short
from rtvoice.view.wrapping import printable

__all__ = ["ConsoleTranscript", "bar", "echo_text"]


class ConsoleTranscript:
    """Writes a conversation to a stream, line by line.

    Args:
        stream: Where to write.
        live: Whether the stream is a terminal, on which the assistant's text appears as it arrives.
        colour: Whether to use colours.
        failed: Called once with the reason if the stream cannot be written to; see `Lines`.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        live: bool,
        colour: bool,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lines = Lines(stream, live=live, failed=failed)
        self._live = live
        self._colour = colour
        self._open = ""
        """Id of the item whose text is being written, without a line break yet; empty: none."""
        self._streamed: set[str] = set()
        self._typed: set[str] = set()
        self._asked: list[str] = []
        """Ids of user speech whose transcript has not arrived."""
        self._held: list[Message] = []
        """Parts of an answer, which wait so that the transcript of the question comes first."""
        self._started = False
        self._end: SessionEnded | None = None

    @property
    def is_live(self) -> bool:
        """Whether the stream is a terminal."""
        return self._live

    def typed(self, item_id: str, text: str | None = None) -> None:
        """Record that the user has typed this turn, and write it, unless it stands there already.

        Args:
            item_id: The id of the turn.
            text: Its text; None: the terminal shows it already.
        """
        self._typed.add(item_id)
        if text is not None:
            self._write_turn("you", text)

    def line(self, text: str, style: str = "") -> None:
        """Write one complete line."""
        self.break_line()
        self._lines.write(printable(text), self._code(style))
        self._lines.end_line()

    def break_line(self) -> None:
        """End the line that is being written, if any."""
        if self._open:
            self._open = ""
            self._lines.end_line()

    def bottom(self, text: str) -> None:
        """Show a text below all lines: the levels, or what the user types."""
        self._lines.bottom(printable(text))

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
            case SoundFaltered():
                pass  # the summary has the sums
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
        self._lines.write(f"{who}:", self._code(who))
        self._lines.write(f" {printable(text)}")
        self._lines.end_line()

    def _piece(self, piece: AssistantTranscript) -> None:
        if not self._live:
            return
        if self._open != piece.item_id:
            self.break_line()
            again = " …" if piece.item_id in self._streamed else ""
            self._lines.write("assistant:", self._code("assistant"))
            self._lines.write(f"{again} ")
            self._open = piece.item_id
            self._streamed.add(piece.item_id)
        self._lines.write(printable(piece.delta))

    def _flush_held(self) -> None:
        held, self._held = self._held, []
        self._asked.clear()
        for message in held:
            self.show(message)

    def _code(self, style: str) -> str:
        return _STYLES.get(style, "") if self._colour else ""


_STYLES = {"you": "1;36", "assistant": "1;32", "dim": "2", "tool": "33", "bad": "31"}


def _words_of(turn: Turn) -> str:
    if turn.image is not None:
        return f"[an image] {turn.text}".rstrip()
    return turn.text or ("(nothing)" if turn.transcribed else "(speech, not transcribed)")


def _header(started: SessionStarted) -> str:
    return (
        f"[server: {server_of(started)}; microphone: {started.input}; speaker: {started.output}; "
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
