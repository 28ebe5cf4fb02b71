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
    "decode_wire_event",
    "wire_names",
]


# -- of the agent ----------------------------------------------------------------------------------


class AgentEvent(msgspec.Struct, frozen=True):
    """The base of what an agent itself publishes.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import AgentEvent

        agent = Agent()
        agent.event_bus.subscribe(AgentEvent, print)
        ```
    """


class AgentStartedEvent(AgentEvent, frozen=True):
    """The agent runs: every component is open.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import AgentStartedEvent

        agent = Agent()
        agent.event_bus.subscribe(AgentStartedEvent, lambda event: print(event.pids))
        ```
    """

    pids: dict[str, int] = {}
    """Process id of each component, of ``supervisor``, and of ``sandbox`` if we have started it."""


class AgentStoppedEvent(AgentEvent, frozen=True):
    """The agent has begun to stop; told once.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import AgentStoppedEvent

        agent = Agent()
        agent.event_bus.subscribe(AgentStoppedEvent, lambda event: print(event.reason))
        ```
    """

    reason: str = ""
    """As ``ConversationHistory.ended_because``."""


class StopAgentCommand(AgentEvent, frozen=True):
    """Published, it stops the agent.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioTranscriptionCompleted, StopAgentCommand

        agent = Agent(transcription_model="gpt-transcribe")

        def listen(event: InputAudioTranscriptionCompleted) -> None:
            if "enough" in event.transcript:
                agent.event_bus.publish(StopAgentCommand())

        agent.event_bus.subscribe(InputAudioTranscriptionCompleted, listen)
        ```
    """

    reason: str = "the program asked"
    """It becomes ``ConversationHistory.ended_because``."""


class UserInactivityTimeoutEvent(AgentEvent, frozen=True):
    """Nobody has spoken for the inactivity timeout; the agent stops.

    Playback, tools and restarts of components do not count as silence of the user.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import UserInactivityTimeoutEvent

        agent = Agent(inactivity_timeout_s=30)
        agent.event_bus.subscribe(UserInactivityTimeoutEvent, lambda event: print("Bye!"))
        ```
    """

    timeout_seconds: float = 0.0
    """How long nobody has spoken."""


class OutputAudioBufferClearEvent(AgentEvent, frozen=True):
    """Playback was flushed, since the assistant was interrupted. Never sent to the server.

    Published, it interrupts, as `Agent.interrupt` does.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import OutputAudioBufferClearEvent

        agent = Agent()
        agent.event_bus.subscribe(OutputAudioBufferClearEvent, lambda event: print(event.reason))
        ```
    """

    reason: str = ""


# -- parts of the events of the Realtime API -------------------------------------------------------


class Item(msgspec.Struct, frozen=True):
    """An item of the conversation: a message, a tool call or its output.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemDoneEvent, lambda event: print(event.item.role))
        ```
    """

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
    """An answer of the model.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseDoneEvent, lambda event: print(event.response.usage))
        ```
    """

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
    """What the server refuses, and why.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ErrorEvent

        agent = Agent()
        agent.event_bus.subscribe(ErrorEvent, lambda event: print(event.error.message))
        ```
    """

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None
    """Of the client event that is refused; None: not known."""


