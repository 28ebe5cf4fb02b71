"""The page as an ASGI application: its files, the doors, and the callers' socket behind them."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from messages.errors import ConfigurationError
from rtvoice.service import Busy, Service
from rtvoice.service.socket import Event, Receive, Send, Socket, headers_of, query_of
from rtvoice.web.doors import Doors, is_host

__all__ = ["Page"]

_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; connect-src 'self'{sockets}; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)
"""Older browsers do not count a websocket of the same host as ``'self'``."""
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Page:
    """A page with which a person talks with an assistant of a service.

    It is an ASGI application. Alone it serves the page at ``/`` and its socket at ``/talk``;
    mounted into another application, below that place. What it shows beyond the talk is what the
    service allows (``view``).

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.service import CallInfo, Service
        from rtvoice.web import Page

        def make_agent(call: CallInfo) -> Agent:
            return Agent("You sell bicycles.", transcription_model="gpt-transcribe")

        service = Service(make_agent, view="talk")
        page = Page(service)  # in Starlette and FastAPI: app.mount("/voice", page)
        print(service.view)
        ```
    """

    def __init__(
        self,
        service: Service,
        *,
        key: str | None = None,
        hosts: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Describe the page.

        Args:
            service: Holds the conversations. Its ``view`` is ``talk`` or ``all``.
            key: A secret without which the page does not open: ``/?key=…``; None: anybody may open
                it.
            hosts: Names by which the page may be reached, without a port; empty: any.
            notes: Sentences to show before the start.

        Raises:
            ConfigurationError: The service shows no view.
        """
        if service.view == "none":
            raise ConfigurationError('the page needs a view: make the service with view="talk"')
        self._service = service
        self._doors = Doors(key, hosts)
        self._notes = "".join(f"<p>{html.escape(note)}</p>" for note in notes)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one request, one websocket, or the lifespan."""
        root = scope.get("root_path", "")
        path = scope.get("path", "").removeprefix(root)
        match scope["type"]:
            case "lifespan":
                await self._service.asgi(scope, receive, send)
            case "websocket":
                await self._call(scope, receive, send, path)
            case "http":
                status, headers, body = self._answer(scope, path, root)
                told = [(key.encode(), value.encode()) for key, value in headers.items()]
                await send({"type": "http.response.start", "status": status, "headers": told})
                body = b"" if scope["method"] == "HEAD" else body
                await send({"type": "http.response.body", "body": body})

    async def _call(self, scope: Event, receive: Receive, send: Send, path: str) -> None:
        socket = Socket(scope, receive, send)
        problem = self._doors.why_not(socket.headers, socket.query)
        if path != "/talk" or problem:
            await receive()
            await socket.refuse(403 if problem else 404, problem or "the page calls at /talk")
            return
        await self._service.asgi(scope, receive, send)

    def _answer(self, scope: Event, path: str, root: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        headers = headers_of(scope)
        host = headers.get("host", "")
        if scope["method"] not in ("GET", "HEAD"):
            return self._text(405, "Only GET and HEAD are allowed.")
        if path == "" and root:  # names of files are relative to a folder
            at = scope.get("query_string", b"").decode("latin-1")
            return 307, {"location": f"{root}/{f'?{at}' if at else ''}", **_HEADERS}, b""
        if path.startswith("/static/"):
            return self._file(path.removeprefix("/static/"), host)
        if path not in ("", "/", "/ready"):
            return self._text(404, "There is nothing here.")
        if problem := self._doors.why_not(headers, query_of(scope)):
            return self._refusal(problem, as_page=path != "/ready")
        if path == "/ready":
            return self._readiness()
        return self._page("index.html", 200, host, "<!-- notes -->", self._notes)

    def _readiness(self) -> tuple[int, dict[str, str], bytes]:
        """Say whether a caller would be taken: a browser does not show why a call was refused."""
        text = ""
        if self._service.is_draining:
            text = "The program is ending; start it again."
        elif short := self._service.shortage:
            sentence = str(Busy(short, 1.0)).partition(";")[0]
            text = f"{sentence[0].upper()}{sentence[1:]}. Try again later."
        body = json.dumps({"ready": not text, "text": text}).encode()
        return 200, {"content-type": "application/json", **_HEADERS}, body

    def _refusal(self, problem: str, *, as_page: bool) -> tuple[int, dict[str, str], bytes]:
        if not as_page:
            return self._text(403, problem)
        return self._page("refused.html", 403, "", "<!-- problem -->", html.escape(problem))

    def _page(
        self, name: str, status: int, host: str, mark: str, text: str
    ) -> tuple[int, dict[str, str], bytes]:
        body = (_STATIC / name).read_text(encoding="utf-8").replace(mark, text)
        return status, {**_typed(name), **_policy(host)}, body.encode()

    def _file(self, name: str, host: str) -> tuple[int, dict[str, str], bytes]:
        """Return a file of the page: none of them is a secret."""
        if name not in _NAMES:
            return self._text(404, "There is nothing here.")
        return 200, {**_typed(name), **_policy(host)}, (_STATIC / name).read_bytes()

    def _text(self, status: int, text: str) -> tuple[int, dict[str, str], bytes]:
        return (
            status,
            {"content-type": "text/plain; charset=utf-8", **_HEADERS},
            f"{text}\n".encode(),
        )


_NAMES = {path.name for path in _STATIC.glob("*") if path.suffix in _TYPES}


def _typed(name: str) -> dict[str, str]:
    return {"content-type": _TYPES[Path(name).suffix], **_HEADERS}


def _policy(host: str) -> dict[str, str]:
    sockets = f" ws://{host} wss://{host}" if is_host(host) else ""
    return {"content-security-policy": _POLICY.format(sockets=sockets)}
