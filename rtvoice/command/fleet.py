"""``rtvoice fleet``: conversations on several hosts, which go on when a host dies."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import os
import signal
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from actors.loading import LoadError, load
from messages import LEVELS, RtvoiceError, validation
from messages.errors import ConfigurationError
from messages.exit_codes import EXIT_OK
from messages.hints import install, rtvoice
from rtvoice.checks import of_type
from rtvoice.command.choice import read_env_file
from rtvoice.command.fleet_orders import ORDERS, end_hosts, obey
from rtvoice.command.parser import Parser
from rtvoice.command.serve import (
    complain,
    flag,
    level_of,
    port_of,
    say,
    service_options,
    set_up_logging,
)

if TYPE_CHECKING:
    from rtvoice.fleet.engine import Engine
    from rtvoice.fleet.process import HostOptions
    from rtvoice.fleet.store import Store

__all__ = ["fleet"]

_DESCRIPTION = """\
Hold conversations on several hosts. A store has who holds which conversation, and all that was
said in it: when a host dies, another one goes on with its conversations.

  rtvoice fleet --store URL --agent FILE:make_agent    hosts, and a gateway for callers
  rtvoice fleet status --store URL                     the hosts, and what they hold
  rtvoice fleet drain --store URL HOST                 empty a host: its conversations move
  rtvoice fleet move --store URL ID                    move a conversation to another host
  rtvoice fleet stop --store URL ID                    end a conversation

make_agent is that of "serve": it is called for each conversation, and returns its agent.
"""
_EPILOG = """\
stores:
  sqlite:///fleet.db                     a file, for hosts on one machine
  postgresql://USER@MACHINE/DATABASE     for hosts on any machine

engines:
  local               the hosts are processes of this machine, and are started again when they die
  ray                 the hosts run on the machines of a Ray cluster, one a core or --hosts; the
                      agent's module or file has to be on each of them
  none                somebody else starts the hosts, such as Kubernetes; only the gateway runs

callers (at the gateway):
  POST /sessions      begins a conversation: its id, token, and the url of /talk at its host
  GET /sessions/ID    where it is now, for who was cut off (authorization: Bearer TOKEN)
  DELETE /sessions/ID ends it
  /healthz, /readyz   for liveness, and whether a host has a place
Sound goes from the caller straight to the host.

SIGTERM drains: the gateway begins nothing more, conversations go on to their end, for --drain-s at
most. A second SIGTERM, or Ctrl-C, ends all at once. An upgrade needs no end: drain one host after
the other ("drain --all"); each is started again with the new code.

examples:
  {fleet} --store sqlite:///fleet.db --agent shop.py:make_agent
  {fleet} --store postgresql://shop@db/shop --engine ray --agent shop:make_agent
  {fleet} status --store sqlite:///fleet.db

environment (also read from a .env file in this folder):
  OPENAI_API_KEY      the key of the OpenAI service
  RTVOICE_SERVER      openai, sandbox or a ws:// or wss:// URL, for agents that name no server
  RTVOICE_LOG_LEVEL   DEBUG, INFO (the default), WARNING or ERROR; --log-level overrides it

exit codes:
  0 ended by a signal     2 wrong usage, a host that cannot start, or an address that is in use
"""
_OF_HOSTS = {
    "max_sessions": ("N", "most conversations of a host"),
    "cpu_limit": (
        "SHARE",
        "share of the cores of a machine that may be in use, by any program (0.75); none: no limit",
    ),
    "keep_s": ("S", "how long the conversation of a lost caller is kept (60)"),
    "drain_s": ("S", "how long a host that drains lets conversations go on (3600)"),
}
"""The options that are parameters of a service of the same name: metavar, help."""
_Hosts = Annotated[int, Meta(ge=1, le=1000)]
_Cpus = Annotated[float, Meta(ge=0.0)]
_ALL = ("0.0.0.0", "::", "")


def fleet(argv: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    for name, value in read_env_file(Path(".env"), say).items():
        os.environ.setdefault(name, value)
    if argv and argv[0] in ORDERS:
        return obey(argv)
    options = _parser().parse_args(argv)
    missing = [name for name in ("uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        package = "'rtvoice[service]'"
        return complain(f"{missing[0]} is not installed: {install(package)}")
    try:
        set_up_logging(options.log, level_of(options))
        return _run(options)
    except (RtvoiceError, LoadError) as error:
        return complain(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=rtvoice("fleet"),
        description=_DESCRIPTION,
        epilog=_EPILOG.format(fleet=rtvoice("fleet")),
    )
    add = parser.add_argument
    add("--store", required=True, metavar="URL", help="where conversations are kept")
    add("--agent", metavar="MAKE_AGENT", help="file.py:name or module:name")
    _add_options_of_hosts(parser.add_argument_group("hosts"))
    add = parser.add_argument_group("listening").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0: all")
    add("--port", default="8080", help="port of the gateway (8080); 0: any free one")
    add("--host-port", metavar="PORT", default="0", help="port of the first host; the next one has "
        "the next port (any free ones)")  # fmt: skip
    add("--host-url", metavar="URL", help="where callers reach a host; {name} and {port} stand for "
        "its own, as in https://{name}.shop.example")  # fmt: skip
    add(
        "--origin",
        action="append",
        default=[],
        dest="origins",
        metavar="ORIGIN",
        help="web pages that may call, such as https://shop.example; may be repeated; *: all",
    )
    add = parser.add_argument_group("others").add_argument
    add("--log", choices=("text", "json"), default="text", help="format of the log (text)")
    add("--log-level", metavar="LEVEL", help=", ".join(LEVELS))
    return parser


def _add_options_of_hosts(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--engine", choices=("local", "ray", "none"), default="local", help="what runs them (local)"
    )
    add("--hosts", metavar="N", help="how many (local: 2; ray: one a core of the cluster)")
    add("--ttl", metavar="S", default="10", help="length of a lease, 2 to 60 (10): after so long "
        "without a sign of its host, a conversation is taken by another one")  # fmt: skip
    for name, (metavar, text) in _OF_HOSTS.items():
        add(flag(name), metavar=metavar, help=text)
    add("--ray-address", metavar="ADDRESS", default="auto", help="of the Ray cluster (auto)")
    add("--ray-cpus", metavar="N", default="1", help="cores that a host reserves of Ray (1)")


# -- running it -------------------------------------------------------------------------------


def _number(option: str, text: str, kind: Any) -> Any:
    """Return a number of the command line.

    Raises:
        ConfigurationError: It is not valid.
    """
    return of_type(option, validation.number_in(text, kind), kind)


def _of_hosts(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that all hosts share.

    Raises:
        ConfigurationError: One is not valid.
        LoadError: The agent cannot be loaded.
    """
    from rtvoice.fleet.process import HostOptions, Ttl

    if options.agent is None:
        raise ConfigurationError("--agent is missing: file.py:name or module:name")
    make_agent = load(options.agent, "function", inspect.isfunction)
    where, _, name = options.agent.rpartition(":")
    agent = f"{Path(where).absolute()}:{name}" if where.endswith(".py") else options.agent
    shared = {
        **service_options(options, _OF_HOSTS),
        "store": options.store,
        "agent": agent,
        "ttl_s": _number("--ttl", options.ttl, Ttl),
        "origins": tuple(options.origins),
        "log": options.log,
        "log_level": options.log_level.upper() if options.log_level else "",
    }
    HostOptions(name="", **shared).service(make_agent)  # which checks them
    return shared


