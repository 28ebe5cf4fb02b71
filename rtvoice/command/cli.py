"""The command: ``python -m supervisor``, also installed as ``rtvoice``."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from msgspec import UNSET

from actors.devices.opening import is_file
from actors.files import path_of, same_file
from messages import LEVELS, validation
from messages.errors import ConfigurationError, InvalidSettingError
from messages.exit_codes import EXIT_BUG, EXIT_KILLED, EXIT_USAGE
from messages.hints import install, rtvoice
from messages.paths import printable
from messages.settings import SETTINGS, Option
from messages.transport.spawning import start_fork_server
from rtvoice.command.choice import NEVER, Card, Choice, UsageError, choose, read_env_file
from rtvoice.command.parser import Parser
from rtvoice.command.printing import OutputError, discard_rest, fitting, open_closed_streams

if TYPE_CHECKING:
    from rtvoice.command.console import Console
    from rtvoice.command.conversation import CommandSession

__all__ = ["main", "run"]

_DESCRIPTION = """\
Talk with a voice assistant. Without options:

  a key and a sound card      a conversation with the OpenAI service
  a sound card, no key        a conversation with the sandbox, a server on this machine that
                              understands a few phrases (it lists them) and costs nothing
  no sound card               the demo: a scripted conversation with the sandbox, as WAV files and
                              a transcript; it never uses the service
"""

_WIDTH = 100
"""Columns of the help."""
_OF_A_FOLDER = ("show", "replay", "resume")
"""The sub-commands of `rtvoice.command.folder`."""
_EXAMPLES = {
    "": "talk, or watch the demo",
    "assistant.py:agent": "talk with an agent of your own",
    "--input silence --output null": "type instead of talking",
    "--web assistant.py:agent": "talk with it on a page in a browser",
    "--list-devices": "the devices for --input and --output",
    "--doctor": "check whether a session would work here",
    "--record talk.wav --events events.jsonl": "",
    "--input question.wav --output reply.wav --server sandbox": "",
    "--session talk": "keep journal, recording and events in a folder",
    "show talk": "what was said in it; replay talk, resume talk (show --help)",
    "serve shop.py:make_agent": "hold many conversations, with callers (serve --help)",
    "fleet --help": "the same on several hosts, which may die",
}
_EPILOG = """\
an agent (assistant.py):
  from rtvoice import Agent
  agent = Agent("You are a pirate.", voice="cedar", transcription_model="gpt-transcribe")

at the terminal, during a conversation:
  the console (with textual): ? shows the keys; / or Ctrl-T begins to type, Esc stops;
  Enter interrupts (with --push-to-talk, begins and ends your turn); m mutes, + - volume, [ ] speed,
  k kills a process, s saves the transcript, q quits
  plain lines (--plain): a line of text is said for you; Enter alone interrupts; m mutes; q quits
  Ctrl-C ends gracefully, a second one kills; lines of a pipe are said one after the other

environment (also read from a .env file in this folder, which never overrides the real one):
  OPENAI_API_KEY      the key of the OpenAI service
  RTVOICE_SERVER      openai, sandbox or a ws:// or wss:// URL; --server overrides it
  RTVOICE_INPUT       a device; --input overrides it
  RTVOICE_OUTPUT      a device; --output overrides it
  RTVOICE_LOG_LEVEL   DEBUG, INFO, WARNING (the default) or ERROR; --log-level overrides it
  RTVOICE_FORK        0: each process is an interpreter of its own, which takes longer to start
  NO_COLOR            no colours

exit codes:
  0 ended as asked (goodbye, timeout, end of input, --max-seconds, Ctrl-C, SIGTERM)
  2 wrong usage or configuration     3 the session failed     130 killed by a second Ctrl-C
