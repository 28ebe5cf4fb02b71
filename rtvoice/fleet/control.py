"""The host as an ASGI application: callers as in a service, and control for the fleet."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from rtvoice.fleet.host import CannotMoveError, Host
from rtvoice.fleet.store import StoreError
from rtvoice.service.asgi import App
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.socket import Event, Receive, Send

__all__ = ["HostApp", "answer"]

_logger = logging.getLogger("rtvoice.fleet")


async def answer(send: Send, status: int, content: Mapping[str, Any]) -> None:
    """Answer an HTTP request with JSON."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


class HostApp:
    """The application of a host.

    =====================  =====  =====================================================
    ``/talk``, …                  as in a service (`rtvoice.service.asgi`)
    ``/fleet/take``        POST   take the conversation ``id``
    ``/fleet/stop``        POST   end it in order
    ``/fleet/move``        POST   let another host have it, at a pause
    ``/fleet/drain``       POST   take nothing more, move everything, and end; with
                                  ``to_end=1``, let everything go on to its end here
    ``/fleet/status``      GET    what it holds
    =====================  =====  =====================================================

    Args:
        host: The host.
        secret: What ``authorization: Bearer …`` of a request for control must be.
        origins: As in a service.
        drain: Has the host drain and its process end.
    """

    def __init__(
        self, host: Host, secret: str, origins: tuple[str, ...], drain: Callable[[], None]
    ) -> None:
        self._host = host
        self._drain = drain
        self._secret = f"Bearer {secret}".encode()
        self._callers = App(host.desk, host.drain, origins)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request, one websocket, or the lifespan."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith("/fleet/"):
            await self._callers(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._secret):
            await answer(send, 403, {"error": "only the fleet itself may ask this"})
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        found = {name: values[-1] for name, values in query.items()}
        status, content = await self._obey(scope["method"], path.removeprefix("/fleet/"), found)
        await answer(send, status, content)

    async def _obey(
        self, method: str, what: str, query: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        host, session_id = self._host, query.get("id", "")
        match method, what:
            case "POST", "take":
                try:
                    return 200, {"taken": await host.take(session_id)}
                except (Busy, Draining, StoreError) as error:
                    return 503, {"error": str(error)}
                except PermissionError as error:
                    return 403, {"error": str(error) or "the call is refused"}
                except Exception:  # of the user's make_agent; the other callers go on
                    _logger.exception("conversation %s cannot start", session_id)
                    return 500, {"error": "the conversation cannot start"}
            case "POST", "stop":
                return 200, {"held": host.stop(session_id, query.get("why", "stopped"))}
            case "POST", "move":
                try:
                    return 200, {"held": await host.move(session_id)}
                except (CannotMoveError, StoreError) as error:
                    return 503, {"error": str(error)}
            case "POST", "drain":
                host.moves_when_draining = not query.get("to_end")
                self._drain()
                return 200, host.status()
            case "GET", "status":
                return 200, host.status()
        return 404, {"error": "there is nothing here"}
