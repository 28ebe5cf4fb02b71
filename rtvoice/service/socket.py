"""A websocket as an ASGI server hands it over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from rtvoice.service.frames import GOING_AWAY, NORMAL, Frame

__all__ = ["Closed", "Event", "Receive", "Send", "Socket", "headers_of", "query_of"]

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_LOST = {1006, 1011, 1012, 1013, 1014}
"""Close codes of an end that the caller did not want; after others the call is over."""

_ENDING_S = 1.0
"""How long the end of a refused connection is waited for."""


def headers_of(scope: Event) -> dict[str, str]:
    """Return the headers of a request; their names are in lower case."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in scope.get("headers", ())
    }


def query_of(scope: Event) -> dict[str, str]:
    """Return the parameters in the address of a request."""
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


class Closed(Exception):  # noqa: N818 - the normal end of a socket
    """Raised when the socket has ended.

    ``lost``: without a close frame of the caller; ``left``: the page was left, or is loaded again.
    """

    def __init__(self, *, lost: bool, left: bool = False) -> None:
        super().__init__(lost)
        self.lost = lost
        self.left = left


class Socket:
    """One websocket, from the handshake to its end."""

    def __init__(self, scope: Event, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_over = False
        self._coming: asyncio.Future[Event] | None = None
        self.headers = headers_of(scope)
        self.query = query_of(scope)

    @property
    def client(self) -> str:
        """The address of the other end; empty: unknown."""
        client = self._scope.get("client")
        return f"{client[0]}:{client[1]}" if client else ""

    def comes_from(self, origins: Iterable[str]) -> bool:
        """Return whether a page of ours opened it, one of these origins, or no page at all."""
        origin = self.headers.get("origin")
        if origin is None:
            return True
        allowed = set(origins)
        host = origin.partition("://")[2]  # RFC 6454 section 6.2: nothing follows it
        return "*" in allowed or origin in allowed or host == self.headers.get("host")

    # -- before it is open --------------------------------------------------------------------

    async def refuse(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """Answer the handshake with an HTTP status.

        Where the server cannot do that, the websocket is closed before it is open.
        """
        self._is_over = True
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._try({"type": "websocket.close", "code": 1013, "reason": text})
            return
        told = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
        await self._try(
            {
                "type": "websocket.http.response.start",
                "status": status,
                "headers": [(key.encode(), value.encode()) for key, value in told.items()],
            }
        )
        await self._try({"type": "websocket.http.response.body", "body": f"{text}\n".encode()})
        # Until the connection has ended, which is a second event, uvicorn takes the handshake for
        # one that we have forgotten, and logs an error.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_S):
                for _ in range(2):
                    await self._receive()

    async def accept(self) -> None:
        """Open it."""
        await self._try({"type": "websocket.accept"})

    async def until_gone(self) -> None:
        """Return when the caller has given up before the socket was open."""
        self._coming = asyncio.ensure_future(self._receive())
        await asyncio.shield(self._coming)

    # -- while it is open ---------------------------------------------------------------------

    async def frame(self) -> Frame:
        """Return the next frame.

        Raises:
            Closed: There is none any more.
        """
        coming, self._coming = self._coming, None
        event = await (coming if coming is not None else self._receive())
        if event["type"] != "websocket.receive":
            self._is_over = True
            raise Closed(lost=_was_lost(event), left=event.get("code") == GOING_AWAY)
        data, text = event.get("bytes"), event.get("text")
        return data if data is not None else text or ""

    async def send(self, frames: Iterable[Frame]) -> None:
        """Send frames; who has left gets none."""
        for frame in frames:
            kind = "text" if isinstance(frame, str) else "bytes"
            await self._try({"type": "websocket.send", kind: frame})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it, if it is open."""
        short = reason.encode()[:120].decode("utf-8", "ignore")  # a close frame has 125 bytes
        await self._try({"type": "websocket.close", "code": code, "reason": short})
        self._is_over = True

    async def _try(self, event: Event) -> None:
        if self._is_over and event["type"] == "websocket.send":
            return
        with contextlib.suppress(OSError, RuntimeError):  # it has ended, or was closed before
            await self._send(event)


def _was_lost(event: Event) -> bool:
    """Return whether a socket has ended without a close frame.

    Without one, uvicorn gives no reason, and code 1005 instead of 1006.
    """
    code = event.get("code", 1005)
    return code in _LOST or (code == 1005 and "reason" not in event)
