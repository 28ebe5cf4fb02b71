"""The registry of tools: Python functions that the model may call, and their JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar, overload

import msgspec

from actors.tools.context import ToolContext
from actors.tools.errors import ToolArgumentsError, ToolDefinitionError, ToolError
from actors.tools.output import output_of, problem_of
from actors.tools.schema import ABSENT, arguments_struct, convert_own, kind_of, schema_of
from actors.tools.signature import is_async, name_of, signature_of
from messages import ToolSpec

__all__ = [
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "Tools",
    "output_of",
]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the API accepts as the name of a function."""
_SECTIONS = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples):?$")
"""Headings in a docstring at which what concerns the model ends."""

F = TypeVar("F", bound=Callable[..., Any])


class Tool(msgspec.Struct, frozen=True):
    """One function that the model may call."""

    name: str
    description: str
    function: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    arguments: type[msgspec.Struct]
    """A struct with one field a parameter, which checks and converts what the model wrote."""
    schema: dict[str, Any]
    """JSON Schema of an object."""
    response_instruction: str = ""
    """What the model is told when it speaks about the answer."""
    idempotent: bool = False
    """Whether it may be run again if the process died while it ran."""
    is_async: bool = False
    contexts: frozenset[str] = frozenset()
    """The parameters that are given the `ToolContext`."""

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, {self.description!r})"

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return ToolSpec(self.name, self.description, self.schema, self.response_instruction)

    def bind(
        self, arguments: str, context: ToolContext | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the function with.

        Args:
            arguments: JSON text of an object, as the model wrote it; empty for none.
            context: what a parameter with the annotation `ToolContext` is given.

        Raises:
            ToolArgumentsError: with a sentence that tells the model what was wrong.
        """
        values = self._checked(arguments.strip())
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = context if name in self.contexts else getattr(values, name)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(parameter.default if value is ABSENT else value)
            elif value is not ABSENT:
                named[name] = value
        return positional, named

    def _checked(self, text: str) -> msgspec.Struct:
        try:
            return self._decode("{}" if text in ("", "null") else text)
        except msgspec.ValidationError as error:
            raise ToolArgumentsError(
                f"{self.name} was not run, its arguments do not fit: {_in_words(error)}. "
                f"It takes {_summary(self.schema)}."
            ) from None
        except msgspec.DecodeError as error:
            raise ToolArgumentsError(
                f"{self.name} was not run, its arguments are not JSON: {_in_words(error)}."
            ) from None
        except Exception as error:  # noqa: BLE001 - a type of the user's own may raise anything
            raise ToolArgumentsError(
                f"{self.name} was not run, its arguments do not fit: {problem_of(error)}."
            ) from None

    def _decode(self, text: str) -> msgspec.Struct:
        try:
            return msgspec.json.decode(text, type=self.arguments, dec_hook=convert_own)
        except msgspec.ValidationError as error:
            try:  # 3.0 or "3" for 3, as models write it
                return msgspec.json.decode(
                    text, type=self.arguments, strict=False, dec_hook=convert_own
                )
            except msgspec.ValidationError:
                raise error from None


class Tools:
    """The tools of an agent.

    Example:
        ```python
        tools = Tools()

        @tools.action("Say how warm it is in a city.")
        async def get_temperature(
            city: Annotated[str, "a city's name"], unit: Literal["C", "F"] = "C"
        ) -> dict[str, object]:
            return {"degrees": 21, "unit": unit}
        ```
    """

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    @overload
    def action(self, description: F) -> F: ...

    @overload
    def action(
        self,
        description: str | None = None,
        *,
        response_instruction: str | None = None,
        name: str | None = None,
        idempotent: bool = False,
    ) -> Callable[[F], F]: ...

    def action(
        self,
        description: str | F | None = None,
        *,
        response_instruction: str | None = None,
        name: str | None = None,
        idempotent: bool = False,
    ) -> Callable[[F], F] | F:
        """Make the decorated function a tool; the function itself stays as it is.

        Args:
            description: what it does, for the model; without it, the docstring.
            response_instruction: how the model shall speak about the answer.
            name: what the model calls it; without it, the function's name.
            idempotent: that running it twice is harmless. If the process dies during a call, such
                a tool is run again; for any other the model is told that the outcome is unknown.

        Raises:
            ToolDefinitionError: the name is taken or none that the service takes, or there is a
                parameter that the model cannot fill.
        """
        if callable(description):
            self.add(description, frame=_caller())
            return description

        def decorate(function: F) -> F:
            self.add(
                function,
                description=description,
                response_instruction=response_instruction or "",
                name=name,
                idempotent=idempotent,
                frame=_caller(),
            )
            return function

        return decorate

    def add(
        self,
        function: Callable[..., Any],
        *,
        description: str | None = None,
        response_instruction: str = "",
        name: str | None = None,
        idempotent: bool = False,
        frame: FrameType | None = None,
    ) -> Tool:
        """Make a function a tool, without a decorator; see `action`.

        Args:
            function: sync or async; a bound method, a partial or a callable object does too.
            description: see `action`.
            response_instruction: see `action`.
            name: see `action`.
            idempotent: see `action`.
            frame: where names in its annotations are looked up besides its module.
        """
        name = name or name_of(function)
        if not callable(function):
            raise ToolDefinitionError(name, f"{function!r} is no function")
        if not _NAME.fullmatch(name):
            raise ToolDefinitionError(
                name, "a name has 1-64 letters, digits, _ and -: give one with name="
            )
        if name in self._tools:
            raise ToolDefinitionError(name, "there is a tool of this name already")
        description = description or _from_docstring(function)
        if not description:
            raise ToolDefinitionError(
                name, 'the model needs a description: @tools.action("what it does")'
            )
        parameters, kinds, contexts = signature_of(name, function, frame or _caller())
        arguments = arguments_struct(name, parameters, kinds)
        self._tools[name] = Tool(
            name=name,
            description=description,
            function=function,
            parameters=parameters,
            arguments=arguments,
            schema=schema_of(name, arguments, parameters),
            response_instruction=response_instruction,
            idempotent=idempotent,
            is_async=is_async(function),
            contexts=contexts,
        )
        return self._tools[name]

    def include(self, other: Tools) -> None:
        """Add the tools of another set.

        Raises:
            ToolDefinitionError: both have a tool of one name; then none is added.
        """
        if taken := sorted(set(self._tools) & set(other._tools)):
            raise ToolDefinitionError(taken[0], "both sets have a tool of this name")
        self._tools |= other._tools

    def remove(self, name: str) -> None:
        """Take a tool away.

        Raises:
            ToolError: there is no tool of this name.
        """
        if name not in self._tools:
            raise ToolError(f"there is no tool named {name!r}; there are: {', '.join(self._tools)}")
        del self._tools[name]

    def get(self, name: str) -> Tool | None:
        """Return the tool of this name, if there is one."""
        return self._tools.get(name)

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return the tools as the model sees them."""
        return tuple(tool.spec for tool in self)

    def __iter__(self) -> Iterator[Tool]:
        return iter(tuple(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __repr__(self) -> str:
        return f"Tools({', '.join(self._tools)})"


def _caller() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    return frame


def _from_docstring(function: Callable[..., Any]) -> str:
    if not inspect.isroutine(function) and "__doc__" not in vars(function):
        function = type(function).__call__  # an object: its class may be documented for people
    lines = (inspect.getdoc(function) or "").splitlines()
    for number, line in enumerate(lines):
        if _SECTIONS.match(line.strip()):
            del lines[number:]
            break
    return "\n".join(lines).strip()


def _in_words(error: Exception) -> str:
    text = str(error).replace("`", "")
    problem, found, path = text.rpartition(" - at ")
    if not found:
        return text[:1].lower() + text[1:]
    problem = problem[:1].lower() + problem[1:]
    place = path.removeprefix("$").lstrip(".")
    return f"{place}: {problem}" if place else problem


def _summary(schema: Mapping[str, Any]) -> str:
    parts = []
    for name, part in schema["properties"].items():
        notes = [kind] if (kind := kind_of(part)) else []
        if name not in schema["required"]:
            notes.append("may be left out")
        parts.append(f"{name} ({', '.join(notes)})" if notes else name)
    return ", ".join(parts) if parts else "no arguments"
