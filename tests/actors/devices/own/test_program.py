"""Devices in the program, as microphone and speaker use them."""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Iterator
from itertools import pairwise
from math import pi, sin

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actors.devices.base import Captured
from actors.devices.own.program import ProgramInput, ProgramOutput, ProgramRateError
from actors.devices.playout import Playout
from messages import ProgramCapture, ProgramFlush, ProgramFlushed, ProgramPlayed, ProgramPlayout
from tests.rig import TIMEOUT_S, until

MS = 1_000_000
START = 5_000 * MS
CONVERSION = "actors.devices.own.conversion"


def pcm(samples: int, start: int = 1) -> bytes:
    return array("h", [(start + i - 1) % 32_000 + 1 for i in range(samples)]).tobytes()


class Input:
    """A program input with a clock moved by hand."""

    def __init__(self, block: int = 960, rate: int = 24_000) -> None:
        self.device = ProgramInput(block, rate=rate)
        self.blocks: list[Captured] = []
        self.device.start(self.blocks.append, lambda _: None)
        self.now = START

    def feed(self, data: bytes, rate: int = 24_000) -> None:
        self.device.feed(ProgramCapture(data, rate))
        self.device.pump(self.now)

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.now += MS
            self.device.pump(self.now)

    @property
    def heard(self) -> bytes:
        return b"".join(block.pcm for block in self.blocks)


