"""The repair of events that deviate from the API, as servers of other vendors send them.

An event is usable if its required fields are valid: those without a default in
`actors.realtime.wire`. Other fields with a wrong value are left out.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.lenient import loads

__all__ = ["Mended", "mend"]

_WORDS = ("type", "code", "message", "param", "event_id")
"""Fields that some servers put at the top of an ``error`` event instead of in ``error``."""


class Mended(msgspec.Struct, frozen=True):
    """The fields of an event that could be read, and the names of those that were left out."""

    type: str
    fields: dict[str, Any]
    left_out: tuple[str, ...]


def mend(
    text: bytes | str,
    kinds: Mapping[str, type[msgspec.Struct]],
    error: type[msgspec.Struct],
) -> Mended | None:
    """Return the fields of an event that fit its type; None: the JSON is not an event.

    Args:
        text: A websocket message that could not be decoded.
        kinds: The types of the events, by name. Events of other names are returned unchanged.
        error: The type of an error, which servers send in more than one shape.

    Raises:
        ValueError: The text is not JSON.
    """
    raw = loads(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        return None
    name = raw["type"]
    kind = kinds.get(name)
    if kind is None:
        return Mended(name, raw, ())
    if name == "error" and not _fits(raw.get("error"), error):
        top = {word: raw[word] for word in _WORDS[1:] if word in raw}
        raw = {**raw, "error": {**top, **_error(raw.get("error"))}}
    left_out: list[str] = []
    fields = _Fields(error, left_out).of(raw, kind, "")
    return Mended(name, {"type": name, **fields}, tuple(left_out))


def _error(value: Any) -> dict[str, Any]:
    """Return an error of another shape, such as a text, in the shape of the API."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return {"message": _as_text(value)}
    if not isinstance(value.get("message"), str | None):
        return {**value, "message": _as_text(value["message"])}
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _Fields(typing.NamedTuple):
    """Selects the fields that are valid, and collects the names of the others."""

    error: type[msgspec.Struct]
    left_out: list[str]

    def of(self, raw: dict[str, Any], kind: type[msgspec.Struct], place: str) -> dict[str, Any]:
        """Return the fields of a struct, without those that are not valid and not required."""
        fields: dict[str, Any] = {}
        for field, hint in _hints(kind):
            value, name = raw.get(field.encode_name), f"{place}{field.encode_name}"
            if value is None and (not field.required or field.encode_name not in raw):
                continue
            if not _fits(value, hint):
                value = self._part(value, hint, name)
            if field.required or _fits(value, hint):
                fields[field.encode_name] = value
            else:
                self.left_out.append(name)
        return fields

    def _part(self, value: Any, hint: Any, place: str) -> Any:
        """Return the valid fields of a nested struct; return any other value unchanged."""
        for part in (hint, *typing.get_args(hint)):
            if part is self.error:
                value = _error(value)
            is_struct = isinstance(part, type) and issubclass(part, msgspec.Struct)
            if is_struct and isinstance(value, dict):
                return self.of(value, part, f"{place}.")
        return value


@functools.cache
def _hints(kind: type[msgspec.Struct]) -> list[tuple[msgspec.structs.FieldInfo, Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(field, hints[field.name]) for field in msgspec.structs.fields(kind)]


def _fits(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except (msgspec.ValidationError, ValueError):
        return False
    return True
