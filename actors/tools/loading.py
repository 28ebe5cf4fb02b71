"""Loads the user's agent or tools by name: ``module:attr`` or ``path/file.py:attr``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Protocol

from actors.loading import LoadError, load, raised
from actors.tools.registry import Tools

__all__ = ["AgentLoadError", "DescribedAgent", "ToolsLoadError", "load_agent", "load_tools"]


class DescribedAgent(Protocol):
    """The part of `rtvoice.Agent` that the tools process uses; it must not import that package."""

    tools: Any

    def describe(self) -> dict[str, Any]:
        """Return fields of `messages.Settings` as plain values."""


class AgentLoadError(LoadError):
    """Raised if the agent cannot be loaded."""

    def __str__(self) -> str:
        return f"agent {super().__str__()}"


class ToolsLoadError(LoadError):
    """Raised if the tools cannot be loaded."""

    def __str__(self) -> str:
        return f"tools {super().__str__()}"


@lru_cache(maxsize=8)
def load_agent(name: str) -> DescribedAgent:
    """Import a module or file and return the agent in it.

    Raises:
        AgentLoadError: If there is no such file, module or attribute, if the import raises, or if
            the attribute is not an agent.
    """
    try:
        found = load(name, "agent", _is_agent)
    except LoadError as error:
        raise AgentLoadError(error.name, error.problem) from error.__cause__
    if isinstance(found, FunctionType):
        found = _made(name, found)
    if not _is_agent(found):
        raise AgentLoadError(name, _not_an_agent(name.rpartition(":")[2], found))
    return found  # type: ignore[no-any-return]


def _made(name: str, make: Callable[[], Any]) -> Any:
    """Call a function of the user that makes an agent."""
    try:
        return make()
    except Exception as error:
        raise AgentLoadError(name, f"calling it failed: {raised(error)}") from error


@lru_cache(maxsize=8)
def load_tools(name: str) -> Tools:
    """Import a module or file and return the `Tools` in it.

    Raises:
        ToolsLoadError: In the same cases as `load_agent`.
    """
    try:
        found = load(name, "Tools object", _are_tools)
    except LoadError as error:
        raise ToolsLoadError(error.name, error.problem) from error.__cause__
    if not isinstance(found, Tools):
        attribute = name.rpartition(":")[2]
        raise ToolsLoadError(
            name, f"{attribute} is of type {type(found).__name__}, not an rtvoice.Tools"
        )
    return found


def _is_agent(found: object) -> bool:
    return (
        not isinstance(found, type)
        and callable(getattr(found, "describe", None))
        and hasattr(found, "tools")
    )


def _are_tools(found: object) -> bool:
    return isinstance(found, Tools)


def _not_an_agent(attribute: str, found: object) -> str:
    if isinstance(found, type):
        return f"{attribute} is a class; name an rtvoice.Agent, such as agent = Agent(...)"
    return f"{attribute} is of type {type(found).__name__}, not an rtvoice.Agent"
