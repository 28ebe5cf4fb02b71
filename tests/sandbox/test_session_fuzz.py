"""Whatever a client sends: the session answers with events, and lives."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.client import CLOCK
from tests.sandbox.test_session import TURN, Talk

AUDIO = base64.b64encode(TURN).decode()
IDS = st.sampled_from(["a", "b", "root", "item_x", "call_1", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**10) | st.floats(-2, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
TEXTS = st.sampled_from(["hello", "what time is it", "call get_current_time {}", "Say: x", "?"])
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "input_audio", "output_text", "input_image"])},
    optional={"text": TEXTS, "audio": st.just(AUDIO), "image_url": TEXTS, "x": VALUES},
)
ITEMS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message", "function_call", "function_call_output", "item_reference"]
        )
    },
    optional={
        "id": IDS,
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": st.lists(PARTS, max_size=2),
        "call_id": IDS,
        "name": TEXTS,
        "arguments": TEXTS,
        "output": TEXTS,
    },
)
VAD = st.none() | st.fixed_dictionaries(
    {"type": st.sampled_from(["server_vad", "semantic_vad"])},
    optional={
        "create_response": st.booleans(),
        "interrupt_response": st.booleans(),
        "silence_duration_ms": st.integers(0, 900),
        "idle_timeout_ms": st.just(5000),
        "eagerness": st.sampled_from(["low", "high"]),
    },
)
FORMATS = st.sampled_from([{"type": "audio/pcm"}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}])
SESSIONS = st.fixed_dictionaries(
    {"type": st.just("realtime")},
    optional={
        "output_modalities": st.sampled_from([["text"], ["audio"], []]),
        "tools": st.sampled_from([[], [CLOCK]]),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "max_output_tokens": st.sampled_from([1, 20, "inf"]),
        "audio": st.fixed_dictionaries(
            {},
            optional={
                "input": st.fixed_dictionaries(
                    {},
                    optional={
                        "turn_detection": VAD,
                        "format": FORMATS,
                        "transcription": st.sampled_from([None, {"model": "whisper-1"}]),
                    },
                ),
                "output": st.fixed_dictionaries(
                    {}, optional={"format": FORMATS, "voice": st.sampled_from(["ash", "?"])}
                ),
            },
        ),
        "x": VALUES,
    },
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "conversation": st.sampled_from(["auto", "none"]),
        "input": st.lists(ITEMS, max_size=2),
        "instructions": TEXTS,
        "output_modalities": st.sampled_from([["text"], ["audio"], None]),
        "max_output_tokens": st.sampled_from([1, 9]),
        "metadata": VALUES,
    },
)


def event(kind, **fields):
    return st.tuples(st.just(kind), st.fixed_dictionaries({}, optional=fields))


EVENTS = st.one_of(
    event("session.update", session=SESSIONS),
    event("input_audio_buffer.append", audio=st.just(AUDIO)),
    event("input_audio_buffer.append", audio=VALUES),
    event("input_audio_buffer.commit"),
    event("input_audio_buffer.clear"),
    event("conversation.item.create", item=ITEMS, previous_item_id=IDS),
    event("conversation.item.delete", item_id=IDS),
    event("conversation.item.retrieve", item_id=IDS),
    event(
        "conversation.item.truncate",
        item_id=IDS,
        content_index=st.integers(0, 1),
        audio_end_ms=st.integers(0, 500),
    ),
    event("response.create", response=RESPONSES),
    event("response.cancel", response_id=st.none() | IDS),
    event("anything", x=VALUES),
    st.sampled_from([("do", "listen"), ("do", "respond"), ("do", "speak")]),
)


def play(talk, kind, fields):
    if kind != "do":
        talk.send(kind, **fields)
    elif fields == "listen":
        talk.listen()
    elif talk.work:
        talk.listen()
        response_id, speech = talk.think()
        if speech is not None:
            talk.session.speak(response_id, speech.text.split(), bytes(9600))
            if fields == "respond":
                talk.session.finish(response_id)
        talk._collect()


@settings(max_examples=60, deadline=None)
@given(events=st.lists(EVENTS, max_size=25))
def test_no_sequence_of_events_breaks_a_session(events):
    talk = Talk()

    for kind, fields in events:
        if kind != "do" or any(type(work).__name__ == "Respond" for work in talk.work):
            play(talk, kind, fields)

    assert talk.settings()["type"] == "realtime"
    created = {e["response"]["id"] for e in talk.events if e["type"] == "response.created"}
    done = [e["response"]["id"] for e in talk.events if e["type"] == "response.done"]
    assert len(done) == len(set(done))
    assert set(done) <= created
    ids = [e["event_id"] for e in talk.events]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("depth", [50, 900, 20_000])
def test_deeply_nested_json_is_refused_or_taken_but_never_fatal(depth):
    talk = Talk()
    nested = '{"a":' * depth + "1" + "}" * depth

    (event,) = talk.send_raw(
        '{"type": "session.update", "session": {"type": "realtime", "tools": '
        f'[{{"type": "function", "name": "f", "parameters": {nested}}}]}}}}'
    )

    assert event["type"] == ("session.updated" if depth == 50 else "error")
