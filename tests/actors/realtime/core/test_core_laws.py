"""Laws of the core that hold whatever the server and the other components do."""

from __future__ import annotations

import collections
import os
import random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.realtime.core.interruption import PAUSE_NS
from actors.realtime.core.state import Saved
from messages import (
    AssistantAudio,
    CaptureEnded,
    ConversationItem,
    FlushPlayback,
    HistoryRequest,
    HistorySnapshot,
    Interrupt,
    PausePlayback,
    PlaybackFlushed,
    PlayedPosition,
    ReplayedAudio,
    ReplayEnded,
    ResumePlayback,
    SendText,
    SetSpeed,
    StartTalking,
    StopTalking,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    ToolSpec,
    UpdateSettings,
    UserTranscript,
)
from tests.actors.realtime.core.bench import NS, Bench

# More of them, and new ones each time: RTVOICE_TEST_EXAMPLES=10000
_WANTED = os.environ.get("RTVOICE_TEST_EXAMPLES")
THOROUGH = settings(
    max_examples=int(_WANTED or 150),
    derandomize=_WANTED is None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
RESPONSES, ITEMS, USERS, CALLS = ("r1", "r2", "r3"), ("a1", "a2", "a3"), ("u1", "u2"), ("c1", "c2")

responses, items, users, calls = map(st.sampled_from, (RESPONSES, ITEMS, USERS, CALLS))
ms = st.integers(0, 5000)
statuses = st.sampled_from(["completed", "cancelled", "incomplete", "failed", None])
codes = st.sampled_from(
    [
        "conversation_already_has_active_response",
        "response_cancel_not_active",
        "rate_limit_exceeded",
        "server_error",
        "session_expired",
        "odd",
        None,
    ]
)


def _op(name: str, *arguments: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


operations = st.one_of(
    _op("created", responses),
    _op("item", responses, items),
    _op("audio", responses, items, st.integers(0, 3000)),
    _op("audio_done", responses, items),
    _op("text", responses, items),
    _op("item_done", responses, items, statuses),
    _op("call", responses, calls, statuses),
    _op("done", responses, statuses, codes),
    _op("added", st.sampled_from([*ITEMS, *USERS, "t1", "out_c1"])),
    _op("speech_started", users, ms),
    _op("speech_stopped", users, ms),
    _op("committed", users),
    _op("transcript", users),
    _op("error", codes, st.booleans()),
    _op("updated"),
    _op("bad"),
    _op("capture", st.integers(0, 100_000), st.integers(0, 2000)),
    _op("replayed", st.integers(0, 100_000)),
    _op("replay_ended"),
    _op("capture_ended"),
    _op("position", items, st.integers(0, 200_000), st.booleans()),
    _op("flushed", st.sampled_from([*ITEMS, ""]), st.integers(0, 200_000)),
    _op("answer", calls, st.booleans()),
    _op("tools", st.integers(0, 2)),
    _op("speed", st.floats(0, 2)),
    _op("send_text", st.sampled_from(["t1", "t2", "t" * 40])),
    _op("interrupt"),
    _op("press"),
    _op("release", st.booleans()),
    _op("push_to_talk", st.booleans()),
    _op("snapshot", st.integers(-1, 0)),
    _op("wait", st.sampled_from([0.05, 0.4, 1.1, 2.5])),
    _op("lost", st.sampled_from([1000, 1001, 1006])),
    _op("connect_failed"),
    _op("configured"),
    _op("died"),
)


class Chaos:
    """Does anything to a core in any order, and checks that the laws hold."""

    def __init__(self, interruption: str = "immediate") -> None:
        self.bench = Bench(
            inactivity_timeout_s=None,
            transcription_model="gpt-transcribe",
            greeting="Hi",
            interruption=interruption,
        ).live()
        self.paused = False
        self.received: collections.Counter[str] = collections.Counter()
        self.played: collections.Counter[str] = collections.Counter()
        self.playing_later: set[str] = set()
        self.outputs: collections.Counter[str] = collections.Counter()
        self.run: collections.Counter[str] = collections.Counter()
        self.transcripts: collections.Counter[str] = collections.Counter()
        self.next_sample: dict[str, int] = {}
        self.create_ns: int | None = None
        self.active: str | None = None
        self.active_ns = 0

    def do(self, name: str, *arguments: Any) -> None:
        getattr(self, f"do_{name}")(*arguments)
        self.check()

    def check(self) -> None:
        bench = self.bench
        for event in bench.sent:
            match event["type"]:
                case "response.create":
                    late = self.create_ns is not None and bench.now - self.create_ns >= 10 * NS
                    silent = bench.now - self.active_ns >= 30 * NS
                    assert self.create_ns is None or late, "asked while asked"
                    assert self.active is None or silent, "asked while active"
                    self.create_ns = bench.now
                case "conversation.item.truncate":
                    item, end = event["item_id"], event["audio_end_ms"] * 24
                    assert end <= self.received[item]
                    assert end <= self.played[item] or item in self.playing_later
                case "conversation.item.create":
                    item = event["item"]
                    assert len(item["id"]) <= 32
                    if item["type"] == "function_call_output":
                        self.outputs[item["call_id"]] += 1
                        assert self.outputs[item["call_id"]] == 1, "two outputs of one call"
                case "session.update":
                    if "voice" not in str(event):
                        assert "speed" not in str(event) or self.active is None
        for message in bench.published:
            if isinstance(message, ToolCall):
                self.run[message.call_id] += 1
                assert self.run[message.call_id] == 1
            elif isinstance(message, UserTranscript) and not message.error:
                self.transcripts[message.item_id] += 1
                assert self.transcripts[message.item_id] == 1
            elif isinstance(message, AssistantAudio) and message.pcm:
                assert len(message.pcm) % 2 == 0
                assert message.first_sample == self.next_sample.get(message.item_id, 0)
                self.next_sample[message.item_id] = message.first_sample + len(message.pcm) // 2
                self.received[message.item_id] += len(message.pcm) // 2
            elif isinstance(message, PausePlayback):
                assert not self.paused, "paused twice"
                self.paused = True
            elif isinstance(message, ResumePlayback | FlushPlayback):
                self.paused = False
        assert self.paused == (bench.core.saved.paused_by is not None)
        self.check_state()
        deadline = bench.core.next_deadline(bench.now)
        assert deadline is None or deadline > bench.now
        requests = bench.all(HistoryRequest)[-1:]
        bench.clear()
        bench.published += requests

    def check_state(self) -> None:
        """Assert that the current state is saved, except for the amount of audio received."""
        core = self.bench.core
        handed_out = msgspec.msgpack.decode(self.bench.state, type=Saved)
        playing = {item.item_id: item for item in core._context.playback.queue()}
        for was in handed_out.playing:
            assert was.samples <= playing[was.item_id].received
        assert {was.item_id: was.complete for was in handed_out.playing} == {
            item_id: item.complete for item_id, item in playing.items()
        }
        assert msgspec.structs.replace(handed_out, playing=core.saved.playing) == core.saved

    def _session_over(self) -> None:
        self.outputs.clear()
        self.next_sample.clear()
        self.create_ns = self.active = None

    # -- the server ---------------------------------------------------------------------------

    def do_created(self, response: str) -> None:
        if self.bench.core.phase.name == "LIVE":
            self.active, self.active_ns, self.create_ns = response, self.bench.now, None
        self.bench.server("response.created", response={"id": response})

    def _alive(self, response: str) -> None:
        if response == self.active:
            self.active_ns = self.bench.now

    def do_item(self, response: str, item: str) -> None:
        self._alive(response)
        self.bench.begin_item(response, item)

    def do_audio(self, response: str, item: str, size: int) -> None:
        self._alive(response)
        self.bench.audio(b"\0" * size, response, item)

    def do_audio_done(self, response: str, item: str) -> None:
        self._alive(response)
        self.bench.server("response.output_audio.done", response_id=response, item_id=item)

    def do_text(self, response: str, item: str) -> None:
        self._alive(response)
        ids = {"response_id": response, "item_id": item}
        self.bench.server("response.output_audio_transcript.delta", **ids, delta="one two ")

    def do_item_done(self, response: str, item: str, status: str | None) -> None:
        self._alive(response)
        done = {"id": item, "type": "message", "status": status}
        self.bench.server("response.output_item.done", response_id=response, item=done)

    def do_call(self, response: str, call: str, status: str | None) -> None:
        self._alive(response)
        self.bench.call(call, response, f"f{call}", status=status)  # type: ignore[arg-type]

    def do_done(self, response: str, status: str | None, code: str | None) -> None:
        if response == self.active:
            self.active = None
        details = {"error": {"type": None, "code": code}, "reason": None}
        self.bench.done(response, status=status, status_details=details)  # type: ignore[arg-type]

    def do_added(self, item: str) -> None:
        self.bench.added(item)

    def do_speech_started(self, item: str, at: int) -> None:
        self.bench.server("input_audio_buffer.speech_started", item_id=item, audio_start_ms=at)

    def do_speech_stopped(self, item: str, at: int) -> None:
        self.bench.server("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=at)

    def do_committed(self, item: str) -> None:
        self.bench.server("input_audio_buffer.committed", item_id=item)

    def do_transcript(self, item: str) -> None:
        kind = "conversation.item.input_audio_transcription.completed"
        self.bench.server(kind, item_id=item, transcript="Hello")

    def do_error(self, code: str | None, about_create: bool) -> None:
        asked = self.bench.core._context.responses.asked
        event_id = asked.event_id if asked is not None and about_create else None
        if event_id or code == "conversation_already_has_active_response":
            self.create_ns = None
        if code == "response_cancel_not_active":
            self.active = None
        error = {"type": None, "code": code, "message": "no", "event_id": event_id}
        self.bench.server("error", error=error)
        if code == "session_expired" and self.bench.core.phase.name == "OFFLINE":
            self._session_over()

    def do_updated(self) -> None:
        self.bench.server("session.updated", session={})

    def do_bad(self) -> None:
        from actors.realtime import wire

        self.bench.take(wire.BadFrame("x"))
        self.bench.collect()

    # -- the other components -----------------------------------------------------------------

    def do_capture(self, first: int, count: int) -> None:
        self.bench.capture(first, count)

    def do_replayed(self, first: int) -> None:
        request = self.bench.core._context.capture._request_id
        self.bench.tell(ReplayedAudio(b"\0" * 1920, first, request))

    def do_replay_ended(self) -> None:
        self.bench.tell(ReplayEnded(0, self.bench.core._context.capture._request_id))

    def do_capture_ended(self) -> None:
        self.bench.tell(CaptureEnded(10**12))

    def do_position(self, item: str, played: int, finished: bool) -> None:
        self.played[item] = max(self.played[item], played)
        if finished:
            self.playing_later.update(ITEMS)
        self.bench.tell(PlayedPosition(item, played, self.bench.now, finished))

    def do_flushed(self, item: str, played: int) -> None:
        self.played[item] = max(self.played[item], played)
        if item:  # what was queued before it has been played
            self.playing_later.update(other for other in ITEMS if other != item)
        self.bench.tell(PlaybackFlushed(item, played))

    def do_answer(self, call: str, respond: bool) -> None:
        self.bench.tell(ToolAnswer(call, "clock", "12:00", respond=respond))

    def do_tools(self, count: int) -> None:
        specs = tuple(ToolSpec(f"tool{n}", "", {}) for n in range(count))
        self.bench.tell(ToolsAvailable(specs))

    def do_speed(self, speed: float) -> None:
        self.bench.tell(SetSpeed(speed))

    def do_send_text(self, item: str) -> None:
        self.bench.tell(SendText("Hello", item))

    def do_interrupt(self) -> None:
        self.bench.tell(Interrupt())

    def do_press(self) -> None:
        self.bench.tell(StartTalking())

    def do_release(self, respond: bool) -> None:
        self.bench.tell(StopTalking(respond=respond))

    def do_push_to_talk(self, on: bool) -> None:
        vad = None if on else {"type": "server_vad"}
        self.bench.tell(UpdateSettings({"turn_detection": vad}))

    def do_snapshot(self, offset: int) -> None:
        requests = self.bench.all(HistoryRequest)
        if requests:
            history = (
                ConversationItem("u1", "message", "user", "Hello"),
                ConversationItem("fc1", "function_call", call_id="c1", name="clock"),
                ConversationItem("oc1", "function_call_output", call_id="c1", output="1"),
                ConversationItem("a1", "message", "assistant", "Well", complete=False),
            )
            self.bench.tell(HistorySnapshot(requests[-1].request_id + offset, history))

    def do_wait(self, seconds: float) -> None:
        # In steps, so that the laws are checked at the time things happen.
        for _ in range(5):
            self.bench.wait(seconds / 5)
            if self.bench.core.phase.name == "OFFLINE":
                self._session_over()
            self.check()

    # -- connection and process ---------------------------------------------------------------

    def do_lost(self, code: int) -> None:
        self.bench.lose(code)
        self._session_over()

    def do_connect_failed(self) -> None:
        if self.bench.core.phase.name == "OFFLINE":
            self.bench.core.connect_failed(0, "", "refused", self.bench.now)
            self.bench.collect()

    def do_configured(self) -> None:
        if self.bench.core.phase.name == "OFFLINE":
            self.bench.connect()
            self.bench.snapshot()
            self.bench.server("session.updated", session={})

    def do_died(self) -> None:
        now = self.bench.now
        self.bench = self.bench.restarted()
        self.bench.now = now
        self._session_over()
        # What the dead process had told may be told again; what it had sent is gone.
        self.run.clear()
        self.transcripts.clear()
        self.next_sample.clear()


@THOROUGH
@given(st.lists(operations, max_size=60), st.sampled_from(["immediate", "confirmed"]))
def test_whatever_happens_the_laws_hold(steps: list[tuple[Any, ...]], interruption: str) -> None:
    chaos = Chaos(interruption)

    for step in steps:
        chaos.do(*step)
    chaos.do("wait", PAUSE_NS / NS)
    assert not chaos.paused

    raw = msgspec.msgpack.encode(chaos.bench.core.saved)
    assert msgspec.msgpack.decode(raw, type=Saved) == chaos.bench.core.saved


class FairServer:
    """A server that behaves as the real one; the test decides when it does its next step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.marks = seed % 2 == 0
        """Whether the server returns the metadata of responses."""
        self.decides = seed % 4 < 2
        """Whether speech makes the server interrupt responses, and begin new ones."""
        interruption = "immediate" if self.decides else "confirmed"
        self.bench = Bench(inactivity_timeout_s=None, tools=(), interruption=interruption).live()
        self.inbox: collections.deque[dict[str, Any]] = collections.deque()
        self.outbox: collections.deque[tuple[str, dict[str, Any]]] = collections.deque()
        self.numbers = collections.Counter[str]()
        self.active: str | None = None
        self.steps = 0
        self.refused = 0
        self.open_calls: list[str] = []
        self.unanswered: list[str] = []
        """Items of the conversation that the model has not answered."""
        self.sample = 0
        self.flushes: collections.deque[None] = collections.deque()

    def number(self, kind: str) -> str:
        self.numbers[kind] += 1
        return f"{kind}{self.numbers[kind]}"

    # -- moves --------------------------------------------------------------------------------

    def move(self) -> None:
        moves = [self.client_hears, self.server_reads, self.server_speaks, self.others]
        self.random.choice(moves)()
        self.collect()

    def collect(self) -> None:
        for event in self.bench.sent:
            if event["type"] not in ("input_audio_buffer.append", "session.update"):
                self.inbox.append(event)
        self.flushes.extend(None for _ in range(self.bench.flushes()))
        self.open_calls += [call.call_id for call in self.bench.all(ToolCall)]
        self.bench.clear()

    def say(self, kind: str, **fields: Any) -> None:
        self.outbox.append((kind, fields))

    def client_hears(self) -> None:
        if self.outbox:
            kind, fields = self.outbox.popleft()
            self.bench.server(kind, **fields)

    def server_reads(self) -> None:
        if not self.inbox:
            return
        event = self.inbox.popleft()
        match event["type"]:
            case "response.create" if self.active is not None:
                self.refused += 1
                code = "conversation_already_has_active_response"
                self.say("error", error={"code": code, "event_id": event["event_id"]})
            case "response.create":
                self.begin(event["response"]["metadata"] if self.marks else None)
            case "response.cancel" if self.active == event["response_id"]:
                self.end("cancelled", "client_cancelled")
            case "conversation.item.delete":
                self.unanswered = [i for i in self.unanswered if i != event["item_id"]]
            case "response.cancel":
                code = "response_cancel_not_active"
                self.say("error", error={"code": code, "event_id": event["event_id"]})
            case "conversation.item.create":
                item = event["item"]
                self.say("conversation.item.added", item=item)
                if item["type"] == "message" or item["output"] != "quiet":
                    self.unanswered.append(item["id"])

    def begin(self, metadata: dict[str, str] | None = None) -> None:
        self.active, self.steps = self.number("r"), 3
        self.unanswered.clear()
        self.say("response.created", response={"id": self.active, "metadata": metadata})

    def end(self, status: str, reason: str | None = None) -> None:
        response = {"id": self.active, "status": status, "status_details": {"reason": reason}}
        self.say("response.done", response=response)
        self.active = None

    def server_speaks(self) -> None:
        if self.active is None:
            return
        self.steps -= 1
        if self.steps == 0:
            self.end("completed")
        elif self.random.random() < 0.3:
            call_id = self.number("c")
            item = {"id": f"f{call_id}", "type": "function_call", "call_id": call_id}
            item |= {"name": "clock", "arguments": "{}", "status": "completed"}
            self.say("response.output_item.done", response_id=self.active, item=item)
        else:
            ids = {"response_id": self.active, "item_id": f"a{self.active}"}
            self.say("response.output_audio.delta", **ids, delta="AAAAAAAA")
            self.say("response.output_audio.done", **ids)

    def others(self) -> None:
        bench = self.bench
        match self.random.randrange(6):
            case 0 if self.open_calls:
                call = self.open_calls.pop(self.random.randrange(len(self.open_calls)))
                bench.tell(ToolAnswer(call, "clock", "12:00"))
            case 1 if self.random.random() < 0.2:
                bench.tell(SendText("Well?", self.number("t")))
            case 2 if self.random.random() < 0.2:
                self.user_speaks()
            case 3 if self.flushes:
                self.flushes.popleft()
                bench.tell(PlaybackFlushed("", 0))
            case 4:
                for item in bench.core._context.playback.queue():
                    bench.tell(PlayedPosition(item.item_id, item.received, bench.now, True))
            case 5:
                bench.capture(self.sample)
                self.sample += 960
                bench.wait(0.04)

    def user_speaks(self) -> None:
        item = self.number("u")
        self.say("input_audio_buffer.speech_started", item_id=item, audio_start_ms=0)
        if self.active is not None and self.decides:
            self.end("cancelled", "turn_detected")
        self.say("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=0)
        self.say("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        if self.decides:
            self.begin()
        else:
            self.unanswered.append(item)

    def settle(self) -> None:
        """Let time pass until nothing more happens."""
        for _ in range(2000):
            self.client_hears()
            self.server_reads()
            self.server_speaks()
            while self.open_calls:
                self.bench.tell(ToolAnswer(self.open_calls.pop(), "clock", "12:00"))
            self.bench.wait(0.05)
            self.collect()
            if not (self.inbox or self.outbox or self.active or self.open_calls):
                if not self.bench.core._context.responses.busy():
                    return
        raise AssertionError("the conversation does not come to rest")


@THOROUGH
@given(st.integers(0, 2**32))
def test_with_a_fair_server_everything_is_answered_in_the_end(seed: int) -> None:
    world = FairServer(seed)

    for _ in range(150):
        world.move()
    world.settle()

    assert world.unanswered == []
    assert world.bench.core.saved.calls == []
    assert world.bench.core.saved.texts == []
    assert not [m for m in world.bench.published if isinstance(m, FlushPlayback)]
