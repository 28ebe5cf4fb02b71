"""Decoding of events of the Realtime API, from JSON to the classes of `rtvoice.events`."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.lenient import loads
from rtvoice.events import ClientEvent, ServerEvent

__all__ = ["decode_wire_event", "wire_names"]

_KINDS: tuple[type[ServerEvent] | type[ClientEvent], ...] = (
    *ServerEvent.__subclasses__(),
    *ClientEvent.__subclasses__(),
)
_WIRE = {str(kind.__struct_config__.tag): kind for kind in _KINDS}


def wire_names(kind: type[object]) -> frozenset[str]:
    """Return the names, in the Realtime API, of the events that a class or its subclasses are."""
    return frozenset(name for name, known in _WIRE.items() if issubclass(known, kind))


def decode_wire_event(name: str, json: bytes) -> ServerEvent | ClientEvent:
    """Return an event of the Realtime API from its JSON.

    Raises:
        msgspec.ValidationError: A field is of another type than documented.
        KeyError: There is no class for this event.
    """
    try:
        decoded = msgspec.json.decode(json)
    except msgspec.DecodeError:
        decoded = loads(json)
    fields = _without_nulls(decoded)
    return msgspec.convert({**fields, "type": name}, _WIRE[name], strict=False)


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that are null: not every field's type has None, but each has a default."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if value is not None
    }
