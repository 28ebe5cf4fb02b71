"""The events that can be subscribed to on `Agent.event_bus`; all are immutable.

Four kinds of events:

- events of the agent: `AgentStartedEvent`, `AgentStoppedEvent`, `UserInactivityTimeoutEvent`,
  `OutputAudioBufferClearEvent`; and one command, `StopAgentCommand`;
- events of the conversation and its components, which do not depend on the API: `Turn`, `ToolCall`,
  `Interrupted`, `ComponentRestarted`, … (the messages that are an `Event`);
- `ServerEvent`: events that the server sends, with the fields that the Realtime API documents;
  other fields are left out;
- `ClientEvent`: events that rtvoice sends to the server. A program can publish some of them; they
  are then commands to rtvoice, and are never sent to the server as they are.

Events of the Realtime API without a subscriber are not even sent to the program.

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

from actors.lenient import loads
from messages import (
    AssistantTranscript,
    AudioLost,
    BudgetUsed,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Connected,
    DeadLetter,
    DeviceChanged,
    DeviceFailed,
    DeviceLost,
    Disconnected,
    EchoState,
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
    PlaybackStarted,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    RoundTrip,
    ServerError,
    SessionEnded,
    SessionEnding,
    SessionFailed,
    SessionStarted,
    SoundFaltered,
    SupervisorRestarted,
    ToolAnswer,
    ToolCall,
    Turn,
    UsageUpdated,
    UserSpeechStarted,
    UserSpeechStopped,
)

__all__ = [
    "AgentEvent",
    "AgentStartedEvent",
    "AgentStoppedEvent",
    "AssistantTranscript",
    "AudioLost",
    "BudgetUsed",
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
    "EchoState",
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
    "PlaybackStarted",
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
    "RoundTrip",
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
    "SupervisorRestarted",
    "ToolAnswer",
    "ToolCall",
    "Turn",
    "UsageUpdated",
    "UserInactivityTimeoutEvent",
    "UserSpeechStarted",
    "UserSpeechStopped",
]


# -- events of the agent ---------------------------------------------------------------------------


class AgentEvent(msgspec.Struct, frozen=True):
    """The base class of the events of the agent itself."""


class AgentStartedEvent(AgentEvent, frozen=True):
    """The agent has started: every component is open."""

    pids: dict[str, int] = {}
    """Process ids of the components, of ``supervisor``, and of a ``sandbox`` started for it."""


class AgentStoppedEvent(AgentEvent, frozen=True):
    """The agent has begun to stop. Published once per conversation."""

    reason: str = ""
    """The same as ``ConversationHistory.ended_because``."""


class StopAgentCommand(AgentEvent, frozen=True):
    """A command: publish it to stop the agent."""

    reason: str = "the program asked"
    """The value of ``ConversationHistory.ended_because`` after the stop."""


class UserInactivityTimeoutEvent(AgentEvent, frozen=True):
    """Nobody has spoken for the inactivity timeout; the agent stops.

    The timeout does not run during playback, tool calls and restarts of components.
    """

    timeout_seconds: float = 0.0
    """The inactivity timeout."""


class OutputAudioBufferClearEvent(AgentEvent, frozen=True):
    """Playback was flushed, because the assistant was interrupted. It is not sent to the server.

    If a program publishes it, it interrupts the assistant, as `Agent.interrupt` does.
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
    """An error that the server reports: what it refuses, and why."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """Id of the client event that is refused; None: not known."""


# -- events of the server --------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """The base class of the server's events. A subscription to it gets all of them."""

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationCreatedEvent(ServerEvent, frozen=True, tag="conversation.created"):
    """The conversation of a session was created."""

    conversation: dict[str, Any] = {}
    event_id: str | None = None


