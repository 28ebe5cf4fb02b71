"""A conversation by livekit-plugins-openai, as a program: prints what came of it as JSON.

python livekit_client.py http://127.0.0.1:PORT/v1
"""

from __future__ import annotations

import asyncio
import json
import sys

from livekit.agents import llm
from livekit.plugins import openai

CALLS = "call get_current_time {}\ncall get_current_time {}"


@llm.function_tool
async def get_current_time() -> str:
    """Tell the time."""
    return "14:05:09"


async def answer(generated):
    """Read a whole answer: its text, its samples, the tools it calls."""
    words, samples, calls = [], [], []

    async def messages():
        async for message in generated.message_stream:

            async def text(message=message):
                words.extend([str(word) async for word in message.text_stream])

            async def sound(message=message):
                samples.extend([f.samples_per_channel async for f in message.audio_stream])

            await asyncio.gather(text(), sound())

    async def functions():
        calls.extend([call.name async for call in generated.function_stream])

    await asyncio.gather(messages(), functions())
    return "".join(words), sum(samples), calls


async def main(base_url):
    model = openai.realtime.RealtimeModel(base_url=base_url, api_key="x")
    session = model.session()
    await session.update_tools([get_current_time])
    spoken = await session.generate_reply(instructions="Say: My name is Sandbox.")
    text, samples, _ = await answer(spoken)
    context = session.chat_ctx.copy()
    context.add_message(role="user", content=CALLS)
    await session.update_chat_ctx(context)
    *_, calls = await answer(await session.generate_reply())
    story = "one two three four. " * 40
    generated = await session.generate_reply(instructions=f"Say: {story}")
    session.interrupt()
    said, *_ = await answer(generated)
    print(
        json.dumps(
            {
                "text": text,
                "samples": samples,
                "calls": calls,
                "interrupted": len(said) < len(story) / 2,
            }
        )
    )
    await session.aclose()
    await model.aclose()


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
