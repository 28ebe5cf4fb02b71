"""The protocol of ``/talk``: binary PCM both ways, JSON in text frames. Without I/O.

The caller's first frame is the hello: ``{"rate": 24000}``, with ``"token"`` of an earlier socket to
go on with its conversation, and ``"parameters"`` for ``make_agent``. From then on a binary frame is
sound, and a text frame says how much was played since the last ``clear``:
``{"type": "played", "ms": 420, "clears": 1}``.

With ``"view": true`` in the hello, where the service allows it, the caller is sent frames
``{"type": "view", ...}``: first the whole state, then what has changed (`rtvoice.view.frames`). Its
text frames may then be commands too (`rtvoice.service.commands`): ``{"type": "say", "text": ...}``.
An image is a binary frame, announced by ``{"type": "image", "bytes": ...}`` just before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from rtvoice.service.commands import Kill, ShowImage, command_in
from rtvoice.service.frames import (
    BAD_DATA,
    POLICY,
    BadFrameError,
    Command,
    Frame,
    Hello,
    Received,
    Scope,
    checked_sound,
    parsed,
)

__all__ = ["Talk"]

_RATES = range(8000, 192_001)


class Talk:
    """One socket of a caller.

    Args:
        scope: What the service shows to callers who ask for a view.
    """

    kind = "talk"
    resumes = True
    is_playing = False

    def __init__(self, scope: Scope = "none") -> None:
        self.sample_rate = 24_000
        self._scope = scope
        self._has_view = False
        self._image: ShowImage | None = None
        """The image that was announced, until it comes."""
        self.played_ms: float | None = None
        self._given_ms = 0.0
        """Sound given to the caller, without what a ``clear`` has discarded."""
        self._before_ms = 0.0
        """What was played before the last ``clear``."""
        self._clears = 0

    def greeted(self, frame: Frame) -> Hello:
        """Return the hello, which is the first frame.

        Raises:
            BadFrameError: It is no hello.
        """
        if not isinstance(frame, str):
            raise BadFrameError(
                POLICY, 'sound came before the hello; begin with the text {"rate": 24000}'
            )
        found = parsed(frame)
        rate, token = found.get("rate"), found.get("token")
        parameters = found.get("parameters", {})
        if type(rate) is not int or rate not in _RATES:
            text = 'the hello needs a "rate": samples a second, from 8000 to 192000'
            raise BadFrameError(BAD_DATA, text)
        if not isinstance(token, str | None):
            raise BadFrameError(BAD_DATA, 'the "token" of a hello must be a text')
        if not isinstance(parameters, dict):
            raise BadFrameError(BAD_DATA, 'the "parameters" of a hello must be an object')
        self._has_view = self._view_in(found)
        self.sample_rate = rate
        return Hello(rate, token, parameters, self._has_view)

    def _view_in(self, found: dict[str, Any]) -> bool:
        view = found.get("view", False)
        if not isinstance(view, bool):
            raise BadFrameError(BAD_DATA, 'the "view" of a hello must be true or false')
        if view and self._scope == "none":
            raise BadFrameError(POLICY, 'this service shows no view; leave "view" out of the hello')
        return view

    def received(self, frame: Frame) -> Received:
        """Return the sound or the command of a frame; take note of what was played.

        Raises:
            BadFrameError: It is none of them.
        """
        if not isinstance(frame, str):
            return checked_sound(frame) if self._image is None else self._image_in(frame)
        found = parsed(frame)
        if self._image is not None:
            text = f"the image of {self._image.size} bytes must follow its announcement at once"
            raise BadFrameError(BAD_DATA, text)
        if found.get("type") == "played":
            self._played(found)
            return None
        if not self._has_view:
            text = 'a text frame must be {"type": "played", "ms": ..., "clears": ...}'
            raise BadFrameError(BAD_DATA, f"{text}; sound belongs into binary frames")
        return self._command(found)

    def _command(self, found: dict[str, Any]) -> Command | None:
        command = command_in(found)
        if isinstance(command, ShowImage):
            self._image = command
            return None
        if isinstance(command, Kill) and self._scope != "all":
            raise BadFrameError(POLICY, "this service lets no caller kill components")
        return command

    def _image_in(self, content: bytes) -> Command:
        assert self._image is not None
        image, self._image = self._image, None
        if len(content) != image.size:
            text = f"an image of {image.size} bytes was announced, and one of {len(content)} came"
            raise BadFrameError(BAD_DATA, text)
        return replace(image, content=content)

    def _played(self, found: dict[str, Any]) -> None:
        ms: Any = found.get("ms")
        clears = found.get("clears", 0)
        is_length = isinstance(ms, int | float) and 0 <= ms < 1e9
        if not is_length or isinstance(ms, bool) or type(clears) is not int:
            text = '"ms" must be the milliseconds played since the last clear, "clears" their count'
            raise BadFrameError(BAD_DATA, text)
        if clears == self._clears:  # else it was sent before the caller knew of the interruption
            self.played_ms = min(self._before_ms + float(ms), self._given_ms)

    def sound(self, pcm: bytes) -> Sequence[Frame]:
        """Return the frame with sound."""
        self._given_ms += len(pcm) / 2 / self.sample_rate * 1000
        return (pcm,)

    def clear(self) -> Sequence[Frame]:
        """Return the frame that empties the caller's buffer."""
        self._clears += 1
        if self.played_ms is not None:
            self._before_ms = self._given_ms = self.played_ms
        else:
            self._before_ms = self._given_ms
        return self.tell("clear", clears=self._clears)

    def tell(self, kind: str, **fields: object) -> Sequence[Frame]:
        """Return the frame with an event."""
        return (json.dumps({"type": kind, **fields}, ensure_ascii=False),)
