"""Many sessions at once: each is understood, and gets its own answer."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from rtvoice.sandbox.launch import start_sandbox
from tests.rig import TIMEOUT_S
from tests.sandbox.client import MS, silence, spoken

BLOCK_MS = 40
ANSWERS = {
    "hello": "Hello. I am the sandbox. Say help to hear what I understand.",
    "thank you": "You are welcome.",
    "what is your name": "My name is Sandbox.",
    "goodbye": "Goodbye.",
}
TRANSCRIBED = {"input": {"transcription": {"model": "gpt-transcribe"}}}


async def converse(url, number, start):
    """Say a phrase at the pace of a microphone; what was asked, heard and answered."""
    words = list(ANSWERS)[number % len(ANSWERS)]
    pcm = silence(600 + 37 * number % 1000) + spoken(words) + silence(20_000)
    heard, said = asyncio.Future(), asyncio.Future()
    async with connect(url, max_size=None, compression=None) as socket:

        async def read():
            async for frame in socket:
                event = json.loads(frame)
                if event["type"].endswith("transcription.completed"):
                    heard.set_result(event["transcript"])
                elif event["type"] == "response.done":
                    said.set_result(event["response"]["output"][0]["content"][0]["transcript"])

        reading = asyncio.create_task(read())
        await socket.send(
            json.dumps(
                {
                    "type": "session.update",
                    "session": {"type": "realtime", "audio": TRANSCRIBED},
                }
            )
        )
        await start.wait()
        began = time.monotonic()
        for at in range(0, len(pcm), BLOCK_MS * MS):
            audio = base64.b64encode(pcm[at : at + BLOCK_MS * MS]).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await asyncio.sleep(max(0, began + at / MS / 1000 - time.monotonic()))
            if heard.done() and said.done():
                break
        async with asyncio.timeout(2 * TIMEOUT_S):
            found = words, await heard, await said
        reading.cancel()
    return found


def memory_mib(pid):
    """Proportional share of memory of a process and its children; 0 where nobody tells."""
    pids, total = [pid], 0.0
    while pids:
        process = Path("/proc", str(pids.pop()))
        try:
            for children in process.glob("task/*/children"):
                pids += map(int, children.read_text().split())
            rollup = (process / "smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += int(rollup.partition("\nPss:")[2].split()[0]) / 1024
    return total


@pytest.mark.usefixtures("recogniser_installed")
@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.long)])
def test_all_who_speak_at_once_are_understood_and_answered(count):
    async def all_at_once(url):
        start = asyncio.Event()
        talking = [asyncio.create_task(converse(url, each, start)) for each in range(count)]
        await asyncio.sleep(0)
        start.set()
        return await asyncio.gather(*talking)

    for words in ANSWERS:
        spoken(words)
    with start_sandbox() as running:
        came = asyncio.run(all_at_once(running.url))
        used = memory_mib(running.pid)

    assert [(heard, said) for _, heard, said in came] == [
        (words, ANSWERS[words]) for words, _, _ in came
    ]
    assert used < 600
