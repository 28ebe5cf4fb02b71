"""Voice agents in a web service: python -m uvicorn asgi_app:app.

A kiosk, which talks through the sound card of this machine for as long as the service runs, and
visitors, who talk over websockets (16-bit PCM, 24 kHz, both ways).
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from rtvoice import Agent, AgentStoppedEvent, NotRunningError, RtvoiceError
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

logger = logging.getLogger("shop")


class Visitor(AudioInputDevice, AudioOutputDevice):
    """The microphone and the loudspeaker of whoever has opened a websocket."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.is_over = asyncio.Event()
        self.has_left = False
        self._receive = receive
        self._send = send

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def is_active(self) -> bool:
        return self._active

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        while (event := await self._receive())["type"] == "websocket.receive":
            if event.get("bytes"):
                yield event["bytes"]
        self.has_left = True  # it was "websocket.disconnect"
        self.is_over.set()

    async def play_chunk(self, chunk: bytes) -> None:
        if not self.has_left:
            await self._send({"type": "websocket.send", "bytes": chunk})

    async def clear_buffer(self) -> None:
        if not self.has_left:
            await self._send({"type": "websocket.send", "text": '{"clear": true}'})


class Shop:
    """An ASGI application."""

    def __init__(self) -> None:
        self._kiosk = Agent("You are the kiosk of a bicycle shop.", inactivity_timeout_s=None)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        match scope["type"], scope.get("path"):
            case "lifespan", _:
                await self._live(receive, send)
            case "websocket", "/talk":
                await self._talk(receive, send)
            case "websocket", _:
                await send({"type": "websocket.close"})
            case _, "/ready":
                await _answer(send, 200 if self._kiosk.ready else 503, {"ready": self._kiosk.ready})
            case _, "/status":
                await self._tell_status(send)
            case _:
                await _answer(send, 404, {"error": "there is nothing here"})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # "lifespan.startup"
        kiosk = asyncio.create_task(self._attend())
        await send({"type": "lifespan.startup.complete"})
        await receive()  # "lifespan.shutdown"
        kiosk.cancel()  # its conversation ends in order, within 5 s
        await asyncio.wait({kiosk})
        await send({"type": "lifespan.shutdown.complete"})

    async def _attend(self) -> None:
        while True:  # one conversation after the other
            try:
                history = await self._kiosk.run()
                logger.info("the kiosk has said goodbye: %s", history.ended_because)
            except RtvoiceError as error:
                logger.error("the kiosk is out of order: %s", error)
                await asyncio.sleep(5)

    async def _talk(self, receive: Receive, send: Send) -> None:
        await receive()  # "websocket.connect"
        await send({"type": "websocket.accept"})
        visitor = Visitor(receive, send)
        agent = Agent(
            "You sell bicycles. Answer in one sentence.",
            audio_input=visitor,
            audio_output=visitor,
        )
        agent.event_bus.subscribe(AgentStoppedEvent, lambda _: visitor.is_over.set())
        try:
            async with agent:
                await visitor.is_over.wait()
                await agent.stop()
        except RtvoiceError as error:
            logger.error("a conversation failed: %s", error)
        if not visitor.has_left:
            await send({"type": "websocket.close"})

    async def _tell_status(self, send: Send) -> None:
        try:
            await _answer(send, 200, await self._kiosk.status())
        except NotRunningError as error:
            await _answer(send, 503, {"error": str(error)})


async def _answer(send: Send, status: int, body: object) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


app = Shop()
