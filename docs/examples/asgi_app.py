"""Voice agents in a web service of your own: python asgi_app.py [PORT].

Callers talk at ws://127.0.0.1:8080/voice/talk; /ask?q=... answers a typed question.
"""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import FrameType
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from rtvoice import Agent, RtvoiceError, Turn
from rtvoice.service import Busy, CallInfo, Draining, Service

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

logger = logging.getLogger("shop")


def make_agent(call: CallInfo) -> Agent:
    logger.info("a customer calls from %s", call.client)
    return Agent("You sell bicycles. Answer in one sentence.")


service = Service(make_agent)


async def app(scope: Event, receive: Receive, send: Send) -> None:
    """Serve one request; in Starlette and FastAPI: app.mount("/voice", service.asgi)."""
    match scope["type"], scope.get("path", ""):
        case "lifespan", _:
            await service.asgi(scope, receive, send)
        case _, path if path.startswith("/voice/"):
            await service.asgi({**scope, "root_path": "/voice"}, receive, send)
        case "http", "/ask":
            question = parse_qs(scope["query_string"].decode()).get("q", ["hello"])[0]
            await _answer(send, *await ask(question))
        case "http", _:
            await _answer(send, 404, {"error": "there is nothing here"})
        case _:
            await send({"type": "websocket.close"})


async def ask(question: str) -> tuple[int, object]:
    """Return the status and the body that answer a typed question."""
    agent = Agent("You sell bicycles.", audio_input="silence", audio_output="null")
    try:
        async with service.session(agent):
            agent.send_text(question)
            async for turn in agent.events(Turn):
                if turn.role == "assistant":
                    await agent.stop()
    except (Busy, Draining) as error:
        return 503, {"error": str(error)}
    except RtvoiceError as error:
        logger.error("a question failed: %s", error)
        return 502, {"error": "no answer"}
    return 200, {"answer": agent.history.conversation_turns[-1].content}


async def _answer(send: Send, status: int, body: object) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


class Server(uvicorn.Server):
    """Drains before it ends: uvicorn by itself closes all websockets at once."""

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        at_once = sig == signal.SIGINT or service.is_draining  # Ctrl-C, or the second SIGTERM
        self._loop.call_soon_threadsafe(self._end, 0 if at_once else None)

    def _end(self, drain_s: float | None) -> None:
        self._draining = asyncio.ensure_future(service.drain(drain_s))
        self._draining.add_done_callback(lambda _: setattr(self, "should_exit", True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    port = int(sys.argv[1]) if sys.argv[1:] else 8080
    Server(uvicorn.Config(app, port=port, ws_ping_timeout=120)).run()
