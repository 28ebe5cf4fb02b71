"""Redaction: what a function of the user makes of each text before it is written to a disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from actors.loading import load
from messages import AssistantItem, Message

__all__ = ["Redact", "passed", "redacted", "redaction"]

Redact = Callable[[str], str]
M = TypeVar("M", bound=Message)

_TEXTS = frozenset(
    ("text", "arguments", "output", "error", "reason", "cause", "traceback", "log_tail", "about")
)
"""Fields of messages that have words of the conversation, or may quote them."""
_PARTS = frozenset(("text_heard", "delta"))
"""Fields with a part of a text. They are left out: in a part, a function may not recognise what it
recognises in the whole text."""
_FAILED = "[not kept: the redaction function failed]"


def redaction(name: str | None) -> Redact | None:
    """Return the function that a setting names; None: there is none.

    Raises:
        LoadError: It cannot be loaded, or is no function.
    """
    if name is None:
        return None
    function: Redact = load(name, "function", callable)
    return function


def redacted(message: M, redact: Redact) -> M:
    """Return a message in which each text is what the function makes of it, and no image is named.

    Where the function raises or returns something else, a sentence in brackets takes the place of
    the text.
    """
    changes: dict[str, Any] = {}
    if isinstance(message, AssistantItem) and message.status == "in_progress":
        return msgspec.structs.replace(message, text="")  # it may end in the middle of a secret
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if name in _PARTS:
            changes[name] = ""
        elif name == "image":
            changes[name] = None
        elif name in _TEXTS and value:
            is_text = isinstance(value, str)
            changes[name] = (
                passed(value, redact) if is_text else tuple(passed(each, redact) for each in value)
            )
    return msgspec.structs.replace(message, **changes) if changes else message


def passed(text: str, redact: Redact) -> str:
    """Return what the function makes of a text; a sentence if it raises or returns no text."""
    try:
        found: object = redact(text)
    except Exception:  # noqa: BLE001 - a function of the user
        return _FAILED
    return found if isinstance(found, str) else _FAILED
