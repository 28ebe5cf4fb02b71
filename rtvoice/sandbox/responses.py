"""A response: its events, in the order in which the service sends them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rtvoice.sandbox.audio import Encoder
from rtvoice.sandbox.conversation import Part, ServerConversation, ServerItem
from rtvoice.sandbox.settings import Settings
from rtvoice.sandbox.tokens import audio_tokens, response_usage, text_tokens

__all__ = ["ResponseOutcome", "ServerResponse", "padding"]

Emit = Callable[..., None]
NewId = Callable[[str], str]

_PADDED_TO: Final = 16
"""The service pads text deltas to multiples of this length, to hide the lengths of the words."""
_ARGUMENTS_PIECE: Final = 12
"""Number of characters of a function call's arguments in a delta."""


class ResponseOutcome(NamedTuple):
    """How a response ended: the `status` and `status_details` of `response.done`."""

    status: str
    details: dict[str, Any] | None = None

    @classmethod
    def cancelled(cls, reason: str) -> ResponseOutcome:
        return cls("cancelled", {"type": "cancelled", "reason": reason})

    @classmethod
    def failed(cls, code: str) -> ResponseOutcome:
        message = f"The response failed: {code}."
        error = {"type": code, "code": code, "message": message}
        return cls("failed", {"type": "failed", "error": error})

    @classmethod
    def incomplete(cls, reason: str) -> ResponseOutcome:
        return cls("incomplete", {"type": "incomplete", "reason": reason})


