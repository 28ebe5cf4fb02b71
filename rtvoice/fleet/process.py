"""One host process: ``python -m rtvoice.fleet.process``. An engine starts it, or Kubernetes."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.loading import load
from messages import ConfigurationError, RtvoiceError, validation
from messages.errors import UserError
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from rtvoice.fleet.control import HostApp
from rtvoice.fleet.host import Host
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import owner_of_this_process
from rtvoice.service.options import MakeAgent, Options, checked_options
from rtvoice.service.serving import address_of, listen, run

__all__ = ["HostOptions", "Ttl", "main", "serve_host"]

Ttl = Annotated[float, Meta(ge=2.0, le=60.0)]
"""The length of a lease in seconds."""


class HostOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a host process is started with."""

    name: str
    """Its name in the fleet: two hosts never have the same one at a time."""
    store: str
    agent: str
    """``file.py:make_agent`` or ``module:make_agent``."""
    listen: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    url: str = ""
    """Where callers reach it, with ``{name}`` and ``{port}``; empty: where it listens."""
    ttl_s: float = 10.0
    keep_s: float = 60.0
    drain_s: float = 3600.0
    """How long conversations may go on while the host drains."""
    max_sessions: int | None = None
    cpu_limit: float | None = 0.75
    origins: tuple[str, ...] = ()
    log: str = "text"
    """``text`` or ``json``."""
    log_level: str = ""
    """Empty: that of the environment, or INFO."""
    folder: str = ""
    """Where journals lie while a conversation is held; empty: a temporary folder."""

    def service(self, make_agent: MakeAgent) -> Options:
        """Return the options of the service that the host is.

        Raises:
            InvalidSettingError: One is not valid.
        """
        return checked_options(
            make_agent,
            None,
            max_sessions=self.max_sessions,
            cpu_limit=self.cpu_limit,
            memory_limit_mib=None,
            lag_limit_ms=None,
            tokens_per_minute=None,
            start_parallel=None,
            queue=0,
            queue_s=0.0,
            drain_s=self.drain_s,
            keep_s=self.keep_s,
            origins=self.origins,
            view="none",
        )


def serve_host(options: HostOptions) -> None:
    """Be a host until a signal ends it.

    Raises:
        ConfigurationError: An option is not valid, or the address cannot be used.
        LoadError: The agent cannot be loaded.
        StoreError: The store cannot be reached, or another host has this name.
    """
    validation.of_type("ttl_s", options.ttl_s, Ttl)
    make_agent = load(options.agent, "function", inspect.isroutine)
    service = options.service(make_agent)
    store = open_store(options.store)
    secret = store.secret()
    store.close()
    try:
        listener = listen(options.listen, options.port)
    except OSError as error:
        address, why = f"{options.listen}:{options.port}", error.strerror or error
        raise ConfigurationError(f"{options.name}: {address} cannot be used: {why}") from error
    _Process(options, service, secret, listener).run()


class _Process:
    def __init__(
        self, options: HostOptions, service: Options, secret: str, listener: socket.socket
    ) -> None:
        self._options = options
        self._service = service
        self._secret = secret
        self._listener = listener
        self._host: Host | None = None
        self._app: HostApp | None = None

    def run(self) -> None:
        run(self._serve, self._listener, self._drain, self._started)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            self._app = await self._made()
        await self._app(scope, receive, send)

    async def _made(self) -> HostApp:
        options = self._options
        folder = options.folder or tempfile.mkdtemp(prefix=f"rtvoice-host-{os.getpid()}-")
        self._host = Host(
            self._service,
            options.store,
            name=options.name,
            url=options.url.format(name=options.name, port=self._listener.getsockname()[1])
            or f"http://{address_of(self._listener)}",
            ttl_s=options.ttl_s,
            folder=Path(folder, "held"),
            end=_terminate,
        )
        return HostApp(self._host, self._secret, options.origins, _terminate)

    async def _started(self) -> None:
        assert self._host is not None  # the lifespan has begun
        await self._host.start()

    async def _drain(self, drain_s: float | None) -> None:
        if self._host is not None:
            await self._host.drain(drain_s)
            await self._host.close()


def _detach(name: str) -> None:
    """Go on in a process whose parent and session are nobody's; print it as an owner."""
    if os.fork():
        os._exit(EXIT_OK)
    os.setsid()
    sys.stdout.write(f"{owner_of_this_process(name)}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _terminate() -> None:
    """End this process as SIGTERM from outside does: it drains first."""
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Mapping[str, Any] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rtvoice.fleet.process",
        description="Be one host of a fleet; rtvoice fleet starts as many as are wanted.",
        allow_abbrev=False,
    )
    parser.add_argument("options", help="its options as JSON; see HostOptions")
    parser.add_argument(
        "--detach", action="store_true", help="go on as a process without a parent; print who"
    )
    given = parser.parse_args() if arguments is None else argparse.Namespace(**arguments)
    from rtvoice.command.serve import set_up_logging

    try:
        options = msgspec.json.decode(given.options, type=HostOptions)
        if given.detach:
            _detach(options.name)
        level = options.log_level or os.environ.get("RTVOICE_LOG_LEVEL", "").strip() or "INFO"
        set_up_logging(options.log, level)
        serve_host(options)
    except (RtvoiceError, UserError, OSError, msgspec.ValidationError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"rtvoice: {error}\n")
        return EXIT_USAGE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