"""


# -- the options ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=rtvoice(), description=_DESCRIPTION, epilog=f"{_examples()}\n{_EPILOG}")
    add = parser.add_argument
    add("agent", nargs="?", metavar="AGENT", help="file.py:name or module:name of an rtvoice.Agent")

    groups = {
        group: parser.add_argument_group(group)
        for group in ("devices", "conversation", "end", "files", "others")
    }
    for name, setting in SETTINGS.items():
        if setting.option is not None:
            _add_setting(groups[setting.option.group].add_argument, name, setting.option)
    add = groups["devices"].add_argument
    add("--list-devices", action="store_true", help="list the sound devices, and exit")
    add("--json", action="store_true", help="with --list-devices or --doctor: as JSON")
    add = groups["files"].add_argument
    add("--levels", action="store_true", help="show how loud both sides are, also in --events")
    add("--events", metavar="FILE", help="write events as lines of JSON; -: to standard output")
    _add_web(parser.add_argument_group("in a browser").add_argument)
    add = groups["others"].add_argument
    add(
        "--doctor",
        action="store_true",
        help="check whether a session would work here, and say what to do",
    )
    add("--plain", action="store_true", help="plain lines, not the console on the whole screen")
    add("--demo", action="store_true", help="run the demo, even if there is a sound card")
    level = partial(_value_of, "log_level")
    levels = ", ".join(LEVELS)
    add("--log-level", type=lambda text: level(text.upper()), metavar="LEVEL", help=levels)
    add("--version", action="version", version=_version())
    return parser


def _add_web(add: Callable[..., object]) -> None:
    add("--web", action="store_true", help="talk on a page in a browser; prints its address")
    add("--port", metavar="PORT", help="with --web: port to listen on (8080); 0: any free one")
    add("--host", metavar="HOST", help="with --web: address to listen on (127.0.0.1)")
    add("--tls-cert", metavar="FILE", help="with --web: a certificate (PEM), for other machines")
    add("--tls-key", metavar="FILE", help="with --web: its private key (PEM)")
    add("--insecure", action="store_true", help="with --web: allow --host without TLS")


def _examples() -> str:
    lines = [line for example in _EXAMPLES.items() for line in _example(*example)]
    return "\n".join(["examples:", *lines, ""])


def _example(arguments: str, what: str) -> list[str]:
    """Return the lines of an example; the path in a command may be long."""
    import textwrap

    command = f"  {rtvoice(arguments)}"
    line = f"{command.ljust(len(rtvoice()) + 34)}{what}".rstrip()
    if len(line) <= _WIDTH:
        return [line]
    parts = textwrap.wrap(command, _WIDTH - 2, subsequent_indent=" " * 6, break_on_hyphens=False)
    explained = [f"      # {what}"] if what else []
    return [*(f"{part} \\" for part in parts[:-1]), parts[-1], *explained]


def _version() -> str:
    from rtvoice import __version__

    return f"rtvoice {__version__}"


def _add_setting(add: Callable[..., object], name: str, option: Option) -> None:
    """Add the option of a setting. Its attribute is named after its flag (see `fields_given`)."""
    if option.value is not UNSET:
        add(option.flag, action="store_true", help=option.help)
        return
    metavar = option.metavar or validation.metavar(name) or None
    add(option.flag, type=partial(_value_of, name), metavar=metavar, help=option.help)


def _value_of(name: str, text: str) -> Any:
    """Return the value of a setting, parsed from text; `NEVER` in place of None."""
    try:
        value = validation.parsed(name, text)
    except InvalidSettingError as error:
        raise argparse.ArgumentTypeError(error.problem) from None
    return NEVER if value is None else value


# -- checks before the start ------------------------------------------------------------------


def _check_files(options: argparse.Namespace) -> None:
    """Check the files that the options name, before any process is started."""
    if options.agent is not None:
        where, colon, attribute = options.agent.rpartition(":")
        if not (colon and where and attribute):
            raise UsageError(
                f"AGENT is {options.agent!r}; write file.py:name or module:name, such as "
                f"assistant.py:agent"
            )
        if where.endswith(".py") and not Path(where).is_file():
            raise UsageError(f"there is no file {where} (AGENT is {options.agent!r})")
    if options.input is not None and is_file(options.input):
        _check_input(_source(options, "input"), path_of(options.input))
    if options.resume is not None and not path_of(options.resume).exists():
        raise UsageError(f"--resume: there is no file or folder {printable(options.resume)}")
    for name in ("output", "record", "journal"):
        path = getattr(options, name)
        if path is None or (name == "output" and not is_file(path)):
            continue
        if name == "record" and not path.lower().endswith(".wav"):
            raise UsageError(f"--record: {printable(path)} must end in .wav")
        _check_output(_source(options, name), path_of(path))
    _check_used_once(options)


def _take_devices(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Set devices that the options leave out from the environment, and remember their source."""
    options.from_environment = {}
    for name in ("input", "output"):
        variable = f"RTVOICE_{name.upper()}"
        device = environment.get(variable, "").strip()
        if device and getattr(options, name) is None and not options.demo:
            setattr(options, name, device)
            options.from_environment[name] = variable


def _source(options: argparse.Namespace, name: str) -> str:
    """Return the option or variable that has set a value, for messages to the user."""
    return str(options.from_environment.get(name, f"--{name}"))


