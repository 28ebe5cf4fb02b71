"""The program's side of what it hands over as objects: devices and tools.

The far ends are `actors.devices.own.program` and the tools component. Coroutines run on the
program's event loop, or on one of our own where the program has none; plain functions on threads.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

from actors.devices.base import INPUT_METHODS, OUTPUT_METHODS
from actors.devices.own.hosted import (
    DeviceCallError,
    HostedInput,
    HostedOutput,
    InputDevice,
    OutputDevice,
    rate_of,
    refuse_what_is_no_device,
)
from messages import (
    DeviceFailed,
    Message,
    ProgramFlush,
    ProgramPlayout,
    ProgramToolAnswer,
    ProgramToolCall,
    ProgramToolCancel,
    ProgramVolume,
    ToolSpec,
)

__all__ = ["Hosting", "InputDevice", "OutputDevice", "ToolSet"]

_logger = logging.getLogger("rtvoice.program")

_REMEMBERED = 256
"""Calls whose answers are kept, in case the tools process dies before it has passed them on."""


class ToolSet(Protocol):
    """Functions that the model may call (`actors.tools.registry.Tools`)."""

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return what the model is told of them."""

    def get(self, name: str) -> Any:
        """Return one by name (`actors.tools.registry.Tool`)."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over them."""


class _HostedTools:
    """Calls the program's tools: each call once, and one answer to it."""

    def __init__(self, tools: ToolSet, send: Callable[[Message], None]) -> None:
        self.tools = tools
        self._send = send
        self._begun: collections.OrderedDict[str, ProgramToolAnswer | None]
        self._begun = collections.OrderedDict()
        """Calls by id, with their answers once they have them."""

    def prepare(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the loop on which coroutines run; None: one of our own."""
        from actors.tools.executor import Executor

        self._executor = Executor(loop)
        self._executor.notify = self._tell

    def call(self, call: ProgramToolCall) -> None:
        """Begin a call, from any thread; one that comes twice is run once."""
        if call.call_id in self._begun:
            if (answer := self._begun[call.call_id]) is not None:
                self._send(answer)
            return
        self._begun[call.call_id] = None
        while len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        tool = self.tools.get(call.name)
        if tool is None:
            text = f"the program has no tool named {call.name}"
            self._answer(ProgramToolAnswer(call.call_id, text, failed=True))
        else:
            self._executor.start(call.call_id, tool, call.arguments)

    def cancel(self, call_id: str) -> None:
        """Give up a call for which the model has an answer."""
        self._executor.give_up(call_id)

    def close(self) -> None:
        """Give up all calls."""
        self._executor.close()

    def _tell(self) -> None:
        for message in self._executor.sent():
            self._send(message)
        for outcome in self._executor.finished():
            if outcome.trace:
                _logger.warning("a tool raised\n%s", outcome.trace)
            self._answer(ProgramToolAnswer(outcome.call_id, outcome.output, outcome.failed))

    def _answer(self, answer: ProgramToolAnswer) -> None:
        if answer.call_id in self._begun:
            self._begun[answer.call_id] = answer
        self._send(answer)


class Hosting:
    """What a program has handed over as objects, run for as long as a session.

    Args:
        send: says something to the components; called on any thread.
        input_device: the microphone.
        output_device: the loudspeaker.
        tools: functions that the model may call.

    Raises:
        TypeError: what is given is no device; the text says what to do.
    """

    def __init__(
        self,
        send: Callable[[Message], None],
        *,
        input_device: InputDevice | None = None,
        output_device: OutputDevice | None = None,
        tools: ToolSet | None = None,
    ) -> None:
        self._send = send
        self._input: HostedInput | None = None
        self._output: HostedOutput | None = None
        self._devices = (input_device, output_device)
        if input_device is not None:
            refuse_what_is_no_device("the input device", input_device, INPUT_METHODS)
            self._input = HostedInput(input_device, self._tell)
        if output_device is not None:
            refuse_what_is_no_device("the output device", output_device, OUTPUT_METHODS)
            try:
                self._output = HostedOutput(output_device, self._tell)
            except DeviceCallError as error:
                raise TypeError(f"the output device: {error}") from error
        self._tools = _HostedTools(tools, send) if tools is not None else None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = threading.Event()
        self._stopping = False

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `messages.Settings` that say what lives in the program."""
        found: dict[str, Any] = {}
        if self._input is not None:
            found["input"] = "program"
        if self._output is not None:
            device = self._devices[1]
            found["output"] = "program"
            found["program_output_rate"] = rate_of(device)
            found["program_output_scales"] = callable(getattr(device, "set_volume", None))
        if self._tools is not None:
            found["program_tools"] = self._tools.tools.specs()
        return found

    @property
    def wants(self) -> tuple[type[Message], ...]:
        """The messages to be told."""
        kinds: list[type[Message]] = []
        if self._output is not None:
            kinds += [ProgramPlayout, ProgramFlush, ProgramVolume]
        if self._tools is not None:
            kinds += [ProgramToolCall, ProgramToolCancel]
        return tuple(kinds)

    def set_tools(self, tools: ToolSet) -> bool:
        """Call these from now on. Return False if the program had none to begin with."""
        if self._tools is None:
            return False
        self._tools.tools = tools
        return True

    def prepare(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the program's running loop or, without one, run our own; messages may come."""
        if self._tools is not None:
            self._tools.prepare(loop)
        if loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="rtvoice-devices")
            self._thread.daemon = True
            self._thread.start()
        self._loop = loop
        _logger.info("in the program run: %s", ", ".join(self._what()) or "nothing")

    def _what(self) -> Iterator[str]:
        for name, device in zip(("microphone", "speaker"), self._devices, strict=True):
            if device is not None:
                yield f"{name} {type(device).__name__}"
        if self._tools is not None:
            for spec in self._tools.tools.specs():
                yield f"tool {spec.name}"

    def start(self) -> None:
        """Start the devices."""
        with contextlib.suppress(RuntimeError):  # the session has ended meanwhile
            self._loop.call_soon_threadsafe(self._start)

    def told(self, message: Message) -> None:
        """Pass a message on to the tools or to the loop; from any thread."""
        if isinstance(message, ProgramToolCall | ProgramToolCancel):
            self._told_tools(message)
            return
        with contextlib.suppress(RuntimeError):  # the program's loop is closed
            self._loop.call_soon_threadsafe(self._told, message)

    def stop(self, timeout_s: float) -> None:
        """End the devices and wait for that; not on the loop's own thread."""
        if self._tools is not None:
            self._tools.close()
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
                self._spawn(device.run_again_and_again())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a device failed", exc_info=error)

    def _told(self, message: Message) -> None:
        if self._output is not None:
            self._output.told(message)

    def _told_tools(self, message: ProgramToolCall | ProgramToolCancel) -> None:
        if self._tools is None:
            return
        if isinstance(message, ProgramToolCall):
            self._tools.call(message)
        else:
            self._tools.cancel(message.call_id)

    def _tell(self, message: Message) -> None:
        if isinstance(message, DeviceFailed):
            _logger.warning(
                "the %s device failed in %s: %s",
                message.component,
                message.operation,
                message.error,
            )
        self._send(message)

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