def test_pieces_of_any_length_become_blocks() -> None:
    program = Input()

    for start in range(0, 2 * 2000, 7):
        program.feed(pcm(2000)[start : start + 7])  # also in the middle of a sample
    program.run(100)

    assert program.heard == pcm(1920)
    assert [len(block.pcm) for block in program.blocks] == [1920, 1920]


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=20), st.sampled_from([240, 960, 2400]))
def test_whatever_the_pieces_every_sample_arrives_once(sizes: list[int], block: int) -> None:
    program = Input(block)
    total = pcm(60_000)[: sum(sizes)]
    at = 0
    for size in sizes:
        program.feed(total[at : at + size])
        at += size
    program.device.end()
    program.run(len(total) // 48 + 300)

    assert program.heard[: len(total) & ~1] == total[: len(total) & ~1]
    assert not any(program.heard[len(total) :])
    assert sum(block.used >= 0 for block in program.blocks) == 1


def test_audio_that_comes_all_at_once_is_paced() -> None:
    program = Input()
    program.feed(pcm(48_000))
    at_once = len(program.blocks)

    program.run(400)
    in_between = len(program.blocks)
    program.run(400)

    assert at_once <= 11  # 200 ms ahead, at twice the speed
    assert in_between - at_once == 20
    assert len(program.blocks) - in_between < 20  # no more than real time and what is behind


def test_after_the_program_was_held_up_no_delay_remains() -> None:
    program = Input()
    for _ in range(25):
        program.feed(pcm(960))
        program.run(40)
    program.run(2_000)
    program.feed(pcm(48_000))  # what was captured meanwhile
    for _ in range(60):
        program.run(40)
        program.feed(pcm(960, 7))

    captured = 25 * 960 + 48_000 + 60 * 960
    heard = sum(block.position - before.position for before, block in pairwise(program.blocks))
    assert captured - heard <= 10_000


@pytest.mark.parametrize("before_ms", [40, 200, 480, 2_000])
def test_what_was_captured_before_the_start_delays_nothing_later(before_ms: int) -> None:
    program = Input()
    program.feed(pcm(24 * before_ms))
    for _ in range(100):
        program.run(40)
        program.feed(pcm(960))
    before = program.blocks[-1].position

    program.run(40)
    program.feed(pcm(960))

    assert program.blocks[-1].position == before + 960
    assert program.blocks[-1].position == 24 * before_ms + 101 * 960


def test_what_waited_for_a_new_process_is_delivered_at_once() -> None:
    program = Input()
    for age_ms in range(2_000, 0, -40):
        program.device.feed(ProgramCapture(pcm(960), captured_ns=program.now - (age_ms - 40) * MS))

    program.device.pump(program.now)

    assert len(program.blocks) == 50
    assert program.blocks[0].captured_ns <= program.now - 1_900 * MS


def test_what_came_before_a_pause_and_after_it_is_heard_with_silence_between() -> None:
    program = Input()
    program.feed(pcm(1_000))
    program.run(40)
    program.device.pause()
    program.run(2_000)
    program.feed(pcm(960))
    program.run(200)

    assert program.heard[: 2 * 1_000] == pcm(1_000)
    assert program.heard.endswith(pcm(960)) or pcm(960) in program.heard[2_000:]
    assert len(program.heard) // 48 == pytest.approx(2_200, abs=250)
    assert all(block.used == -1 for block in program.blocks)


def test_pumping_says_when_the_next_block_is_due() -> None:
    program = Input()
    program.device.feed(ProgramCapture(pcm(19_200)))  # more than is delivered ahead of its time

    wait_s = program.device.pump(program.now)

    assert wait_s == pytest.approx(0.02, abs=0.021)


def test_more_than_can_wait_drops_the_oldest_and_is_reported() -> None:
    program = Input()

    for second in range(40):
        program.device.feed(ProgramCapture(pcm(24_000, second * 24_000 + 1)))
    program.run(1)

    assert program.blocks[0].lost
    assert not program.blocks[1].lost
    assert program.blocks[0].pcm == pcm(960, 10 * 24_000 + 1)


def test_another_rate_is_converted() -> None:
    program = Input(rate=48_000)
    tone = array("h", [int(8000 * sin(2 * pi * 440 * i / 48_000)) for i in range(48_000)])

    program.feed(tone.tobytes(), 48_000)
    program.device.end()
    program.run(1_500)

    used = [block.used for block in program.blocks if block.used >= 0]
    heard = array("h", program.heard)[:24_000]
    assert len(used) == 1
    crossings = sum(a < 0 <= b for a, b in pairwise(heard))
    assert crossings == pytest.approx(440, abs=2)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold up the import of what converts rates until the event is set."""
    released = threading.Event()

    class Slow:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == CONVERSION:
                assert released.wait(TIMEOUT_S)

    for name in [name for name in sys.modules if name == CONVERSION]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    yield released
    released.set()


def imported() -> None:
    """Wait until the import that was held up is over."""
    until(
        lambda: all(thread.name != "import" for thread in threading.enumerate()),
        "the import does not end",
    )


def test_a_rate_that_is_not_expected_waits_for_what_converts_it(held: threading.Event) -> None:
    program = Input()
    program.feed(pcm(2_400))
    program.feed(array("h", [2_000] * 4_000).tobytes(), 8_000)
    program.run(1_000)
    before = program.heard
    held.set()
    imported()
    for _ in range(50):
        program.feed(bytes(320), 8_000)
        program.run(20)

    assert before.rstrip(b"\0") == pcm(2_400)
    late = array("h", program.heard[len(before) :])
    assert sum(abs(sample - 2_000) < 100 for sample in late) == pytest.approx(12_000, abs=100)


def test_what_waits_for_what_converts_it_is_heard_before_the_end(held: threading.Event) -> None:
    program = Input()
    program.feed(array("h", [2_000] * 4_000).tobytes(), 8_000)
    program.device.end()
    program.run(500)
    ended_early = any(block.used >= 0 for block in program.blocks)
    held.set()
    imported()
    program.run(1_000)

    assert not ended_early
    assert sum(block.used >= 0 for block in program.blocks) == 1
    heard = array("h", program.heard)
    assert sum(abs(sample - 2_000) < 100 for sample in heard) == pytest.approx(12_000, abs=100)


def test_an_expected_rate_is_prepared_for_at_once() -> None:
    sys.modules.pop(CONVERSION, None)

    ProgramInput(960, rate=8_000)

    assert CONVERSION in sys.modules


def test_a_rate_that_cannot_be_converted_is_an_error() -> None:
    with pytest.raises(ProgramRateError, match="100"):
        Input().feed(pcm(10), 100)


def test_after_its_end_there_is_silence_in_real_time() -> None:
    program = Input()
    program.feed(pcm(100))
    program.device.end()
    program.device.end()

    program.run(400)

    assert [block.used for block in program.blocks][:2] == [100, -1]
    assert len(program.blocks) == pytest.approx(10, abs=2)
    program.feed(pcm(100))
    assert not any(program.blocks[-1].pcm)


def test_when_nothing_comes_there_is_silence_in_real_time() -> None:
    program = Input()
    program.feed(pcm(960 + 100))
    program.run(490)
    before = len(program.blocks)

    program.run(4_510)

    assert before == 1  # it may only be late
    assert program.heard.startswith(pcm(960 + 100))
    assert not any(program.heard[2 * 1_060 :])
    assert len(program.heard) // 48 == pytest.approx(5_000, abs=60)


def test_before_the_first_sound_there_is_nothing() -> None:
    program = Input()

    program.run(2_000)

    assert program.blocks == []


def test_a_new_process_is_silent_until_something_comes() -> None:
    program = Input()
    program.device = ProgramInput(960, goes_on=True)
    program.device.start(program.blocks.append, lambda _: None)

    program.run(2_000)

    assert len(program.heard) // 48 == pytest.approx(2_000, abs=60)


# -- output ---------------------------------------------------------------------------------------


class Output:
    """A program output and its playout, with a clock moved by hand."""

    def __init__(self, rate: int = 24_000) -> None:
        self.device = ProgramOutput(rate)
        self.playout = Playout()
        self.device.start(self.playout, lambda _: None)
        self.now = START
        self.handed_over: list[ProgramPlayout] = []
        self.wait_s: float | None = None

    def say(self, samples: int, first: int = 0, *, last: bool = False, item: str = "a") -> None:
        self.playout.push(item, first, pcm(samples, first + 1), last)
        self.pump()

    def pump(self) -> None:
        messages, self.wait_s = self.device.pump(self.now)
        self.handed_over += [one for one in messages if isinstance(one, ProgramPlayout)]

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.now += MS
            self.pump()

    @property
    def samples(self) -> int:
        return sum(len(message.pcm) for message in self.handed_over) // 2

    def heard(self) -> int:
        settled = self.playout.settle(self.device.heard_until(self.now))
        return settled.position[1] if settled.position else -1


def test_audio_is_handed_over_200_ms_ahead_at_most() -> None:
    program = Output()

    program.say(48_000)
    first = program.samples
    program.run(1_000)

    assert first == 4_800
    assert program.wait_s is not None
    assert 24_000 <= program.samples <= 28_800
    assert b"".join(message.pcm for message in program.handed_over) == pcm(program.samples)


def test_what_is_handed_over_is_counted_without_gaps() -> None:
    program = Output()
    program.say(10_000)
    program.run(2_000)
    program.say(10_000, 10_000)
    program.run(2_000)

    expected = 0
    for message in program.handed_over:
        assert message.first_sample == expected
        expected += len(message.pcm) // 2
    assert expected == 20_000


def test_a_program_that_says_nothing_has_played_what_the_clock_says() -> None:
    program = Output()
    program.say(24_000)

    program.run(500)

    assert program.heard() == 12_000


def test_the_programs_word_counts_before_the_clock() -> None:
    program = Output()
    program.say(24_000)
    program.run(500)

    program.device.played(ProgramPlayed(9_600, program.now))

    assert program.heard() == 9_600


def test_the_program_cannot_have_played_what_it_was_not_given() -> None:
    program = Output()
    program.say(24_000)

    program.device.played(ProgramPlayed(1_000_000, program.now))

    assert program.heard() == 4_800


def test_a_program_that_stops_telling_does_not_stop_the_conversation() -> None:
    program = Output()
    program.say(12_000, last=True)
    program.device.played(ProgramPlayed(100, program.now))

    program.run(2_000)

    settled = program.playout.settle(program.device.heard_until(program.now))
    assert settled.finished == [("a", 12_000)]


def test_a_flush_takes_back_what_was_not_played() -> None:
    program = Output()
    program.say(48_000)
    program.run(500)
    program.device.played(ProgramPlayed(11_000, program.now))
    assert program.heard() == 11_000

    flushed = program.playout.flush(program.now, taken_back=True)
    messages = program.device.flush(program.now)
    program.say(4_800, item="b")

    assert (flushed.item_id, flushed.played) == ("a", 11_000)
    assert messages == [ProgramFlush()]
    assert program.handed_over[-1].first_sample == 11_000


def test_a_second_answer_starts_at_once_after_silence() -> None:
    program = Output()
    program.say(4_800, last=True)
    program.run(3_000)
    before = len(program.handed_over)

    program.say(4_800, item="b")

    assert len(program.handed_over) == before + 1
    assert program.heard() in (-1, 0)


def test_another_rate_is_converted_and_counted_in_that_rate() -> None:
    program = Output(48_000)
    program.say(12_000)
    program.run(1_000)
    program.device.played(ProgramPlayed(program.samples, program.now))

    assert program.samples == pytest.approx(24_000, abs=60)
    assert program.heard() == 12_000


def test_a_program_whose_device_takes_nothing_is_given_no_more() -> None:
    program = Output()
    program.say(48_000)
    program.device.played(ProgramPlayed(0, program.now, playing=True, waiting_samples=7_200))
    before = program.samples

    program.run(400)
    held = program.samples
    program.device.played(ProgramPlayed(4_800, program.now))
    program.run(100)

    assert held == before
    assert program.samples > held


def test_a_position_that_does_not_grow_holds_while_the_device_plays() -> None:
    program = Output()
    program.say(4_800, last=True)
    for _ in range(20):
        program.device.played(ProgramPlayed(4_700, program.now, playing=True))
        program.run(100)

    assert program.heard() == 4_700


def test_sound_that_begins_knows_all_before_it_as_played() -> None:
    program = Output()
    program.say(7_200)
    program.run(300)
    program.device.played(ProgramPlayed(7_190, program.now, playing=True))
    program.run(100)

    program.say(7_200, 7_200)
    program.run(50)

    assert program.heard() == 7_200 + 1_200


def test_sound_that_begins_waits_for_a_device_that_is_late() -> None:
    program = Output()
    program.say(7_200)
    program.run(150)
    program.device.played(ProgramPlayed(0, program.now, playing=True))
    program.run(100)
    program.device.played(ProgramPlayed(2_400, program.now, playing=True))
    program.run(60)

    program.say(7_200, 7_200)
    program.run(40)

    assert program.heard() == 4_800


def test_a_report_of_before_a_flush_does_not_count_after_it() -> None:
    program = Output()
    program.say(48_000)
    program.run(100)
    flush = program.device.clear(program.now)[0]
    assert isinstance(flush, ProgramFlush)
    program.device.flushed(ProgramFlushed(flush.number, 2_300, program.now))
    program.playout.settle(program.device.heard_until(program.now))
    program.playout.flush(program.now, taken_back=True)
    assert program.device.flush(program.now) == []
    program.say(4_800, item="b")

    program.device.played(ProgramPlayed(4_700, program.now - MS, playing=True))

    assert program.heard() in (-1, 0)


def test_nothing_is_handed_over_while_the_device_is_cleared() -> None:
    program = Output()
    program.say(48_000)
    before = program.samples
    program.device.clear(program.now)

    program.run(200)

    assert program.samples == before
