"""Runs devices written by the user on an event loop.

An input device has ``start()``, ``stop()`` and ``stream_chunks()``; an output device has
``start()``, ``stop()``, ``play_chunk(pcm)`` and ``clear_buffer()``. Optional are ``sample_rate``
and ``is_active`` of an input, and ``sample_rate``, ``played_ms``, ``is_playing`` and ``set_volume``
of an output. Coroutines run on the loop; plain functions run on threads of the device, so that a
slow one does not block the loop.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import inspect
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn, Protocol

from actors.devices.units import RATES
from messages import (
    SAMPLE_RATE,
    DeviceFailed,
    Message,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlush,
    ProgramFlushed,
    ProgramPlayed,
    ProgramPlayout,
    ProgramVolume,
)

__all__ = [
    "DeviceCallError",
    "HostedInput",
    "HostedOutput",
    "InputDevice",
    "OutputDevice",
    "rate_of",
    "refuse_what_is_no_device",
]

_RETRIES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Backoff before a device is started again; the last value repeats."""
_PIECE_S = 0.1
"""Length of the pieces that are sent to the microphone and passed to ``play_chunk``."""
_CONVERTING_S = 0.003
"""Audio that the conversion of a sample rate holds back at most; a block needs so much more."""
_LATE_S = 0.02
"""How much later than its block may be complete, a part of it is sent anyway: the device pauses."""
_PAUSE_S = 0.5
"""After a pause of this length, the microphone has filled up its block with silence."""
_ROUNDING_S = 1e-6
_AHEAD_S = 0.5
"""Lead over real time from which a source has to wait."""
_CREDIT_S = 2.0
"""A source that was late may catch up at once by at most this much."""
_LOOK_S = 0.25
"""Interval at which ``is_active`` is read."""
_REPORT_S = 0.1
"""Interval of position reports of an output device."""
_SILENCE_S = 0.1
"""How long ``clear_buffer`` waits for a ``play_chunk`` under way."""
_STUCK_S = 10.0
"""Time after which an output device counts as stuck and is not waited for."""
_UNMOVED_S = 0.5
"""A ``played_ms`` that has not grown for this long while nothing plays is not believed."""
_NEARLY_S = 0.01
"""Error of ``played_ms`` that is put down to rounding."""
_MOST_WAITING = 30 * SAMPLE_RATE * 2
"""Bytes buffered for an output device that takes nothing; beyond this, the oldest are dropped."""


class InputDevice(Protocol):
    """An input device: 16-bit mono PCM at ``sample_rate`` (24 kHz if it has none)."""

    def start(self) -> Awaitable[None] | None:
        """Begin to capture."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def stream_chunks(self) -> AsyncIterator[bytes] | Iterable[bytes] | Awaitable[Any]:
        """Return or yield the captured audio in chunks of any size; their end ends the input."""


class OutputDevice(Protocol):
    """An output device: 16-bit mono PCM at ``sample_rate`` (24 kHz if it has none)."""

    def start(self) -> Awaitable[None] | None:
        """Get ready to play."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def play_chunk(self, chunk: bytes, /) -> Awaitable[None] | None:
        """Play a chunk after the earlier ones; may return before it is played."""

    def clear_buffer(self) -> Awaitable[None] | None:
        """Discard audio that is not played yet, and fall silent."""


class DeviceCallError(Exception):
    """Raised when a method of a device raises, or returns an unusable value."""

    def __init__(self, operation: str, error: str) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.error}"


def refuse_what_is_no_device(name: str, device: object, methods: Iterable[str]) -> None:
    """Check that an object is a device.

    Args:
        name: The parameter that the object was given for, used in the text.
        device: The object.
        methods: The methods that it must have.

    Raises:
        TypeError: If it is not a device; the text says what to do.
    """
    if isinstance(device, type):
        raise TypeError(
            f"{name}: give a device, not its class: {device.__name__}(...) instead of "
            f"{device.__name__}"
        )
    if missing := [key for key in methods if not callable(getattr(device, key, None))]:
        raise TypeError(
            f"{name}: {type(device).__name__} has no {' and no '.join(missing)}; derive it from "
            f"rtvoice.audio.devices"
        )


