"""What an agent may be made of: each check returns a plain value, or says what is wrong."""

from __future__ import annotations

import difflib
import enum
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.tools.registry import Tools
from messages import (
    BUILTIN_TOOLS,
    LEVELS,
    MAX_IMAGE_BYTES,
    RetentionRatio,
    SemanticVad,
    ServerVad,
    Settings,
    limits,
)
from rtvoice.errors import AgentError
from rtvoice.models import retirement_of

__all__ = ["AgentUsageError"]


class AgentUsageError(AgentError, TypeError):
    """A keyword that an agent does not have."""


_DEVICE_METHODS = {
    "audio_input": ("start", "stop", "stream_chunks"),
    "audio_output": ("start", "stop", "play_chunk", "clear_buffer"),
}
_RATES = (8_000, 192_000)
_OURS = ("hub", "history", "microphone", "realtime", "recorder", "speaker", "tools")


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def checked_text(name: str, value: object) -> str:
    value = _plain(value)
    if not isinstance(value, str):
        raise AgentError(name, f"give a text, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise AgentError(name, f"it is no Unicode text: {error.reason}") from None
    return value


def checked_name(name: str, value: object) -> str:
    text = checked_text(name, value)
    if not text.strip():
        raise AgentError(name, "it is empty; leave it out for the default")
    return text


def checked_optional(check: Any, name: str, value: object) -> Any:
    return None if value is None else check(name, value)


def checked_number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AgentError(name, f"give a number from {low:g} to {high:g}, not {_kind(value)}")
    if not low <= value <= high:
        raise AgentError(name, f"{value:g} is out of range; give a number from {low:g} to {high:g}")
    return float(value)


def checked_seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise AgentError(name, "give a number of seconds above 0, or None for never")
    return float(min(value, sys.float_info.max))


def checked_path(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise AgentError(name, f"give a path, not {_kind(value)}")
    path = os.fspath(value)
    if not isinstance(path, str) or not path:
        raise AgentError(name, "give a path as text")
    return path


def checked_model(name: str, value: object, *, stacklevel: int = 4) -> str:
    """Return a model's name, and warn if the model is retired."""
    model = checked_name(name, value)
    if (retirement := retirement_of(model)) is not None:
        warnings.warn(str(retirement), FutureWarning, stacklevel=stacklevel)
    return model


_IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def checked_image(name: str, value: object) -> tuple[bytes, Any]:
    """Return the content of an image and its media type."""
    if isinstance(value, str | os.PathLike):
        data = _content_of(name, Path(value))
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    else:
        raise AgentError(name, f"give a PNG or JPEG file, as bytes or a path, not {_kind(value)}")
    media_type = next((kind for head, kind in _IMAGES.items() if data.startswith(head)), None)
    if media_type is None:
        raise AgentError(name, "it is neither PNG nor JPEG, and the service takes no others")
    if len(data) > MAX_IMAGE_BYTES:
        raise AgentError(
            name,
            f"it has {len(data) / 2**20:.1f} MiB; make it smaller, {MAX_IMAGE_BYTES >> 20} MiB at "
            f"most: the service scales larger ones down, and what is said waits behind it",
        )
    return data, media_type


def _content_of(name: str, path: Path) -> bytes:
    try:
        if path.stat().st_size > 16 * MAX_IMAGE_BYTES:
            raise AgentError(name, f"{path} is no image: it is too large for one")
        return path.read_bytes()
    except OSError as error:
        raise AgentError(name, f"{path} cannot be read: {error.strerror or error}") from None


def checked_tools(value: object) -> Tools | str | None:
    if isinstance(value, str):
        where, _, attribute = value.rpartition(":")
        if not where or not attribute:
            raise AgentError(
                "tools", f"{value!r} is no name; write module:attribute or file.py:tools"
            )
    elif value is not None and not isinstance(value, Tools):
        raise AgentError("tools", f"give an rtvoice.Tools, or the name of one, not {_kind(value)}")
    return value


def checked_own_tools(value: object) -> Tools:
    """Return tools that are objects, as a running conversation takes them."""
    if isinstance(value, str):
        raise AgentError("tools", "a name is loaded at the start only; give an rtvoice.Tools")
    tools = checked_tools(value)
    return tools if isinstance(tools, Tools) else Tools()


def refuse_clash(tools: Iterable[str], builtin_tools: Iterable[str]) -> None:
    """See that no tool has the name of a built-in one that is switched on."""
    if both := sorted(set(tools) & set(builtin_tools)):
        raise AgentError(
            "tools",
            f"{both[0]!r} is the name of a built-in tool too: give yours another, or leave the "
            f"built-in one out of builtin_tools",
        )


def refuse_unknown_tool(choice: str, names: Iterable[str]) -> None:
    """See that a tool that has to be called is there."""
    names = list(names)
    if choice not in ("auto", "none", "required") and choice not in names:
        raise AgentError(
            "tool_choice",
            f"there is no tool {choice!r}; give auto, none, required or one of {', '.join(names)}",
        )
    if choice == "required" and not names:
        raise AgentError("tool_choice", "there is no tool that could be required; give auto")


def checked_device(name: str, value: object) -> object:
    """Names and paths become text; an object stays what it is."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise AgentError(name, "give a device's name or index, or a WAV file")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str | os.PathLike):
        return checked_path(name, value)
    missing = [
        method for method in _DEVICE_METHODS[name] if not callable(getattr(value, method, None))
    ]
    if missing:
        raise AgentError(
            name,
            f"give a device's name, a file, or an object with {_listed(_DEVICE_METHODS[name])}; "
            f"{_kind(value)} has no {_listed(missing)}",
        )
    if isinstance(value, type):
        raise AgentError(name, f"give an object, {value.__name__}(), not the class itself")
    _check_rate(name, value)
    return value


def _check_rate(name: str, device: object) -> None:
    try:
        rate = getattr(device, "sample_rate", None)
    except Exception:  # noqa: BLE001 - the device's own; it may be known after its start only
        return
    if rate is None or callable(rate):
        return
    low, high = _RATES
    try:
        fits = low <= int(rate) <= high
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise AgentError(
            name,
            f"the sample_rate of {type(device).__name__} is {rate!r}; "
            f"it must be a number from {low} to {high}, in Hz",
        )


def checked_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise AgentError(name, f"give True or False, not {_kind(value)}")
    return value


def checked_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    text = _plain(value)
    if text not in choices:
        raise AgentError(name, f"{text!r} is no choice; give {_either(choices)}")
    return str(text)


def checked_whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise AgentError(name, f"give a whole number, not {_kind(value)}")
    return value


def checked_max_tokens(name: str, value: object) -> int | None:
    """None and the API's word for it are no limit."""
    return None if value in (None, "inf") else checked_whole(name, value)


def checked_words(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, tuple | list | set | frozenset):
        raise AgentError(name, f"give a list of texts, not {_kind(value)}")
    return tuple(checked_name(name, word) for word in value)


def checked_truncation(name: str, value: object) -> Any:
    if isinstance(value, RetentionRatio):
        return _as_declared(name, value)
    if value not in ("auto", "disabled"):
        raise AgentError(name, "give auto, disabled or an rtvoice.RetentionRatio(...)")
    return value


def checked_settings(settings: Settings, names: Mapping[str, str]) -> Settings:
    """Return settings that the API takes, as far as is known.

    Args:
        settings: those that are together in force.
        names: what a setting is called as a parameter, where that differs.
    """
    if wrong := limits.problem(settings):
        raise AgentError(names.get(wrong[0], wrong[0]), wrong[1])
    return settings


def checked_languages(value: object) -> str | tuple[str, ...] | None:
    """One language, or several."""
    if isinstance(value, tuple | list | set | frozenset):
        languages = tuple(str(checked_language(each)) for each in value)
        return languages or None
    return checked_language(value)


def checked_language(value: object) -> str | None:
    if value is None:
        return None
    text = checked_name("language", value)
    if len(text) not in (2, 3) or not text.isalpha():
        raise AgentError("language", f"{text!r} is no language code; give one such as en, de or fr")
    return text.lower()


def checked_turn_detection(value: object) -> ServerVad | SemanticVad | None:
    if value is None:
        return None
    if not isinstance(value, ServerVad | SemanticVad):
        raise AgentError(
            "turn_detection",
            f"give rtvoice.ServerVad(...), rtvoice.SemanticVad(...), or None for push-to-talk, "
            f"not {_kind(value)}",
        )
    vad: ServerVad | SemanticVad = _as_declared("turn_detection", value)
    return vad


def _as_declared(name: str, value: msgspec.Struct) -> Any:
    """See that the fields of a struct are of their types, which its maker need not have seen to."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except msgspec.ValidationError as error:
        what, _, place = str(error).replace("`", "").partition(" - at $.")
        raise AgentError(name, f"{place}: {what[:1].lower()}{what[1:]}") from None
    except TypeError as error:
        raise AgentError(name, str(error)) from None


def checked_builtin_tools(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, tuple | list | set | frozenset):
        raise AgentError("builtin_tools", f"give names out of {', '.join(BUILTIN_TOOLS)}")
    for name in value:
        if name not in BUILTIN_TOOLS:
            raise AgentError(
                "builtin_tools", f"{name!r} is not built in; there are {', '.join(BUILTIN_TOOLS)}"
            )
    return tuple(name for name in BUILTIN_TOOLS if name in value)


def checked_server(value: object) -> str | None:
    if value is None:
        return None
    text = checked_text("server", value)
    if text not in ("openai", "sandbox") and not text.startswith(("ws://", "wss://")):
        raise AgentError(
            "server", f"{text!r} is no server; give openai, sandbox, or a ws:// or wss:// URL"
        )
    return text


def checked_components(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise AgentError("components", 'give a mapping such as {"mood": "app:MoodActor"}')
    for name, target in value.items():
        if not isinstance(name, str) or not isinstance(target, str) or ":" not in target:
            raise AgentError(
                "components", f'{name!r}: {target!r} is no component; write "name": "module:Class"'
            )
        if name in _OURS or not name.replace("_", "").replace("-", "").isalnum():
            raise AgentError(
                "components",
                f"{name!r} cannot be the name of a component: take letters, digits, - and _, and "
                f"none of {', '.join(_OURS)}",
            )
    return dict(value)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    return f"a value of type {type(value).__name__}"


def _either(choices: tuple[str, ...]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{name}()" for name in names)


# -- the environment ------------------------------------------------------------------------------


def server_in(environment: Mapping[str, str]) -> str | None:
    """Return the server that ``RTVOICE_SERVER`` names."""
    text = environment.get("RTVOICE_SERVER", "").strip()
    try:
        return checked_server(text or None)
    except AgentError as error:
        raise AgentError("RTVOICE_SERVER", error.problem) from None


def device_in(environment: Mapping[str, str], direction: str) -> str | None:
    """Return the device that ``RTVOICE_INPUT`` or ``RTVOICE_OUTPUT`` names."""
    return environment.get(f"RTVOICE_{direction.upper()}", "").strip() or None


def log_level_in(environment: Mapping[str, str]) -> str | None:
    """Return the log level that ``RTVOICE_LOG_LEVEL`` names."""
    level = environment.get("RTVOICE_LOG_LEVEL", "").strip().upper()
    if level and level not in LEVELS:
        raise AgentError("RTVOICE_LOG_LEVEL", f"{level!r} is no level: {', '.join(LEVELS)}")
    return level or None


def make_folder(name: str, path: str | None) -> None:
    """See that there is a folder for a file."""
    if path is None:
        return
    try:
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AgentError(name, f"{path} cannot be written: {error.strerror or error}") from None


def need_key(server: str, api_key: str | None, environment: Mapping[str, str]) -> None:
    """See that there is a key, if the server needs one."""
    if server == "openai" and not (api_key or environment.get("OPENAI_API_KEY", "").strip()):
        raise AgentError(
            "api_key",
            "the OpenAI service needs a key: set OPENAI_API_KEY, or give api_key=... (create one "
            'at https://platform.openai.com/api-keys); the sandbox, server="sandbox" or '
            "RTVOICE_SERVER=sandbox, needs none",
        )


# -- what is not a parameter ----------------------------------------------------------------------

_FORMER = {
    "system_prompt": "instructions",
    "inactivity_timeout_seconds": "inactivity_timeout_s",
    "audio_input_device": "audio_input",
    "audio_output_device": "audio_output",
    "recording_path": "recording_output_path",
    "transcript_listener": "event_bus.subscribe(Turn, ...)",
    "agent_listener": "event_bus.subscribe(...)",
    "listener": "event_bus.subscribe(...)",
    "provider": "server",
    "output_modalities": "output_modality",
    "max_response_output_tokens": "max_output_tokens",
}
"""What other versions of the library called things."""
_AS_TOOL = "write a tool that does it, with @tools.action(...)"
_GONE = {
    "subagents": _AS_TOOL,
    "text_agent": _AS_TOOL,
    "mcp_servers": _AS_TOOL,
    "skills": _AS_TOOL,
    "context": "tools run in your program and can use its variables",
    "tool_dependencies": "tools run in your program and can use its variables",
    "injected_conversation": "say in the instructions what was said before",
    "echo_cancellation": "wear a headset, or talk on a web page, whose browser cancels the echo",
    "pricing_catalog": "leave it out; ResponseEnded tells the tokens of each answer",
}
"""What other versions had and there is not now, and what to do."""


def refuse_unknown(unknown: Mapping[str, object], known: Iterable[str]) -> None:
    """Say of a keyword that there is not what was meant."""
    for name in unknown:
        meant = _FORMER.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
        hint = f"did you mean {meant}?" if meant else f"there are: {', '.join(known)}"
        raise AgentUsageError(name, f"an Agent has no such parameter; {_GONE.get(name) or hint}")
