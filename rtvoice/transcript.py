"""The transcript of a conversation, kept in the program so that it outlives the supervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from actors.conversation import ITEM_MESSAGES, Conversation
from messages import (
    SAMPLE_RATE,
    AssistantItem,
    ConversationItem,
    Interrupted,
    Message,
    OutputReplaced,
    PlaybackEnded,
    SessionStarted,
    ToolAnswer,
    UserItem,
)
from rtvoice.views import ConversationHistory, ConversationTurn, ToolCallRecord

__all__ = ["Transcript"]


class _SoundTimes(msgspec.Struct):
    """When an item was spoken, in seconds since the start of the session; None: not known."""

    start_s: float | None = None
    end_s: float | None = None
    heard_ms: int | None = None


class Transcript:
    """Collects the messages of a session, and returns them as a history.

    Messages arrive on one thread; `history` may be called on any. Items have the same order as in
    the history component, since both use `actors.conversation.Conversation`.
    """

    kinds: tuple[type[Message], ...] = (*ITEM_MESSAGES, PlaybackEnded, SessionStarted)
    """The types of messages that it needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conversation = Conversation()
        self._sounds: dict[str, _SoundTimes] = {}
        self._failed: set[str] = set()
        self._epoch_ns = 0
        self._started_at: datetime | None = None

    def restore(self, messages: Iterable[Message]) -> None:
        """Begin with the messages of an earlier session, from its journal."""
        with self._lock:
            for message in messages:
                self._conversation.apply(message, 0.0)

    def take(self, message: Message) -> None:
        """Record a message."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if isinstance(message, ITEM_MESSAGES):
                self._conversation.apply(message, now_ns / 1e9)
            self._record_times(message, now_ns)

    def _record_times(self, message: Message, now_ns: int) -> None:
        """Record when an item was spoken, and which tool calls have failed."""
        now_s = round((now_ns - self._epoch_ns) / 1e9, 3)
        match message:
            case SessionStarted():
                self._epoch_ns = message.epoch_ns or now_ns
                since = timedelta(microseconds=(now_ns - self._epoch_ns) // 1000)
                self._started_at = datetime.now(UTC) - since
            case UserItem():
                first, last = message.first_sample, message.last_sample
                self._sounds[message.item_id] = _SoundTimes(first / SAMPLE_RATE, last / SAMPLE_RATE)
                if not message.spoken:
                    self._sounds[message.item_id] = _SoundTimes(now_s, now_s)
            case AssistantItem():
                sound = self._sounds.setdefault(message.item_id, _SoundTimes(now_s))
                if sound.heard_ms is None:  # playback has not ended, which knows the time better
                    sound.end_s = now_s
            case PlaybackEnded(item_id, heard_ms) | Interrupted(item_id, heard_ms):
                start_s = round(now_s - heard_ms / 1000, 3)
                self._sounds[item_id] = _SoundTimes(start_s, now_s, heard_ms)
            case ToolAnswer(call_id=call_id, failed=True) | OutputReplaced(call_id=call_id):
                self._failed.add(call_id)

    def history(self, ended_because: str = "") -> ConversationHistory:
        """Return the conversation so far."""
        with self._lock:
            items = self._conversation.items()
            calls = self._calls(items)
            turns: list[ConversationTurn] = []
            since_user: list[ToolCallRecord] = []
            for item in items:
                if item.kind == "function_call":
                    since_user.append(calls[item.call_id])
                elif item.kind == "message" and (turn := self._turn(item)) is not None:
                    if turn.role == "assistant" and since_user:
                        turn = msgspec.structs.replace(turn, tool_calls=tuple(since_user))
                    since_user = []
                    turns.append(turn)
            return ConversationHistory(turns, list(calls.values()), self._started_at, ended_because)

    def _turn(self, item: ConversationItem) -> ConversationTurn | None:
        content = self._conversation.text_of(item.item_id)
        sound = self._sounds.get(item.item_id, _SoundTimes())
        if item.role == "assistant" and not content and sound.heard_ms is None:
            return None  # the assistant has not said anything yet
        return ConversationTurn(
            item.role,
            content,
            item.item_id,
            sound.start_s,
            sound.end_s,
            item.interrupted,
            item.text if item.interrupted else content,
            sound.heard_ms,
            item.transcribed,
            item.complete,
            image=item.image,
        )

    def _calls(self, items: tuple[ConversationItem, ...]) -> dict[str, ToolCallRecord]:
        outputs = {
            item.call_id: item.output for item in items if item.kind == "function_call_output"
        }
        return {
            item.call_id: ToolCallRecord(
                item.call_id,
                item.name,
                item.arguments,
                outputs.get(item.call_id),
                item.call_id in self._failed,
            )
            for item in items
            if item.kind == "function_call"
        }
