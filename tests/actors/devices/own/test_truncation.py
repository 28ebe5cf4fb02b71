"""Where an answer is cut off that a device of the program plays: exactly where it was cleared.

The device, its host and the speaker's side of it run on an event loop whose clock is moved by hand.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from actors.devices.own import hosted
from actors.devices.own.hosted import HostedOutput
from actors.devices.own.program import ProgramOutput
from actors.devices.playout import Flushed, Playout
from messages import Message, ProgramFlush, ProgramFlushed, ProgramPlayed

MS = 24
"""Samples in a millisecond."""
WAY_S = 0.001
"""How long a message takes between speaker and program."""


class Selector(selectors.SelectSelector):
    """Moves the clock on instead of waiting."""

    now = 100.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


class Device:
    """Plays in real time what it is given, and says what it has played.

    Args:
        loop: Has the clock.
        speed: How fast it plays; 1.0 is real time.
        delay_s: From the first sound after silence until it is heard.
    """

    def __init__(self, loop: Loop, speed: float = 1.0, delay_s: float = 0.0) -> None:
        self._loop, self._speed, self._delay_s = loop, speed, delay_s
        self._until = 0.0
        self._given_s = self._before_s = 0.0
        self.cleared_at_ms: list[float] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def play_chunk(self, chunk: bytes) -> None:
        now, length_s = self._loop.time(), len(chunk) / 2 / 24_000
        if now > self._until:
            self._before_s = self._given_s
            self._until = now + self._delay_s
        self._until += length_s / self._speed
        self._given_s += length_s

    async def clear_buffer(self) -> None:
        self.cleared_at_ms.append(self.really_ms)
        self._given_s = self._before_s = self.really_ms / 1000
        self._until = self._loop.time()

    @property
    def really_ms(self) -> float:
        left_s = max(0.0, self._until - self._loop.time()) * self._speed
        return 1000 * max(self._before_s, self._given_s - left_s)


class Telling(Device):
    @property
    def played_ms(self) -> Any:
        return self.really_ms


class Playing(Device):
    @property
    def is_playing(self) -> bool:
        return self._loop.time() < self._until


class Both(Telling, Playing):
    pass


class Coarse(Telling):
    """Learns every 50 ms how far the other end of its line is."""

    _known = (0.0, 0.0)

    @property
    def played_ms(self) -> Any:
        at = self._loop.time() // 0.05 * 0.05
        if at > self._known[0]:
            self._known = (at, max(self._known[1], self.really_ms))
        return self._known[1]


class AsksWhenCleared(Coarse):
    """Asks the other end where it was cleared; until then it knows only what it was told last."""

    async def clear_buffer(self) -> None:
        at = self.really_ms
        await super().clear_buffer()
        self._known = (self._loop.time(), at)


class Counting(Telling):
    """Counts as played what it has discarded, as the documentation permits."""

    _discarded_ms = 0.0

    async def clear_buffer(self) -> None:
        self._discarded_ms += 1000 * self._given_s - self.really_ms
        await super().clear_buffer()

    @property
    def played_ms(self) -> Any:
        return self.really_ms + self._discarded_ms


def lying(what: Callable[[Device], Any]) -> Callable[[Loop], Device]:
    class Lying(Device):
        @property
        def played_ms(self) -> Any:
            return what(self)

    return Lying


class Stage:
    """The speaker's side: hands over, follows the reports and cuts off."""

    def __init__(self, loop: Loop, device: Device) -> None:
        self._loop = loop
        self.device = device
        self.hosted = HostedOutput(device, self._send)
        self.output, self.playout = ProgramOutput(24_000), Playout()
        self.output.start(self.playout, print)
        self.cleared = asyncio.Event()
        self.sent: list[Message] = []
        self._first: dict[str, int] = {}

    @property
    def now_ns(self) -> int:
        return int(self._loop.time() * 1e9)

    def _send(self, message: Message) -> None:
        self.sent.append(message)
        self._loop.call_later(WAY_S, self._hear, message)

    def _hear(self, message: Message) -> None:
        if isinstance(message, ProgramPlayed):
            self.output.played(message)
        elif isinstance(message, ProgramFlushed) and self.output.flushed(message):
            self.cleared.set()

    def _tell(self, messages: list[Message]) -> None:
        for message in messages:
            self._loop.call_later(WAY_S, self.hosted.receive, message)

    async def play(self, item: str, ms: int, *, for_ms: float) -> None:
        """Push sound, and let it play for a while; every 100 ms, settle as the speaker does."""
        first = self._first.get(item, 0)
        self._first[item] = first + ms * MS
        self.playout.push(item, first, bytes(2 * MS * ms))
        end = self._loop.time() + for_ms / 1000
        while (left := end - self._loop.time()) > 1e-6:
            self._tell(self.output.pump(self.now_ns)[0])
            self.playout.settle(self.output.heard_until(self.now_ns))
            await asyncio.sleep(min(0.1, left))

    async def interrupt(self) -> Flushed:
        self.cleared.clear()
        self._tell(self.output.clear(self.now_ns))
        before = self._loop.time()
        await asyncio.wait_for(self.cleared.wait(), 0.25)
        assert self._loop.time() - before < 0.005  # a barge-in is not slower than this
        self.playout.settle(self.output.heard_until(self.now_ns))
        flushed = self.playout.flush(self.now_ns, taken_back=True, overheard=self.output.overheard)
        assert self.output.flush(self.now_ns) == []
        return flushed


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    made = Loop()
    clock = SimpleNamespace(monotonic=made.time, monotonic_ns=lambda: int(made.time() * 1e9))
    monkeypatch.setattr(hosted, "time", clock)
    yield made
    made.close()


