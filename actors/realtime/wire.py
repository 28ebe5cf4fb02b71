"""The events of the Realtime API (GA) as types: what the server sends, what we send.

Events that are acted on have a type; `IGNORED` lists the others, each with the reason. Unknown
events and unknown fields are harmless. The fields without a default are those that are needed: ids,
the type of an item, deltas. An event with wrong values in other fields is a `PartialEvent` without
those; an event without what is needed, and text that is not an event, is a `BadFrame`.
https://platform.openai.com/docs/api-reference/realtime-server-events
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Union

import msgspec

__all__ = [
    "BETA",
    "DECODED",
    "IGNORED",
    "Append",
    "AudioDelta",
    "AudioDone",
    "BadFrame",
    "Cancel",
    "Clear",
    "ClientEvent",
    "Commit",
    "Committed",
    "ErrorBody",
    "ErrorEvent",
    "Item",
    "ItemAdded",
    "ItemCreate",
    "ItemCreated",
    "ItemDelete",
    "ItemDone",
    "OutputItemAdded",
    "OutputItemDone",
    "PartialEvent",
    "Response",
    "ResponseCreate",
    "ResponseCreated",
    "ResponseDone",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdate",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "TextDelta",
    "TextDone",
    "TimeoutTriggered",
    "TranscriptDelta",
    "TranscriptDone",
    "TranscriptionCompleted",
    "TranscriptionDelta",
    "TranscriptionFailed",
    "Truncate",
    "UnknownEvent",
    "decode",
    "encode",
    "name_of",
]


_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""A position in a session: what lies outside is no time, and too large for one."""


class ErrorBody(msgspec.Struct):
    """What went wrong, in an `ErrorEvent`, a failed response or a failed transcription."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """Of the client event that is refused; None: unknown."""


class Item(msgspec.Struct):
    """An item of the conversation, without its content."""

    id: str
    type: str
    role: str | None = None
    status: str | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    phase: Any = None
    """``commentary``: what is said before the answer itself, by models that reason."""


class _StatusDetails(msgspec.Struct):
    type: str | None = None
    reason: str | None = None
    error: ErrorBody | None = None


class _InputTokens(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    input_token_details: _InputTokens | None = None


class Response(msgspec.Struct):
    """An answer of the model."""

    id: str
    status: str | None = None
    """How it stands; None: the server does not say. An answer that is done counts as completed."""
    status_details: _StatusDetails | None = None
    usage: _Usage | None = None
    metadata: dict[str, Any] | None = None


# -- what the server says --------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, tag_field="type"):
    """The base of all events from the server."""


class ErrorEvent(ServerEvent, tag="error"):
    """Something was refused; the session stays open, mostly."""

    error: ErrorBody


class SessionCreated(ServerEvent, tag="session.created"):
    """The first event."""

    session: dict[str, Any] | None = None

    def expires_at(self) -> float | None:
        """Return when the server ends the session, in unix seconds, if it says so."""
        at = (self.session or {}).get("expires_at")
        return at if isinstance(at, int | float) else None


class SessionUpdated(ServerEvent, tag="session.updated"):
    """A `SessionUpdate` is in force."""


class ItemAdded(ServerEvent, tag="conversation.item.added"):
    """An item has entered the conversation."""

    item: Item
    previous_item_id: str | None = None


class ItemCreated(ServerEvent, tag="conversation.item.created"):
    """`ItemAdded` by its old name, which some servers use."""

    item: Item
    previous_item_id: str | None = None


class ItemDone(ServerEvent, tag="conversation.item.done"):
    """An item is final."""

    item: Item
    previous_item_id: str | None = None


class TranscriptionCompleted(
    ServerEvent, tag="conversation.item.input_audio_transcription.completed"
):
    """What the user's speech was heard as."""

    item_id: str
    transcript: str | None = None


class TranscriptionDelta(ServerEvent, tag="conversation.item.input_audio_transcription.delta"):
    """A piece of what the user's speech is heard as."""

    item_id: str
    delta: str | None = None


class TranscriptionFailed(ServerEvent, tag="conversation.item.input_audio_transcription.failed"):
    """There is no text of the user's speech."""

    item_id: str
    error: ErrorBody | None = None


class SpeechStarted(ServerEvent, tag="input_audio_buffer.speech_started"):
    """Voice activity has begun. ``audio_start_ms`` counts all audio appended in this session."""

    item_id: str = ""
    """Of the item to come; empty: the server does not say."""
    audio_start_ms: _Milliseconds | None = None
    """None: the server does not say; then it is now."""


