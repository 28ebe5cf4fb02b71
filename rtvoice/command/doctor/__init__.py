"""``--doctor``: would a session work here, with these options? If not, what is to be done?

Each check is a line: ok, warning or problem. None takes longer than its limit, none keeps the
others from being made, and what may hang or crash (PortAudio, code of the user's) is tried in a
process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import msgspec

from actors.devices.card.listing import SoundDevice
from actors.devices.card.soundcheck import Request
from actors.devices.opening import is_file
from messages import Settings
from messages.errors import InvalidSettingError
from messages.transport.spawning import environment_with_us
from messages.validation import checked_settings
from rtvoice.command.choice import Card, Choice, UsageError, choose, fields_given
from rtvoice.command.doctor import files, machine, server, sound
from rtvoice.command.doctor.result import Check, Result, Status, ok, problem, warning, within
from rtvoice.command.printing import writing_to

__all__ = ["diagnose"]

_EXIT_OK, _EXIT_PROBLEM = 0, 2
_QUICK_S, _AGENT_S = 10.0, 15.0
_COLOURS: dict[Status, str] = {"ok": "32", "warning": "33", "problem": "31"}
_DESCRIBE = (
    "import sys, msgspec; from actors.tools.loading import load_agent\n"
    "out, sys.stdout = sys.stdout, sys.stderr\n"
    "try: told = load_agent(sys.argv[1]).describe()\n"
    "except Exception as error: told = str(error)\n"
    "out.write(msgspec.json.encode(told).decode())"
)


def diagnose(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    check: Callable[[], object],
    *,
    out: TextIO | None = None,
) -> int:
    """Make the checks and write what they find; return the exit code.

    Args:
        options: of the command.
        environment: of the command.
        check: raises a `UsageError` if the options cannot work.
        out: where to; standard output if it is left out.
    """
    out = sys.stdout if out is None else out
    write = writing_to(out)
    secret = environment.get("OPENAI_API_KEY", "").strip()
    results = []
    for result in _Examination(options, environment, check).results():
        if secret and secret in result.text:
            result = msgspec.structs.replace(result, text=result.text.replace(secret, "[key]"))  # noqa: PLW2901
        results.append(result)
        if not options.json:
            write(_line(result, colour=_coloured(out, environment)))
    problems = [result.check for result in results if result.status == "problem"]
    if options.json:
        told = {"works": not problems, "checks": results}
        write(msgspec.json.format(msgspec.json.encode(told)).decode() + "\n")
    elif problems:
        write(f"\nA session would not work: see {', '.join(dict.fromkeys(problems))}.\n")
    else:
        write("\nA session would work.\n")
    return _EXIT_PROBLEM if problems else _EXIT_OK


def _line(result: Result, *, colour: bool) -> str:
    status = result.status.ljust(8)
    if colour:
        status = f"\x1b[{_COLOURS[result.status]}m{status}\x1b[0m"
    text = " ".join(result.text.split())
    return f"{status} {result.check.ljust(10)} {text}\n"


def _coloured(out: TextIO, environment: Mapping[str, str]) -> bool:
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return out.isatty() and not plain


class _Examination:
    """The checks, of which later ones use what earlier ones have found."""

    def __init__(
        self,
        options: argparse.Namespace,
        environment: Mapping[str, str],
        check: Callable[[], object],
    ) -> None:
        self._options = options
        self._environment = environment
        self._check_options = check
        self._devices: list[SoundDevice] = []
        self._choice: Choice | None = None
        self._described: dict[str, Any] = {}
        self._settings = Settings(server="sandbox")

    def results(self) -> Iterator[Result]:
        """Give the results as they come."""
        for limit_s, name, check in self._checks():
            yield from within(limit_s, name, check)

    def _checks(self) -> Iterator[tuple[float, str, Check]]:
        yield _QUICK_S, "python", machine.python
        yield _QUICK_S, "packages", machine.packages
        yield _QUICK_S, "names", machine.names
        yield _QUICK_S, "sound", lambda: sound.devices(self._devices)
        yield _QUICK_S, "options", self._options_fit
        if self._options.agent is not None:
            yield _AGENT_S + 1, "agent", self._agent
        yield _QUICK_S, "options", self._settle
        settings, environment = self._settings, self._environment
        if self._choice is None or not self._choice.demo:
            request = Request(settings.input, settings.output, settings.import_path)
            if is_file(settings.output):
                yield _QUICK_S, "speaker", lambda: files.output(settings)
            yield sound.SOUND_S, "sound", lambda: sound.sound(request, settings.duplex)
        yield _QUICK_S, "key", lambda: server.key(settings, environment)
        yield _QUICK_S, "models", lambda: server.models(settings)
        yield server.SERVER_S, "server", lambda: server.server(settings, environment)
        if settings.server == "sandbox":
            yield _QUICK_S, "sandbox", machine.sandbox_extras
        yield _QUICK_S, "files", lambda: files.written(self._paths())

    def _options_fit(self) -> Iterator[Result]:
        """Find out what would be run."""
        card = Card(
            any(one.default_input for one in self._devices),
            any(one.default_output for one in self._devices),
        )
        try:
            self._check_options()
            self._choice = choose(self._options, self._environment, lambda: card)
        except UsageError as error:
            yield problem("options", str(error))
            return
        hints = " ".join(self._choice.hints)
        if self._choice.demo:
            yield warning("options", hints or "the demo is run")
        else:
            yield ok("options", hints or "they fit together")

    def _agent(self) -> Iterator[Result]:
        """Load the agent in a process of its own, and ask it for its settings."""
        name = self._options.agent
        done = subprocess.run(
            [sys.executable, "-P", "-c", _DESCRIBE, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_AGENT_S,
            env=environment_with_us(self._environment),
            check=False,
        )
        try:
            told = msgspec.json.decode(done.stdout)
        except msgspec.DecodeError:
            told = f"agent {name}: loading it ends the process with {done.returncode}"
        if isinstance(told, str):
            yield problem("agent", told)
        else:
            self._described = told
            yield ok("agent", f"{name} can be loaded")

    def _settle(self) -> Iterator[Result]:
        """Put together what a session would be started with, as far as it is looked at here."""
        from rtvoice.command.assistant import ASSISTANT

        choice = self._choice
        given, defaults = (choice.given, choice.defaults) if choice else (self._asked(), {})
        if self._options.agent is None:
            fields = {**ASSISTANT.describe(), **defaults, **given}
        else:
            fields = {**defaults, **self._described, **given}
        try:
            self._settings = checked_settings(fields)
        except InvalidSettingError as error:
            yield problem("options", str(error))

    def _asked(self) -> dict[str, Any]:
        """Return what was asked for, though it does not fit together."""
        given = fields_given(self._options)
        return {"server": self._options.server, **given} if self._options.server else given

    def _paths(self) -> dict[str, str]:
        settings = self._settings
        paths = {
            "--output": settings.output if is_file(settings.output) else None,
            "--record": settings.recording_path,
            "--journal": settings.journal_path,
            "--events": self._options.events if self._options.events != "-" else None,
        }
        return {source: path for source, path in paths.items() if path is not None}
