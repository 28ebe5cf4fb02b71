"""What can be wrong with a tool, its arguments or its result."""

from __future__ import annotations

from messages import RtvoiceError, UserError

__all__ = ["ToolArgumentsError", "ToolDefinitionError", "ToolError"]


class ToolError(RtvoiceError):
    """The base of the errors about tools."""


class ToolDefinitionError(ToolError, UserError):
    """A function that cannot be a tool, or a name that is taken.

    ``name`` is the tool's, ``problem`` what is wrong.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"tool {self.name!r}: {self.problem}"


class ToolArgumentsError(ToolError):
    """Arguments of a call that do not fit; the text is for the model."""
