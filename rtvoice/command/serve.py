"""``rtvoice serve``: a service of many conversations in one command."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from actors.loading import LoadError, load
from messages import LEVELS
from messages.errors import ConfigurationError
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from messages.hints import install, rtvoice
from rtvoice.command.choice import read_env_file

if TYPE_CHECKING:
    from rtvoice.service import Service

__all__ = ["serve"]

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

_PING_S, _PONG_S = 20.0, 120.0
"""Keep-alive of sockets: a caller without an answer for two minutes is lost. With the 20 s that are
usual, a machine that is busy for a while would end calls."""
_SHUTDOWN_S = 5


def serve(argv: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(argv)
    missing = [name for name in ("uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        package = "'rtvoice[service]'"
        return _complain(f"{missing[0]} is not installed: {install(package)}")
    for name, value in read_env_file(Path(".env"), _say).items():
        os.environ.setdefault(name, value)
    text = (options.log_level or os.environ.get("RTVOICE_LOG_LEVEL", "").strip() or "INFO").upper()
    if text not in LEVELS:
        return _complain(f"the log level is {text}; choose {', '.join(LEVELS)}")
    _set_up_logging(options.log, text)
    try:
        return _run(options, _service(options), _listen(options.host, options.port))
    except (ConfigurationError, LoadError) as error:
        return _complain(str(error))
    except OSError as error:
        why = error.strerror or str(error)
        return _complain(f"{options.host}:{options.port} cannot be used: {why}")


def _say(text: str) -> None:
    sys.stderr.write(f"rtvoice: {text}\n")
    sys.stderr.flush()


def _complain(text: str) -> int:
    _say(text)
    return EXIT_USAGE


# -- the options ------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=rtvoice("serve"),
        description=_DESCRIPTION,
        epilog=_EPILOG.format(serve=rtvoice("serve")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("make_agent", metavar="MAKE_AGENT", help="file.py:name or module:name")
    add = parser.add_argument_group("listening").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: all")
    add("--port", type=_port, default=8080, help="port to listen on (8080); 0: any free one")
    add(
        "--origin",
        action="append",
        default=[],
        dest="origins",
        metavar="ORIGIN",
        help="web pages that may call besides those of this host, such as https://shop.example; "
        "may be repeated; *: all",
    )
    add = parser.add_argument_group("how many").add_argument
    add("--max-sessions", type=_count, metavar="N", help="most conversations at once")
    add(
        "--cpu-limit",
        type=_limit,
        default=0.75,
        metavar="SHARE",
        help="share of the cores that may be in use, by any program (0.75); none: no limit",
    )
    add(
        "--memory-limit-mib",
        type=_count,
        metavar="MIB",
        help="memory of the service and its processes (what the machine or container has)",
    )
    add(
        "--lag-limit-ms",
        type=_limit,
        default=50.0,
        metavar="MS",
        help="lag of the event loop above which nobody is taken (50); none: no limit",
    )
    add("--tokens-per-minute", type=_count, metavar="N", help="tokens of all answers of a minute")
    add(
        "--start-parallel",
        type=_count,
        metavar="N",
        help="conversations that start at once (as many as there are cores)",
    )
    add("--queue", type=_count, default=0, metavar="N", help="callers who may wait for a place (0)")
    add("--queue-s", type=_seconds, default=5.0, metavar="S", help="how long each may wait (5)")
    add = parser.add_argument_group("the end, and after it").add_argument
    add(
        "--drain-s",
        type=_seconds,
        default=3600.0,
        metavar="S",
        help="how long SIGTERM lets conversations go on (3600)",
    )
    add(
        "--keep-s",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="how long the conversation of a lost caller is kept (60)",
    )
    add(
        "--journals",
        metavar="FOLDER",
        help="a journal for each conversation; lost callers are found again after a restart",
    )
    add = parser.add_argument_group("others").add_argument
    add("--log", choices=("text", "json"), default="text", help="format of the log (text)")
    add("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    return parser


def _number(kind: Callable[[str], Any], least: float, words: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= least or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse


_count = _number(int, 0, "a whole number, 0 or more")
_seconds = _number(float, 0, "a number of seconds, 0 or more")
_positive = _number(float, 1e-9, "a number above 0, or none")


def _limit(text: str) -> float | None:
    return None if text.lower() == "none" else float(_positive(text))


def _port(text: str) -> int:
    port = _number(int, 0, "a port, from 0 to 65535")(text)
    if port > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return int(port)


# -- running it -------------------------------------------------------------------------------


def _set_up_logging(form: str, level: str) -> None:
    from rtvoice.service.logs import JsonFormatter, TextFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("uvicorn.access").setLevel("WARNING")
    logging.getLogger("uvicorn.error").setLevel("WARNING")


def _service(options: argparse.Namespace) -> Service:
    """Return the service.

    Raises:
        ConfigurationError: An option is out of range.
        LoadError: MAKE_AGENT cannot be loaded.
    """
    from rtvoice.service import Service

    make_agent = load(options.make_agent, "function", inspect.isfunction)
    if not callable(make_agent):
        raise LoadError(
            options.make_agent,
            f"it is no function but of type {type(make_agent).__name__}; write "
            f"def make_agent(call): return Agent(...), so that each caller gets an agent",
        )
    names = ("host", "port", "make_agent", "log", "log_level")
    return Service(make_agent, **{k: v for k, v in vars(options).items() if k not in names})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _run(options: argparse.Namespace, service: Service, listener: socket.socket) -> int:
    import uvicorn

    class Server(uvicorn.Server):
        """Drains before it ends: uvicorn itself would close the callers' sockets first."""

        draining: asyncio.Future[None] | None = None
        loop: asyncio.AbstractEventLoop | None = None

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            _say(f"serving {options.make_agent} at {at} (/talk, /twilio)")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.loop is None:
                super().handle_exit(sig, frame)
                return
            at_once = sig == signal.SIGINT or self.draining is not None
            self.loop.call_soon_threadsafe(self._end, 0.0 if at_once else None)

        def _end(self, drain_s: float | None) -> None:
            task = asyncio.ensure_future(self._drain(drain_s))
            self.draining = self.draining or task

        async def _drain(self, drain_s: float | None) -> None:
            await service.drain(drain_s)
            self.should_exit = True

    config = uvicorn.Config(
        service.asgi,
        log_config=None,
        access_log=False,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PONG_S,
        ws_per_message_deflate=False,  # sound does not get smaller by it, and it costs CPU
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="on",
    )
    with listener:
        Server(config).run(sockets=[listener])
    return EXIT_OK
