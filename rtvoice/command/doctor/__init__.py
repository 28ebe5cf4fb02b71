"""``--doctor``: checks whether a session would work here, with these options; if not, what to do.

The result of each check is a line: ok, warning or problem. Each check has a time limit, and a check
that fails does not prevent the others. Whatever may hang or crash (PortAudio, code of the user) is
tried in a separate process.
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
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from messages.paths import printable
from messages.transport.spawning import environment_with_us
from messages.validation import checked_settings
from rtvoice.command.choice import Card, Choice, UsageError, choose, fields_given
from rtvoice.command.doctor import files, machine, server, sound
from rtvoice.command.doctor.result import Check, Result, Status, ok, problem, warning, within
from rtvoice.command.printing import writing_to

__all__ = ["diagnose"]

_QUICK_S, _AGENT_S = 10.0, 15.0
_COLOURS: dict[Status, str] = {"ok": "32", "warning": "33", "problem": "31"}
_DESCRIBE = (
    "import sys, msgspec; from actors.tools.loading import load_agent\n"
    "out, sys.stdout = sys.stdout, sys.stderr\n"
    "try: answer = load_agent(sys.argv[1]).describe()\n"
    "except Exception as error: answer = str(error)\n"
    "out.write(msgspec.json.encode(answer).decode())"
)
"""Program that loads an agent: it writes the settings as an object, or an error as a text.

Standard output is redirected first, because the module of the agent may print.
"""


def diagnose(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    check: Callable[[], object],
    *,
    out: TextIO | None = None,
) -> int:
    """Run the checks and write their results; return the exit code.

    Args:
        options: The options of the command.
        environment: The environment of the command.
        check: Raises a `UsageError` if the options are wrong.
        out: Where to write; None: standard output.
    """
    out = sys.stdout if out is None else out
    write = writing_to(out)
    secret = environment.get("OPENAI_API_KEY", "").strip()
    results = []
    for result in _Examination(options, environment, check).results():
        result = msgspec.structs.replace(result, text=printable(result.text))  # noqa: PLW2901
        if secret and secret in result.text:
            result = msgspec.structs.replace(result, text=result.text.replace(secret, "[key]"))  # noqa: PLW2901
        results.append(result)
        if not options.json:
            write(_line(result, colour=_coloured(out, environment)))
    problems = [result.check for result in results if result.status == "problem"]
    if options.json:
        report = {"works": not problems, "checks": results}
        write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    elif problems:
        write(f"\nA session would not work: see {', '.join(dict.fromkeys(problems))}.\n")
    else:
        write("\nA session would work.\n")
    return EXIT_USAGE if problems else EXIT_OK


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
    """The checks in their order; later checks use the results of earlier ones."""

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
        """Yield the results as they come."""
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
            request = Request(
                *(settings.input, settings.output, settings.import_path),
                echo_cancelling=settings.echo_cancelling,
            )
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
        """Check the options, and decide what the command would run."""
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
        """Load the agent in a separate process, and read its settings."""
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
            answer = msgspec.json.decode(done.stdout)
        except msgspec.DecodeError:
            answer = f"agent {name}: loading it ends the process with {done.returncode}"
        if isinstance(answer, str):
            yield problem("agent", answer)
        else:
            self._described = answer
            yield ok("agent", f"{name} can be loaded")

    def _settle(self) -> Iterator[Result]:
        """Combine the settings with which a session would be started; report only a problem."""
        from rtvoice.command.assistant import ASSISTANT

        choice = self._choice
        given, defaults = (choice.given, choice.defaults) if choice else (self._contradictory(), {})
        if self._options.agent is None:
            fields = {**ASSISTANT.describe(), **defaults, **given}
        else:
            fields = {**defaults, **self._described, **given}
        try:
            self._settings = checked_settings(fields)
        except InvalidSettingError as error:
            yield problem("options", str(error))

    def _contradictory(self) -> dict[str, Any]:
        """Return the settings of options that contradict each other, so that checks can go on."""
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
