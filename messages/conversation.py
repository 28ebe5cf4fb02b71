"""The conversation (tags 40-79): speech, items, tool calls, and what a program asks for."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from messages.base import Event, Message

__all__ = [
    "MAX_IMAGE_BYTES",
    "AssistantItem",
    "AssistantTranscript",
    "ConversationItem",
    "ConversationOver",
    "CreateResponse",
    "EndConversation",
    "HistoryRequest",
    "HistorySnapshot",
    "Interrupt",
    "Interrupted",
    "ItemPlaced",
    "ItemRemoved",
    "OutputReplaced",
    "PlaybackEnded",
    "PlaybackPaused",
    "PlaybackResumed",
    "ProgramToolAnswer",
    "ProgramToolCall",
    "ProgramToolCancel",
    "ResponseEnded",
    "ResponseStarted",
    "Say",
    "SendImage",
    "SendText",
    "SentImage",
    "SetSpeed",
    "SetTools",
    "SpeedChanged",
    "StartTalking",
    "StopTalking",
    "ToolAnswer",
    "ToolCall",
    "ToolSpec",
    "ToolsAvailable",
    "Turn",
    "UpdateSettings",
    "UserItem",
    "UserSpeechStarted",
    "UserSpeechStopped",
    "UserTranscript",
    "WantWireEvents",
    "WireEvent",
]

MAX_IMAGE_BYTES = 4 * 1024 * 1024
"""The service scales larger images down, and on the connection all else waits behind one."""

Role = Literal["user", "assistant"]


class UserSpeechStarted(Event, frozen=True, array_like=True, tag=40):
    """The server's voice activity detection heard speech begin, or the user began to talk."""

    event = "user_speech_started"
    item_id: str
    """Of the user's item that this speech will become; empty with push-to-talk, where it is known
    only at the end."""
    first_sample: int
    """Where it begins on the session timeline."""


class UserSpeechStopped(Event, frozen=True, array_like=True, tag=41):
    """The server's voice activity detection heard speech end, or the user has ended the turn."""

    event = "user_speech_stopped"
    item_id: str
    """Empty: it was too short to be a turn."""
    last_sample: int


