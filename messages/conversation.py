"""Messages of the conversation (tags 40-79): speech, items, tool calls, requests of a program."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from messages.base import Event, Message
from messages.usage import Tokens

__all__ = [
    "MAX_IMAGE_BYTES",
    "AskToRun",
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
    "MayRun",
    "OutputReplaced",
    "PlaybackEnded",
    "PlaybackPaused",
    "PlaybackResumed",
    "PlaybackStarted",
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
    "output_item_id",
    "tool_answer",
]

MAX_IMAGE_BYTES = 4 * 1024 * 1024
"""Largest image. The service scales larger ones down, and while an image is sent, everything else
on the connection waits behind it."""

Role = Literal["user", "assistant"]


class UserSpeechStarted(Event, frozen=True, array_like=True, tag=40):
    """The user began to speak: detected by the server, or by push-to-talk."""

    event = "user_speech_started"
    item_id: str
    """The user's item that this speech will become; empty with push-to-talk, where the id is only
    known at the end."""
    first_sample: int
    """Start of the speech on the session timeline."""


class UserSpeechStopped(Event, frozen=True, array_like=True, tag=41):
    """The user stopped speaking: detected by the server, or by push-to-talk."""

    event = "user_speech_stopped"
    item_id: str
    """The user's item; empty: the speech was too short to be a turn."""
    last_sample: int


