"""The registry of tools: Python functions that the model may call, and their JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints, overload

import msgspec

from messages import ToolSpec

__all__ = [
    "Tool",
    "ToolArgumentsError",
    "ToolDefinitionError",
    "ToolError",
    "Tools",
    "output_of",
]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the API accepts as the name of a function."""
_SECTIONS = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples):?$")
"""Headings in a docstring at which what concerns the model ends."""
_ABSENT: Any = object()
"""Stands for an argument that the model did not give and that has a default."""

F = TypeVar("F", bound=Callable[..., Any])


class ToolError(Exception):
    """Base of the errors of this module."""


class ToolDefinitionError(ToolError):
    """A function that cannot be a tool, or a name that is taken."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"tool {self.name!r}: {self.problem}"


class ToolArgumentsError(ToolError):
    """Arguments of a call that do not fit; the text is for the model."""


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

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, {self.description!r})"

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return ToolSpec(self.name, self.description, self.schema, self.response_instruction)

    def bind(self, arguments: str) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the function with.

        Args:
            arguments: JSON text of an object, as the model wrote it; empty for none.

        Raises:
            ToolArgumentsError: with a sentence that tells the model what was wrong.
        """
        try:
            values = self._decode(arguments.strip() or "{}")
        except msgspec.ValidationError as error:
            raise ToolArgumentsError(
                f"{self.name} was not run, its arguments do not fit: {_in_words(error)}. "
                f"It takes {_summary(self.schema)}."
            ) from None
        except msgspec.DecodeError as error:
            raise ToolArgumentsError(
                f"{self.name} was not run, its arguments are not JSON: {_in_words(error)}."
            ) from None
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = getattr(values, name)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(parameter.default if value is _ABSENT else value)
            elif value is not _ABSENT:
                named[name] = value
        return positional, named

    def _decode(self, text: str) -> msgspec.Struct:
        try:
            return msgspec.json.decode(text, type=self.arguments)
        except msgspec.ValidationError as error:
            try:  # 3.0 or "3" for 3, as models write it
                return msgspec.json.decode(text, type=self.arguments, strict=False)
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
            ToolDefinitionError: the name is taken, or a parameter has a type without JSON Schema.
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
            function: sync or async; a bound method does too.
            description: see `action`.
            response_instruction: see `action`.
            name: see `action`.
            idempotent: see `action`.
            frame: where names in its annotations are looked up besides its module.
        """
        name = name or str(getattr(function, "__name__", ""))
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
        parameters = _parameters(name, function)
        arguments = _struct(name, parameters, _hints(name, function, frame))
        self._tools[name] = Tool(
            name=name,
            description=description,
            function=function,
            parameters=parameters,
            arguments=arguments,
            schema=_schema(name, arguments, parameters),
            response_instruction=response_instruction,
            idempotent=idempotent,
            is_async=inspect.iscoroutinefunction(function),
        )
        return self._tools[name]

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


def output_of(result: object) -> str:
    """Return a tool's result as the text the model gets.

    Text stays as it is, None is "done", everything else is JSON.

    Raises:
        ToolError: it cannot be written as JSON.
    """
    if result is None:
        return "done"
    if isinstance(result, str):
        return str(result)
    try:
        return msgspec.json.encode(result, enc_hook=_encode_other).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ToolError(
            f"its result, of type {type(result).__name__}, cannot be written as JSON ({error})"
        ) from None


def _encode_other(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # pydantic
    if callable(dump):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _caller() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    return frame


def _from_docstring(function: Callable[..., Any]) -> str:
    lines = (inspect.getdoc(function) or "").splitlines()
    for number, line in enumerate(lines):
        if _SECTIONS.match(line.strip()):
            del lines[number:]
            break
    return "\n".join(lines).strip()


def _parameters(name: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = dict(inspect.signature(function).parameters)
    except NameError as error:  # from Python 3.14 on, annotations are looked up now
        raise _unknown_annotation(name, error) from None
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolDefinitionError(
                name, f"the model cannot fill {parameter}: name each parameter"
            )
        if parameter.name in ("self", "cls") and parameter.annotation is parameter.empty:
            raise ToolDefinitionError(
                name,
                f"the model cannot give {parameter.name!r}: make the method of an object a tool, "
                f'tools.action("...")(thing.{name})',
            )
    return parameters


def _hints(name: str, function: Callable[..., Any], frame: FrameType | None) -> dict[str, Any]:
    local_names = dict(frame.f_locals) if frame is not None else None
    try:
        return get_type_hints(function, localns=local_names, include_extras=True)
    except NameError as error:
        raise _unknown_annotation(name, error) from None


def _unknown_annotation(name: str, error: NameError) -> ToolDefinitionError:
    return ToolDefinitionError(name, f"the annotation of a parameter cannot be looked up: {error}")


def _struct(
    name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for parameter in parameters.values():
        kind = _documented(hints.get(parameter.name, Any))
        if parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
            continue
        if parameter.default is None and kind is not Any:
            kind = kind | None
        fields.append((parameter.name, kind, msgspec.field(default_factory=_absent)))
    try:
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    except TypeError as error:
        raise ToolDefinitionError(name, f"its parameters cannot be a struct: {error}") from None


def _absent() -> Any:
    return _ABSENT


def _documented(kind: Any) -> Any:
    """Turn ``Annotated[str, "a city's name"]`` into what msgspec knows as a description."""
    if get_origin(kind) is not Annotated:
        return kind
    inner, *notes = get_args(kind)
    metas = tuple(
        msgspec.Meta(description=note) if isinstance(note, str) else note for note in notes
    )
    return Annotated[(inner, *metas)]


def _schema(
    name: str, arguments: type[msgspec.Struct], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    try:
        found = msgspec.json.schema(arguments)
        msgspec.json.Decoder(arguments)
    except TypeError as error:
        problem = str(error).strip().splitlines()[-1]
        raise ToolDefinitionError(
            name,
            f"a parameter has a type that JSON cannot carry: {problem}. Use str, int, float, bool, "
            f"Literal, enums, lists, dicts, dataclasses, TypedDict or msgspec structs",
        ) from None
    definitions: dict[str, Any] = dict(found["$defs"])
    own = _pop_own(definitions, found["$ref"])
    for definition in (own, *definitions.values()):
        if "properties" in definition:
            definition["additionalProperties"] = False
    _name_type_of_enums([own, definitions])
    for parameter in parameters.values():
        if parameter.default is not parameter.empty:
            _add_default(own["properties"][parameter.name], parameter.default)
    own.pop("title", None)
    own.pop("description", None)
    own.setdefault("required", [])
    if definitions:
        own["$defs"] = definitions
    return own


def _pop_own(definitions: dict[str, Any], reference: str) -> dict[str, Any]:
    own: dict[str, Any] = definitions.pop(reference.removeprefix("#/$defs/"))
    return own


def _name_type_of_enums(schema: Any) -> None:
    """Say ``"type": "string"`` beside each enumeration of strings, as the API's examples do."""
    if isinstance(schema, dict):
        choices = schema.get("enum")
        if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
            schema.setdefault("type", "string")
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _name_type_of_enums(part)


def _add_default(schema: dict[str, Any], default: object) -> None:
    try:
        value = msgspec.to_builtins(default)
    except (TypeError, ValueError):
        return
    if "$ref" in schema:  # beside a reference nothing else counts in older dialects
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}]
    schema["default"] = value


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
        kind = " or ".join(map(str, part["enum"])) if "enum" in part else part.get("type", "")
        notes = [kind] if kind else []
        if name not in schema["required"]:
            notes.append("may be left out")
        parts.append(f"{name} ({', '.join(notes)})" if notes else name)
    return ", ".join(parts) if parts else "no arguments"
