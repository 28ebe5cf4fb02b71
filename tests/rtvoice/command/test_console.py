"""The console: what a conversation looks like, as text and as JSON lines."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from actors.embedding.event_file import event_line
from messages import (
    AssistantTranscript,
    AudioLost,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    DeadLetter,
    EchoState,
    Event,
    InputLevel,
    Interrupt,
    Interrupted,
    Log,
    Message,
    Notice,
    OutputLevel,
    PlaybackEnded,
    Reconnected,
    ResponseStarted,
    SendText,
    SentImage,
    ServerError,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    SetMuted,
    SoundFaltered,
    StartTalking,
    StopSession,
    StopTalking,
    ToolAnswer,
    ToolCall,
    Turn,
    UserSpeechStopped,
)
from rtvoice.command import console as console_module
from rtvoice.command.console import Console
from rtvoice.command.keyboard import Keyboard, in_foreground, keyboard_help, no_keyboard
from rtvoice.command.transcript import ConsoleTranscript
from rtvoice.view.wrapping import printable, width_of
from tests.screen import Screen

STARTED = SessionStarted({"speaker": 7, "supervisor": 1}, "ws://x", "in.wav", "out.wav", True)
ENDED = SessionEnded(
    "stop tool", 5, 1, {"speaker": 1}, ("3 CapturedAudio to recorder",), ("out.wav",), 42.123
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(*messages: Message, live: bool = False, colour: bool = False) -> str:
    stream = io.StringIO()
    transcript = ConsoleTranscript(stream, live=live, colour=colour)
    for message in messages:
        transcript.show(message)
    transcript.break_line()
    return stream.getvalue()


# -- the transcript ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (Turn("user", "What time is it?", "a"), "you: What time is it?"),
        (Turn("user", "", "a", transcribed=False), "you: (speech, not transcribed)"),
        (Turn("user", "", "a"), "you: (nothing)"),
        (Turn("assistant", "Noon.", "a"), "assistant: Noon."),
        (ToolCall("c", "get_time", "{}"), "[tool get_time]"),
        (ToolCall("c", "volume", '{"level": 1}'), '[tool volume {"level": 1}]'),
        (ToolAnswer("c", "get_time", "12:00:00"), "[tool get_time: 12:00:00]"),
        (
            AudioLost("speaker", 12, "it died"),
            "[lost: 12 ms of sound at the speaker (it died)]",
        ),
        (AudioLost("speaker", 1234, "it died"), "[lost: 1.2 s of sound at the speaker (it died)]"),
        (Interrupted("a", 1234, "It is"), "[interrupted after 1.2 s, heard: It is]"),
        (Interrupted("a", 1234), "[interrupted after 1.2 s]"),
        (Interrupted("a", 0), "[interrupted before anything was heard]"),
        (
            ComponentRestarted("microphone", 3, "killed by SIGKILL", 119.6, 2, True),
            "[microphone crashed: killed by SIGKILL; back in 120 ms]",
        ),
        (
            ComponentParked("speaker", "raised OSError", 5),
            "[speaker keeps crashing: raised OSError; next try in 5 s]",
        ),
        (DeadLetter("speaker", "SetVolume", "killed", 1), "[lost: SetVolume for speaker (killed)]"),
        (
            Reconnected(True, 1, 800, "connection reset"),
            "[reconnected after 800 ms (connection reset), the conversation of 1 item restored]",
        ),
        (Reconnected(False, 0, 800), "[reconnected after 800 ms]"),
        (
            Reconnected(False, 3, 800, missing=1),
            (
                "[reconnected after 800 ms, 3 items of the conversation restored; "
                "1 turn of the user could not be: no transcript]"
            ),
        ),
        (ServerError("bad", "no such item"), "[the server refused something: no such item]"),
        (Notice("The line is noisy."), "[The line is noisy.]"),
        (
            STARTED,
            "[server: the sandbox; microphone: in.wav; speaker: out.wav; 2 processes]",
        ),
        (
            SessionStarted({}, "", "default", "null"),
            "[server: the OpenAI service; microphone: default; speaker: null; 0 processes]",
        ),
    ],
)
def test_each_thing_is_one_line(message: Message, line: str) -> None:
    assert shown(message) == f"{line}\n"


def test_messages_that_are_not_for_people_are_not_shown() -> None:
    assert shown(ResponseStarted("r"), PlaybackEnded("a", 10)) == ""


def test_gaps_in_the_sound_do_not_cut_a_sentence() -> None:
    text = shown(
        AssistantTranscript("b", "One, "),
        SoundFaltered("speaker", "late", 2),
        AssistantTranscript("b", "two."),
        Turn("assistant", "One, two.", "b"),
        live=True,
    )

    assert text == "assistant: One, two.\n"


def test_the_summary_lists_what_was_done_lost_and_written() -> None:
    assert shown(STARTED, ENDED).splitlines()[1:] == [
        "[ended after 42.1 s: stop tool; 5 turns, 1 tool call]",
        "[restarted: speaker 1 time]",
        "[lost: 3 CapturedAudio to recorder]",
        "[written: out.wav]",
    ]


def test_the_summary_lists_underruns_and_overruns() -> None:
    ended = msgspec.structs.replace(ENDED, faltered=("3 times at the speaker (late)",))

    assert "[sound faltered: 3 times at the speaker (late)]" in shown(STARTED, ended)


def test_a_session_that_never_started_has_no_summary() -> None:
    assert shown(ENDED) == ""


def test_in_a_terminal_the_answer_appears_as_it_comes() -> None:
    text = shown(
        Turn("user", "hi", "a"),
        AssistantTranscript("b", "Hel"),
        AssistantTranscript("b", "lo."),
        Turn("assistant", "Hello.", "b"),
        Turn("user", "again", "c"),
        live=True,
    )

    assert text == "you: hi\nassistant: Hello.\nyou: again\n"


def test_what_comes_in_between_does_not_tear_the_answer_apart() -> None:
    text = shown(
        AssistantTranscript("b", "One, "),
        Notice("Something."),
        AssistantTranscript("b", "two."),
        Turn("assistant", "One, two.", "b"),
        live=True,
    )

    assert text == "assistant: One,\n[Something.]\nassistant: … two.\n"


def test_the_question_stands_before_its_answer_and_the_tools() -> None:
    text = shown(
        UserSpeechStopped("a", 0),
        ToolCall("c", "clock", ""),
        AssistantTranscript("b", "Noon."),
        Turn("user", "the time?", "a"),
        Turn("assistant", "Noon.", "b"),
        live=True,
    )

    assert text == "you: the time?\n[tool clock]\nassistant: Noon.\n"


def test_speech_that_becomes_no_turn_holds_nothing_up_for_ever() -> None:
    text = shown(
        UserSpeechStopped("noise", 0),
        UserSpeechStopped("a", 0),
        AssistantTranscript("b", "Noon."),
        Turn("user", "the time?", "a"),
        UserSpeechStopped("more noise", 0),
        AssistantTranscript("c", "Yes?"),
        Turn("assistant", "Yes?", "c"),
        live=True,
    )

    assert text == "you: the time?\nassistant: Noon.\nassistant: Yes?\n"


def test_a_typed_turn_is_not_shown_again() -> None:
    stream = io.StringIO()
    transcript = ConsoleTranscript(stream, live=True, colour=False)

    transcript.typed("a")
    transcript.show(Turn("user", "hi", "a"))

    assert stream.getvalue() == ""


def test_nothing_said_can_steer_the_terminal() -> None:
    text = shown(
        Turn("assistant", "a\x1b[2Jb\nc", "x"),
        ToolAnswer("c", "t", "x\x07\ny" + "z" * 500),
        AssistantTranscript("d", "\r\x1b]0;title"),
        live=True,
    )

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\r" not in text
    assert text.count("\n") == 5
    assert len(text) < 200


def test_colours_are_for_terminals() -> None:
    assert shown(Turn("user", "hi", "a"), colour=True) == "\x1b[1;36myou:\x1b[0m hi\n"
    assert shown(Turn("user", "hi", "a")) == "you: hi\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    transcript = ConsoleTranscript(stream, live=False, colour=False)

    transcript.show(Turn("user", "hi", "a"))
    transcript.show(Turn("user", "hi", "b"))

    stream.close()  # nothing of it is left, which would fail here, and change the exit code


# -- the peer ---------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return a text without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


class Outputs:
    def __init__(self, *, terminal: bool = False, **options: Any) -> None:
        self.transcript = Terminal() if terminal else io.StringIO()
        self.errors = io.StringIO()
        self.events = io.BytesIO()
        self.console = Console(
            **{
                "transcript": self.transcript,
                "errors": self.errors,
                "events": self.events,
                **options,
            }
        )

    def tell(self, *messages: Message) -> Outputs:
        for message in messages:
            self.console.receive(message)
        assert self.console.close()
        return self

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.events.getvalue().splitlines()]


def test_every_event_is_a_line_with_its_name_and_time() -> None:
    lines = Outputs().tell(STARTED, Turn("user", "hi", "a"), ENDED).lines

    assert [line["event"] for line in lines] == ["session_started", "turn", "summary"]
    assert all(0 <= line["t"] < 10 for line in lines)
    assert lines[0]["pids"] == {"speaker": 7, "supervisor": 1}
    assert lines[1] | {"t": 0} == {
        "event": "turn",
        "t": 0,
        "role": "user",
        "text": "hi",
        "item_id": "a",
        "transcribed": True,
        "image": None,
    }


def test_every_kind_of_event_has_a_name_and_can_be_written() -> None:
    def fields(kind: type[Event]) -> dict[str, Any]:
        empty = {"str": "", "int": 0, "float": 0.0, "bool": False}
        return {
            field.name: empty.get(str(field.type).removeprefix("<class '").removesuffix("'>"), "")
            for field in msgspec.structs.fields(kind)
            if field.required
        }

    for kind in Event.__subclasses__():
        line = json.loads(event_line(kind(**fields(kind)), 1.23456))
        assert line["event"]
        assert line["t"] == 1.235


def test_levels_are_wanted_only_where_they_are_shown_or_written() -> None:
    levels = {InputLevel, OutputLevel}

    assert not levels & Outputs().console.wants
    assert levels <= Outputs(levels=True).console.wants
    assert not levels & Outputs(levels=True, events=None).console.wants


def test_levels_are_written_among_the_events() -> None:
    outputs = Outputs(levels=True).tell(InputLevel(-21.5, -9.0), OutputLevel(-96.0, -96.0))

    assert [line["event"] for line in outputs.lines] == ["input_level", "output_level"]
    assert outputs.lines[0]["rms_dbfs"] == -21.5
    assert outputs.transcript.getvalue() == ""


def test_levels_are_a_meter_at_a_terminal_that_makes_way_for_the_transcript() -> None:
    outputs = Outputs(terminal=True, levels=True).tell(
        InputLevel(-40.0, -30.0),
        OutputLevel(-12.0, -6.0),
        Turn("user", "hi", "a"),
        AssistantTranscript("b", "Hel"),
        InputLevel(-96.0, -96.0),
        AssistantTranscript("b", "lo"),
        Turn("assistant", "Hello", "b"),
        InputLevel(-10.0, 0.0),
        InputLevel(-10.0, -1.0),
    )

    assert Screen(80, 6).shows(plain(outputs.transcript.getvalue())) == [
        "you: hi",
        "assistant: Hello",
    ]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (EchoState("cancelled", 34.2, 60), " echo -34 dB       "),
        (EchoState("cancelled"), " no echo           "),
        (EchoState("failed", 6.0), " echo not cancelled"),
        (EchoState("learning"), " " * 19),
    ],
)
def test_beside_the_levels_is_what_is_taken_of_the_echo(state: EchoState, shown: str) -> None:
    outputs = Outputs(terminal=True, levels=True).tell(state, InputLevel(-40.0, -30.0))

    assert f"speaker [----------]{shown}" in outputs.transcript.getvalue()
    assert outputs.lines[0]["event"] == "echo_state"


SAID = "One 二 three fou\u0308r 五 six seven eight, one two three. " * 8
PIECES = [AssistantTranscript("b", piece) for piece in re.findall(r".{1,7}", SAID)]


def shown_on(width: int, monkeypatch: pytest.MonkeyPatch, *messages: Message) -> list[str]:
    """Return what a terminal of this width shows while the console has not ended."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _fd: os.terminal_size((width, 6)))
    monkeypatch.setattr(Terminal, "fileno", lambda _self: 1)
    stream = Terminal()
    transcript = ConsoleTranscript(stream, live=True, colour=False)
    for message in messages:
        if isinstance(message, OutputLevel):
            transcript.bottom(f"[{'#' * -int(message.rms_dbfs):-<12}]")
        else:
            transcript.show(message)
    return Screen(width, 6).shows(stream.getvalue())


