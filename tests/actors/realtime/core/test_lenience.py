"""Events with wrong values: an event is used if its required fields are valid."""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from actors.realtime import wire
from actors.realtime.core.actions import Publish, SaveState, SendEvent, WriteLog
from messages import Notice, ResponseEnded, SendText, ServerError, Turn, UsageUpdated
from tests.actors.realtime.core.bench import Bench
from tests.recordings import FOLDER, needs_recordings, received, recordings

Path = tuple[str | int, ...]
ABSENT = object()
WRONG = (ABSENT, None, True, -1, 7, 1e300, "odd", "party \ud83d", [], ["odd"], {}, {"odd": [None]})
"""What stands in the place of a value: nothing, null, and a value of each type of JSON."""

TELLING = {
    *("status", "name", "arguments", "call_id", "transcript", "text", "previous_item_id"),
    *("audio_start_ms", "audio_end_ms", "content_index", "phase", "role", "metadata", "reason"),
    *("item_id", "error", "code", "message", "param", "type", "expires_at"),
}
"""Fields that are not required, but whose valid value is used or published."""


def _ids(item: str = "a1") -> dict[str, Any]:
    return {"response_id": "r1", "item_id": item, "output_index": 0, "content_index": 0}


def _message(item: str, role: str, status: str = "completed") -> dict[str, Any]:
    return {
        "id": item,
        "object": "realtime.item",
        "type": "message",
        "role": role,
        "status": status,
        "content": [{"type": "output_audio", "transcript": "Hello"}],
        "phase": None,
    }


def _response(response_id: str, status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "realtime.response",
        "status": status,
        "status_details": None,
        "output": [_message("a1", "assistant")],
        "conversation_id": "conv",
        "metadata": None,
        "usage": {
            "total_tokens": 3,
            "input_tokens": 1,
            "output_tokens": 2,
            "input_token_details": {"cached_tokens": 1, "text_tokens": 0},
        },
        **fields,
    }


_CALL = {
    "id": "f1",
    "type": "function_call",
    "call_id": "c1",
    "name": "clock",
    "status": "completed",
}
_SPEECH = "conversation.item.input_audio_transcription"
CONVERSATION: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.speech_started", "item_id": "u1", "audio_start_ms": 100},
    {"type": "input_audio_buffer.speech_stopped", "item_id": "u1", "audio_end_ms": 900},
    {"type": "input_audio_buffer.committed", "item_id": "u1", "previous_item_id": None},
    {"type": "conversation.item.added", "item": _message("u1", "user"), "previous_item_id": None},
    {"type": "conversation.item.done", "item": _message("u1", "user"), "previous_item_id": None},
    {"type": f"{_SPEECH}.delta", "item_id": "u1", "delta": "What", "logprobs": None},
    {"type": "response.created", "response": _response("r1", "in_progress", usage=None)},
    {"type": f"{_SPEECH}.completed", "item_id": "u1", "transcript": "What?", "usage": None},
    {
        "type": "response.output_item.added",
        "response_id": "r1",
        "output_index": 0,
        "item": _message("a1", "assistant", "in_progress"),
    },
    {
        "type": "conversation.item.created",
        "item": _message("a1", "assistant", "in_progress"),
        "previous_item_id": "u1",
    },
    {"type": "response.output_audio_transcript.delta", "delta": "Hello", **_ids()},
    {"type": "response.output_audio.delta", "delta": "AAAAAAAA", **_ids()},
    {"type": "response.output_audio.done", **_ids()},
    {"type": "response.output_audio_transcript.done", "transcript": "Hello", **_ids()},
    {"type": "response.output_text.delta", "delta": "written", **_ids("a2")},
    {"type": "response.output_text.done", "text": "written", **_ids("a2")},
    {
        "type": "response.output_item.done",
        "response_id": "r1",
        "output_index": 0,
        "item": _message("a1", "assistant"),
    },
    {
        "type": "response.output_item.added",
        "response_id": "r1",
        "output_index": 1,
        "item": {**_CALL, "status": "in_progress", "arguments": ""},
    },
    {
        "type": "response.output_item.done",
        "response_id": "r1",
        "output_index": 1,
        "item": {**_CALL, "arguments": "{}"},
    },
    {"type": "response.done", "response": _response("r1", "completed")},
    {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "code": "odd",
            "message": "No.",
            "param": None,
            "event_id": None,
        },
    },
    {"type": "input_audio_buffer.timeout_triggered", "item_id": "u2", "audio_start_ms": 900},
    {"type": "input_audio_buffer.committed", "item_id": "u3", "previous_item_id": "a1"},
    {"type": f"{_SPEECH}.failed", "item_id": "u3", "error": {"type": "x", "message": "noise"}},
    {"type": "response.created", "response": _response("r2", "in_progress", output=[])},
    {
        "type": "response.done",
        "response": _response(
            "r2",
            "incomplete",
            status_details={"type": "incomplete", "reason": "content_filter", "error": None},
        ),
    },
]  # fmt: skip


