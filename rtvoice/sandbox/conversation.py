"""Conversation items: their checks, their form in server events, and their order."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from rtvoice.sandbox.errors import RefusedError, missing, too_long
from rtvoice.sandbox.schema import (
    Rule,
    anything,
    array,
    choice,
    flag,
    nullable,
    record,
    text,
    variant,
)

__all__ = [
    "SAMPLES_PER_MS",
    "Part",
    "Recognition",
    "ServerConversation",
    "ServerItem",
    "decoded_audio",
    "parse_item",
]

SAMPLES_PER_MS: Final = 24
_MAX_ID: Final = 32
"""Maximum length of `item.id` and `call_id` (observed at the service)."""
_KEPT_AUDIO_BYTES: Final = 32 * 1024 * 1024
"""Audio that a conversation keeps for `conversation.item.retrieve`: 11 minutes."""

NewId = Callable[[str], str]
ToPcm = Callable[[bytes], bytes]


class Recognition(NamedTuple):
    """The result of recognising speech.

    Attributes:
        seconds: Duration of the speech.
        text: The phrase; "" if it is not a known phrase; None if there is no recogniser.
    """

    seconds: float
    text: str | None


class Part:
    """A part of an item's content: text, an image, or audio with its transcript."""

    def __init__(self, kind: str, **fields: Any) -> None:
        self.kind = kind
        self.text: str = fields.get("text", "")
        self.transcript: str | None = fields.get("transcript")
        self.image: dict[str, Any] = fields.get("image", {})
        self.pcm = bytearray(fields.get("pcm", b""))
        """int16 little-endian mono, 24 kHz."""
        self.samples = len(self.pcm) // 2
        """Length of the audio in samples, even if its bytes are no longer kept."""
        self.heard: Recognition | None = None
        self._is_cut = False

    def extend(self, words: str, pcm: bytes) -> None:
        """Append speech, unless the client has truncated the part."""
        if not self._is_cut:
            self.transcript = (self.transcript or "") + words
            self.pcm += pcm
            self.samples += len(pcm) // 2

    def cut(self, samples: int) -> None:
        """Truncate the audio, and delete the transcript, as the service does."""
        del self.pcm[2 * samples :]
        self.samples = samples
        self.transcript = None
        self._is_cut = True

    def wire(self, *, with_audio: bool) -> dict[str, Any]:
        match self.kind:
            case "input_text" | "output_text":
                return {"type": self.kind, "text": self.text}
            case "input_image":
                return {"type": self.kind, **self.image}
        shown: dict[str, Any] = {"type": self.kind, "transcript": self.transcript}
        if with_audio:
            shown["audio"] = base64.b64encode(self.pcm).decode()
        return shown


class ServerItem:
    """A message, a function call, or the output of one."""

    def __init__(self, item_id: str, kind: str, **fields: Any) -> None:
        self.id = item_id
        self.kind = kind
        self.role: str = fields.get("role", "")
        self.status: str = fields.get("status", "completed")
        self.content: list[Part] = fields.get("content", [])
        self.name: str = fields.get("name", "")
        self.call_id: str = fields.get("call_id", "")
        self.arguments: str = fields.get("arguments", "")
        self.output: str = fields.get("output", "")
        self.approval: dict[str, Any] = fields.get("approval", {})

    @property
    def words(self) -> str:
        """The text of the message: typed, transcribed or recognised; empty if none is known."""
        said = (
            part.text or part.transcript or (part.heard and part.heard.text) or ""
            for part in self.content
        )
        return " ".join(each for each in said if each)

    def wire(self, *, with_audio: bool = False) -> dict[str, Any]:
        """Return the item in the form of server events."""
        shown: dict[str, Any] = {"id": self.id, "type": self.kind}
        match self.kind:
            case "message":
                shown |= {"status": self.status, "role": self.role}
                shown["content"] = [part.wire(with_audio=with_audio) for part in self.content]
            case "function_call":
                shown |= {"status": self.status, "name": self.name}
                shown |= {"call_id": self.call_id, "arguments": self.arguments}
            case "function_call_output":
                shown |= {"call_id": self.call_id, "output": self.output}
            case _:
                shown |= self.approval
        return shown


