"""What a session with the server is told about itself (``session.update``), in GA shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from messages import CHANGEABLE, SAMPLE_RATE, SemanticVad, Settings, ToolSpec
from messages.limits import CUSTOM_VOICE
from messages.settings import SETTINGS

__all__ = [
    "configuration",
    "confirms",
    "is_forced",
    "settings_update",
    "speed_update",
    "tools_update",
    "without",
]

_PCM = {"type": "audio/pcm", "rate": SAMPLE_RATE}
_CHOICES = ("auto", "none", "required")

Path = tuple[str, ...]
_INPUT, _OUTPUT = ("audio", "input"), ("audio", "output")
_UNSAID: dict[Path, Any] = {
    ("instructions",): "",  # it would clear the server's own default
    ("max_output_tokens",): "inf",
    ("truncation",): "auto",
    (*_INPUT, "noise_reduction"): None,
    (*_INPUT, "transcription"): None,
}
"""What a new session is anyway, so that it is not told to."""


def configuration(settings: Settings, speed: float, tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the whole configuration, for a session that has not begun to speak."""
    tools = tuple(tools)
    fields = {
        path: value
        for path, value in _fields(settings, tools).items()
        if path not in _UNSAID or value != _UNSAID[path]
    }
    whole = {
        (*_INPUT, "format"): _PCM,
        (*_OUTPUT, "format"): _PCM,
        (*_OUTPUT, "speed"): speed,
        ("tools",): [_tool(tool) for tool in tools],
    }
    return _tree({**fields, **whole})


def confirms(settings: Settings) -> bool:
    """Tell whether an interruption by speech has to be confirmed.

    The server then only tells of speech, and neither ends an answer nor begins one by itself.
    """
    vad = settings.turn_detection
    return settings.interruption == "confirmed" and vad is not None and vad.interrupt_response


def tools_update(settings: Settings, tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the change of a session's tools."""
    tools = tuple(tools)
    choice = _tool_choice(settings, tools)
    return _tree({("tools",): [_tool(tool) for tool in tools], ("tool_choice",): choice})


def settings_update(
    old: Settings, new: Settings, tools: Iterable[ToolSpec]
) -> dict[str, Any] | None:
    """Return the change of what can be changed while a session runs; None: there is none."""
    tools = tuple(tools)
    before, after = _fields(old, tools), _fields(new, tools)
    changes = {
        path: _merging(before.get(path), value)
        for path, value in after.items()
        if path not in before or before[path] != value
    }
    return _tree(changes) if changes else None


def is_forced(settings: Settings) -> bool:
    """Tell whether every answer of the session has to call a tool unless it is told otherwise."""
    return settings.tool_choice not in ("auto", "none")


def speed_update(speed: float) -> dict[str, Any]:
    """Return the change of a session's speech speed, legal between two answers."""
    return _tree({(*_OUTPUT, "speed"): speed})


def without(session: dict[str, Any], param: str | None) -> dict[str, Any] | None:
    """Return a configuration without what the server refused (``session.audio.output.voice``).

    None: it cannot be left out, or nothing else is in it.
    """
    path = (param or "").removeprefix("session.").split(".")
    if path in ([""], ["type"]):
        return None
    left = _without(session, path)
    return left if left and left.keys() - {"type"} else None


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
    return left if branch else {name: value for name, value in left.items() if name != key}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def _tree(fields: dict[Path, Any]) -> dict[str, Any]:
    session: dict[str, Any] = {"type": "realtime"}
    for path, value in fields.items():
        branch = session
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = value
    return session


def _merging(old: Any, new: Any) -> Any:
    """Return a value as the server, which merges objects, has to be told: what goes is null."""
    merges = isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type")
    return {**dict.fromkeys(old), **new} if merges else new


def _fields(settings: Settings, tools: tuple[ToolSpec, ...]) -> dict[Path, Any]:
    """Return the settings that can change, as the fields of the API's session."""
    fields: dict[Path, Any] = {}
    for name, field in _FIELDS.items():
        value = getattr(settings, name)
        if value is None and not SETTINGS[name].can_unset:
            continue
        shape = _SHAPES.get(field)
        fields[tuple(field.split("."))] = value if shape is None else shape(settings)
    fields[("tool_choice",)] = _tool_choice(settings, tools)
    return fields


def _voice(settings: Settings) -> Any:
    voice = settings.voice
    return {"id": voice} if voice.startswith(CUSTOM_VOICE) else voice


def _tool_choice(settings: Settings, tools: tuple[ToolSpec, ...]) -> Any:
    """Return the choice; one that cannot be met with these tools would be refused."""
    choice = settings.tool_choice
    if choice in _CHOICES:
        return choice if tools or choice != "required" else "auto"
    known = any(tool.name == choice for tool in tools)
    return {"type": "function", "name": choice} if known else "auto"


def _truncation(settings: Settings) -> Any:
    truncation = settings.truncation
    if isinstance(truncation, str):
        return truncation
    told: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": truncation.ratio}
    if truncation.token_limit is not None:
        told["token_limits"] = {"post_instructions": truncation.token_limit}
    return told


def _noise_reduction(settings: Settings) -> dict[str, Any] | None:
    kind = settings.noise_reduction
    return None if kind is None else {"type": kind}


def _transcription(settings: Settings) -> dict[str, Any] | None:
    if not settings.transcription_model:
        return None
    language = settings.language
    several = language if isinstance(language, tuple) else ()
    told = {
        "model": settings.transcription_model,
        "language": None if several else language,
        "languages": list(several),
        "prompt": settings.transcription_prompt,
        "keywords": list(settings.transcription_keywords),
        "delay": settings.transcription_delay,
    }
    return {name: value for name, value in told.items() if value}


def _turn_detection(settings: Settings) -> dict[str, Any] | None:
    vad = settings.turn_detection
    if vad is None:
        return None
    told: dict[str, Any]
    if isinstance(vad, SemanticVad):
        told = {"type": "semantic_vad", "eagerness": vad.eagerness}
    else:
        told = {
            "type": "server_vad",
            "threshold": vad.threshold,
            "prefix_padding_ms": vad.prefix_padding_ms,
            "silence_duration_ms": vad.silence_duration_ms,
        }
        if vad.idle_timeout_ms is not None:
            told["idle_timeout_ms"] = vad.idle_timeout_ms
    by_itself = not confirms(settings)
    return {
        **told,
        "create_response": vad.create_response and by_itself,
        "interrupt_response": vad.interrupt_response and by_itself,
    }


_FIELDS = {
    name: SETTINGS[name].session_field for name in CHANGEABLE if SETTINGS[name].session_field
}
_SHAPES: dict[str, Callable[[Settings], Any]] = {
    "audio.input.noise_reduction": _noise_reduction,
    "audio.input.transcription": _transcription,
    "audio.input.turn_detection": _turn_detection,
    "audio.output.voice": _voice,
    "max_output_tokens": lambda settings: settings.max_output_tokens or "inf",
    "output_modalities": lambda settings: [settings.output_modality],
    "reasoning": lambda settings: {"effort": settings.reasoning_effort},
    "truncation": _truncation,
}
"""Fields that the API has in another form than ours, or that several settings make up."""
