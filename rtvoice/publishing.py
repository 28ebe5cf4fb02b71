"""What becomes of client events that a program publishes: they go through our rules, never raw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from messages import EventError, FrameError, Message, SemanticVad, ServerVad, decode, encode
from rtvoice.events import ClientEvent

__all__ = ["changes_of", "checked", "instructions_of", "why_not"]

_INSTEAD = {
    "ConversationItemTruncateEvent": (
        "an interruption truncates by itself, where the user stopped hearing: use agent.interrupt()"
    ),
    "ConversationItemCreateEvent": "use agent.send_text(...) for what the user says",
    "InputAudioBufferCommitEvent": "the server's turn detection commits",
}


def why_not(event: object) -> str:
    """Return why an event cannot be published, and what to do instead."""
    name = type(event).__name__
    why = _INSTEAD.get(name)
    if why is None:
        told = isinstance(event, ClientEvent)
        why = "it is ours to send" if told else "it is told, it cannot be published"
    return f"{name}: {why}"


def checked(message: Message) -> Message:
    """Return a message of which every field is of its type: a component can take it.

    Raises:
        EventError: one is not.
    """
    try:
        return decode(encode(message))
    except (FrameError, TypeError, ValueError) as error:
        raise EventError(f"{type(message).__name__}: {error}") from None


def instructions_of(response: Mapping[str, Any] | None) -> str | None:
    """Return the instructions in the ``response`` of a `ResponseCreateEvent`.

    Raises:
        EventError: something else is in it.
    """
    for name in _fields("ResponseCreateEvent", "response", response or {}):
        if name != "instructions":
            raise EventError(
                f"ResponseCreateEvent: of an answer only instructions can be given, not {name}"
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
        EventError: something in it cannot be changed so.
    """
    changes: dict[str, Any] = {}
    for path, value in _leaves(session):
        match path:
            case "type":
                pass
            case "instructions":
                changes["instructions"] = value or ""
            case "audio.output.speed":
                changes["speech_speed"] = value
            case "audio.input.transcription":
                transcription = _fields("SessionUpdateEvent", path, value or {})
                changes["transcription_model"] = transcription.get("model")
                changes["language"] = transcription.get("language")
            case "audio.input.turn_detection":
                changes["turn_detection"] = _vad_of(value)
            case "tools":
                _refuse_session(path, "use agent.update(tools=...) with an rtvoice.Tools")
            case "model" | "audio.output.voice":
                _refuse_session(path, "it cannot change during a conversation")
            case _:
                _refuse_session(path, "it is not ours to change")
    return changes


def _leaves(session: Mapping[str, Any]) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in _fields("SessionUpdateEvent", "session", session).items():
        if key != "audio" or not isinstance(value, Mapping):
            leaves.append((key, value))
            continue
        for side, fields in value.items():
            checked_fields = _fields("SessionUpdateEvent", f"audio.{side}", fields)
            leaves += [(f"audio.{side}.{name}", field) for name, field in checked_fields.items()]
    return leaves


def _vad_of(value: object) -> ServerVad | SemanticVad:
    if value is None:
        _refuse_session("audio.input.turn_detection", "it cannot be switched off")
    try:
        return msgspec.convert(value, ServerVad | SemanticVad)
    except msgspec.ValidationError as error:
        raise EventError(f"SessionUpdateEvent: audio.input.turn_detection: {error}") from None


def _refuse_session(path: str, why: str) -> NoReturn:
    raise EventError(f"SessionUpdateEvent: {path}: {why}")