class SentImage(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image that the user has shown, as it is remembered."""

    path: str
    """The file it is kept in, until the end of the session or, beside a journal, for good."""
    media_type: Literal["image/png", "image/jpeg"]
    detail: Literal["auto", "low", "high"] = "auto"
    """How closely the model looks."""
    size_bytes: int = 0


class UserItem(Message, frozen=True, array_like=True, tag=42):
    """Realtime to history: the user has said or typed something."""

    attempts = 3
    item_id: str
    previous_item_id: str | None
    """The item before it in the conversation; None: the first."""
    text: str
    """Known at once for typed text; empty for speech until its `UserTranscript`."""
    spoken: bool
    transcript_expected: bool
    first_sample: int = 0
    last_sample: int = 0
    image: SentImage | None = None


class UserTranscript(Message, frozen=True, array_like=True, tag=43):
    """Realtime to history: what speech was heard as. ``error`` says why there is no text."""

    attempts = 3
    item_id: str
    text: str
    error: str | None = None


class AssistantTranscript(Event, frozen=True, array_like=True, tag=44):
    """A piece of the assistant's text, as it is generated (ahead of its sound)."""

    event = "assistant_transcript"
    item_id: str
    delta: str


class AssistantItem(Message, frozen=True, array_like=True, tag=45):
    """Realtime to history: an item of the assistant, once begun and again when it is complete."""

    attempts = 3
    item_id: str
    previous_item_id: str | None
    response_id: str
    text: str
    status: Literal["in_progress", "completed", "incomplete"]
    audio_samples: int = 0
    """Length of its audio received so far."""


class Interrupted(Event, frozen=True, array_like=True, tag=46):
    """The assistant was interrupted: playback is silent and the server has been told."""

    attempts = 3
    event = "interrupted"
    item_id: str
    heard_ms: int
    """How much of the item's audio was played."""
    text_heard: str = ""
    """The item's text up to there, estimated in proportion to its audio."""


class ItemRemoved(Message, frozen=True, array_like=True, tag=47):
    """Realtime to history: this item is not part of the conversation after all."""

    attempts = 3
    item_id: str
    reason: str


class ItemPlaced(Message, frozen=True, array_like=True, tag=77):
    """Realtime to history: where the server has put an item, if that could not be known before."""

    attempts = 3
    item_id: str
    previous_item_id: str | None


class Turn(Event, frozen=True, array_like=True, tag=48):
    """A turn of the conversation, told once, in the order of the conversation."""

    event = "turn"
    role: Role
    text: str
    item_id: str
    transcribed: bool = True
    """False for speech of which no text is known."""
    image: SentImage | None = None
    """What the user has shown with it."""


class ToolCall(Event, frozen=True, array_like=True, tag=49):
    """Realtime to tools, history and the program: the model calls a tool."""

    attempts = 3  # a call that comes twice is known by its id
    event = "tool_call"
    call_id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, unchecked."""
    item_id: str = ""
    previous_item_id: str | None = None


class ToolAnswer(Event, frozen=True, array_like=True, tag=50):
    """Tools to realtime, history and the program: the one answer to a `ToolCall`."""

    attempts = 3
    event = "tool_answer"
    call_id: str
    name: str
    output: str
    """What the model is told: JSON text or a sentence."""
    failed: bool = False
    respond: bool = True
    """Whether the model is asked to speak about it."""
    item_id: str = ""


class OutputReplaced(Message, frozen=True, array_like=True, tag=65):
    """Realtime to history and the program: what the model was told in place of a `ToolAnswer`.

    The server has refused that.
    """

    attempts = 3
    call_id: str
    output: str


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tool as the model sees it (``tools`` of the session)."""

    name: str
    description: str
    parameters: dict[str, object]
    """JSON Schema of an object."""
    response_instruction: str = ""


class ToolsAvailable(Message, frozen=True, array_like=True, tag=51):
    """Tools to realtime: the tools that the model may call from now on."""

    attempts = 3
    tools: tuple[ToolSpec, ...]


class ProgramToolCall(Message, frozen=True, array_like=True, tag=52):
    """Tools to program: run a tool that lives in the program; arguments are validated there."""

    call_id: str
    name: str
    arguments: str


class ProgramToolAnswer(Message, frozen=True, array_like=True, tag=53):
    """Program to tools: what the program's tool returned, as JSON text."""

    attempts = 3
    call_id: str
    output: str
    failed: bool = False


class SetSpeed(Message, frozen=True, array_like=True, tag=54):
    """To realtime: speech speed from the next response on, 0.25-1.5."""

    attempts = 3
    speed: float


class SpeedChanged(Message, frozen=True, array_like=True, tag=55):
    """Realtime to tools: the speed now in force."""

    attempts = 3
    speed: float


class SendText(Message, frozen=True, array_like=True, tag=56):
    """Program to realtime: a turn of the user as text; it interrupts what is being said."""

    attempts = 3
    text: str
    item_id: str
    """Chosen by the sender, at most 32 characters; makes handling it twice harmless."""


class SendImage(Message, frozen=True, array_like=True, tag=76):
    """Program to realtime: a turn of the user with an image; it interrupts if it is answered."""

    attempts = 3
    data: bytes
    """Of a PNG or JPEG file, at most `MAX_IMAGE_BYTES`."""
    media_type: Literal["image/png", "image/jpeg"]
    text: str
    """What is said about it; empty: nothing."""
    item_id: str
    """Chosen by the sender, at most 32 characters; makes handling it twice harmless."""
    detail: Literal["auto", "low", "high"] = "auto"
    respond: bool = True


class StartTalking(Message, frozen=True, array_like=True, tag=69):
    """Program to realtime: with push-to-talk, the user's turn begins; nobody else speaks."""

    attempts = 3
    at_ns: int = 0
    """``time.monotonic_ns()`` when the key was pressed; 0: now. What was captured in the
    `Settings.preroll_ms` before it belongs to the turn."""


class StopTalking(Message, frozen=True, array_like=True, tag=75):
    """Program to realtime: with push-to-talk, the user's turn is over.

    One of less than 100 ms is none.
    """

    attempts = 3
    at_ns: int = 0
    """``time.monotonic_ns()`` when the key was released; 0: now."""
    respond: bool = True
    """Whether it is answered; otherwise it is kept, until an answer is asked for."""


class Interrupt(Message, frozen=True, array_like=True, tag=57):
    """Program to realtime: stop speaking."""

    attempts = 3


class EndConversation(Message, frozen=True, array_like=True, tag=58):
    """To realtime: end the session when the farewell has been played, within 10 s."""

    attempts = 3
    reason: str


class ConversationOver(Message, frozen=True, array_like=True, tag=59):
    """Realtime to the supervisor: everything asked for has been said and played; stop."""

    reason: str


class ConversationItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item as history remembers it: what a new connection has to be told."""

    item_id: str
    kind: Literal["message", "function_call", "function_call_output"]
    role: Role = "user"
    text: str = ""
    """Of the assistant: only what was heard."""
    transcribed: bool = True
    complete: bool = True
    """False: an answer that the connection did not live to finish."""
    interrupted: bool = False
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    first_sample: int = 0
    last_sample: int = 0
    image: SentImage | None = None


class HistoryRequest(Message, frozen=True, array_like=True, tag=60):
    """Realtime to history: what has been said so far?"""

    attempts = 3
    request_id: int


class HistorySnapshot(Message, frozen=True, array_like=True, tag=61):
    """History to realtime: the conversation in its order."""

    attempts = 3
    request_id: int
    items: tuple[ConversationItem, ...]


class ResponseStarted(Event, frozen=True, array_like=True, tag=62):
    """The server has begun an answer."""

    event = "response_started"
    response_id: str


class ResponseEnded(Event, frozen=True, array_like=True, tag=63):
    """The server has ended an answer, whatever the outcome; its sound may still be playing."""

    event = "response_ended"
    response_id: str
    status: str
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class PlaybackEnded(Event, frozen=True, array_like=True, tag=64):
    """An item of the assistant has been played to its end."""

    event = "playback_ended"
    item_id: str
    heard_ms: int


class PlaybackPaused(Event, frozen=True, array_like=True, tag=67):
    """The assistant is silent until it is known whether it is being interrupted.

    `PlaybackResumed` follows if it is not, `Interrupted` if it is.
    """

    event = "playback_paused"
    item_id: str
    """Of what was being played; empty: nothing was."""
    heard_ms: int
    """How much of its audio was played, but for the last few milliseconds."""


class PlaybackResumed(Event, frozen=True, array_like=True, tag=68):
    """The assistant goes on from where it was paused: nobody has interrupted it."""

    event = "playback_resumed"
    item_id: str
    heard_ms: int


class ProgramToolCancel(Message, frozen=True, array_like=True, tag=78):
    """Tools to program: this call was answered for, as it took too long; stop it."""

    call_id: str


class Say(Message, frozen=True, array_like=True, tag=79):
    """To realtime: have the assistant say this as soon as it is not speaking."""

    text: str


class CreateResponse(Message, frozen=True, array_like=True, tag=70):
    """Program to realtime: have the assistant speak, as soon as nobody else does."""

    attempts = 3
    instructions: str | None = None
    """For this answer only, in place of those of the session."""


class UpdateSettings(Message, frozen=True, array_like=True, tag=71):
    """Program to realtime: change settings of a running session, from the next answer on."""

    attempts = 3
    changes: dict[str, Any]
    """Fields out of `messages.CHANGEABLE` as plain values; `messages.validation` checks them."""


class SetTools(Message, frozen=True, array_like=True, tag=72):
    """Program to tools: what the model may call from now on. None: as before."""

    attempts = 3
    program_tools: tuple[ToolSpec, ...] | None = None
    builtin_tools: tuple[str, ...] | None = None


class WantWireEvents(Message, frozen=True, array_like=True, tag=73):
    """Program to realtime: pass on the wire events of these names, and of no others."""

    attempts = 3
    names: tuple[str, ...]
    """As in ``type`` of the Realtime API's events, of the server's and of the client's."""


class WireEvent(Message, frozen=True, array_like=True, tag=74):
    """Realtime to program: an event of the Realtime API that somebody has subscribed to."""

    name: str
    direction: Literal["server", "client"]
    """Who has sent it."""
    json: bytes
