"""rtvoice: voice agents on the OpenAI Realtime API, one supervised process per component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.tools.context import ToolContext
    from actors.tools.registry import Tools
    from rtvoice.agent import Agent

__all__ = ["Agent", "ToolContext", "Tools", "__version__"]

__version__ = "0.1.0"

_HOMES = {
    "Agent": "rtvoice.agent",
    "ToolContext": "actors.tools.context",
    "Tools": "actors.tools.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``rtvoice.sandbox`` needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
