"""Devices of users on an event loop: every form that they may have, and their mistakes."""

from __future__ import annotations

import asyncio
import threading
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from actors.devices.own import hosted as module
from actors.devices.own.conversion import Conversion
from actors.devices.own.hosted import DeviceCallError, HostedInput, HostedOutput
from messages import (
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
from tests.rig import TIMEOUT_S

SAMPLES = array("h", range(1, 1001)).tobytes()


class Source:
    """An input device with a ``stream_chunks`` to be replaced."""

    def __init__(self, stream_chunks: Callable[[], Any]) -> None:
        self.stream_chunks = stream_chunks
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")


def captured(device: object) -> bytes:
    """Run an input device to its end and return what it has captured."""
    sent: list[Message] = []
    hosted = HostedInput(device, sent.append)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(hosted.run(), TIMEOUT_S))
    assert all(len(m.pcm) % 2 == 0 for m in sent if isinstance(m, ProgramCapture))
    return b"".join(m.pcm for m in sent if isinstance(m, ProgramCapture))


def refusal(device: object) -> DeviceCallError:
    with pytest.raises(DeviceCallError) as caught:
        captured(device)
    return caught.value


# -- what stream_chunks may be ----------------------------------------------------------------


async def async_generator() -> AsyncIterator[bytes]:
    for start in range(0, len(SAMPLES), 333):
        yield SAMPLES[start : start + 333]


def generator() -> Iterator[bytes]:
    for start in range(0, len(SAMPLES), 333):
        yield SAMPLES[start : start + 333]


class OnlyNext:
    """An async iterator that is not iterable by itself."""

    def __init__(self) -> None:
        self.left = [SAMPLES[:1001], SAMPLES[1001:]]

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def coroutine_of_an_async_generator() -> AsyncIterator[bytes]:
    return async_generator()


async def coroutine_of_a_list() -> list[bytes]:
    return [SAMPLES[:1001], b"", SAMPLES[1001:]]


@pytest.mark.parametrize(
    "stream_chunks",
    [
        async_generator,
        generator,
        OnlyNext,
        coroutine_of_an_async_generator,
        coroutine_of_a_list,
        lambda: iter([SAMPLES]),
        lambda: (SAMPLES,),
        lambda: async_generator(),
    ],
)
def test_chunks_come_in_every_form(stream_chunks: Callable[[], Any]) -> None:
    source = Source(stream_chunks)

    assert captured(source) == SAMPLES
    assert source.calls == ["start", "stop"]


@pytest.mark.parametrize(
    "chunk",
    [
        SAMPLES,
        bytearray(SAMPLES),
        memoryview(SAMPLES),
        array("h", SAMPLES),
        np.frombuffer(SAMPLES, "<i2"),
        np.frombuffer(SAMPLES, "<i2").reshape(-1, 1),
        np.frombuffer(SAMPLES, "<i2").repeat(2)[::2],  # not contiguous
    ],
    ids=["bytes", "bytearray", "memoryview", "array", "numpy", "column", "stride"],
)
def test_a_chunk_is_anything_like_bytes(chunk: object) -> None:
    assert captured(Source(lambda: [chunk])) == SAMPLES


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.zeros(8, np.float32), "type ndarray with items of format 'f'; convert them to 16-bit"),
        (np.zeros(8, ">i2"), "format '>h'"),
        (np.zeros((8, 2), np.int16), "with channels; yield one channel"),
        (array("i", [1]), "format 'i'"),
        ("text", "it yielded a value of type str; yield bytes"),
        ([1, 2], "a value of type list"),
        (None, "it yielded None"),
    ],
)
def test_what_is_no_sound_is_refused_in_words(chunk: object, words: str) -> None:
    error = refusal(Source(lambda: [chunk]))

    assert error.operation == "stream_chunks"
    assert words in error.error


