"""Checks of an agent's parameters: each returns a valid value or raises an `AgentError`."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from actors.files import path_of
from actors.tools.registry import Tools
from messages import MAX_IMAGE_BYTES, validation
from messages.errors import InvalidSettingError
from messages.settings import SETTINGS
from rtvoice.errors import AgentError
from rtvoice.models import retirement_of

__all__ = ["PARAMETERS", "AgentUsageError"]

PARAMETERS = {
    setting.parameter or name: name
    for name, setting in SETTINGS.items()
    if setting.parameter is not None
}
"""The parameters of an agent that are settings of a session: parameter name to setting name."""


class AgentUsageError(AgentError, TypeError):
    """Raised for a keyword that an agent does not have."""


# -- settings --------------------------------------------------------------------------------------


def checked(name: str, value: object) -> Any:
    """Return the value of a parameter, checked and in the form that an agent stores."""
    if name in _OWN:
        return _OWN[name](name, value)
    if value is None and name in (
        "server",
        "components",
        "prices",
    ):  # not given; no setting can be None here
        return None if name == "server" else {}
    return setting(PARAMETERS[name], value, name)


def setting(name: str, value: object, called: str) -> Any:
    """Return a value checked as the setting ``name``; an error names it ``called``."""
    return _saying(called, validation.checked, name, value)


def of_type(name: str, value: object, kind: Any) -> Any:
    """Return a value, checked to be of a type."""
    return _saying(name, validation.of_type, name, value, kind)


def checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Agent.update`, checked."""
    for name, value in changes.items():
        if name == "tools":
            continue
        if name != "api_key" and name not in PARAMETERS:
            refuse_unknown(changes)
        known = SETTINGS.get(PARAMETERS.get(name, ""))
        if known is None or known.changed_by is None:
            raise AgentError(name, fixed(name))
        if value is None and not known.can_unset:
            raise AgentError(name, "it cannot be unset during a conversation; give another value")
    return {
        name: checked_own_tools(value) if name == "tools" else checked(name, value)
        for name, value in changes.items()
    }


def fixed(name: str) -> str:
    """Return a sentence on why a parameter cannot change during a conversation."""
    return f"{validation.fixed(PARAMETERS.get(name, name))}; make a new Agent"


def description_of(name: str) -> str:
    """Return the description of a parameter in the table of settings."""
    return validation.description(PARAMETERS[name])


def _saying(called: str, check: Callable[..., Any], *arguments: object) -> Any:
    try:
        return check(*arguments)
    except InvalidSettingError as error:
        raise AgentError(called, error.problem) from None


def warn_if_retired(model: str | None, *, stacklevel: int) -> None:
    """Warn if a model is retired or has a date of retirement."""
    if model is not None and (retirement := retirement_of(model)) is not None:
        warnings.warn(str(retirement), FutureWarning, stacklevel=stacklevel)


# -- parameters with checks of their own -----------------------------------------------------------

_DEVICE_METHODS = {
    "audio_input": ("start", "stop", "stream_chunks"),
    "audio_output": ("start", "stop", "play_chunk", "clear_buffer"),
}
_RATES = (8_000, 192_000)


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
            f"most: the service scales larger ones down, and speech waits behind the image",
        )
    return data, media_type


def _content_of(name: str, path: Path) -> bytes:
    try:
        if path.stat().st_size > 16 * MAX_IMAGE_BYTES:
            raise AgentError(name, f"{path} is not an image: it is too large for one")
        return path.read_bytes()
    except OSError as error:
        raise AgentError(name, f"{path} cannot be read: {error.strerror or error}") from None


