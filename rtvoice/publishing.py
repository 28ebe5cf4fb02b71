"""Translates client events that a program publishes into commands; none is sent as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import msgspec

from messages import (
    EventError,
    FrameError,
    Message,
    RetentionRatio,
    SemanticVad,
    ServerVad,
    decode,
    encode,
)
from messages.settings import SETTINGS
from rtvoice.checks import PARAMETERS
from rtvoice.events import ClientEvent

__all__ = ["changes_of", "checked", "instructions_of", "why_not"]

_INSTEAD = {
    "ConversationItemTruncateEvent": (
        "an interruption truncates the item at what was heard: use agent.interrupt()"
    ),
    "ConversationItemCreateEvent": (
        "use agent.send_text(...) for words of the user, agent.send_image(...) for an image"
    ),
    "InputAudioBufferCommitEvent": (
        "the server's turn detection commits; with push-to-talk, use agent.stop_talking()"
    ),
}


def why_not(event: object) -> str:
    """Return why an event cannot be published, and what to do instead."""
    name = type(event).__name__
    why = _INSTEAD.get(name)
    if why is None:
        for_server = isinstance(event, ClientEvent)
        why = "only rtvoice sends it" if for_server else "it can be subscribed to, not published"
    return f"{name}: {why}"


def checked(message: Message) -> Message:
    """Return a message that a component can decode: every field is of its declared type.

    Raises:
        EventError: A field is of another type.
    """
    try:
        return decode(encode(message))
    except (FrameError, TypeError, ValueError) as error:
        raise EventError(f"{type(message).__name__}: {error}") from None


def instructions_of(response: Mapping[str, Any] | None) -> str | None:
    """Return the instructions in the ``response`` of a `ResponseCreateEvent`.

    Raises:
        EventError: It contains something else.
    """
    for name in _fields("ResponseCreateEvent", "response", response or {}):
        if name != "instructions":
            raise EventError(
                f"ResponseCreateEvent: only instructions can be given for an answer, not {name}"
            )
    instructions = (response or {}).get("instructions")
    if not isinstance(instructions, str | None):
        raise EventError("ResponseCreateEvent: instructions: give a text")
    return instructions


def _fields(event: str, path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise EventError(f"{event}: {path}: give a dict, not {type(value).__name__}")
    return value


def changes_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``session`` of a `SessionUpdateEvent` as arguments of `Agent.update`.

    Raises:
        EventError: A field cannot be changed by this event.
    """
    changes: dict[str, Any] = {}
    for path, value in _leaves(session):
        match path:
            case "type":
                pass
            case "tools":
                _refuse_session(path, "use agent.update(tools=...) with an rtvoice.Tools")
            case "model":
                _refuse_session(path, "it cannot change during a conversation")
            case "audio.input.transcription":
                changes |= _transcription_of(path, value)
            case _ if path in _PARAMETERS:
                shape = _SHAPES.get(path)
                changes[_PARAMETERS[path]] = value if shape is None else shape(path, value)
            case _:
                _refuse_session(path, "a program cannot change it")
    return changes


def _leaves(session: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the path and the value of each field; only those of ``audio`` are nested, by side."""
    leaves: list[tuple[str, Any]] = []
    for key, value in _fields("SessionUpdateEvent", "session", session).items():
        if key != "audio" or not isinstance(value, Mapping):
            leaves.append((key, value))
            continue
        for side, fields in value.items():
            checked_fields = _fields("SessionUpdateEvent", f"audio.{side}", fields)
            leaves += [(f"audio.{side}.{name}", field) for name, field in checked_fields.items()]
    return leaves


def _value_of(path: str, value: object, key: str) -> Any:
    """Return a value that the API accepts both plain and as an object with this key."""
    return value.get(key) if isinstance(value, Mapping) else value


def _turn_detection_of(path: str, value: object) -> Any:
    return None if value is None else _struct_of(path, value, ServerVad | SemanticVad)


def _only_of(path: str, value: object) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 1:
        _refuse_session(path, 'give ["audio"] or ["text"]')
    return value[0]


def _transcription_of(path: str, value: object) -> dict[str, Any]:
    """Return the parameters that are given; the others stay. None switches transcription off."""
    names = {
        "model": "transcription_model",
        "language": "language",
        "languages": "language",
        "prompt": "transcription_prompt",
        "keywords": "transcription_keywords",
        "delay": "transcription_delay",
    }
    if value is None:
        return {"transcription_model": None}
    fields = _fields("SessionUpdateEvent", path, value)
    if unknown := fields.keys() - names.keys():
        _refuse_session(path, f"it has no {min(unknown)}")
    changes = {names[name]: field for name, field in fields.items()}
    if changes.get("transcription_keywords", ()) is None:
        changes["transcription_keywords"] = ()
    return changes


def _truncation_of(path: str, value: object) -> Any:
    if not isinstance(value, Mapping):
        return value
    limits = _fields("SessionUpdateEvent", f"{path}.token_limits", value.get("token_limits") or {})
    fields = {"type": value.get("type"), "token_limit": limits.get("post_instructions")}
    return _struct_of(path, {**fields, "ratio": value.get("retention_ratio")}, RetentionRatio)


def _struct_of(path: str, value: object, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise EventError(f"SessionUpdateEvent: {path}: {error}") from None


def _refuse_session(path: str, why: str) -> NoReturn:
    raise EventError(f"SessionUpdateEvent: {path}: {why}")


_PARAMETERS = {
    SETTINGS[setting].session_field: name
    for name, setting in PARAMETERS.items()
    if SETTINGS[setting].session_field
}
_SHAPES: dict[str, Callable[[str, Any], Any]] = {
    "audio.input.noise_reduction": partial(_value_of, key="type"),
    "audio.input.turn_detection": _turn_detection_of,
    "audio.output.voice": partial(_value_of, key="id"),
    "instructions": lambda _, value: value or "",
    "output_modalities": _only_of,
    "reasoning": partial(_value_of, key="effort"),
    "tool_choice": partial(_value_of, key="name"),
    "truncation": _truncation_of,
}
"""Conversions of the fields that have another form in the API than in `Agent.update`."""
