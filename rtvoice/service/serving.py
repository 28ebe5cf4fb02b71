"""Runs an ASGI application with uvicorn, so that SIGTERM drains before sockets are closed."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import uvicorn

__all__ = ["address_of", "listen", "run"]

_PING_S, _PONG_S = 20.0, 120.0
"""Keep-alive of sockets: a caller without an answer for two minutes is lost. With the 20 s that are
usual, a machine that is busy for a while would end calls."""
_SHUTDOWN_S = 5


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as ``HOST:PORT``."""
    host, port = listener.getsockname()[:2]
    return f"{f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    """Drains before it ends: uvicorn itself would close the callers' sockets first."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[float | None], Awaitable[None]],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._on_started = started
        self._draining: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            await self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            super().handle_exit(sig, frame)
            return
        at_once = sig == signal.SIGINT or self._draining is not None
        self._loop.call_soon_threadsafe(self._end, 0.0 if at_once else None)

    def _end(self, drain_s: float | None) -> None:
        task = asyncio.ensure_future(self._drained(drain_s))
        self._draining = self._draining or task

    async def _drained(self, drain_s: float | None) -> None:
        await self._drain(drain_s)
        self.should_exit = True


def run(
    asgi: Any,
    listener: socket.socket,
    drain: Callable[[float | None], Awaitable[None]],
    started: Callable[[], Awaitable[None]],
    certificate: str | None = None,
    key: str | None = None,
) -> None:
    """Serve until a signal ends it.

    Args:
        asgi: The application.
        listener: The listening socket.
        drain: Is awaited before the server ends, with the seconds that it may take at most (None:
            as it likes; a second signal: 0).
        started: Is awaited once requests are served.
        certificate: A file with the certificate, for TLS; None: without TLS.
        key: A file with its private key.
    """
    config = uvicorn.Config(
        asgi,
        log_config=None,
        access_log=False,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PONG_S,
        ws_per_message_deflate=False,  # sound does not get smaller by it, and it costs CPU
        timeout_graceful_shutdown=_SHUTDOWN_S,
        lifespan="on",
        interface="asgi3",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    with listener:
        _Server(config, drain, started).run(sockets=[listener])
