"""The jitter buffer: how much audio must have arrived before an answer is played."""

from __future__ import annotations

from actors.devices.jitter import Prefill

BLOCK = 480  # 20 ms


def wanted(prefill: Prefill) -> int:
    """Return with how many blocks an item starts at once."""
    for blocks in range(20):
        if prefill.is_enough(blocks * BLOCK, 0, grows=True):
            return blocks
    raise AssertionError("it never starts")


def test_it_waits_for_the_set_number_of_blocks() -> None:
    assert wanted(Prefill(2 * BLOCK)) == 2


def test_it_waits_twice_as_long_after_each_faltering_but_for_six_blocks_at_most() -> None:
    prefill = Prefill(2 * BLOCK)

    waits = []
    for _ in range(3):
        prefill.falter()
        waits.append(wanted(prefill))

    assert waits == [4, 6, 6]


def test_it_waits_for_a_block_less_after_each_item_that_did_not_falter() -> None:
    prefill = Prefill(2 * BLOCK)
    prefill.falter()
    prefill.falter()

    waits = []
    for _ in range(6):
        prefill.note_end()  # the first of them is the item that has faltered
        waits.append(wanted(prefill))

    assert waits == [6, 5, 4, 3, 2, 2]


def test_what_will_not_grow_is_played_however_short_it_is() -> None:
    assert Prefill(2 * BLOCK).is_enough(1, BLOCK, grows=False)


def test_it_does_not_wait_for_longer_than_what_it_waits_for_would_last() -> None:
    prefill = Prefill(2 * BLOCK)

    asked = [prefill.is_enough(1, BLOCK, grows=True) for _ in range(4)]

    assert asked == [False, False, True, False]


def test_counts_are_reported_once() -> None:
    prefill = Prefill(0)
    prefill.falter()
    prefill.note_silence(7)

    assert [prefill.take_faltered(), prefill.take_faltered()] == [(1, 7), (0, 0)]