class ConversationItemAddedEvent(ServerEvent, frozen=True, tag="conversation.item.added"):
    """An item has entered the conversation."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemCreatedEvent(ServerEvent, frozen=True, tag="conversation.item.created"):
    """`ConversationItemAddedEvent` under its old name, which some servers use."""

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
    """The transcript of the user's speech; needs a transcription model."""

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
    """A piece of the transcript of the user's speech."""

    item_id: str = ""
    content_index: int | None = None
    delta: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    event_id: str | None = None


class InputAudioTranscriptionFailed(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed"
):
    """Transcription of the user's speech has failed."""

    item_id: str = ""
    content_index: int = 0
    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioTranscriptionSegment(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.segment"
):
    """A piece of the transcript of the user's speech, with its speaker."""

    item_id: str = ""
    content_index: int = 0
    text: str = ""
    id: str = ""
    end: float = 0.0
    speaker: str = ""
    start: float = 0.0
    event_id: str | None = None


class ConversationItemRetrievedEvent(ServerEvent, frozen=True, tag="conversation.item.retrieved"):
    """An item that the client has requested."""

    item: Item = Item()
    event_id: str | None = None


class ConversationItemTruncatedEvent(ServerEvent, frozen=True, tag="conversation.item.truncated"):
    """An item of the assistant was truncated to the part that was heard."""

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Length of the item's audio that remains, in milliseconds."""
    event_id: str | None = None


class ErrorEvent(ServerEvent, frozen=True, tag="error"):
    """The server reports an error. The session usually stays open."""

    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioBufferClearedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.cleared"):
    """Captured audio that was not committed was discarded."""

    event_id: str | None = None


class InputAudioBufferCommittedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    """The user's speech has become an item."""

    item_id: str = ""
    previous_item_id: str | None = None
    event_id: str | None = None


class InputAudioBufferSpeechStartedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"
):
    """The user has begun to speak."""

    item_id: str = ""
    audio_start_ms: int = 0
    """Position in all audio that this session was sent, in milliseconds."""
    event_id: str | None = None


class InputAudioBufferSpeechStoppedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"
):
    """The user has stopped speaking."""

    item_id: str = ""
    audio_end_ms: int = 0
    """Position in all audio that this session was sent, in milliseconds."""
    event_id: str | None = None


class InputAudioBufferTimeoutTriggeredEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.timeout_triggered"
):
    """The user has been silent for the idle timeout of the turn detection."""

    item_id: str = ""
    audio_end_ms: int = 0
    """Position in all audio that this session was sent, in milliseconds."""
    audio_start_ms: int = 0
    """Position in all audio that this session was sent, in milliseconds."""
    event_id: str | None = None


class McpListToolsCompletedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.completed"):
    """The list of an MCP server's tools is complete."""

    item_id: str = ""
    event_id: str | None = None


class McpListToolsFailedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.failed"):
    """Listing the tools of an MCP server has failed."""

    item_id: str = ""
    event_id: str | None = None


class McpListToolsInProgressEvent(ServerEvent, frozen=True, tag="mcp_list_tools.in_progress"):
    """The service lists the tools of an MCP server."""

    item_id: str = ""
    event_id: str | None = None


class RateLimitsUpdatedEvent(ServerEvent, frozen=True, tag="rate_limits.updated"):
    """The rate limits of the service."""

    rate_limits: list[dict[str, Any]] = []
    event_id: str | None = None


class ResponseContentPartAddedEvent(ServerEvent, frozen=True, tag="response.content_part.added"):
    """A part of an item has begun."""

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
    """The assistant has begun an answer."""

    response: Response = Response()
    event_id: str | None = None


