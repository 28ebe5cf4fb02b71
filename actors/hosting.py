"""The program's side of what it hands over as objects: devices and tools.

The far ends are `actors.devices.program` and the tools component. An input device has ``start()``,
``stop()`` and ``stream_chunks()``; an output device ``start()``, ``stop()``, ``play_chunk(pcm)``
and ``clear_buffer()``, and perhaps ``played_ms``. Each may be a plain function or a coroutine.
Coroutines run on the program's event loop, or on one of our own where the program has none.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

from messages import (
    SAMPLE_RATE,
    Message,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlush,
    ProgramPlayed,
    ProgramPlayout,
    ProgramToolAnswer,
    ProgramToolCall,
    ToolSpec,
)

__all__ = ["Hosting", "InputDevice", "OutputDevice", "ToolObject", "ToolSet"]

_logger = logging.getLogger("rtvoice.program")

_REPORT_S = 0.1
"""How often the position of an output device that has ``played_ms`` is told."""


class InputDevice(Protocol):
    """What can be a microphone: 16-bit mono PCM at ``sample_rate`` (24 kHz if it has none)."""

    def start(self) -> Awaitable[None] | None:
        """Begin to capture."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def stream_chunks(self) -> AsyncIterator[bytes] | Iterable[bytes] | Awaitable[Any]:
        """Return what is captured, in chunks of any size; its end is the end of the input."""


class OutputDevice(Protocol):
    """What can be a loudspeaker: 16-bit mono PCM at 24 kHz."""

    def start(self) -> Awaitable[None] | None:
        """Get ready to play."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def play_chunk(self, pcm: bytes) -> Awaitable[None] | None:
        """Play after what was given before; may return at once."""

    def clear_buffer(self) -> Awaitable[None] | None:
        """Forget what is not played yet, and be silent."""


class ToolObject(Protocol):
    """One function that the model may call (`actors.tools.registry.Tool`)."""

    @property
    def function(self) -> Callable[..., Any]:
        """What is called."""

    def bind(self, arguments: str) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments made of the model's JSON, validated."""


class ToolSet(Protocol):
    """Functions that the model may call (`actors.tools.registry.Tools`)."""

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return what the model is told of them."""

    def get(self, name: str) -> ToolObject | None:
        """Return one by name."""


async def _settled(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


class _HostedInput:
    """Carries the chunks of an input device to the microphone."""

    def __init__(self, device: InputDevice, send: Callable[[Message], None]) -> None:
        self._device = device
        self._send = send

    async def run(self) -> None:
        """Capture until the device ends, fails, or this is cancelled."""
        error: str | None = None
        try:
            await _settled(self._device.start())
            await self._stream()
        except Exception as failure:  # noqa: BLE001 - the session goes on, and is told why
            error = f"{type(failure).__name__}: {failure}"
        finally:
            with contextlib.suppress(Exception):
                await _settled(self._device.stop())
        self._send(ProgramCaptureEnded(error))

    async def _stream(self) -> None:
        chunks = await _settled(self._device.stream_chunks())
        rate = int(getattr(self._device, "sample_rate", SAMPLE_RATE))
        if hasattr(chunks, "__aiter__"):
            async for chunk in chunks:
                self._send(ProgramCapture(bytes(chunk), rate, time.monotonic_ns()))
            return
        iterator, end = iter(chunks), object()
        while (chunk := await asyncio.to_thread(next, iterator, end)) is not end:
            self._send(ProgramCapture(bytes(chunk), rate, time.monotonic_ns()))


class _HostedOutput:
    """Carries audio from the speaker to an output device, and tells how far it has played."""

    def __init__(self, device: OutputDevice, send: Callable[[Message], None]) -> None:
        self._device = device
        self._send = send
        self._waiting: collections.deque[ProgramPlayout] = collections.deque()
        self._flushed = False
        self._news = asyncio.Event()
        self._handed_over = 0

    def told(self, message: Message) -> None:
        """Take audio or a flush, on the loop's thread."""
        if isinstance(message, ProgramPlayout):
            self._waiting.append(message)
        elif isinstance(message, ProgramFlush):
            self._waiting.clear()
            self._flushed = True
        self._news.set()

    async def run(self) -> None:
        """Play until this is cancelled.

        Raises:
            Exception: whatever the device raises.
        """
        await _settled(self._device.start())
        reporter = asyncio.ensure_future(self._report())
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._play()
        finally:
            reporter.cancel()
            with contextlib.suppress(Exception):
                await _settled(self._device.stop())

    async def _play(self) -> None:
        while self._flushed or self._waiting:
            if self._flushed:  # also between two chunks: silence does not wait
                self._flushed = False
                await _settled(self._device.clear_buffer())
                continue
            message = self._waiting.popleft()
            await _settled(self._device.play_chunk(message.pcm))
            self._handed_over = message.first_sample + len(message.pcm) // 2

    async def _report(self) -> None:
        told = -1
        while hasattr(self._device, "played_ms"):
            await asyncio.sleep(_REPORT_S)
            played = getattr(self._device, "played_ms")  # noqa: B009 - not part of the protocol
            ms = float(played() if callable(played) else played)
            samples = min(int(ms * SAMPLE_RATE / 1000), self._handed_over)
            if samples != told:
                told = samples
                self._send(ProgramPlayed(samples, time.monotonic_ns()))