class SpeechStopped(ServerEvent, tag="input_audio_buffer.speech_stopped"):
    """Voice activity has ended."""

    item_id: str = ""
    audio_end_ms: _Milliseconds | None = None


class Committed(ServerEvent, tag="input_audio_buffer.committed"):
    """The user's speech has become an item."""

    item_id: str
    previous_item_id: str | None = None


class TimeoutTriggered(ServerEvent, tag="input_audio_buffer.timeout_triggered"):
    """Nobody has spoken for ``idle_timeout_ms``: the server commits silence, and speaks."""

    item_id: str


class ResponseCreated(ServerEvent, tag="response.created"):
    """An answer begins."""

    response: Response


class ResponseDone(ServerEvent, tag="response.done"):
    """An answer has ended, whatever the outcome."""

    response: Response


class OutputItemAdded(ServerEvent, tag="response.output_item.added"):
    """An answer has a further item."""

    response_id: str
    item: Item


class OutputItemDone(ServerEvent, tag="response.output_item.done"):
    """An item of an answer is final; of a function call: it may be run."""

    response_id: str
    item: Item


class AudioDelta(ServerEvent, tag="response.output_audio.delta"):
    """Sound of an answer."""

    response_id: str
    item_id: str
    delta: bytes
    content_index: _Count = 0


class AudioDone(ServerEvent, tag="response.output_audio.done"):
    """A part's sound is complete."""

    response_id: str
    item_id: str
    content_index: _Count = 0


class TranscriptDelta(ServerEvent, tag="response.output_audio_transcript.delta"):
    """Text of what is being said."""

    response_id: str
    item_id: str
    delta: str


class TranscriptDone(ServerEvent, tag="response.output_audio_transcript.done"):
    """The whole text of what is being said."""

    response_id: str
    item_id: str
    transcript: str | None = None
    """None: what its deltas said."""


class TextDelta(ServerEvent, tag="response.output_text.delta"):
    """Text of an answer without sound."""

    response_id: str
    item_id: str
    delta: str


class TextDone(ServerEvent, tag="response.output_text.done"):
    """The whole text of an answer without sound."""

    response_id: str
    item_id: str
    text: str | None = None
    """None: what its deltas said."""


class UnknownEvent(msgspec.Struct):
    """An event that is not acted on."""

    type: str


class PartialEvent(msgspec.Struct):
    """An event in which values were wrong that are not needed."""

    event: ServerEvent
    left_out: tuple[str, ...]
    """The names of the fields that were left out, from the top: ``response.usage``."""


class BadFrame(msgspec.Struct):
    """What came is not an event, or an event without what is needed."""

    reason: str
    """A sentence, without anything of the content."""


_KINDS = tuple(ServerEvent.__subclasses__())
_BY_NAME = {str(kind.__struct_config__.tag): kind for kind in _KINDS}
DECODED = frozenset(_BY_NAME)
"""The ``type`` of each event that is acted on."""
_events: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Union[_KINDS])  # noqa: UP007 - built at run time
_heads: msgspec.json.Decoder[UnknownEvent] = msgspec.json.Decoder(UnknownEvent)


_ITEM = "what it says is in response.output_item.done too, which is acted on"
_CALLS = "a call is run when its item is done: until then it may still be cut off"
_CHANNEL = "of WebRTC and SIP, where the server plays the sound; over a websocket the speaker does"
_REMOTE_TOOLS = "of tools on remote MCP servers, which no session of ours has"

IGNORED: dict[str, str] = {
    "conversation.created": "there is one conversation a session; its items are told one by one",
    "conversation.item.deleted": "the answer to a deletion; history was told before",
    "conversation.item.truncated": "the answer to a truncation; history was told what was heard",
    "conversation.item.retrieved": "the answer to a question that is not asked",
    "conversation.item.input_audio_transcription.segment": (
        "of transcription by speaker; input_audio_transcription.completed has the whole text"
    ),
    "input_audio_buffer.cleared": "the answer to a clear; what follows it is in order anyway",
    "input_audio_buffer.dtmf_event_received": "a key of a telephone, on SIP calls only",
    "rate_limits.updated": "nothing is decided by it; an answer that meets a limit says so",
    "response.content_part.added": _ITEM,
    "response.content_part.done": _ITEM,
    "response.function_call_arguments.delta": _CALLS,
    "response.function_call_arguments.done": _CALLS,
    "output_audio_buffer.started": _CHANNEL,
    "output_audio_buffer.stopped": _CHANNEL,
    "output_audio_buffer.cleared": _CHANNEL,
    "mcp_list_tools.in_progress": _REMOTE_TOOLS,
    "mcp_list_tools.completed": _REMOTE_TOOLS,
    "mcp_list_tools.failed": _REMOTE_TOOLS,
    "response.mcp_call_arguments.delta": _REMOTE_TOOLS,
    "response.mcp_call_arguments.done": _REMOTE_TOOLS,
    "response.mcp_call.in_progress": _REMOTE_TOOLS,
    "response.mcp_call.completed": _REMOTE_TOOLS,
    "response.mcp_call.failed": _REMOTE_TOOLS,
}
"""Events that the realtime component passes over, each with the reason; programs may subscribe."""

