"""Events of the Realtime API as a program gets them: found by name, decoded from JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from rtvoice.events import ClientEvent, ServerEvent

__all__ = ["decode_wire_event", "wire_names"]

_KINDS: tuple[type[ServerEvent] | type[ClientEvent], ...] = (
    *ServerEvent.__subclasses__(),
    *ClientEvent.__subclasses__(),
)
_WIRE = {str(kind.__struct_config__.tag): kind for kind in _KINDS}


def wire_names(kind: type[object]) -> frozenset[str]:
    """Return the names, in the Realtime API, of the events that a class stands for."""
    return frozenset(name for name, known in _WIRE.items() if issubclass(known, kind))


def decode_wire_event(name: str, json: bytes) -> ServerEvent | ClientEvent:
    """Return an event of the Realtime API from its JSON.

    Raises:
        msgspec.ValidationError: a field is of another type than documented.
        KeyError: there is no such event.
    """
    fields = _without_nulls(msgspec.json.decode(json))
    return msgspec.convert({**fields, "type": name}, _WIRE[name], strict=False)


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the server does not know; the field's default says the same."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if value is not None
    }
