"""The sandbox judged by OpenAI's own client libraries."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.sandbox.client import CLOCK, TIMEOUT_S, Client, silence, spoken


@pytest.fixture
def adapter():
    realtime = pytest.importorskip(
        "agents.realtime.openai_realtime", reason="openai-agents is not installed"
    )
    return realtime.get_server_event_type_adapter()


def test_every_event_is_one_that_openai_agents_accepts(sandbox, adapter):
    with Client(f"{sandbox.url}?model=gpt-realtime-2.1") as client:
        client.expect("session.created")
        client.configure(
            tools=[CLOCK],
            audio={
                "input": {"transcription": {"model": "gpt-transcribe"}},
                "output": {"voice": "marin"},
            },
        )
        client.hear(silence(600) + spoken("what time is it") + silence(500))
        client.expect("response.done")
        client.ask("call get_current_time {}", output_modalities=["text"])
        client.ask("hello", metadata={"a": "b"})
        client.send("response.create", response={"conversation": "none"})
        client.expect("response.done")
        client.type("tell me a story")
        client.send("response.create")
        item_id = client.expect("response.output_audio.delta")["item_id"]
        client.send("response.cancel")
        client.expect("response.done")
        client.send("response.cancel")
        client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=50)
        client.send("conversation.item.retrieve", item_id=item_id)
        client.send("conversation.item.delete", item_id=item_id)
        client.send("input_audio_buffer.clear")
        client.expect("input_audio_buffer.cleared")
        client.configure(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})

    for event in client.received:
        adapter.validate_python(event)
    seen = set(client.kinds())
    assert {"error", "rate_limits.updated", "conversation.item.truncated"} <= seen
    assert len(seen) >= 27, sorted(seen)


def test_every_event_of_a_transcription_session_is_accepted(sandbox, adapter):
    with Client(f"{sandbox.url}?intent=transcription") as client:
        client.expect("session.created")
        client.send(
            "session.update",
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
            },
        )
        client.hear(silence(600) + spoken("hello") + silence(500))
        client.expect("input_audio_buffer.committed")
        client.expect("conversation.item.done")

    for event in client.received:
        adapter.validate_python(event)


def test_the_openai_library_holds_a_turn(sandbox):
    openai = pytest.importorskip("openai", reason="openai is not installed")
    base = sandbox.url.replace("ws:", "http:").removesuffix("/realtime")

    async def talk():
        client = openai.AsyncOpenAI(api_key="not-a-key", base_url=base)
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            await connection.session.update(
                session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
            )
            item = {"type": "message", "role": "user",
                    "content": [{"type": "input_text", "text": "what is your name"}]}  # fmt: skip
            await connection.conversation.item.create(item=item)
            await connection.response.create()
            words, sound = "", b""
            async for event in connection:
                if event.type == "response.output_audio_transcript.delta":
                    words += event.delta
                elif event.type == "response.output_audio.delta":
                    sound += base64.b64decode(event.delta)
                elif event.type == "response.done":
                    return words, sound, event.response.status
        raise AssertionError("the connection ended")

    words, sound, status = asyncio.run(asyncio.wait_for(talk(), TIMEOUT_S))

    assert words == "My name is Sandbox."
    assert len(sound) > 48_000 * 0.5
    assert status == "completed"


def test_the_agents_library_runs_a_tool_and_hears_the_answer(sandbox):
    realtime = pytest.importorskip("agents.realtime", reason="openai-agents is not installed")
    agents = pytest.importorskip("agents")

    @agents.function_tool
    def get_current_time() -> str:
        """Tell the time."""
        return "14:05:09"

    async def talk():
        agent = realtime.RealtimeAgent(name="A", instructions="Help.", tools=[get_current_time])
        runner = realtime.RealtimeRunner(agent)
        config = {"api_key": "x", "url": f"{sandbox.url}?model=gpt-realtime-2.1"}
        seen = []
        async with await runner.run(model_config=config) as session:
            await session.send_message("what time is it")
            async for event in session:
                seen.append(event.type)
                assert event.type != "error", event
                if event.type == "audio_end":
                    return seen
        raise AssertionError("the session ended")

    seen = asyncio.run(asyncio.wait_for(talk(), TIMEOUT_S))

    assert "tool_end" in seen
    assert "audio" in seen
