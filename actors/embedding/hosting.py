"""Hosts the devices and tools that a program passes as objects.

The components' side is `actors.devices.own.program` and the tools component. Coroutines run on the
program's event loop, or on one of our own if the program has none; plain functions run on threads.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

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
from actors.embedding.loop_end import running_loop
from messages import (
    AskToPass,
    DeviceFailed,
    Message,
    ProgramFlush,
    ProgramPlayout,
    ProgramToolAnswer,
    ProgramToolCall,
    ProgramToolCancel,
    ProgramVolume,
    ToolSpec,
    tool_answer,
)

if TYPE_CHECKING:
    from actors.tools.executor import ToolOutcome

__all__ = ["Hosting", "InputDevice", "OutputDevice", "ToolSet"]

_logger = logging.getLogger("rtvoice.program")

_FOR_OUTPUT = (AskToPass, ProgramPlayout, ProgramFlush, ProgramVolume)
_FOR_TOOLS = (ProgramToolCall, ProgramToolCancel)
_REMEMBERED = 256
"""Number of answers kept, in case the tools process dies before it has forwarded them."""


class ToolSet(Protocol):
    """The interface of `actors.tools.registry.Tools`: functions that the model may call."""

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return the descriptions of the tools for the model."""

    def get(self, name: str) -> Any:
        """Return a tool by name (`actors.tools.registry.Tool`), or None."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the tools."""


