"""The registry of tools: Python functions that the model may call, and their JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar, overload

import msgspec

from actors.lenient import loads
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
"""Function names that the API accepts."""
_SECTIONS = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples):?$")
"""Headings in a docstring at which the description for the model ends."""

F = TypeVar("F", bound=Callable[..., Any])


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str
    function: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    arguments: type[msgspec.Struct]
    """A struct with one field per parameter, which checks and converts the model's arguments."""
    schema: dict[str, Any]
    """JSON Schema of the arguments, an object."""
    response_instruction: str = ""
    """Instruction for the answer in which the model speaks about the result."""
    idempotent: bool = False
    """Whether a call may be run again if the process has died during it."""
    is_async: bool = False
    contexts: frozenset[str] = frozenset()
    """Names of the parameters that get the `ToolContext`."""

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, {self.description!r})"

    @property
    def spec(self) -> ToolSpec:
        """The description of the tool for the model."""
        return ToolSpec(self.name, self.description, self.schema, self.response_instruction)

    def bind(
        self, arguments: str, context: ToolContext | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments for the function.

        Args:
            arguments: The arguments as the model wrote them: JSON text of an object, or empty.
            context: The value for parameters with the annotation `ToolContext`.

        Raises:
            ToolArgumentsError: If the arguments are not valid; the text is for the model.
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
            return self._converted(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            try:  # half of a surrogate pair, as models leave it of an emoji
                mended = msgspec.json.encode(loads(text))
            except ValueError:
                raise error from None
        return self._converted(mended)

    def _converted(self, text: str | bytes) -> msgspec.Struct:
        try:
            return msgspec.json.decode(text, type=self.arguments, dec_hook=convert_own)
        except msgspec.ValidationError as error:
            try:  # models also write 3.0 or "3" for 3
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
            description: What the tool does, for the model; None: the docstring.
            response_instruction: How the model should speak about the result.
            name: The name for the model; None: the function's name.
            idempotent: Whether running it twice is harmless. If the process dies during a call,
                an idempotent tool is run again; for other tools, the model is told that the outcome
                is unknown.

        Raises:
            ToolDefinitionError: If the name is taken or not valid, or if the model cannot fill a
                parameter.
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
        """Make a function a tool, without a decorator.

        Args:
            function: A plain or async function, a bound method, a partial or a callable object.
            description: See `action`.
            response_instruction: See `action`.
            name: See `action`.
            idempotent: See `action`.
            frame: The frame in which names in its annotations are looked up, besides its module;
                None: the caller's.

        Raises:
            ToolDefinitionError: See `action`.
        """
        name = name or name_of(function)
        if not callable(function):
            raise ToolDefinitionError(name, f"{function!r} is not a function")
        if not _NAME.fullmatch(name):
            raise ToolDefinitionError(
                name, "a name has 1-64 letters, digits, _ and -: give one with name="
            )
        if name in self._tools:
            raise ToolDefinitionError(name, "there is already a tool with this name")
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
            ToolDefinitionError: If both sets have a tool with the same name; then none is added.
        """
        if taken := sorted(set(self._tools) & set(other._tools)):
            raise ToolDefinitionError(taken[0], "both sets have a tool of this name")
        self._tools |= other._tools

    def remove(self, name: str) -> None:
        """Remove a tool.

        Raises:
            ToolError: If there is no tool with this name.
        """
        if name not in self._tools:
            raise ToolError(f"there is no tool named {name!r}; there are: {', '.join(self._tools)}")
        del self._tools[name]

    def get(self, name: str) -> Tool | None:
        """Return the tool with this name, or None."""
        return self._tools.get(name)

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return the descriptions of all tools for the model."""
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
        # A callable object: use the docstring of `__call__`. That of its class describes the class.
        function = type(function).__call__
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
