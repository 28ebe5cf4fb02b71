"""Converts the results and exceptions of tools to text for the model."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.tools.errors import ToolError

__all__ = ["MAX_OUTPUT", "output_of", "problem_of"]

MAX_OUTPUT = 32_000
"""Most characters of an answer, about 8,000 tokens: a quarter of the smallest context of a current
model (32k tokens; see "Models" in the service's documentation)."""
_MAX_PROBLEM = 2_000


def output_of(result: object) -> str:
    """Return a tool's result as text for the model.

    Text is not changed, None becomes "done", bytes are decoded as UTF-8, and other values become
    JSON: numbers, lists, dicts, sets, enums, dates, structs, dataclasses, pydantic models, numpy
    arrays. A text longer than `MAX_OUTPUT` is cut off, and says so at its end.

    Raises:
        ToolError: If the result cannot be written as JSON.
    """
    if result is None:
        return "done"
    if isinstance(result, str):
        return _bounded(str(result))
    if isinstance(result, bytes | bytearray | memoryview):
        return _bounded(_decoded(bytes(result)))
    try:
        return _bounded(msgspec.json.encode(result, enc_hook=_encode_other).decode())
    except Exception as error:  # noqa: BLE001 - the result's own methods may raise anything
        raise ToolError(
            f"its result, of type {type(result).__name__}, cannot be written as JSON "
            f"({problem_of(error)})"
        ) from None


def problem_of(error: BaseException) -> str:
    """Return the text of an exception, or its type if it has none, as valid UTF-8."""
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - the __str__ of a user's exception may fail
        text = ""
    return _clean(text or type(error).__name__)[:_MAX_PROBLEM]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ToolError(
            f"its result is {len(data)} bytes that are not UTF-8 text; return text or numbers"
        ) from None


def _bounded(text: str) -> str:
    if len(text) <= MAX_OUTPUT:
        return _clean(text)
    return (
        f"{_clean(text[:MAX_OUTPUT])} [cut off: the first {MAX_OUTPUT} of {len(text)} characters]"
    )


def _clean(text: str) -> str:
    """Replace what UTF-8 cannot encode: single surrogates, as in undecodable file names."""
    return text.encode("utf-8", "replace").decode()


def _encode_other(value: Any) -> object:
    dump = getattr(value, "model_dump", None)  # pydantic
    if callable(dump):
        return dump(mode="json")
    plain = getattr(value, "tolist", None)  # numpy
    if callable(plain):
        return plain()
    raise TypeError(f"{type(value).__name__} has no JSON form")
