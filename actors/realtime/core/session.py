"""The contents of ``session.update``, in the shapes of the GA API."""

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
"""The keys that lead to a field of the session."""
_INPUT, _OUTPUT = ("audio", "input"), ("audio", "output")
_SERVER_DEFAULTS: dict[Path, Any] = {
    ("instructions",): "",  # sent, it would clear the server's own default instructions
    ("max_output_tokens",): "inf",
    ("truncation",): "auto",
    (*_INPUT, "noise_reduction"): None,
    (*_INPUT, "transcription"): None,
}
"""Server defaults, left out of the first ``session.update``."""


def configuration(settings: Settings, speed: float, tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the whole configuration, for a new session: its voice can still be set."""
    tools = tuple(tools)
    fields = {
        path: value
        for path, value in _fields(settings, tools).items()
        if path not in _SERVER_DEFAULTS or value != _SERVER_DEFAULTS[path]
    }
    whole = {
        (*_INPUT, "format"): _PCM,
        (*_OUTPUT, "format"): _PCM,
        (*_OUTPUT, "speed"): speed,
        ("tools",): [_tool(tool) for tool in tools],
    }
    return _tree({**fields, **whole})


def confirms(settings: Settings) -> bool:
    """Return whether an interruption by speech has to be confirmed (``interruption``).

    The server then only reports speech. Cancelling and requesting responses is up to us.
    """
    vad = settings.turn_detection
    return settings.interruption == "confirmed" and vad is not None and vad.interrupt_response


def answers_each_turn(settings: Settings) -> bool:
    """Return whether each turn of the user is answered without a request of the program."""
    vad = settings.turn_detection
    return vad is None or vad.create_response


def tools_update(settings: Settings, tools: Iterable[ToolSpec]) -> dict[str, Any]:
    """Return the update that changes a session's tools."""
    tools = tuple(tools)
    choice = _tool_choice(settings, tools)
    return _tree({("tools",): [_tool(tool) for tool in tools], ("tool_choice",): choice})


def settings_update(
    old: Settings, new: Settings, tools: Iterable[ToolSpec]
) -> dict[str, Any] | None:
    """Return the update that leads from old to new settings; None: nothing differs."""
    tools = tuple(tools)
    before, after = _fields(old, tools), _fields(new, tools)
    changes = {
        path: _merging(before.get(path), value)
        for path, value in after.items()
        if path not in before or before[path] != value
    }
    return _tree(changes) if changes else None


def is_forced(settings: Settings) -> bool:
    """Return whether each response must call a tool, unless it has a ``tool_choice`` of its own."""
    return settings.tool_choice not in ("auto", "none")


def speed_update(speed: float) -> dict[str, Any]:
    """Return the update that changes the speed of speech. The API allows it between responses."""
    return _tree({(*_OUTPUT, "speed"): speed})


def without(session: dict[str, Any], param: str | None) -> dict[str, Any] | None:
    """Return a configuration without a refused parameter; None: that is impossible.

    It is impossible if the parameter is required or unknown, or nothing else would be left.

    Args:
        session: the configuration.
        param: the parameter as errors name it, such as ``session.audio.output.voice``.
    """
    path = (param or "").removeprefix("session.").split(".")
    if path in ([""], ["type"]):
        return None
    left = _without(session, path)
    return left if left and left.keys() - {"type"} else None


def _without(tree: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    """Return a tree without the field at a path; None: the field is not in it.

    A key may have an index into a list (``tools[0]``). An object that becomes empty goes too.
    """
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
    """Return the nested objects of the API for fields that are given by their paths."""
    session: dict[str, Any] = {"type": "realtime"}
    for path, value in fields.items():
        branch = session
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = value
    return session


def _merging(old: Any, new: Any) -> Any:
    """Return the value that turns ``old`` into ``new`` at the server.

    The server merges objects of the same type, so a key that disappears has to be sent as null.
    """
    merges = isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type")
    return {**dict.fromkeys(old), **new} if merges else new


def _fields(settings: Settings, tools: tuple[ToolSpec, ...]) -> dict[Path, Any]:
    """Return the changeable settings as fields of the API's session, by their paths."""
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
    """Return the ``tool_choice``. One that these tools cannot meet is "auto", or it is refused."""
    choice = settings.tool_choice
    if choice in _CHOICES:
        return choice if tools or choice != "required" else "auto"
    known = any(tool.name == choice for tool in tools)
    return {"type": "function", "name": choice} if known else "auto"


def _truncation(settings: Settings) -> Any:
    truncation = settings.truncation
    if isinstance(truncation, str):
        return truncation
    shape: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": truncation.ratio}
    if truncation.token_limit is not None:
        shape["token_limits"] = {"post_instructions": truncation.token_limit}
    return shape


def _noise_reduction(settings: Settings) -> dict[str, Any] | None:
    kind = settings.noise_reduction
    return None if kind is None else {"type": kind}


def _transcription(settings: Settings) -> dict[str, Any] | None:
    if not settings.transcription_model:
        return None
    language = settings.language
    several = language if isinstance(language, tuple) else ()
    shape = {
        "model": settings.transcription_model,
        "language": None if several else language,
        "languages": list(several),
        "prompt": settings.transcription_prompt,
        "keywords": list(settings.transcription_keywords),
        "delay": settings.transcription_delay,
    }
    # Not every transcription model accepts every field, so empty ones are left out.
    return {name: value for name, value in shape.items() if value}


def _turn_detection(settings: Settings) -> dict[str, Any] | None:
    vad = settings.turn_detection
    if vad is None:
        return None
    shape: dict[str, Any]
    if isinstance(vad, SemanticVad):
        shape = {"type": "semantic_vad", "eagerness": vad.eagerness}
    else:
        shape = {
            "type": "server_vad",
            "threshold": vad.threshold,
            "prefix_padding_ms": vad.prefix_padding_ms,
            "silence_duration_ms": vad.silence_duration_ms,
        }
        if vad.idle_timeout_ms is not None:
            shape["idle_timeout_ms"] = vad.idle_timeout_ms
    server_acts = not confirms(settings)
    return {
        **shape,
        "create_response": vad.create_response and server_acts,
        "interrupt_response": vad.interrupt_response and server_acts,
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
"""Functions for fields whose value in the API differs from the setting, or that combine several
settings."""
