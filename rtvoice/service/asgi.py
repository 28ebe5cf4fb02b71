"""The ASGI application of a service: endpoints for callers and for operators."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

from rtvoice.service.admission import Place
from rtvoice.service.call import Call
from rtvoice.service.desk import Desk
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.frames import (
    FAILED,
    GOING_AWAY,
    POLICY,
    TRY_LATER,
    BadFrameError,
    Hello,
    Scope,
    Wire,
)
from rtvoice.service.info import CallInfo
from rtvoice.service.logs import session_id
from rtvoice.service.metrics import CONTENT_TYPE
from rtvoice.service.socket import Closed, Event, Receive, Send, Socket
from rtvoice.service.talk import Talk
from rtvoice.service.twilio import Twilio

__all__ = ["App"]

_logger = logging.getLogger("rtvoice.service")

_HELLO_S = 10.0
"""How long the hello of a caller, who has a place meanwhile, is waited for."""
_DRAINING_S = 5.0
"""``Retry-After`` of a service that ends: another instance will take its place."""


class Admitted:
    """The place of a caller who is let in, until a conversation has taken it."""

    def __init__(self, desk: Desk) -> None:
        self.place: Place | None = None
        self.refusal: Busy | Draining | None = None
        """Why there is no place; None: there is, or a lost caller has come again."""
        self._desk = desk

    def take(self) -> Place:
        """Return the place, which is the conversation's from now on.

        Raises:
            BadFrameError: There is none.
        """
        place, self.place = self.place, None
        if place is None:
            raise BadFrameError(TRY_LATER, str(self.refusal or Busy("sessions", 1.0)))
        return place

    def give_back(self) -> None:
        """Free the place, unless it was taken."""
        if self.place is not None:
            self._desk.give_back(self.place)
            self.place = None


class App:
    """The application. Mount it in another one, or serve it alone.

    ==============  =====  =====================================================
    ``/talk``       ws     callers: PCM and JSON (`rtvoice.service.talk`)
    ``/twilio``     ws     callers by Twilio's Media Streams
    ``/healthz``    GET    200 as long as the program answers
    ``/readyz``     GET    200, while it ends 503
    ``/metrics``    GET    for Prometheus
    ``/sessions``   GET    the conversations as JSON
    ==============  =====  =====================================================
    """

    def __init__(
        self,
        desk: Desk,
        drain: Callable[[float], Awaitable[None]],
        origins: Sequence[str],
        view: Scope = "none",
    ) -> None:
        self._desk = desk
        self._view = view
        self._drain = drain
        self._origins = tuple(origins)
        self._sockets: set[Socket] = set()
        """Those that are open."""
        self._closed = asyncio.Event()
        self._returning = 0
        """How many callers were let in without a place, since they may be lost ones."""

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request, one websocket, or the lifespan."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", "")) or "/"
        match scope["type"], path:
            case "lifespan", _:
                await self._live(receive, send)
            case "websocket", "/talk":
                await self._serve(Socket(scope, receive, send), Talk(self._view), receive, path)
            case "websocket", "/twilio":
                await self._serve(Socket(scope, receive, send), Twilio(), receive, path)
            case "websocket", _:
                await receive()
                await Socket(scope, receive, send).refuse(404, "callers use /talk and /twilio")
            case "http", _:
                status, kind, body = self._page(scope["method"], path)
                headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})

    async def closed(self, timeout_s: float) -> None:
        """Wait until all callers' sockets are closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._sockets:
                    self._closed.clear()
                    await self._closed.wait()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # "lifespan.startup"
        self._desk.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()  # "lifespan.shutdown"
        await self._drain(0)
        await send({"type": "lifespan.shutdown.complete"})

    # -- operators ----------------------------------------------------------------------------

    def _page(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        if method not in ("GET", "HEAD"):
            return _as_json(405, {"error": "only GET and HEAD are allowed"})
        match path:
            case "/healthz":
                return _as_json(200, {"healthy": True})
            case "/readyz":
                status = 503 if self._desk.is_draining else 200
                return _as_json(status, {"ready": status == 200, "short": self._desk.shortage})
            case "/metrics":
                return 200, CONTENT_TYPE, self._desk.metrics()
            case "/sessions":
                return _as_json(200, {"sessions": self._desk.sessions()})
        return _as_json(404, {"error": "there is nothing here"})

    # -- callers ------------------------------------------------------------------------------

    async def _serve(self, socket: Socket, wire: Wire, receive: Receive, path: str) -> None:
        """Serve a caller: a place first, then the socket, then the hello."""
        await receive()  # "websocket.connect"
        if not socket.comes_from(self._origins):
            await socket.refuse(403, "pages of this origin may not call")
            return
        admitted = Admitted(self._desk)
        if not (wire.resumes and self._desk.find(socket.query.get("token"))):
            try:
                admitted.place = await self._place(socket)
            except Closed:
                return
            except (Busy, Draining) as error:
                if not (wire.resumes and self._returning < self._desk.lost):
                    await _refuse(socket, error)
                    return
                admitted.refusal = error  # unless the hello has the token of a lost caller
        self._returning += admitted.refusal is not None
        self._sockets.add(socket)
        try:
            await socket.accept()
            await self._greet(socket, wire, path, admitted)
        except BadFrameError as error:
            await socket.close(error.code, error.text)
        except Closed:
            pass
        finally:
            self._sockets.discard(socket)
            self._closed.set()
            self._returning -= admitted.refusal is not None
            admitted.give_back()

    async def _place(self, socket: Socket) -> Place:
        """Return a place for a caller, who may give up waiting for it.

        Raises:
            Busy: There is none.
            Draining: The service ends.
            Closed: The caller has given up.
        """
        placed = asyncio.ensure_future(self._desk.admit())
        await asyncio.sleep(0)
        if placed.done():
            return placed.result()
        gone = asyncio.ensure_future(socket.until_gone())
        try:
            await asyncio.wait({placed, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            placed.add_done_callback(self._give_back)
            placed.cancel()
            raise
        finally:
            gone.cancel()
        if placed.done():
            return placed.result()
        placed.cancel()
        raise Closed(lost=True)

    def _give_back(self, placed: asyncio.Future[Place]) -> None:
        """Free a place that came when nobody waited for it any more."""
        if not placed.cancelled() and placed.exception() is None:
            self._desk.give_back(placed.result())

    async def _greet(self, socket: Socket, wire: Wire, path: str, admitted: Admitted) -> None:
        """Wait for the hello, and serve the caller until the socket ends.

        Raises:
            BadFrameError: The caller has sent what is not allowed.
            Closed: The caller has left before the hello.
        """
        hello = await _hello(socket, wire)
        token = hello.token or socket.query.get("token")
        if (call := self._desk.find(token)) is not None:
            admitted.give_back()
            if call.sample_rate != hello.sample_rate:
                text = f"this conversation has a rate of {call.sample_rate}"
                raise BadFrameError(POLICY, text)
            if call.has_view != hello.view:
                text = f"this conversation was begun with{'' if call.has_view else 'out'} a view"
                raise BadFrameError(POLICY, text)
            await call.attend(socket, wire, resumed=True)
            return
        earlier = self._desk.find_journal(token) if token else None
        if token and earlier is None:
            text = "the token fits no conversation that is kept; call again without it"
            raise BadFrameError(POLICY, text)
        known = {"id": earlier} if earlier else {}
        info = CallInfo(
            kind=wire.kind,
            path=path,
            query=socket.query,
            headers=socket.headers,
            parameters=hello.parameters,
            client=socket.client,
            sample_rate=hello.sample_rate,
            **known,
        )
        session_id.set(info.id)  # of this task, for the log records of make_agent
        call = await self._begin(info, admitted, resumed=earlier is not None, view=hello.view)
        await call.attend(socket, wire, resumed=earlier is not None)

    async def _begin(
        self, info: CallInfo, admitted: Admitted, *, resumed: bool, view: bool
    ) -> Call:
        """Begin the conversation of a caller.

        Raises:
            BadFrameError: There is no place, or no agent for this caller.
        """
        if self._desk.is_draining:
            raise BadFrameError(GOING_AWAY, str(Draining()))
        place = admitted.take()
        try:
            return await self._desk.call(place, info, resumed=resumed, view=view)
        except PermissionError as error:
            admitted.place = place
            raise BadFrameError(POLICY, str(error) or "the call is refused") from error
        except Exception as error:  # of the user's make_agent; the other callers go on
            admitted.place = place
            _logger.exception("conversation %s cannot start", info.id)
            raise BadFrameError(FAILED, "the conversation cannot start") from error


async def _hello(socket: Socket, wire: Wire) -> Hello:
    try:
        async with asyncio.timeout(_HELLO_S):
            while (hello := wire.greeted(await socket.frame())) is None:
                pass
    except TimeoutError:
        text = f"the hello has not come within {_HELLO_S:g} s"
        raise BadFrameError(POLICY, text) from None
    return hello


async def _refuse(socket: Socket, error: Busy | Draining) -> None:
    wait_s = error.retry_after_s if isinstance(error, Busy) else _DRAINING_S
    await socket.refuse(503, str(error), {"retry-after": str(max(1, math.ceil(wait_s)))})


def _as_json(status: int, body: object) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(body).encode()
