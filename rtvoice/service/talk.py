"""The protocol of ``/talk``: binary PCM both ways, JSON in text frames. Without I/O.

The caller's first frame is the hello: ``{"rate": 24000}``, with ``"token"`` of an earlier socket to
go on with its conversation, and ``"parameters"`` for ``make_agent``. From then on a binary frame is
sound, and a text frame says how much was played since the last ``clear``:
``{"type": "played", "ms": 420, "clears": 1}``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rtvoice.service.frames import (
    BAD_DATA,
    POLICY,
    BadFrameError,
    Frame,
    Hello,
    Received,
    checked_sound,
    parsed,
)

__all__ = ["Talk"]

_RATES = range(8000, 192_001)


class Talk:
    """One socket of a caller."""

    kind = "talk"
    resumes = True
    is_playing = False

    def __init__(self) -> None:
        self.sample_rate = 24_000
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
        self.sample_rate = rate
        return Hello(rate, token, parameters)

    def received(self, frame: Frame) -> Received:
        """Return the sound of a frame; take note of what was played.

        Raises:
            BadFrameError: It is neither.
        """
        if not isinstance(frame, str):
            return checked_sound(frame)
        found = parsed(frame)
        if found.get("type") != "played":
            text = 'a text frame must be {"type": "played", "ms": ..., "clears": ...}'
            raise BadFrameError(BAD_DATA, f"{text}; sound belongs into binary frames")
        ms: Any = found.get("ms")
        clears = found.get("clears", 0)
        is_length = isinstance(ms, int | float) and 0 <= ms < 1e9
        if not is_length or isinstance(ms, bool) or type(clears) is not int:
            text = '"ms" must be the milliseconds played since the last clear, "clears" their count'
            raise BadFrameError(BAD_DATA, text)
        if clears == self._clears:  # else it was sent before the caller knew of the interruption
            self.played_ms = min(self._before_ms + float(ms), self._given_ms)
        return None

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