class SentImage(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image that the user has shown, as it is kept in the conversation."""

    path: str
    """The file that holds it: until the end of the session or, next to a journal, permanently; in
    the form of `messages.paths`."""
    media_type: Literal["image/png", "image/jpeg"]
    detail: Literal["auto", "low", "high"] = "auto"
    """Resolution at which the model sees it."""
    size_bytes: int = 0


class UserItem(Message, frozen=True, array_like=True, tag=42):
    """Realtime to history: the user has said or typed something."""

    attempts = 3
    item_id: str
    previous_item_id: str | None
    """The item before it in the conversation; None: it is the first."""
    text: str
    """Typed text; for speech, empty until its `UserTranscript`."""
    spoken: bool
    transcript_expected: bool
    first_sample: int = 0
    last_sample: int = 0
    image: SentImage | None = None


class UserTranscript(Message, frozen=True, array_like=True, tag=43):
    """Realtime to history: the transcript of the user's speech."""

    attempts = 3
    item_id: str
    text: str
    error: str | None = None
    """Why there is no text; None: there is."""


class AssistantTranscript(Event, frozen=True, array_like=True, tag=44):
    """A piece of the assistant's text, sent as it is generated, before its audio is heard."""

    event = "assistant_transcript"
    on_demand = True
    item_id: str
    delta: str


class AssistantItem(Message, frozen=True, array_like=True, tag=45):
    """Realtime to history: an item of the assistant, sent at its start and when it is complete."""

    attempts = 3
    item_id: str
    previous_item_id: str | None
    response_id: str
    text: str
    status: Literal["in_progress", "completed", "incomplete"]
    audio_samples: int = 0
    """Length of the audio received so far."""


class Interrupted(Event, frozen=True, array_like=True, tag=46):
    """The assistant was interrupted: playback is silent, and the server has truncated the item."""

    attempts = 3
    event = "interrupted"
    item_id: str
    heard_ms: int
    """Length of the item's audio that was played."""
    text_heard: str = ""
    """The item's text up to there, estimated from the share of its audio."""


class ItemRemoved(Message, frozen=True, array_like=True, tag=47):
    """Realtime to history: this item is no longer part of the conversation."""

    attempts = 3
    item_id: str
    reason: str


class ItemPlaced(Message, frozen=True, array_like=True, tag=77):
    """Realtime to history: the place that the server gave an item, if it was not known before."""

    attempts = 3
    item_id: str
    previous_item_id: str | None


class Turn(Event, frozen=True, array_like=True, tag=48):
    """A turn of the conversation, published once, in the order of the conversation."""

    event = "turn"
    role: Role
    text: str
    item_id: str
    transcribed: bool = True
    """False for speech without a transcript."""
    image: SentImage | None = None
    """The image that the user has shown with it."""


class ToolCall(Event, frozen=True, array_like=True, tag=49):
    """Realtime to tools, history and the program: the model calls a tool."""

    urgent = direct = True
    attempts = 3  # a call that comes twice is recognized by its id
    event = "tool_call"
    call_id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, unchecked."""
    item_id: str = ""
    previous_item_id: str | None = None


class ToolAnswer(Event, frozen=True, array_like=True, tag=50):
    """Tools to realtime, history and the program: the one answer to a `ToolCall`."""

    urgent = direct = True
    attempts = 3
    event = "tool_answer"
    call_id: str
    name: str
    output: str
    """The answer for the model: JSON text or a sentence."""
    failed: bool = False
    respond: bool = True
    """Whether the model should speak about the output."""
    item_id: str = ""


def tool_answer(call_id: str, name: str, output: str, failed: bool) -> ToolAnswer:
    """Return the answer to a call, the same whoever sends it."""
    return ToolAnswer(call_id, name, output, failed=failed, item_id=output_item_id(call_id))


def output_item_id(call_id: str) -> str:
    """Return the id of the item with the output of a call, which the server is told too."""
    return f"fco_{call_id[-28:]}"


class OutputReplaced(Message, frozen=True, array_like=True, tag=65):
    """Realtime to history and the program: the output that the model has, not that of `ToolAnswer`.

    The server had refused that, or realtime had been sent another one before.
    """

    attempts = 3
    call_id: str
    output: str


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The description of a tool for the model (``tools`` of the API's session)."""

    name: str
    description: str
    parameters: dict[str, object]
    """JSON Schema of the arguments, an object."""
    response_instruction: str = ""


class ToolsAvailable(Message, frozen=True, array_like=True, tag=51):
    """Tools to realtime: the tools that the model may call from now on."""

    attempts = 3
    tools: tuple[ToolSpec, ...]


class AskToRun(Message, frozen=True, array_like=True, tag=87):
    """Tools to program: this call is to be recorded before it is run (`Settings.asks_to_run`)."""

    attempts = 3
    call_id: str
    name: str
    arguments: str
    item_id: str = ""
    previous_item_id: str | None = None


class MayRun(Message, frozen=True, array_like=True, tag=88):
    """Program to tools: the call is recorded, and may be run, or it was run before."""

    attempts = 3
    call_id: str
    was_run: bool = False
    """Whether it was begun before, by a host that is gone: it is not run again."""


class ProgramToolCall(Message, frozen=True, array_like=True, tag=52):
    """Tools to program: run a tool of the program, which also validates the arguments."""

    direct = True
    call_id: str
    name: str
    arguments: str
    traceparent: str = ""
    """See `ToolSpan`."""


class ToolSpanRequest(Message, frozen=True, array_like=True, tag=89):
    """Tools to program: a tool is about to run; asks for the span that it runs in.

    Only a program that traces the conversation wants it, and answers with `ToolSpan`.
    """

    on_demand = True
    call_id: str


class ToolSpan(Message, frozen=True, array_like=True, tag=90):
    """Program to tools: the span of a call, which is the parent of those that the tool makes."""

    attempts = 3
    call_id: str
    traceparent: str
    """The header of this name (https://www.w3.org/TR/trace-context/); empty: there is no span."""


class ProgramToolAnswer(Message, frozen=True, array_like=True, tag=53):
    """Program to tools: the result of the program's tool, as JSON text."""

    direct = True
    attempts = 3
    call_id: str
    output: str
    failed: bool = False
    in_order: bool = False
    """Whether tools are to send realtime the answer through the supervisor only. The program has
    sent it straight already, or has sent something since the call that it must not overtake."""


class SetSpeed(Message, frozen=True, array_like=True, tag=54):
    """To realtime: speech speed from the next response on, 0.25-1.5."""

    attempts = 3
    speed: float


class SpeedChanged(Message, frozen=True, array_like=True, tag=55):
    """Realtime to tools: the current speech speed."""

    attempts = 3
    speed: float


class SendText(Message, frozen=True, array_like=True, tag=56):
    """Program to realtime: a turn of the user as text; it interrupts the assistant."""

    attempts = 3
    text: str
    item_id: str
    """Chosen by the sender, at most 32 characters; makes handling it twice harmless."""


class SendImage(Message, frozen=True, array_like=True, tag=76):
    """Program to realtime: a turn of the user with an image.

    It interrupts the assistant if ``respond`` is true.
    """

    attempts = 3
    data: bytes
    """The contents of a PNG or JPEG file, at most `MAX_IMAGE_BYTES`."""
    media_type: Literal["image/png", "image/jpeg"]
    text: str
    """The user's words about it; may be empty."""
    item_id: str
    """Chosen by the sender, at most 32 characters; makes handling it twice harmless."""
    detail: Literal["auto", "low", "high"] = "auto"
    respond: bool = True
    """Whether the assistant answers; if not, the turn waits until an answer is requested."""


class StartTalking(Message, frozen=True, array_like=True, tag=69):
    """Program to realtime: with push-to-talk, start the user's turn and interrupt the assistant."""

    attempts = 3
    at_ns: int = 0
    """``time.monotonic_ns()`` when the key was pressed; 0: now. Audio captured in the
    `Settings.preroll_ms` before it belongs to the turn."""


class StopTalking(Message, frozen=True, array_like=True, tag=75):
    """Program to realtime: with push-to-talk, end the user's turn.

    A turn of less than 100 ms is discarded.
    """

    attempts = 3
    at_ns: int = 0
    """``time.monotonic_ns()`` when the key was released; 0: now."""
    respond: bool = True
    """Whether the assistant answers; if not, the turn waits until an answer is requested."""


class Interrupt(Message, frozen=True, array_like=True, tag=57):
    """Program to realtime: interrupt the assistant."""

    attempts = 3


class EndConversation(Message, frozen=True, array_like=True, tag=58):
    """To realtime: end the session once the farewell has been played, or after 10 s."""

    attempts = 3
    reason: str


class ConversationOver(Message, frozen=True, array_like=True, tag=59):
    """Realtime to the supervisor: the conversation has ended, farewell included; stop."""

    reason: str


class ConversationItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item as history keeps it, to replay it to a new connection."""

    item_id: str
    kind: Literal["message", "function_call", "function_call_output"]
    role: Role = "user"
    text: str = ""
    """Its text; for the assistant, only the part that was heard."""
    transcribed: bool = True
    complete: bool = True
    """False: an answer that was cut off when the connection was lost."""
    interrupted: bool = False
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    first_sample: int = 0
    last_sample: int = 0
    image: SentImage | None = None


class HistoryRequest(Message, frozen=True, array_like=True, tag=60):
    """Realtime to history: request for the conversation so far (`HistorySnapshot`)."""

    attempts = 3
    request_id: int


class HistorySnapshot(Message, frozen=True, array_like=True, tag=61):
    """History to realtime: the items of the conversation in order."""

    attempts = 3
    request_id: int
    items: tuple[ConversationItem, ...]


class ResponseStarted(Event, frozen=True, array_like=True, tag=62):
    """The server has started an answer."""

    event = "response_started"
    response_id: str


class ResponseEnded(Event, frozen=True, array_like=True, tag=63):
    """The server has ended an answer, complete or not; its audio may still be playing."""

    event = "response_ended"
    response_id: str
    status: str
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tokens: Tokens = Tokens()
    """The same tokens by kind. Where a server does not say which, they count as the dearest: audio,
    and cached ones as text."""


class PlaybackStarted(Event, frozen=True, array_like=True, tag=66):
    """The first sample of an answer has been heard.

    It comes up to a tenth of a second later, but its times are exact.

    Example:
        ```python
        from rtvoice import Agent, PlaybackStarted

        agent = Agent()
        subscription = agent.event_bus.subscribe(
            PlaybackStarted, lambda event: print(f"answered after {event.after_speech_ms} ms")
        )
        ```
    """

    event = "playback_started"
    item_id: str
    response_id: str
    first_sample: int
    """When its first sample was heard, on the session timeline."""
    after_speech_ms: int | None = None
    """Time from the end of the user's speech (``last_sample`` of `UserSpeechStopped`) until then.
    None: the answer is not the first one to speech."""
    committed_after_ms: int | None = None
    """Time from the end of the user's speech until the server had committed it: what turn detection
    and the network take. None: not known."""
    received_after_ms: int | None = None
    """Time from the end of the user's speech until the first audio of the answer was received.
    None: not known."""


class PlaybackEnded(Event, frozen=True, array_like=True, tag=64):
    """An item of the assistant has been played to its end."""

    event = "playback_ended"
    item_id: str
    heard_ms: int


class PlaybackPaused(Event, frozen=True, array_like=True, tag=67):
    """Playback is paused until it is decided whether the user interrupts.

    `Interrupted` follows if the user does, `PlaybackResumed` if it was a false interruption.
    """

    event = "playback_paused"
    item_id: str
    """The item that was playing; empty: none."""
    heard_ms: int
    """Length of its audio that was played, except for the last few milliseconds."""


class PlaybackResumed(Event, frozen=True, array_like=True, tag=68):
    """Playback continues from where it was paused, after a false interruption."""

    event = "playback_resumed"
    item_id: str
    heard_ms: int


class ProgramToolCancel(Message, frozen=True, array_like=True, tag=78):
    """Tools to program: cancel this call; it took too long and was answered with an error."""

    call_id: str


class Say(Message, frozen=True, array_like=True, tag=79):
    """To realtime: let the assistant say this text as soon as it does not speak."""

    text: str


class CreateResponse(Message, frozen=True, array_like=True, tag=70):
    """Program to realtime: let the assistant answer as soon as nobody speaks."""

    attempts = 3
    instructions: str | None = None
    """Instructions for this answer only, which replace those of the session."""


class UpdateSettings(Message, frozen=True, array_like=True, tag=71):
    """Program to realtime: change settings of a running session, from the next answer on."""

    attempts = 3
    changes: dict[str, Any]
    """Fields out of `messages.CHANGEABLE` as plain values; `messages.validation` checks them."""


class SetTools(Message, frozen=True, array_like=True, tag=72):
    """Program to tools: the tools that the model may call from now on; None: no change."""

    attempts = 3
    program_tools: tuple[ToolSpec, ...] | None = None
    builtin_tools: tuple[str, ...] | None = None


class WantWireEvents(Message, frozen=True, array_like=True, tag=73):
    """Program to realtime: subscribe to the wire events of these names, and to no others."""

    attempts = 3
    names: tuple[str, ...]
    """Values of ``type`` of the Realtime API's events, both of the server and of the client."""


class WireEvent(Message, frozen=True, array_like=True, tag=74):
    """Realtime to program: an event of the Realtime API, for its subscribers."""

    name: str
    direction: Literal["server", "client"]
    """The sender."""
    json: bytes