BETA = frozenset(
    {
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.delta",
        "response.audio_transcript.done",
        "response.text.delta",
        "response.text.done",
    }
)
"""Names that events had before general availability (``response.output_audio.delta`` today).

They are not acted on: what else such servers do differently is not known.
"""
_IGNORED = "it is ignored"


def decode(text: bytes | str) -> ServerEvent | UnknownEvent | PartialEvent | BadFrame:
    """Return the event in one websocket message."""
    try:
        return _decode(text)
    except RecursionError:
        return BadFrame(f"the server sent JSON that is nested too deeply; {_IGNORED}")


def _decode(text: bytes | str) -> ServerEvent | UnknownEvent | PartialEvent | BadFrame:
    try:
        event: ServerEvent = _events.decode(text)
        return event
    except msgspec.ValidationError:
        with contextlib.suppress(msgspec.DecodeError):
            head = _heads.decode(text)
            if head.type not in DECODED:
                return head
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return _decode_partly(text)


def _decode_partly(text: bytes | str) -> ServerEvent | UnknownEvent | PartialEvent | BadFrame:
    """Return an event with what is right in it."""
    from actors.realtime.mending import mend  # servers that need it are rare

    try:
        mended = mend(text, _BY_NAME, ErrorBody)
    except ValueError:
        return BadFrame(f"the server sent something that is not JSON; {_IGNORED}")
    if mended is None:
        return BadFrame(f"the server sent JSON that is not an event; {_IGNORED}")
    if mended.type not in DECODED:
        return UnknownEvent(mended.type)
    try:
        event: ServerEvent = msgspec.convert(mended.fields, _BY_NAME[mended.type])
    except msgspec.ValidationError as error:
        return BadFrame(f"the server sent a wrong {mended.type} ({_in_words(error)}); {_IGNORED}")
    return PartialEvent(event, mended.left_out) if mended.left_out else event


def _in_words(error: msgspec.ValidationError) -> str:
    problem, _, place = str(error).replace("`", "").partition(" - at $.")
    problem = problem[:1].lower() + problem[1:]
    return f"{place}: {problem}" if place else problem


def name_of(event: object) -> str:
    """Return the ``type`` of an event as it is on the wire; empty: it is not an event."""
    if isinstance(event, UnknownEvent):
        return event.type
    if isinstance(event, PartialEvent):
        event = event.event
    tag = type(event).__struct_config__.tag if isinstance(event, ServerEvent | ClientEvent) else ""
    return str(tag)


# -- what we say -----------------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, tag_field="type", omit_defaults=True):
    """The base of all events to the server."""


class Append(ClientEvent, tag="input_audio_buffer.append"):
    """Captured audio. It has no answer."""

    audio: bytes


class Commit(ClientEvent, tag="input_audio_buffer.commit"):
    """Make an item of what was appended."""

    event_id: str


class Clear(ClientEvent, tag="input_audio_buffer.clear"):
    """Forget what was appended and is in no item."""

    event_id: str


class SessionUpdate(ClientEvent, tag="session.update"):
    """Change what is given of the session's configuration."""

    session: dict[str, Any]
    event_id: str


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """Add an item to the conversation, as the last one or at its place."""

    item: dict[str, Any]
    event_id: str
    previous_item_id: str | None = None
    """After which item; ``root``: as the first."""


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    """Take an item out of the conversation."""

    item_id: str
    event_id: str


class Truncate(ClientEvent, tag="conversation.item.truncate"):
    """Cut an item of the assistant to what was heard."""

    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str


class ResponseCreate(ClientEvent, tag="response.create"):
    """Ask for an answer."""

    event_id: str
    response: dict[str, Any]


class Cancel(ClientEvent, tag="response.cancel"):
    """End the answer under way."""

    response_id: str
    event_id: str


encode = msgspec.json.Encoder().encode