def _decode(event: dict[str, Any]) -> Any:
    return wire.decode(json.dumps(event).encode())


def _run(events: list[Any]) -> Bench:
    bench = Bench(transcription_model="gpt-transcribe", inactivity_timeout_s=None).live()
    bench.capture(0, 24_000)
    for event in events:
        bench.take(event)
        bench.collect()
    return bench


def _done(bench: Bench) -> list[Any]:
    """Return the core's actions, except notices about wrong fields and counts of tokens."""
    seen: list[Any] = []
    for action in bench.actions:
        match action:
            case WriteLog() | SaveState():
                continue
            case Publish(UsageUpdated()):
                continue
            case Publish(Notice(text)) if "going on without that field" in text:
                continue
            case Publish(ResponseEnded() as ended):
                seen.append((ended.response_id, ended.status, ended.reason))
            case Publish(message):
                seen.append(message)
            case SendEvent(event):
                seen.append(event)
            case _:
                seen.append(action)
    return seen


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the place of each value in an event, but for its type."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        if at or key != "type":
            yield (*at, key)
        if isinstance(part, dict | list):
            yield from _paths(part, (*at, key))


def _with(event: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(event)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def _needed(kind: Any = None, at: str = "") -> set[str]:
    """Return the names of the required fields of an event."""
    if kind is None:
        return set().union(*(_needed(kind) for kind in wire.ServerEvent.__subclasses__()))
    found = set()
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        if field.required:
            found.add(f"{at}{field.name}")
            if isinstance(hints[field.name], type) and issubclass(
                hints[field.name], msgspec.Struct
            ):
                found |= _needed(hints[field.name], f"{at}{field.name}.")
    return found


NEEDED = _needed()


def test_few_fields_are_needed() -> None:
    assert {
        *("item_id", "response_id", "delta", "item", "item.id", "item.type"),
        *("response", "response.id", "error"),
    } == NEEDED


def _name(path: Path) -> str:
    return ".".join(str(key) for key in path if isinstance(key, str))


def _check(events: list[dict[str, Any]], at: int, path: Path) -> None:
    """Put each wrong value into one place of one event."""
    right = [_decode(event) for event in events]
    expected = None
    for value in WRONG:
        event = _decode(_with(events[at], path, value))
        if event == right[at]:
            continue
        where = (events[at]["type"], path, value)
        bad = isinstance(event, wire.BadFrame)
        assert not bad or _name(path) in NEEDED, (where, event)
        bench = _run([*right[:at], event, *right[at + 1 :]])
        if isinstance(event, wire.PartialEvent):
            told = [n for n in bench.all(Notice) if "going on without that field" in n.text]
            assert len(told) == len(event.left_out), where
        if bad or _name(path) in NEEDED or path[-1] in TELLING:
            continue
        expected = expected or _done(_run(right))
        assert _done(bench) == expected, where


def _places(events: list[dict[str, Any]]) -> Iterator[tuple[int, Path]]:
    """Yield each place of each type of event once."""
    seen = set()
    for at, event in enumerate(events):
        for path in _paths(event):
            if (key := (event["type"], path)) not in seen:
                seen.add(key)
                yield at, path


def test_a_wrong_value_that_is_not_needed_changes_nothing() -> None:
    for event in CONVERSATION:
        assert type(_decode(event)) in wire.ServerEvent.__subclasses__(), event

    for at, path in _places(CONVERSATION):
        _check(CONVERSATION, at, path)


def _short(name: str) -> list[dict[str, Any]]:
    """Return a recording without most of its sound and deltas, which are alike."""
    kept, seen = [], set()
    for event in received(name):
        key = (event["type"], event.get("item_id"))
        if not event["type"].endswith(".delta") or key not in seen:
            kept.append(event)
        seen.add(key)
    return kept


@needs_recordings
@pytest.mark.parametrize("name", recordings() if FOLDER.is_dir() else [])
def test_a_wrong_value_that_is_not_needed_changes_no_recorded_conversation(name: str) -> None:
    events = _short(name)

    for at, path in _places(events):
        _check(events, at, path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status_details": "unimplemented"},
        {"status_details": {"type": [], "reason": 5, "error": "quota"}},
        {"usage": {"input_tokens": -1, "output_tokens": 2}},
        {"usage": "none"},
        {"metadata": []},
        {"output": [{"role": ["assistant"], "content": "party \ud83d"}]},
        {"status": 200},
        {"conversation_id": "\udc00"},
    ],
)
def test_an_answer_ends_whatever_else_its_last_event_says(wrong: dict[str, Any]) -> None:
    bench = Bench().live()
    bench.begin().say().end_item()

    done = {"type": "response.done", "response": {"id": "r1", "status": "completed", **wrong}}
    bench.take(_decode(done))
    bench.collect()
    bench.tell(SendText("next", "t1")).added("msg_t1").flushed()

    assert bench.one(ResponseEnded).status == "completed"
    assert bench.events("response.create")


