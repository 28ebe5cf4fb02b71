"""What an agent is made of and what it returns: voices, models, turn detection, the history."""

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
    """The voices of the service; wherever one is taken, the id of a custom voice is too.

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
    """One call of a tool by the model.

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
    """JSON text as the model wrote it."""
    output: str | None = None
    """What the model was told: JSON text or a sentence. None: it has no answer yet."""
    failed: bool = False
    """Whether the tool was not found, was not run, raised, took too long, or what it answered was
    refused by the server."""


class ConversationTurn(msgspec.Struct, frozen=True):
    """Something the user or the assistant has said.

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
    """The whole text; of a user's speech empty while, and where, it is not transcribed."""
    item_id: str
    """The id of the item in the Realtime API; `messages.Turn` has the same."""
    start_s: float | None = None
    """When it began, in seconds since ``ConversationHistory.started_at``; None: not known."""
    end_s: float | None = None
    """When it ended or was cut off; of the assistant: when it was last heard."""
    interrupted: bool = False
    """Whether the assistant was interrupted before all of it was heard."""
    heard: str = ""
    """The part of ``content`` that was heard; after an interruption an estimate in proportion to
    the sound."""
    heard_ms: int | None = None
    """How much of the assistant's sound was played; None: not known (yet), or typed."""
    transcribed: bool = True
    """Whether ``content`` is what the user has said. False without a transcription model."""
    complete: bool = True
    """False: the answer was not generated to its end."""
    tool_calls: tuple[ToolCallRecord, ...] = ()
    """What the assistant has called before it said this."""
    image: SentImage | None = None
    """What the user has shown with it: ``media_type``, ``size_bytes``, ``detail``, and the ``path``
    it is kept in, until the conversation ends or, with a ``journal_path``, for good."""


class ConversationHistory(msgspec.Struct, frozen=True):
    """A conversation as far as it went; what ``await agent.stop()`` returns.

    It is plain data: ``msgspec.json.encode(history)`` writes it.

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
    """All calls in their order, also those that no turn followed."""
    started_at: datetime | None = None
    """When the conversation began, in UTC; None: it never did."""
    ended_because: str = ""
    """``inactivity timeout``, ``stop tool``, ``the program asked``, the reason of a failure, …;
    empty: it goes on."""

    def __len__(self) -> int:
        return len(self.conversation_turns)

    def __iter__(self) -> Iterator[ConversationTurn]:
        return iter(self.conversation_turns)

    def __bool__(self) -> bool:
        return True
