"""Devices as users write them, with ``start``, ``stop`` and so on, run on an event loop.

An input device has ``start()``, ``stop()`` and ``stream_chunks()``; an output device ``start()``,
``stop()``, ``play_chunk(pcm)`` and ``clear_buffer()``. Coroutines run on the loop, plain functions
on a thread of the device's own, so that neither keeps anybody waiting. What is optional:
``sample_rate`` and ``is_active`` of an input; ``sample_rate``, ``played_ms``, ``is_playing`` and
``set_volume`` of an output.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import inspect
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol

from messages import (
    SAMPLE_RATE,
    DeviceFailed,
    Message,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlush,
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
"""How long to wait before a device is started again; the last one goes on."""
_PIECE_S = 0.1
"""The length of what is passed on at once, to the microphone and to ``play_chunk``."""
_AHEAD_S = 0.5
"""A source may run so far ahead of real time before it is made to wait."""
_CREDIT_S = 2.0
"""What a source was late may come at once, up to this."""
_LOOK_S = 0.25
"""How often ``is_active`` of a source that delivers nothing is looked at."""
_REPORT_S = 0.1
"""How often the position of an output device is told."""
_SILENCE_S = 0.1
"""How long ``clear_buffer`` waits for a ``play_chunk`` under way."""
_STUCK_S = 10.0
"""A device that takes or ends nothing for so long is not waited for."""
_MOST_WAITING = 30 * SAMPLE_RATE * 2
"""Bytes that wait for an output device that takes nothing."""


class InputDevice(Protocol):
    """What can be a microphone: 16-bit mono PCM at ``sample_rate`` (24 kHz if it has none)."""

    def start(self) -> Awaitable[None] | None:
        """Begin to capture."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def stream_chunks(self) -> AsyncIterator[bytes] | Iterable[bytes] | Awaitable[Any]:
        """Return what is captured, in chunks of any size; its end is the end of the input."""


class OutputDevice(Protocol):
    """What can be a loudspeaker: 16-bit mono PCM at ``sample_rate`` (24 kHz if it has none)."""

    def start(self) -> Awaitable[None] | None:
        """Get ready to play."""

    def stop(self) -> Awaitable[None] | None:
        """Release the device."""

    def play_chunk(self, chunk: bytes, /) -> Awaitable[None] | None:
        """Play after what was given before; may return at once."""

    def clear_buffer(self) -> Awaitable[None] | None:
        """Forget what is not played yet, and be silent."""


class DeviceCallError(Exception):
    """A method of a device has raised, or given what cannot be used."""

    def __init__(self, operation: str, error: str) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.error}"


def refuse_what_is_no_device(name: str, device: object, methods: Iterable[str]) -> None:
    """Check that an object has what a device needs.

    Raises:
        TypeError: it does not; the text says what to do.
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
        DeviceCallError: it is no number.
    """
    try:
        rate = getattr(device, "sample_rate", None)
        value = rate() if callable(rate) else rate
        return SAMPLE_RATE if value is None else int(value)
    except Exception as error:
        raise DeviceCallError("sample_rate", _words(error)) from error


# -- calling it -------------------------------------------------------------------------------


class _Caller:
    """Calls the methods of a device: coroutines here, plain functions on threads of its own."""

    def __init__(self, device: object) -> None:
        self._device = device
        self._threads: dict[str, _Thread] = {}

    async def call(self, operation: str, *arguments: object, thread: str = "control") -> Any:
        """Call a method and return what it returns.

        Args:
            operation: the method's name.
            arguments: for it.
            thread: which thread a plain function runs on; one at a time on each.

        Raises:
            DeviceCallError: it raised.
        """
        with _called(operation):
            method = getattr(self._device, operation)
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                result = method(*arguments)
            else:
                result = await self.on_thread(thread, functools.partial(method, *arguments))
            return await result if inspect.isawaitable(result) else result

    async def on_thread(self, name: str, call: Callable[[], Any]) -> Any:
        """Call a plain function on the device's thread of this name."""
        thread = self._threads.setdefault(name, _Thread(f"{type(self._device).__name__} {name}"))
        return await thread.run(call)

    def read(self, name: str) -> Any:
        """Return an attribute or what its method returns; None: there is none."""
        with _called(name):
            value = getattr(self._device, name, None)
            return value() if callable(value) else value

    def close(self) -> None:
        """End the threads that are idle; one that a device keeps ends with the process."""
        for thread in self._threads.values():
            thread.end()
        self._threads.clear()


@contextlib.contextmanager
def _called(operation: str) -> Iterator[None]:
    """Turn whatever a method raises, SystemExit too, into a `DeviceCallError`."""
    try:
        yield
    except (DeviceCallError, GeneratorExit):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # it is ours that is cancelled
            raise
        raise DeviceCallError(operation, "it was cancelled") from None
    except BaseException as error:
        raise DeviceCallError(operation, _words(error)) from error


