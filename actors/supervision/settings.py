"""The settings of a session, checked: what is wrong with one is said in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from actors.supervision.specs import SPECS
from messages import LEVELS, ConfigurationError, Settings, limits

__all__ = ["checked"]


def checked(given: Mapping[str, Any]) -> Settings:
    """Return the settings that these plain values are.

    Raises:
        ConfigurationError: one is unknown or out of range, or a component has the name of ours.
    """
    try:
        settings = msgspec.convert(dict(given), Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_setting_in_words(error)) from error
    bounds = {
        "volume": (0.0, 1.0),
        "block_ms": (10, 100),
        "hang_s": (0.1, 3600),
        "start_s": (0.1, 3600),
        "stop_s": (0.1, 3600),
        "tool_timeout_s": (0.1, 86400),
        "output_hold_s": (0.0, 86400),
    }
    for name, (low, high) in bounds.items():
        if getattr(settings, name) is None:
            continue
        if not low <= getattr(settings, name) <= high:
            raise ConfigurationError(
                f"{name} is {getattr(settings, name)}; it must be between {low} and {high}"
            )
    if wrong := limits.problem(settings):
        raise ConfigurationError(": ".join(wrong))
    if settings.memory_limit_mib is not None and settings.memory_limit_mib < 64:
        raise ConfigurationError(
            f"memory_limit_mib is {settings.memory_limit_mib}; a process needs 64 at least, and "
            f"None is no limit"
        )
    if settings.log_level not in LEVELS:
        raise ConfigurationError(
            f"log_level is {settings.log_level!r}; it must be one of {', '.join(LEVELS)}"
        )
    server = settings.server
    if server not in ("openai", "sandbox") and not server.startswith(("ws://", "wss://")):
        raise ConfigurationError(
            f"server is {server!r}; it must be openai, sandbox, or a ws:// or wss:// URL"
        )
    try:
        urlsplit(server).port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ConfigurationError(
            f"server is {server!r}; its port must be a number from 0 to 65535"
        ) from None
    taken = {spec.name for spec in SPECS} & set(settings.components)
    if taken:
        raise ConfigurationError(f"a component of your own cannot be named {taken.pop()!r}")
    return settings


_TYPES_IN_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "None",
    "array": "a list",
}


def _setting_in_words(error: msgspec.ValidationError) -> str:
    problem, _, place = str(error).replace("`", "").partition(" - at $.")
    unknown = problem.removeprefix("Object contains unknown field ")
    if unknown != problem:
        near = difflib.get_close_matches(unknown, Settings.__struct_fields__, n=1)
        return f"there is no setting {unknown}" + (f"; is it {near[0]}?" if near else "")
    for name, words in _TYPES_IN_WORDS.items():
        problem = re.sub(rf"\b{name}\b", words, problem)
    return f"{place or 'a setting'} is wrong: {problem[:1].lower()}{problem[1:]}"
