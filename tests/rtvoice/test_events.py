"""The events: their names and fields are those of the Realtime API, and all are exported."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rtvoice
from actors.realtime import wire
from messages import Event
from rtvoice import events
from rtvoice.wire import decode_wire_event, wire_names

ROOT = Path(__file__).resolve().parents[2]

CONTRACT = [
    "ResponseCreatedEvent",
    "ResponseOutputAudioDeltaEvent",
    "ResponseDoneEvent",
    "InputAudioBufferSpeechStartedEvent",
    "InputAudioBufferSpeechStoppedEvent",
    "FunctionCallItem",
    "InputAudioTranscriptionCompleted",
    "InputAudioBufferAppendEvent",
    "ResponseCancelEvent",
    "ResponseCreateEvent",
    "SessionUpdateEvent",
    "ConversationItemTruncateEvent",
    "OutputAudioBufferClearEvent",
    "AgentStartedEvent",
    "AgentStoppedEvent",
    "StopAgentCommand",
    "UserInactivityTimeoutEvent",
]


@pytest.mark.parametrize("name", CONTRACT)
def test_the_events_of_the_contract_are_there_by_both_ways(name: str) -> None:
    assert getattr(events, name) is getattr(rtvoice, name)


def test_every_domain_event_is_there() -> None:
    domain = {kind for kind in Event.__subclasses__() if kind.__module__.startswith("messages.")}

    assert {kind.__name__ for kind in domain} <= set(events.__all__)
    for kind in domain:
        assert getattr(rtvoice, kind.__name__) is kind


def test_what_realtime_acts_on_can_be_subscribed_to() -> None:
    acted_on = {str(kind.__struct_config__.tag) for kind in wire.ServerEvent.__subclasses__()}
    sent = {str(kind.__struct_config__.tag) for kind in wire.ClientEvent.__subclasses__()}

    assert acted_on <= wire_names(events.ServerEvent)
    assert sent <= wire_names(events.ClientEvent)


@pytest.mark.parametrize("name", sorted(wire_names(object)))
def test_an_event_with_none_but_its_type_is_still_an_event(name: str) -> None:
    event = decode_wire_event(name, b'{"type": "x", "event_id": null, "news": {"a": 1}}')

    assert event.type == name
    assert event.event_id is None
    with pytest.raises(AttributeError):
        event.event_id = "y"


def test_fields_are_those_of_the_api() -> None:
    event: Any = decode_wire_event(
        "conversation.item.input_audio_transcription.completed",
        b'{"event_id":"e","item_id":"u1","content_index":0,"transcript":"hi","usage":{"a":1}}',
    )

    assert (event.transcript, event.item_id, event.usage) == ("hi", "u1", {"a": 1})


def test_a_response_has_items_and_leaves_out_what_nobody_documents() -> None:
    event: Any = decode_wire_event(
        "response.done",
        b'{"response":{"id":"r","status":"failed","output":null,"new":1,'
        b'"status_details":{"error":{"code":"x"}}}}',
    )

    assert event.response.output == []
    assert event.response.status_details == {"error": {"code": "x"}}


def test_sound_is_read_and_written() -> None:
    delta: Any = decode_wire_event("response.output_audio.delta", b'{"delta":"AQI="}')

    assert delta.audio == b"\1\2"
    assert events.InputAudioBufferAppendEvent.of(b"\1\2").audio == "AQI="
    assert events.InputAudioBufferAppendEvent("AQI=").pcm == b"\1\2"


@pytest.mark.parametrize(
    ("arguments", "parsed"), [('{"a": 1}', {"a": 1}), ("[1]", {}), ("{", {}), ("", {})]
)
def test_the_arguments_of_a_call_are_parsed(arguments: str, parsed: dict[str, int]) -> None:
    assert events.FunctionCallItem(arguments=arguments).parsed_arguments == parsed


def test_what_is_not_as_documented_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_wire_event("response.done", b'{"response": 3}')


def test_client_events_are_written_as_the_api_wants_them() -> None:
    text = msgspec.json.encode(events.ConversationItemTruncateEvent("a1", 0, 100))

    assert msgspec.json.decode(text) == {
        "type": "conversation.item.truncate",
        "item_id": "a1",
        "audio_end_ms": 100,
    }


# -- the front door --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in rtvoice.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    doc = inspect.getdoc(getattr(rtvoice, name)) or ""

    assert len(doc) > 20, f"{name} has no docstring"


def examples(doc: str | None) -> list[str]:
    """Return the blocks of Python in a docstring."""
    found = re.findall(r"```python\n(.*?)```", doc or "", re.DOTALL)
    return [textwrap.dedent(block) for block in found]


PROGRAMS = {
    name: blocks
    for name in ("events", *rtvoice.__all__)
    if (blocks := examples(getattr(rtvoice, name).__doc__)) and "from rtvoice" in blocks[0]
}
"""The examples that stand by themselves."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_examples_that_need_no_conversation_run(name: str) -> None:
    for block in PROGRAMS[name]:
        ast.parse(block)
        if "asyncio.run" not in block:
            exec(compile(block, name, "exec"), {"__name__": "example"})


def test_a_wire_event_with_half_an_emoji_is_decoded() -> None:
    name = "response.function_call_arguments.done"
    arguments = r'"{\"text\": \"party \\ud83d\"}"'
    event: Any = decode_wire_event(
        name, f'{{"item_id": "\\ud83d", "arguments": {arguments}}}'.encode()
    )

    assert event.item_id == "\ufffd"
    assert event.parsed_arguments == {"text": "party \ufffd"}
