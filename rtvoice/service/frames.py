"""What both kinds of callers' sockets have in common; without I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

__all__ = ["BAD_DATA", "GOING_AWAY", "NORMAL", "POLICY", "TRY_LATER", "BadFrameError"]
__all__ += ["FAILED", "RESTART", "Command", "Frame", "Hello", "HungUp", "Received", "Scope", "Wire"]
__all__ += ["checked_sound", "parsed"]

Frame = bytes | str

NORMAL, GOING_AWAY, BAD_DATA, POLICY, TOO_BIG = 1000, 1001, 1007, 1008, 1009
FAILED, RESTART, TRY_LATER = 1011, 1012, 1013
"""Codes that close a websocket (RFC 6455 section 7.4.1, and the IANA registry)."""
MOST_BYTES = 256 * 1024
"""Length of the longest frame: five seconds at 24 kHz."""


Scope = Literal["none", "talk", "all"]
"""What callers of a service are shown if they ask for a view: nothing; the talk, its state and the
levels; everything, also tools, processes, latency and cost."""


class BadFrameError(Exception):
    """Raised for a frame that the protocol does not allow; the socket is closed.

    ``code`` closes it, ``text`` says what is wrong and what is allowed.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class Hello(NamedTuple):
    """The first frame of a caller."""

    sample_rate: int
    token: str | None = None
    parameters: Mapping[str, Any] = {}
    view: bool = False
    """Whether the caller wants a view of the conversation."""


class Command(msgspec.Struct, frozen=True):
    """What a caller asks for (`rtvoice.service.commands`)."""


class HungUp(NamedTuple):
    """The caller has hung up."""


Received = bytes | Command | HungUp | None
"""Sound (int16 little-endian mono), a command, the end of the call, or nothing to do."""


class Wire(Protocol):
    """The protocol of a caller's socket: frames in, what they mean out."""

    kind: str
    resumes: bool
    """Whether a caller whose socket was lost may come again."""
    sample_rate: int

    @property
    def played_ms(self) -> float | None:
        """How much of the sound so far the caller has heard; None: the caller does not say."""

    @property
    def is_playing(self) -> bool:
        """Whether the caller still hears sound, as far as the protocol says."""

    def greeted(self, frame: Frame) -> Hello | None:
        """Return the hello; None: it is still to come.

        Raises:
            BadFrameError: The frame has no place before it.
        """

    def received(self, frame: Frame) -> Received:
        """Return what a frame means.

        Raises:
            BadFrameError: It means nothing.
        """

    def sound(self, pcm: bytes) -> Sequence[Frame]:
        """Return the frames with sound for the caller."""

    def clear(self) -> Sequence[Frame]:
        """Return the frames that empty the caller's buffer."""

    def tell(self, kind: str, **fields: object) -> Sequence[Frame]:
        """Return the frames that tell the caller something, if the protocol can."""


def parsed(text: str) -> dict[str, Any]:
    """Return a frame of text, which must be an object in JSON.

    Raises:
        BadFrameError: It is none.
    """
    if len(text) > MOST_BYTES:
        raise BadFrameError(TOO_BIG, _too_big(len(text)))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFrameError(BAD_DATA, "a text frame must be an object in JSON") from None
    if not isinstance(found, dict):
        raise BadFrameError(BAD_DATA, "a text frame must be an object in JSON")
    return found


def checked_sound(pcm: bytes) -> bytes:
    """Return a frame of sound.

    Raises:
        BadFrameError: It is too long, or ends in half a sample.
    """
    if len(pcm) > MOST_BYTES:
        raise BadFrameError(TOO_BIG, _too_big(len(pcm)))
    if len(pcm) % 2:
        text = f"a frame of {len(pcm)} bytes ends in half a sample; a sample has 2 bytes"
        raise BadFrameError(BAD_DATA, text)
    return pcm


def _too_big(size: int) -> str:
    return f"a frame has {size} bytes; at most {MOST_BYTES} are allowed"
