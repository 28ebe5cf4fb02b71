"""The protocol of ``/twilio``: Twilio's Media Streams, mu-law at 8 kHz. Without I/O.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from rtvoice.audio.mulaw import from_mulaw, to_mulaw
from rtvoice.service.frames import (
    BAD_DATA,
    POLICY,
    BadFrameError,
    Frame,
    Hello,
    HungUp,
    Received,
    parsed,
)

__all__ = ["Twilio"]


class Twilio:
    """One media stream.

    The provider returns a mark when the caller has heard what was sent before it. A ``clear``
    returns all marks, which then say nothing.
    """

    kind = "twilio"
    resumes = False
    sample_rate = 8000

    def __init__(self) -> None:
        self.played_ms = 0.0
        self._stream = ""
        self._given_ms = 0.0
        self._marks: dict[str, float] = {}
        """By name, how much is played when it comes back."""
        self._marked = 0

    @property
    def is_playing(self) -> bool:
        """Whether a mark has not come back."""
        return bool(self._marks)

    def greeted(self, frame: Frame) -> Hello | None:
        """Return the hello: the message ``start``.

        Raises:
            BadFrameError: It is no message that may come before it.
        """
        found = _message(frame)
        match found.get("event"):
            case "connected":
                return None
            case "start":
                start = found.get("start")
                about = start if isinstance(start, dict) else {}
                stream = found.get("streamSid") or about.get("streamSid")
                if about is not start or not isinstance(stream, str):
                    raise BadFrameError(BAD_DATA, "the message start needs a streamSid")
                self._stream = stream
                media = about.get("mediaFormat", {})
                if isinstance(media, dict) and media.get("sampleRate", 8000) not in (8000, "8000"):
                    raise BadFrameError(BAD_DATA, "the stream must be mu-law at 8000 Hz")
                own = about.get("customParameters", {})
                facts = {"callSid": about.get("callSid", ""), "streamSid": stream}
                return Hello(8000, None, (own if isinstance(own, dict) else {}) | facts)
        raise BadFrameError(POLICY, "the first messages must be connected and start")

    def received(self, frame: Frame) -> Received:
        """Return the sound of a message, or the end of the call; take note of marks.

        Raises:
            BadFrameError: It is not as Twilio documents it.
        """
        found = _message(frame)
        match found:
            case {"event": "media", "media": {"payload": str(payload)}}:
                try:
                    return from_mulaw(base64.b64decode(payload, validate=True))
                except ValueError:  # also of characters that are not ASCII
                    raise BadFrameError(BAD_DATA, "the payload must be base64") from None
            case {"event": "mark", "mark": {"name": str(name)}}:
                self.played_ms = self._marks.pop(name, self.played_ms)
            case {"event": "stop"}:
                return HungUp()
            case {"event": "media" | "mark"}:
                raise BadFrameError(BAD_DATA, f"a message {found['event']} lacks its content")
            case {"event": str()}:
                pass  # dtmf, and what is to come
            case _:
                raise BadFrameError(BAD_DATA, "a message needs an event")
        return None

    def sound(self, pcm: bytes) -> Sequence[Frame]:
        """Return sound, and a mark behind it."""
        self._given_ms += len(pcm) / 2 / self.sample_rate * 1000
        self._marked += 1
        name = str(self._marked)
        self._marks[name] = self._given_ms
        payload = base64.b64encode(to_mulaw(pcm)).decode()
        return (
            self._said("media", media={"payload": payload}),
            self._said("mark", mark={"name": name}),
        )

    def clear(self) -> Sequence[Frame]:
        """Return the message that empties the provider's buffer."""
        self._marks.clear()  # they come back now, but what was before them was not heard
        self._given_ms = self.played_ms
        return (self._said("clear"),)

    def tell(self, kind: str, **fields: object) -> Sequence[Frame]:
        """Return nothing: a telephone shows no events."""
        return ()

    def _said(self, event: str, **fields: object) -> str:
        return json.dumps({"event": event, "streamSid": self._stream, **fields})


def _message(frame: Frame) -> dict[str, Any]:
    if not isinstance(frame, str):
        raise BadFrameError(BAD_DATA, "a media stream has text frames only")
    return parsed(frame)
