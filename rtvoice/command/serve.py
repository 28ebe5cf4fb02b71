"""``rtvoice serve``: a service of many conversations in one command."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from actors.loading import LoadError, load
from messages import LEVELS, validation
from messages.errors import ConfigurationError, InvalidSettingError
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from messages.hints import install, rtvoice
from rtvoice.checks import log_level_in, of_type, setting
from rtvoice.command.choice import read_env_file
from rtvoice.command.parser import Parser

if TYPE_CHECKING:
    from rtvoice.service import Service

__all__ = [
    "complain",
    "flag",
    "level_of",
    "port_of",
    "say",
    "serve",
    "service_options",
    "set_up_logging",
]

_DESCRIPTION = """\
Hold many conversations at once, with callers at websockets. MAKE_AGENT is called for each caller,
and returns the agent:

  from rtvoice import Agent
  from rtvoice.service import CallInfo

  def make_agent(call: CallInfo) -> Agent:
      return Agent("You sell bicycles.", greeting="Bicycle shop, hello!")
"""
_EPILOG = """\
callers:
  /talk               16-bit mono PCM in binary frames, both ways. The first frame of the caller is
                      the text {{"rate": 24000}}. Web pages of other origins are refused
  /twilio             Twilio's Media Streams: the telephone

operators (keep these from the public):
  /healthz            200 as long as the program answers: for liveness
  /readyz             200, and 503 while it ends: for readiness
  /metrics            for Prometheus
  /sessions           the conversations, as JSON

A caller for whom there is no place is refused with HTTP 503 and Retry-After.

SIGTERM drains: new callers are refused, running conversations go on to their end, for --drain-s at
most. A second SIGTERM, or Ctrl-C, ends them in order at once (close code 1001).

examples:
  {serve} shop.py:make_agent
  {serve} shop.py:make_agent --host 0.0.0.0 --max-sessions 30 --queue 10 --log json
  {serve} shop.py:make_agent --journals /var/lib/shop

environment (also read from a .env file in this folder):
  OPENAI_API_KEY      the key of the OpenAI service
  RTVOICE_SERVER      openai, sandbox or a ws:// or wss:// URL, for agents that name no server
  RTVOICE_LOG_LEVEL   DEBUG, INFO (the default), WARNING or ERROR; --log-level overrides it

exit codes:
  0 ended by a signal     2 wrong usage, or the address cannot be used
