"""The sandbox judged by public clients: OpenAI's own libraries, and livekit's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.referees import judge
from tests.sandbox.client import CLOCK, MS, Client, silence, spoken
from tests.sandbox.test_session import Talk
from tests.sandbox.test_session_fuzz import EVENTS, play


def random_events():
    """What the sandbox emits in random sessions."""
    emitted = []

    @settings(max_examples=30, deadline=None, database=None)
    @given(events=st.lists(EVENTS, max_size=20))
    def play_all(events):
        talk = Talk()
        for kind, fields in events:
            if kind != "do" or any(type(work).__name__ == "Respond" for work in talk.work):
                play(talk, kind, fields)
        emitted.extend(talk.events)

    play_all()
    return emitted


def test_every_event_is_one_that_openai_agents_accepts(sandbox):
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
        client.send("sandbox.misbehave", fault="fail rate_limit_exceeded")
        client.answer()

    with Client(f"{sandbox.url}?intent=transcription") as listener:
        listener.expect("session.created")
        transcription = {"transcription": {"model": "gpt-transcribe"}}
        listener.send(
            "session.update", session={"type": "transcription", "audio": {"input": transcription}}
        )
        listener.hear(silence(600) + spoken("hello") + silence(500))
        listener.expect("input_audio_buffer.committed")
        listener.expect("conversation.item.done")

    wrong = {"type": "response.done", "event_id": "e", "response": {"status": 7}}
    events = [wrong, *client.received, *listener.received, *random_events()]
    refused = judge(
        "schema.py", "agents", given="".join(f"{json.dumps(event)}\n" for event in events)
    )
    assert [line.split()[0] for line in refused.splitlines()] == ["0"], refused
    seen = set(client.kinds())
    assert {"error", "rate_limits.updated", "conversation.item.truncated"} <= seen
    assert len(seen) >= 27, sorted(seen)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Two files: a question, and the beginning of an interjection."""
    folder = tmp_path_factory.mktemp("speech")
    question, interjection = folder / "question.pcm", folder / "interjection.pcm"
    question.write_bytes(silence(600) + spoken("what is your name") + silence(900))
    interjection.write_bytes(silence(600) + spoken("stop")[: 400 * MS])
    return question, interjection


@pytest.mark.usefixtures("recogniser_installed")
def test_openai_converses(sandbox, speech):
    came = json.loads(judge("openai_client.py", "openai", sandbox.url, *speech))

    assert came["typed"]["words"] == "My name is Sandbox."
    assert came["typed"]["bytes"] > 500 * MS
    assert came["typed"]["status"] == "completed"
    assert came["typed"]["audio_tokens"] > 10
    assert came["in_text"] == {"words": "My name is Sandbox.", "bytes": 0}
    assert came["spoken"] == {"words": "My name is Sandbox.", "heard": ["what is your name"]}
    assert came["tools"]["calls"] == ["get_current_time"] * 2
    assert came["tools"]["words"] == "It is 14:00. It is 14:01."
    interrupted = {"status": "cancelled", "reason": "turn_detected", "end_ms": 80}
    assert came["interrupted"] == interrupted


def test_agents_converse(sandbox, speech):
    came = json.loads(judge("agents_client.py", "agents", sandbox.url, *speech))

    assert came["one_tool"]["outputs"] == ["14:05:09"]
    assert came["one_tool"]["bytes"] > 500 * MS
    assert came["two_tools"]["outputs"] == ["14:05:09", "14:05:09"]
    assert came["spoken"]["bytes"] > 500 * MS
    assert came["interrupted"]["end_ms"] >= 0


@pytest.mark.long
def test_livekit_speaks_calls_and_interrupts(sandbox):
    base = sandbox.url.replace("ws:", "http:").removesuffix("/realtime")

    told = json.loads(judge("livekit_client.py", "livekit", base))

    assert told["text"] == "My name is Sandbox."
    assert told["samples"] > 12_000
    assert told["calls"] == ["get_current_time", "get_current_time"]
    assert told["interrupted"]
