"""Devices written by the user, in the process of the microphone or the speaker.

The device runs on an event loop on its own thread. For a device in the program, messages carry the
audio (`actors.devices.own.program`); here, the same messages are passed by calls. A device that
raises is not restarted here: the component crashes, and its next incarnation makes a new device.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from actors.devices.base import Capture, Captured, Playback
from actors.devices.errors import DeviceError
from actors.devices.own.hosted import (
    DeviceCallError,
    HostedInput,
    HostedOutput,
    InputDevice,
    OutputDevice,
    rate_of,
)
from actors.devices.own.program import ProgramInput, ProgramOutput
from actors.devices.playout import Playout
from messages import (
    SAMPLE_RATE,
    Message,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlushed,
    ProgramPlayed,
)

__all__ = ["LocalCapture", "LocalDeviceError", "LocalPlayback"]

_STOP_S = 2.0
_CLEAR_S = 0.25
"""How long a device may take to say where it had stopped when it was cleared."""


class LocalDeviceError(DeviceError):
    """Raised when a method of a user's device fails; ``operation`` is the method."""

    def __init__(self, name: str, operation: str, error: str) -> None:
        super().__init__(name, operation, error)
        self.name, self.operation, self.error = name, operation, error

    def __str__(self) -> str:
        return f"the device {self.name} failed in {self.operation}: {self.error}"


class _DeviceLoop:
    """An event loop on a thread, which runs one device."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"device {name}", daemon=True)
        self._thread.start()

    def start(
        self, run: Callable[[], Coroutine[Any, Any, None]], failed: Callable[[Exception], None]
    ) -> None:
        """Run the device; return when it has started.

        Args:
            run: The coroutine that runs the device.
            failed: Called if the device fails after its start.

        Raises:
            LocalDeviceError: If its ``start`` raises.
        """
        self._failed = failed
        self.call(lambda: self._begin(run))
        self._started.result()

    def started(self) -> None:
        """Record that the device's ``start`` has returned."""
        if not self._started.done():
            self._started.set_result(None)

    def call(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the loop's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """Stop the device and end the thread; a thread that hangs ends with the process."""
        self.call(self._end)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_S)

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Run ``call`` on the loop after these seconds; call this on the loop's thread."""
        return self._loop.call_later(seconds, call)

    def _begin(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = self._loop.create_task(run())
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, DeviceCallError):
            error = LocalDeviceError(self._name, error.operation, error.error)
        if not isinstance(error, Exception):
            return
        if self._started.done():
            self._failed(error)
        else:
            self._started.set_exception(error)

    def _end(self) -> None:
        if self._task is None or self._task.done():
            self._loop.stop()
            return
        self._task.add_done_callback(lambda _: self._loop.stop())
        self._task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


class LocalCapture(Capture):
    """An input device written by the user, in the microphone's process.

    Args:
        name: The name by which it was loaded.
        device: The device.
        block: Length of a block in samples.
    """

    jump_ns = ProgramInput.jump_ns

    def __init__(self, name: str, device: InputDevice, block: int) -> None:
        self.name = name
        rate = SAMPLE_RATE
        with contextlib.suppress(DeviceCallError):  # asked again once the device has started
            rate = rate_of(device)
        self._blocks = ProgramInput(block, rate=rate)
        self._timer: asyncio.TimerHandle | None = None
        self._loop = _DeviceLoop(name)
        self._hosted = HostedInput(device, self._take)
        self._hosted.on_start = self._loop.started

    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        self._blocks.start(deliver, failed)
        self._failed = failed
        self._loop.start(self._capture, failed)

    def close(self) -> None:
        self._loop.close()

    async def _capture(self) -> None:
        await self._hosted.run()
        self._take(ProgramCaptureEnded())
        await asyncio.Event().wait()  # keep the loop running: `_pump` now delivers silence

    def _take(self, message: Message) -> None:
        try:
            if isinstance(message, ProgramCapture):
                self._blocks.feed(message)
            elif isinstance(message, ProgramCaptureEnded):
                self._blocks.end()
        except DeviceError as error:
            self._failed(error)
            return
        self._pump()

    def _pump(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = self._blocks.pump(time.monotonic_ns())
        if wait_s is not None:
            self._timer = self._loop.later(wait_s, self._pump)


class LocalPlayback(Playback):
    """An output device written by the user, in the speaker's process.

    Args:
        name: The name by which it was loaded.
        device: The device.

    Raises:
        DeviceError: If its sample rate cannot be used.
    """

    clears = True

    def __init__(self, name: str, device: OutputDevice) -> None:
        self.name = name
        self.scales = callable(getattr(device, "set_volume", None))
        self._played: collections.deque[ProgramPlayed] = collections.deque(maxlen=5)
        self._cleared: queue.SimpleQueue[ProgramFlushed] = queue.SimpleQueue()
        try:
            self._clock = ProgramOutput(rate_of(device), scales=self.scales)
        except DeviceCallError as error:
            raise LocalDeviceError(name, error.operation, error.error) from error
        self._loop = _DeviceLoop(name)
        self._hosted = HostedOutput(device, self._take)
        self._hosted.on_start = self._loop.started

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._clock.start(playout, failed)
        self._loop.start(self._hosted.run, failed)

    def close(self) -> None:
        self._loop.close()

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        self._take_reports()
        messages, wait_s = self._clock.pump(now_ns)
        return self._pass_on(messages), wait_s

    def heard_until(self, now_ns: int) -> int:
        self._take_reports()
        return self._clock.heard_until(now_ns)

    def clear(self, now_ns: int) -> list[Message]:
        self._take_reports()
        self._pass_on(self._clock.clear(now_ns))
        with contextlib.suppress(queue.Empty):
            while self._clock.clearing:
                self._clock.flushed(self._cleared.get(timeout=_CLEAR_S))
        return []

    @property
    def overheard(self) -> int:
        return self._clock.overheard

    def flush(self, now_ns: int) -> list[Message]:
        self._take_reports()
        return self._pass_on(self._clock.flush(now_ns))

    def set_volume(self, volume: float) -> list[Message]:
        return self._pass_on(self._clock.set_volume(volume))

    def _pass_on(self, messages: list[Message]) -> list[Message]:
        """Pass messages to the device, on its loop; none are left to send to the program."""
        for message in messages:
            self._loop.call(lambda passed=message: self._hosted.receive(passed))  # type: ignore[misc]
        return []

    def _take(self, message: Message) -> None:
        if isinstance(message, ProgramPlayed):
            self._played.append(message)
        elif isinstance(message, ProgramFlushed):
            self._cleared.put(message)

    def _take_reports(self) -> None:
        """Apply the device's position reports, on the actor's thread."""
        while self._played:
            self._clock.played(self._played.popleft())
