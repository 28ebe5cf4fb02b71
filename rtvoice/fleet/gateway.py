"""The gateway: begins conversations, and tells callers where theirs is. Sound never passes it."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from typing import Any

from rtvoice.fleet.control import answer
from rtvoice.fleet.engine import Fleet
from rtvoice.fleet.store import HostRow, SessionRow, StoreError
from rtvoice.service.frames import POLICY
from rtvoice.service.socket import Event, Receive, Send
from rtvoice.service.tokens import Token

__all__ = ["Gateway"]

_logger = logging.getLogger("rtvoice.fleet")

_MOST_BYTES = 64 * 1024


class Gateway:
    """The ASGI application of a fleet.

    ======================  ======  ==========================================================
    ``/sessions``           POST    begins a conversation: its id, token, and url of ``/talk``
    ``/sessions/ID``        GET     where it is now; 404, or 410 once it has ended
    ``/sessions/ID``        DELETE  ends it in order
    ``/healthz``            GET     200 as long as the program answers
    ``/readyz``             GET     200 if a host takes conversations, else 503
    ======================  ======  ==========================================================

    Requests for one conversation have its token as ``authorization: Bearer TOKEN``.

    Args:
        fleet: The fleet.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._is_closed = False

    def close(self) -> None:
        """Begin no conversation any more."""
        self._is_closed = True

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        match scope["type"]:
            case "lifespan":
                for kind in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{kind}.complete"})
            case "http":
                try:
                    status, content = await self._obey(scope, receive)
                except StoreError as error:
                    _logger.warning("%s", error)
                    status, content = 503, {"error": "the store cannot be reached; try again"}
                await answer(send, status, content)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": POLICY})

    async def _obey(self, scope: Event, receive: Receive) -> tuple[int, dict[str, Any]]:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        match scope["method"], path.strip("/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"healthy": True}
            case "GET", ["readyz"]:
                ready = not self._is_closed and any(host.room for host in await self._fleet.hosts())
                return (200 if ready else 503), {"ready": ready}
            case "POST", ["sessions"]:
                return await self._begin(await _body(receive))
            case "GET" | "DELETE", ["sessions", session_id]:
                return await self._of_one(scope, session_id)
        return 404, {"error": "there is nothing here; POST /sessions begins a conversation"}

    async def _begin(self, body: bytes | None) -> tuple[int, dict[str, Any]]:
        try:
            given = json.loads(body or b"{}") if body is not None else None
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict) or not isinstance(given.get("parameters", {}), dict):
            return 400, {"error": 'send an object: {"parameters": {...}, "rate": 24000}'}
        rate = given.get("rate", 24_000)
        if type(rate) is not int or not 8000 <= rate <= 192_000:
            return 400, {"error": '"rate": samples a second, from 8000 to 192000'}
        if self._is_closed:
            return 503, {"error": "the fleet is ending"}
        session_id = secrets.token_hex(8)
        token = Token(session_id)
        call = {
            "kind": "talk",
            "path": "/talk",
            "parameters": given.get("parameters", {}),
            "sample_rate": rate,
        }
        fleet = self._fleet
        content = json.dumps(call).encode()
        await asyncio.to_thread(fleet.store.create, session_id, content, token.sha256)
        host = await fleet.start_session(session_id)
        if host is None:
            return await self._not_begun(session_id)
        return 201, {"id": session_id, "token": token.text, "url": _talk(host)}

    async def _not_begun(self, session_id: str) -> tuple[int, dict[str, Any]]:
        """Answer a caller for whom nothing could be begun, and see to it that nobody begins it."""
        await self._fleet.stop(session_id, "no place")
        row = await self._fleet.status(session_id)
        match row.ended if row is not None else None:
            case "refused":
                return 403, {"error": "the call is refused"}
            case "failed":
                return 500, {"error": "the conversation cannot start"}
        return 503, {"error": "no host has a place; try again later"}

    async def _of_one(self, scope: Event, session_id: str) -> tuple[int, dict[str, Any]]:
        row = await self._fleet.status(session_id)
        if row is None or not _is_its_token(scope, row):
            return 404, {"error": "there is no such conversation, or the token is another one's"}
        if row.ended is not None:
            return 410, {"error": "it has ended", "reason": row.ended}
        if scope["method"] == "DELETE":
            if await self._fleet.stop(session_id, "hung_up"):
                return 200, {"ended": True}
            return 503, {"error": "it is between two hosts; ask again in a moment"}
        host = await self._fleet.locate(session_id)
        if host is None:
            return 503, {"error": "it is between two hosts; ask again in a moment"}
        return 200, {"id": session_id, "url": _talk(host), "epoch": row.epoch}


def _talk(host: HostRow) -> str:
    return f"{host.url.replace('http', 'ws', 1)}/talk"


def _is_its_token(scope: Event, row: SessionRow) -> bool:
    given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    token = Token(row.id, row.token_sha256)
    return hmac.compare_digest(given[:7].lower(), "bearer ") and token.fits(given[7:].strip())


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request; None: it is too long."""
    whole: bytes = b""
    while True:
        event = await receive()
        whole += event.get("body", b"")
        if len(whole) > _MOST_BYTES:
            return None
        if not event.get("more_body"):
            return whole
