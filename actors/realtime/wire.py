"""The events of the Realtime API (GA) as types: those of the server, and ours.

Each event that is handled has a type; `IGNORED` lists the others, each with the reason. Unknown
events and unknown fields are ignored. Required fields have no default: ids, the type of an item,
deltas. An event with a wrong value in another field is a `PartialEvent` without that field. An
event with a missing or wrong required field, and text that is not an event, is a `BadFrame`.
https://platform.openai.com/docs/api-reference/realtime-server-events
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Union

import msgspec

from actors.realtime.mending import mend
from messages import Tokens

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
"""A position in a session. Values out of this range are wrong; the sample at a huge position would
be infinite."""


class ErrorBody(msgspec.Struct):
    """An error, in an `ErrorEvent`, a failed response or a failed transcription."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """The id of the client event that is refused; None: unknown."""


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
    """``commentary``: speech before the answer itself, by models that reason."""


class _StatusDetails(msgspec.Struct):
    type: str | None = None
    reason: str | None = None
    error: ErrorBody | None = None


class _Kinds(msgspec.Struct):
    text_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None


class _InputTokens(_Kinds):
    cached_tokens: _Count | None = None
    cached_tokens_details: _Kinds | None = None


class Usage(msgspec.Struct):
    """The tokens of a response. Not every server has all of the details."""

    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    input_token_details: _InputTokens | None = None
    output_token_details: _Kinds | None = None

    def tokens(self) -> Tokens:
        """Return the tokens by kind; of those whose kind is not said, the dearest is assumed."""
        given = self.input_token_details or _InputTokens()
        taken = _split(given, self.input_tokens or 0)
        cached = _cached(given, taken)
        out = _split(self.output_token_details or _Kinds(), self.output_tokens or 0)
        return Tokens(
            input_text=taken[0],
            input_audio=taken[1],
            input_image=taken[2],
            cached_text=cached[0],
            cached_audio=cached[1],
            cached_image=cached[2],
            output_text=out[0],
            output_audio=out[1],
        )


def _cached(given: _InputTokens, taken: tuple[int, int, int]) -> list[int]:
    """Return the cached tokens of text, audio and images; of no kind, they are text if they can."""
    details, left, cached = given.cached_tokens_details, given.cached_tokens or 0, []
    said = (details.text_tokens, details.audio_tokens, details.image_tokens) if details else None
    for kind, most in enumerate(taken):
        cached.append(min(most, left if said is None else said[kind] or 0))
        left -= cached[-1]
    return cached


def _split(kinds: _Kinds, total: int) -> tuple[int, int, int]:
    """Return the tokens of text, audio and images.

    A total of which no kind is given is audio. What the kinds leave of it is text, such as the
    tokens of reasoning.
    """
    given = (kinds.text_tokens, kinds.audio_tokens, kinds.image_tokens)
    text, audio, image = (count or 0 for count in given)
    left = max(0, total - text - audio - image)
    if all(count is None for count in given):
        return 0, left, 0
    return text + left, audio, image


class Response(msgspec.Struct):
    """A response of the model."""

    id: str
    status: str | None = None
    """``completed``, ``cancelled``, ``failed`` or ``incomplete`` at its end. In a `ResponseDone`,
    None counts as completed: not every server sends it."""
    status_details: _StatusDetails | None = None
    usage: Usage | None = None
    metadata: dict[str, Any] | None = None


# -- events of the server --------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, tag_field="type"):
    """The base of all events from the server."""


class ErrorEvent(ServerEvent, tag="error"):
    """The server has refused an event, or has failed. The session usually stays open."""

    error: ErrorBody


class SessionCreated(ServerEvent, tag="session.created"):
    """The first event of a session."""

    session: dict[str, Any] | None = None

    def expires_at(self) -> float | None:
        """Return when the server ends the session, in unix seconds; None: unknown."""
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
    """The transcript of the user's speech is complete."""

    item_id: str
    transcript: str | None = None


class TranscriptionDelta(ServerEvent, tag="conversation.item.input_audio_transcription.delta"):
    """A piece of the transcript of the user's speech."""

    item_id: str
    delta: str | None = None


class TranscriptionFailed(ServerEvent, tag="conversation.item.input_audio_transcription.failed"):
    """The user's speech could not be transcribed."""

    item_id: str
    error: ErrorBody | None = None


class SpeechStarted(ServerEvent, tag="input_audio_buffer.speech_started"):
    """The server has detected speech."""

    item_id: str = ""
    """Id of the item that the speech becomes; empty: unknown."""
    audio_start_ms: _Milliseconds | None = None
    """Start of the speech in the audio appended in this session; None: unknown, taken as now."""


class SpeechStopped(ServerEvent, tag="input_audio_buffer.speech_stopped"):
    """The server has detected the end of the speech."""

    item_id: str = ""
    audio_end_ms: _Milliseconds | None = None


class Committed(ServerEvent, tag="input_audio_buffer.committed"):
    """The user's speech has become an item."""

    item_id: str
    previous_item_id: str | None = None


class TimeoutTriggered(ServerEvent, tag="input_audio_buffer.timeout_triggered"):
    """Nobody has spoken for ``idle_timeout_ms``: the server commits silence, and responds to it."""

    item_id: str


class ResponseCreated(ServerEvent, tag="response.created"):
    """A response begins."""

    response: Response


