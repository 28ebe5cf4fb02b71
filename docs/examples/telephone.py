"""Answer the telephone: a server for media streams in the manner of Twilio.

python telephone.py [PORT], behind something that makes it wss://; the provider is told
<Response><Connect><Stream url="wss://your.host/"/></Connect></Response>
"""

import asyncio
import base64
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from rtvoice import Agent, AgentStoppedEvent, RtvoiceError
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice
from rtvoice.audio.mulaw import from_mulaw, to_mulaw

logger = logging.getLogger("telephone")


class Call(AudioInputDevice, AudioOutputDevice):
    """Both directions of a telephone call."""

    sample_rate = 8000

    def __init__(self, socket: ServerConnection, stream: str) -> None:
        self.played_ms = 0.0
        self._given_ms = 0.0
        self._marks: dict[str, float] = {}  # by name, how much is played when it comes back
        self._marked = 0
        self._socket = socket
        self._stream = stream

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def is_active(self) -> bool:
        return self._active

    @property
    def is_playing(self) -> bool:
        return bool(self._marks)  # even if a mark takes its time

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                match message["event"]:
                    case "media":
                        yield from_mulaw(base64.b64decode(message["media"]["payload"]))
                    case "mark":
                        name = message["mark"]["name"]
                        self.played_ms = self._marks.pop(name, self.played_ms)
                    case "stop":
                        break
        await self._socket.close()

    async def play_chunk(self, chunk: bytes) -> None:
        payload = base64.b64encode(to_mulaw(chunk)).decode()
        await self._send("media", media={"payload": payload})
        self._given_ms += len(chunk) / 2 / self.sample_rate * 1000
        self._marked += 1
        self._marks[str(self._marked)] = self._given_ms
        await self._send("mark", mark={"name": str(self._marked)})

    async def clear_buffer(self) -> None:
        self._marks.clear()  # they come back now, but what was before them was not heard
        self._given_ms = self.played_ms
        await self._send("clear")

    async def _send(self, event: str, **fields: object) -> None:
        message = {"event": event, "streamSid": self._stream, **fields}
        with contextlib.suppress(ConnectionClosed):  # the caller has hung up
            await self._socket.send(json.dumps(message))


async def answer(socket: ServerConnection) -> None:
    """Hold a conversation with one caller; several are held at once."""
    while (message := json.loads(await socket.recv()))["event"] != "start":
        pass  # "connected" comes before it
    call = Call(socket, message["streamSid"])
    agent = Agent(
        "You answer the telephone of a bicycle shop. Answer in one sentence.",
        greeting="Bicycle shop, hello!",
        audio_input=call,
        audio_output=call,
    )
    agent.event_bus.subscribe(AgentStoppedEvent, lambda _: socket.close())
    try:
        async with agent:
            await socket.wait_closed()  # the caller has hung up, or the conversation is over
            await agent.stop()
    except RtvoiceError as error:
        logger.error("a call failed: %s", error)


async def main(port: int) -> None:
    async with serve(answer, "127.0.0.1", port) as server:
        print(f"listening on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8080))
