"""Errors of tools: of their definition, their arguments and their results."""

from __future__ import annotations

from messages import RtvoiceError, UserError

__all__ = ["ToolArgumentsError", "ToolDefinitionError", "ToolError"]


class ToolError(RtvoiceError):
    """The base class of errors of tools."""


class ToolDefinitionError(ToolError, UserError):
    """Raised if a function cannot be a tool, or if the name is taken.

    ``name`` is the name of the tool, ``problem`` says what is wrong.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"tool {self.name!r}: {self.problem}"


class ToolArgumentsError(ToolError):
    """Raised if the arguments of a call are not valid; the text is for the model."""
