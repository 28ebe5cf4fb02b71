"""Conversations by OpenAI's library: prints what came of one as JSON.

python openai_client.py typed ws://127.0.0.1:PORT/v1/realtime [speech.pcm]
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI

CLOCK = {"type": "function", "name": "get_current_time", "description": "The time."}
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
BLOCK = 40 * 48


async def type_to(connection, text):
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def say_to(connection, pcm):
    for at in range(0, len(pcm), BLOCK):
        audio = base64.b64encode(pcm[at : at + BLOCK]).decode()
        await connection.input_audio_buffer.append(audio=audio)


async def until(connection, kind):
    """Read until an event of a type: all that came, it too."""
    seen = []
    async for event in connection:
        assert event.type != "error", event
        seen.append(event)
        if event.type == kind:
            return seen
    raise AssertionError(f"the connection ended before {kind}")


def words_in(events):
    kinds = ("response.output_audio_transcript.delta", "response.output_text.delta")
    return "".join(event.delta for event in events if event.type in kinds)


def bytes_in(events):
    deltas = [event.delta for event in events if event.type == "response.output_audio.delta"]
    return sum(len(base64.b64decode(delta)) for delta in deltas)


async def typed(connection, _pcm):
    await connection.session.update(
        session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
    )
    await type_to(connection, "what is your name")
    events = await until(connection, "response.done")
    response = events[-1].response
    return {
        "words": words_in(events),
        "bytes": bytes_in(events),
        "status": response.status,
        "audio_tokens": response.usage.output_token_details.audio_tokens,
    }


async def in_text(connection, _pcm):
    await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    await type_to(connection, "what is your name")
    events = await until(connection, "response.done")
    return {"words": words_in(events), "bytes": bytes_in(events)}


async def spoken(connection, pcm):
    heard = {
        "transcription": {"model": "gpt-4o-mini-transcribe"},
        "turn_detection": {"type": "semantic_vad"},
    }
    await connection.session.update(session={"type": "realtime", "audio": {"input": heard}})
    await say_to(connection, pcm)
    events = await until(connection, "response.done")
    heard = [event.transcript for event in events if event.type == TRANSCRIBED]
    return {"words": words_in(events), "heard": heard}


async def tools(connection, _pcm):
    await connection.session.update(session={"type": "realtime", "tools": [CLOCK]})
    await type_to(connection, "call get_current_time {}\ncall get_current_time {}")
    calls = (await until(connection, "response.done"))[-1].response.output
    for number, call in enumerate(calls):
        output = {"call_id": call.call_id, "output": f"14:0{number}"}
        await connection.conversation.item.create(item={"type": "function_call_output", **output})
    await connection.response.create()
    events = await until(connection, "response.done")
    return {"words": words_in(events), "calls": [call.name for call in calls]}


async def interrupted(connection, pcm):
    await type_to(connection, "tell me a story")
    await until(connection, "response.output_audio.delta")
    await say_to(connection, pcm)
    response = (await until(connection, "response.done"))[-1].response
    await connection.conversation.item.truncate(
        item_id=response.output[0].id, content_index=0, audio_end_ms=80
    )
    truncated = (await until(connection, "conversation.item.truncated"))[-1]
    return {
        "status": response.status,
        "reason": response.status_details.reason,
        "end_ms": truncated.audio_end_ms,
    }


async def main(url, question, interjection):
    base = url.replace("ws:", "http:").removesuffix("/realtime")
    client = AsyncOpenAI(api_key="sk-none", base_url=base)
    speech = {spoken: question, interrupted: interjection}
    came = {}
    for scenario in (typed, in_text, spoken, tools, interrupted):
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            came[scenario.__name__] = await scenario(connection, speech.get(scenario, b""))
    print(json.dumps(came))


if __name__ == "__main__":
    where, *paths = sys.argv[1:]
    sounds = [Path(path).read_bytes() for path in paths]
    asyncio.run(asyncio.wait_for(main(where, *sounds), 60))