def _check_input(source: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{source}: {path} is a folder; give a WAV file")
    if not path.exists():
        raise UsageError(f"{source}: there is no file {path}")
    if not path.is_file():
        raise UsageError(f"{source}: {path} is a pipe or a device; write it to a file first")


def _check_output(source: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{source}: {path} cannot be written: it is a folder; give a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{source}: {path} cannot be written: there is no folder {folder}")


def _check_used_once(options: argparse.Namespace) -> None:
    """Raise if one file is written for two purposes, or read and written."""
    files = {
        _source(options, name): path
        for name in ("input", "output", "record", "journal", "resume", "events")
        if (path := getattr(options, name)) is not None
        and path != "-"
        and (name not in ("input", "output") or is_file(path))
    }
    if options.agent is not None:
        files["AGENT"] = options.agent.rpartition(":")[0]
    for (other, one), (name, path) in combinations(files.items(), 2):
        if same_file(path_of(one), path_of(path)):
            raise UsageError(
                f"{name}: {printable(path)} is the file of {other} too; choose another"
            )


# -- running it -------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    code = run(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # else Ctrl-C could still change the exit code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a window that was closed, say
            discard_rest(stream)
    sys.exit(code)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not every terminal can show all characters
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        from rtvoice.command.serve import serve

        return serve(arguments[1:])
    if arguments[:1] == ["fleet"]:
        from rtvoice.command.fleet import fleet

        return fleet(arguments[1:])
    if arguments[:1] and arguments[0] in _OF_A_FOLDER:
        from rtvoice.command.folder import obey

        return obey(arguments, run)
    if near := _similar_command(arguments):
        _complain(f"there is no command {arguments[0]!r}; did you mean {near}?")
        return EXIT_USAGE
    try:
        return _obey(_parser().parse_args(arguments))
    except OutputError as error:
        _complain(str(error))
        return EXIT_USAGE


def _similar_command(arguments: Sequence[str]) -> str:
    """Return the sub-command that a mistyped first argument may mean; empty: none."""
    first = arguments[0] if arguments else ""
    if first.startswith("-") or ":" in first:
        return ""
    return next(iter(difflib.get_close_matches(first, ("serve", *_OF_A_FOLDER), 1, 0.6)), "")


def _obey(options: argparse.Namespace) -> int:
    """Perform the action that the options select."""
    if options.list_devices:
        from rtvoice.command.listing import print_devices

        return print_devices(as_json=options.json)
    for name, value in read_env_file(Path(".env"), _complain).items():
        os.environ.setdefault(name, value)
    _take_devices(options, {} if options.web else os.environ)
    try:
        if options.doctor:
            return _diagnose(options)
        if options.json:
            raise UsageError("--json goes with --list-devices or --doctor; --events - is JSON too")
        if options.web:
            return _serve_page(options)
        _refuse_web_options(options)
        _check_files(options)
        level = _log_level(options)
        choice = choose(options, os.environ)
        return _converse(options, choice, level)
    except UsageError as error:
        _complain(str(error))
        print(f"See {rtvoice('--help')}.", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_KILLED


def _serve_page(options: argparse.Namespace) -> int:
    from rtvoice.command.web import check_web, serve_page

    address = check_web(options)
    _check_files(options)
    level = _log_level(options)
    choice = choose(options, os.environ, lambda: Card(input=True, output=True))
    given = {**choice.given, "log_level": logging.getLevelName(level)}
    return serve_page(options, address, choice, given)


def _refuse_web_options(options: argparse.Namespace) -> None:
    for name in ("port", "host", "tls_cert", "tls_key", "insecure"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} goes with --web")


def _diagnose(options: argparse.Namespace) -> int:
    from rtvoice.command.doctor import diagnose

    def check() -> None:
        _check_files(options)
        _log_level(options)

    return diagnose(options, os.environ, check)


def _complain(text: str) -> None:
    print(fitting(f"rtvoice: {text}", sys.stderr), file=sys.stderr)


def _log_level(options: argparse.Namespace) -> int:
    text = options.log_level or os.environ.get("RTVOICE_LOG_LEVEL", "").strip() or "WARNING"
    try:
        return LEVELS[validation.checked("log_level", text.upper())]
    except InvalidSettingError as error:
        raise UsageError(f"RTVOICE_LOG_LEVEL: {error.problem}") from None


def _converse(options: argparse.Namespace, choice: Choice, level: int) -> int:
    with contextlib.suppress(OSError, ConfigurationError):  # it is needed first, so it begins first
        start_fork_server()
    from rtvoice.command.console import Console

    events = _open_events(options.events)
    console = Console(
        transcript=sys.stderr if options.events == "-" else sys.stdout,
        errors=sys.stderr,
        events=events,
        log_level=level,
        levels=options.levels,
    )
    screen = not choice.demo and _uses_screen(console, plain=options.plain)
    for hint in choice.hints if not screen else ():
        console.say(hint)
    # INFO records are collected even if the console does not show them: crash reports quote them.
    given = {**choice.given, "log_level": logging.getLevelName(min(level, logging.INFO))}
    code = EXIT_BUG
    try:
        run = _run_demo if choice.demo else _run_screen if screen else _run_session
        code = run(console, choice, given)
    except SystemExit:
        code = EXIT_KILLED
        raise
    finally:
        if not console.close():
            os._exit(code)  # its thread is stuck in a full pipe; a normal exit would wait for it
        if events is not None:
            with contextlib.suppress(OSError):
                events.close()
    return code


def _open_events(name: str | None) -> BinaryIO | None:
    from actors.files import open_alone, why_not

    if name is None:
        return None
    if name == "-":
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    path = path_of(name)
    try:
        file = open_alone(path, os.O_WRONLY | os.O_CREAT, 0o666)
        if os.fstat(file).st_size:
            os.ftruncate(file, 0)
    except OSError as error:
        raise UsageError(f"--events: {name} cannot be written: {why_not(path, error)}") from None
    return os.fdopen(file, "wb")


def _uses_screen(console: Console, *, plain: bool) -> bool:
    """Return whether the console has the whole screen; say what it lacks if that is a package."""
    if plain or not sys.stdout.isatty():
        return False
    from rtvoice.console.start import fits, is_installed

    if not fits():
        return False
    if not is_installed():
        console.say(f"There is a console with more to see: {install('textual')}")
        return False
    return True


def _settings_of(choice: Choice, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the session; without an agent, those of the built-in assistant."""
    if "agent" in given:
        return given
    from rtvoice.command.assistant import ASSISTANT

    return {**ASSISTANT.describe(), **choice.defaults, **given}


def _run_screen(console: Console, choice: Choice, given: dict[str, Any]) -> int:
    """Run the session on the whole screen."""
    from rtvoice.command.conversation import CommandSession
    from rtvoice.console.link import Link
    from rtvoice.console.start import run_console

    given = {**_settings_of(choice, given), "probes": True}  # to drop the connection
    link = Link(console.receive)
    try:
        session = CommandSession(given, link, console, choice.defaults)
    except ConfigurationError as error:
        _complain(str(error))
        return EXIT_USAGE

    def hints() -> list[str]:
        started = session.started
        phrases = [" ".join(_phrases(wraps=False))]
        return [*choice.hints, *(phrases if started is not None and started.sandbox else [])]

    plain = partial(_read_keyboard, console, session)
    return run_console(session, link, console, given, hints=hints, fall_back=plain)


def _run_session(console: Console, choice: Choice, given: dict[str, Any]) -> int:
    """Run the session in plain lines."""
    from rtvoice.command.conversation import CommandSession

    given = _settings_of(choice, given)
    try:
        session = CommandSession(given, console, console, choice.defaults)
    except ConfigurationError as error:
        _complain(str(error))
        return EXIT_USAGE
    console.sandbox_hints = partial(_phrases, wraps=not console.is_live)
    if sys.stdout.isatty():
        console.say("[starting ...]")
    _read_keyboard(console, session)
    try:
        return session.run()
    finally:
        session.restore_terminal()


def _read_keyboard(console: Console, session: CommandSession) -> None:
    """Read what the user types, or what the standard input has for the user to say."""
    from rtvoice.command.keyboard import Keyboard, in_foreground, keyboard_help, no_keyboard
    from rtvoice.command.piped import PipedLines, is_piped

    by_key = session.has_push_to_talk
    if is_piped(sys.stdin):
        lines = PipedLines(sys.stdin, session.send, console.typed)
        session.add(lines)
        lines.start()
    if in_foreground(sys.stdin):
        console.hints = lambda: keyboard_help(push_to_talk=by_key())
        keyboard = Keyboard(
            sys.stdin, session.send, console, push_to_talk=by_key, edits=console.is_live
        )
        session.restore_terminal = keyboard.restore
        keyboard.start()
    else:
        console.hints = lambda: no_keyboard(push_to_talk=by_key())


def _run_demo(console: Console, _: Choice, given: dict[str, Any]) -> int:
    from rtvoice.command.assistant import ASSISTANT
    from rtvoice.command.conversation import CommandSession
    from rtvoice.command.demo import Demo

    demo = Demo(console)
    settings = {**ASSISTANT.describe(), **given, **demo.settings}
    if "session_folder" in given:  # the recording is in it
        del settings["recording_path"]
    try:
        session = CommandSession(settings, demo, console)
    except ConfigurationError as error:
        _complain(str(error))
        return EXIT_USAGE
    demo.start(session.send)
    code = session.run()
    demo.finish()
    return code


def _phrases(*, wraps: bool) -> list[str]:
    """Return the lines that list the phrases of the sandbox.

    Args:
        wraps: Whether to wrap them; a terminal's width is known to whoever writes there.
    """
    import textwrap

    from rtvoice.sandbox.phrases import printed_list

    phrases = " · ".join(re.sub(r"\s+", " ", phrase) for phrase in printed_list())
    lines = [phrases]
    if wraps:
        lines = textwrap.wrap(phrases, 92, initial_indent="  ", subsequent_indent="  ")
    return ["The sandbox understands these phrases, spoken or typed:", *lines]
