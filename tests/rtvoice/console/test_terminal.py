"""The console as its user has it: the real program in a terminal, driven by keys."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.terminal import Terminal

QUIET = ("--server", "sandbox", "--input", "silence", "--output", "null")
ESC, CTRL_C, CTRL_T = "\x1b", "\x03", "\x14"


@pytest.mark.parametrize(("columns", "rows"), [(60, 16), (80, 24), (200, 50)])
def test_a_conversation_in_which_the_speaker_is_killed(
    columns: int, rows: int, tmp_path: Path
) -> None:
    wrong = {"COLUMNS": "80", "LINES": "24"}  # as some shells export them
    with Terminal(columns, rows, *QUIET, cwd=tmp_path, **wrong) as terminal:
        state = "underruns 0 · lost 0 · restarts 0 · vol 100%"
        lines = terminal.shows("LISTENING", state, "The sandbox understands", "goodbye", "KEYS")
        assert re.match(r"LISTENING +mic ·+  out ·+", lines[0])
        assert state in lines[1]
        if columns < 110:  # all of the talk fits between the edges
            talk = " ".join(" ".join(lines[3:-1]).split())
            assert "set the volume to fifty percent (ten, twenty ... one hundred)" in talk

        terminal.press(f"{CTRL_T}what is your name\r")
        terminal.shows("TYPING", "you        what is your name", "assistant  My name is Sandbox.")
        terminal.press("/kill speaker\r")
        terminal.shows("killed by SIGKILL; back in")
        terminal.press(ESC)
        terminal.shows("KEYS", "restarts 1")
        terminal.press("p")
        terminal.shows_line(r"[✔●] speaker +(up · )?back in \d+ ms")
        terminal.shows("● supervisor")

        terminal.press("q")
        code, lines = terminal.end()

        assert code == 0
        assert terminal.is_restored
        text = " ".join(lines)
        assert "the user quit; 2 turns, 0 tool" in text
        assert "[restarted: speaker 1 time]" in text
        assert "[lost: nothing]" in text
        assert "Traceback" not in text


def test_what_was_not_heard_is_struck_also_without_colours(tmp_path: Path) -> None:
    with Terminal(80, 24, *QUIET, cwd=tmp_path, NO_COLOR="1") as terminal:
        terminal.shows("LISTENING")
        terminal.press(f"{CTRL_T}tell me a story\r{ESC}")
        terminal.shows("SPEAKING", "lamp")
        terminal.press("\r")

        terminal.shows("[interrupted]", "LISTENING")

        struck = terminal.struck()
        assert "lamp" in struck
        assert "Once" not in struck
        assert not re.search(rb"\x1b\[[\d;]*(3[0-8]|4[0-8]|9\d)[;m]", bytes(terminal.written))
        terminal.press("q")
        assert terminal.end()[0] == 0


@pytest.mark.parametrize(
    ("presses", "code"), [(1, 0), (2, 130)], ids=["in order", "killed by the second"]
)
def test_ctrl_c_ends_it(presses: int, code: int, tmp_path: Path) -> None:
    with Terminal(80, 24, *QUIET, cwd=tmp_path) as terminal:
        terminal.shows("LISTENING")
        for _ in range(presses):
            terminal.press(CTRL_C)

        found, lines = terminal.end()

        assert found in {code, 0}  # it may have ended before the second one
        assert terminal.is_restored
        if presses == 1:
            assert "Ctrl-C; 0 turns" in "\n".join(lines)


def test_a_signal_restores_the_terminal(tmp_path: Path) -> None:
    with Terminal(80, 24, *QUIET, cwd=tmp_path) as terminal:
        terminal.shows("LISTENING")
        terminal.process.send_signal(signal.SIGTERM)

        code, lines = terminal.end()

        assert code == 0
        assert terminal.is_restored
        assert "SIGTERM; 0 turns" in "\n".join(lines)


def test_a_terminal_that_vanishes_ends_the_conversation_in_order(tmp_path: Path) -> None:
    with Terminal(80, 24, *QUIET, "--session", "talk", cwd=tmp_path) as terminal:
        terminal.shows("LISTENING")
        terminal.vanish()

        code, _ = terminal.end()

    assert code == 0
    assert b"SIGHUP" in (tmp_path / "talk" / "events.jsonl").read_bytes().splitlines()[-1]


def test_a_bug_of_the_console_ends_the_conversation_in_order_and_is_told(tmp_path: Path) -> None:
    bug = "import rtvoice.console.orders as orders\ndef boom(*_): raise ValueError('a bug')\n"
    bug += "orders.help_lines = boom\n"
    (tmp_path / "broken.py").write_text(
        f"{bug}import sys\nsys.argv[0] = 'rtvoice'\nfrom rtvoice.command.cli import main\nmain()\n"
    )
    with Terminal(80, 24, *QUIET, cwd=tmp_path, program=["broken.py"]) as terminal:
        terminal.shows("LISTENING")
        terminal.press("?")

        code, lines = terminal.end()

        text = " ".join("".join(lines).split())
        assert code == 70
        assert terminal.is_restored
        assert "ValueError: a bug" in text
        assert "Please report the lines above" in text


def test_a_session_that_cannot_start_says_why_below_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import not_there\n")
    with Terminal(80, 24, "mine.py:agent", *QUIET, cwd=tmp_path) as terminal:
        code, lines = terminal.end()

        assert code == 2
        assert terminal.is_restored
        assert "No module named 'not_there'" in " ".join("".join(lines).split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("--server", "ws://127.0.0.1:9", "--connect-timeout", "0.5"),
            "no session with ws://127.0.0.1:9 within 0.5 s: nothing listens there (Connection refu",
        ),
        (("--resume", "nothing"), "--resume: there is no file or folder nothing"),
        (("--sesion", "x"), "there is no option --sesion; did you mean --session?"),
    ],
    ids=["session", "files", "options"],
)
def test_what_is_wrong_is_said_in_whole_words(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    with Terminal(40, 24, *QUIET, *arguments, cwd=tmp_path) as terminal:
        _, lines = terminal.end()

    assert f"rtvoice: {text}" in " ".join(line.strip() for line in lines)


@pytest.mark.parametrize("kept", ["--journal", "--session"])
def test_a_killed_console_ends_the_session(tmp_path: Path, kept: str) -> None:
    with Terminal(80, 24, *QUIET, kept, "talk", cwd=tmp_path) as terminal:
        terminal.shows("LISTENING")
        terminal.press(f"{CTRL_T}hello\r")
        terminal.shows("you        hello", "assistant  ")
        terminal.process.kill()
        terminal.process.wait()

    with Terminal(80, 24, *QUIET, "--resume", "talk", cwd=tmp_path) as terminal:
        terminal.shows("you        hello")
        terminal.press("q")
        assert terminal.end()[0] == 0


# -- plain lines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "rows", "more", "environment"),
    [
        (59, 24, (), {}),
        (80, 24, ("--plain",), {}),
        pytest.param(80, 15, (), {}, marks=pytest.mark.long),
        pytest.param(80, 24, (), {"TERM": "dumb"}, marks=pytest.mark.long),
    ],
    ids=["narrow", "asked for", "low", "dumb"],
)
def test_other_terminals_have_plain_lines(
    columns: int, rows: int, more: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(
        columns, rows, *QUIET, *more, "--max-seconds", "0.1", cwd=tmp_path, **environment
    ) as terminal:
        code, _ = terminal.end()

        assert code == 0
        assert b"\x1b[?1049h" not in terminal.written
        assert b"[server: the sandbox" in terminal.written


def test_without_textual_the_lines_begin_with_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "without.py").write_text(
        "import rtvoice.console.start as start\nstart.is_installed = lambda: False\n"
        "from rtvoice.command.cli import main\nmain()\n"
    )
    with Terminal(
        80, 24, *QUIET, "--max-seconds", "0.1", cwd=tmp_path, program=["without.py"]
    ) as terminal:
        code, lines = terminal.end()

        assert code == 0
        assert lines[0].startswith("There is a console with more to see: ")
        assert lines[0].endswith(("install textual", "--setup"))


def test_what_is_typed_stays_apart_from_what_is_said(tmp_path: Path) -> None:
    with Terminal(60, 24, *QUIET, "--plain", cwd=tmp_path) as terminal:
        terminal.shows("Type a line")
        terminal.press("tell me a story\r")
        terminal.shows("you: tell me a story", "assistant: Once upon")
        terminal.press("half a line")
        lines = terminal.shows("> half a line", "lamp")

        typed = [line for line in lines if "half a line" in line]
        assert typed == ["> half a line"]
        story = lines[next(y for y, line in enumerate(lines) if "Once upon" in line) :]
        assert story[0].endswith("small lighthouse on")  # words are whole
        terminal.press("\x15q\r")
        code, lines = terminal.end()
        assert code == 0
        assert terminal.settings() == terminal.before
