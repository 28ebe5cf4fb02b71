"""What keys and slash commands do: one table for the keys, the commands and the help."""

from __future__ import annotations

import difflib
from typing import NamedTuple

__all__ = ["COMMANDS", "KEYS", "CommandError", "help_lines", "parsed"]


class Command(NamedTuple):
    """One thing that the user can have done."""

    name: str
    keys: tuple[str, ...]
    """Names of keys as textual has them; they count outside the input line."""
    shown: str
    """The keys as people know them."""
    argument: str
    """What may follow the slash command; empty: nothing."""
    help: str


COMMANDS = (
    Command("help", ("f1", "question_mark"), "F1 ?", "", "show the keys"),
    Command("interrupt", ("enter",), "Enter", "", "interrupt; push-to-talk: begin, end your turn"),
    Command("talk", ("space",), "Space", "", "push-to-talk: begin your turn, or end it"),
    Command("mute", ("m",), "m", "", "mute the microphone, or unmute it"),
    Command("volume", ("plus", "minus", "equals_sign"), "+ -", "PERCENT", "volume"),
    Command("speed", ("left_square_bracket", "right_square_bracket"), "[ ]", "FACTOR", "speed"),
    Command("devices", ("d",), "d", "", "use another sound card"),
    Command("kill", ("k",), "k", "PROCESS", "kill a process, and see it come back"),
    Command("drop", ("r",), "r", "", "drop the connection to the server"),
    Command("save", ("s",), "s", "", "save the transcript"),
    Command("processes", ("p", "2"), "p", "", "the processes"),
    Command("turn", ("w", "3"), "w", "", "the last turn, tokens and cost"),
    Command("log", ("l", "4"), "l", "", "the log"),
    Command("tools", ("tab",), "Tab", "", "choose a tool call; Enter unfolds it"),
    Command("quit", ("q",), "q", "", "end the conversation"),
)
KEYS = {key: command for command in COMMANDS for key in command.keys}
_NAMES = {command.name: command for command in COMMANDS}
_TYPING = (
    ("/ Ctrl-T", "type: each key is text, a line is said for you, /NAME is a command"),
    ("Esc", "stop typing"),
    ("↑ ↓ PgUp PgDn", "scroll; while typing, ↑ ↓ are earlier lines"),
    ("Home End", "begin and end of the talk"),
    ("Ctrl-C", "end the conversation; a second one kills it"),
)


class CommandError(Exception):
    """Raised for a slash command that is not valid; the text says what is."""


def parsed(line: str) -> tuple[str, str]:
    """Return name and argument of a slash command.

    Raises:
        CommandError: There is no such command, or an argument is missing or too many.
    """
    name, _, argument = line.removeprefix("/").strip().partition(" ")
    name, argument = name.lower(), argument.strip()
    command = _NAMES.get(name)
    if command is None:
        near = difflib.get_close_matches(name, _NAMES, 1, 0.5)
        begun = [known for known in _NAMES if name and known.startswith(name)]
        hint = f"; did you mean /{(near or begun)[0]}?" if near or begun else "; /help lists them"
        raise CommandError(f"there is no command /{name}{hint}")
    if argument and not command.argument:
        raise CommandError(f"/{name} takes nothing behind it")
    return name, argument


def help_lines() -> list[tuple[str, str, str]]:
    """Return keys, slash command and meaning of each command, and of the other keys."""
    lines = [
        (command.shown, f"/{command.name} {command.argument}".strip(), command.help)
        for command in COMMANDS
    ]
    return [*lines, *((keys, "", text) for keys, text in _TYPING)]
