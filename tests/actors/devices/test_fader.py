"""Volume and ramps."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest

from actors.devices.fader import FADE, Fader, tail

LOUD = array("h", [10_000] * 2 * FADE).tobytes()


def values(pcm: bytes) -> list[int]:
    return array("h", pcm).tolist()


def steps(samples: list[int]) -> int:
    """Return the largest step from one sample to the next."""
    return max(abs(after - before) for before, after in pairwise(samples))


def test_at_full_volume_nothing_is_touched_or_copied() -> None:
    assert Fader(1.0).scaled(LOUD) is LOUD


@pytest.mark.parametrize("volume", [0.0, 0.25, 0.5])
def test_sound_is_as_loud_as_was_asked(volume: float) -> None:
    assert set(values(Fader(volume).scaled(LOUD))) == {round(10_000 * volume)}


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.6)])
def test_another_volume_is_reached_in_one_ramp(before: float, after: float) -> None:
    fader = Fader(before)
    fader.set_volume(after, sounding=True)

    heard = values(fader.scaled(LOUD))

    assert steps([round(10_000 * before), *heard]) <= 10_000 / FADE + 1
    assert set(heard[FADE:]) == {round(10_000 * after)}


def test_a_ramp_goes_on_from_block_to_block() -> None:
    whole, parts = Fader(1.0), Fader(1.0)
    for fader in (whole, parts):
        fader.set_volume(0.5, sounding=True)

    pieces = b"".join(parts.scaled(LOUD[at : at + 100]) for at in range(0, len(LOUD), 100))

    assert values(pieces) == pytest.approx(values(whole.scaled(LOUD)), abs=1)


def test_in_silence_another_volume_needs_no_ramp() -> None:
    fader = Fader(1.0)

    fader.set_volume(0.5, sounding=False)

    assert set(values(fader.scaled(LOUD))) == {5_000}


def test_a_ramp_that_silence_cuts_off_does_not_go_on_after_it() -> None:
    fader = Fader(0.5)
    fader.fade_in()
    fader.scaled(LOUD[:20])

    fader.silence()

    assert set(values(fader.scaled(LOUD))) == {5_000}


def test_sound_begins_and_ends_without_a_click() -> None:
    fader = Fader(1.0)
    fader.fade_in()

    begun, ended = values(fader.scaled(LOUD)), values(fader.faded_out(LOUD[: 2 * FADE]))

    assert steps([0, *begun, *ended, 0]) <= 10_000 / FADE + 1


def test_where_sound_breaks_off_silence_begins_with_a_ramp() -> None:
    fader = Fader(1.0)
    fader.note_edge(LOUD, breaks_off=True)

    silence = values(fader.run_out(FADE // 2) + fader.run_out(FADE))

    assert steps([10_000, *silence]) <= 10_000 / FADE + 1
    assert set(silence[FADE:]) == {0}
    assert len(silence) == FADE // 2 + FADE


def test_where_it_has_ended_silence_is_silence() -> None:
    fader = Fader(1.0)
    fader.note_edge(LOUD, breaks_off=False)

    assert not any(fader.run_out(FADE))


def test_of_what_is_cut_off_a_ramp_is_left() -> None:
    left = values(tail(LOUD))

    assert len(left) == FADE
    assert steps([10_000, *left, 0]) <= 10_000 / FADE + 1
    assert tail(b"") == b""
