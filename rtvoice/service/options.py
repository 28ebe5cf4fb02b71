"""How a service may be asked to be, as a program says it and as the command line does."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from messages import validation
from messages.errors import InvalidSettingError
from rtvoice.agent import Agent
from rtvoice.service.frames import Scope
from rtvoice.service.info import CallInfo

__all__ = ["MakeAgent", "Options", "checked_options", "parsed"]

MakeAgent = Callable[[CallInfo], Agent | Awaitable[Agent]]

_Count = Annotated[int, Meta(ge=1)]
_Above0 = Annotated[float, Meta(gt=0.0)]
_Seconds = Annotated[float, Meta(ge=0.0)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a service was asked to be; see `Service`."""

    make_agent: MakeAgent
    max_sessions: _Count | None
    cpu_limit: _Above0 | None
    memory_limit_mib: _Count | None
    lag_limit_ms: _Above0 | None
    tokens_per_minute: _Count | None
    start_parallel: _Count | None
    queue: Annotated[int, Meta(ge=0)]
    queue_s: _Seconds
    drain_s: _Seconds
    journals: str | os.PathLike[str] | None
    keep_s: _Seconds
    origins: tuple[str, ...]
    view: Scope


_TYPES = get_type_hints(Options, include_extras=True)


def checked_options(
    make_agent: object, journals: str | os.PathLike[str] | None, **values: object
) -> Options:
    """Return options whose values are valid.

    Raises:
        InvalidSettingError: One is not; the text says what is.
    """
    if not callable(make_agent):
        problem = f"it is no function but of type {type(make_agent).__name__}; write "
        example = "def make_agent(call): return Agent(...), so that each caller gets an agent"
        raise InvalidSettingError("make_agent", problem + example)
    found = {name: validation.of_type(name, value, _TYPES[name]) for name, value in values.items()}
    return Options(make_agent=make_agent, journals=journals, **found)


def parsed(name: str, text: str) -> Any:
    """Convert a text from the command line to the value of an option.

    Raises:
        InvalidSettingError: It is not valid; the text says what is.
    """
    kind = _TYPES[name]
    if type(None) in get_args(kind) and text.lower() == "none":
        return None
    return validation.of_type(name, validation.number_in(text, kind), kind)
