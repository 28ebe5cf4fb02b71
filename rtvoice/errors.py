"""The errors that rtvoice raises in a program; each is an `RtvoiceError`."""

from __future__ import annotations

from actors.tools.errors import ToolDefinitionError, ToolError
from messages.errors import (
    ComponentCrashedError,
    ConfigurationError,
    EventError,
    NotRunningError,
    RtvoiceError,
    SessionFailedError,
    SupervisorDiedError,
)

__all__ = [
    "AgentError",
    "ComponentCrashedError",
    "ConfigurationError",
    "EventError",
    "NotRunningError",
    "RtvoiceError",
    "SessionFailedError",
    "SupervisorDiedError",
    "ToolDefinitionError",
    "ToolError",
]


class AgentError(ConfigurationError, ValueError):
    """Raised for an invalid parameter of an agent; the text says how to fix it.

    ``name`` is the parameter, ``problem`` what is wrong with it.

    Example:
        ```python
        from rtvoice import Agent, AgentError

        try:
            Agent(speech_speed=2)
        except AgentError as error:
            print(error)
        ```
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"