class ResponseDone(ServerEvent, tag="response.done"):
    """A response has ended: completed, cancelled, failed or incomplete."""

    response: Response


class OutputItemAdded(ServerEvent, tag="response.output_item.added"):
    """A response has a further item."""

    response_id: str
    item: Item


class OutputItemDone(ServerEvent, tag="response.output_item.done"):
    """An item of a response is final. A function call may be run now."""

    response_id: str
    item: Item


class AudioDelta(ServerEvent, tag="response.output_audio.delta"):
    """Audio of a response."""

    response_id: str
    item_id: str
    delta: bytes
    content_index: _Count = 0


class AudioDone(ServerEvent, tag="response.output_audio.done"):
    """The audio of a content part is complete."""

    response_id: str
    item_id: str
    content_index: _Count = 0


class TranscriptDelta(ServerEvent, tag="response.output_audio_transcript.delta"):
    """A piece of the transcript of a response's audio."""

    response_id: str
    item_id: str
    delta: str


class TranscriptDone(ServerEvent, tag="response.output_audio_transcript.done"):
    """The complete transcript of a response's audio."""

    response_id: str
    item_id: str
    transcript: str | None = None
    """None: the joined deltas."""


class TextDelta(ServerEvent, tag="response.output_text.delta"):
    """A piece of the text of a response without audio."""

    response_id: str
    item_id: str
    delta: str


class TextDone(ServerEvent, tag="response.output_text.done"):
    """The complete text of a response without audio."""

    response_id: str
    item_id: str
    text: str | None = None
    """None: the joined deltas."""


class UnknownEvent(msgspec.Struct):
    """An event that is not handled: in `IGNORED`, or unknown."""

    type: str


class PartialEvent(msgspec.Struct):
    """An event without its fields that had a wrong value; they were not required."""

    event: ServerEvent
    left_out: tuple[str, ...]
    """The paths of the fields that were left out, such as ``response.usage``."""


class BadFrame(msgspec.Struct):
    """A message that is not an event, or an event with a missing or wrong required field."""

    reason: str
    """A sentence for the user; it quotes nothing of the content."""


_KINDS = tuple(ServerEvent.__subclasses__())
_BY_NAME = {str(kind.__struct_config__.tag): kind for kind in _KINDS}
DECODED = frozenset(_BY_NAME)
"""The ``type`` of each event that is handled."""
_events: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Union[_KINDS])  # noqa: UP007 - built at run time
_heads: msgspec.json.Decoder[UnknownEvent] = msgspec.json.Decoder(UnknownEvent)


_ITEM = "response.output_item.done, which is handled, has the same content"
_CALLS = "a call runs when its item is done: until then it may still be cut off"
_CHANNEL = "of WebRTC and SIP, where the server plays the sound; over a websocket the speaker does"
_REMOTE_TOOLS = "of tools on remote MCP servers, which no session of ours has"

IGNORED: dict[str, str] = {
    "conversation.created": "a session has one conversation; each of its items has its own event",
    "conversation.item.deleted": "confirms a deletion that was published before",
    "conversation.item.truncated": "confirms a truncation that was published before",
    "conversation.item.retrieved": "replies to conversation.item.retrieve, which is never sent",
    "conversation.item.input_audio_transcription.segment": (
        "of transcription by speaker; input_audio_transcription.completed has the whole text"
    ),
    "input_audio_buffer.cleared": "confirms a clear; the events after it are in order anyway",
    "input_audio_buffer.dtmf_event_received": "a key of a telephone, on SIP calls only",
    "rate_limits.updated": "not used; a response that reaches a limit fails with its own error",
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
"""Events that the realtime component ignores, each with the reason; programs may subscribe."""

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
"""Names of events before general availability (now, for example, ``response.output_audio.delta``).

They are not handled: it is unknown what else such servers do differently.
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
    """Return an event with its valid fields."""
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
    """Return what is wrong, beginning with the path of the field."""
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


# -- our events ------------------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, tag_field="type", omit_defaults=True):
    """The base of all events to the server."""


class Append(ClientEvent, tag="input_audio_buffer.append"):
    """Append captured audio. The server does not confirm it."""

    audio: bytes


class Commit(ClientEvent, tag="input_audio_buffer.commit"):
    """Make an item of the audio appended so far."""

    event_id: str


class Clear(ClientEvent, tag="input_audio_buffer.clear"):
    """Discard the appended audio that is in no item."""

    event_id: str


class SessionUpdate(ClientEvent, tag="session.update"):
    """Change the given parameters of the session's configuration."""

    session: dict[str, Any]
    event_id: str


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """Add an item to the conversation, at its end or after another item."""

    item: dict[str, Any]
    event_id: str
    previous_item_id: str | None = None
    """The item to place it after; ``root``: the beginning; None: the end."""


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    """Remove an item from the conversation."""

    item_id: str
    event_id: str


class Truncate(ClientEvent, tag="conversation.item.truncate"):
    """Shorten the audio of an item of the assistant to what was heard."""

    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str


class ResponseCreate(ClientEvent, tag="response.create"):
    """Request a response."""

    event_id: str
    response: dict[str, Any]


class Cancel(ClientEvent, tag="response.cancel"):
    """Cancel a response."""

    response_id: str
    event_id: str


encode = msgspec.json.Encoder().encode
