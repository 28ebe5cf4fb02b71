"""The playout: audio is played once or flushed, and the position heard is known."""

from __future__ import annotations

from array import array
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actors.devices.playout import Flushed, Playout
from actors.devices.units import to_ns

FADE = 192
BLOCK = 480
MS = 1_000_000


def pcm(samples: int, start: int = 1) -> bytes:
    """Return samples that tell where they come from, none of them zero."""
    return array("h", [(start + i - 1) % 32_000 + 1 for i in range(samples)]).tobytes()


def values(data: bytes) -> list[int]:
    return array("h", data).tolist()


class Clock:
    """A device that pulls in real time; one that is paced takes only what there is."""

    def __init__(self, playout: Playout, now: int = 1_000 * MS, *, paced: bool = False) -> None:
        self.playout = playout
        self.ask = playout.take if paced else playout.pull
        self.now = now
        self.given = b""

    def pull(self, samples: int = BLOCK) -> bytes:
        data = self.ask(samples, self.now)
        self.now += to_ns(samples)
        self.given += data
        return data


class Memory:
    """A marker in memory."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def taken(self) -> dict[str, int]:
        return dict(self.items)

    def set(self, item_id: str, taken: int) -> None:
        self.items[item_id] = taken


def test_what_is_pushed_is_pulled_in_order_and_then_silence() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(300))
    playout.push("a", 300, pcm(300, 301), last=True)

    data = playout.pull(480, 0) + playout.pull(480, 0)

    assert data == pcm(600) + bytes(2 * 360)


def test_a_paced_device_gets_no_silence() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(500))

    taken = [playout.take(480, 0), playout.take(480, 0), playout.take(480, 0)]

    assert [len(data) // 2 for data in taken] == [480, 20, 0]


def test_an_odd_byte_at_the_end_is_dropped() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(10) + b"x")

    assert playout.take(20, 0) == pcm(10)


def test_heard_is_what_the_clock_has_passed() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(960))
    playout.take(480, 1_000 * MS)
    playout.take(480, 1_020 * MS)

    early = playout.settle(1_010 * MS)
    later = playout.settle(1_030 * MS)

    assert early.position == ("a", 240)
    assert [values(audio.pcm)[0] for audio in early.audio] == [1]
    assert later.position == ("a", 720)
    assert later.audio[0].pcm == pcm(480, 241)


def test_audio_of_one_item_is_one_uninterrupted_run() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(2 * BLOCK))
    clock = Clock(playout)
    clock.pull()
    first = playout.settle(clock.now)
    clock.now += 3 * MS  # jitter of the device's clock
    clock.pull()

    second = playout.settle(clock.now)

    assert first.audio[0].run_ns == second.audio[0].run_ns == 1_000 * MS
    assert second.audio[0].offset == BLOCK


def test_after_silence_a_new_run_begins_at_its_own_time() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK))
    clock = Clock(playout)
    for _ in range(10):
        clock.pull()
    resumed_at = clock.now
    playout.push("a", BLOCK, pcm(BLOCK, BLOCK + 1))
    clock.pull()

    audio = playout.settle(clock.now).audio

    assert [piece.run_ns for piece in audio] == [1_000 * MS, resumed_at]


def test_an_item_is_finished_when_its_last_sample_was_heard() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK), last=True)
    clock = Clock(playout)
    clock.pull()

    before = playout.settle(clock.now - 1 * MS)
    after = playout.settle(clock.now)

    assert before.finished == []
    assert after.finished == [("a", BLOCK)]
    assert after.position is None


def test_the_end_marker_may_come_after_everything_was_heard() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK))
    clock = Clock(playout)
    clock.pull()
    assert playout.settle(clock.now).finished == []

    playout.push("a", BLOCK, b"", last=True)

    assert playout.settle(clock.now).finished == [("a", BLOCK)]


def test_an_empty_item_finishes_at_once() -> None:
    playout = Playout()

    playout.push("a", 0, b"", last=True)

    assert playout.settle(0).finished == [("a", 0)]


def test_an_item_without_an_end_is_over_when_the_next_one_plays() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK))
    playout.push("b", 0, pcm(2 * BLOCK))
    clock = Clock(playout)
    clock.pull()
    clock.pull()

    settled = playout.settle(clock.now)

    assert settled.finished == []
    assert settled.position == ("b", BLOCK)


def test_audio_that_comes_twice_is_played_once() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(400))
    playout.take(100, 0)

    playout.push("a", 0, pcm(400))
    playout.push("a", 200, pcm(400, 201))

    assert playout.take(1000, 0) == pcm(500, 101)


def test_missing_audio_is_jumped_over_and_counted_in_the_position() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(100))
    playout.push("a", 300, pcm(100, 301))

    data = playout.take(1000, 0)
    settled = playout.settle(1000 * MS)

    assert data == pcm(100) + pcm(100, 301)
    assert settled.position == ("a", 400)


def test_after_a_death_playback_goes_on_at_the_sample_it_had_reached() -> None:
    marker = Memory()
    playout = Playout(marker=marker)
    playout.push("a", 0, pcm(1000))
    playout.take(480, 0)

    reborn = Playout(marker=marker)
    reborn.push("a", 0, pcm(1000))
    reborn.push("a", 1000, b"", last=True)

    assert reborn.take(2000, 0) == pcm(520, 481)
    assert reborn.settle(1000 * MS).finished == [("a", 1000)]


def test_an_item_that_was_finished_before_a_death_finishes_again_without_sound() -> None:
    marker = Memory()
    marker.set("a", 1000)

    reborn = Playout(marker=marker)
    reborn.push("a", 800, pcm(200, 801), last=True)

    assert reborn.take(480, 0) == b""
    assert reborn.settle(0).finished == [("a", 1000)]


# -- prefill and underruns ------------------------------------------------------------------------


def test_an_item_waits_until_enough_of_it_is_there() -> None:
    playout = Playout(prefill=960)
    playout.push("a", 0, pcm(480))
    first = playout.pull(480, 0)

    playout.push("a", 480, pcm(480, 481))

    assert not any(first)
    assert playout.pull(480, 0) == pcm(480)


def test_a_short_item_does_not_wait_for_more_than_there_is() -> None:
    playout = Playout(prefill=960)

    playout.push("a", 0, pcm(100), last=True)

    assert any(playout.pull(480, 0))


def test_an_item_does_not_wait_longer_than_the_prefill() -> None:
    playout = Playout(prefill=960)
    playout.push("a", 0, pcm(100))

    pulled = [any(playout.pull(480, 0)) for _ in range(3)]

    assert pulled == [False, False, True]


def test_the_end_of_an_item_is_not_cut() -> None:
    playout = Playout(prefill=960)
    playout.push("a", 0, pcm(1000))
    playout.push("a", 1000, b"", last=True)
    clock = Clock(playout)
    for _ in range(4):
        clock.pull()

    assert clock.given.rstrip(b"\0") == pcm(1000).rstrip(b"\0")


def test_audio_that_comes_too_late_is_an_underrun_and_makes_the_prefill_longer() -> None:
    playout = Playout(prefill=480)
    playout.push("a", 0, pcm(480))
    playout.pull(480, 0)
    playout.pull(480, 0)
    playout.push("a", 480, pcm(480, 481))
    assert playout.faltered()[0] == 1

    assert not any(playout.pull(480, 0))


def test_silence_after_the_last_sample_is_no_underrun() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(480), last=True)
    playout.pull(480, 0)
    playout.pull(480, 0)
    playout.push("b", 0, pcm(480))

    assert playout.faltered()[0] == 0


def test_it_is_known_how_long_it_was_silent_because_audio_came_too_late() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK))
    clock = Clock(playout)
    for _ in range(4):
        clock.pull()
    playout.push("a", BLOCK, pcm(BLOCK, BLOCK + 1), last=True)
    clock.pull()

    assert playout.faltered()[1] == 3 * to_ns(BLOCK)


def test_the_prefill_grows_to_six_blocks_and_shrinks_again_while_nothing_falters() -> None:
    playout = Playout(prefill=2 * BLOCK)
    clock = Clock(playout)
    first = 0
    for _ in range(5):  # falters again and again
        playout.push("a", first, pcm(BLOCK))
        first += BLOCK
        for _ in range(9):
            clock.pull()
    playout.push("a", first, b"", last=True)
    playout.settle(clock.now)

    waits = [waited(clock, f"calm {number}") for number in range(7)]

    assert waits == [6, 5, 4, 3, 2, 2, 2]


def waited(clock: Clock, item: str) -> int:
    """Play an item that trickles in, and return how many blocks of it had come when it began."""
    for blocks in count(1):
        clock.playout.push(item, (blocks - 1) * BLOCK, pcm(BLOCK))
        if any(clock.playout.pull(BLOCK, clock.now)):
            break
    clock.playout.push(item, blocks * BLOCK, b"", last=True)
    for _ in range(10):
        clock.pull()
    clock.playout.settle(clock.now)
    return blocks


def loud(samples: int) -> bytes:
    return array("h", [10_000] * samples).tobytes()


def steepest(data: bytes) -> int:
    return max(abs(b - a) for a, b in pairwise(values(data)))


@pytest.mark.parametrize("samples", [BLOCK, BLOCK + 100, BLOCK - 3])
def test_sound_that_breaks_off_and_goes_on_does_not_click(samples: int) -> None:
    playout = Playout()
    clock = Clock(playout)
    playout.push("a", 0, loud(samples))
    for _ in range(4):
        clock.pull()
    playout.push("a", samples, loud(2 * BLOCK), last=True)
    clock.pull()
    clock.pull()

    assert steepest(clock.given) <= 10_000 // FADE + 1
    assert values(clock.given)[-1] == 10_000


def test_where_an_item_ends_as_it_should_nothing_is_added() -> None:
    playout = Playout()
    playout.push("a", 0, loud(100), last=True)

    assert playout.pull(BLOCK, 0) == loud(100) + bytes(2 * (BLOCK - 100))


# -- flushing -------------------------------------------------------------------------------------


def test_a_flush_fades_out_and_then_is_silent() -> None:
    playout = Playout()
    playout.push("a", 0, array("h", [10_000] * 5000).tobytes())
    playout.pull(480, 0)

    playout.flush(20 * MS)
    tail = values(playout.pull(480, 20 * MS))

    assert tail[0] > 9_900
    assert tail[:FADE] == sorted(tail[:FADE], reverse=True)
    assert tail[FADE - 1] == 0
    assert not any(tail[FADE:])
    assert not any(playout.pull(480, 40 * MS))


@pytest.mark.parametrize("pieces", [[7, 500], [100], [3], [50, 50, 500], []])
@pytest.mark.parametrize("how", ["flush", "pause"])
def test_silence_does_not_click_however_little_is_queued(how: str, pieces: list[int]) -> None:
    playout = Playout()
    clock = Clock(playout)
    first = 0
    for samples in [BLOCK, *pieces]:
        playout.push("a", first, loud(samples))
        first += samples
    clock.pull()

    if how == "flush":
        playout.flush(clock.now)
    else:
        playout.pause()
    clock.pull()

    assert steepest(clock.given) <= 10_000 // FADE + 1
    assert values(clock.given)[-1] == 0


def test_a_flush_tells_where_the_device_will_have_stopped() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(5000))
    playout.pull(480, 1_040 * MS)

    flushed = playout.flush(1_000 * MS)

    assert flushed == Flushed("a", 480 + FADE, 1_060 * MS + to_ns(FADE))


def test_a_flush_of_a_device_that_takes_back_stops_at_what_was_heard() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(9000))
    playout.take(4800, 1_000 * MS)
    playout.settle(1_050 * MS)

    flushed = playout.flush(1_050 * MS, taken_back=True)

    assert flushed == Flushed("a", 1200, 1_050 * MS)
    assert playout.take(480, 0) == b""
    assert playout.settle(9_999 * MS).audio == []


def test_a_flush_takes_back_what_was_settled_and_not_heard() -> None:
    playout = Playout()
    playout.push("a", 100, pcm(4_800))
    playout.take(4_800, 1_000 * MS)
    playout.settle(1_050 * MS)

    flushed = playout.flush(1_050 * MS, taken_back=True, overheard=240)

    assert (flushed.item_id, flushed.played) == ("a", 100 + 1_200 - 240)


def test_no_more_is_taken_back_than_the_item_has() -> None:
    playout = Playout()
    playout.push("a", 100, pcm(4_800))
    playout.take(4_800, 1_000 * MS)
    playout.settle(1_005 * MS)

    assert playout.flush(1_005 * MS, taken_back=True, overheard=240).played == 100


def test_of_two_items_that_a_device_gives_back_the_first_is_the_interrupted_one() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(2_400), last=True)
    playout.push("b", 0, pcm(2_400), last=True)
    playout.take(4_800, 1_000 * MS)
    playout.settle(1_050 * MS)

    flushed = playout.flush(1_050 * MS, taken_back=True)

    assert (flushed.item_id, flushed.played) == ("a", 1_200)


def test_a_flush_with_nothing_to_flush_names_the_last_item_that_was_heard_to_its_end() -> None:
    playout = Playout()
    assert playout.flush(0).item_id == ""
    playout.push("a", 0, pcm(BLOCK), last=True)
    clock = Clock(playout)
    clock.pull()
    playout.settle(clock.now)

    flushed = playout.flush(clock.now)
    assert (flushed.item_id, flushed.played) == ("a", BLOCK)


def test_a_flush_before_anything_was_taken_names_the_item_at_zero() -> None:
    playout = Playout(prefill=4800)
    playout.push("a", 0, pcm(480))
    playout.push("b", 0, pcm(480))

    assert playout.flush(5).item_id == "a"
    assert playout.pull(480, 5) == bytes(960)
    assert playout.progress() == {}


def test_a_flush_between_two_items_finishes_the_first_and_drops_the_second() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK), last=True)
    playout.push("b", 0, pcm(BLOCK))
    clock = Clock(playout)
    clock.pull()  # all of a, nothing of b, and a is not heard yet

    flushed = playout.flush(clock.now - 10 * MS)
    settled = playout.settle(clock.now)

    assert flushed == Flushed("a", BLOCK, clock.now)
    assert settled.position is None
    assert not any(clock.pull())


def test_a_flush_in_the_second_item_lets_the_first_be_finished() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(BLOCK), last=True)
    playout.push("b", 0, pcm(9 * BLOCK))
    clock = Clock(playout)
    clock.pull()
    clock.pull()

    flushed = playout.flush(clock.now)
    settled = playout.settle(clock.now)

    assert (flushed.item_id, flushed.played) == ("b", BLOCK + FADE)
    assert settled.finished == [("a", BLOCK)]


def test_audio_pushed_after_a_flush_is_played() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(960))
    playout.pull(480, 0)
    playout.flush(0)

    playout.push("b", 0, pcm(960))

    assert playout.pull(1152, 0)[2 * FADE :] == pcm(960)


# -- volume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("volume", "expected"), [(1.0, 1000), (0.5, 500), (0.0, 0)])
def test_the_volume_scales_what_is_played_and_what_is_reported(
    volume: float, expected: int
) -> None:
    playout = Playout(volume=volume)
    playout.push("a", 0, array("h", [1000] * 480).tobytes())

    data = playout.pull(480, 0)

    assert values(data) == [expected] * 480
    assert playout.settle(20 * MS).audio[0].pcm == data


def test_a_change_of_volume_while_playing_is_a_ramp() -> None:
    playout = Playout()
    playout.push("a", 0, array("h", [10_000] * 960).tobytes())
    playout.pull(480, 0)

    playout.set_volume(0.5)
    after = values(playout.pull(480, 0))

    steps = [abs(b - a) for a, b in pairwise(after)]
    assert max(steps) <= 27
    assert after[-1] == 5_000


def test_a_ramp_of_the_volume_goes_on_over_blocks_of_any_length() -> None:
    playout = Playout()
    clock = Clock(playout)
    playout.push("a", 0, loud(3 * BLOCK))
    clock.pull(100)

    playout.set_volume(0.0)
    for samples in (5, 1, 100, 300):
        clock.pull(samples)

    assert steepest(clock.given) <= 10_000 // FADE + 1
    assert values(clock.given)[-1] == 0


def test_a_quiet_sound_is_rounded_not_cut_off() -> None:
    playout = Playout(volume=0.5)
    playout.push("a", 0, array("h", [1, 3, -1, -3, 5, -5, 32_767, -32_768]).tobytes())

    assert values(playout.pull(8, 0)) == [1, 2, 0, -1, 3, -2, 16_384, -16_384]


# -- threads --------------------------------------------------------------------------------------


def test_the_actor_is_notified_once_when_audio_runs_low() -> None:
    told = count()
    playout = Playout()
    playout.attach(lambda: next(told))
    playout.push("a", 0, pcm(4800))

    for _ in range(9):
        playout.take(480, 0)

    assert next(told) == 1


# -- pausing --------------------------------------------------------------------------------------


def test_a_pause_fades_out_and_goes_on_with_the_next_sample() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(4800))
    playout.pull(480, 0)

    playout.pause()
    faded, silent = playout.pull(480, 20 * MS), playout.pull(480, 40 * MS)
    playout.push("a", 4800, pcm(100, 4801))  # what comes meanwhile waits
    playout.resume()
    after = playout.pull(480, 900 * MS)

    tail, expected = values(faded)[:FADE], values(pcm(FADE, 481))
    assert 0.9 < tail[0] / expected[0] <= 1
    assert tail[-1] == 0
    assert values(faded)[FADE:] == [0] * (480 - FADE)
    assert silent == bytes(960)
    begun = 481 + FADE
    assert values(after)[0] < begun // 10
    assert values(after)[FADE:] == values(pcm(480 - FADE, begun + FADE))


def test_a_pause_takes_no_time_from_what_is_played() -> None:
    playout = Playout()
    clock = Clock(playout)
    playout.push("a", 0, pcm(2400), last=True)
    clock.pull()
    playout.pause()
    for _ in range(50):
        clock.pull()

    settled = playout.settle(clock.now)
    assert settled.position == ("a", 480 + FADE)
    assert settled.finished == []
    playout.resume()
    for _ in range(5):
        clock.pull()

    settled = playout.settle(clock.now)
    assert settled.finished == [("a", 2400)]
    (piece,) = settled.audio
    assert (piece.offset, len(piece.pcm) // 2) == (0, 2400 - 480 - FADE)


def test_a_pause_that_ends_before_the_device_has_noticed_is_not_heard() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(4800))
    data = playout.pull(480, 0)

    playout.pause()
    playout.resume()

    assert data + playout.pull(480, 20 * MS) == pcm(960)


def test_a_pause_before_the_first_sample_keeps_everything() -> None:
    playout = Playout()
    playout.pause()
    playout.push("a", 0, pcm(960), last=True)
    assert playout.take(480, 0) == b""

    playout.resume()

    assert values(playout.take(480, 0))[FADE:] == values(pcm(480 - FADE, FADE + 1))


def test_waiting_in_a_pause_is_no_underrun() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(480))
    playout.pull(480, 0)
    playout.pause()
    playout.pull(480, 0)

    playout.push("a", 480, pcm(480))
    playout.resume()
    playout.pull(480, 0)

    assert playout.faltered()[0] == 0


def test_a_flush_in_a_pause_stops_where_it_was_paused_and_ends_it() -> None:
    playout = Playout()
    playout.push("a", 0, pcm(4800))
    playout.pull(480, 0)
    playout.pause()
    playout.pull(480, 20 * MS)

    assert playout.flush(500 * MS).played == 480 + FADE
    playout.push("b", 0, pcm(480))

    assert playout.pull(480, 520 * MS) == pcm(480)


@pytest.mark.parametrize("volume", [1.0, 0.5])
def test_what_a_device_gives_back_in_a_pause_is_played_after_it(volume: float) -> None:
    memory = Memory()
    playout = Playout(0, memory, volume)
    playout.push("a", 0, pcm(4800), last=True)
    whole = playout.take(4800, 0)
    playout.settle(50 * MS)  # 1200 samples

    playout.pause(taken_back=True)
    assert playout.front() == ("a", 1200)
    assert memory.items == {"a": 1200}
    assert playout.take(480, 60 * MS) == b""
    playout.resume()

    assert values(playout.take(3600, 0))[FADE:] == values(whole)[1200 + FADE :]


# -- laws -----------------------------------------------------------------------------------------

pushes = st.tuples(st.just("push"), st.integers(1, 3000))
pulls = st.tuples(st.just("pull"), st.integers(1, 2000))
settles = st.tuples(st.just("settle"), st.integers(0, 60))
repeats = st.tuples(st.just("repeat"), st.integers(1, 3000))
nexts = st.tuples(st.just("next"), st.just(0))
ends = st.tuples(st.just("end"), st.just(0))
flushes = st.tuples(st.just("flush"), st.booleans())
pauses = st.tuples(st.just("pause"), st.just(0))
resumes = st.tuples(st.just("resume"), st.just(0))
calm = st.lists(st.one_of(pushes, pulls, settles, repeats, nexts, ends), max_size=60)
stormy = st.lists(
    st.one_of(pushes, pulls, settles, nexts, ends, flushes, pauses, resumes), max_size=60
)
halting = st.lists(
    st.one_of(pushes, pulls, settles, repeats, nexts, ends, pauses, resumes), max_size=60
)


class Run:
    """Plays a list of operations and remembers what went in and out."""

    def __init__(
        self, prefill: int = 0, marker: Memory | None = None, *, paced: bool = False
    ) -> None:
        self.playout = Playout(prefill, marker)
        self.clock = Clock(self.playout, paced=paced)
        self.names = (f"item{i}" for i in count())
        self.item = next(self.names)
        self.received: dict[str, int] = {self.item: 0}
        self.played: dict[str, int] = {}
        self.pushed = b""
        self.heard = b""
        self.finished: list[str] = []
        self.flushes = self.pauses = 0
        self.last = False

    def do(self, operation: str, argument: int) -> None:
        getattr(self, operation)(argument)

    def push(self, samples: int) -> None:
        if self.last:
            self.next(0)
        data = pcm(samples, len(self.pushed) // 2 + 1)
        self.playout.push(self.item, self.received[self.item], data)
        self.received[self.item] += samples
        self.pushed += data

    def repeat(self, samples: int) -> None:
        if not self.last:
            again = min(samples, self.received[self.item])
            data = self.pushed[-2 * again :] if again else b""
            self.playout.push(self.item, self.received[self.item] - again, data)

    def next(self, _: int) -> None:
        self.item = next(self.names)
        self.received[self.item] = 0
        self.last = False

    def end(self, _: int) -> None:
        if not self.last:
            self.playout.push(self.item, self.received[self.item], b"", last=True)
        self.last = True

    def pull(self, samples: int) -> None:
        self.clock.pull(samples)

    def settle(self, ahead_ms: int) -> None:
        settled = self.playout.settle(self.clock.now - ahead_ms * MS)
        self.heard += b"".join(piece.pcm for piece in settled.audio)
        for item_id, played in settled.finished:
            assert played == self.received[item_id]
            self.finished.append(item_id)
        if settled.position is not None:
            self.note(*settled.position)

    def flush(self, taken_back: bool) -> None:
        self.flushes += 1
        flushed = self.playout.flush(self.clock.now, taken_back=taken_back)
        if flushed.item_id:
            self.note(flushed.item_id, flushed.played)
        self.next(0)

    def pause(self, _: int) -> None:
        self.pauses += 1
        self.playout.pause()

    def resume(self, _: int) -> None:
        self.playout.resume()

    def note(self, item_id: str, played: int) -> None:
        assert self.played.get(item_id, 0) <= played <= self.received[item_id]
        self.played[item_id] = played

    def drain(self) -> None:
        self.playout.resume()
        for _ in range(200):
            self.clock.pull(2000)
        self.settle(0)


def sound(data: bytes) -> list[int]:
    return [value for value in values(data) if value]


@hypothesis_settings(max_examples=60, deadline=None)
@given(calm, st.sampled_from([0, 480, 960]))
def test_everything_pushed_is_played_once_and_in_order(
    operations: list[tuple[str, int]], prefill: int
) -> None:
    run = Run(prefill, paced=True)

    for operation in operations:
        run.do(*operation)
    run.drain()

    assert sound(run.clock.given) == values(run.pushed)
    assert run.heard == run.pushed


@hypothesis_settings(max_examples=60, deadline=None)
@given(calm, st.sampled_from([0, 480, 960]))
def test_a_card_too_but_softened_where_the_sound_broke_off(
    operations: list[tuple[str, int]], prefill: int
) -> None:
    run = Run(prefill)

    for operation in operations:
        run.do(*operation)
    run.drain()

    breaks = run.playout.faltered()[0]
    changed = [
        (heard, pushed)
        for heard, pushed in zip(values(run.heard), values(run.pushed), strict=True)
        if heard != pushed
    ]
    assert all(0 <= heard < pushed for heard, pushed in changed)
    assert len(changed) <= FADE * breaks
    assert len(sound(run.clock.given)) <= len(run.pushed) // 2 + FADE * (breaks + len(run.received))


@hypothesis_settings(max_examples=60, deadline=None)
@given(stormy, st.sampled_from([0, 480, 960]))
def test_positions_grow_and_never_exceed_what_was_received(
    operations: list[tuple[str, int]], prefill: int
) -> None:
    run = Run(prefill)

    for operation in operations:
        run.do(*operation)  # asserts in note()
    run.drain()

    assert len(run.finished) == len(set(run.finished))
    assert len(run.heard) <= len(run.clock.given)
    assert run.playout.progress().keys() <= run.received.keys()


@hypothesis_settings(max_examples=60, deadline=None)
@given(stormy)
def test_what_is_played_is_what_was_pushed_but_for_the_fades(
    operations: list[tuple[str, int]],
) -> None:
    run = Run()

    for operation in operations:
        run.do(*operation)
    run.drain()

    ours = set(values(run.pushed))
    strange = [value for value in sound(run.clock.given) if value not in ours]
    assert len(strange) <= FADE * (run.flushes + 2 * run.pauses)


@hypothesis_settings(max_examples=60, deadline=None)
@given(halting, st.sampled_from([0, 480, 960]))
def test_pauses_cost_no_sample(operations: list[tuple[str, int]], prefill: int) -> None:
    run = Run(prefill)

    for operation in operations:
        run.do(*operation)
    run.drain()

    pushed, heard = values(run.pushed), values(run.heard)
    assert len(heard) == len(pushed)
    faded = [(was, now) for was, now in zip(pushed, heard, strict=True) if was != now]
    assert all(abs(now) <= was for was, now in faded)
    assert len(faded) <= FADE * (2 * run.pauses + run.playout.faltered()[0])


@hypothesis_settings(max_examples=60, deadline=None)
@given(calm, st.integers(0, 3000))
def test_a_death_repeats_nothing_and_loses_nothing_that_was_not_taken(
    operations: list[tuple[str, int]], more: int
) -> None:
    marker = Memory()
    run = Run(0, marker, paced=True)
    for operation in operations:
        if operation[0] != "next":
            run.do(*operation)
    first_life = sound(run.clock.given)

    reborn = Playout(0, marker)
    end = run.received[run.item]
    reborn.push(run.item, 0, run.pushed[-2 * end :] if end else b"")
    second_life = values(reborn.take(1_000_000, 0))

    if len(run.received) == 1:
        assert first_life + second_life == values(run.pushed)
