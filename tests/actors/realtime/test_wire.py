"""Decoding and encoding the events of the Realtime API, broken ones too."""

from __future__ import annotations

import base64
import json

import pytest

from actors.realtime import wire
from messages import (
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    ResponseEnded,
    ServerError,
    ToolCall,
    UserItem,
    UserTranscript,
)
from tests.actors.realtime.core.bench import Bench
from tests.recordings import needs_recordings, received, recordings


def test_an_audio_delta_is_decoded_to_bytes() -> None:
    text = json.dumps(
        {
            "type": "response.output_audio.delta",
            "event_id": "e",
            "response_id": "r",
            "item_id": "i",
            "output_index": 0,
            "content_index": 1,
            "delta": base64.b64encode(b"\1\2\3\4").decode(),
        }
    ).encode()

    event = wire.decode(text)

    assert isinstance(event, wire.AudioDelta)
    assert (event.delta, event.item_id, event.content_index) == (b"\1\2\3\4", "i", 1)


def test_an_append_is_encoded_from_bytes() -> None:
    event = json.loads(wire.encode(wire.Append(b"\1\2")))

    assert event == {"type": "input_audio_buffer.append", "audio": "AQI="}


def test_a_truncation_at_zero_says_so() -> None:
    event = json.loads(wire.encode(wire.Truncate("i", 0, 0, "e")))

    assert event == {
        "type": "conversation.item.truncate",
        "item_id": "i",
        "content_index": 0,
        "audio_end_ms": 0,
        "event_id": "e",
    }


@pytest.mark.parametrize(
    "text",
    [
        b'{"type": "response.thought.delta", "delta": 1}',
        b'{"event_id": "x", "type": "rate_limits.updated", "rate_limits": []}',
    ],
)
def test_an_unknown_event_is_harmless(text: bytes) -> None:
    assert isinstance(wire.decode(text), wire.UnknownEvent)


def test_unknown_and_null_fields_are_harmless() -> None:
    event = wire.decode(
        b'{"type":"response.done","new":{"a":[1]},"response":{"id":"r","usage":null,'
        b'"status":"completed","status_details":null,"output":[{"phase":"commentary"}]}}'
    )

    assert isinstance(event, wire.ResponseDone)
    assert event.response.usage is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no json",
        b"[]",
        b'"text"',
        b"null",
        b"{}",
        b'{"type": 5}',
        b'{"type": "response.done"',
        b'{"type": "response.done"}',
        b'{"type": "response.done", "response": []}',
        b'{"type": "response.output_audio.delta", "response_id": "r", "item_id": 5, "delta": ""}',
        b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"a b"}',
        b'{"type": "conversation.item.added", "item": {"id": "i"}}',
        b"\xff\xfe",
    ],
)
def test_a_broken_frame_is_a_value_and_not_a_crash(text: bytes) -> None:
    assert isinstance(wire.decode(text), wire.BadFrame)


def test_the_reason_of_a_bad_frame_has_nothing_of_what_was_said() -> None:
    frame = wire.decode(
        b'{"type":"conversation.item.input_audio_transcription.completed","item_id":1,'
        b'"transcript":"my secret"}'
    )

    assert isinstance(frame, wire.BadFrame)
    assert "secret" not in frame.reason


@needs_recordings
def test_every_recorded_event_is_understood() -> None:
    kinds = set()
    for name in recordings():
        for data in received(name):
            event = wire.decode(json.dumps(data).encode())
            assert not isinstance(event, wire.BadFrame), (name, event)
            kinds.add(type(event))

    assert wire.AudioDelta in kinds
    assert wire.OutputItemDone in kinds


def _replayed(name: str) -> Bench:
    """Have the core go through a recorded session."""
    bench = Bench(transcription_model="gpt-transcribe", inactivity_timeout_s=None).live()
    for data in received(name):
        bench.take(wire.decode(json.dumps(data).encode()))
        bench.collect()
    return bench


@needs_recordings
def test_a_recorded_turn_is_published_as_recorded() -> None:
    bench = _replayed("audio_in_server_vad_turn")

    user, answer = bench.one(UserItem), bench.all(AssistantItem)[-1]
    assert bench.one(UserTranscript).item_id == user.item_id
    assert bench.one(UserTranscript).text
    assert (answer.previous_item_id, answer.status) == (user.item_id, "completed")
    assert answer.text == "".join(piece.delta for piece in bench.all(AssistantTranscript))
    assert bench.all(AssistantAudio)[-1].last
    assert bench.one(ResponseEnded).output_tokens > 0
    bench.none(ServerError)


@needs_recordings
def test_recorded_turns_are_chained() -> None:
    bench = _replayed("input_audio_retention_segments_three_server_vad_turns")

    assert len(bench.all(UserItem)) == 3
    before = {item.item_id: item.previous_item_id for item in bench.all(UserItem)}
    before |= {item.item_id: item.previous_item_id for item in bench.all(AssistantItem)}
    assert sum(previous is None for previous in before.values()) == 1
    assert set(before.values()) - {None} <= set(before)
    bench.none(ServerError)


@needs_recordings
def test_a_recorded_tool_call_is_run() -> None:
    bench = _replayed("tool_call_round")

    call = bench.one(ToolCall)
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "London"}
    assert "foggy" in bench.all(AssistantItem)[-1].text
    bench.none(ServerError)