# -- what the server says --------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """The base of the events of the server; subscribed to, it stands for all of them.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ServerEvent

        agent = Agent()
        agent.event_bus.subscribe(ServerEvent, lambda event: print(event.type))
        ```
    """

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationCreatedEvent(ServerEvent, frozen=True, tag="conversation.created"):
    """The conversation of a session.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationCreatedEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationCreatedEvent, lambda event: print(event.type))
        ```
    """

    conversation: dict[str, Any] = {}
    event_id: str | None = None


class ConversationItemAddedEvent(ServerEvent, frozen=True, tag="conversation.item.added"):
    """An item has entered the conversation.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemAddedEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemAddedEvent, lambda event: print(event.type))
        ```
    """

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemCreatedEvent(ServerEvent, frozen=True, tag="conversation.item.created"):
    """`ConversationItemAddedEvent` by its old name, which some servers use.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemCreatedEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemCreatedEvent, lambda event: print(event.type))
        ```
    """

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemDeletedEvent(ServerEvent, frozen=True, tag="conversation.item.deleted"):
    """An item was deleted.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemDeletedEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemDeletedEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class ConversationItemDoneEvent(ServerEvent, frozen=True, tag="conversation.item.done"):
    """An item is final.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemDoneEvent, lambda event: print(event.type))
        ```
    """

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class InputAudioTranscriptionCompleted(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.completed"
):
    """What the user's speech was heard as; needs a transcription model.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioTranscriptionCompleted

        agent = Agent()
        agent.event_bus.subscribe(
            InputAudioTranscriptionCompleted, lambda event: print(event.transcript)
        )
        ```
    """

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
    """A piece of what the user's speech is heard as.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioTranscriptionDelta

        agent = Agent()
        agent.event_bus.subscribe(InputAudioTranscriptionDelta, lambda event: print(event.delta))
        ```
    """

    item_id: str = ""
    content_index: int | None = None
    delta: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    event_id: str | None = None


class InputAudioTranscriptionFailed(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed"
):
    """There is no text of the user's speech.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioTranscriptionFailed

        agent = Agent()
        agent.event_bus.subscribe(InputAudioTranscriptionFailed, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    content_index: int = 0
    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioTranscriptionSegment(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.segment"
):
    """A piece of the user's speech, and who spoke.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioTranscriptionSegment

        agent = Agent()
        agent.event_bus.subscribe(InputAudioTranscriptionSegment, lambda event: print(event.text))
        ```
    """

    item_id: str = ""
    content_index: int = 0
    text: str = ""
    id: str = ""
    end: float = 0.0
    speaker: str = ""
    start: float = 0.0
    event_id: str | None = None


class ConversationItemRetrievedEvent(ServerEvent, frozen=True, tag="conversation.item.retrieved"):
    """An item that was asked for.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemRetrievedEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemRetrievedEvent, lambda event: print(event.type))
        ```
    """

    item: Item = Item()
    event_id: str | None = None


class ConversationItemTruncatedEvent(ServerEvent, frozen=True, tag="conversation.item.truncated"):
    """An item of the assistant was cut to what was heard.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemTruncatedEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ConversationItemTruncatedEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Milliseconds of the item's sound."""
    event_id: str | None = None


class ErrorEvent(ServerEvent, frozen=True, tag="error"):
    """The server refuses something; the session stays open, mostly.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ErrorEvent

        agent = Agent()
        agent.event_bus.subscribe(ErrorEvent, lambda event: print(event.error.message))
        ```
    """

    error: ErrorBody = ErrorBody()
    event_id: str | None = None


class InputAudioBufferClearedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.cleared"):
    """Captured audio was thrown away.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferClearedEvent

        agent = Agent()
        agent.event_bus.subscribe(InputAudioBufferClearedEvent, lambda event: print(event.type))
        ```
    """

    event_id: str | None = None


class InputAudioBufferCommittedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    """The user's speech has become an item.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferCommittedEvent

        agent = Agent()
        agent.event_bus.subscribe(
            InputAudioBufferCommittedEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    previous_item_id: str | None = None
    event_id: str | None = None


class InputAudioBufferSpeechStartedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"
):
    """The user begins to speak.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferSpeechStartedEvent

        agent = Agent()
        agent.event_bus.subscribe(
            InputAudioBufferSpeechStartedEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    audio_start_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class InputAudioBufferSpeechStoppedEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"
):
    """The user has stopped speaking.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferSpeechStoppedEvent

        agent = Agent()
        agent.event_bus.subscribe(
            InputAudioBufferSpeechStoppedEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    audio_end_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class InputAudioBufferTimeoutTriggeredEvent(
    ServerEvent, frozen=True, tag="input_audio_buffer.timeout_triggered"
):
    """The user has been silent for the idle timeout of the turn detection.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferTimeoutTriggeredEvent

        agent = Agent()
        agent.event_bus.subscribe(
            InputAudioBufferTimeoutTriggeredEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    audio_end_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    audio_start_ms: int = 0
    """Milliseconds of all audio sent in this session with the server."""
    event_id: str | None = None


class McpListToolsCompletedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.completed"):
    """The list of an MCP server's tools is there.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import McpListToolsCompletedEvent

        agent = Agent()
        agent.event_bus.subscribe(McpListToolsCompletedEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class McpListToolsFailedEvent(ServerEvent, frozen=True, tag="mcp_list_tools.failed"):
    """The list of an MCP server's tools could not be had.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import McpListToolsFailedEvent

        agent = Agent()
        agent.event_bus.subscribe(McpListToolsFailedEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class McpListToolsInProgressEvent(ServerEvent, frozen=True, tag="mcp_list_tools.in_progress"):
    """An MCP server is asked for its tools.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import McpListToolsInProgressEvent

        agent = Agent()
        agent.event_bus.subscribe(McpListToolsInProgressEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class RateLimitsUpdatedEvent(ServerEvent, frozen=True, tag="rate_limits.updated"):
    """How much may be asked of the service.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import RateLimitsUpdatedEvent

        agent = Agent()
        agent.event_bus.subscribe(RateLimitsUpdatedEvent, lambda event: print(event.rate_limits))
        ```
    """

    rate_limits: list[dict[str, Any]] = []
    event_id: str | None = None


class ResponseContentPartAddedEvent(ServerEvent, frozen=True, tag="response.content_part.added"):
    """A part of an item begins.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseContentPartAddedEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseContentPartAddedEvent, lambda event: print(event.item_id))
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: dict[str, Any] = {}
    event_id: str | None = None


class ResponseContentPartDoneEvent(ServerEvent, frozen=True, tag="response.content_part.done"):
    """A part of an item is final.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseContentPartDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseContentPartDoneEvent, lambda event: print(event.item_id))
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    part: dict[str, Any] = {}
    event_id: str | None = None


class ResponseCreatedEvent(ServerEvent, frozen=True, tag="response.created"):
    """The assistant starts responding.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseCreatedEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseCreatedEvent, lambda event: print(event.response.id))
        ```
    """

    response: Response = Response()
    event_id: str | None = None


class ResponseDoneEvent(ServerEvent, frozen=True, tag="response.done"):
    """An answer has ended, whatever the outcome.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseDoneEvent, lambda event: print(event.response.status))
        ```
    """

    response: Response = Response()
    event_id: str | None = None


class ResponseFunctionCallArgumentsDeltaEvent(
    ServerEvent, frozen=True, tag="response.function_call_arguments.delta"
):
    """A piece of the arguments of a tool call.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseFunctionCallArgumentsDeltaEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseFunctionCallArgumentsDeltaEvent, lambda event: print(event.delta)
        )
        ```
    """

    response_id: str = ""
    item_id: str = ""
    call_id: str = ""
    output_index: int = 0
    delta: str = ""
    event_id: str | None = None


class FunctionCallItem(ServerEvent, frozen=True, tag="response.function_call_arguments.done"):
    """The model calls a tool.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import FunctionCallItem

        agent = Agent()
        agent.event_bus.subscribe(FunctionCallItem, lambda event: print(event.name))
        ```
    """

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
    """A call of an MCP tool has succeeded.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseMcpCallCompletedEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseMcpCallCompletedEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallFailedEvent(ServerEvent, frozen=True, tag="response.mcp_call.failed"):
    """A call of an MCP tool has failed.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseMcpCallFailedEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseMcpCallFailedEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallInProgressEvent(ServerEvent, frozen=True, tag="response.mcp_call.in_progress"):
    """An MCP tool is called.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseMcpCallInProgressEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseMcpCallInProgressEvent, lambda event: print(event.item_id)
        )
        ```
    """

    item_id: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseMcpCallArgumentsDeltaEvent(
    ServerEvent, frozen=True, tag="response.mcp_call_arguments.delta"
):
    """A piece of the arguments of an MCP call.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseMcpCallArgumentsDeltaEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseMcpCallArgumentsDeltaEvent, lambda event: print(event.delta)
        )
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    delta: str = ""
    obfuscation: str | None = None
    event_id: str | None = None


