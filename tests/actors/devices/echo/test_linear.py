"""The linear canceller: it takes the echo out of a sound, and nothing of the user."""

from __future__ import annotations

import numpy as np
import pytest

from actors.devices.echo.linear import BLOCK, LAG, LinearCanceller
from tests.actors.devices.echo.rooms import RATE, Floats, Room, talk

SECONDS = 6.0
ROOM = Room(delay_ms=20)


def cleaned(played: Floats, heard: Floats) -> Floats:
    canceller = LinearCanceller()
    played, heard = played.astype(np.float32), heard.astype(np.float32)
    return np.concatenate(
        [
            canceller.process(heard[at : at + BLOCK], played[at : at + BLOCK])
            for at in range(0, len(heard) - BLOCK + 1, BLOCK)
        ]
    )


def level_db(sound: Floats, begin_s: float, end_s: float) -> float:
    part = sound[int(begin_s * RATE) : int(end_s * RATE)]
    return 10 * float(np.log10(np.mean(part**2) + 1e-10))


@pytest.fixture(scope="module")
def played() -> Floats:
    return talk(1, SECONDS)


def test_the_echo_is_taken_out(played: Floats) -> None:
    heard = ROOM.heard(played)

    output = cleaned(played, heard)

    assert level_db(heard, 2, 6) - level_db(output, 2, 6) >= 25


def test_the_user_alone_passes_later_by_the_lag() -> None:
    near = talk(2, 2.0)

    output = cleaned(np.zeros_like(near), near)

    np.testing.assert_allclose(output[LAG:], near[: len(output) - LAG], atol=1e-4)


def test_the_user_remains_who_speaks_over_the_echo(played: Floats) -> None:
    near = np.concatenate((np.zeros(3 * RATE), talk(2, SECONDS - 3)))

    output = cleaned(played, ROOM.heard(played, near))

    assert level_db(output, 3, 6) == pytest.approx(level_db(near, 3, 6), abs=4)


def test_it_learns_a_path_that_has_changed(played: Floats) -> None:
    before, then = ROOM.heard(played), Room(delay_ms=30, seed=2).heard(played)
    heard = np.concatenate((before[: 2 * RATE], then[2 * RATE :]))

    output = cleaned(played, heard)

    assert level_db(heard, 4, 6) - level_db(output, 4, 6) >= 20


def test_a_wrong_reference_makes_nothing_louder(played: Floats) -> None:
    heard = ROOM.heard(played)

    output = cleaned(talk(3, SECONDS), heard)

    assert level_db(output, 0, 6) <= level_db(heard, 0, 6) + 0.5