@pytest.mark.parametrize(
    ("returned", "words"),
    [(SAMPLES, "it returned a value of type bytes instead of yielding"), (None, "returned None")],
)
def test_what_yields_nothing_is_refused_in_words(returned: object, words: str) -> None:
    assert words in refusal(Source(lambda: returned)).error


@pytest.mark.parametrize("rate", [12, 500_000])
def test_a_rate_that_cannot_be_is_refused(rate: int) -> None:
    source = Source(async_generator)
    source.sample_rate = rate  # type: ignore[attr-defined]

    assert f"it is {rate} Hz; it must be between 8000 and 192000" in str(refusal(source))


def test_a_rate_is_passed_on() -> None:
    source = Source(async_generator)
    source.sample_rate = 8000  # type: ignore[attr-defined]
    sent: list[Message] = []

    asyncio.run(HostedInput(source, sent.append).run())

    assert {m.sample_rate for m in sent if isinstance(m, ProgramCapture)} == {8000}


@pytest.mark.parametrize("operation", ["start", "stream_chunks", "next", "stop"])
@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), asyncio.CancelledError()])
def test_an_exception_of_a_method_is_reported_with_the_methods_name(
    operation: str, error: BaseException
) -> None:
    class Broken(Source):
        async def start(self) -> None:
            self.raise_in("start")

        async def stop(self) -> None:
            self.raise_in("stop")

        def raise_in(self, name: str) -> None:
            self.calls.append(name)
            if name == operation:
                raise error

    def stream_chunks() -> Iterator[bytes]:
        device.raise_in("stream_chunks")
        return numbers()

    def numbers() -> Iterator[bytes]:
        yield SAMPLES
        device.raise_in("next")

    device = Broken(stream_chunks)
    sent: list[Message] = []
    hosted = HostedInput(device, sent.append)

    if operation == "stop":
        asyncio.run(hosted.run())
        failure = next(m for m in sent if isinstance(m, DeviceFailed))
        assert (failure.operation, failure.retry_s) == ("stop", None)
    else:
        with pytest.raises(DeviceCallError) as caught:
            asyncio.run(hosted.run())
        expected = "stream_chunks" if operation == "next" else operation
        assert caught.value.operation == expected
    assert device.calls[-1] == "stop"


def test_a_source_that_is_not_active_any_more_has_ended() -> None:
    class Line(Source):
        is_active = True

    async def waits_for_ever() -> AsyncIterator[bytes]:
        yield SAMPLES
        line.is_active = False
        await asyncio.Event().wait()

    line = Line(waits_for_ever)

    assert captured(line) == SAMPLES
    assert line.calls == ["start", "stop"]


def test_a_source_that_was_never_active_is_heard() -> None:
    class Line(Source):
        is_active = False

    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(1.0)
        yield SAMPLES

    assert captured(Line(slow)) == SAMPLES