class ResponseMcpCallArgumentsDoneEvent(
    ServerEvent, frozen=True, tag="response.mcp_call_arguments.done"
):
    """The arguments of an MCP call.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseMcpCallArgumentsDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseMcpCallArgumentsDoneEvent, lambda event: print(event.item_id)
        )
        ```
    """

    response_id: str = ""
    item_id: str = ""
    arguments: str = ""
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioDeltaEvent(ServerEvent, frozen=True, tag="response.output_audio.delta"):
    """A piece of what the assistant says, as sound.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputAudioDeltaEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputAudioDeltaEvent, lambda event: print(event.delta))
        ```
    """

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
    """The sound of an item is complete.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputAudioDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputAudioDoneEvent, lambda event: print(event.item_id))
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    event_id: str | None = None


class ResponseOutputAudioTranscriptDeltaEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.delta"
):
    """A piece of what the assistant says, as text, ahead of its sound.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputAudioTranscriptDeltaEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseOutputAudioTranscriptDeltaEvent, lambda event: print(event.delta)
        )
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputAudioTranscriptDoneEvent(
    ServerEvent, frozen=True, tag="response.output_audio_transcript.done"
):
    """The whole text of what the assistant says.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputAudioTranscriptDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(
            ResponseOutputAudioTranscriptDoneEvent, lambda event: print(event.transcript)
        )
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    transcript: str = ""
    event_id: str | None = None


class ResponseOutputItemAddedEvent(ServerEvent, frozen=True, tag="response.output_item.added"):
    """An answer has a further item.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputItemAddedEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputItemAddedEvent, lambda event: print(event.type))
        ```
    """

    response_id: str = ""
    item: Item = Item()
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputItemDoneEvent(ServerEvent, frozen=True, tag="response.output_item.done"):
    """An item of an answer is final.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputItemDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputItemDoneEvent, lambda event: print(event.type))
        ```
    """

    response_id: str = ""
    item: Item = Item()
    output_index: int = 0
    event_id: str | None = None


class ResponseOutputTextDeltaEvent(ServerEvent, frozen=True, tag="response.output_text.delta"):
    """A piece of an answer in text.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputTextDeltaEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputTextDeltaEvent, lambda event: print(event.delta))
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    delta: str = ""
    event_id: str | None = None


class ResponseOutputTextDoneEvent(ServerEvent, frozen=True, tag="response.output_text.done"):
    """The whole text of an answer in text.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseOutputTextDoneEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseOutputTextDoneEvent, lambda event: print(event.text))
        ```
    """

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    text: str = ""
    event_id: str | None = None


class SessionCreatedEvent(ServerEvent, frozen=True, tag="session.created"):
    """The server has begun a session.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import SessionCreatedEvent

        agent = Agent()
        agent.event_bus.subscribe(SessionCreatedEvent, lambda event: print(event.session))
        ```
    """

    session: dict[str, Any] = {}
    event_id: str | None = None


class SessionUpdatedEvent(ServerEvent, frozen=True, tag="session.updated"):
    """The configuration of the session is in force.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import SessionUpdatedEvent

        agent = Agent()
        agent.event_bus.subscribe(SessionUpdatedEvent, lambda event: print(event.session))
        ```
    """

    session: dict[str, Any] = {}
    event_id: str | None = None


# -- what is said to the server --------------------------------------------------------------------


