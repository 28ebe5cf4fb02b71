"""What a caller with a view is shown, and what such a caller asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from messages import (
    Message,
    NotRunningError,
    RtvoiceError,
    SetMuted,
    SetVolume,
    StartTalking,
    StopTalking,
)
from rtvoice.agent import Agent
from rtvoice.events import InputAudioTranscriptionDelta
from rtvoice.service.commands import (
    Kill,
    Mute,
    Press,
    Release,
    Say,
    ShowImage,
    Speed,
    StopSpeaking,
    Volume,
)
from rtvoice.service.frames import Command, Scope
from rtvoice.view import View
from rtvoice.view.frames import Frames

__all__ = ["Feed"]

_INTERVAL_S = 0.05
"""Between two frames; what changes meanwhile is in the next one."""
_LEVELS_S = 0.1
_LOOK_S = 1.0
"""Interval at which the processes are looked at."""

SendFields = Callable[[dict[str, Any]], Awaitable[None]]


class Feed:
    """Folds the events of a conversation into a `View`, and sends it to the caller's socket.

    It begins before the conversation and outlives the sockets of the caller.

    Args:
        agent: The agent of the conversation, which has not started.
        scope: What the caller may see: ``talk`` or ``all``.
    """

    def __init__(self, agent: Agent, scope: Scope) -> None:
        self.scope = scope
        self._agent = agent
        self._view = View()
        self._frames = Frames(self._view, inside=scope == "all")
        self._began = time.monotonic()
        self._send: SendFields | None = None
        self._is_whole = False
        """Whether the socket has got the whole state."""
        self._levels_s = 0.0
        """When the levels were sent last."""
        self._changed = asyncio.Event()
        kinds: tuple[type[Any], ...] = (*View.kinds, InputAudioTranscriptionDelta)
        self._events = agent.event_bus.stream(kinds, 10_000)
        self._folding = asyncio.ensure_future(self._fold())
        self._tasks = [
            asyncio.ensure_future(work)
            for work in (self._tell(), *([self._look()] if scope == "all" else []))
        ]

    # -- the socket ---------------------------------------------------------------------------

    def attach(self, send: SendFields) -> None:
        """Send to this socket from now on, first the whole state."""
        self._send, self._is_whole = send, False
        self._changed.set()

    def detach(self) -> None:
        """Send nothing: the socket has ended."""
        self._send = None

    async def end(self, failure: str) -> None:
        """Send what is left: the conversation is over, or has failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._folding)
        if failure:
            self._view.failure = failure
        await self._flush()

    def close(self) -> None:
        """Stop: the conversation is over. `end` may follow."""
        for task in self._tasks:
            task.cancel()
        self._events.end()

    # -- what is shown ------------------------------------------------------------------------

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began

    async def _fold(self) -> None:
        async for event in self._events:
            # The class is subscribed to for the sake of the `WireEvent`, which comes besides.
            if not isinstance(event, InputAudioTranscriptionDelta):
                self._take(event)

    def _take(self, message: Message) -> None:
        now_s = self._now_s
        self._view.take(message, now_s)
        self._frames.note(message, now_s)
        self._changed.set()

    async def _look(self) -> None:
        """Look at the processes, and let time pass."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._send is not None:
                with contextlib.suppress(NotRunningError, TimeoutError):
                    self._view.status(await self._agent.processes(), self._now_s)
            self._view.look(self._now_s)
            self._changed.set()

    async def _tell(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._flush()
            await asyncio.sleep(_INTERVAL_S)

    async def _flush(self) -> None:
        if (send := self._send) is None:
            return
        self._view.look(self._now_s)
        if not self._is_whole:
            self._is_whole = True
            await send(self._frames.whole())
            return
        levels = self._now_s - self._levels_s >= _LEVELS_S
        if frame := self._frames.changes(levels=levels):
            if "levels" in frame:
                self._levels_s = self._now_s
            await send(frame)

    # -- what the caller asks for -------------------------------------------------------------

    async def obey(self, command: Command) -> str:
        """Carry out a command; return why it cannot be, or nothing."""
        try:
            if isinstance(command, Kill):
                return await self._kill(command.component)
            self._pass_on(command)
        except RtvoiceError as error:
            return str(error)
        return ""

    def _pass_on(self, command: Command) -> None:
        agent = self._agent
        match command:
            case Say(text):
                agent.send_text(text)
            case ShowImage(_, text, detail, respond, content):
                agent.send_image(content, text, detail=detail, respond=respond)
            case StopSpeaking():
                agent.interrupt()
            case Mute(muted):
                _ = agent.mute() if muted else agent.unmute()
                self._take(SetMuted(muted))
            case Volume(volume):
                agent.set_volume(volume)
                self._take(SetVolume(volume))
            case Speed(speed):
                agent.set_speed(speed)
            case Press():
                agent.event_bus.publish(StartTalking(time.monotonic_ns()))
            case Release():
                agent.event_bus.publish(StopTalking(time.monotonic_ns()))

    async def _kill(self, name: str) -> str:
        """Kill the process of a component; return why it cannot be."""
        try:
            known = await self._agent.processes()
        except TimeoutError:
            known = {}
        pid = known[name].get("pid") if name in known else None
        if pid is None and name in self._view.processes:  # the supervisor, the sandbox
            pid = self._view.processes[name].pid
        if not pid:
            return f"there is no process {name}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return ""