def test_levels_are_shown_below_what_the_assistant_says(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown_on(
        40,
        monkeypatch,
        AssistantTranscript("b", "Once upon a time "),
        OutputLevel(-3.0, -6.0),
        AssistantTranscript("b", "there was a small lighthouse on a rock "),
    )

    assert lines == [
        "assistant: Once upon a time there was a",
        "small lighthouse on a rock",
        "[###---------]",
    ]


@pytest.mark.parametrize("width", range(20, 40))
def test_words_are_whole_at_every_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown_on(width, monkeypatch, *PIECES, Turn("assistant", SAID, "b"))

    words = " ".join(lines).split()
    assert words == f"assistant: {SAID}".split()
    assert all(width_of(line) < width for line in lines)


@pytest.mark.parametrize("width", range(20, 40))
def test_levels_take_no_letter_of_what_is_said(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(at: int) -> OutputLevel:
        return OutputLevel(-float(at % 12), 0.0)

    both = [one for at, piece in enumerate(PIECES) for one in (piece, loud(at))]
    end = Turn("assistant", SAID, "b")

    *lines, meter = shown_on(width, monkeypatch, *both, end)

    assert meter.startswith("[#")
    assert lines == shown_on(width, monkeypatch, *PIECES, end)


def test_a_turn_that_arrives_twice_is_shown_once() -> None:
    outputs = Outputs().tell(Turn("user", "hi", "a"), Turn("user", "hi", "a"))

    assert outputs.transcript.getvalue() == "you: hi\n"
    assert len(outputs.lines) == 1


def test_a_quick_restart_is_one_line() -> None:
    outputs = Outputs().tell(
        ComponentCrashed("speaker", 7, "killed by SIGKILL"),
        ComponentRestarted("speaker", 8, "killed by SIGKILL", 120.0, 2, True),
    )

    assert outputs.transcript.getvalue() == "[speaker crashed: killed by SIGKILL; back in 120 ms]\n"
    assert [line["event"] for line in outputs.lines] == ["component_crashed", "component_restarted"]


def test_a_crash_without_a_restart_is_shown_too() -> None:
    outputs = Outputs().tell(STARTED, ComponentCrashed("speaker", 7, "hung for 3.0 s"), ENDED)

    assert "[speaker crashed: hung for 3.0 s]\n[ended" in outputs.transcript.getvalue()


def test_a_failure_goes_to_the_errors() -> None:
    outputs = Outputs().tell(SessionFailed("the key is wrong: set OPENAI_API_KEY"))

    assert outputs.errors.getvalue() == "rtvoice: the key is wrong: set OPENAI_API_KEY\n"
    assert outputs.transcript.getvalue() == ""


def test_hints_are_shown_once_the_session_runs() -> None:
    outputs = Outputs()
    outputs.console.hints = lambda: ["Type."]
    outputs.console.sandbox_hints = lambda: ["It understands hello."]

    outputs.tell(STARTED)

    assert outputs.transcript.getvalue().splitlines()[1:] == ["It understands hello.", "Type."]


def test_log_records_from_the_level_on_are_rendered() -> None:
    raw = msgspec.msgpack.encode
    fields = {"tool": msgspec.Raw(raw("x")), "traceback": msgspec.Raw(raw("Trace\nback"))}

    text = (
        Outputs(log_level=logging.WARNING)
        .tell(Log("INFO", "quiet"), Log("WARNING", "a tool raised", fields, "tools"))
        .errors.getvalue()
    )

    assert "quiet" not in text
    assert "a tool raised" in text
    assert "component=tools" in text
    assert "Trace\nback" in text


def test_a_terminal_wants_pieces_of_text_and_a_pipe_does_not() -> None:
    plain = Console(transcript=io.StringIO(), errors=io.StringIO())
    terminal = Console(transcript=Terminal(), errors=io.StringIO())

    assert AssistantTranscript not in plain.wants
    assert AssistantTranscript in terminal.wants
    assert {Turn, SessionEnded, Log} <= plain.wants
    plain.close()
    terminal.close()


class Stuck(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.free = threading.Event()

    def write(self, data: Any) -> int:
        self.writing.set()
        self.free.wait(10)
        return super().write(data)


def test_a_reader_that_is_too_slow_costs_events_but_never_the_hub_or_the_summary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console_module, "_MAX_QUEUED", 10)
    events = Stuck()
    transcript = io.StringIO()
    console = Console(transcript=transcript, errors=io.StringIO(), events=events)
    console.receive(STARTED)
    assert events.writing.wait(5)

    for number in range(100):
        console.receive(Turn("user", "hi", str(number)))
    console.receive(ENDED)
    events.free.set()
    assert console.close()

    assert console.dropped == 90
    assert events.getvalue().count(b"\n") == 12
    assert b"summary" in events.getvalue().splitlines()[-1]
    assert "90 events not shown" in transcript.getvalue()


def test_a_console_that_is_stuck_says_so() -> None:
    events = Stuck()
    console = Console(transcript=io.StringIO(), errors=io.StringIO(), events=events)
    console.receive(STARTED)
    assert events.writing.wait(5)

    assert not console.close(timeout_s=0.01)

    events.free.set()


def test_unread_events_are_reported() -> None:
    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    told = threading.Event()
    console = Console(transcript=io.StringIO(), errors=io.StringIO(), events=Closed())
    console.events_closed = told.set

    console.receive(STARTED)

    assert told.wait(5)
    console.close()


# -- the keyboard -----------------------------------------------------------------------------


def keyboard(send: Callable[[Message], None], stream: Any = None) -> tuple[Keyboard, Outputs]:
    outputs = Outputs()
    return Keyboard(stream, send, outputs.console), outputs


def test_a_line_is_a_turn_and_is_not_shown_again() -> None:
    sent: list[Message] = []
    keys, outputs = keyboard(sent.append)

    keys.obey("  what time is it \n")
    turn = sent[0]

    assert isinstance(turn, SendText)
    assert turn.text == "what time is it"
    assert len(turn.item_id) == 32
    outputs.tell(Turn("user", turn.text, turn.item_id))
    assert outputs.transcript.getvalue() == ""


def test_keys_interrupt_mute_and_quit() -> None:
    sent: list[Message] = []
    keys, outputs = keyboard(sent.append)

    for line in ("\n", "m\n", "m\n", "q\n"):
        keys.obey(line)

    assert sent == [Interrupt(), SetMuted(True), SetMuted(False), StopSession("the user quit")]
    assert outputs.tell().transcript.getvalue() == "[muted; m again to be heard]\n[unmuted]\n"


def test_with_push_to_talk_enter_begins_and_ends_a_turn() -> None:
    sent: list[Message] = []
    outputs = Outputs()
    keys = Keyboard(io.StringIO(), sent.append, outputs.console, push_to_talk=lambda: True)
    before = time.monotonic_ns()

    for line in ("\n", "m\n", "\n"):
        keys.obey(line)

    start, mute, stop = sent
    assert mute == SetMuted(True)
    assert isinstance(start, StartTalking)
    assert isinstance(stop, StopTalking)
    assert before <= start.at_ns <= stop.at_ns <= time.monotonic_ns()
    shown = outputs.tell().transcript.getvalue().splitlines()
    assert shown[0] == "[listening; Enter when you have finished]"
    assert shown[-1] == "[heard]"


def test_the_help_names_what_the_keys_do() -> None:
    assert "Enter interrupts" in keyboard_help(push_to_talk=False)[0]
    assert "Enter begins your turn" in keyboard_help(push_to_talk=True)[0]
    assert no_keyboard(push_to_talk=False) == ()
    assert "there is no terminal" in no_keyboard(push_to_talk=True)[0]


def test_an_image_is_shown_beside_its_text() -> None:
    image = SentImage("x.png", "image/png")
    outputs = Outputs()

    outputs.tell(
        Turn("user", "What is this?", "a", image=image), Turn("user", "", "b", image=image)
    )

    assert outputs.transcript.getvalue() == "you: [an image] What is this?\nyou: [an image]\n"


def test_a_push_to_talk_turn_without_speech_delays_nothing() -> None:
    outputs = Outputs()

    outputs.tell(UserSpeechStopped("", 0), ToolCall("c1", "clock", "{}"))

    assert outputs.transcript.getvalue() == "[tool clock]\n"


def terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal."""
    try:
        return pty.openpty()
    except OSError as error:  # a bare chroot has no /dev/pts
        pytest.skip(f"NO TERMINAL to be had: {error}")


def test_a_terminal_is_read_line_by_line_until_it_is_closed() -> None:
    master, slave = terminal()
    sent: list[Message] = []
    os.write(master, b"hello\n\xc3\xa4\n\x04")

    with os.fdopen(slave, "r") as stream:
        keys, outputs = keyboard(sent.append, stream)
        keys.read()

    assert [message.text for message in sent[:2]] == ["hello", "ä"]
    assert sent[2] == StopSession("the keyboard was closed")
    os.close(master)
    outputs.tell()


def test_what_is_no_terminal_is_not_read() -> None:
    assert not in_foreground(io.StringIO())
    master, slave = terminal()
    with os.fdopen(slave, "r") as stream:
        assert not in_foreground(stream)
    os.close(master)


@pytest.mark.parametrize(
    "text", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f680"]
)
def test_joiners_are_shown_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_what_controls_a_terminal_is_not_shown() -> None:
    assert printable("a\x1b[2Jb\rc\u202e") == "a [2Jb c "