def rate_of(device: object) -> int:
    """Return the sample rate of a device in Hz.

    Raises:
        DeviceCallError: If it is not a number, or cannot be read.
    """
    try:
        rate = getattr(device, "sample_rate", None)
        value = rate() if callable(rate) else rate
        return SAMPLE_RATE if value is None else int(value)
    except Exception as error:
        raise DeviceCallError("sample_rate", _words(error)) from error


# -- calling a device -------------------------------------------------------------------------


class _Caller:
    """Calls the methods of a device: coroutines on the loop, plain functions on its threads."""

    def __init__(self, device: object) -> None:
        self._device = device
        self._threads: dict[str, _Thread] = {}
        self._methods: dict[str, tuple[Any, bool]] = {}
        """The methods called so far, and whether each returns at once: a coroutine, say."""

    async def call(self, operation: str, *arguments: object, thread: str = "control") -> Any:
        """Call a method and return its result.

        Args:
            operation: The name of the method.
            arguments: Its arguments.
            thread: The thread for a plain function; each thread runs one call at a time.

        Raises:
            DeviceCallError: If the method raises.
        """
        with _called(operation):
            method = getattr(self._device, operation)
            known = self._methods.get(operation)
            if known is None or known[0] != method:  # to find it out takes long
                is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
                self._methods[operation] = known = (method, is_async)
            if known[1]:
                result = method(*arguments)
            else:
                result = await self.on_thread(thread, functools.partial(method, *arguments))
            return await result if inspect.isawaitable(result) else result

    async def on_thread(self, name: str, call: Callable[[], Any]) -> Any:
        """Call a plain function on the thread of this name."""
        thread = self._threads.setdefault(name, _Thread(f"{type(self._device).__name__} {name}"))
        return await thread.run(call)

    def read(self, name: str) -> Any:
        """Return an attribute, or the result if it is a method; None: there is none."""
        with _called(name):
            value = getattr(self._device, name, None)
            return value() if callable(value) else value

    def close(self) -> None:
        """End the idle threads; a thread that a device blocks ends with the process."""
        for thread in self._threads.values():
            thread.end()
        self._threads.clear()


