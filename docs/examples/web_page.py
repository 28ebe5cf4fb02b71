"""Talk with an assistant on a web page.

python web_page.py [PORT], then open http://127.0.0.1:8080 and press the button.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

from rtvoice import Agent, AgentStoppedEvent, RtvoiceError, Turn
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice

PAGE = Path(__file__).with_name("web_page.html").read_text(encoding="utf-8")

logger = logging.getLogger("web_page")


class Visitor(AudioInputDevice, AudioOutputDevice):
    """The microphone and the loudspeaker of a visitor, at the other end of a websocket.

    Binary messages are sound, both ways; what is text is JSON.
    """

    def __init__(self, socket: ServerConnection, sample_rate: int) -> None:
        self.sample_rate = sample_rate  # the page's; rtvoice converts
        self.played_ms = 0.0  # how much of what it was given the page has played
        self._played_before_ms = 0.0  # of that, before the last interruption
        self._clears = 0
        self._socket = socket

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                if isinstance(message, bytes):
                    yield message
                else:
                    self._has_played(**json.loads(message))

    async def play_chunk(self, chunk: bytes) -> None:
        await self._send(chunk)

    async def clear_buffer(self) -> None:
        self._clears += 1
        self._played_before_ms = self.played_ms
        await self._send(json.dumps({"clear": self._clears}))

    def _has_played(self, played_ms: float, clears: int) -> None:
        if clears == self._clears:  # else it was sent before the page knew of the interruption
            self.played_ms = self._played_before_ms + played_ms

    async def _send(self, message: bytes | str) -> None:
        with contextlib.suppress(ConnectionClosed):  # who has left needs to hear no more
            await self._socket.send(message)


async def talk(socket: ServerConnection) -> None:
    """Hold a conversation with one visitor; several are held at once."""
    hello = json.loads(await socket.recv())
    try:
        await converse(socket, Visitor(socket, hello["sample_rate"]))
    except RtvoiceError as error:
        logger.error("a conversation failed: %s", error)
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({"failed": str(error)}))
    await socket.close()


async def converse(socket: ServerConnection, visitor: Visitor) -> None:
    """Return when the visitor has left, or the conversation is over."""
    has_server = "OPENAI_API_KEY" in os.environ or "RTVOICE_SERVER" in os.environ
    agent = Agent(
        "You are a friendly assistant. Answer in one or two sentences.",
        transcription_model="gpt-transcribe",
        audio_input=visitor,
        audio_output=visitor,
        server=None if has_server else "sandbox",
    )
    over = asyncio.Event()

    async def show(turn: Turn) -> None:
        told = {"id": turn.item_id, "role": turn.role, "text": turn.text}
        await socket.send(json.dumps(told))

    agent.event_bus.subscribe(Turn, show)
    agent.event_bus.subscribe(AgentStoppedEvent, lambda _: over.set())
    async with agent:
        await agent.wait_ready()
        await socket.send(json.dumps({"listening": True}))
        ends = [asyncio.ensure_future(end) for end in (socket.wait_closed(), over.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await agent.stop()


def page(connection: ServerConnection, request: Request) -> Response | None:
    """Answer a browser with the page; None: the request opens a websocket."""
    if request.path == "/talk":
        return None
    if request.path != "/":
        return connection.respond(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
    response = connection.respond(HTTPStatus.OK, PAGE)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


async def main(port: int) -> None:
    addresses = [Origin(f"http://127.0.0.1:{port}"), Origin(f"http://localhost:{port}")]
    async with serve(talk, "127.0.0.1", port, process_request=page, origins=addresses) as server:
        print(f"open {addresses[0]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8080))
