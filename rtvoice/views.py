"""Types of an agent's parameters and results: voices, models, turn detection, the history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from messages import RetentionRatio, SemanticVad, SentImage, ServerVad
from rtvoice.models import RealtimeModel, TranscriptionModel

__all__ = [
    "AssistantVoice",
    "ConversationHistory",
    "ConversationTurn",
    "RealtimeModel",
    "RetentionRatio",
    "SemanticVad",
    "SentImage",
    "ServerVad",
    "ToolCallRecord",
    "TranscriptionModel",
]


class AssistantVoice(StrEnum):
    """The voices of the service. The id of a custom voice is accepted wherever one of these is.

    The service recommends ``MARIN`` (the default) and ``CEDAR``.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.views import AssistantVoice

        agent = Agent(voice=AssistantVoice.CEDAR)
        ```
    """

    ALLOY = "alloy"
    ECHO = "echo"
    SHIMMER = "shimmer"
    ASH = "ash"
    BALLAD = "ballad"
    CORAL = "coral"
    SAGE = "sage"
    VERSE = "verse"
    MARIN = "marin"
    CEDAR = "cedar"


class ToolCallRecord(msgspec.Struct, frozen=True):
    """One call of a tool by the model, with its output.

    Example:
        ```python
        from rtvoice.views import ConversationHistory

        def failures(history: ConversationHistory) -> list[str]:
            return [call.name for call in history.tool_calls if call.failed]
        ```
    """

    call_id: str
    """The id of the call in the Realtime API."""
    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    output: str | None = None
    """The output that the model got: JSON text or a sentence; None: there is none yet."""
    failed: bool = False
    """Whether the tool was not found, was not run, raised or took too long, or the server refused
    its output."""


class ConversationTurn(msgspec.Struct, frozen=True):
    """One turn of the user or of the assistant.

    Example:
        ```python
        from rtvoice.views import ConversationHistory

        def print_out(history: ConversationHistory) -> None:
            for turn in history.conversation_turns:
                cut = " [interrupted]" if turn.interrupted else ""
                print(f"{turn.role}: {turn.content}{cut}")
        ```
    """

    role: Literal["user", "assistant"]
    content: str
    """The whole text. Empty for speech of the user that is not transcribed, or not yet."""
    item_id: str
    """The id of the item in the Realtime API; the same as in the event `Turn`."""
    start_s: float | None = None
    """When it began, in seconds since ``ConversationHistory.started_at``; None: not known."""
    end_s: float | None = None
    """When it ended or was cut off, in the same unit; for the assistant, when it was last heard."""
    interrupted: bool = False
    """Whether the assistant was interrupted before the whole answer was heard."""
    heard: str = ""
    """The part of ``content`` that was heard. After an interruption it is an estimate: the share of
    the text equals the share of the audio that was played."""
    heard_ms: int | None = None
    """Milliseconds of the assistant's audio that were played; None: not known yet, or no audio."""
    transcribed: bool = True
    """Whether ``content`` has the words of the turn; False for speech without a transcript."""
    complete: bool = True
    """Whether the model has generated the whole answer."""
    tool_calls: tuple[ToolCallRecord, ...] = ()
    """The tools that the assistant has called before it said this."""
    image: SentImage | None = None
    """The image that the user has shown: ``media_type``, ``size_bytes``, ``detail``, and the
    ``path`` of its file, which is deleted when the conversation ends, or kept permanently if there
    is a ``journal_path``."""


class ConversationHistory(msgspec.Struct, frozen=True):
    """A conversation so far, or to its end; ``await agent.stop()`` returns it.

    It is plain data: ``msgspec.json.encode(history)`` returns it as JSON.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent

        async def main() -> None:
            agent = Agent(server="sandbox", audio_input="silence", audio_output="null")
            async with agent:
                agent.send_text("what is your name")
                agent.send_text("stop")
            history = await agent.stop()
            for turn in history.conversation_turns:
                print(f"{turn.role}: {turn.content}")

        asyncio.run(main())
        ```
    """

    conversation_turns: list[ConversationTurn] = []
    """In the order of the conversation."""
    tool_calls: list[ToolCallRecord] = []
    """All tool calls in their order, including those that no turn followed."""
    started_at: datetime | None = None
    """When the conversation began, in UTC; None: it has not begun."""
    ended_because: str = ""
    """``inactivity timeout``, ``stop tool``, ``budget``, ``the program asked``, the reason of a
    failure, …; empty: the conversation has not ended."""

    def __len__(self) -> int:
        return len(self.conversation_turns)

    def __iter__(self) -> Iterator[ConversationTurn]:
        return iter(self.conversation_turns)

    def __bool__(self) -> bool:
        return True