class ServerConversation:
    """The items of a conversation, in order."""

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self._items: list[ServerItem] = []

    def __iter__(self) -> Iterator[ServerItem]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def find(self, item_id: str) -> ServerItem | None:
        return next((item for item in self._items if item.id == item_id), None)

    def before(self, item: ServerItem) -> str | None:
        """Return the id of the item before this one; None for the first."""
        at = self._items.index(item)
        return self._items[at - 1].id if at else None

    def last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    def has_call(self, call_id: str) -> bool:
        return any(each.kind == "function_call" and each.call_id == call_id for each in self)

    def add(self, item: ServerItem, after: str | None = None) -> None:
        """Insert an item at the end, after the item with the id `after`, or first (`root`).

        Raises:
            RefusedError: The id of the item already exists, or `after` does not exist.
        """
        if self.find(item.id) is not None:
            raise RefusedError(
                f"Error adding item: the item with id '{item.id}' already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        self._items.insert(self._position(after), item)
        self._forget_old_audio()

    def remove(self, item: ServerItem) -> None:
        self._items.remove(item)

    def _position(self, after: str | None) -> int:
        if after is None:
            return len(self._items)
        if after == "root":
            return 0
        for index, item in enumerate(self._items):
            if item.id == after:
                return index + 1
        raise RefusedError(
            f"Error adding item: the previous item with id '{after}' does not exist.",
            code="item_create_invalid_previous_item_id",
            param="previous_item_id",
        )

    def _forget_old_audio(self) -> None:
        room = _KEPT_AUDIO_BYTES
        for item in reversed(self._items):
            for part in item.content:
                room -= len(part.pcm)
                if room < 0 and item.status != "in_progress":
                    part.pcm = bytearray()


def parse_item(raw: Any, new_id: NewId, to_pcm: ToPcm) -> ServerItem:
    """Check and return an item of a client.

    Args:
        raw: The `item` of a `conversation.item.create`.
        new_id: Returns an id for an item without one.
        to_pcm: Converts audio in the session's input format to int16 at 24 kHz.

    Raises:
        RefusedError: A field is missing, unknown or wrong.
    """
    _ITEM(raw, "item")
    kind = raw["type"]
    item_id = raw.get("id") or new_id("item")
    if kind == "message":
        return ServerItem(item_id, kind, role=raw["role"], content=_parse_content(raw, to_pcm))
    if kind == "mcp_approval_response":
        return ServerItem(
            item_id, kind, approval={k: raw[k] for k in raw if k not in ("id", "type")}
        )
    fields = {name: raw[name] for name in ("name", "arguments", "output") if name in raw}
    return ServerItem(item_id, kind, call_id=raw.get("call_id") or new_id("call"), **fields)


def decoded_audio(encoded: str, param: str) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        RefusedError: The text is not base64.
    """
    try:
        return binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
    except (binascii.Error, ValueError):
        raise RefusedError(
            f"Invalid '{param}'. Expected base64-encoded audio bytes, but got an invalid value.",
            code="invalid_value",
            param=param,
        ) from None


def _parse_content(raw: dict[str, Any], to_pcm: ToPcm) -> list[Part]:
    parts = []
    for index, each in enumerate(raw["content"]):
        path = f"item.content[{index}]"
        kind = each["type"]
        if kind == "input_audio":
            parts.append(Part(kind, pcm=to_pcm(decoded_audio(each["audio"], f"{path}.audio"))))
        elif kind == "input_image":
            parts.append(Part(kind, image={**each, "detail": each.get("detail") or "auto"}))
        else:
            parts.append(Part(kind, text=each["text"]))
    return parts


def _message(raw: Any, path: str) -> None:
    if "role" not in raw:
        raise missing(f"{path}.role")
    choice(*_CONTENT)(raw["role"], f"{path}.role")
    record({**_COMMON, "role": text(), "content": array(_CONTENT[raw["role"]])}, "content")(
        raw, path
    )


def _id(value: Any, path: str) -> None:
    text()(value, path)
    if len(value) > _MAX_ID:
        raise too_long(path, _MAX_ID, len(value))


def _assistant_part(raw: Any, path: str) -> None:
    # The service wants the field `text` whatever the type of the part, so it refuses audio
    # (https://github.com/openai/openai-agents-js/issues/963).
    if isinstance(raw, dict) and raw.get("type") == "output_audio" and "text" not in raw:
        raise missing(f"{path}.text")
    variant(output_text=record({"type": text(), "text": text()}, "text"))(raw, path)


def _image_url(value: Any, path: str) -> None:
    text()(value, path)
    if re.match(r"data:image/(png|jpeg);base64,", value) is None:
        raise RefusedError(
            f"Invalid '{path}'. Expected a base64-encoded data URL with an image MIME type "
            "(image/png or image/jpeg), such as 'data:image/png;base64,...'.",
            code="invalid_value",
            param=path,
        )


_TEXT_PART: Final = record({"type": text(), "text": text()}, "text")
_CONTENT: Final[dict[str, Rule]] = {
    "system": variant(input_text=_TEXT_PART),
    "user": variant(
        input_text=_TEXT_PART,
        input_audio=record(
            {"type": text(), "audio": text(), "transcript": nullable(text())}, "audio"
        ),
        input_image=record(
            {
                "type": text(),
                "image_url": _image_url,
                "detail": nullable(choice("auto", "low", "high")),
            },
            "image_url",
        ),
    ),
    "assistant": _assistant_part,
}
_COMMON: Final[dict[str, Rule]] = {
    "id": nullable(_id),
    "type": text(),
    "object": nullable(choice("realtime.item")),
    "status": nullable(choice("completed", "incomplete", "in_progress")),
}
_ITEM: Final = variant(
    message=_message,
    function_call=record(
        {**_COMMON, "call_id": nullable(_id), "name": text(), "arguments": text()},
        "name",
        "arguments",
    ),
    function_call_output=record({**_COMMON, "call_id": _id, "output": text()}, "call_id", "output"),
    mcp_approval_response=record(
        {
            "id": _id,
            "type": text(),
            "approval_request_id": text(),
            "approve": flag,
            "reason": anything,
        },
        "id",
        "approval_request_id",
        "approve",
    ),
)