class _HostedTools:
    """Calls the program's tools: coroutines on the loop, plain functions on a thread."""

    def __init__(self, tools: ToolSet, send: Callable[[Message], None]) -> None:
        self._tools = tools
        self._send = send

    async def call(self, call: ProgramToolCall) -> None:
        """Run one tool and tell what it returned, or what was wrong."""
        from actors.tools.registry import ToolArgumentsError, output_of

        try:
            output, failed = output_of(await self._run(call)), False
        except ToolArgumentsError as error:
            output, failed = str(error), True
        except Exception as error:
            _logger.warning("tool %s failed", call.name, exc_info=error)
            output, failed = f"{call.name} failed: {str(error) or type(error).__name__}", True
        self._send(ProgramToolAnswer(call.call_id, output, failed))

    async def _run(self, call: ProgramToolCall) -> Any:
        tool = self._tools.get(call.name)
        if tool is None:
            raise LookupError(f"there is no tool named {call.name}")
        positional, named = tool.bind(call.arguments)
        if inspect.iscoroutinefunction(tool.function):
            return await tool.function(*positional, **named)
        return await _settled(await asyncio.to_thread(tool.function, *positional, **named))


class Hosting:
    """What a program has handed over as objects, run for as long as a session."""

    def __init__(
        self,
        send: Callable[[Message], None],
        *,
        input_device: InputDevice | None = None,
        output_device: OutputDevice | None = None,
        tools: ToolSet | None = None,
    ) -> None:
        self._input = _HostedInput(input_device, send) if input_device is not None else None
        self._output = _HostedOutput(output_device, send) if output_device is not None else None
        self._tools = _HostedTools(tools, send) if tools is not None else None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = threading.Event()
        self._stopping = False

    @property
    def wants(self) -> tuple[type[Message], ...]:
        """The messages to be told."""
        kinds: list[type[Message]] = []
        if self._output is not None:
            kinds += [ProgramPlayout, ProgramFlush]
        if self._tools is not None:
            kinds += [ProgramToolCall]
        return tuple(kinds)

    def prepare(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the program's running loop or, without one, run our own; messages may come."""
        if loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="rtvoice-devices")
            self._thread.daemon = True
            self._thread.start()
        self._loop = loop

    def start(self) -> None:
        """Start the devices."""
        with contextlib.suppress(RuntimeError):  # the session has ended meanwhile
            self._loop.call_soon_threadsafe(self._start)

    def told(self, message: Message) -> None:
        """Pass a message on to the loop; from any thread."""
        with contextlib.suppress(RuntimeError):  # the program's loop is closed
            self._loop.call_soon_threadsafe(self._told, message)

    def stop(self, timeout_s: float) -> None:
        """End the devices and wait for that; not on the loop's own thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)
            self._ended.wait(timeout_s)
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_s)
            self._loop.close()

    def _start(self) -> None:
        if self._stopping:
            return
        for device in (self._input, self._output):
            if device is not None:
                self._spawn(device.run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("the output device failed", exc_info=error)

    def _told(self, message: Message) -> None:
        if isinstance(message, ProgramToolCall):
            if self._tools is not None:
                self._spawn(self._tools.call(message))
        elif self._output is not None:
            self._output.told(message)

    def _stop(self) -> None:
        self._stopping = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        self._loop.create_task(self._wait(tasks))

    async def _wait(self, tasks: set[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        self._ended.set()