class ServerResponse:
    """One response, from `response.created` to `response.done`.

    It has more attributes than other classes: the API's response has as many facets.

    Args:
        settings: The settings of the session, overridden by the parameters of `response.create`.
        context: The items that it answers.
        conversation: The conversation to which its items are added; None: out of band.
        emit: Sends an event, given its type and its fields.
        new_id: Returns an id of a kind.
        cached_tokens: Number of input tokens of the response before.
    """

    def __init__(
        self,
        settings: Settings,
        context: list[ServerItem],
        conversation: ServerConversation | None,
        emit: Emit,
        new_id: NewId,
        cached_tokens: int,
    ) -> None:
        self.id = new_id("resp")
        self.settings = settings
        self.context = context
        self.is_open = True
        self.samples = 0
        self.usage: dict[str, Any] | None = None
        self._conversation = conversation
        self._emit = emit
        self._new_id = new_id
        self._cached_tokens = cached_tokens
        self._outcome = ResponseOutcome("in_progress")
        self._output: list[ServerItem] = []
        self._item: ServerItem | None = None
        self._said = ""
        self._said_before = ""
        self._encoder = Encoder(settings["audio"]["output"]["format"])

    @property
    def with_audio(self) -> bool:
        return bool(self.settings["output_modalities"] == ["audio"])

    def begin(self) -> None:
        self._emit("response.created", response=self._wire())

    def begin_message(self) -> None:
        """Open a message, to which `speak` or `write` then add."""
        item = ServerItem(self._new_id("item"), "message", role="assistant", status="in_progress")
        item.content = []
        self._add(item)
        kind = "audio" if self.with_audio else "text"
        item.content.append(Part(f"output_{kind}", transcript="" if self.with_audio else None))
        self._emit_in_part("response.content_part.added", part=self._part_wire(""))

    def end_message(self) -> None:
        """Close the message, because another one follows."""
        self._close_message("completed")
        self._said_before += self._said
        self._said = ""
        self._encoder = Encoder(self.settings["audio"]["output"]["format"])

    def speak(self, words: list[str], pcm: bytes) -> None:
        """Add speech to the message.

        Args:
            words: The words, including the spaces between them.
            pcm: int16 little-endian mono, 24 kHz.
        """
        for word in words:
            self._say("response.output_audio_transcript.delta", word)
        if not self.is_open or not pcm:
            return
        self._message().content[0].extend("", pcm)
        self.samples += len(pcm) // 2
        self._emit_audio(self._encoder.encode(pcm))
        self._stop_at_limit()

    def write(self, words: list[str]) -> None:
        """Add text to the message."""
        for word in words:
            if self.is_open:
                self._message().content[0].text += word
                self._say("response.output_text.delta", word)
                self._stop_at_limit()

    def call(self, name: str, arguments: str) -> None:
        """Add a complete function call."""
        item = ServerItem(
            self._new_id("item"),
            "function_call",
            status="in_progress",
            name=name,
            call_id=self._new_id("call"),
        )
        self._add(item)
        item.arguments = arguments
        self._said += arguments
        place = self._place() | {"call_id": item.call_id}
        kind = "response.function_call_arguments"
        for at in range(0, len(arguments), _ARGUMENTS_PIECE):
            piece = arguments[at : at + _ARGUMENTS_PIECE]
            self._emit(f"{kind}.delta", **place, delta=piece, obfuscation=padding(piece))
        self._emit(f"{kind}.done", **place, name=name, arguments=arguments)
        self._close_item("completed")

    def close(self, outcome: ResponseOutcome) -> None:
        """End the response with what was said so far. Later calls do nothing."""
        if not self.is_open:
            return
        self.is_open = False
        if self._item is not None:
            self._close_message("completed" if outcome.status == "completed" else "incomplete")
        self._outcome = outcome
        self.usage = response_usage(
            self.settings["instructions"],
            self.context,
            self._said_before + self._said,
            self.samples,
            self._cached_tokens,
        )
        self._emit("response.done", response=self._wire())

    def _add(self, item: ServerItem) -> None:
        self._item = item
        self._output.append(item)
        place = {"response_id": self.id, "output_index": len(self._output) - 1}
        self._emit("response.output_item.added", **place, item=item.wire())
        if self._conversation is not None:
            before = self._conversation.last_id()
            self._conversation.add(item)
            self._emit("conversation.item.added", previous_item_id=before, item=item.wire())

    def _say(self, kind: str, word: str) -> None:
        if self.is_open:
            self._said += word
            if self.with_audio:
                self._message().content[0].extend(word, b"")
            self._emit_in_part(kind, delta=word, obfuscation=padding(word))

    def _emit_audio(self, encoded: bytes) -> None:
        if encoded:
            delta = base64.b64encode(encoded).decode()
            self._emit_in_part("response.output_audio.delta", delta=delta)

    def _stop_at_limit(self) -> None:
        limit = self.settings["max_output_tokens"]
        if limit != "inf" and self._tokens() >= limit:
            self.close(ResponseOutcome.incomplete("max_output_tokens"))

    def _tokens(self) -> int:
        return audio_tokens(self.samples) + text_tokens(self._said_before + self._said)

    def _close_message(self, status: str) -> None:
        if self.with_audio:
            if status == "completed":
                self._emit_audio(self._encoder.rest())
            self._emit_in_part("response.output_audio.done")
            self._emit_in_part("response.output_audio_transcript.done", transcript=self._said)
        else:
            self._emit_in_part("response.output_text.done", text=self._said)
        self._emit_in_part("response.content_part.done", part=self._part_wire(self._said))
        self._close_item(status)

    def _close_item(self, status: str) -> None:
        item = self._message()
        item.status = status
        conversation = self._conversation
        # The client may have deleted the item while it was spoken.
        if conversation is not None and conversation.find(item.id) is item:
            before = conversation.before(item)
            self._emit("conversation.item.done", previous_item_id=before, item=item.wire())
        place = {"response_id": self.id, "output_index": len(self._output) - 1}
        self._emit("response.output_item.done", **place, item=item.wire())
        self._item = None

    def _message(self) -> ServerItem:
        assert self._item is not None, "begin_message comes first"
        return self._item

    def _place(self) -> dict[str, Any]:
        return {
            "response_id": self.id,
            "item_id": self._message().id,
            "output_index": len(self._output) - 1,
        }

    def _emit_in_part(self, kind: str, **fields: Any) -> None:
        self._emit(kind, **self._place(), content_index=0, **fields)

    def _part_wire(self, said: str) -> dict[str, str]:
        if self.with_audio:
            return {"type": "audio", "transcript": said}
        return {"type": "text", "text": said}

    def _wire(self) -> dict[str, Any]:
        output = self.settings["audio"]["output"]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._outcome.status,
            "status_details": self._outcome.details,
            "output": [item.wire() for item in self._output],
            "conversation_id": self._conversation.id if self._conversation else None,
            "output_modalities": self.settings["output_modalities"],
            "max_output_tokens": self.settings["max_output_tokens"],
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "usage": self.usage,
            "metadata": self.settings["metadata"],
        }


def padding(text: str) -> str:
    """Return the `obfuscation` of a delta, which pads it."""
    short = -len(text) % _PADDED_TO
    return secrets.token_urlsafe(_PADDED_TO)[:short]