def test_a_wrong_field_is_reported_once() -> None:
    bench = Bench().live()

    for number in range(3):
        bench.begin(f"r{number}", f"a{number}")
        bench.done(f"r{number}", usage={"input_tokens": -1, "output_tokens": 5})

    (notice,) = bench.all(Notice)
    assert "response.done" in notice.text
    assert "response.usage.input_tokens" in notice.text
    assert [ended.output_tokens for ended in bench.all(ResponseEnded)] == [5, 5, 5]


def test_half_a_surrogate_pair_loses_no_other_text() -> None:
    bench = Bench().live()
    bench.begin()

    for delta in ("party \ud83d", "\ude00 on"):
        event = {"type": "response.output_audio_transcript.delta", "delta": delta, **_ids()}
        bench.take(_decode(event))
    bench.done()

    bench.none(ServerError, Turn)
    assert bench.core._context.playback.items["a1"].text == "party \ufffd\ufffd on"


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("path", [("session",), ("session", "expires_at")])
def test_a_session_begins_whatever_its_first_event_says_of_it(path: Path, value: Any) -> None:
    created = {"type": "session.created", "session": {"type": "realtime", "expires_at": 5000}}
    bench = Bench(inactivity_timeout_s=None)
    bench.core.connected(bench.now, bench.now, None)

    bench.take(_decode(_with(created, path, value)))
    bench.collect()
    bench.snapshot().server("session.updated", session={})
    bench.wait(1)

    assert bench.core.phase.name == "LIVE"


def test_a_standby_session_with_a_wrong_field_is_taken_all_the_same() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    for _ in range(100):
        bench.wait(60)
        if bench.spare.connects:
            break
    bench.core.connected(bench.now, bench.now, None, spare=True)
    event = _decode({"type": "session.created", "session": "sess_1"})
    bench.take(event, spare=True)
    bench.collect()

    bench.snapshot()

    assert bench.spare.sent


_SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"error": "quota used up"}, "quota used up"),
    ({"message": "quota used up"}, "quota used up"),
    ({"error": {"message": "quota used up", "param": ["a", 1]}}, "quota used up"),
    ({"error": {"message": ["quota", "used up"]}}, '["quota","used up"]'),
    ({"error": ["quota", {"used": "up"}]}, '["quota",{"used":"up"}]'),
    ({"error": None, "code": "quota", "message": "used up"}, "used up"),
    ({"error": "quota used up", "message": None}, "quota used up"),
    ({"error": {"message": "quota \ud83d"}}, "quota \ufffd"),
    ({}, "the server gave no reason"),
]


@pytest.mark.parametrize(("shape", "words"), _SHAPES)
def test_an_error_of_another_shape_is_published_with_its_message(
    shape: dict[str, Any], words: str
) -> None:
    bench = Bench().live()

    bench.take(_decode({"type": "error", **shape}))
    bench.collect()

    assert bench.one(ServerError).text == words


def test_an_error_that_is_a_text_ends_an_answer_too() -> None:
    bench = Bench().live()
    bench.begin()

    response = {"id": "r1", "status": "failed", "status_details": {"error": "quota used up"}}
    bench.take(_decode({"type": "response.done", "response": response}))
    bench.collect()

    assert bench.one(ServerError).text == "quota used up"