class _HostedTools:
    """Runs the program's tools; a call that is delivered twice runs once."""

    def __init__(
        self,
        tools: ToolSet,
        send: Callable[[Message], None],
        send_past: Callable[[Message], bool],
        commands: Callable[[], int],
    ) -> None:
        self.tools = tools
        self._send = send
        self._send_past = send_past
        self._commands = commands
        self._at_begin: dict[str, int] = {}
        """The number of commands when a call began, by call id."""
        self._begun: collections.OrderedDict[str, ProgramToolAnswer | None]
        self._begun = collections.OrderedDict()
        """The last calls by id, with their answers; None: not answered yet."""

    def prepare(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Set the loop on which coroutines run; None: a loop of our own."""
        from actors.tools.executor import Executor

        self._executor = Executor(loop)
        self._executor.notify = self._send_results
        self._executor.tell = self._tell

    def call(self, call: ProgramToolCall) -> None:
        """Start a call, on any thread; if it was answered before, send the answer again."""
        if call.call_id in self._begun:
            if (answer := self._begun[call.call_id]) is not None:
                self._send(answer)
            return
        self._begun[call.call_id] = None
        self._at_begin[call.call_id] = self._commands()
        while len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        tool = self.tools.get(call.name)
        if tool is None:
            from actors.tools.executor import ToolOutcome

            text = f"the program has no tool named {call.name}"
            self._answer(ToolOutcome(call.call_id, text, failed=True))
        else:
            self._executor.start(call.call_id, tool, call.arguments, _entering(call.traceparent))

    def cancel(self, call_id: str) -> None:
        """Cancel a call; the model has been given another answer, such as a timeout."""
        self._at_begin.pop(call_id, None)
        self._executor.give_up(call_id)

    def close(self) -> None:
        """Cancel all calls."""
        self._executor.close()

    def _send_results(self) -> None:
        """Send the messages and the answers of tools; called on a tool's thread."""
        for message in self._executor.sent():
            self._send(message)
        for outcome in self._executor.finished():
            if outcome.trace:
                _logger.warning("a tool raised\n%s", outcome.trace)
            self._answer(outcome)

    def _tell(self, name: str, outcome: ToolOutcome) -> bool:
        """Give realtime an answer straight, if that overtakes nothing; on the tool's thread."""
        call_id = outcome.call_id
        return self._at_begin.get(call_id) == self._commands() and self._send_past(
            tool_answer(call_id, name, outcome.output, outcome.failed)
        )

    def _answer(self, outcome: ToolOutcome) -> None:
        call_id = outcome.call_id
        in_order = self._at_begin.pop(call_id, None) != self._commands() or outcome.in_order
        answer = ProgramToolAnswer(call_id, outcome.output, outcome.failed, in_order)
        if call_id in self._begun:
            self._begun[call_id] = answer
        self._send(answer)


def _entering(traceparent: str) -> Callable[[], None] | None:
    """Return what puts a call into its span; None: it has none."""
    if not traceparent:
        return None
    from actors.tools.spans import attach  # the program has imported OpenTelemetry already

    return partial(attach, traceparent)


def _send_nothing(_: Message) -> bool:
    return False


class Hosting:
    """Runs the devices and tools of a program during a session.

    Args:
        send: Sends a message to the components; called on any thread.
        input_device: The device used as the microphone.
        output_device: The device used as the loudspeaker.
        tools: Functions that the model may call.
        commands: Returns how many commands the program has sent so far.
        send_past: Sends a message straight to the component that takes it so, and not through the
            supervisor, and returns whether it was; called on any thread.

    Raises:
        TypeError: If an object is not a device; the text says what to do.
    """

    def __init__(
        self,
        send: Callable[[Message], None],
        *,
        input_device: InputDevice | None = None,
        output_device: OutputDevice | None = None,
        tools: ToolSet | None = None,
        commands: Callable[[], int] = int,
        send_past: Callable[[Message], bool] = _send_nothing,
    ) -> None:
        self._send = send
        self._input: HostedInput | None = None
        self._output: HostedOutput | None = None
        self._devices = (input_device, output_device)
        if input_device is not None:
            refuse_what_is_no_device("the input device", input_device, INPUT_METHODS)
            self._input = HostedInput(input_device, self._send_and_log)
        if output_device is not None:
            refuse_what_is_no_device("the output device", output_device, OUTPUT_METHODS)
            try:
                self._output = HostedOutput(output_device, self._send_and_log)
            except DeviceCallError as error:
                raise TypeError(f"the output device: {error}") from error
        self._tools = None if tools is None else _HostedTools(tools, send, send_past, commands)
        self.wants: tuple[type[Message], ...] = (
            *(_FOR_OUTPUT if output_device is not None else ()),
            *(_FOR_TOOLS if tools is not None else ()),
        )
        """The types of the messages to receive."""
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = threading.Event()
        self._stopping = False

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `messages.Settings` that announce the program's devices and tools."""
        found: dict[str, Any] = {}
        if self._input is not None:
            found["input"] = "program"
            with contextlib.suppress(DeviceCallError):  # asked again once the device has started
                found["program_input_rate"] = rate_of(self._devices[0])
        if self._output is not None:
            device = self._devices[1]
            found["output"] = "program"
            found["program_output_rate"] = rate_of(device)
            found["program_output_scales"] = callable(getattr(device, "set_volume", None))
        if self._tools is not None:
            found["program_tools"] = self._tools.tools.specs()
        return found

    @property
    def direct_tags(self) -> tuple[int, ...]:
        """The tags of those that can come straight."""
        return tuple(kind.tag() for kind in self.wants if kind.passes or kind.direct)

    def set_tools(self, tools: ToolSet) -> bool:
        """Replace the program's tools; return False if the session was started without any."""
        if self._tools is None:
            return False
        self._tools.tools = tools
        return True

    def prepare(self, loop: asyncio.AbstractEventLoop | None, block_s: float = 0.0) -> None:
        """Set the event loop, and accept messages from now on.

        Args:
            loop: The program's running loop; None: run our own on a thread.
            block_s: Length of the microphone's blocks, to which captured chunks are joined; 0: they
                are not.
        """
        if self._input is not None:
            self._input.block_s = block_s
        if self._tools is not None:
            self._tools.prepare(loop)
        if loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="rtvoice-devices")
            self._thread.daemon = True
            self._thread.start()
        self._loop = loop
        _logger.info("run in the program: %s", ", ".join(self._names()) or "nothing")

    def _names(self) -> Iterator[str]:
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

    def receive(self, message: Message) -> None:
        """Pass a message to the tools or the output device; called on any thread."""
        if isinstance(message, ProgramToolCall | ProgramToolCancel):
            self._pass_to_tools(message)
            return
        if running_loop() is self._loop:
            self._pass_to_output(message)
            return
        with contextlib.suppress(RuntimeError):  # the program's loop is closed
            self._loop.call_soon_threadsafe(self._pass_to_output, message)

    def stop(self, timeout_s: float) -> None:
        """Stop devices and tools, and wait for the devices; not on the loop's own thread."""
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

    def _pass_to_output(self, message: Message) -> None:
        if self._output is not None:
            self._output.receive(message)

    def _pass_to_tools(self, message: ProgramToolCall | ProgramToolCancel) -> None:
        if self._tools is None:
            return
        if isinstance(message, ProgramToolCall):
            self._tools.call(message)
        else:
            self._tools.cancel(message.call_id)

    def _send_and_log(self, message: Message) -> None:
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