class ClientEvent(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """The base of the events to the server; subscribed to, it stands for all of them.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ClientEvent

        agent = Agent()
        agent.event_bus.subscribe(ClientEvent, lambda event: print(event.type))
        ```
    """

    @property
    def type(self) -> str:
        """Its name in the Realtime API."""
        return str(self.__struct_config__.tag)


class ConversationItemCreateEvent(ClientEvent, frozen=True, tag="conversation.item.create"):
    """An item is appended to the conversation.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemCreateEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemCreateEvent, lambda event: print(event.type))
        ```
    """

    item: Item = Item()
    previous_item_id: str | None = None
    event_id: str | None = None


class ConversationItemDeleteEvent(ClientEvent, frozen=True, tag="conversation.item.delete"):
    """An item is deleted from the conversation.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemDeleteEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemDeleteEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class ConversationItemRetrieveEvent(ClientEvent, frozen=True, tag="conversation.item.retrieve"):
    """The server is asked for an item.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemRetrieveEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemRetrieveEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    event_id: str | None = None


class ConversationItemTruncateEvent(ClientEvent, frozen=True, tag="conversation.item.truncate"):
    """An item of the assistant is cut to what was heard of it.

    It cannot be published: an interruption truncates by itself, where the user stopped hearing.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ConversationItemTruncateEvent

        agent = Agent()
        agent.event_bus.subscribe(ConversationItemTruncateEvent, lambda event: print(event.item_id))
        ```
    """

    item_id: str = ""
    content_index: int = 0
    audio_end_ms: int = 0
    """Milliseconds of the item's sound."""
    event_id: str | None = None


class InputAudioBufferAppendEvent(ClientEvent, frozen=True, tag="input_audio_buffer.append"):
    """Captured audio on its way to the server, 25 a second.

    Published, it is captured audio, if the agent was made with ``audio_input="program"``.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferAppendEvent

        agent = Agent()
        agent.event_bus.subscribe(InputAudioBufferAppendEvent, lambda event: print(event.type))
        ```
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
    """Captured audio that is not committed is thrown away.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferClearEvent

        agent = Agent()
        agent.event_bus.subscribe(InputAudioBufferClearEvent, lambda event: print(event.type))
        ```
    """

    event_id: str | None = None


class InputAudioBufferCommitEvent(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """Captured audio becomes an item of the user.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import InputAudioBufferCommitEvent

        agent = Agent()
        agent.event_bus.subscribe(InputAudioBufferCommitEvent, lambda event: print(event.type))
        ```
    """

    event_id: str | None = None


class ResponseCancelEvent(ClientEvent, frozen=True, tag="response.cancel"):
    """The answer under way is ended.

    Published, it interrupts, as `Agent.interrupt` does.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseCancelEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseCancelEvent, lambda event: print(event.type))
        ```
    """

    response_id: str | None = None
    event_id: str | None = None


class ResponseCreateEvent(ClientEvent, frozen=True, tag="response.create"):
    """An answer is asked for.

    Published, an answer is asked for as soon as nobody speaks; of
    ``response``, ``instructions`` can be given.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import ResponseCreateEvent

        agent = Agent()
        agent.event_bus.subscribe(ResponseCreateEvent, lambda event: print(event.type))
        ```
    """

    response: dict[str, Any] | None = None
    event_id: str | None = None


class SessionUpdateEvent(ClientEvent, frozen=True, tag="session.update"):
    """The configuration of the session is changed.

    Published, it does what `Agent.update` does; what cannot change in a session is refused.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.events import SessionUpdateEvent

        agent = Agent()
        agent.event_bus.subscribe(SessionUpdateEvent, lambda event: print(event.session))
        ```
    """

    session: dict[str, Any] = {}
    event_id: str | None = None


_KINDS: tuple[type[ServerEvent] | type[ClientEvent], ...] = (
    *ServerEvent.__subclasses__(),
    *ClientEvent.__subclasses__(),
)
_WIRE = {str(kind.__struct_config__.tag): kind for kind in _KINDS}


def wire_names(kind: type[object]) -> frozenset[str]:
    """Return the names, in the Realtime API, of the events that a class stands for."""
    return frozenset(name for name, known in _WIRE.items() if issubclass(known, kind))


def decode_wire_event(name: str, json: bytes) -> ServerEvent | ClientEvent:
    """Return an event of the Realtime API from its JSON.

    Example:
        ```python
        from rtvoice.events import decode_wire_event

        event = decode_wire_event("input_audio_buffer.cleared", b'{"event_id": "event_1"}')
        ```

    Raises:
        msgspec.ValidationError: a field is of another type than documented.
        KeyError: there is no such event.
    """
    fields = _without_nulls(msgspec.json.decode(json))
    return msgspec.convert({**fields, "type": name}, _WIRE[name], strict=False)


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the server does not know; the field's default says the same."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if value is not None
    }
