"""The output ``null``: in real time, and woken seldom."""

from __future__ import annotations

from actors.devices.playout import Playout
from actors.devices.silence import NullPlayback, PacedPlayback

MS = 1_000_000


def play(device: PacedPlayback, playout: Playout, until_ms: int) -> int:
    """Let time go by from 0 to here; return how often the device was woken."""
    now_ns, woken = 0, 0
    device.start(playout, lambda _: None)
    while now_ns <= until_ms * MS:
        woken += 1
        _, wait_s = device.pump(now_ns)
        assert wait_s is not None
        now_ns += round(wait_s * 1e9)
    return woken


def test_it_is_woken_seldom_while_enough_is_queued() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))

    assert play(device, playout, 1_000) < 12


def test_each_block_is_taken_when_it_is_due_if_little_is_queued() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(48 * 100))
    device.start(playout, lambda _: None)

    for now_ms in range(0, 100, 20):
        device.pump(now_ms * MS)
        assert playout.progress()["a"] == 24 * (now_ms + 20)


def test_the_first_block_is_taken_at_once() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))
    device.start(playout, lambda _: None)

    device.pump(0)

    assert playout.progress()["a"] == 24 * 20


def test_what_was_played_is_known_to_the_block_at_any_time() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))

    for now_ms in (90, 130, 490):
        play(device, playout, now_ms)
        device.catch_up(now_ms * MS)
        assert playout.settle(now_ms * MS).position == ("a", 24 * now_ms)


def test_a_short_pause_is_one() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))
    play(device, playout, 500)
    device.catch_up(500 * MS)
    playout.settle(500 * MS)

    playout.pause(taken_back=device.clears)
    device.flush(500 * MS)
    device.pump(500 * MS)
    playout.resume()
    device.pump(540 * MS)

    device.catch_up(600 * MS)
    assert playout.settle(600 * MS).position == ("a", 24 * 560)


def test_what_is_left_to_play_in_a_pause_is_taken_when_it_is_due() -> None:
    device, playout = PacedPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))
    device.start(playout, lambda _: None)
    device.pump(0)

    playout.pause()

    assert device.pump(5 * MS) == ([], 0.015)


def test_after_a_pause_of_the_process_it_does_not_play_what_was_due_meanwhile() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 240_000))
    play(device, playout, 100)
    taken = playout.progress()["a"]

    device.catch_up(5_000 * MS)

    assert playout.progress()["a"] == taken + 24 * 20


def test_it_ends_when_nothing_is_left_and_what_comes_then_begins_at_once() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(48 * 300))
    device.start(playout, lambda _: None)
    now_ns = 0
    while (wait_s := device.pump(now_ns)[1]) is not None:
        now_ns += round(wait_s * 1e9)

    assert now_ns == 300 * MS
    playout.push("a", 24 * 300, bytes(48 * 300))
    device.pump(now_ns + 50 * MS)
    assert playout.settle(now_ns + 60 * MS).position == ("a", 24 * 310)


def test_what_it_had_taken_and_not_played_is_taken_back() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))
    play(device, playout, 510)

    device.catch_up(510 * MS)  # it has taken 520 ms
    playout.settle(device.heard_until(510 * MS))
    flushed = playout.flush(510 * MS, taken_back=device.clears)
    device.flush(510 * MS)
    playout.push("b", 0, bytes(2 * 2_400))
    device.pump(515 * MS)

    assert flushed.played == 510 * 24
    assert playout.settle(525 * MS).position == ("b", 240), "the next one begins at once"