def _engine(options: argparse.Namespace, store: Store) -> Engine:
    """Return the engine.

    Raises:
        ConfigurationError: An option is not valid.
        LoadError: The agent cannot be loaded.
    """
    from rtvoice.fleet.local import LocalEngine
    from rtvoice.fleet.process import HostOptions

    if options.engine == "none":
        return _NoEngine()
    first = port_of(options.host_port, "--host-port")
    count = None if options.hosts is None else _number("--hosts", options.hosts, _Hosts)
    shared = _of_hosts(options)
    if options.engine == "ray":
        from rtvoice.fleet.ray_engine import RayEngine

        cpus = _number("--ray-cpus", options.ray_cpus, _Cpus)
        host = HostOptions(name="", port=first, url=options.host_url or "", **shared)
        return RayEngine(store, host, count=count, address=options.ray_address, cpus=cpus)
    if options.host in _ALL and not options.host_url:
        raise ConfigurationError(
            f"--host {options.host} is every address: give --host-url, by which callers reach a "
            "host, such as http://10.0.0.5:{port} with --host-port 9000"
        )

    def named(name: str) -> HostOptions:
        port = first + int(name.rpartition("-")[2]) - 1 if first else 0
        url = options.host_url or ""
        return HostOptions(name=name, listen=options.host, port=port, url=url, **shared)

    return LocalEngine(store, count or 2, named)


class _NoEngine:
    """Somebody else starts the hosts."""

    names: list[str] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def _run(options: argparse.Namespace) -> int:
    """Run the fleet until a signal ends it.

    Raises:
        RtvoiceError: An option is not valid, the store cannot be reached, or a host cannot start.
        LoadError: The agent cannot be loaded.
    """
    from rtvoice.fleet.opening import open_store
    from rtvoice.service.serving import listen

    port = port_of(options.port)
    store = open_store(options.store)
    engine = _engine(options, store)
    try:
        listener = listen(options.host, port)
    except OSError as error:
        return complain(f"{options.host}:{port} cannot be used: {error.strerror or error}")
    _Running(options, store, engine, listener).run()
    return EXIT_OK


class _Running:
    """The gateway and the engine, until a signal ends them."""

    def __init__(
        self, options: argparse.Namespace, store: Store, engine: Engine, listener: socket.socket
    ) -> None:
        from rtvoice.fleet.engine import Fleet
        from rtvoice.fleet.gateway import Gateway

        self._agent = options.agent or "a fleet"
        self._engine = engine
        self._fleet = Fleet(store)
        self._gateway = Gateway(self._fleet)
        self._listener = listener
        self._starting: asyncio.Task[None] | None = None
        self._failed: RtvoiceError | None = None

    def run(self) -> None:
        """Serve.

        Raises:
            EngineError: A host cannot start.
        """
        from rtvoice.service.serving import run

        run(self._gateway, self._listener, self._drain, self._started)
        if self._failed is not None:
            raise self._failed

    async def _started(self) -> None:
        from rtvoice.service.serving import address_of

        address = address_of(self._listener)
        names = self._engine.names
        say(f"starting {', '.join(names)}" if names else "no host is started from here")
        self._starting = asyncio.create_task(self._engine.start())
        try:
            await self._starting
        except asyncio.CancelledError:
            return  # a signal came first
        except RtvoiceError as error:
            self._failed = error
            signal.raise_signal(signal.SIGINT)  # which ends the hosts that have started
            return
        say(f"serving {self._agent} at http://{address} (POST /sessions)")

    async def _drain(self, drain_s: float | None) -> None:
        self._gateway.close()
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, RtvoiceError):
                await self._starting
        await self._engine.close()
        await end_hosts(self._fleet, self._engine.names, at_once=drain_s is not None)