"""

_Port = Annotated[int, Meta(ge=0, le=65_535)]


def serve(argv: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(argv)
    missing = [name for name in ("uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        package = "'rtvoice[service]'"
        return complain(f"{missing[0]} is not installed: {install(package)}")
    for name, value in read_env_file(Path(".env"), say).items():
        os.environ.setdefault(name, value)
    try:
        port = port_of(options.port)
        set_up_logging(options.log, level_of(options))
        service = _service(options)
    except (ConfigurationError, LoadError) as error:
        return complain(str(error))
    from rtvoice.service.serving import listen

    try:
        listener = listen(options.host, port)
    except OSError as error:
        return complain(f"{options.host}:{port} cannot be used: {error.strerror or error}")
    return _run(options, service, listener)


def say(text: str) -> None:
    """Write a line to the standard error."""
    sys.stderr.write(f"rtvoice: {text}\n")
    sys.stderr.flush()


def complain(text: str) -> int:
    """Say what is wrong; return the exit code."""
    say(text)
    return EXIT_USAGE


# -- the options ------------------------------------------------------------------------------


_LISTENING, _LIMITS, _END = "listening", "how many", "the end, and after it"
_NUMBERS = {
    "view": (_LISTENING, "SCOPE", "what callers see who ask for a view: none, talk or all (none)"),
    "max_sessions": (_LIMITS, "N", "most conversations at once"),
    "cpu_limit": (
        _LIMITS,
        "SHARE",
        "share of the cores that may be in use, by any program (0.75); none: no limit",
    ),
    "memory_limit_mib": (
        _LIMITS,
        "MIB",
        "memory of the service and its processes (what the machine or container has)",
    ),
    "lag_limit_ms": (
        _LIMITS,
        "MS",
        "lag of the event loop above which nobody is taken (50); none: no limit",
    ),
    "tokens_per_minute": (_LIMITS, "N", "tokens of all answers of a minute"),
    "start_parallel": (
        _LIMITS,
        "N",
        "conversations that start at once (as many as there are cores)",
    ),
    "queue": (_LIMITS, "N", "callers who may wait for a place (0)"),
    "queue_s": (_LIMITS, "S", "how long each may wait (5)"),
    "drain_s": (_END, "S", "how long SIGTERM lets conversations go on (3600)"),
    "keep_s": (_END, "S", "how long the conversation of a lost caller is kept (60)"),
}
"""The options that are parameters of `Service` of the same name: group, metavar, help."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=rtvoice("serve"),
        description=_DESCRIPTION,
        epilog=_EPILOG.format(serve=rtvoice("serve")),
    )
    parser.add_argument("make_agent", metavar="MAKE_AGENT", help="file.py:name or module:name")
    groups = {name: parser.add_argument_group(name) for name in (_LISTENING, _LIMITS, _END)}
    for name, (group, metavar, text) in _NUMBERS.items():
        groups[group].add_argument(flag(name), metavar=metavar, help=text)
    add = groups[_LISTENING].add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: all")
    add("--port", default="8080", help="port to listen on (8080); 0: any free one")
    add(
        "--origin",
        action="append",
        default=[],
        dest="origins",
        metavar="ORIGIN",
        help="web pages that may call besides those of this host, such as https://shop.example; "
        "may be repeated; *: all",
    )
    groups[_END].add_argument(
        "--journals",
        metavar="FOLDER",
        help="a journal for each conversation; lost callers are found again after a restart",
    )
    add = parser.add_argument_group("others").add_argument
    add("--log", choices=("text", "json"), default="text", help="format of the log (text)")
    add("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    return parser


def flag(name: str) -> str:
    """Return the option for a name with underscores."""
    return f"--{name.replace('_', '-')}"


def level_of(options: argparse.Namespace) -> str:
    """Return the log level.

    Raises:
        ConfigurationError: It is none.
    """
    if options.log_level is not None:
        return str(setting("log_level", options.log_level.upper(), "--log-level"))
    return log_level_in(os.environ) or "INFO"


def port_of(text: str, option: str = "--port") -> int:
    """Return a port.

    Raises:
        ConfigurationError: It is none.
    """
    return int(of_type(option, validation.number_in(text, _Port), _Port))


def service_options(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the options of a service with these names that were given.

    Raises:
        ConfigurationError: One is not valid.
    """
    from rtvoice.service.options import parsed

    given = {}
    for name in names:
        if (text := getattr(options, name)) is not None:
            try:
                given[name] = parsed(name, text)
            except InvalidSettingError as error:
                raise ConfigurationError(f"{flag(name)}: {error.problem}") from None
    return given


# -- running it -------------------------------------------------------------------------------


def set_up_logging(form: str, level: str) -> None:
    """Write log records to the standard error, as text or as JSON."""
    from rtvoice.service.logs import JsonFormatter, TextFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("uvicorn.access").setLevel("WARNING")
    logging.getLogger("uvicorn.error").setLevel("WARNING")


def _service(options: argparse.Namespace) -> Service:
    """Return the service.

    Raises:
        ConfigurationError: MAKE_AGENT is no function, or an option is not valid.
        LoadError: MAKE_AGENT cannot be loaded.
    """
    from rtvoice.service import Service

    make_agent = load(options.make_agent, "function", inspect.isfunction)
    given = service_options(options, _NUMBERS)
    return Service(make_agent, journals=options.journals, origins=options.origins, **given)


def _run(options: argparse.Namespace, service: Service, listener: socket.socket) -> int:
    from rtvoice.service.serving import address_of, run

    async def started() -> None:
        say(f"serving {options.make_agent} at http://{address_of(listener)} (/talk, /twilio)")

    run(service.asgi, listener, service.drain, started)
    return EXIT_OK
