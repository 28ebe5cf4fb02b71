"""Frames that are nearly right: events of both sides, with something in them changed."""

from __future__ import annotations

import base64
import copy
import json
import random
from functools import cache
from typing import Any

from tests.sandbox.client import CLOCK, MS
from tests.sandbox.test_session import TURN, Talk

IDS = ("item_a", "item_b", "call_a", "resp_a", "root", "", "x" * 33)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 24, 1.5, -0.0, 2**31, 2**63, 10**30, 1e308, "", "x", "0",
    "null", "x" * 2000, "\x00", "\ud83d\ude00", "AAAA", "AAA", "=", [], [None], [[]], {},
    {"": None}, {"type": "message"}, {"id": "item_a"}, {"type": 3},
    [{"type": "input_text", "text": "?"}],
)  # fmt: skip
"""What a field may hold instead of what belongs there."""
SOUND = base64.b64encode(TURN[600 * MS : 640 * MS]).decode()
SILENCE = base64.b64encode(bytes(40 * MS)).decode()
_WHOLE_TURN = base64.b64encode(TURN).decode()


def _message(role: str, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content), **fields}


CLIENT: tuple[dict[str, Any], ...] = (
    {"type": "input_audio_buffer.append", "audio": SOUND},
    {"type": "input_audio_buffer.append", "audio": SILENCE},
    {"type": "input_audio_buffer.append", "audio": _WHOLE_TURN},
    {"type": "input_audio_buffer.commit", "event_id": "mine"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "session.update", "session": {
        "type": "realtime", "instructions": "Be brief.", "output_modalities": ["audio"],
        "tools": [CLOCK], "tool_choice": "auto", "max_output_tokens": 200, "tracing": None,
        "audio": {
            "input": {"format": {"type": "audio/pcm", "rate": 24000},
                      "transcription": {"model": "gpt-transcribe", "language": "en"},
                      "noise_reduction": {"type": "near_field"},
                      "turn_detection": {"type": "server_vad", "threshold": 0.4,
                                         "silence_duration_ms": 300, "idle_timeout_ms": 5000}},
            "output": {"format": {"type": "audio/pcmu"}, "voice": "ash", "speed": 1.1}}}},
    {"type": "session.update", "session": {
        "type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {
        "turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}}},
    {"type": "conversation.item.create", "previous_item_id": "root", "item": _message(
        "user", {"type": "input_text", "text": "hello"}, id="item_a")},
    {"type": "conversation.item.create", "item": _message(
        "user", {"type": "input_audio", "audio": SOUND, "transcript": "hm"})},
    {"type": "conversation.item.create", "item": _message(
        "user", {"type": "input_image", "image_url": "data:image/png;base64,AAAA"})},
    {"type": "conversation.item.create", "item": _message(
        "assistant", {"type": "output_text", "text": "Well."}, id="item_b")},
    {"type": "conversation.item.create", "item": {
        "type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_a"}},
    {"type": "conversation.item.create", "item": {
        "type": "function_call_output", "call_id": "call_a", "output": "14:05"}},
    {"type": "conversation.item.delete", "item_id": "item_a"},
    {"type": "conversation.item.retrieve", "item_id": "item_b"},
    {"type": "conversation.item.truncate", "item_id": "item_a", "content_index": 0,
     "audio_end_ms": 100},
    {"type": "response.create"},
    {"type": "response.create", "response": {
        "conversation": "none", "metadata": {"a": "b"}, "output_modalities": ["text"],
        "input": [{"type": "item_reference", "id": "item_a"}], "max_output_tokens": 5,
        "audio": {"output": {"voice": "ash"}}, "tools": [], "instructions": "Say: aside"}},
    {"type": "response.cancel", "response_id": "resp_a"},
    {"type": "response.cancel"},
    {"type": "sandbox.misbehave", "fault": "drop"},
)  # fmt: skip


@cache
def server_events() -> tuple[dict[str, Any], ...]:
    """What a server says in a conversation with everything in it, each event once or twice."""
    talk = Talk()
    audio = {"input": {"transcription": {"model": "gpt-transcribe"}}}
    talk.configure(tools=[CLOCK], audio=audio)
    talk.append(TURN)
    talk.heard = "call get_current_time {}"
    talk.respond()
    talk.append(TURN)
    talk.heard = "tell me a story"
    talk.listen()
    talk.speak()
    talk.append(TURN[: 1000 * MS])
    item_id = talk.type("hello")[0]["item"]["id"]
    talk.send("conversation.item.retrieve", item_id=item_id)
    talk.send("conversation.item.delete", item_id=item_id)
    talk.send("conversation.item.delete", item_id=item_id)
    spoken = [event["item_id"] for event in talk.events if event["type"].endswith("audio.delta")]
    talk.send("conversation.item.truncate", item_id=spoken[-1], content_index=0, audio_end_ms=100)
    talk.send("input_audio_buffer.clear")
    talk.configure(output_modalities=["text"])
    talk.send("response.create")
    talk.respond()
    talk.send("response.create")
    talk.session.fail("server_error")
    talk._collect()
    talk.session.expire(60)
    return tuple(talk.events + talk._collect())


def frame(chosen: random.Random, events: tuple[dict[str, Any], ...]) -> str | bytes:
    """Make the next frame: most are right, some nearly, a few not at all."""
    event = chosen.choice(events)
    kind = chosen.random()
    if kind < 0.3:
        return json.dumps(event)
    event = copy.deepcopy(event)
    for _ in range(chosen.choice((1, 1, 1, 2, 5))):
        _change(event, chosen)
    text = json.dumps(event)
    if kind < 0.95:
        return text
    return _damaged(text, chosen)


def _change(event: Any, chosen: random.Random) -> None:
    """Change one thing somewhere in an event."""
    places = list(_places(event))
    holder, key = chosen.choice(places)
    action = chosen.random()
    if action < 0.25:
        del holder[key]
    elif action < 0.75:
        holder[key] = copy.deepcopy(chosen.choice(VALUES))
    elif action < 0.9 and isinstance(holder[key], str):
        holder[key] = chosen.choice(IDS)
    elif action < 0.95:
        other, name = chosen.choice(places)
        holder[key] = copy.deepcopy(other[name])
    elif isinstance(holder, dict):
        holder[f"new_{key}"] = copy.deepcopy(chosen.choice(VALUES))
    if not event:
        event["type"] = "error"


def _places(value: Any) -> Any:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _damaged(text: str, chosen: random.Random) -> str | bytes:
    at = chosen.randrange(len(text))
    match chosen.randrange(6):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + chosen.choice('{}[]",:\\\x00e') + text[at:]
        case 2:
            return text[at:]
        case 3:
            return text.encode()
        case 4:
            return f"[{text}]"
        case _:
            return "[" * chosen.choice((1, 100, 5000)) + text
