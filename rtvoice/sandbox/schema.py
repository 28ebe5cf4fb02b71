"""Rules that check the JSON of a client.

A rule is a function of a value and its path. It returns nothing, or raises `RefusedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtvoice.sandbox.errors import (
    RefusedError,
    invalid_type,
    invalid_value,
    missing,
    too_long,
    unknown_parameter,
)

__all__ = [
    "Rule",
    "anything",
    "array",
    "choice",
    "either",
    "flag",
    "nullable",
    "number",
    "record",
    "text",
    "variant",
    "whole",
]

Rule = Callable[[Any, str], None]


def anything(value: Any, path: str) -> None:
    """Accept every value."""


def flag(value: Any, path: str) -> None:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise invalid_type(path, "a boolean", value)


def text(limit: int | None = None) -> Rule:
    """Accept a string of at most `limit` characters."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise invalid_type(path, "a string", value)
        if limit is not None and len(value) > limit:
            raise too_long(path, limit, len(value))

    return check


def whole(low: int, high: int | None = None) -> Rule:
    """Accept an integer from `low` to `high`."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid_type(path, "an integer", value)
        _check_range(value, path, low, high, "integer")

    return check


def number(low: float, high: float) -> Rule:
    """Accept a number from `low` to `high`."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid_type(path, "a decimal", value)
        _check_range(value, path, low, high, "decimal")

    return check


def _check_range(value: float, path: str, low: float, high: float | None, kind: str) -> None:
    if value < low:
        word, side, bound = "below minimum", ">=", low
    elif high is not None and value > high:
        word, side, bound = "above maximum", "<=", high
    else:
        return
    raise RefusedError(
        f"Invalid '{path}': {kind} {word} value. "
        f"Expected a value {side} {bound}, but got {value} instead.",
        code=f"{kind}_{word.replace(' minimum', '_min').replace(' maximum', '_max')}_value",
        param=path,
    )


def choice(*values: str) -> Rule:
    """Accept one of these strings."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise invalid_type(path, f"one of {', '.join(values)}", value)
        if value not in values:
            raise invalid_value(path, value, values)

    return check


def nullable(rule: Rule) -> Rule:
    """Accept null, and every value that the rule accepts."""

    def check(value: Any, path: str) -> None:
        if value is not None:
            rule(value, path)

    return check


def array(rule: Rule, at_most: int | None = None) -> Rule:
    """Accept a list whose values the rule accepts."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise invalid_type(path, "an array of values", value)
        if at_most is not None and len(value) > at_most:
            raise RefusedError(
                f"Invalid '{path}': array too long. Expected at most {at_most} elements.",
                code="array_above_max_length",
                param=path,
            )
        for index, each in enumerate(value):
            rule(each, f"{path}[{index}]")

    return check


def record(fields: Mapping[str, Rule], *required: str) -> Rule:
    """Accept an object with these fields and no others."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise invalid_type(path, "an object", value)
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                raise missing(prefix + name)
        for name, each in value.items():
            rule = fields.get(name)
            if rule is None:
                raise unknown_parameter(prefix + name)
            rule(each, prefix + name)

    return check


def either(shape: Rule, *words: str) -> Rule:
    """Accept one of the words, or an object of that shape."""
    word = choice(*words) if words else text()

    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            shape(value, path)
        else:
            word(value, path)

    return check


def variant(**shapes: Rule) -> Rule:
    """Accept an object whose `type` names its shape; `__` in a name stands for `/`."""
    named = {name.replace("__", "/"): rule for name, rule in shapes.items()}
    kind = choice(*named)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise invalid_type(path, "an object", value)
        if "type" not in value:
            raise missing(f"{path}.type")
        kind(value["type"], f"{path}.type")
        named[value["type"]](value, path)

    return check
