"""The base classes of messages, and the registry of all message types by tag."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, ClassVar, Union

import msgspec

__all__ = ["FIRST_USER_TAG", "LAST_USER_TAG", "Event", "Message", "message_types", "type_of_tag"]

FIRST_USER_TAG = 200
"""Tags from here to `LAST_USER_TAG` belong to the messages of users' own components."""
LAST_USER_TAG = 254

_TYPES: dict[int, type[Message]] = {}


class Message(msgspec.Struct, frozen=True, array_like=True):
    """The base class of all messages between components.

    A subclass sets a unique integer ``tag`` (1-254) in its class line. Fields are immutable; new
    fields go last and have a default, so that two versions can exchange messages.
    """

    attempts: ClassVar[int] = 1
    """How often handling may be started; more than 1 only if handling it twice is harmless."""
    on_demand: ClassVar[bool] = False
    """Whether a component sends it only while somebody wants it (`Wanted`)."""
    urgent: ClassVar[bool] = False
    """Whether somebody waits for it, so that it is sent at once (`Actor.collects`)."""
    direct: ClassVar[bool] = False
    """Whether it also goes straight to a component that accepts it so (`Rule.direct`), which then
    handles it before it would have come through the supervisor. Only for a type whose handling
    twice is harmless, and of which no two messages are equal."""
    passes: ClassVar[bool] = False
    """Whether it goes straight to the program instead of through the supervisor while nothing can
    be overtaken by it (`AskToPass`), unless a component wants it too."""
    flushes: ClassVar[tuple[type[Message], ...]] = ()
    """Types that the hub removes from a receiver's mailbox when this message arrives there."""

    @classmethod
    @cache  # as it is asked for each time that a message is sent
    def tag(cls) -> int:
        """Return the integer that identifies this type in a frame.

        Raises:
            TypeError: If the class has no integer tag.
        """
        tag = cls.__struct_config__.tag
        if not isinstance(tag, int):
            raise TypeError(f"{cls.__name__} has no integer tag: add tag=N to its class line")
        return tag


class Event(Message, frozen=True, array_like=True):
    """The base class of domain events: facts about the conversation or its components.

    Programs subscribe to them by type; ``--events`` writes them under the name ``event``.
    """

    event: ClassVar[str] = ""


def message_types() -> dict[int, type[Message]]:
    """Return all message types that have a tag, by tag.

    Raises:
        TypeError: If two types share a tag.
    """
    found: dict[int, type[Message]] = {}
    waiting: list[type[Message]] = [Message]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        tag = kind.__struct_config__.tag
        if tag is None:
            continue
        other = found.setdefault(kind.tag(), kind)
        if other is not kind and other.__qualname__ != kind.__qualname__:
            raise TypeError(f"{kind.__name__} and {other.__name__} share the message tag {tag}")
    return found


def type_of_tag(tag: int) -> type[Message]:
    """Return the type with this tag.

    Raises:
        KeyError: If this process knows no such type.
    """
    kind = _TYPES.get(tag)
    if kind is None:  # perhaps of a module that was imported since
        _TYPES.update(message_types())
        kind = _TYPES[tag]
    return kind


@lru_cache(maxsize=4)
def _decoder(_known: int) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(Union[tuple(message_types().values())])  # noqa: UP007 - built at run time


@cache
def decoder_of(tag: int) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder of all messages that are known by now, with the type of this tag.

    Raises:
        KeyError: If this process knows no such type.
    """
    type_of_tag(tag)  # it adds the types of new modules
    return _decoder(len(_TYPES))  # types are only added, so their number identifies the union
