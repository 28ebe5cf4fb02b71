"""``--web``: the conversation in a browser, served by a service on this machine."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import socket
import ssl
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from messages.errors import ConfigurationError
from messages.exit_codes import EXIT_OK
from messages.hints import install
from rtvoice.command.choice import Choice, UsageError
from rtvoice.command.serve import port_of, set_up_logging

__all__ = ["Address", "check_web", "serve_page"]

_KEEP_S = 600.0
"""How long a conversation whose page is gone is kept: a laptop may be closed for a while."""
_FILES = ("record", "journal", "resume", "session")
"""Options that name the files of one conversation: with them, no second one is held beside it."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Address(NamedTuple):
    """Where the page is served."""

    host: str
    port: int
    certificate: str | None
    key: str | None

    def url(self, port: int, secret: str) -> str:
        """Return what a browser is to open."""
        name = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        name = "[::1]" if name == "::" else f"[{name}]" if ":" in name else name
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{name}:{port}/?key={secret}"


def check_web(options: argparse.Namespace) -> Address:
    """Check the options that go with ``--web``; return where the page is served.

    Raises:
        UsageError: One is not valid, or does not go with it.
    """
    if missing := [name for name in ("uvicorn", "prometheus_client") if find_spec(name) is None]:
        raise UsageError(f"{missing[0]} is not installed: {install(_package())}")
    for name, why in _NOT_WITH.items():
        if getattr(options, name):
            raise UsageError(f"--web {why}: leave --{name.replace('_', '-')} out")
    try:
        port = port_of(options.port or "8080")
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    host, certificate, key = options.host or "127.0.0.1", options.tls_cert, options.tls_key
    if bool(certificate) != bool(key):
        raise UsageError("--tls-cert and --tls-key go together: give both")
    if certificate:
        _check_certificate(certificate, key)
    elif not (_is_loopback(host) or options.insecure):
        raise UsageError(
            f"--host {host} would be reached from other machines, and browsers give a page without "
            "TLS no microphone: add --tls-cert and --tls-key (or --insecure, if a proxy adds TLS)"
        )
    return Address(host, port, certificate, key)


_NOT_WITH = {
    "demo": "is no demo",
    "input": "uses the microphone of the browser",
    "output": "uses the loudspeaker of the browser",
    "events": "shows the events on the page",
    "levels": "shows the levels on the page",
    "probes": "kills components from the page",
}


def _package() -> str:
    return "'rtvoice[web]'"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_certificate(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = error.reason or error
        text = f"--tls-cert {certificate}, --tls-key {key}: no certificate with its key ({reason})"
        raise UsageError(text) from None
    except OSError as error:
        text = f"--tls-cert {certificate}, --tls-key {key}: cannot be read ({error.strerror})"
        raise UsageError(text) from None


def serve_page(
    options: argparse.Namespace, address: Address, choice: Choice, given: Mapping[str, Any]
) -> int:
    """Serve the page until Ctrl-C or SIGTERM; return the exit code of the command.

    Args:
        options: The options of the command.
        address: Where.
        choice: What the command runs.
        given: Fields of `messages.Settings`.

    Raises:
        UsageError: The settings contradict each other, or the address cannot be used.
    """
    from rtvoice.command.agent import CommandAgent
    from rtvoice.service import Service
    from rtvoice.service.serving import run
    from rtvoice.web import Page

    set_up_logging("text", str(given["log_level"]))
    try:
        CommandAgent(given, choice.defaults).check()
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    is_one = any(getattr(options, name) is not None for name in _FILES)
    service = Service(
        lambda _: CommandAgent(given, choice.defaults),
        max_sessions=1 if is_one else None,
        cpu_limit=None,
        lag_limit_ms=None,
        keep_s=_KEEP_S,
        view="all",
    )
    listener = _listen(address)
    secret = secrets.token_urlsafe(18)
    hosts = (*_LOOPBACK, address.host) if _is_loopback(address.host) else ()
    page = Page(service, key=secret, hosts=hosts, notes=choice.hints)

    async def started() -> None:
        url = address.url(listener.getsockname()[1], secret)
        sys.stdout.write("".join(f"{line}\n" for line in (*choice.hints, f"Open {url}")))
        sys.stdout.flush()

    run(page, listener, service.drain, started, address.certificate, address.key)
    return EXIT_OK


def _listen(address: Address) -> socket.socket:
    from rtvoice.service.serving import listen

    try:
        return listen(address.host, address.port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        text = f"{address.host}:{address.port} cannot be used ({why}); choose another --port"
        raise UsageError(text) from None
