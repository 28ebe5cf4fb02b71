"""The sandbox judged by public clients: OpenAI's own libraries, and livekit's."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox.client import CLOCK, MS, TIMEOUT_S, Client, silence, spoken
from tests.sandbox.test_session import Talk
from tests.sandbox.test_session_fuzz import EVENTS, play


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


TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
TWO_CALLS = "call get_current_time {}\ncall get_current_time {}"


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(EVENTS, max_size=20))
def test_no_sequence_of_events_has_an_answer_that_openai_agents_refuses(adapter, events):
    talk = Talk()
    for kind, fields in events:
        if kind != "do" or any(type(work).__name__ == "Respond" for work in talk.work):
            play(talk, kind, fields)

    for event in talk.events:
        adapter.validate_python(event)


# openai


def with_openai(sandbox, talk):
    """Have a conversation with OpenAI's library; what `talk(connection)` returns."""
    openai = pytest.importorskip("openai", reason="openai is not installed")
    base = sandbox.url.replace("ws:", "http:").removesuffix("/realtime")

    async def connected():
        client = openai.AsyncOpenAI(api_key="not-a-key", base_url=base)
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            return await talk(connection)

    return asyncio.run(asyncio.wait_for(connected(), TIMEOUT_S))


async def type_to(connection, text):
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def say_to(connection, pcm):
    for at in range(0, len(pcm), 40 * MS):
        audio = base64.b64encode(pcm[at : at + 40 * MS]).decode()
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


def test_openai_holds_a_typed_turn(sandbox):
    async def talk(connection):
        await connection.session.update(
            session={"type": "realtime", "audio": {"output": {"voice": "marin"}}}
        )
        await type_to(connection, "what is your name")
        return await until(connection, "response.done")

    events = with_openai(sandbox, talk)

    deltas = [event.delta for event in events if event.type == "response.output_audio.delta"]
    assert words_in(events) == "My name is Sandbox."
    assert sum(len(base64.b64decode(delta)) for delta in deltas) > 500 * MS
    assert events[-1].response.status == "completed"
    assert events[-1].response.usage.output_token_details.audio_tokens > 10


def test_openai_holds_a_turn_in_text(sandbox):
    async def talk(connection):
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await type_to(connection, "what is your name")
        return await until(connection, "response.done")

    assert words_in(with_openai(sandbox, talk)) == "My name is Sandbox."


@pytest.mark.usefixtures("recogniser_installed")
def test_openai_holds_a_spoken_turn(sandbox):
    async def talk(connection):
        heard = {
            "transcription": {"model": "gpt-4o-mini-transcribe"},
            "turn_detection": {"type": "semantic_vad"},
        }
        await connection.session.update(session={"type": "realtime", "audio": {"input": heard}})
        await say_to(connection, silence(600) + spoken("thank you") + silence(900))
        return await until(connection, "response.done")

    events = with_openai(sandbox, talk)

    transcripts = [event.transcript for event in events if event.type == TRANSCRIBED]
    assert transcripts == ["thank you"]
    assert words_in(events) == "You are welcome."


def test_openai_answers_parallel_calls(sandbox):
    async def talk(connection):
        await connection.session.update(session={"type": "realtime", "tools": [CLOCK]})
        await type_to(connection, TWO_CALLS)
        calls = (await until(connection, "response.done"))[-1].response.output
        for number, call in enumerate(calls):
            output = {"call_id": call.call_id, "output": f"14:0{number}"}
            await connection.conversation.item.create(
                item={"type": "function_call_output", **output}
            )
        await connection.response.create()
        return calls, await until(connection, "response.done")

    calls, events = with_openai(sandbox, talk)

    assert [call.name for call in calls] == ["get_current_time"] * 2
    assert words_in(events) == "It is 14:00. It is 14:01."


def test_openai_interrupts_and_truncates(sandbox):
    async def talk(connection):
        await type_to(connection, "tell me a story")
        events = await until(connection, "response.output_audio.delta")
        await say_to(connection, silence(600) + spoken("stop")[: 400 * MS])
        events += await until(connection, "response.done")
        await connection.conversation.item.truncate(
            item_id=events[-1].response.output[0].id, content_index=0, audio_end_ms=80
        )
        return events + await until(connection, "conversation.item.truncated")

    *events, truncated = with_openai(sandbox, talk)

    (done,) = [event.response for event in events if event.type == "response.done"]
    assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected")
    assert truncated.audio_end_ms == 80


# openai-agents


def with_agents(sandbox, converse):
    """Have a conversation with the Agents SDK; what `converse(session)` returns."""
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    realtime = pytest.importorskip("agents.realtime")

    @agents.function_tool
    def get_current_time() -> str:
        """Tell the time."""
        return "14:05:09"

    async def connected():
        agent = realtime.RealtimeAgent(name="A", instructions="Help.", tools=[get_current_time])
        where = {"api_key": "x", "url": f"{sandbox.url}?model=gpt-realtime-2.1"}
        runner = realtime.RealtimeRunner(agent)
        async with await runner.run(model_config=where) as session:
            return await converse(session)

    return asyncio.run(asyncio.wait_for(connected(), TIMEOUT_S))


def kinds_of(events):
    return [event.type for event in events]


def test_agents_run_a_tool_and_hear_the_answer(sandbox):
    async def converse(session):
        await session.send_message("what time is it")
        return await until(session, "audio_end")

    events = with_agents(sandbox, converse)

    (ended,) = [event for event in events if event.type == "tool_end"]
    assert ended.output == "14:05:09"
    assert "audio" in kinds_of(events)


def test_agents_answer_parallel_calls(sandbox):
    async def converse(session):
        await session.send_message(TWO_CALLS)
        events = []
        while kinds_of(events).count("tool_end") < 2:
            events += await until(session, "tool_end")
        return events + await until(session, "audio")

    assert kinds_of(with_agents(sandbox, converse)).count("tool_end") == 2


@pytest.mark.usefixtures("recogniser_installed")
def test_agents_hear_a_spoken_turn(sandbox):
    async def converse(session):
        await session.send_audio(silence(600) + spoken("what is your name") + silence(900))
        return await until(session, "audio_end")

    events = with_agents(sandbox, converse)

    sound = b"".join(event.audio.data for event in events if event.type == "audio")
    assert len(sound) > 500 * MS


def test_agents_are_interrupted_and_truncate(sandbox):
    async def converse(session):
        await session.send_message("tell me a story")
        await until(session, "audio")
        await session.send_audio(silence(600) + spoken("stop")[: 400 * MS])
        events = await until(session, "audio_interrupted")
        while True:
            events += await until(session, "raw_model_event")
            raw = getattr(events[-1].data, "data", None)
            if isinstance(raw, dict) and raw.get("type") == "conversation.item.truncated":
                return raw

    assert with_agents(sandbox, converse)["audio_end_ms"] >= 0


# livekit


@pytest.mark.long
def test_livekit_speaks_calls_and_interrupts(sandbox):
    if find_spec("livekit") is None or find_spec("livekit.plugins.openai") is None:
        pytest.skip("livekit-plugins-openai is not installed")
    base = sandbox.url.replace("ws:", "http:").removesuffix("/realtime")

    # In a process of its own: it starts threads and registers itself when it is imported.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("livekit_client.py")), base],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["text"] == "My name is Sandbox."
    assert told["samples"] > 12_000
    assert told["calls"] == ["get_current_time", "get_current_time"]
    assert told["interrupted"]