class _called:  # noqa: N801 - reads as a context manager
    """Turn everything that a method raises, SystemExit included, into a `DeviceCallError`."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, DeviceCallError | GeneratorExit):
            return
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # our own task, not the device's
                return
            raise DeviceCallError(self._operation, "it was cancelled") from None
        raise DeviceCallError(self._operation, _words(error)) from error


class _Thread:
    """A thread that starts with its first call and does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):  # a future does not accept it
                future.set_exception(RuntimeError("it raised StopIteration"))
            else:
                future.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - passed to the caller
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, failure)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(work)
        return await future

    def end(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the __str__ of a user's exception may fail
        text = ""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Hosted:
    """The common part of input and output: starts the device, and restarts it when it fails."""

    component: str

    def __init__(self, device: Any, send: Callable[[Message], None]) -> None:
        self._device = device
        self._send = send
        self._calls = _Caller(device)
        self._failures = 0
        """Number of failures since the device last worked; selects the backoff."""
        self.on_start: Callable[[], object] | None = None
        """Called on the loop's thread each time the device has started."""

    async def run_again_and_again(self) -> None:
        """Run the device, with restarts after failures, until it ends or this is cancelled."""
        try:
            while True:
                try:
                    await self.run()
                except DeviceCallError as error:
                    retry_s = _RETRIES_S[min(self._failures, len(_RETRIES_S) - 1)]
                    self._failures += 1
                    self._report_failure(error, retry_s)
                    self._paused(error)
                    await asyncio.sleep(retry_s)
                else:
                    return
        finally:
            self._calls.close()

    async def run(self) -> None:
        """Start the device, use it, and stop it on every way out.

        Raises:
            DeviceCallError: If the device fails.
        """
        try:
            await self._calls.call("start")
            self._started()
            if self.on_start is not None:
                self.on_start()
            await self._use()
        finally:
            try:
                await self._calls.call("stop")
            except DeviceCallError as error:
                self._report_failure(error, None)

    def _started(self) -> None:
        pass

    async def _use(self) -> None:
        raise NotImplementedError

    def _paused(self, error: DeviceCallError) -> None:
        pass

    def _report_failure(self, error: DeviceCallError, retry_s: float | None) -> None:
        self._send(DeviceFailed(self.component, error.operation, error.error, retry_s))


# -- input ------------------------------------------------------------------------------------


class HostedInput(_Hosted):
    """Sends the chunks of an input device to the microphone, at most half a second ahead.

    Args:
        device: The device.
        send: Called with `ProgramCapture` and `ProgramCaptureEnded` on the loop's thread.

    Attributes:
        block_s: Length of the microphone's blocks, to which chunks are joined; 0: they are not.
    """

    component = "microphone"

    def __init__(self, device: InputDevice, send: Callable[[Message], None]) -> None:
        super().__init__(device, send)
        self.block_s = 0.0
        self._joined: list[bytes] = []
        """Chunks that do not complete a block yet."""
        self._joined_ns = 0
        """When the first of them came."""
        self._missing_s = 0.0
        """What completes the block."""
        self._newest_s = 0.0
        """When the last chunk came."""
        self._overdue: asyncio.TimerHandle | None = None
        self._odd = b""
        """Half a sample at the end of the last chunk, or nothing."""
        self._rate = SAMPLE_RATE
        self._sent_s = 0.0
        self._began = 0.0
        """When the audio sent would have begun in real time; moved on for a source that is late."""
        self._chunks = 0
        self._marks = False
        """Whether we set the ``_active`` of the device, because its own class does not."""

    async def run_again_and_again(self) -> None:
        """Capture until the device ends or this is cancelled, then report the end."""
        await super().run_again_and_again()
        self._send(ProgramCaptureEnded())

    async def run(self) -> None:
        """Capture until the device ends.

        Raises:
            DeviceCallError: If the device fails.
        """
        try:
            await super().run()
        finally:
            self._send_joined()
            if self._marks:
                self._device._active = False  # noqa: SLF001 - the base class documents it

    def _started(self) -> None:
        own = getattr(self._device, "__dict__", {})
        if getattr(self._device, "_active", None) is False and "_active" not in own:
            self._marks = True  # the attribute is the base class's: the device does not set it
        if self._marks:
            self._device._active = True  # noqa: SLF001 - the base class documents it

    async def _use(self) -> None:
        self._rate = rate_of(self._device)
        if self._rate not in RATES:
            _refuse("sample_rate", f"it is {self._rate} Hz; it must be between 8000 and 192000")
        self._odd = b""
        self._sent_s, self._began = 0.0, time.monotonic()
        active = bool(self._calls.read("is_active"))
        streaming = asyncio.ensure_future(self._stream())
        watching = asyncio.ensure_future(self._watch(active))
        try:
            await asyncio.wait({streaming, watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in (streaming, watching):
                if task.done():
                    task.result()
        finally:
            await _ended(streaming, watching)

    def _paused(self, error: DeviceCallError) -> None:
        self._send(ProgramCaptureEnded(str(error), pauses=True))

    async def _stream(self) -> None:
        chunks = await self._calls.call("stream_chunks", thread="stream")
        if hasattr(chunks, "__anext__") or hasattr(chunks, "__aiter__"):
            await self._stream_async(chunks)
        elif isinstance(chunks, Iterable) and not isinstance(chunks, _BYTES | str):
            await self._stream_plain(chunks)
        else:
            _refuse("stream_chunks", f"it returned {_kind(chunks)} instead of yielding chunks")

    async def _stream_async(self, chunks: Any) -> None:
        with _called("stream_chunks"):
            iterator = aiter(chunks) if hasattr(chunks, "__aiter__") else chunks
        try:
            while True:
                with _called("stream_chunks"):
                    try:
                        chunk = await anext(iterator)
                    except StopAsyncIteration:
                        return
                await self._pass_on(chunk)
        finally:
            if hasattr(iterator, "aclose"):
                with contextlib.suppress(Exception):
                    await iterator.aclose()

    async def _stream_plain(self, chunks: Iterable[Any]) -> None:
        end = object()
        with _called("stream_chunks"):
            iterator = iter(chunks)
        while True:
            with _called("stream_chunks"):
                step = functools.partial(next, iterator, end)
                chunk = await self._calls.on_thread("stream", step)
            if chunk is end:
                return
            await self._pass_on(chunk)

    async def _watch(self, was_active: bool) -> None:
        """Return once the device has become inactive and delivers nothing more.

        A device without ``is_active`` is never inactive: wait until cancelled.
        """
        chunks, idle = -1, 0
        while True:
            await asyncio.sleep(_LOOK_S)
            active = self._calls.read("is_active")
            if active is None:
                await asyncio.Event().wait()
            was_active = was_active or bool(active)
            idle = idle + 1 if was_active and not active and chunks == self._chunks else 0
            chunks = self._chunks
            if idle >= 2:
                return

    async def _pass_on(self, chunk: object) -> None:
        self._chunks += 1
        pcm = self._odd + _pcm(chunk)
        whole = len(pcm) & ~1
        pcm, self._odd = pcm[:whole], pcm[whole:]
        piece = 2 * int(self._rate * _PIECE_S)
        for start in range(0, len(pcm), piece):
            await self._send_piece(pcm[start : start + piece])

    async def _send_piece(self, pcm: bytes) -> None:
        self._join(pcm)
        self._failures = 0
        now = time.monotonic()
        self._sent_s += len(pcm) / 2 / self._rate
        ahead_s = self._began + self._sent_s - now
        if ahead_s < -_CREDIT_S:  # later than it may catch up: count from a later beginning
            self._began = now - self._sent_s - _CREDIT_S
        elif ahead_s > _AHEAD_S:
            await asyncio.sleep(ahead_s - _AHEAD_S)

    def _begin_block(self) -> None:
        self._missing_s = self.block_s
        if self.block_s and self._rate != SAMPLE_RATE:
            self._missing_s += _CONVERTING_S

    def _join(self, pcm: bytes) -> None:
        """Send what has come as soon as it completes a block of the microphone."""
        now = time.monotonic()
        if now - self._newest_s >= _PAUSE_S:
            self._begin_block()
        self._newest_s = now
        if not self._joined:
            self._joined_ns = time.monotonic_ns()
        self._joined.append(pcm)
        self._missing_s -= len(pcm) / 2 / self._rate
        if self._missing_s <= _ROUNDING_S:
            while self._missing_s <= _ROUNDING_S and self.block_s:
                self._missing_s += self.block_s
            self._send_joined()
        elif self._overdue is None:
            wait_s = self._missing_s + _LATE_S
            self._overdue = asyncio.get_running_loop().call_later(wait_s, self._send_joined)

    def _send_joined(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if self._joined:
            pcm = self._joined[0] if len(self._joined) == 1 else b"".join(self._joined)
            self._joined.clear()
            self._send(ProgramCapture(pcm, self._rate, self._joined_ns))


_BYTES = bytes | bytearray | memoryview


def _pcm(chunk: object) -> bytes:
    """Return the bytes of a chunk, which is bytes-like or an array of 16-bit integers.

    Raises:
        DeviceCallError: If it is something else.
    """
    if isinstance(chunk, bytes):
        return chunk
    try:
        view = memoryview(chunk)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        _refuse("stream_chunks", f"it yielded {_kind(chunk)}; yield bytes of 16-bit PCM")
    if view.format.lstrip("@=<") not in ("B", "b", "c", "h"):
        _refuse(
            "stream_chunks",
            f"it yielded {_kind(chunk)} with items of format {view.format!r}; convert them to "
            f"16-bit integers, such as (samples * 32767).astype('<i2')",
        )
    if view.ndim > 1 and view.shape is not None and min(view.shape[1:]) > 1:
        _refuse("stream_chunks", f"it yielded {_kind(chunk)} with channels; yield one channel")
    return view.tobytes()


def _refuse(operation: str, problem: str) -> NoReturn:
    raise DeviceCallError(operation, problem)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for their end; their exceptions were raised before."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- output -----------------------------------------------------------------------------------


class HostedOutput(_Hosted):
    """Passes audio from the speaker to an output device, and reports how far it has played.

    It has more attributes than other classes: a call of the device, a flush and a report can be
    under way at the same time.

    Args:
        device: The device.
        send: Called with `ProgramPlayed` and `ProgramFlushed` on the loop's thread.
    """

    component = "speaker"

    def __init__(self, device: OutputDevice, send: Callable[[Message], None]) -> None:
        super().__init__(device, send)
        self._rate = rate_of(device)
        self._waiting: collections.deque[tuple[int, bytes]] = collections.deque()
        """First sample and audio of each piece that the device has not got yet."""
        self._waiting_bytes = 0
        self._dropped = False
        """Whether lost audio was reported since the device last took audio."""
        self._flushed = False
        """Whether a call of ``clear_buffer`` is due."""
        self._number = 0
        """Number of the `ProgramFlush` to answer after that call; 0: none."""
        self._unplayed: int | None = None
        """First sample of what a flush has discarded before the device got it; None: nothing."""
        self._in_use = False
        self._call_returned: asyncio.Event | None = None
        """Set at the end of the call of ``play_chunk`` under way; None: there is none."""
        self._call_began = 0.0
        """When the last call has begun."""
        self._stuck_timer: asyncio.TimerHandle | None = None
        """Looks whether a call is stuck; None: it does not run."""
        self._clearing: asyncio.Task[None] | None = None
        """Handles a flush during a call of ``play_chunk``."""
        self._cleared = False
        """Whether ``clear_buffer`` was called during that call."""
        self._failed: asyncio.Future[None] | None = None
        self._noted: set[str] = set()
        """Attributes whose unusable values were reported since the device has started."""
        self._volume: float | None = None
        self._volume_is_new = False
        self._news = asyncio.Event()
        self._position = _Position(self._rate)
        self._reports = any(hasattr(device, name) for name in ("played_ms", "is_playing"))
        """Whether the device reports its position; otherwise the clock determines it."""
        self._behind = False
        """Whether the device takes audio more slowly than real time: the clock would be wrong."""
        self._to_report = asyncio.Event()

    def receive(self, message: Message) -> None:
        """Handle audio, a flush or a volume; call it on the loop's thread."""
        match message:
            case ProgramPlayout(pcm, first):
                self._add(pcm, first)
            case ProgramFlush(number=number):
                self._flush(number)
            case ProgramVolume(volume):
                self._volume, self._volume_is_new = volume, True
        self._news.set()

    def _add(self, pcm: bytes, first: int) -> None:
        piece = 2 * int(self._rate * _PIECE_S)
        for start in range(0, len(pcm), piece):
            part = pcm[start : start + piece]  # no copy if it is all of it, as from the speaker
            self._waiting.append((first + start // 2, part))
            self._waiting_bytes += len(part)
        while self._waiting_bytes > _MOST_WAITING:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
            if not self._dropped:
                self._dropped = True
                text = "it takes nothing; audio is lost"
                self._report_failure(DeviceCallError("play_chunk", text), None)

    def _flush(self, number: int) -> None:
        if self._waiting and self._unplayed is None:
            self._unplayed = self._waiting[0][0]
        self._waiting.clear()
        self._waiting_bytes = 0
        self._flushed = True
        self._number = number
        if not self._in_use:  # it has failed, and plays nothing
            self._answer(self._position.stopped, time.monotonic_ns())
            self._position.stopped = -1
        elif self._call_returned is not None and (self._clearing is None or self._clearing.done()):
            self._clearing = asyncio.ensure_future(self._clear_meanwhile(self._call_returned))
            self._clearing.add_done_callback(self._pass_on_failure)

    def _answer(self, played: int, at_ns: int) -> None:
        number, self._number = self._number, 0
        unplayed, self._unplayed = self._unplayed, None
        if number:
            if played < 0 and unplayed is not None:
                played = unplayed
            self._send(ProgramFlushed(number, played, at_ns))

    def _started(self) -> None:
        self._noted.clear()
        self._position.clear(self._played_ms())
        self._volume_is_new = self._volume is not None
        self._news.set()

    async def _use(self) -> None:
        self._failed = failed = asyncio.get_running_loop().create_future()
        reporting = asyncio.ensure_future(self._report())
        playing = asyncio.ensure_future(self._play())
        tasks: tuple[asyncio.Future[None], ...] = (playing, reporting, failed)
        self._in_use = True
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            self._in_use = False
            self._position.stop(time.monotonic())
            clearing = (self._clearing,) if self._clearing is not None else ()
            await _ended(*tasks, *clearing)
            self._clearing = None
            self._answer(self._position.stopped, time.monotonic_ns())

    # -- playing ------------------------------------------------------------------------------

    async def _play(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while await self._do_next():
                pass

    async def _do_next(self) -> bool:
        if self._flushed:  # first: a flush must be heard at once, and comes before new audio
            await self._clear()
        elif self._volume_is_new:
            self._volume_is_new = False
            if hasattr(self._device, "set_volume"):
                await self._calls.call("set_volume", self._volume)
        elif self._waiting:
            first, pcm = self._waiting.popleft()
            self._waiting_bytes -= len(pcm)
            await self._give(first, pcm)
        else:
            return False
        return True

    async def _clear(self) -> None:
        """Call ``clear_buffer``, and say how far the device had played by then."""
        self._flushed = False
        at_ns = time.monotonic_ns()
        playing, told_ms = self._playing(), self._played_ms()
        played = self._position.played(at_ns / 1e9, told_ms, playing=playing)
        if playing:
            played = min(played, self._position.end - 1)
        try:
            await self._calls.call("clear_buffer")
            after_ms = self._played_ms()
            if told_ms is not None and after_ms is not None and self._position.end >= 0:
                # It may know better once it is cleared, or count what it has discarded as played.
                after = self._position.counted(after_ms)
                nearly_all = self._position.end - int(_NEARLY_S * self._rate)
                played = after if played < after < nearly_all else played
            self._position.clear(after_ms)
        finally:
            self._answer(played, at_ns)

    async def _clear_meanwhile(self, returned: asyncio.Event) -> None:
        """Handle flushes during a call of ``play_chunk``, for which they wait only briefly."""
        while self._flushed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(returned.wait(), _SILENCE_S)
            if returned.is_set():
                return  # `_do_next` clears it
            self._cleared = True
            await self._clear()

    def _pass_on_failure(self, clearing: asyncio.Task[None]) -> None:
        if clearing.cancelled() or self._failed is None or self._failed.done():
            return
        if (error := clearing.exception()) is not None:
            self._failed.set_exception(error)

    async def _give(self, first: int, pcm: bytes) -> None:
        """Pass a chunk to the device; `_flush` handles a flush during the call."""
        self._position.given(first, len(pcm) // 2, time.monotonic())
        self._to_report.set()
        self._cleared, self._call_returned = False, asyncio.Event()
        self._call_began = time.monotonic()
        if self._stuck_timer is None:
            self._stuck_timer = asyncio.get_running_loop().call_later(_STUCK_S, self._look_stuck)
        try:
            await self._calls.call("play_chunk", pcm, thread="play")
        finally:
            self._call_returned.set()
            self._call_returned = None
        if self._clearing is not None:
            await self._clearing
            self._clearing = None
        self._failures = 0
        self._dropped = False
        if self._cleared:  # clear again: the call may have queued its chunk after `clear_buffer`
            self._flushed = True

    def _look_stuck(self) -> None:
        """Report a call that does not return. One timer serves many calls."""
        self._stuck_timer = None
        if self._call_returned is None:
            return
        left_s = self._call_began + _STUCK_S - time.monotonic()
        if left_s > 0:
            self._stuck_timer = asyncio.get_running_loop().call_later(left_s, self._look_stuck)
            return
        text = f"it has not returned for {_STUCK_S:g} s"
        self._report_failure(DeviceCallError("play_chunk", text), None)

    # -- reporting ----------------------------------------------------------------------------

    async def _report(self) -> None:
        """Report the position while the device plays, if it is not simply that of the clock."""
        while True:
            await self._to_report.wait()
            await asyncio.sleep(_REPORT_S)
            now_ns = time.monotonic_ns()
            now = now_ns / 1e9
            self._behind = self._behind or bool(self._waiting)
            stuck = now > self._position.due + _STUCK_S
            playing = self._playing()
            played = self._position.played(now, self._played_ms(), playing=playing)
            if playing and not stuck:  # the device knows better than the clock that it still plays
                played = min(played, self._position.end - 1)
            over = stuck or (played >= self._position.end and not self._waiting)
            if not stuck and (self._reports or self._behind):
                waiting = self._waiting_bytes // 2
                self._send(ProgramPlayed(played, now_ns, not over, waiting))
            if over:
                self._behind = False
                self._to_report.clear()

    def _played_ms(self) -> float | None:
        """Return what the device has played in its own count; None: it does not say."""
        value = self._calls.read("played_ms")
        try:
            played_ms = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            self._note_unusable("played_ms", f"it is {_kind(value)}; give a number of milliseconds")
            return None
        if played_ms is not None and not math.isfinite(played_ms):
            self._note_unusable("played_ms", f"it is {played_ms}; give a number of milliseconds")
            return None
        return played_ms

    def _playing(self) -> bool:
        value = self._calls.read("is_playing")
        try:
            return bool(value)
        except Exception:  # noqa: BLE001 - the __bool__ of a user's value may raise anything
            self._note_unusable("is_playing", f"it is {_kind(value)}; give True or False")
            return False

    def _note_unusable(self, name: str, text: str) -> None:
        """Report once that an attribute cannot be used; the clock takes its place."""
        if name not in self._noted:
            self._noted.add(name)
            self._report_failure(DeviceCallError(name, text), None)


class _Position:
    """The position of a device, converted to the speaker's count of samples.

    The two counts differ: the device counts all audio that it was given since it was made; the
    speaker does not count audio that a flush took back, and starts at zero after a crash.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.end = -1
        """Sample after the last one given to the device; -1: none since the last flush."""
        self.due = 0.0
        """When the last sample given is played by the clock, in seconds."""
        self.stopped = -1
        """The position when the device was in use last; -1: unknown."""
        self._given = 0
        """Samples given to the device, in its count."""
        self._offset = 0
        """The speaker's count minus the device's, since `_first`."""
        self._first = 0
        """First sample given without a gap before `end`; the position is never before it."""
        self._told: int | None = None
        """The highest position that the device has reported since `_first`; None: none."""
        self._highest_ms = 0.0
        """The highest position that the device has reported, in its own count."""
        self._impossible = False
        """Whether the device has reported what cannot be since it was cleared."""
        self._grown = 0.0
        """When that grew last, or could begin to grow."""

    def clear(self, played_ms: float | None) -> None:
        """Record that the device has discarded the audio that it had not played."""
        self._highest_ms = played_ms or 0.0
        self._given = int(self._highest_ms * self._rate / 1000)
        self.end, self.due, self._told, self._impossible = -1, 0.0, None, False

    def stop(self, now: float) -> None:
        """Record that the device has failed, and is not in use until the next `clear`."""
        self.stopped = max(self._told or 0, self._by_clock(now)) if self.end >= 0 else -1

    def given(self, first: int, samples: int, now: float) -> None:
        """Record that the device is given samples at this time."""
        if first != self.end:  # after a flush or a gap, the two counts have another offset
            self._first, self._told = first, None
            self._offset = first - self._given
        if now > self.due:
            self._grown = now
        self.end = first + samples
        self._given += samples
        self.due = max(now, self.due) + samples / self._rate

    def counted(self, played_ms: float) -> int:
        """Return the speaker's count of a position in the device's."""
        return int(played_ms * self._rate / 1000) + self._offset

    def played(self, now: float, played_ms: float | None, *, playing: bool) -> int:
        """Return the position, -1 if nothing was given since the last flush.

        It is that which the device reports. By the clock it is where the device reports none, or
        one that does not move although nothing holds it, and from a report that cannot be (it
        goes back, or is after the end) to the next flush.

        Args:
            now: The time.
            played_ms: What the device reports; None: nothing.
            playing: Whether the device says that it plays, so that it may stand still.
        """
        if self.end < 0:
            return -1
        by_clock = self._by_clock(now)
        if played_ms is None:
            return by_clock
        told, least = self.counted(played_ms), self._told
        goes_back = played_ms < self._highest_ms - 1000 * _NEARLY_S
        if goes_back or told > self.end + int(_NEARLY_S * self._rate):
            self._impossible = True
        self._highest_ms = max(self._highest_ms, played_ms)
        if self._impossible:
            return max(by_clock, least or 0)
        told = min(max(told, self._first, least or 0), self.end)
        if told > (self._first if least is None else least):
            self._told, self._grown = told, now
        elif not playing and told < self.end and now - self._grown >= _UNMOVED_S:
            return max(by_clock, told)
        return told

    def _by_clock(self, now: float) -> int:
        left = int(max(0.0, self.due - now) * self._rate)
        return max(self._first, self.end - left)