class _Thread:
    """One thread that is started with the first call. It does not keep the process alive."""

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
            elif isinstance(error, StopIteration):  # no future can carry it
                future.set_exception(RuntimeError("it raised StopIteration"))
            else:
                future.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - passed on
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
    except Exception:  # noqa: BLE001 - its own code
        text = ""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Hosted:
    """What an input and an output device have in common: they are started until they work."""

    component: str

    def __init__(self, device: Any, send: Callable[[Message], None]) -> None:
        self._device = device
        self._send = send
        self._calls = _Caller(device)
        self._failures = 0
        """How often it has failed since it last worked."""
        self.on_start: Callable[[], object] | None = None
        """Called on the loop's thread whenever the device has started."""

    async def run_again_and_again(self) -> None:
        """Run, and start the device again when it fails; until it ends or this is cancelled."""
        try:
            while True:
                try:
                    await self.run()
                except DeviceCallError as error:
                    retry_s = _RETRIES_S[min(self._failures, len(_RETRIES_S) - 1)]
                    self._failures += 1
                    self._tell(error, retry_s)
                    self._paused(error)
                    await asyncio.sleep(retry_s)
                else:
                    return
        finally:
            self._calls.close()

    async def run(self) -> None:
        """Start the device, use it, and stop it on every way out.

        Raises:
            DeviceCallError: it failed.
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
                self._tell(error, None)

    def _started(self) -> None:
        pass

    async def _use(self) -> None:
        raise NotImplementedError

    def _paused(self, error: DeviceCallError) -> None:
        pass

    def _tell(self, error: DeviceCallError, retry_s: float | None) -> None:
        self._send(DeviceFailed(self.component, error.operation, error.error, retry_s))


# -- input ------------------------------------------------------------------------------------


class HostedInput(_Hosted):
    """Carries the chunks of an input device to the microphone, at most half a second ahead.

    Args:
        device: the device.
        send: takes `ProgramCapture` and `ProgramCaptureEnded` on the loop's thread.
    """

    component = "microphone"

    def __init__(self, device: InputDevice, send: Callable[[Message], None]) -> None:
        super().__init__(device, send)
        self._odd = b""
        self._rate = SAMPLE_RATE
        self._sent_s = 0.0
        self._began = 0.0
        self._chunks = 0
        self._marks = False
        """Whether the device leaves its ``_active`` to us."""

    async def run_again_and_again(self) -> None:
        """Capture until the device ends or this is cancelled, and tell that it has ended."""
        await super().run_again_and_again()
        self._send(ProgramCaptureEnded())

    async def run(self) -> None:
        """Capture until the device ends.

        Raises:
            DeviceCallError: it failed.
        """
        try:
            await super().run()
        finally:
            if self._marks:
                self._device._active = False  # noqa: SLF001 - the base class says so

    def _started(self) -> None:
        own = getattr(self._device, "__dict__", {})
        if getattr(self._device, "_active", None) is False and "_active" not in own:
            self._marks = True  # as its base class says
        if self._marks:
            self._device._active = True  # noqa: SLF001 - the base class says so

    async def _use(self) -> None:
        self._rate = rate_of(self._device)
        if not 8_000 <= self._rate <= 192_000:
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
        """Return when the device says that it is not active any more, and delivers nothing."""
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
        self._send(ProgramCapture(pcm, self._rate, time.monotonic_ns()))
        self._failures = 0
        now = time.monotonic()
        self._sent_s += len(pcm) / 2 / self._rate
        ahead_s = self._began + self._sent_s - now
        if ahead_s < -_CREDIT_S:
            self._began = now - self._sent_s - _CREDIT_S
        elif ahead_s > _AHEAD_S:
            await asyncio.sleep(ahead_s - _AHEAD_S)


_BYTES = bytes | bytearray | memoryview


def _pcm(chunk: object) -> bytes:
    """Return the bytes of a chunk: bytes-like, or samples of 16 bits (an array of numpy, say).

    Raises:
        DeviceCallError: it is something else.
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
    """Cancel tasks and wait for their end; what they raise was seen before."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- output -----------------------------------------------------------------------------------


class HostedOutput(_Hosted):
    """Carries audio from the speaker to an output device, and tells how far it has played.

    Args:
        device: the device.
        send: takes `ProgramPlayed` on the loop's thread.
    """

    component = "speaker"

    def __init__(self, device: OutputDevice, send: Callable[[Message], None]) -> None:
        super().__init__(device, send)
        self._rate = rate_of(device)
        self._waiting: collections.deque[tuple[int, bytes]] = collections.deque()
        """First sample and audio of what the device has not been given."""
        self._waiting_bytes = 0
        self._dropped = False
        self._flushed = False
        self._volume: float | None = None
        self._volume_is_new = False
        self._news = asyncio.Event()
        self._position = _Position(self._rate)
        self._reports = any(hasattr(device, name) for name in ("played_ms", "is_playing"))
        self._behind = False
        self._to_report = asyncio.Event()

    def told(self, message: Message) -> None:
        """Take audio, a flush or a volume, on the loop's thread."""
        match message:
            case ProgramPlayout(pcm, first):
                self._add(pcm, first)
            case ProgramFlush():
                self._waiting.clear()
                self._waiting_bytes = 0
                self._flushed = True
            case ProgramVolume(volume):
                self._volume, self._volume_is_new = volume, True
        self._news.set()

    def _add(self, pcm: bytes, first: int) -> None:
        piece = 2 * int(self._rate * _PIECE_S)
        for start in range(0, len(pcm), piece):
            part = pcm[start : start + piece]
            self._waiting.append((first + start // 2, part))
            self._waiting_bytes += len(part)
        while self._waiting_bytes > _MOST_WAITING:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
            if not self._dropped:
                self._dropped = True
                self._tell(DeviceCallError("play_chunk", "it takes nothing; audio is lost"), None)

    def _started(self) -> None:
        self._position.clear(self._played_ms())
        self._volume_is_new = self._volume is not None
        self._news.set()

    async def _use(self) -> None:
        reporting = asyncio.ensure_future(self._report())
        playing = asyncio.ensure_future(self._play())
        try:
            await asyncio.wait({reporting, playing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (playing, reporting):
                if task.done():
                    task.result()
        finally:
            await _ended(reporting, playing)

    # -- playing ------------------------------------------------------------------------------

    async def _play(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while await self._do_next():
                pass

    async def _do_next(self) -> bool:
        if self._flushed:  # before what came after it; silence does not wait
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
        self._flushed = False
        await self._calls.call("clear_buffer")
        self._position.clear(self._played_ms())

    async def _give(self, first: int, pcm: bytes) -> None:
        """Hand a chunk over; a flush that comes meanwhile waits for it a moment, and no longer."""
        self._position.given(first, len(pcm) // 2, time.monotonic())
        self._to_report.set()
        giving = asyncio.ensure_future(self._calls.call("play_chunk", pcm, thread="play"))
        began, told, cleared = time.monotonic(), False, False
        try:
            while not giving.done():
                news = asyncio.ensure_future(self._news.wait())
                patience_s = _SILENCE_S if self._flushed else _REPORT_S
                await asyncio.wait({giving, news}, timeout=patience_s, return_when=_FIRST)
                await _ended(news)
                self._news.clear()
                if self._flushed and not giving.done():
                    await asyncio.wait({giving}, timeout=_SILENCE_S)
                    await self._clear()
                    cleared = True
                if not told and time.monotonic() - began > _STUCK_S:
                    told = True
                    text = f"it has not returned for {_STUCK_S:g} s"
                    self._tell(DeviceCallError("play_chunk", text), None)
            giving.result()
        finally:
            await _ended(giving)
            self._news.set()  # what came meanwhile
        self._failures = 0
        self._dropped = False
        if cleared:  # what it was playing may have come after
            self._flushed = True

    # -- telling ------------------------------------------------------------------------------

    async def _report(self) -> None:
        """Tell how far the device is while it plays, if it knows better than the clock."""
        while True:
            await self._to_report.wait()
            await asyncio.sleep(_REPORT_S)
            now = time.monotonic()
            self._behind = self._behind or bool(self._waiting)
            stuck = now > self._position.due + _STUCK_S
            played = self._position.played(now, self._played_ms())
            playing = bool(self._calls.read("is_playing"))
            if playing and not stuck:
                played = min(played, self._position.end - 1)
            over = stuck or (played >= self._position.end and not self._waiting)
            if not stuck and (self._reports or self._behind):
                holds = not over and (playing or self._behind)
                waiting = self._waiting_bytes // 2
                self._send(ProgramPlayed(played, time.monotonic_ns(), holds, waiting))
            if over:
                self._behind = False
                self._to_report.clear()

    def _played_ms(self) -> float | None:
        value = self._calls.read("played_ms")
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            _refuse("played_ms", f"it is {_kind(value)}; give a number of milliseconds")


_FIRST = asyncio.FIRST_COMPLETED


class _Position:
    """How far a device has played, in the samples that the speaker counts.

    The device counts everything it was given since it was made; the speaker does not count what a
    flush took back, and counts anew after a death.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.end = -1
        """The sample after the last that was given; -1: nothing was given since the last flush."""
        self.due = 0.0
        """When that is played by the clock, in seconds."""
        self._given = 0
        """Samples that the device was given, as it counts."""
        self._offset = 0
        self._first = 0

    def clear(self, played_ms: float | None) -> None:
        """Take note that the device has forgotten what it had not played."""
        self._given = int((played_ms or 0.0) * self._rate / 1000)
        self.end, self.due = -1, 0.0

    def given(self, first: int, samples: int, now: float) -> None:
        """Take note that the device is given samples, at this time."""
        if first != self.end:
            self._first = first
            self._offset = first - self._given
        self.end = first + samples
        self._given += samples
        self.due = max(now, self.due) + samples / self._rate

    def played(self, now: float, played_ms: float | None) -> int:
        """Return how far it is, by its own word if it has one, else by the clock."""
        if played_ms is None:
            left = int(max(0.0, self.due - now) * self._rate)
            return max(self._first, self.end - left)
        played = int(played_ms * self._rate / 1000) + self._offset
        return max(self._first, min(played, self.end))
