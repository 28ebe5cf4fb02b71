"""What a session with the server is told about itself (``session.update``), in GA shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from messages import SAMPLE_RATE, SemanticVad, Settings, ToolSpec

__all__ = [
    "MAX_SPEED",
    "MIN_SPEED",
    "configuration",
    "settings_update",
    "speed_update",
    "tools_update",
    "without",
]

MIN_SPEED, MAX_SPEED = 0.5, 1.5
_PCM = {"type": "audio/pcm", "rate": SAMPLE_RATE}


def configuration(settings: Settings, speed: float, tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the whole configuration, for a session that has not begun to speak."""
    audio_in: dict[str, Any] = {"format": _PCM, "turn_detection": _turn_detection(settings)}
    if settings.transcription_model:
        audio_in["transcription"] = _transcription(settings)
    session: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {
            "input": audio_in,
            "output": {"format": _PCM, "voice": settings.voice, "speed": speed},
        },
        "tools": [_tool(tool) for tool in tools],
        "tool_choice": "auto",
    }
    if settings.instructions:  # an empty text would clear the server's own default
        session["instructions"] = settings.instructions
    return session


def tools_update(tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the change of a session's tools."""
    return {"type": "realtime", "tools": [_tool(tool) for tool in tools], "tool_choice": "auto"}


def settings_update(old: Settings, new: Settings) -> dict[str, Any] | None:
    """Return the change of what can be changed while a session runs; None: there is none."""
    session: dict[str, Any] = {}
    if old.instructions != new.instructions:
        session["instructions"] = new.instructions
    audio_in: dict[str, Any] = {}
    if old.turn_detection != new.turn_detection:
        audio_in["turn_detection"] = _turn_detection(new)
    if _transcription(old) != _transcription(new):
        audio_in["transcription"] = _transcription(new)
    if audio_in:
        session["audio"] = {"input": audio_in}
    return {"type": "realtime", **session} if session else None


def speed_update(speed: float) -> dict[str, Any]:
    """Return the change of a session's speech speed, legal between two answers."""
    return {"type": "realtime", "audio": {"output": {"speed": speed}}}


def without(session: dict[str, Any], param: str | None) -> dict[str, Any] | None:
    """Return a configuration without what the server refused (``session.audio.output.voice``).

    None: it cannot be left out.
    """
    path = (param or "").removeprefix("session.").split(".")
    if path in ([""], ["type"]):
        return None
    return _without(session, path)


def _without(tree: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    (key, _, index), rest = path[0].partition("["), path[1:]
    if key not in tree:
        return None
    left = dict(tree)
    number = int(index[:-1]) if index[:-1].isdigit() else None
    if number is not None and isinstance(tree[key], list) and number < len(tree[key]):
        left[key] = tree[key][:number] + tree[key][number + 1 :]
        return left
    if not rest or not isinstance(tree[key], dict):
        del left[key]
        return left
    branch = _without(tree[key], rest)
    if branch is None:
        return None
    left[key] = branch
    return left


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def _transcription(settings: Settings) -> dict[str, Any] | None:
    if not settings.transcription_model:
        return None
    transcription = {"model": settings.transcription_model}
    if settings.language:
        transcription["language"] = settings.language
    return transcription


def _turn_detection(settings: Settings) -> dict[str, Any]:
    vad = settings.turn_detection
    common = {"create_response": True, "interrupt_response": True}
    if isinstance(vad, SemanticVad):
        return {"type": "semantic_vad", "eagerness": vad.eagerness, **common}
    return {
        "type": "server_vad",
        "threshold": vad.threshold,
        "prefix_padding_ms": vad.prefix_padding_ms,
        "silence_duration_ms": vad.silence_duration_ms,
        **common,
    }