class ResponseDoneEvent(ServerEvent, frozen=True, tag="response.done"):
    """An answer has ended, with any outcome (``Response.status``)."""

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
        """The parsed arguments; empty if they are not a JSON object."""
        try:
            parsed = loads(self.arguments)
        except ValueError:
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
    """A call of an MCP tool is in progress."""

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
    """The complete arguments of an MCP call."""

    response_id: str = ""
    item_id: str = ""
    arguments: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioDeltaEvent(ServerEvent, frozen=True, tag="response.output_audio.delta"):
    """A piece of the assistant's audio."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    """PCM in base64: 16-bit little-endian mono, 24 kHz; see `audio`."""
    event_id: str | None = None

    @property
    def audio(self) -> bytes:
        """The audio: 16-bit little-endian mono PCM, 24 kHz."""
        return base64.b64decode(self.delta)


class ResponseOutputAudioDoneEvent(ServerEvent, frozen=True, tag="response.output_audio.done"):
    """The audio of an item is complete."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioTranscriptDeltaEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.delta"
):
    """A piece of the transcript of the assistant's audio; it arrives before the audio is played."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputAudioTranscriptDoneEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.done"
):
    """The complete transcript of the assistant's audio."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    transcript: str = ""
    event_id: str | None = None


class ResponseOutputItemAddedEvent(ServerEvent, frozen=True, tag="response.output_item.added"):
    """An item was added to an answer."""

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
    """A piece of a text answer."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputTextDoneEvent(ServerEvent, frozen=True, tag="response.output_text.done"):
    """The complete text of a text answer."""

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


# -- events of the client --------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """The base class of events sent to the server. A subscription to it gets all of them."""

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationItemCreateEvent(ClientEvent, frozen=True, tag="conversation.item.create"):
    """Append an item to the conversation."""

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemDeleteEvent(ClientEvent, frozen=True, tag="conversation.item.delete"):
    """Delete an item from the conversation."""

    item_id: str = ""
    event_id: str | None = None


class ConversationItemRetrieveEvent(ClientEvent, frozen=True, tag="conversation.item.retrieve"):
    """Request an item from the server."""

    item_id: str = ""
    event_id: str | None = None


class ConversationItemTruncateEvent(ClientEvent, frozen=True, tag="conversation.item.truncate"):
    """Truncate an item of the assistant to the part that was heard.

    It cannot be published: an interruption truncates the item at what was heard.
    """

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Length of the item's audio that remains, in milliseconds."""
    event_id: str | None = None


class InputAudioBufferAppendEvent(ClientEvent, frozen=True, tag="input_audio_buffer.append"):
    """Append captured audio; sent 25 times a second.

    A program can publish it as captured audio if the agent has ``audio_input="program"``.
    """

    audio: str = ""
    """PCM in base64: 16-bit little-endian mono, 24 kHz."""
    event_id: str | None = None

    @property
    def pcm(self) -> bytes:
        """The audio: 16-bit little-endian mono PCM, 24 kHz."""
        return base64.b64decode(self.audio)

    @classmethod
    def of(cls, pcm: bytes) -> InputAudioBufferAppendEvent:
        """Return the event for 16-bit little-endian mono PCM at 24 kHz."""
        return cls(base64.b64encode(pcm).decode())


class InputAudioBufferClearEvent(ClientEvent, frozen=True, tag="input_audio_buffer.clear"):
    """Discard captured audio that is not committed."""

    event_id: str | None = None


class InputAudioBufferCommitEvent(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """Commit captured audio: it becomes an item of the user."""

    event_id: str | None = None


class ResponseCancelEvent(ClientEvent, frozen=True, tag="response.cancel"):
    """Cancel the answer in progress.

    If a program publishes it, it interrupts the assistant, as `Agent.interrupt` does.
    """

    response_id: str | None = None
    event_id: str | None = None


class ResponseCreateEvent(ClientEvent, frozen=True, tag="response.create"):
    """Request an answer.

    If a program publishes it, rtvoice requests an answer as soon as nobody speaks. ``response`` may
    then contain only ``instructions``.
    """

    response: dict[str, Any] | None = None
    event_id: str | None = None


class SessionUpdateEvent(ClientEvent, frozen=True, tag="session.update"):
    """Change the configuration of the session.

    If a program publishes it, it does what `Agent.update` does; a field that cannot change in a
    session is refused.
    """

    session: dict[str, Any] = {}
    event_id: str | None = None
