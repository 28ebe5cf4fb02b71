"""Everything that can be subscribed to on `Agent.event_bus`, all of it frozen.

Four kinds of events:

- of the agent: `AgentStartedEvent`, `AgentStoppedEvent`, `UserInactivityTimeoutEvent`,
  `OutputAudioBufferClearEvent`; and one command, `StopAgentCommand`;
- of the conversation and its components, which survive a change of the API: `Turn`, `ToolCall`,
  `Interrupted`, `ComponentRestarted`, … (those of `messages` that are an `Event`);
- `ServerEvent`: events of the Realtime API as the server sends them, with the fields it documents;
  what it sends besides is left out;
- `ClientEvent`: what is sent to the server. They can be published too, and then go through the
  rules that keep a conversation whole; they are never sent as they are.

What nobody has subscribed to is not even carried to the program.

Example:
    ```python
    from rtvoice import Agent, InputAudioTranscriptionCompleted, StopAgentCommand

    agent = Agent(transcription_model="gpt-transcribe")

    def listen(event: InputAudioTranscriptionCompleted) -> None:
        if "enough" in event.transcript:
            agent.event_bus.publish(StopAgentCommand())

    agent.event_bus.subscribe(InputAudioTranscriptionCompleted, listen)
    ```

    https://platform.openai.com/docs/api-reference/realtime-server-events
    https://platform.openai.com/docs/api-reference/realtime-client-events
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from messages import (
    AssistantTranscript,
    AudioLost,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Connected,
    DeadLetter,
    DeviceChanged,
    DeviceFailed,
    DeviceLost,
    Disconnected,
    Event,
    InputLevel,
    Interrupted,
    Level,
    MessagesDropped,
    Notice,
    OutputLevel,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    ServerError,
    SessionEnded,
    SessionEnding,
    SessionFailed,
    SessionStarted,
    SoundFaltered,
    ToolAnswer,
    ToolCall,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)

__all__ = [
    "AgentEvent",
    "AgentStartedEvent",
    "AgentStoppedEvent",
    "AssistantTranscript",
    "AudioLost",
    "ClientEvent",
    "ComponentCrashed",
    "ComponentParked",
    "ComponentRestarted",
    "Connected",
    "ConversationCreatedEvent",
    "ConversationItemAddedEvent",
    "ConversationItemCreateEvent",
    "ConversationItemCreatedEvent",
    "ConversationItemDeleteEvent",
    "ConversationItemDeletedEvent",
    "ConversationItemDoneEvent",
    "ConversationItemRetrieveEvent",
    "ConversationItemRetrievedEvent",
    "ConversationItemTruncateEvent",
    "ConversationItemTruncatedEvent",
    "DeadLetter",
    "DeviceChanged",
    "DeviceFailed",
    "DeviceLost",
    "Disconnected",
    "ErrorBody",
    "ErrorEvent",
    "Event",
    "FunctionCallItem",
    "InputAudioBufferAppendEvent",
    "InputAudioBufferClearEvent",
    "InputAudioBufferClearedEvent",
    "InputAudioBufferCommitEvent",
    "InputAudioBufferCommittedEvent",
    "InputAudioBufferSpeechStartedEvent",
    "InputAudioBufferSpeechStoppedEvent",
    "InputAudioBufferTimeoutTriggeredEvent",
    "InputAudioTranscriptionCompleted",
    "InputAudioTranscriptionDelta",
    "InputAudioTranscriptionFailed",
    "InputAudioTranscriptionSegment",
    "InputLevel",
    "Interrupted",
    "Item",
    "Level",
    "McpListToolsCompletedEvent",
    "McpListToolsFailedEvent",
    "McpListToolsInProgressEvent",
    "MessagesDropped",
    "Notice",
    "OutputAudioBufferClearEvent",
    "OutputLevel",
    "PlaybackEnded",
    "PlaybackPaused",
    "PlaybackResumed",
    "RateLimitsUpdatedEvent",
    "Reconnected",
    "Response",
    "ResponseCancelEvent",
    "ResponseContentPartAddedEvent",
    "ResponseContentPartDoneEvent",
    "ResponseCreateEvent",
    "ResponseCreatedEvent",
    "ResponseDoneEvent",
    "ResponseEnded",
    "ResponseFunctionCallArgumentsDeltaEvent",
    "ResponseMcpCallArgumentsDeltaEvent",
    "ResponseMcpCallArgumentsDoneEvent",
    "ResponseMcpCallCompletedEvent",
    "ResponseMcpCallFailedEvent",
    "ResponseMcpCallInProgressEvent",
    "ResponseOutputAudioDeltaEvent",
    "ResponseOutputAudioDoneEvent",
    "ResponseOutputAudioTranscriptDeltaEvent",
    "ResponseOutputAudioTranscriptDoneEvent",
    "ResponseOutputItemAddedEvent",
    "ResponseOutputItemDoneEvent",
    "ResponseOutputTextDeltaEvent",
    "ResponseOutputTextDoneEvent",
    "ResponseStarted",
    "ServerError",
    "ServerEvent",
    "SessionCreatedEvent",
    "SessionEnded",
    "SessionEnding",
    "SessionFailed",
    "SessionStarted",
    "SessionUpdateEvent",
    "SessionUpdatedEvent",
    "SoundFaltered",
    "StopAgentCommand",
    "ToolAnswer",
    "ToolCall",
    "Turn",
    "UserInactivityTimeoutEvent",
    "UserSpeechStarted",
    "UserSpeechStopped",
]


# -- of the agent ----------------------------------------------------------------------------------


class AgentEvent(msgspec.Struct, frozen=True):
    """The base of what an agent itself publishes."""


class AgentStartedEvent(AgentEvent, frozen=True):
    """The agent runs: every component is open."""

    pids: dict[str, int] = {}
    """Process id of each component, of ``supervisor``, and of ``sandbox`` if we have started it."""


class AgentStoppedEvent(AgentEvent, frozen=True):
    """The agent has begun to stop; told once."""

    reason: str = ""
    """As ``ConversationHistory.ended_because``."""


class StopAgentCommand(AgentEvent, frozen=True):
    """Published, it stops the agent."""

    reason: str = "the program asked"
    """It becomes ``ConversationHistory.ended_because``."""


class UserInactivityTimeoutEvent(AgentEvent, frozen=True):
    """Nobody has spoken for the inactivity timeout; the agent stops.

    Playback, tools and restarts of components do not count as silence of the user.
    """

    timeout_seconds: float = 0.0
    """How long nobody has spoken."""


class OutputAudioBufferClearEvent(AgentEvent, frozen=True):
    """Playback was flushed, since the assistant was interrupted. Never sent to the server.

    Published, it interrupts, as `Agent.interrupt` does.
    """

    reason: str = ""


# -- parts of the events of the Realtime API -------------------------------------------------------


class Item(msgspec.Struct, frozen=True):
    """An item of the conversation: a message, a tool call or its output."""

    id: str = ""
    type: str = ""
    """``message``, ``function_call``, ``function_call_output``, …"""
    role: str | None = None
    status: str | None = None
    """``in_progress``, ``completed`` or ``incomplete``."""
    content: list[dict[str, Any]] = []
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: str | None = None


class Response(msgspec.Struct, frozen=True):
    """An answer of the model."""

    id: str = ""
    status: str | None = None
    """``in_progress``, ``completed``, ``cancelled``, ``incomplete`` or ``failed``."""
    status_details: dict[str, Any] | None = None
    output: list[Item] = []
    conversation_id: str | None = None
    output_modalities: list[str] | None = None
    max_output_tokens: int | str | None = None
    metadata: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """What the server refuses, and why."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """Of the client event that is refused; None: not known."""


# -- what the server says --------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """The base of the events of the server; subscribed to, it stands for all of them."""

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationCreatedEvent(ServerEvent, frozen=True, tag="conversation.created"):
    """The conversation of a session."""

    conversation: dict[str, Any] = {}
    event_id: str | None = None


class ConversationItemAddedEvent(ServerEvent, frozen=True, tag="conversation.item.added"):
    """An item has entered the conversation."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemCreatedEvent(ServerEvent, frozen=True, tag="conversation.item.created"):
    """`ConversationItemAddedEvent` by its old name, which some servers use."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemDeletedEvent(ServerEvent, frozen=True, tag="conversation.item.deleted"):
    """The server has deleted an item."""

    item_id: str = ""
    event_id: str | None = None


class ConversationItemDoneEvent(ServerEvent, frozen=True, tag="conversation.item.done"):
    """An item is final: it will not change any more."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class InputAudioTranscriptionCompleted(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.completed"
):
    """What the user's speech was heard as; needs a transcription model."""

    item_id: str = ""
    content_index: int = 0
    transcript: str = ""
    usage: dict[str, Any] = {}
    languages: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None
    event_id: str | None = None


