"""The programs of ``python scripts/benchmark.py floor``: a conversation, and a bare websocket.

Each connects to the server of the benchmark, sends stamped sound, plays what comes, stops when the
user speaks and answers tool calls. The bare websocket does it with nothing in between, so its
figures are the floor for any client on the machine.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmark_devices import PUT_LOG, stamp_of, stamped

CLIENTS = {"bare": "bare websocket", "named": "by name", "program": "of the program"}
_DEVICES = Path(__file__).resolve().with_name("benchmark_devices.py")
_BLOCK_S, _BLOCK_BYTES = 0.04, 1920


def _log() -> Any:
    return open(os.environ[PUT_LOG], "ab", buffering=0)  # noqa: PTH123 - for life


async def _blocks() -> AsyncIterator[bytes]:
    due = time.monotonic()
    while True:
        due += _BLOCK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield stamped(_BLOCK_BYTES)


async def bare(url: str) -> None:
    """Do the work of a conversation on a websocket, in one task and with nothing else."""
    from websockets.asyncio.client import connect

    log = _log()
    async with connect(url, compression=None, max_size=None) as socket:

        async def capture() -> None:
            async for pcm in _blocks():
                audio = base64.b64encode(pcm).decode()
                await socket.send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

        capturing = asyncio.create_task(capture())
        async for text in socket:
            event = json.loads(text)
            match event["type"]:
                case "response.output_audio.delta":
                    if made := stamp_of(base64.b64decode(event["delta"])):
                        log.write(struct.pack("<QQ", made, time.monotonic_ns()))
                    item_id = event["item_id"]
                case "input_audio_buffer.speech_started":
                    log.write(struct.pack("<QQ", 0, time.monotonic_ns()))
                    stop = {"item_id": item_id, "content_index": 0, "audio_end_ms": 0}
                    await socket.send(json.dumps({"type": "conversation.item.truncate", **stop}))
                case "response.output_item.done" if event["item"]["type"] == "function_call":
                    call_id = event["item"]["call_id"]
                    output = {"type": "function_call_output", "call_id": call_id, "output": "1"}
                    create = {"type": "conversation.item.create", "item": output}
                    await socket.send(json.dumps(create))
        capturing.cancel()


class Microphone:
    """A microphone of the program, whose blocks are stamped."""

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def stream_chunks(self) -> AsyncIterator[bytes]:
        """Return the blocks, in real time."""
        return _blocks()


class Loudspeaker:
    """A loudspeaker of the program, which notes each stamp and when it got it."""

    def __init__(self) -> None:
        self._log = _log()

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def play_chunk(self, pcm: bytes) -> None:
        """Note the stamp of a chunk."""
        if made := stamp_of(pcm):
            self._log.write(struct.pack("<QQ", made, time.monotonic_ns()))

    async def clear_buffer(self) -> None:
        """Note the time."""
        self._log.write(struct.pack("<QQ", 0, time.monotonic_ns()))


async def conversation(url: str, devices: str) -> None:
    """Run a conversation, with devices by name or of the program, until it is killed."""
    from rtvoice import Agent, Tools

    tools = Tools()

    @tools.action("says what time it is", name="get_current_time")
    def get_time() -> str:
        return "12:00"

    given: dict[str, Any]
    if devices == "named":
        given = {
            "audio_input": f"{_DEVICES}:StampedCapture",
            "audio_output": f"{_DEVICES}:StampedPlayback",
            "tools": f"{_DEVICES}:tools",
        }
    else:
        given = {"audio_input": Microphone(), "audio_output": Loudspeaker(), "tools": tools}
    agent = Agent(server=url, builtin_tools=(), inactivity_timeout_s=None, **given)
    async with agent:
        pass


def main() -> None:
    """Run a client: ``benchmark_floor.py bare|named|program URL``."""
    client, url = sys.argv[1:]
    asyncio.run(bare(url) if client == "bare" else conversation(url, client))


if __name__ == "__main__":
    main()