def checked_key(name: str, value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        # Unlike other errors, this one does not repeat the value: it may be a key.
        raise AgentError(name, "it is not valid; give a text that is not empty, or None")
    return value


def checked_tools(name: str, value: object) -> Tools | str | None:
    if isinstance(value, str):
        where, _, attribute = value.rpartition(":")
        if not where or not attribute:
            raise AgentError(
                "tools", f"{value!r} is not a valid name; write module:attribute or file.py:tools"
            )
    elif value is not None and not isinstance(value, Tools):
        raise AgentError("tools", f"give an rtvoice.Tools, or the name of one, not {_kind(value)}")
    return value


def checked_own_tools(value: object) -> Tools:
    """Return tools for a running conversation, which takes objects but no names."""
    if isinstance(value, str):
        raise AgentError("tools", "a name is loaded only at the start; give an rtvoice.Tools")
    tools = checked_tools("tools", value)
    return tools if isinstance(tools, Tools) else Tools()


def refuse_clash(tools: Iterable[str], builtin_tools: Iterable[str]) -> None:
    """Raise if a tool has the name of a built-in tool that is switched on."""
    if both := sorted(set(tools) & set(builtin_tools)):
        raise AgentError(
            "tools",
            f"{both[0]!r} is the name of a built-in tool too: give yours another name, or leave "
            f"the built-in one out of builtin_tools",
        )


def refuse_unknown_tool(choice: str, names: Iterable[str]) -> None:
    """Raise if ``tool_choice`` names a tool that does not exist, or is required without tools."""
    names = list(names)
    if choice not in ("auto", "none", "required") and choice not in names:
        raise AgentError(
            "tool_choice",
            f"there is no tool {choice!r}; give auto, none, required or one of {', '.join(names)}",
        )
    if choice == "required" and not names:
        raise AgentError("tool_choice", "there is no tool that could be required; give auto")


def checked_device(name: str, value: object) -> object:
    """Return a device: a name, index or path as text, an object unchanged."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise AgentError(name, "give a device's name or index, or a WAV file")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str | os.PathLike):
        return str(setting("recording_path", value, name))
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
    except Exception:  # noqa: BLE001 - a user's property; it may work only after the device has started
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


def _kind(value: object) -> str:
    if value is None:
        return "None"
    return f"a value of type {type(value).__name__}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{name}()" for name in names)


_OWN: dict[str, Callable[[str, Any], Any]] = {
    "tools": checked_tools,
    "api_key": checked_key,
    "audio_input": checked_device,
    "audio_output": checked_device,
}
"""Checks of the parameters that are not settings, or accept more than the setting does."""


# -- the environment ------------------------------------------------------------------------------


def server_in(environment: Mapping[str, str]) -> str | None:
    """Return the server that ``RTVOICE_SERVER`` names."""
    text = environment.get("RTVOICE_SERVER", "").strip()
    return str(setting("server", text, "RTVOICE_SERVER")) if text else None


def device_in(environment: Mapping[str, str], direction: str) -> str | None:
    """Return the device that ``RTVOICE_INPUT`` or ``RTVOICE_OUTPUT`` names."""
    return environment.get(f"RTVOICE_{direction.upper()}", "").strip() or None


def log_level_in(environment: Mapping[str, str]) -> str | None:
    """Return the log level that ``RTVOICE_LOG_LEVEL`` names."""
    level = environment.get("RTVOICE_LOG_LEVEL", "").strip().upper()
    return str(setting("log_level", level, "RTVOICE_LOG_LEVEL")) if level else None


def make_folder(name: str, path: str | None) -> None:
    """Create the folder of a file, if it does not exist."""
    if path is None:
        return
    try:
        path_of(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AgentError(name, f"{path} cannot be written: {error.strerror or error}") from None


def need_key(server: str, api_key: str | None, environment: Mapping[str, str]) -> None:
    """Raise if the server needs a key and there is none."""
    if server == "openai" and not (api_key or environment.get("OPENAI_API_KEY", "").strip()):
        raise AgentError(
            "api_key",
            "the OpenAI service needs a key: set OPENAI_API_KEY, or give api_key=... (create one "
            'at https://platform.openai.com/api-keys); the sandbox, server="sandbox" or '
            "RTVOICE_SERVER=sandbox, needs none",
        )


# -- unknown parameters ---------------------------------------------------------------------------

_AS_TOOL = "write a tool that does it, with @tools.action(...)"
_IN_PROGRAM = "tools run in your program and can use its variables"
_ADVICE = {
    "system_prompt": "did you mean instructions?",
    "inactivity_timeout_seconds": "did you mean inactivity_timeout_s?",
    "recording_path": "did you mean recording_output_path?",
    "output_modalities": "did you mean output_modality?",
    "provider": "did you mean server?",
    "listener": "did you mean event_bus.subscribe(...)?",
    "subagents": _AS_TOOL,
    "text_agent": _AS_TOOL,
    "mcp_servers": _AS_TOOL,
    "skills": _AS_TOOL,
    "context": _IN_PROGRAM,
    "tool_dependencies": _IN_PROGRAM,
    "injected_conversation": "say in the instructions what was said before",
    "echo_cancellation": "wear a headset, or talk on a web page, whose browser cancels the echo",
    "pricing_catalog": "did you mean prices? agent.usage has tokens and dollars",
}
"""Advice for parameters of rtvoice 0.10 and for likely mistakes; see docs/migration.md."""


def refuse_unknown(unknown: Iterable[str]) -> None:
    """Raise for a keyword that an agent does not have; the message suggests what was meant."""
    known = sorted({*PARAMETERS, *_OWN})
    for name in unknown:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise AgentUsageError(name, f"an Agent has no such parameter; {_ADVICE.get(name, advice)}")
