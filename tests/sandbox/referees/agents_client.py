"""Conversations by the Agents SDK: prints what came of one as JSON.

python agents_client.py tools ws://127.0.0.1:PORT/v1/realtime [speech.pcm]
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner


@function_tool
def get_current_time() -> str:
    """Tell the time."""
    return "14:05:09"


async def until(session, kind, where=lambda _: True):
    """Read until an event of a type that fits: all that came, it too."""
    seen = []
    async for event in session:
        assert event.type != "error", event
        seen.append(event)
        if event.type == kind and where(event):
            return seen
    raise AssertionError(f"the session ended before {kind}")


def outputs_in(events):
    return [event.output for event in events if event.type == "tool_end"]


def bytes_in(events):
    return sum(len(event.audio.data) for event in events if event.type == "audio")


async def one_tool(session, _pcm):
    await session.send_message("what time is it")
    events = await until(session, "audio_end")
    return {"outputs": outputs_in(events), "bytes": bytes_in(events)}


async def two_tools(session, _pcm):
    await session.send_message("call get_current_time {}\ncall get_current_time {}")
    events = []
    while len(outputs_in(events)) < 2:
        events += await until(session, "tool_end")
    return {"outputs": outputs_in(events + await until(session, "audio"))}


async def spoken(session, pcm):
    await session.send_audio(pcm)
    return {"bytes": bytes_in(await until(session, "audio_end"))}


async def interrupted(session, pcm):
    await session.send_message("tell me a story")
    await until(session, "audio")
    await session.send_audio(pcm)
    await until(session, "audio_interrupted")

    def is_truncation(event):
        raw = getattr(event.data, "data", None)
        return isinstance(raw, dict) and raw.get("type") == "conversation.item.truncated"

    events = await until(session, "raw_model_event", is_truncation)
    return {"end_ms": events[-1].data.data["audio_end_ms"]}


async def main(url, question, interjection):
    agent = RealtimeAgent(name="A", instructions="Help.", tools=[get_current_time])
    where = {"api_key": "sk-none", "url": f"{url}?model=gpt-realtime-2.1"}
    speech = {spoken: question, interrupted: interjection}
    came = {}
    for scenario in (one_tool, two_tools, spoken, interrupted):
        async with await RealtimeRunner(agent).run(model_config=where) as session:
            came[scenario.__name__] = await scenario(session, speech.get(scenario, b""))
    print(json.dumps(came))


if __name__ == "__main__":
    place, *paths = sys.argv[1:]
    sounds = [Path(path).read_bytes() for path in paths]
    asyncio.run(asyncio.wait_for(main(place, *sounds), 60))
