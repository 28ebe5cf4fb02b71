"""What the openai package knows of the wire.

``wire.py server`` prints the type of each server event. ``wire.py client`` judges events of a
client, one JSON object a line, and prints what is refused: the number of the event, the place, the
reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, get_args

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError


def types_of_server_events() -> Iterator[str]:
    union, *_ = get_args(RealtimeServerEvent)
    for model in get_args(union):
        yield from get_args(model.model_fields["type"].annotation)


def problems(adapter: TypeAdapter[Any], event: Any) -> Iterator[str]:
    try:
        model = adapter.validate_python(event, strict=True)
    except ValidationError as error:
        for each in error.errors():
            yield f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
    else:
        yield from unknown_fields(model, "")


def unknown_fields(value: Any, path: str) -> Iterator[str]:
    """The models take fields that they do not know; the service does not."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or ():
            yield f"{path}{name}: unknown field"
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name), f"{path}{name}.")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from unknown_fields(each, f"{path}{index}.")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        print("\n".join(types_of_server_events()))
    else:
        judge = TypeAdapter(RealtimeClientEvent)
        for number, line in enumerate(sys.stdin):
            for problem in problems(judge, json.loads(line)):
                print(number, problem)
