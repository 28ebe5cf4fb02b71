"""Measures the core of the realtime component alone, in a single process."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TypeVar

from actors.realtime import wire
from actors.realtime.core.actions import Publish
from actors.realtime.core.core import Core
from messages import (
    CapturedAudio,
    HistoryRequest,
    HistorySnapshot,
    Message,
    PlayedPosition,
    ReplayCapture,
    ReplayEnded,
    SessionInfo,
    Settings,
    ToolsAvailable,
)
from messages.transport.channel import Channel

M = TypeVar("M")
__all__ = ["DELTA_MS", "Bare", "delta_us", "events_per_s", "memory_kib", "turn"]

DELTA_MS = 100
"""Length of an audio delta, about what the service sends."""
_DELTA = base64.b64encode(bytes(48 * DELTA_MS)).decode()


class Bare:
    """A core with a live session, without its actor; it counts the actions that come out."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000
        settings = Settings(transcription_model="gpt-transcribe", inactivity_timeout_s=None)
        self.core = Core(settings, SessionInfo(epoch_ns=0, directory=""), None, self.now)
        self.published = self.captured = 0
        self.core.opened(self.now)
        self._tell(ToolsAvailable(()))
        request = self._take(HistoryRequest)
        self.core.connected(self.now)
        self.event(b'{"type":"session.created"}')
        self._tell(HistorySnapshot(request.request_id, ()))
        self.event(b'{"type":"session.updated"}')
        replay = self._take(ReplayCapture)
        self._tell(ReplayEnded(0, replay.request_id))

    def event(self, frame: bytes) -> None:
        """Pass a frame to the core, as the actor does; the caller takes the actions."""
        if self.core.server_event(wire.decode(frame), self.now):
            self.core.tick(self.now)

    def live(self, number: int) -> None:
        """Run a whole turn: captured audio, the answer and its playback, at realistic times."""
        for _ in range(2):
            self._tell(CapturedAudio(bytes(1920), self.captured, 0))
            self.captured += 960
        for frame in turn(number):
            self.event(frame)
            self.published += self.act()
        self.now += 3_000_000_000
        played = PlayedPosition(f"item_a{number}", 24 * DELTA_MS * 20, self.now, True)
        self._tell(played)
        self.act()

    def act(self) -> int:
        """Take the actions, and with them the state that is to be saved; return how many."""
        return sum(1 for _ in self.core.take())

    def _tell(self, message: Message) -> None:
        if self.core.message(message, self.now):
            self.core.tick(self.now)

    def _take(self, kind: type[M]) -> M:
        messages = [action.message for action in self.core.take() if isinstance(action, Publish)]
        return next(message for message in messages if isinstance(message, kind))


def turn(number: int) -> Iterator[bytes]:
    """Yield the server's events of a turn: speech, its transcript, and an answer of two seconds."""
    user, item, response = f"item_u{number}", f"item_a{number}", f"resp_{number}"
    ids = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
    said = {"id": item, "type": "message", "role": "assistant", "content": []}
    events: list[tuple[str, dict[str, object]]] = [
        ("input_audio_buffer.speech_started", {"item_id": user, "audio_start_ms": 10}),
        ("input_audio_buffer.speech_stopped", {"item_id": user, "audio_end_ms": 70}),
        ("input_audio_buffer.committed", {"item_id": user, "previous_item_id": None}),
        ("conversation.item.added", {"item": {"id": user, "type": "message", "role": "user"}}),
        ("conversation.item.done", {"item": {"id": user, "type": "message", "role": "user"}}),
        ("response.created", {"response": {"id": response, "status": "in_progress"}}),
        ("rate_limits.updated", {"rate_limits": []}),
        ("response.output_item.added", {"response_id": response, "output_index": 0, "item": said}),
        ("conversation.item.added", {"item": said, "previous_item_id": user}),
        ("response.content_part.added", {**ids, "part": {"type": "audio"}}),
    ]
    for _ in range(20):
        events.append(("response.output_audio_transcript.delta", {**ids, "delta": "word "}))
        events.append(("response.output_audio.delta", {**ids, "delta": _DELTA}))
    transcript = {"item_id": user, "content_index": 0, "transcript": "hello"}
    events += [
        ("conversation.item.input_audio_transcription.completed", transcript),
        ("response.output_audio.done", ids),
        ("response.output_audio_transcript.done", {**ids, "transcript": "word " * 20}),
        ("response.content_part.done", {**ids, "part": {"type": "audio"}}),
        ("conversation.item.done", {"item": {**said, "status": "completed"}}),
        ("response.output_item.done", {"response_id": response, "item": said}),
        ("response.done", {"response": {"id": response, "status": "completed", "output": []}}),
    ]
    for kind, fields in events:
        yield json.dumps({"type": kind, "event_id": "event_1234567890", **fields}).encode()


def events_per_s(seconds: float = 1.0) -> float:
    """Return how many frames a second the core handles: decoding, decisions and actions."""
    bare = Bare()
    frames = [list(turn(number)) for number in range(200)]
    count, spent = 0, 0
    numbers = itertools.cycle(range(len(frames)))
    while spent < seconds * 1e9:
        number = next(numbers)
        if number == 0:
            bare = Bare()
        begun = time.perf_counter_ns()
        for frame in frames[number]:
            bare.event(frame)
            bare.act()
        spent += time.perf_counter_ns() - begun
        count += len(frames[number])
        bare.now += 3_000_000_000
        played = PlayedPosition(f"item_a{number}", 24 * DELTA_MS * 20, bare.now, True)
        if bare.core.message(played, bare.now):
            bare.core.tick(bare.now)
    return count / (spent / 1e9)


def delta_us(count: int = 2000) -> float:
    """Return the median time from a read frame to its message on the channel, in microseconds."""
    bare = Bare()
    ours, theirs = socket.socketpair()
    threading.Thread(target=_drain, args=(theirs,), daemon=True).start()
    channel = Channel(ours)
    times = []
    for number in range(count // 20):
        for frame in turn(number):
            sound = b'"response.output_audio.delta"' in frame
            begun = time.perf_counter_ns()
            bare.event(frame)
            for action in bare.core.take():
                if isinstance(action, Publish):
                    channel.write(action.message)
            if sound:
                times.append(time.perf_counter_ns() - begun)
        bare.now += 3_000_000_000
    ours.close()
    return statistics.median(times) / 1000


def memory_kib(turns: int, progress: Callable[[int], None] = lambda _: None) -> list[float]:
    """Return the memory that the core holds, in KiB, after each tenth of these turns."""
    bare = Bare()
    sizes = []
    tracemalloc.start()
    try:
        for number in range(turns):
            bare.live(number)
            if (number + 1) % (turns // 10) == 0:
                sizes.append(tracemalloc.get_traced_memory()[0] / 1024)
                progress(number + 1)
    finally:
        tracemalloc.stop()
    return sizes


def _drain(end: socket.socket) -> None:
    while end.recv(1 << 16):
        pass
