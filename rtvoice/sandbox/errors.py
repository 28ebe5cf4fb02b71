"""Errors of the server, in the words of the Realtime API."""

from __future__ import annotations

from typing import Any

__all__ = [
    "RefusedError",
    "invalid_type",
    "invalid_value",
    "missing",
    "quoted",
    "too_long",
    "unknown_parameter",
]


class RefusedError(Exception):
    """Raised for an event of the client that is refused: it is answered with an `error` event.

    The session goes on.

    Attributes:
        message: The text that the client gets.
        code: The error code of the API, or None.
        param: The path of the wrong field (`session.audio.output.speed`), or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, code, param)
        self.message = message
        self.code = code
        self.param = param

    def __str__(self) -> str:
        return self.message


def missing(param: str) -> RefusedError:
    return RefusedError(
        f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def unknown_parameter(param: str) -> RefusedError:
    return RefusedError(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)


def invalid_type(param: str, expected: str, value: Any) -> RefusedError:
    return RefusedError(
        f"Invalid type for '{param}': expected {expected}, but got {_kind_of(value)} instead.",
        code="invalid_type",
        param=param,
    )


def invalid_value(param: str, value: Any, supported: tuple[str, ...]) -> RefusedError:
    return RefusedError(
        f"Invalid value: '{value}'. Supported values are: {quoted(supported)}.",
        code="invalid_value",
        param=param,
    )


def too_long(param: str, limit: int, length: int) -> RefusedError:
    return RefusedError(
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        code="string_above_max_length",
        param=param,
    )


def quoted(names: tuple[str, ...]) -> str:
    """Return a list of names in the form of the API: `'a', 'b', and 'c'`."""
    each = [f"'{name}'" for name in names]
    if len(each) < 3:
        return " and ".join(each)
    return f"{', '.join(each[:-1])}, and {each[-1]}"


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
