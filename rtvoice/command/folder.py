"""``rtvoice show``, ``replay`` and ``resume``: what can be done with the folder of a session."""

from __future__ import annotations

import collections
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from actors.devices.errors import DeviceError
from actors.files import path_of, why_not
from messages.errors import UserError
from messages.exit_codes import EXIT_KILLED, EXIT_OK, EXIT_USAGE
from messages.hints import rtvoice
from messages.paths import printable
from rtvoice.command.parser import Parser
from rtvoice.command.printing import OutputError, fitting, writing_to
from rtvoice.folder import Folder, Part, Said, UnreadableFolderError
from rtvoice.folder.formats import as_json, as_markdown, as_text, line_of
from rtvoice.folder.page import as_page
from rtvoice.folder.playing import play
from rtvoice.folder.sound import Recording, as_wav
from rtvoice.folder.turns import said_in

__all__ = ["COMMANDS", "obey"]

_Run = Callable[[Sequence[str]], int]
"""Runs a conversation with arguments of the command line, and returns the exit code."""

_PIECES: dict[str, Callable[[Folder], Iterator[str]]] = {
    "text": lambda folder: (f"{line}\n" for line in as_text(folder)),
    "markdown": lambda folder: (f"{line}\n" for line in as_markdown(folder)),
    "json": lambda folder: iter((f"{as_json(folder)}\n",)),
    "html": as_page,
}


def _show(arguments: Sequence[str], _: _Run) -> int:
    parser = _parser("show", "Show a conversation that was kept with --session FOLDER.")
    parser.add_argument(
        "--format",
        choices=_PIECES,
        default="text",
        help="text (the default), markdown, json, or html: one page with the sound of each turn",
    )
    parser.add_argument("--to", metavar="FILE", help="write it to a file, instead of printing it")
    parser.add_argument(
        "--purge", action="store_true", help="remove the conversation from the disk, and say so"
    )
    options = parser.parse_args(arguments)
    folder = Folder(path_of(options.folder))
    if options.purge:
        return _purge(folder)
    pieces = _PIECES[options.format](folder)
    if options.to is not None:
        _write(path_of(options.to), pieces)
    else:
        write = writing_to(sys.stdout)
        for piece in pieces:
            write(fitting(piece, sys.stdout) if options.format == "text" else piece)
    if folder.damaged:
        _complain(f"{folder.damaged} damaged lines were passed over")
    return EXIT_OK


def _purge(folder: Folder) -> int:
    try:
        left = folder.purge()
    except OSError as error:
        raise UnreadableFolderError(folder.path, str(error.strerror)) from error
    print(f"removed: {folder.path}" if not left else f"removed: the conversation in {folder.path}")
    if left:
        print(f"kept, since rtvoice has not made it: {', '.join(path.name for path in left)}")
    return EXIT_OK


def _write(path: Path, pieces: Iterator[str]) -> None:
    """Write a file; a new one is readable by its owner alone, as the folder is."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.writelines(pieces)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {why_not(path, error)}") from error


def _replay(arguments: Sequence[str], run: _Run) -> int:
    parser = _parser(
        "replay",
        "Play the recording of a conversation in time, with what was said; or, with --sandbox, "
        "hold it again: what the user has said is said to the sandbox. Then other options are "
        "those of a session, such as --events events.jsonl.",
    )
    parser.add_argument(
        "--output", metavar="DEV", default="default", help="where it is played, as for a session"
    )
    parser.add_argument("--sandbox", action="store_true", help="say it to the sandbox again")
    options, others = parser.parse_known_args(arguments)
    if others and not options.sandbox:
        parser.error(parser.no_option(others[0], "only --sandbox takes those of a session"))
    folder = Folder(path_of(options.folder))
    recordings = [
        (part, said_in(part, view), Recording(part.recording))
        for part, view in folder.views()
        if part.recording is not None
    ]
    if not recordings:
        raise UnreadableFolderError(folder.path, "it has no recording")
    if options.sandbox:
        heard = [recording for _, _, recording in recordings]
        return _say_again(heard, options.output, others, run)
    for part, said, recording in recordings:
        _play(part, list(said), recording, options.output)
    return EXIT_OK


def _play(part: Part, said: list[Said], recording: Recording, output: str) -> None:
    print(f"{part.started:%Y-%m-%d %H:%M:%S} UTC", flush=True)
    waiting = collections.deque(said)  # in the order of the talk, whatever was known first

    def tick(now_s: float) -> None:
        while waiting and _begins(part, waiting[0]) <= now_s:
            print(fitting(line_of(waiting.popleft()), sys.stdout), flush=True)

    play(recording.mixed(), output, tick)
    tick(float("inf"))


def _begins(part: Part, said: Said) -> float:
    """Return when an entry begins, in seconds of the recording."""
    return said.entry.at_s - part.epoch_s if said.start_s is None else said.start_s


def _say_again(recordings: list[Recording], output: str, others: list[str], run: _Run) -> int:
    with tempfile.TemporaryDirectory(prefix="rtvoice-replay-") as place:
        path = Path(place, "user.wav")
        path.write_bytes(as_wav(b"".join(recording.of("user") for recording in recordings)))
        given = ["--input", str(path), "--output", output, "--server", "sandbox"]
        return run([*given, *others])


def _resume(arguments: Sequence[str], run: _Run) -> int:
    if arguments[:1] in (["--help"], ["-h"], []):
        parser = _parser(
            "resume",
            "Go on with a conversation that was kept with --session FOLDER. Other arguments are "
            "those of any conversation: an AGENT, and options behind the folder.",
        )
        parser.parse_args(arguments)
    folder = arguments[0]
    if not path_of(folder).is_dir():
        raise UnreadableFolderError(path_of(folder), "there is no such folder")
    Folder(path_of(folder))
    return run(["--resume", folder, *arguments[1:]])


COMMANDS = {"show": _show, "replay": _replay, "resume": _resume}
"""What a first argument of the command may be, beside an agent."""


def obey(arguments: Sequence[str], run: _Run) -> int:
    """Run one of `COMMANDS`; return the exit code.

    Args:
        arguments: The name of the command, and its arguments.
        run: Runs a conversation with these arguments, and returns the exit code.
    """
    try:
        return COMMANDS[arguments[0]](arguments[1:], run)
    except (UserError, DeviceError, OutputError, ValueError, OSError) as error:
        _complain(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_KILLED


def _parser(name: str, text: str) -> Parser:
    parser = Parser(prog=rtvoice(name), description=textwrap.fill(text, 78))
    parser.add_argument("folder", metavar="FOLDER", help="the folder of a session")
    return parser


def _complain(text: str) -> None:
    print(fitting(f"rtvoice: {printable(text)}", sys.stderr), file=sys.stderr)
