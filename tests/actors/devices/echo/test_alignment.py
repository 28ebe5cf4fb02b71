"""Alignment: the reference is 40 ms ahead of its echo, whatever is lost on either side."""

from __future__ import annotations

import numpy as np
import pytest

from actors.devices.card.reference import Played
from actors.devices.echo.alignment import Alignment

MS = 1_000_000
BLOCK_MS, SLOT_MS, PER_MS = 20, 10, 24


class Cards:
    """A loudspeaker that plays a ramp, one number a millisecond, and a microphone; one clock."""

    device = "Built-in"

    def __init__(self, ahead_ms: int = 80) -> None:
        self.ahead_ms = ahead_ms
        """How long before it is heard the loudspeaker is given its sound."""
        self.now_ms = 1000
        self.played_ms = self.now_ms
        """The sound up to this time was written."""
        self.run = 1
        self.stamp_off_ms = 0
        self.late = False
        self.silent = False
        self.slots: list[Played] = []
        self.alignment = Alignment(self)

    def read(self) -> list[Played]:
        slots, self.slots = self.slots, []
        return slots

    def play(self) -> None:
        while self.played_ms < self.now_ms + self.ahead_ms:
            numbers = np.arange(self.played_ms, self.played_ms + SLOT_MS, dtype="<i2")
            pcm = np.repeat(numbers * (not self.silent), PER_MS).astype("<i2").tobytes()
            heard_ns = (self.played_ms + self.stamp_off_ms) * MS
            self.slots.append(Played(heard_ns, pcm, self.run, self.late))
            self.late = False
            self.played_ms += SLOT_MS

    def capture(self, *, lost: bool = False) -> int | None:
        """Capture a block; return by how much its reference is ahead, in ms; None: it is zeros."""
        first_ms = self.now_ms
        self.now_ms += BLOCK_MS
        self.play()
        now_ns = self.now_ms * MS
        self.alignment.is_ready(BLOCK_MS * PER_MS, now_ns)
        found, _ = self.alignment.take(first_ms * MS, BLOCK_MS * PER_MS, now_ns, lost=lost)
        return int(found[0]) - first_ms if found.any() else None

    def captures(self, blocks: int) -> list[int | None]:
        return [self.capture() for _ in range(blocks)]


def test_the_reference_is_40_ms_ahead_and_without_gaps() -> None:
    cards = Cards()

    assert cards.captures(200)[5:] == [40] * 195
    assert cards.alignment.blocks == 200
    assert cards.alignment.late == 0


def test_stamps_that_jitter_do_not_move_it() -> None:
    cards = Cards()
    cards.captures(20)

    aheads = []
    for number in range(100):
        cards.stamp_off_ms = (-12, 0, 14)[number % 3]
        aheads.append(cards.capture())

    assert set(aheads) == {40}


@pytest.mark.parametrize("off_ms", [-45, 60])
def test_stamps_that_stay_off_move_it(off_ms: int) -> None:
    cards = Cards(ahead_ms=160)
    cards.captures(20)

    cards.stamp_off_ms = off_ms
    aheads = cards.captures(20)

    assert aheads[:2] == [40] * 2
    assert aheads[-1] == 40 - off_ms


def test_lost_microphone_blocks_are_followed_at_once() -> None:
    cards = Cards()
    cards.captures(20)

    cards.now_ms += 40

    assert cards.capture(lost=True) == 40


def test_lost_microphone_blocks_that_nobody_reported_are_followed_soon() -> None:
    cards = Cards()
    cards.captures(20)

    cards.now_ms += 40

    assert cards.captures(4) == [0, 0, 40, 40]


def test_an_underrun_of_the_loudspeaker_is_followed() -> None:
    cards = Cards()
    cards.captures(20)

    cards.late, cards.stamp_off_ms = True, 12
    aheads = cards.captures(10)

    assert aheads[-1] == 28


def test_a_new_speaker_is_followed_as_soon_as_it_plays() -> None:
    cards = Cards()
    cards.captures(20)

    cards.played_ms += 500  # killed: nothing is written or heard for so long
    cards.run = 2
    aheads = cards.captures(40)

    assert aheads[-1] == 40
    assert aheads.index(None) > 0
    assert cards.alignment.late <= 5, "nobody waits for a dead speaker"


def test_without_a_loudspeaker_there_are_zeros_and_nobody_waits() -> None:
    cards = Cards()
    cards.ahead_ms = -10_000

    assert cards.captures(10) == [None] * 10
    assert cards.alignment.is_ready(480, cards.now_ms * MS)


def test_a_block_waits_for_its_reference() -> None:
    cards = Cards()
    cards.captures(20)
    cards.ahead_ms = 20
    cards.captures(5)

    early = cards.alignment.is_ready(480, cards.now_ms * MS)
    cards.ahead_ms = 80
    cards.play()

    assert not early
    assert cards.alignment.is_ready(480, cards.now_ms * MS, again=True)


def test_a_reference_that_comes_late_gets_less_lead_soon() -> None:
    cards = Cards(ahead_ms=30)

    aheads = cards.captures(40)

    assert aheads[:5] == [40] * 5
    assert set(aheads[10:]) == {25}
    late = cards.alignment.late
    cards.captures(100)
    assert cards.alignment.late == late


def test_a_card_that_settles_late_gets_less_lead_as_soon() -> None:
    cards = Cards(ahead_ms=30)
    before = cards.captures(16)

    cards.ahead_ms = 20
    aheads = cards.captures(24)

    assert before[-1] == 25
    assert set(aheads[12:]) == {15}


def test_it_gets_more_again_once_it_is_silent() -> None:
    cards = Cards(ahead_ms=30)
    cards.captures(40)

    cards.ahead_ms = 80
    still = cards.captures(300)
    cards.silent = True
    cards.captures(300)
    cards.silent = False

    assert set(still) == {25}
    assert cards.captures(20)[-1] == 40


def test_a_lead_that_was_found_before_is_kept_from_the_first_block_on() -> None:
    cards = Cards(ahead_ms=30)
    cards.alignment = Alignment(cards, lead_ms=25)

    assert set(cards.captures(40)) == {25}
    assert cards.alignment.moves == 0


def test_a_reference_that_is_there_just_in_time_is_left_alone() -> None:
    cards = Cards(ahead_ms=40)
    cards.captures(300)

    cards.silent = True
    cards.captures(300)

    assert (cards.alignment.lead_ms, cards.alignment.moves) == (40, 0)


def test_a_few_late_blocks_change_nothing() -> None:
    cards = Cards()

    for number in range(200):
        cards.ahead_ms = 30 if number % 10 == 0 else 80
        cards.capture()

    assert cards.alignment.lead_ms == 40