DEVICES: dict[str, Callable[[Loop], Device]] = {
    "says nothing": Device,
    "played_ms": Telling,
    "is_playing": Playing,
    "both": Both,
    "fast": lambda loop: Telling(loop, speed=1.1),
    "slow": lambda loop: Both(loop, speed=0.9),
    "late": lambda loop: Both(loop, delay_s=0.15),
    "late, is_playing unknown": lambda loop: Telling(loop, delay_s=0.15),
    "asks when it is cleared": AsksWhenCleared,
    "counts what it discards": Counting,
    "NaN": lying(lambda _: float("nan")),
    "infinite": lying(lambda _: float("inf")),
    "None": lying(lambda _: None),
    "text": lying(lambda _: "a while"),
    "a list": lying(lambda _: []),
    "more than it was given": lying(lambda device: device.really_ms + 5_000),
    "twice as much": lying(lambda device: 5_000 + 2 * device.really_ms),
    "negative": lying(lambda _: -1.0),
    "goes back": lying(lambda device: 400 - device.really_ms),
    "starts anew every 600 ms": lying(lambda device: device.really_ms % 600),
    "never moves": lying(lambda _: 0.0),
}


@pytest.mark.parametrize("kind", DEVICES)
def test_an_answer_is_cut_off_where_the_device_was_cleared(loop: Loop, kind: str) -> None:
    chance = random.Random(kind)

    async def conversation() -> list[float]:
        device = DEVICES[kind](loop)
        stage = Stage(loop, device)
        running = asyncio.ensure_future(stage.hosted.run_again_and_again())
        await asyncio.sleep(0.01)
        errors = []
        for answer in range(50):
            before_ms = device.really_ms
            item = f"answer {answer}"
            if answer % 3 == 1:  # the network stalls: the device has run dry, then there is more
                await stage.play(item, 300, for_ms=300 + chance.uniform(250, 900))
            await stage.play(item, 4_000, for_ms=chance.uniform(700, 2_500))
            flushed = await stage.interrupt()
            assert flushed.item_id == item
            errors.append(flushed.played / MS - (device.cleared_at_ms[-1] - before_ms))
            await asyncio.sleep(chance.choice([0.0, 0.05, 0.3, 3.0]))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return errors

    errors = loop.run_until_complete(conversation())

    assert [error for error in errors if abs(error) > 5] == []


def test_a_device_that_knows_only_roughly_is_believed(loop: Loop) -> None:
    async def conversation() -> float:
        device = Coarse(loop)
        stage = Stage(loop, device)
        running = asyncio.ensure_future(stage.hosted.run_again_and_again())
        await stage.play("a", 4_000, for_ms=1_234)
        flushed = await stage.interrupt()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return flushed.played / MS - device.cleared_at_ms[-1]

    assert -60 < loop.run_until_complete(conversation()) <= 1


def test_between_two_reports_the_position_moves_on(loop: Loop) -> None:
    async def conversation() -> list[float]:
        device = Both(loop)
        stage = Stage(loop, device)
        running = asyncio.ensure_future(stage.hosted.run_again_and_again())
        await stage.play("a", 4_000, for_ms=1_000)
        errors = []
        for _ in range(30):
            await stage.play("a", 0, for_ms=7)
            position = stage.playout.settle(stage.output.heard_until(stage.now_ns)).position
            assert position is not None
            errors.append(position[1] / MS - device.really_ms)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return errors

    errors = loop.run_until_complete(conversation())

    assert max(map(abs, errors)) < 5


def test_what_is_interrupted_twice_is_cut_off_at_the_same_place(loop: Loop) -> None:
    async def conversation() -> None:
        device = Telling(loop)
        stage = Stage(loop, device)
        running = asyncio.ensure_future(stage.hosted.run_again_and_again())
        await stage.play("a", 4_000, for_ms=1_234)
        await stage.interrupt()
        given = stage.output.heard_until(stage.now_ns)

        messages = stage.output.clear(stage.now_ns)

        assert messages == [ProgramFlush()]  # nothing was given since: no answer is needed
        assert not stage.output.clearing
        assert stage.output.heard_until(stage.now_ns) == given
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    loop.run_until_complete(conversation())


def test_what_a_late_device_had_not_played_is_taken_back(loop: Loop) -> None:
    async def conversation() -> float:
        device = Telling(loop, delay_s=0.15)
        stage = Stage(loop, device)
        running = asyncio.ensure_future(stage.hosted.run_again_and_again())
        await stage.play("a", 4_000, for_ms=90)
        await stage.play("a", 0, for_ms=100)  # settles what is heard by the clock
        flushed = await stage.interrupt()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return flushed.played / MS - device.cleared_at_ms[-1]

    assert abs(loop.run_until_complete(conversation())) < 2