def test_the_generator_is_closed_when_the_session_ends() -> None:
    closed = threading.Event()

    async def speaking() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(960)
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async def session() -> None:
        source = Source(speaking)
        sent = asyncio.Event()
        running = asyncio.ensure_future(
            HostedInput(source, lambda _: sent.set()).run_again_and_again()
        )
        await asyncio.wait_for(sent.wait(), TIMEOUT_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert source.calls == ["start", "stop"]

    asyncio.run(session())
    assert closed.is_set()


def test_a_source_that_fails_is_restarted_and_paused_again() -> None:
    lives = 0

    async def twice() -> AsyncIterator[bytes]:
        nonlocal lives
        lives += 1
        yield SAMPLES
        if lives < 2:
            raise OSError("the line is dead")

    source = Source(twice)
    sent: list[Message] = []
    asyncio.run(asyncio.wait_for(HostedInput(source, sent.append).run_again_and_again(), TIMEOUT_S))

    assert source.calls == ["start", "stop", "start", "stop"]
    assert [m for m in sent if not isinstance(m, ProgramCapture)] == [
        DeviceFailed("microphone", "stream_chunks", "OSError: the line is dead", 0.5),
        ProgramCaptureEnded("stream_chunks failed: OSError: the line is dead", pauses=True),
        ProgramCaptureEnded(),
    ]


# -- joining to blocks ------------------------------------------------------------------------


def sent_lengths(chunks_ms: list[int], *, rate: int = 24_000, block_ms: int = 40) -> list[int]:
    """Return the lengths of the messages, in ms, for chunks that come one after the other."""

    async def stream() -> AsyncIterator[bytes]:
        for ms in chunks_ms:
            yield bytes(2 * rate * ms // 1000)

    source = Source(stream)
    source.sample_rate = rate  # type: ignore[attr-defined]
    sent: list[Message] = []
    hosted = HostedInput(source, sent.append)
    hosted.block_s = block_ms / 1000
    asyncio.run(hosted.run())
    return [len(m.pcm) * 500 // rate for m in sent if isinstance(m, ProgramCapture)]


@pytest.mark.parametrize(
    ("chunks_ms", "messages_ms"),
    [
        ([20] * 6, [40, 40, 40]),
        ([10] * 9, [40, 40, 10]),  # the rest comes at the end
        ([30] * 4, [60, 30, 30]),  # what completes a block waits for nothing
        ([40, 40], [40, 40]),
        ([100, 10, 10], [100, 20]),
        ([150], [100, 50]),
    ],
)
def test_chunks_are_joined_to_the_microphones_blocks(
    chunks_ms: list[int], messages_ms: list[int]
) -> None:
    assert sent_lengths(chunks_ms) == messages_ms


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_a_block_that_is_converted_comes_with_what_the_conversion_holds_back(rate: int) -> None:
    lengths = sent_lengths([20] * 6, rate=rate)
    conversion = Conversion(rate, 24_000)
    had = [len(conversion.process(bytes(2 * rate * ms // 1000))) // 48 for ms in lengths]

    assert lengths == [60, 40, 20]
    assert had[0] >= 40
    assert sum(had[:2]) >= 80


def test_a_part_of_a_block_does_not_wait_for_a_device_that_pauses() -> None:
    sent: list[Message] = []

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(960)
        while not sent:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.6)  # the microphone fills up its block with silence
        yield bytes(960)
        assert len(sent) == 1
        yield bytes(960)

    async def session() -> None:
        hosted = HostedInput(Source(stream), sent.append)
        hosted.block_s = 0.04
        await asyncio.wait_for(hosted.run(), TIMEOUT_S)

    asyncio.run(session())

    assert [len(m.pcm) for m in sent if isinstance(m, ProgramCapture)] == [960, 1920]


def test_a_part_of_a_block_comes_before_the_failure_of_its_device() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield bytes(960)
        raise OSError("the line is dead")

    sent: list[Message] = []

    async def session() -> None:
        hosted = HostedInput(Source(stream), sent.append)
        hosted.block_s = 0.04
        running = asyncio.ensure_future(hosted.run_again_and_again())
        while not any(isinstance(m, ProgramCaptureEnded) for m in sent):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(session())

    kinds = [type(m) for m in sent]
    assert kinds.index(ProgramCapture) < kinds.index(ProgramCaptureEnded)


# -- output -----------------------------------------------------------------------------------


class Ear:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def play_chunk(self, chunk: bytes) -> None:
        self.calls.append(len(chunk) // 48)

    async def clear_buffer(self) -> None:
        self.calls.append("clear")


class Room:
    """An output device on a loop, and the test in the place of the speaker."""

    def __init__(self, device: object) -> None:
        self.device: Any = device
        self.sent: list[Message] = []
        self.hosted = HostedOutput(self.device, self.sent.append)
        self.first = 0

    async def __aenter__(self) -> Room:
        self.task = asyncio.ensure_future(self.hosted.run_again_and_again())
        await self.until(lambda: "start" in self.device.calls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def say(self, ms: int, first: int | None = None) -> None:
        self.first = self.first if first is None else first
        self.hosted.receive(ProgramPlayout(bytes(48 * ms), self.first))
        self.first += 24 * ms

    async def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, (self.device.calls, self.sent)
            await asyncio.sleep(0.005)

    @property
    def positions(self) -> list[int]:
        return [m.played_samples // 24 for m in self.sent if isinstance(m, ProgramPlayed)]


def test_chunks_are_short_and_in_order_and_the_volume_comes_first() -> None:
    class Scaling(Ear):
        def set_volume(self, level: float) -> None:
            self.calls.append(level)

    async def session() -> list[Any]:
        device = Scaling()
        room = Room(device)
        room.hosted.receive(ProgramVolume(0.5))
        async with room:
            room.say(250)
            await room.until(lambda: device.calls[-1:] == [50])
        return device.calls

    assert asyncio.run(session()) == ["start", 0.5, 100, 100, 50, "stop"]


@pytest.mark.parametrize("plain", [True, False])
def test_a_flush_does_not_wait_for_a_device_that_blocks(plain: bool) -> None:
    gate = threading.Event()

    class Blocking(Ear):
        def play_chunk(self, chunk: bytes) -> None:  # type: ignore[override]
            self.calls.append(len(chunk) // 48)
            gate.wait(TIMEOUT_S)

    class Waiting(Ear):
        async def play_chunk(self, chunk: bytes) -> None:
            self.calls.append(len(chunk) // 48)
            while not gate.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def session() -> list[Any]:
        device = Blocking() if plain else Waiting()
        async with Room(device) as room:
            room.say(200)
            await room.until(lambda: 100 in device.calls)
            room.hosted.receive(ProgramFlush())
            await room.until(lambda: "clear" in device.calls)
            room.say(60, first=0)
            assert device.calls == ["start", 100, "clear"]
            gate.set()
            await room.until(lambda: device.calls[-1] == 60)
        return device.calls

    assert asyncio.run(session()) == ["start", 100, "clear", "clear", 60, "stop"]


def test_a_device_that_takes_its_time_says_how_far_it_is() -> None:
    class Card(Ear):
        async def play_chunk(self, chunk: bytes) -> None:
            await asyncio.sleep(0.3)  # three times as long as the chunk
            self.calls.append(len(chunk) // 48)

    async def session() -> Room:
        device = Card()
        async with Room(device) as room:
            room.say(200)
            room.say(200)
            await room.until(lambda: 400 in room.positions)
        return room

    room = asyncio.run(session())
    waiting = [m.waiting_samples for m in room.sent if isinstance(m, ProgramPlayed)]
    assert room.positions == sorted(room.positions)
    assert waiting[0] >= 24 * 200
    assert waiting[-1] == 0


def test_a_device_that_is_in_time_says_nothing() -> None:
    async def session() -> list[Message]:
        device = Ear()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: 100 in device.calls)
            await asyncio.sleep(0.3)
        return room.sent

    assert asyncio.run(session()) == []


def test_what_a_device_counts_is_matched_over_flushes_and_new_speakers() -> None:
    class Counting(Ear):
        played_ms = 1000.0  # of an earlier session

    async def session() -> list[int]:
        device = Counting()
        async with Room(device) as room:
            room.say(100)
            device.played_ms = 1060.0
            await room.until(lambda: room.positions[-1:] == [60])
            room.hosted.receive(ProgramFlush())  # 40 ms of it are never heard
            await room.until(lambda: "clear" in device.calls)
            room.say(100, first=24 * 60)
            device.played_ms = 1090.0
            await room.until(lambda: room.positions[-1:] == [90])
            room.say(100, first=0)  # a speaker that has died counts anew
            await room.until(lambda: device.calls.count(100) == 3)
            device.played_ms = 1160.0 + 25.0
            await room.until(lambda: room.positions[-1:] == [25])
        return room.positions

    assert asyncio.run(session())[-1] == 25


def test_a_device_that_plays_on_holds_the_end_back() -> None:
    class Phone(Ear):
        is_playing = True

    async def session() -> Room:
        device = Phone()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: len(room.positions) > 3)
            assert 100 not in room.positions
            assert all(m.playing for m in room.sent if isinstance(m, ProgramPlayed))
            device.is_playing = False
            await room.until(lambda: room.positions[-1] == 100)
        return room

    room = asyncio.run(session())
    last = room.sent[-1]
    assert isinstance(last, ProgramPlayed)
    assert not last.playing


@pytest.mark.parametrize("operation", ["play_chunk", "clear_buffer", "played_ms", "is_playing"])
def test_an_output_that_raises_is_reported_and_started_again(operation: str) -> None:
    class Broken(Ear):
        broken = True

        def raise_in(self, name: str) -> None:
            if self.broken and name == operation:
                self.broken = False
                raise OSError("gone")

        async def play_chunk(self, chunk: bytes) -> None:
            self.raise_in("play_chunk")
            await super().play_chunk(chunk)

        async def clear_buffer(self) -> None:
            self.raise_in("clear_buffer")

        @property
        def played_ms(self) -> float:
            if len(self.calls) > 1:  # not at the start
                self.raise_in("played_ms")
            return 0.0

        @property
        def is_playing(self) -> bool:
            self.raise_in("is_playing")
            return False

    async def session() -> Room:
        device = Broken()
        async with Room(device) as room:
            room.say(100)
            room.hosted.receive(ProgramFlush()) if operation == "clear_buffer" else None
            await room.until(lambda: device.calls.count("start") == 2)
            room.say(40, first=0)
            await room.until(lambda: 40 in device.calls)
        return room

    room = asyncio.run(session())
    failures = [m for m in room.sent if isinstance(m, DeviceFailed)]
    assert failures == [DeviceFailed("speaker", operation, "OSError: gone", 0.5)]


def test_audio_for_a_device_that_takes_nothing_is_bounded() -> None:
    gate = threading.Event()

    class Dead(Ear):
        def play_chunk(self, chunk: bytes) -> None:  # type: ignore[override]
            gate.wait(TIMEOUT_S)

    async def session() -> Room:
        async with Room(Dead()) as room:
            for _ in range(400):
                room.say(100)
            assert room.hosted._waiting_bytes <= 30 * 48_000
            gate.set()
        return room

    room = asyncio.run(session())
    failures = [m for m in room.sent if isinstance(m, DeviceFailed)]
    assert [f.error for f in failures] == ["it takes nothing; audio is lost"]


def test_a_restarted_device_gets_the_volume_again() -> None:
    class Scaling(Ear):
        async def play_chunk(self, chunk: bytes) -> None:
            await super().play_chunk(chunk)
            if self.calls.count("start") < 2:
                raise OSError("gone")

        async def set_volume(self, level: float) -> None:
            self.calls.append(level)

    async def session() -> list[Any]:
        device = Scaling()
        async with Room(device) as room:
            room.hosted.receive(ProgramVolume(0.5))
            room.say(100)
            await room.until(lambda: device.calls.count(0.5) == 2)
        return device.calls

    assert asyncio.run(session()) == ["start", 0.5, 100, "stop", "start", 0.5, "stop"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a while", [], 10**400])
def test_a_position_that_is_no_number_is_reported_once_and_the_clock_takes_its_place(
    value: object,
) -> None:
    class Lying(Ear):
        played_ms = value

    async def session() -> Room:
        async with Room(Lying()) as room:
            room.say(100)
            await room.until(lambda: 100 in room.positions)
        return room

    room = asyncio.run(session())
    failures = [m for m in room.sent if isinstance(m, DeviceFailed)]
    assert [(f.operation, f.retry_s) for f in failures] == [("played_ms", None)]
    assert "give a number of milliseconds" in failures[0].error
    assert room.device.calls.count("start") == 1


def test_whether_it_plays_may_be_unknown() -> None:
    class Lying(Ear):
        is_playing = np.zeros(2)  # neither true nor false

    async def session() -> Room:
        async with Room(Lying()) as room:
            room.say(100)
            await room.until(lambda: 100 in room.positions)
        return room

    room = asyncio.run(session())
    failures = [m for m in room.sent if isinstance(m, DeviceFailed)]
    assert [(f.operation, f.retry_s) for f in failures] == [("is_playing", None)]


@pytest.mark.parametrize("state", ["not started", "failed", "blocked", "idle"])
def test_a_flush_is_answered_in_every_state(state: str) -> None:
    gate = threading.Event()

    class Troubled(Ear):
        async def play_chunk(self, chunk: bytes) -> None:
            if state == "failed":
                raise OSError("gone")
            while state == "blocked" and not gate.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def session() -> Message:
        room = Room(Troubled())
        if state == "not started":
            room.say(200, first=240)
            room.hosted.receive(ProgramFlush(7))
            return room.sent[0]
        async with room:
            if state == "idle":
                room.hosted.receive(ProgramFlush(6))
                await room.until(lambda: room.sent)
                room.sent.clear()
            else:
                room.say(200, first=240)
            if state == "failed":
                await room.until(lambda: "stop" in room.device.calls)
            elif state == "blocked":
                await asyncio.sleep(0.01)
            room.hosted.receive(ProgramFlush(7))
            await room.until(lambda: any(isinstance(m, ProgramFlushed) for m in room.sent))
            gate.set()
            await room.until(lambda: room.hosted._flushed is False)
        return next(m for m in room.sent if isinstance(m, ProgramFlushed))

    answer = asyncio.run(session())

    assert isinstance(answer, ProgramFlushed)
    assert answer.number == 7
    if state == "idle":
        assert answer.played_samples == -1
    elif state == "not started":
        assert answer.played_samples == 240
    else:
        assert 240 <= answer.played_samples <= 240 + 24 * 200


def test_a_device_that_still_plays_has_not_played_everything_when_it_is_cleared() -> None:
    class Late(Ear):
        is_playing = True

    async def session() -> Message:
        device = Late()
        async with Room(device) as room:
            room.say(10)
            await room.until(lambda: 10 in device.calls)
            await asyncio.sleep(0.03)
            room.hosted.receive(ProgramFlush(7))
            await room.until(lambda: any(isinstance(m, ProgramFlushed) for m in room.sent))
        return next(m for m in room.sent if isinstance(m, ProgramFlushed))

    answer = asyncio.run(session())

    assert isinstance(answer, ProgramFlushed)
    assert answer.played_samples == 239


class Occupied(Ear):
    """A device whose ``play_chunk`` returns when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def play_chunk(self, chunk: bytes) -> None:
        await super().play_chunk(chunk)
        await self.free.wait()


def answers(room: Room) -> list[int]:
    return [m.number for m in room.sent if isinstance(m, ProgramFlushed)]


def test_each_flush_during_a_call_that_blocks_is_answered() -> None:
    async def session() -> list[Any]:
        device = Occupied()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: 100 in device.calls)
            for number in (1, 2):
                room.hosted.receive(ProgramFlush(number))
                await room.until(lambda number=number: answers(room)[-1:] == [number])
        return device.calls

    assert asyncio.run(session()) == ["start", 100, "clear", "clear", "stop"]


def test_a_flush_during_a_short_call_clears_once() -> None:
    async def session() -> list[Any]:
        device = Occupied()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: 100 in device.calls)
            room.hosted.receive(ProgramFlush(1))
            await asyncio.sleep(0.01)
            device.free.set()
            await room.until(lambda: answers(room) == [1])
            room.say(40, first=0)
            await room.until(lambda: 40 in device.calls)
        return device.calls

    assert asyncio.run(session()) == ["start", 100, "clear", 40, "stop"]


def test_nothing_is_played_before_the_device_is_cleared() -> None:
    class Slow(Occupied):
        async def clear_buffer(self) -> None:
            await asyncio.sleep(0.1)
            await super().clear_buffer()

    async def session() -> list[Any]:
        device = Slow()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: 100 in device.calls)
            room.hosted.receive(ProgramFlush(1))
            await asyncio.sleep(0.15)  # it is being cleared
            room.say(40, first=0)
            device.free.set()
            await room.until(lambda: 40 in device.calls)
        return device.calls

    assert asyncio.run(session()) == ["start", 100, "clear", "clear", 40, "stop"]


def failures(room: Room) -> list[str]:
    return [m.error for m in room.sent if isinstance(m, DeviceFailed)]


def test_a_call_that_does_not_return_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_S", 0.2)

    async def session() -> list[str]:
        async with Room(Occupied()) as room:
            room.say(100)
            await room.until(lambda: failures(room))
            await asyncio.sleep(0.3)
            return failures(room)

    assert asyncio.run(session()) == ["it has not returned for 0.2 s"]


def test_calls_that_return_are_not_reported_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_S", 0.5)

    class Steady(Ear):
        async def play_chunk(self, chunk: bytes) -> None:
            await super().play_chunk(chunk)
            await asyncio.sleep(0.1)

    async def session() -> list[str]:
        device = Steady()
        async with Room(device) as room:
            room.say(1000)
            await room.until(lambda: device.calls.count(100) == 10)
            await asyncio.sleep(1)  # nothing is in hand any more when the timer looks
            return failures(room)

    assert asyncio.run(session()) == []


def test_the_call_that_is_in_hand_is_reported_though_others_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STUCK_S", 0.3)

    class StuckAtLast(Occupied):
        async def play_chunk(self, chunk: bytes) -> None:
            await Ear.play_chunk(self, chunk)
            if self.calls.count(100) < 3:
                await asyncio.sleep(0.1)
                return
            await self.free.wait()

    async def session() -> list[str]:
        device = StuckAtLast()
        async with Room(device) as room:
            room.say(500)
            await room.until(lambda: failures(room))
            assert device.calls.count(100) == 3
            return failures(room)

    assert asyncio.run(session()) == ["it has not returned for 0.3 s"]


@pytest.mark.parametrize("first_is_plain", [True, False])
def test_a_method_that_is_replaced_is_called_as_what_it_is_now(first_is_plain: bool) -> None:
    """A plain function that is called on the loop would hold it up."""
    loops_thread = threading.get_ident()
    where: list[tuple[str, bool]] = []

    def plain(_: bytes) -> None:
        where.append(("plain", threading.get_ident() == loops_thread))

    async def coroutine(_: bytes) -> None:
        where.append(("coroutine", threading.get_ident() == loops_thread))

    async def session() -> None:
        device: Any = Ear()
        both = [plain, coroutine] if first_is_plain else [coroutine, plain]
        async with Room(device) as room:
            for count, method in enumerate(both, 1):
                device.play_chunk = method
                room.say(100)
                await room.until(lambda count=count: len(where) == count)

    asyncio.run(session())

    assert sorted(where) == [("coroutine", True), ("plain", False)]


def test_a_device_that_cannot_be_cleared_during_a_call_is_started_again() -> None:
    class Broken(Occupied):
        async def clear_buffer(self) -> None:
            raise OSError("gone")

    async def session() -> Room:
        device = Broken()
        async with Room(device) as room:
            room.say(100)
            await room.until(lambda: 100 in device.calls)
            room.hosted.receive(ProgramFlush(1))
            await room.until(lambda: device.calls.count("start") == 2)
        return room

    room = asyncio.run(session())
    assert next(m for m in room.sent if isinstance(m, DeviceFailed)) == DeviceFailed(
        "speaker", "clear_buffer", "OSError: gone", 0.5
    )
    assert answers(room) == [1]
