"""Sends events to one client, and injects the faults that a test has commanded."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from rtvoice.sandbox.faults import GARBAGE, LATE_EVENTS, SERVER_EVENTS, Event, Fault, Faults

__all__ = ["ClientLine"]

_FRAGMENTS_HZ: Final = 10
"""Fragments per second of a message that is sent slowly (`trickle`)."""
_MADE_UP_DELTA: Final = {
    "type": "response.output_audio.delta",
    "event_id": "event_garbage",
    "response_id": "resp_garbage",
    "item_id": "item_garbage",
    "output_index": 0,
    "content_index": 0,
    "delta": "AAAAAAAA",
}
_NEW_EVENT: Final = {
    "type": "response.thought.delta",
    "event_id": "event_newer",
    "delta": "Hm.",
}
_UNORDERED: Final = (
    {"conversation.item.done", "response.output_item.done"},
    {"response.output_audio.done", "response.output_audio_transcript.done"},
    {"response.output_audio.delta", "response.output_audio_transcript.delta"},
)
"""Pairs of events whose order the protocol does not define."""


class ClientLine:
    """The sending side of a connection to a client.

    It has more attributes than other classes: each way in which the line can misbehave needs its
    own.

    Args:
        client: The websocket.
        act: Carries out the faults that need the session, `fail` and `expire`.
        spawn: Runs a task until the connection ends.
        watch: Called with each event when it is sent.
    """

    # Most of its attributes are the faults in force.

    def __init__(
        self,
        client: ServerConnection,
        act: Callable[[Fault], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.items_split = False
        """Whether each spoken sentence becomes a separate item (fault `items`)."""
        self._client = client
        self._act = act
        self._spawn = spawn
        self._watch = watch
        self._faults: Faults | None = None
        self._is_mute = False
        self._is_paused = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._writing = asyncio.Lock()
        self._bytes_per_s = 0
        self._order: random.Random | None = None
        self._is_newer = False
        self._latency_s = 0.0
        self._delayed: deque[tuple[float, Event]] = deque()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._late: dict[str, deque[tuple[Event, list[float | asyncio.Event]]]] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self._last_delta: Event = _MADE_UP_DELTA

    @property
    def is_faulty(self) -> bool:
        """Whether any fault was commanded."""
        return self._faults is not None

    @property
    def is_open(self) -> bool:
        """Whether the connection is open."""
        return self._client.state is State.OPEN and not self._client.transport.is_closing()

    async def command(self, fault: Fault) -> None:
        """Inject a fault, at once or when its event comes."""
        if self._faults is None:
            self._faults = Faults()
        match fault.action:
            case "reorder":
                self._order = random.Random(int(fault.value))
            case "newer":
                self._is_newer = True
            case "items":
                self.items_split = True
            case "refuse":
                pass  # the handshake is over
            case "delay" if not fault.when:
                self._latency_s = float(fault.value)
            case _ if fault.when:
                self._faults.add(fault)
            case _:
                await self._strike(fault)

    async def before(self, kind: str) -> None:
        """Inject the faults that come before an event of the client is handled."""
        await self._strike_due(kind, "before")

    async def after(self, kind: str) -> None:
        """Inject the faults that come after an event of the client, before its answer is sent."""
        await self._strike_due(kind, "after")

    async def _strike_due(self, kind: str, when: str) -> None:
        if self._faults is not None:
            for fault in self._faults.due(when, kind):
                await self._strike(fault)

    async def send(self, events: list[Event]) -> None:
        """Send events in this order, unless a fault changes it."""
        if self._order is not None:
            _shuffle(events, self._order)
        for event in events:
            if self._faults is None:
                await self._write(event)
            elif self._latency_s:
                self._send_delayed(event, self._faults)
            else:
                await self._send_faultily(event, self._faults)

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, after all delayed events were sent."""
        await self._all_sent.wait()
        await self._client.close(code, reason)

    def _send_delayed(self, event: Event, faults: Faults) -> None:
        """Send an event after the latency, and after all earlier events."""
        due = asyncio.get_running_loop().time() + self._latency_s
        self._delayed.append((due, event))
        if self._all_sent.is_set():
            self._all_sent.clear()
            self._spawn(self._deliver(faults))

    async def _deliver(self, faults: Faults) -> None:
        while self._delayed:
            due, event = self._delayed.popleft()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._send_faultily(event, faults)
        self._all_sent.set()

    async def _send_faultily(self, event: Event, faults: Faults) -> None:
        kind = event["type"]
        await self._strike_due(kind, "before")
        changes = faults.due("of", kind)
        if any(fault.action == "omit" for fault in changes):
            return
        waits = [self._wait_of(fault.value) for fault in changes]
        lane = _lane_of(event)
        # An event of a lane that is already late must wait too, so that the lane keeps its order.
        if lane and (waits or lane in self._late):
            if lane not in self._late:
                self._late[lane] = deque()
                self._spawn(self._send_late(lane))
            self._late[lane].append((event, waits))
            return
        for each in waits:
            await _wait_for(each)
        await self._write_and_strike(event)

    async def _send_late(self, lane: str) -> None:
        waiting = self._late[lane]
        while waiting:
            event, waits = waiting[0]
            for each in waits:
                await _wait_for(each)
            await self._write_and_strike(event)
            waiting.popleft()
        del self._late[lane]

    def _wait_of(self, value: str) -> float | asyncio.Event:
        if value in SERVER_EVENTS:
            return self._awaited.setdefault(value, asyncio.Event())
        return float(value)

    async def _write_and_strike(self, event: Event) -> None:
        kind = event["type"]
        await self._write(_newer(event) if self._is_newer else event)
        if kind == "response.output_audio.delta":
            self._last_delta = event
        if self._is_newer and kind == "response.created":
            await self._write(_NEW_EVENT)
        awaited = self._awaited.pop(kind, None)
        if awaited is not None:
            awaited.set()
        await self._strike_due(kind, "after")

    async def _write(self, event: Event) -> None:
        if await self._can_write():
            if self._watch is not None:
                self._watch(event)
            await self._write_text(msgspec.json.encode(event))

    async def _can_write(self) -> bool:
        await self._may_write.wait()
        return not self._is_mute

    async def _write_text(self, data: bytes, *, text: bool = True) -> None:
        with contextlib.suppress(ConnectionClosed):
            # One message at a time: no other may come between the fragments of a slow one.
            async with self._writing:
                if self._bytes_per_s and text:
                    await self._client.send(_fragments(data, self._bytes_per_s))
                else:
                    await self._client.send(data, text=text)

    # Faults.

    async def _strike(self, fault: Fault) -> None:
        value = fault.value
        match fault.action:
            case "drop":
                self._cut()
            case "reset":
                self._reset()
            case "close":
                code, _, reason = value.partition(" ")
                await self._client.close(int(code), reason)
            case "stall":
                self._stall(float(value))
            case "silence":
                self._fall_silent(float(value))
            case "trickle":
                self._bytes_per_s = int(value)
            case "garbage":
                await self._write_garbage(value)
            case "send" if await self._can_write():
                await self._write_text(value.encode())
            case "error":
                await self._write(_error(*value.partition(" ")[::2]))
            case "fail" | "expire" | "ids":
                self._spawn(self._act(fault))

    def _cut(self) -> None:
        self._is_mute = True
        with contextlib.suppress(OSError):
            self._raw().shutdown(socket.SHUT_RDWR)
        self._client.transport.abort()

    def _reset(self) -> None:
        # A socket with a linger time of 0 is closed with RST (socket(7)).
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        self._raw().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._is_mute = True
        self._client.transport.abort()

    def _raw(self) -> Any:
        return self._client.transport.get_extra_info("socket")

    async def _write_garbage(self, kind: str) -> None:
        data = GARBAGE[kind](self._last_delta)
        if kind == "frame":
            assert isinstance(data, bytes)
            self._client.transport.write(data)
        elif await self._can_write():
            data = data.encode() if isinstance(data, str) else data
            await self._write_text(data, text=kind != "binary")

    def _stall(self, seconds: float) -> None:
        self._is_paused = True
        self._may_write.clear()
        self._client.ping_timeout = None  # pongs are not read either, and must not be missed
        self._client.transport.pause_reading()
        self._spawn(self._resume_after(seconds))

    def _fall_silent(self, seconds: float) -> None:
        if math.isinf(seconds):
            self._is_mute = True
            return
        self._may_write.clear()
        self._spawn(self._resume_after(seconds))

    async def _resume_after(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._client.wait_closed()
        if self._is_paused:
            self._is_paused = False
            self._client.transport.resume_reading()
        self._may_write.set()


async def _wait_for(wait: float | asyncio.Event) -> None:
    if isinstance(wait, asyncio.Event):
        await wait.wait()
    else:
        await asyncio.sleep(wait)


def _lane_of(event: Event) -> str:
    """Return the key of the events with which a late event keeps its order; "": never late."""
    if event["type"] not in LATE_EVENTS:
        return ""
    return str(event.get("item_id", "rate limits"))


def _shuffle(events: list[Event], order: random.Random) -> None:
    """Exchange neighbours whose order the protocol does not define, at random."""
    for _ in events:
        for at in range(len(events) - 1):
            pair = events[at : at + 2]
            if _are_unordered(*pair) and order.random() < 0.5:
                events[at : at + 2] = reversed(pair)


def _are_unordered(first: Event, second: Event) -> bool:
    kinds = {first["type"], second["type"]}
    if kinds in _UNORDERED:
        return first.get("item_id") == second.get("item_id")
    if second["type"] == "rate_limits.updated":
        return bool(first["type"] != "response.created")
    lane = _lane_of(first)
    return bool(lane) and lane != _lane_of(second)


def _newer(event: Event) -> Event:
    event = {**event, "introduced_later": {"list": [1, None, {}]}}
    if "previous_item_id" in event:
        event["previous_item_id"] = None
    for name in {"item", "response", "session"} & event.keys():
        event[name] = {**event[name], "phase": "commentary"}
    return event


def _error(code: str, message: str) -> Event:
    own = code in ("server_error", "insufficient_quota", "rate_limit_exceeded")
    error = {
        "type": code if own else "invalid_request_error",
        "code": code,
        "message": message or f"The sandbox was told to send the error {code}.",
        "param": None,
        "event_id": None,
    }
    return {"type": "error", "event_id": "event_commanded", "error": error}


async def _fragments(data: bytes, bytes_per_s: int) -> AsyncIterator[str]:
    text = data.decode()
    size = max(1, bytes_per_s // _FRAGMENTS_HZ)
    for at in range(0, len(text), size):
        yield text[at : at + size]
        await asyncio.sleep(size / bytes_per_s)
