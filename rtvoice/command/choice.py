"""Decides what the command runs, from its options, the environment and the sound card."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET

from actors.devices.card.listing import sound_card_present
from messages import validation
from messages.errors import InvalidSettingError
from messages.settings import SETTINGS
from rtvoice.models import retirement_of

__all__ = [
    "NEVER",
    "Card",
    "Choice",
    "UsageError",
    "choose",
    "fields_given",
    "find_card",
    "read_env_file",
]

NEVER = object()
"""Stands for None as the value of an option; None itself means that the option was not given."""
_CARD_S = 3.0
"""Time to wait for the sound system; after that, the command starts as without a sound card."""


class UsageError(Exception):
    """Raised for wrong usage of the command; the message says what to do."""


class Card(NamedTuple):
    """Whether the machine has a device for input, and one for output."""

    input: bool
    output: bool

    @property
    def whole(self) -> bool:
        """Whether the user can both talk and listen."""
        return self.input and self.output


class Choice(NamedTuple):
    """What the command runs, and hints about it for the user."""

    demo: bool
    given: dict[str, Any]
    """Fields of `messages.Settings` that the options and the environment set."""
    defaults: dict[str, Any]
    """Values of fields that neither the user nor the agent sets."""
    hints: tuple[str, ...]
    """Lines to show at the start."""

    @property
    def server(self) -> str:
        """The server, unless the agent, which is not loaded yet, has another one."""
        return str(self.given.get("server") or self.defaults.get("server") or "openai")


def find_card() -> Card:
    """Return which halves of a sound card there are, within 3 s."""
    return Card(*sound_card_present(_CARD_S))


def choose(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    look: Callable[[], Card] = find_card,
) -> Choice:
    """Decide what the command runs.

    Args:
        options: The options of the command.
        environment: The environment, including the variables of a ``.env`` file.
        look: Looks for a sound card; called only if the result matters.

    Raises:
        UsageError: The options contradict each other, or there is no key.
    """
    has_key = bool(environment.get("OPENAI_API_KEY", "").strip())
    server = _asked_server(options, environment)
    if options.demo and server not in (None, "sandbox"):
        raise UsageError(f"the demo talks with the sandbox, not with {server}: leave --demo out")
    if server == "openai" and not has_key:
        raise UsageError(
            "the OpenAI service needs a key: set OPENAI_API_KEY (here, or in a .env file in this "
            "folder), or use --server sandbox, which needs none"
        )
    devices_given = options.input is not None or options.output is not None
    card = Card(input=False, output=False)
    if not options.demo and (options.input is None or options.output is None):
        card = look()
    free = server in (None, "sandbox") and not devices_given and options.agent is None
    if options.demo or (free and not card.whole):
        return _demo(options, has_key=has_key, asked=options.demo)
    hints: list[str] = []
    defaults = {
        "server": "openai" if has_key else "sandbox",
        "input": "default" if card.input else "auto",  # a device may be plugged in later
        "output": "default" if card.output else "auto",
    }
    if not has_key and server is None:
        hints.append(
            "There is no key, so this is the sandbox, a server on this machine. "
            "To talk with the OpenAI service, set OPENAI_API_KEY."
        )
    if options.model is not None and (retirement := retirement_of(options.model)) is not None:
        text = str(retirement)
        hints.append(f"{text[0].upper()}{text[1:]}.")
    given = fields_given(options)
    if server is not None:
        given["server"] = server
    return Choice(False, given, defaults, tuple(hints))


def _asked_server(options: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    if options.server is not None:
        return str(options.server)
    text = environment.get("RTVOICE_SERVER", "").strip()
    if not text:
        return None
    try:
        return str(validation.checked("server", text))
    except InvalidSettingError as error:
        raise UsageError(f"RTVOICE_SERVER: {error.problem}") from None


def _demo(options: argparse.Namespace, *, has_key: bool, asked: bool) -> Choice:
    for name in ("agent", "input", "output", "record"):
        if getattr(options, name) is not None:
            raise UsageError(f"the demo has its own {name}: leave --demo out")
    if options.push_to_talk:
        raise UsageError("the demo has a scripted user: leave --push-to-talk out")
    hints = [] if asked else ["There is no sound card here, so this is the demo."]
    if has_key:
        hints.append("Your key is not used: the demo talks with the sandbox on this machine.")
    given = fields_given(options)
    given["server"] = "sandbox"
    return Choice(True, given, {}, tuple(hints))


def fields_given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `messages.Settings` that the options set, except the server."""
    given: dict[str, Any] = {}
    if options.agent is not None:
        given = {"agent": options.agent, "import_path": _import_path(options.agent)}
    for name, setting in SETTINGS.items():
        option = setting.option
        if option is None or name == "server":
            continue
        value = getattr(options, option.flag.removeprefix("--").replace("-", "_"))
        if option.value is UNSET and value is not None:
            given[name] = None if value is NEVER else value
        elif option.value is not UNSET and value:
            given[name] = option.value
    return given


def _import_path(agent: str) -> tuple[str, ...]:
    """Return the folders in which names in an agent are looked up: that of its file, and this."""
    where = Path(agent.rpartition(":")[0])
    folders = [str(where.resolve().parent)] if where.suffix == ".py" else []
    return tuple(dict.fromkeys([*folders, str(Path.cwd())]))


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16, which some shells and editors of Windows write."""

# -- the .env file ---------------------------------------------------------------------------

_ENV_LINE = re.compile(
    r"""\s* (?:export\s+)? (?P<name>[A-Za-z_][A-Za-z0-9_]*) \s* = \s*
    (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>.*?) )
    \s* (?:(?:^|(?<=\s|['"]))\#.*)? $""",
    re.VERBOSE,
)


def read_env_file(path: Path, complain: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Return the variables of a ``.env`` file; empty if there is none.

    A line is ``NAME=value``; ``export`` may precede it, the value may be quoted, and ``#`` begins a
    comment. ``complain`` is called for each line that is not valid, but not with its content, which
    may be a key.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):  # a folder .env is usually a virtual environment
        return {}
    except OSError as error:
        complain(f"{path} cannot be read ({error.strerror}); going on without it")
        return {}
    try:
        text = data.decode("utf-16" if data[:2] in _UTF_16 else "utf-8-sig")
    except UnicodeDecodeError:
        complain(f"{path} is not text in UTF-8; save it in UTF-8. Going on without it")
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.match(line)
        if match is None:
            complain(f"{path}, line {number} is not NAME=value; the line is ignored")
            continue
        if match["double"] is not None:
            value = re.sub(r"\\(.)", lambda escape: _unescaped(escape[1]), match["double"])
        else:
            value = match["single"] if match["single"] is not None else match["bare"]
        if "\0" in value:
            complain(f"{path}, line {number} has a NUL character in its value; the line is ignored")
            continue
        found[match["name"]] = value
    return found


def _unescaped(character: str) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(character, character)