class InputAudioTranscriptionDelta(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.delta"
):
    """A piece of what the user's speech is heard as."""

    item_id: str = ""
    content_index: int | None = None
    delta: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    event_id: str | None = None


class InputAudioTranscriptionFailed(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed"
):
    """There is no text of the user's speech."""

    item_id: str = ""
    content_index: int = 0
    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioTranscriptionSegment(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.segment"
):
    """A piece of the user's speech, and who spoke."""

    item_id: str = ""
    content_index: int = 0
    text: str = ""
    id: str = ""
    end: float = 0.0
    speaker: str = ""
    start: float = 0.0
    event_id: str | None = None


class ConversationItemRetrievedEvent(ServerEvent, frozen=True, tag="conversation.item.retrieved"):
    """An item that was asked for."""

    item: Item = Item()
    event_id: str | None = None


class ConversationItemTruncatedEvent(ServerEvent, frozen=True, tag="conversation.item.truncated"):
    """An item of the assistant was cut to what was heard."""

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Milliseconds of the item's sound."""
    event_id: str | None = None


class ErrorEvent(ServerEvent, frozen=True, tag="error"):
    """The server refuses something; the session stays open, mostly."""

    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioBufferClearedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.cleared"):
    """Captured audio was thrown away."""

    event_id: str | None = None


class InputAudioBufferCommittedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    """The user's speech has become an item."""

    item_id: str = ""
    previous_item_id: str | None = None
    event_id: str | None = None


class InputAudioBufferSpeechStartedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"
):
    """The user begins to speak."""

    item_id: str = ""
    audio_start_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class InputAudioBufferSpeechStoppedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"
):
    """The user has stopped speaking."""

    item_id: str = ""
    audio_end_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class InputAudioBufferTimeoutTriggeredEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.timeout_triggered"
):
    """The user has been silent for the idle timeout of the turn detection."""

    item_id: str = ""
    audio_end_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    audio_start_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class McpListToolsCompletedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.completed"):
    """The list of an MCP server's tools is there."""

    item_id: str = ""
    event_id: str | None = None


class McpListToolsFailedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.failed"):
    """The list of an MCP server's tools could not be had."""

    item_id: str = ""
    event_id: str | None = None


class McpListToolsInProgressEvent(ServerEvent, frozen=True, tag="mcp_list_tools.in_progress"):
    """An MCP server is asked for its tools."""

    item_id: str = ""
    event_id: str | None = None


class RateLimitsUpdatedEvent(ServerEvent, frozen=True, tag="rate_limits.updated"):
    """How much may be asked of the service."""

    rate_limits: list[dict[str, Any]] = []
    event_id: str | None = None


class ResponseContentPartAddedEvent(ServerEvent, frozen=True, tag="response.content_part.added"):
    """A part of an item begins."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: dict[str, Any] = {}
    event_id: str | None = None


class ResponseContentPartDoneEvent(ServerEvent, frozen=True, tag="response.content_part.done"):
    """A part of an item is final."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: dict[str, Any] = {}
    event_id: str | None = None


class ResponseCreatedEvent(ServerEvent, frozen=True, tag="response.created"):
    """The assistant starts responding."""

    response: Response = Response()
    event_id: str | None = None


class ResponseDoneEvent(ServerEvent, frozen=True, tag="response.done"):
    """An answer has ended, whatever the outcome."""

    response: Response = Response()
    event_id: str | None = None


class ResponseFunctionCallArgumentsDeltaEvent(
    ServerEvent, frozen=True, tag="response.function_call_arguments.delta"
):
    """A piece of the arguments of a tool call."""

    response_id: str = ""
    item_id: str = ""
    call_id: str = ""
    output_index: int = 0
    delta: str = ""
    event_id: str | None = None


class FunctionCallItem(ServerEvent, frozen=True, tag="response.function_call_arguments.done"):
    """The model calls a tool."""

    response_id: str = ""
    item_id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output_index: int = 0
    event_id: str | None = None

    @property
    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments, parsed; empty if the model has written no JSON object."""
        try:
            parsed = msgspec.json.decode(self.arguments)
        except msgspec.DecodeError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


class ResponseMcpCallCompletedEvent(ServerEvent, frozen=True, tag="response.mcp_call.completed"):
    """A call of an MCP tool has succeeded."""

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallFailedEvent(ServerEvent, frozen=True, tag="response.mcp_call.failed"):
    """A call of an MCP tool has failed."""

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallInProgressEvent(ServerEvent, frozen=True, tag="response.mcp_call.in_progress"):
    """An MCP tool is called."""

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallArgumentsDeltaEvent(
    ServerEvent, frozen=True, tag="response.mcp_call_arguments.delta"
):
    """A piece of the arguments of an MCP call."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    delta: str = ""
    obfuscation: str | None = None
    event_id: str | None = None


