"""Inspects a tool's function: its parameters, and the types of those that the model fills."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from actors.tools.context import ToolContext
from actors.tools.errors import ToolDefinitionError

__all__ = ["Signature", "is_async", "name_of", "signature_of"]

_INFERRED = (bool, int, float, str)
"""Types that are taken from a default value if a parameter has no annotation."""


class Signature(NamedTuple):
    """The parameters of a tool's function."""

    parameters: dict[str, inspect.Parameter]
    """All parameters, in order."""
    kinds: dict[str, Any]
    """The types of the parameters that the model fills."""
    contexts: frozenset[str]
    """The names of the parameters that get the `ToolContext`."""


def signature_of(name: str, function: Callable[..., Any], frame: FrameType | None) -> Signature:
    """Return the parameters of a function and their types.

    Args:
        name: The name of the tool, for errors.
        function: A function, a bound method, a partial or a callable object.
        frame: The frame in which names in annotations are looked up, besides the function's module.

    Raises:
        ToolDefinitionError: If the model could not fill a parameter.
    """
    _refuse_what_returns_later(name, function)
    parameters = _parameters(name, function)
    hints = _hints(name, function, frame, parameters)
    kinds: dict[str, Any] = {}
    contexts: set[str] = set()
    for parameter in parameters.values():
        kind = hints.get(parameter.name, parameter.empty)
        if _is_context(kind):
            contexts.add(parameter.name)
        else:
            kinds[parameter.name] = _kind(name, parameter, kind)
    return Signature(parameters, kinds, frozenset(contexts))


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function; empty if it has none."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__name__", ""))


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling the function returns a coroutine."""
    if isinstance(function, functools.partial):
        return is_async(function.func)
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _refuse_what_returns_later(name: str, function: Callable[..., Any]) -> None:
    if isinstance(function, type):
        raise ToolDefinitionError(name, "a class is not a tool; give a function that makes one")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(
            name, "it yields; the model gets one answer, so return a list or a text"
        )


def _parameters(name: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(_signature(name, function).parameters)
    if isinstance(function, functools.partial):
        for given in function.keywords:  # given already: the model must not see them
            found.pop(given, None)
    for parameter in found.values():
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
    return found


def _signature(name: str, function: Callable[..., Any]) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):  # annotations are lazy; evaluating them here could fail
            from annotationlib import Format

            return inspect.signature(function, annotation_format=Format.FORWARDREF)
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(
            name, f"its parameters cannot be read ({error}); wrap it in a function of your own"
        ) from None


def _hints(
    name: str,
    function: Callable[..., Any],
    frame: FrameType | None,
    parameters: Mapping[str, inspect.Parameter],
) -> dict[str, Any]:
    """Return the evaluated annotations of the parameters, without that of the result."""

    def holder() -> None: ...

    inner = _annotated(function)
    raw = _annotations(inner)
    holder.__annotations__ = {key: raw[key] for key in parameters if key in raw}
    local_names = {**_closure(inner), **(frame.f_locals if frame is not None else {})}
    module = getattr(inspect.unwrap(inner), "__globals__", {})
    try:
        return get_type_hints(holder, module, local_names, include_extras=True)
    except NameError as error:
        raise ToolDefinitionError(
            name,
            f"the annotation of a parameter cannot be looked up: {error}; define the type before "
            f"the tool, and import it outside of TYPE_CHECKING",
        ) from None
    except (TypeError, SyntaxError) as error:
        raise ToolDefinitionError(
            name, f"the annotation of a parameter is not a type: {error}"
        ) from None


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that has the annotations."""
    if isinstance(function, functools.partial):
        return _annotated(function.func)
    if inspect.ismethod(function):
        return _annotated(function.__func__)
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        return function
    return type(function).__call__


def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        return get_annotations(function, format=Format.FORWARDREF)
    return inspect.get_annotations(function)


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None)
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    return found


def _is_context(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return _is_context(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return any(_is_context(part) for part in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, ToolContext)


def _kind(name: str, parameter: inspect.Parameter, kind: Any) -> Any:
    if kind is not parameter.empty:
        return kind
    default = type(parameter.default)
    if default in _INFERRED:
        return default
    raise ToolDefinitionError(
        name,
        f"the parameter {parameter.name} needs a type for the model: annotate it, such as "
        f"{parameter.name}: str",
    )
