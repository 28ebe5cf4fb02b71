"""A bench for the core: the clock is moved by hand, server and components are scripted."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import msgspec

from actors.realtime import wire
from actors.realtime.core.actions import (
    ConnectAfter,
    Disconnect,
    KeepOutput,
    Publish,
    SaveState,
    SendEvent,
    Swap,
    WriteLog,
)
from actors.realtime.core.core import Core
from actors.realtime.core.state import Saved
from messages import (
    CapturedAudio,
    ConversationItem,
    FlushPlayback,
    HistoryRequest,
    HistorySnapshot,
    Message,
    OutputReplaced,
    PlaybackFlushed,
    PlayedPosition,
    ReplayCapture,
    ReplayEnded,
    SessionInfo,
    Settings,
    ToolAnswer,
    ToolsAvailable,
    ToolSpec,
)

M = TypeVar("M", bound=Message)
NS = 1_000_000_000
MS = 1_000_000


class Spare:
    """The actions of the core for the standby connection."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.connects: list[float] = []
        self.disconnects: list[str] = []

    def items(self) -> list[dict[str, Any]]:
        return [e["item"] for e in self.sent if e["type"] == "conversation.item.create"]


class Bench:
    """One core with its clock, and what came out of it so far."""

    def __init__(
        self,
        *,
        saved: Saved | None = None,
        first: bool = True,
        resumed: Literal["", "supervisor", "journal"] = "",
        tools: tuple[ToolSpec, ...] | None = (),
        outputs: Iterable[ToolAnswer | OutputReplaced] = (),
        **settings: Any,
    ) -> None:
        self.settings = Settings(**settings)
        self.now = 1000 * NS
        info = SessionInfo(
            epoch_ns=0, directory="", server_url="ws://test/v1", first=first, resumed=resumed
        )
        self.info = info
        self.core = Core(self.settings, info, saved, self.now, outputs)
        self.published: list[Message] = []
        self.sent: list[dict[str, Any]] = []
        self.actions: list[Any] = []
        self.connects: list[float] = []
        self.disconnects: list[str] = []
        self.swaps: list[str] = []
        self.spare = Spare()
        self.ahead_s: float | None = None
        """Seconds by which our clock is ahead of the server's; None: the server sends no date."""
        self.logs: list[WriteLog] = []
        self.state = b""
        """The state that was saved last."""
        self.history: list[ConversationItem] = []
        self._numbers = itertools.count(1)
        self.core.opened(self.now)
        self.collect()
        if tools is not None:
            self.tell(ToolsAvailable(tools))

    # -- driving it ---------------------------------------------------------------------------

    def collect(self) -> None:
        for action in self.core.take():
            self.actions.append(action)
            if isinstance(action, Publish):
                self.published.append(action.message)
            elif isinstance(action, SendEvent):
                sent = self.spare.sent if action.spare else self.sent
                sent.append(msgspec.json.decode(wire.encode(action.event)))
            elif isinstance(action, ConnectAfter):
                (self.spare.connects if action.spare else self.connects).append(action.seconds)
            elif isinstance(action, Disconnect):
                (self.spare.disconnects if action.spare else self.disconnects).append(action.reason)
            elif isinstance(action, Swap):
                self.swaps.append(action.reason)
            elif isinstance(action, WriteLog):
                self.logs.append(action)
            elif isinstance(action, SaveState):
                self.state = bytes(action.state)

    def tell(self, message: Message) -> Bench:
        if self.core.message(message, self.now):
            self.core.tick(self.now)
        self.collect()
        return self

    def server(self, kind: str, *, spare: bool = False, **fields: Any) -> Bench:
        fields = {"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}
        event = wire.decode(msgspec.json.encode(fields))
        assert not isinstance(event, wire.BadFrame), event
        self.take(event, spare=spare)
        self.collect()
        return self

    def take(self, event: object, *, spare: bool = False) -> None:
        """Give the core a decoded event."""
        if self.core.server_event(event, self.now, spare=spare):
            self.core.tick(self.now)

    def wait(self, seconds: float) -> Bench:
        """Let time go by, with the ticks that the core asks for."""
        end = self.now + int(seconds * NS)
        for _ in range(10_000):
            due = self.core.next_deadline(self.now)
            if due is None or due > end:
                break
            self.now = due
            self.core.tick(self.now)
            self.collect()
        else:
            raise AssertionError("the core asks for a tick for ever")
        self.now = end
        self.core.tick(self.now)
        self.collect()
        return self

    def connect(self, *, spare: bool = False, **session: Any) -> Bench:
        """The server begins a session."""
        server_ns = None if self.ahead_s is None else self.now - int(self.ahead_s * NS)
        self.core.connected(self.now, self.now, server_ns, spare=spare)
        self.collect()
        session = {"type": "realtime", "object": "x", **session}
        return self.server("session.created", spare=spare, session=session)

    def snapshot(self) -> Bench:
        request = self.all(HistoryRequest)[-1]
        return self.tell(HistorySnapshot(request.request_id, tuple(self.history)))

    def configured(self, **session: Any) -> Bench:
        """Connect, and answer all requests until the session is live."""
        self.connect(**session)
        self.snapshot()
        return self.server("session.updated", session={"type": "realtime"})

    def prepared(self) -> Bench:
        """Wait until a second session is begun, and have it ready."""
        for _ in range(100):
            self.wait(60)
            if self.spare.connects:
                break
        self.connect(spare=True)
        self.snapshot()
        return self.server("session.updated", spare=True, session={"type": "realtime"})

    def live(self, **session: Any) -> Bench:
        """Bring a session to the point where captured audio is appended."""
        self.configured(**session)
        for replay in self.all(ReplayCapture)[-1:]:  # with push-to-talk, only if somebody talks
            self.tell(ReplayEnded(replay.from_sample, replay.request_id))
        self.clear()
        return self

    def lose(self, code: int = 1006, reason: str = "") -> Bench:
        self.core.lost(code, reason, self.now)
        self.collect()
        return self

    def restarted(self, **settings: Any) -> Bench:
        """Return a bench with a new process, which has only the saved state.

        Args:
            settings: settings that differ, or ``resumed``.
        """
        other = Bench.__new__(Bench)
        values = {f: getattr(self.settings, f) for f in self.settings.__struct_fields__}
        other.__init__(  # type: ignore[misc]
            saved=msgspec.msgpack.decode(self.state, type=Saved),
            first=False,
            tools=None,
            **{**values, **settings},
        )
        other.history = list(self.history)
        return other

    # -- looking at it ------------------------------------------------------------------------

    def outputs(self) -> list[ToolAnswer | OutputReplaced]:
        """Return what the next process is to know of."""
        kept = [action.answer for action in self.actions if isinstance(action, KeepOutput)]
        return [*kept, *self.all(OutputReplaced)]

    def clear(self) -> None:
        for seen in (self.published, self.sent, self.actions, self.connects, self.disconnects):
            seen.clear()
        self.swaps.clear()
        self.spare = Spare()

    def clear_but_requests(self) -> None:
        requests = self.all(HistoryRequest)
        self.clear()
        self.published += requests

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.published if isinstance(message, kind)]

    def one(self, kind: type[M]) -> M:
        found = self.all(kind)
        assert len(found) == 1, found
        return found[0]

    def none(self, *kinds: type[Message]) -> None:
        assert not [m for m in self.published if isinstance(m, kinds)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == kind]

    def event(self, kind: str) -> dict[str, Any]:
        found = self.events(kind)
        assert len(found) == 1, self.sent
        return found[0]

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.sent]

    def items(self) -> list[dict[str, Any]]:
        return [event["item"] for event in self.events("conversation.item.create")]

    def appended(self) -> bytes:
        return b"".join(
            base64.b64decode(event["audio"]) for event in self.events("input_audio_buffer.append")
        )

    # -- what servers and components do -------------------------------------------------------

    def capture(self, first_sample: int, count: int = 960, byte: bytes = b"\1") -> Bench:
        return self.tell(CapturedAudio(byte * (2 * count), first_sample, self.now))

    def capture_pcm(self, pcm: bytes, first_sample: int) -> Bench:
        return self.tell(CapturedAudio(pcm, first_sample, self.now))

    def speak(self, item_id: str = "u1", start_ms: float = 0, end_ms: float = 1000) -> Bench:
        """The server hears a whole turn."""
        self.server("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=start_ms)
        return self.stop_speaking(item_id, end_ms)

    def stop_speaking(self, item_id: str = "u1", end_ms: float = 1000) -> Bench:
        self.server("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=end_ms)
        self.server("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        return self.added(item_id, role="user")

    def added(self, item_id: str, previous: str | None = None, **item: Any) -> Bench:
        item = {"id": item_id, "type": "message", **item}
        return self.server("conversation.item.added", item=item, previous_item_id=previous)

    def begin(self, response_id: str = "r1", item_id: str = "a1") -> Bench:
        """The server begins an answer."""
        self.server("response.created", response={"id": response_id, "status": "in_progress"})
        return self.begin_item(response_id, item_id)

    def begin_item(self, response_id: str = "r1", item_id: str = "a1") -> Bench:
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress"}
        self.server("response.output_item.added", response_id=response_id, item=item)
        return self.added(item_id, role="assistant")

    def say(
        self,
        text: str = "Hello there",
        ms: int = 1000,
        response_id: str = "r1",
        item_id: str = "a1",
    ) -> Bench:
        ids = {"response_id": response_id, "item_id": item_id}
        self.server("response.output_audio_transcript.delta", **ids, delta=text)
        return self.audio(b"\0" * 48 * ms, **ids)

    def audio(self, pcm: bytes, response_id: str = "r1", item_id: str = "a1") -> Bench:
        return self.server(
            "response.output_audio.delta",
            response_id=response_id,
            item_id=item_id,
            content_index=0,
            delta=base64.b64encode(pcm).decode(),
        )

    def end_item(
        self,
        text: str = "Hello there",
        response_id: str = "r1",
        item_id: str = "a1",
        status: str = "completed",
        **more: Any,
    ) -> Bench:
        ids = {"response_id": response_id, "item_id": item_id}
        self.server("response.output_audio.done", **ids)
        self.server("response.output_audio_transcript.done", **ids, transcript=text)
        item = {"id": item_id, "type": "message", "role": "assistant", "status": status, **more}
        self.server("conversation.item.done", item=item)
        return self.server("response.output_item.done", response_id=response_id, item=item)

    def done(self, response_id: str = "r1", status: str = "completed", **response: Any) -> Bench:
        response = {"id": response_id, "status": status, **response}
        return self.server("response.done", response=response)

    def answer(
        self,
        response_id: str = "r1",
        item_id: str = "a1",
        text: str = "Hello there",
        ms: int = 1000,
    ) -> Bench:
        """The server gives a whole answer."""
        self.begin(response_id, item_id)
        self.say(text, ms, response_id, item_id)
        self.end_item(text, response_id, item_id)
        return self.done(response_id)

    def call(
        self,
        call_id: str = "c1",
        response_id: str = "r1",
        item_id: str = "f1",
        name: str = "clock",
        status: str = "completed",
    ) -> Bench:
        """The server has a function call written."""
        item = {
            "id": item_id,
            "type": "function_call",
            "call_id": call_id,
            "name": name,
            "status": "in_progress",
        }
        self.server("response.output_item.added", response_id=response_id, item=item)
        self.server("conversation.item.added", item=item)
        item = {**item, "status": status, "arguments": "{}"}
        return self.server("response.output_item.done", response_id=response_id, item=item)

    def played(self, item_id: str = "a1", ms: float = 1000, finished: bool = True) -> Bench:
        return self.tell(PlayedPosition(item_id, int(ms * 24), self.now, finished))

    def flushed(self, item_id: str = "a1", ms: float = 500) -> Bench:
        return self.tell(PlaybackFlushed(item_id, int(ms * 24), self.now))

    def error(self, code: str | None, intent: str = "", **fields: Any) -> Bench:
        """The server refuses the last event of a type."""
        event_id = self.events(intent)[-1]["event_id"] if intent else None
        error = {"type": "invalid_request_error", "code": code, "message": "no", **fields}
        return self.server("error", error={**error, "event_id": event_id})

    def flushes(self) -> int:
        return len(self.all(FlushPlayback))
