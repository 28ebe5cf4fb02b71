"""A lenient JSON reader, for servers and models that write halves of surrogate pairs.

A pair that was cut between two deltas, or an emoji that a model has not finished, leaves a code
unit that is not a character. Strict decoders refuse the whole text because of it.
"""

from __future__ import annotations

import encodings.utf_16_le  # noqa: F401 - its first use would import it, in a handler
import json
from typing import Any

__all__ = ["loads", "repaired"]


def loads(text: bytes | str) -> Any:
    """Return the value of a JSON text. Invalid characters become U+FFFD, and NaN becomes None.

    Raises:
        ValueError: The text is not JSON, or it is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        return _without_halves(json.loads(text, parse_constant=lambda _: None))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def repaired(text: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair; whole pairs are joined."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _without_halves(value: Any) -> Any:
    match value:
        case str():
            return repaired(value)
        case dict():
            return {repaired(key): _without_halves(each) for key, each in value.items()}
        case list():
            return [_without_halves(each) for each in value]
        case _:
            return value
