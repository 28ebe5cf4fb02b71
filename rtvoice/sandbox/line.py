"""The line to one client: events go as they come, unless a test commanded a fault."""

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
_NO_DELTA: Final = {
    "type": "response.output_audio.delta",
    "event_id": "event_garbage",
    "response_id": "resp_garbage",
    "item_id": "item_garbage",
    "output_index": 0,
    "content_index": 0,
    "delta": "AAAAAAAA",
}
_NEWS: Final = {"type": "response.thought.delta", "event_id": "event_newer", "delta": "Hm."}
_UNORDERED: Final = (
    {"conversation.item.done", "response.output_item.done"},
    {"response.output_audio.done", "response.output_audio_transcript.done"},
    {"response.output_audio.delta", "response.output_audio_transcript.delta"},
)
"""Pairs of which the protocol does not say which comes first."""


class ClientLine:
    """What leads to a client.

    Most of its attributes are the faults that are in force.

    Args:
        client: its socket.
        act: does what needs the session, the faults `fail` and `expire`.
        spawn: runs a task for as long as the connection lasts.
        watch: is told each event as it is sent.
    """

    def __init__(
        self,
        client: ServerConnection,
        act: Callable[[Fault], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.items_split = False
        """Whether each spoken sentence is to be an item of its own."""
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
        self._on_the_way: deque[tuple[float, Event]] = deque()
        self._all_arrived = asyncio.Event()
        self._all_arrived.set()
        self._late: dict[str, deque[tuple[Event, list[float | asyncio.Event]]]] = {}
        self._awaited: dict[str, asyncio.Event] = {}
        self._last_delta: Event = _NO_DELTA

    @property
    def is_faulty(self) -> bool:
        """Whether anything was ever commanded."""
        return self._faults is not None

    @property
    def is_open(self) -> bool:
        """Whether it still leads to anybody."""
        return self._client.state is State.OPEN and not self._client.transport.is_closing()

    async def command(self, fault: Fault) -> None:
        """Do a fault, at once or when its event comes."""
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
                pass  # a handshake that is over
            case "delay" if not fault.when:
                self._latency_s = float(fault.value)
            case _ if fault.when:
                self._faults.add(fault)
            case _:
                await self._strike(fault)

    async def before(self, kind: str) -> None:
        """Take note of a client's event that is going to be handled."""
        await self._come(kind, "before")

    async def after(self, kind: str) -> None:
        """Take note of a client's event that was handled and is going to be answered."""
        await self._come(kind, "after")

    async def _come(self, kind: str, when: str) -> None:
        if self._faults is not None:
            for fault in self._faults.due(when, kind):
                await self._strike(fault)

    async def send(self, events: list[Event]) -> None:
        """Send events, in their order."""
        if self._order is not None:
            _shuffle(events, self._order)
        for event in events:
            if self._faults is None:
                await self._write(event)
            elif self._latency_s:
                self._send_by_and_by(event, self._faults)
            else:
                await self._send_faultily(event, self._faults)

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, after all that was sent has arrived."""
        await self._all_arrived.wait()
        await self._client.close(code, reason)

    def _send_by_and_by(self, event: Event, faults: Faults) -> None:
        """Send an event after the latency, and behind those that were sent before it."""
        due = asyncio.get_running_loop().time() + self._latency_s
        self._on_the_way.append((due, event))
        if self._all_arrived.is_set():
            self._all_arrived.clear()
            self._spawn(self._deliver(faults))

    async def _deliver(self, faults: Faults) -> None:
        while self._on_the_way:
            due, event = self._on_the_way.popleft()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._send_faultily(event, faults)
        self._all_arrived.set()

    async def _send_faultily(self, event: Event, faults: Faults) -> None:
        kind = event["type"]
        await self._come(kind, "before")
        changes = faults.due("of", kind)
        if any(fault.action == "omit" for fault in changes):
            return
        waits = [self._wait_of(fault.value) for fault in changes]
        lane = _lane_of(event)
        if lane and (waits or lane in self._late):
            if lane not in self._late:
                self._late[lane] = deque()
                self._spawn(self._send_late(lane))
            self._late[lane].append((event, waits))
            return
        for each in waits:
            await _passed(each)
        await self._write_and_strike(event)

    async def _send_late(self, lane: str) -> None:
        waiting = self._late[lane]
        while waiting:
            event, waits = waiting[0]
            for each in waits:
                await _passed(each)
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
            await self._write(_NEWS)
        awaited = self._awaited.pop(kind, None)
        if awaited is not None:
            awaited.set()
        await self._come(kind, "after")

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
            # One at a time: a message in fragments takes long.
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
            case "fail" | "expire":
                self._spawn(self._act(fault))

    def _cut(self) -> None:
        self._is_mute = True
        with contextlib.suppress(OSError):
            self._raw().shutdown(socket.SHUT_RDWR)
        self._client.transport.abort()

    def _reset(self) -> None:
        # A socket that may linger for no time ends with RST (socket(7)).
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
        self._client.ping_timeout = None  # the pongs are not read either
        self._client.transport.pause_reading()
        self._spawn(self._go_on(seconds))

    def _fall_silent(self, seconds: float) -> None:
        if math.isinf(seconds):
            self._is_mute = True
            return
        self._may_write.clear()
        self._spawn(self._go_on(seconds))

    async def _go_on(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._client.wait_closed()
        if self._is_paused:
            self._is_paused = False
            self._client.transport.resume_reading()
        self._may_write.set()


async def _passed(wait: float | asyncio.Event) -> None:
    if isinstance(wait, asyncio.Event):
        await wait.wait()
    else:
        await asyncio.sleep(wait)


def _lane_of(event: Event) -> str:
    """Name what an event that may come late keeps its order with; "" for all others."""
    if event["type"] not in LATE_EVENTS:
        return ""
    return str(event.get("item_id", "rate limits"))


def _shuffle(events: list[Event], order: random.Random) -> None:
    """Exchange neighbours of which either may come first."""
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
