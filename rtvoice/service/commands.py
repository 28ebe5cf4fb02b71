"""What a caller with a view may ask for, as text frames; without I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from messages import MAX_IMAGE_BYTES
from rtvoice.service.frames import BAD_DATA, BadFrameError, Command

__all__ = ["Kill", "Mute", "Press", "Release", "Say", "ShowImage", "Speed", "Stop"]
__all__ += ["StopSpeaking", "Volume", "command_in"]


class _Frame(Command, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """A text frame; its ``type`` is the tag."""


class Say(_Frame, frozen=True, tag="say"):
    """A typed turn of the user."""

    text: Annotated[str, Meta(min_length=1, max_length=100_000)]


class ShowImage(_Frame, frozen=True, tag="image"):
    """Announces an image, which is the next binary frame."""

    size: Annotated[int, Meta(ge=1, le=MAX_IMAGE_BYTES)] = msgspec.field(name="bytes")
    text: str = ""
    detail: Literal["auto", "low", "high"] = "auto"
    respond: bool = True
    content: bytes = b""
    """Filled in when it has come."""


class StopSpeaking(_Frame, frozen=True, tag="interrupt"):
    """Interrupt the assistant."""


class Press(_Frame, frozen=True, tag="start_talking"):
    """Begin a turn (push-to-talk)."""


class Release(_Frame, frozen=True, tag="stop_talking"):
    """End a turn (push-to-talk)."""


class Mute(_Frame, frozen=True, tag="mute"):
    """Mute the microphone, or unmute it."""

    muted: bool


class Volume(_Frame, frozen=True, tag="volume"):
    """Set the volume: from 0 to 1."""

    volume: float


class Speed(_Frame, frozen=True, tag="speed"):
    """Set the speed of speech."""

    speed: float


class Kill(_Frame, frozen=True, tag="kill"):
    """Kill the process of a component."""

    component: str


class Stop(_Frame, frozen=True, tag="stop"):
    """End the conversation in order."""


_COMMANDS = (Say, ShowImage, StopSpeaking, Press, Release, Mute, Volume, Speed, Kill, Stop)
_BY_NAME = {str(kind.__struct_config__.tag): kind for kind in _COMMANDS}


def command_in(found: dict[str, Any]) -> Command:
    """Return the command in a text frame.

    Raises:
        BadFrameError: There is none.
    """
    name = found.get("type")
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        text = f'unknown "type" of a frame; allowed: played, {", ".join(_BY_NAME)}'
        raise BadFrameError(BAD_DATA, text)
    try:
        return msgspec.convert({key: found[key] for key in found if key != "content"}, kind)
    except msgspec.ValidationError as error:
        problem = str(error).replace("`", "")
        raise BadFrameError(BAD_DATA, f"a frame {name} is not valid: {problem}") from None
