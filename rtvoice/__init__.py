"""rtvoice: voice agents on the OpenAI Realtime API, one supervised process per component.

import asyncio

from rtvoice import Agent

asyncio.run(Agent("You are a pirate.").run())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.tools.context import (
        ToolContext,
    )
    from actors.tools.errors import (
        ToolDefinitionError,
        ToolError,
    )
    from actors.tools.registry import (
        Tool,
        Tools,
    )
    from messages.errors import (
        ComponentCrashedError,
        ConfigurationError,
        EventError,
        NotRunningError,
        RtvoiceError,
        SessionFailedError,
        SupervisorDiedError,
    )
    from rtvoice.agent import (
        Agent,
        Sent,
    )
    from rtvoice.audio.devices import (
        AudioInputDevice,
        AudioOutputDevice,
    )
    from rtvoice.bus import (
        EventBus,
        EventStream,
        Subscription,
    )
    from rtvoice.checks import (
        AgentError,
    )
    from rtvoice.events import (
        AgentEvent,
        AgentStartedEvent,
        AgentStoppedEvent,
        AssistantTranscript,
        AudioLost,
        ClientEvent,
        ComponentCrashed,
        ComponentParked,
        ComponentRestarted,
        Connected,
        ConversationCreatedEvent,
        ConversationItemAddedEvent,
        ConversationItemCreatedEvent,
        ConversationItemCreateEvent,
        ConversationItemDeletedEvent,
        ConversationItemDeleteEvent,
        ConversationItemDoneEvent,
        ConversationItemRetrievedEvent,
        ConversationItemRetrieveEvent,
        ConversationItemTruncatedEvent,
        ConversationItemTruncateEvent,
        DeadLetter,
        DeviceChanged,
        DeviceFailed,
        DeviceLost,
        Disconnected,
        ErrorEvent,
        FunctionCallItem,
        InputAudioBufferAppendEvent,
        InputAudioBufferClearedEvent,
        InputAudioBufferClearEvent,
        InputAudioBufferCommitEvent,
        InputAudioBufferCommittedEvent,
        InputAudioBufferSpeechStartedEvent,
        InputAudioBufferSpeechStoppedEvent,
        InputAudioBufferTimeoutTriggeredEvent,
        InputAudioTranscriptionCompleted,
        InputAudioTranscriptionDelta,
        InputAudioTranscriptionFailed,
        InputAudioTranscriptionSegment,
        InputLevel,
        Interrupted,
        Level,
        McpListToolsCompletedEvent,
        McpListToolsFailedEvent,
        McpListToolsInProgressEvent,
        MessagesDropped,
        Notice,
        OutputAudioBufferClearEvent,
        OutputLevel,
        PlaybackEnded,
        PlaybackPaused,
        PlaybackResumed,
        RateLimitsUpdatedEvent,
        Reconnected,
        ResponseCancelEvent,
        ResponseContentPartAddedEvent,
        ResponseContentPartDoneEvent,
        ResponseCreatedEvent,
        ResponseCreateEvent,
        ResponseDoneEvent,
        ResponseEnded,
        ResponseFunctionCallArgumentsDeltaEvent,
        ResponseMcpCallArgumentsDeltaEvent,
        ResponseMcpCallArgumentsDoneEvent,
        ResponseMcpCallCompletedEvent,
        ResponseMcpCallFailedEvent,
        ResponseMcpCallInProgressEvent,
        ResponseOutputAudioDeltaEvent,
        ResponseOutputAudioDoneEvent,
        ResponseOutputAudioTranscriptDeltaEvent,
        ResponseOutputAudioTranscriptDoneEvent,
        ResponseOutputItemAddedEvent,
        ResponseOutputItemDoneEvent,
        ResponseOutputTextDeltaEvent,
        ResponseOutputTextDoneEvent,
        ResponseStarted,
        ServerError,
        ServerEvent,
        SessionCreatedEvent,
        SessionEnded,
        SessionEnding,
        SessionFailed,
        SessionStarted,
        SessionUpdatedEvent,
        SessionUpdateEvent,
        SoundFaltered,
        StopAgentCommand,
        ToolAnswer,
        ToolCall,
        Turn,
        UserInactivityTimeoutEvent,
        UserSpeechStarted,
        UserSpeechStopped,
    )
    from rtvoice.models import (
        Retirement,
        retirement_of,
    )
    from rtvoice.views import (
        AssistantVoice,
        ConversationHistory,
        ConversationTurn,
        RealtimeModel,
        RetentionRatio,
        SemanticVad,
        SentImage,
        ServerVad,
        ToolCallRecord,
        TranscriptionModel,
    )

__all__ = [
    "Agent",
    "AgentError",
    "AgentEvent",
    "AgentStartedEvent",
    "AgentStoppedEvent",
    "AssistantTranscript",
    "AssistantVoice",
    "AudioInputDevice",
    "AudioLost",
    "AudioOutputDevice",
    "ClientEvent",
    "ComponentCrashed",
    "ComponentCrashedError",
    "ComponentParked",
    "ComponentRestarted",
    "ConfigurationError",
    "Connected",
    "ConversationCreatedEvent",
    "ConversationHistory",
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
    "ConversationTurn",
    "DeadLetter",
    "DeviceChanged",
    "DeviceFailed",
    "DeviceLost",
    "Disconnected",
    "ErrorEvent",
    "EventBus",
    "EventError",
    "EventStream",
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
    "Level",
    "McpListToolsCompletedEvent",
    "McpListToolsFailedEvent",
    "McpListToolsInProgressEvent",
    "MessagesDropped",
    "NotRunningError",
    "Notice",
    "OutputAudioBufferClearEvent",
    "OutputLevel",
    "PlaybackEnded",
    "PlaybackPaused",
    "PlaybackResumed",
    "RateLimitsUpdatedEvent",
    "RealtimeModel",
    "Reconnected",
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
    "RetentionRatio",
    "Retirement",
    "RtvoiceError",
    "SemanticVad",
    "Sent",
    "SentImage",
    "ServerError",
    "ServerEvent",
    "ServerVad",
    "SessionCreatedEvent",
    "SessionEnded",
    "SessionEnding",
    "SessionFailed",
    "SessionFailedError",
    "SessionStarted",
    "SessionUpdateEvent",
    "SessionUpdatedEvent",
    "SoundFaltered",
    "StopAgentCommand",
    "Subscription",
    "SupervisorDiedError",
    "Tool",
    "ToolAnswer",
    "ToolCall",
    "ToolCallRecord",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "Tools",
    "TranscriptionModel",
    "Turn",
    "UserInactivityTimeoutEvent",
    "UserSpeechStarted",
    "UserSpeechStopped",
    "__version__",
    "retirement_of",
]

__version__ = "0.1.0"

_NAMES = {
    "actors.tools.context": "ToolContext",
    "actors.tools.errors": "ToolDefinitionError ToolError",
    "actors.tools.registry": "Tool Tools",
    "messages.errors": """
        ComponentCrashedError ConfigurationError EventError NotRunningError RtvoiceError
        SessionFailedError SupervisorDiedError
    """,
    "rtvoice.agent": "Agent Sent",
    "rtvoice.audio.devices": "AudioInputDevice AudioOutputDevice",
    "rtvoice.bus": "EventBus EventStream Subscription",
    "rtvoice.checks": "AgentError",
    "rtvoice.events": """
        AgentEvent AgentStartedEvent AgentStoppedEvent AssistantTranscript AudioLost
        ClientEvent
        ComponentCrashed ComponentParked ComponentRestarted Connected ConversationCreatedEvent
        ConversationItemAddedEvent ConversationItemCreateEvent ConversationItemCreatedEvent
        ConversationItemDeleteEvent ConversationItemDeletedEvent ConversationItemDoneEvent
        ConversationItemRetrieveEvent ConversationItemRetrievedEvent
        ConversationItemTruncateEvent ConversationItemTruncatedEvent DeadLetter
        DeviceChanged DeviceFailed DeviceLost Disconnected ErrorEvent FunctionCallItem
        InputAudioBufferAppendEvent InputAudioBufferClearEvent InputAudioBufferClearedEvent
        InputAudioBufferCommitEvent InputAudioBufferCommittedEvent
        InputAudioBufferSpeechStartedEvent InputAudioBufferSpeechStoppedEvent
        InputAudioBufferTimeoutTriggeredEvent InputAudioTranscriptionCompleted
        InputAudioTranscriptionDelta InputAudioTranscriptionFailed
        InputAudioTranscriptionSegment InputLevel Interrupted Level McpListToolsCompletedEvent
        McpListToolsFailedEvent McpListToolsInProgressEvent MessagesDropped Notice
        OutputAudioBufferClearEvent OutputLevel PlaybackEnded PlaybackPaused PlaybackResumed
        RateLimitsUpdatedEvent Reconnected
        ResponseCancelEvent ResponseContentPartAddedEvent ResponseContentPartDoneEvent
        ResponseCreateEvent ResponseCreatedEvent ResponseDoneEvent ResponseEnded
        ResponseFunctionCallArgumentsDeltaEvent ResponseMcpCallArgumentsDeltaEvent
        ResponseMcpCallArgumentsDoneEvent ResponseMcpCallCompletedEvent
        ResponseMcpCallFailedEvent ResponseMcpCallInProgressEvent ResponseOutputAudioDeltaEvent
        ResponseOutputAudioDoneEvent ResponseOutputAudioTranscriptDeltaEvent
        ResponseOutputAudioTranscriptDoneEvent ResponseOutputItemAddedEvent
        ResponseOutputItemDoneEvent ResponseOutputTextDeltaEvent ResponseOutputTextDoneEvent
        ResponseStarted ServerError ServerEvent SessionCreatedEvent SessionEnded SessionEnding
        SessionFailed SessionStarted SessionUpdateEvent SessionUpdatedEvent SoundFaltered
        StopAgentCommand
        ToolAnswer ToolCall Turn UserInactivityTimeoutEvent UserSpeechStarted UserSpeechStopped
    """,
    "rtvoice.models": "Retirement retirement_of",
    "rtvoice.views": """
        AssistantVoice ConversationHistory ConversationTurn RealtimeModel RetentionRatio
        SemanticVad SentImage ServerVad ToolCallRecord TranscriptionModel
    """,
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def _refuse_others() -> None:
    """Say which file stands in for a package of ours, as its own errors would mislead.

    A script's folder comes first on ``sys.path``, and ``messages.py`` is a likely name. Components
    are not concerned: their path has ours first.
    """
    from importlib.util import find_spec
    from pathlib import PurePath

    ours = PurePath(__file__).parent.parent
    for name in ("actors", "messages", "supervisor"):
        spec = find_spec(name)
        origin = PurePath(spec.origin) if spec is not None and spec.origin else None
        if origin is not None and ours not in (origin.parent, origin.parent.parent):
            raise ImportError(
                f"{origin} has the name of a part of rtvoice ({name}), which is imported in its "
                f"place: give it another name",
                name=name,
                path=str(origin),
            )


_refuse_others()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that nobody pays for what they do not use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