class ResponseMcpCallArgumentsDoneEvent(
    ServerEvent, frozen=True, tag="response.mcp_call_arguments.done"
):
    """The arguments of an MCP call."""

    response_id: str = ""
    item_id: str = ""
    arguments: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioDeltaEvent(ServerEvent, frozen=True, tag="response.output_audio.delta"):
    """A piece of what the assistant says, as sound."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    """PCM in base64: 16-bit little-endian mono, 24 kHz; see `audio`."""
    event_id: str | None = None

    @property
    def audio(self) -> bytes:
        """The sound: 16-bit little-endian mono PCM, 24 kHz."""
        return base64.b64decode(self.delta)


class ResponseOutputAudioDoneEvent(ServerEvent, frozen=True, tag="response.output_audio.done"):
    """The sound of an item is complete."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioTranscriptDeltaEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.delta"
):
    """A piece of what the assistant says, as text, ahead of its sound."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputAudioTranscriptDoneEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.done"
):
    """The whole text of what the assistant says."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    transcript: str = ""
    event_id: str | None = None


class ResponseOutputItemAddedEvent(ServerEvent, frozen=True, tag="response.output_item.added"):
    """An answer has a further item."""

    response_id: str = ""
    item: Item = Item()
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputItemDoneEvent(ServerEvent, frozen=True, tag="response.output_item.done"):
    """An item of an answer is final."""

    response_id: str = ""
    item: Item = Item()
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputTextDeltaEvent(ServerEvent, frozen=True, tag="response.output_text.delta"):
    """A piece of an answer in text."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputTextDoneEvent(ServerEvent, frozen=True, tag="response.output_text.done"):
    """The whole text of an answer in text."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    text: str = ""
    event_id: str | None = None


class SessionCreatedEvent(ServerEvent, frozen=True, tag="session.created"):
    """The server has begun a session."""

    session: dict[str, Any] = {}
    event_id: str | None = None


class SessionUpdatedEvent(ServerEvent, frozen=True, tag="session.updated"):
    """The configuration of the session is in force."""

    session: dict[str, Any] = {}
    event_id: str | None = None


# -- what is said to the server --------------------------------------------------------------------


class ClientEvent(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """The base of the events to the server; subscribed to, it stands for all of them."""

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationItemCreateEvent(ClientEvent, frozen=True, tag="conversation.item.create"):
    """An item is appended to the conversation."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemDeleteEvent(ClientEvent, frozen=True, tag="conversation.item.delete"):
    """An item is deleted from the conversation."""

    item_id: str = ""
    event_id: str | None = None


class ConversationItemRetrieveEvent(ClientEvent, frozen=True, tag="conversation.item.retrieve"):
    """The server is asked for an item."""

    item_id: str = ""
    event_id: str | None = None


class ConversationItemTruncateEvent(ClientEvent, frozen=True, tag="conversation.item.truncate"):
    """An item of the assistant is cut to what was heard of it.

    It cannot be published: an interruption truncates by itself, where the user stopped hearing.
    """

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Milliseconds of the item's sound."""
    event_id: str | None = None


class InputAudioBufferAppendEvent(ClientEvent, frozen=True, tag="input_audio_buffer.append"):
    """Captured audio on its way to the server, 25 a second.

    Published, it is captured audio, if the agent was made with ``audio_input="program"``.
    """

    audio: str = ""
    """PCM in base64: 16-bit little-endian mono, 24 kHz."""
    event_id: str | None = None

    @property
    def pcm(self) -> bytes:
        """The sound: 16-bit little-endian mono PCM, 24 kHz."""
        return base64.b64decode(self.audio)

    @classmethod
    def of(cls, pcm: bytes) -> InputAudioBufferAppendEvent:
        """Return the event for 16-bit little-endian mono PCM at 24 kHz."""
        return cls(base64.b64encode(pcm).decode())


class InputAudioBufferClearEvent(ClientEvent, frozen=True, tag="input_audio_buffer.clear"):
    """Captured audio that is not committed is thrown away."""

    event_id: str | None = None


class InputAudioBufferCommitEvent(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """Captured audio becomes an item of the user."""

    event_id: str | None = None


class ResponseCancelEvent(ClientEvent, frozen=True, tag="response.cancel"):
    """The answer under way is ended.

    Published, it interrupts, as `Agent.interrupt` does.
    """

    response_id: str | None = None
    event_id: str | None = None


class ResponseCreateEvent(ClientEvent, frozen=True, tag="response.create"):
    """An answer is asked for.

    Published, an answer is asked for as soon as nobody speaks; of
    ``response``, ``instructions`` can be given.
    """

    response: dict[str, Any] | None = None
    event_id: str | None = None


class SessionUpdateEvent(ClientEvent, frozen=True, tag="session.update"):
    """The configuration of the session is changed.

    Published, it does what `Agent.update` does; what cannot change in a session is refused.
    """

    session: dict[str, Any] = {}
    event_id: str | None = None
