"""Double talk: the output is the engine's, and the linear canceller's where the user speaks.

The engine is a stand-in that leaves a hundredth of everything while something is played, the user
included. The real one is in `test_canceller.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from actors.devices.echo.double_talk import DoubleTalk
from tests.actors.devices.echo.rooms import RATE, Floats, Room, Samples, level_db, pcm16, talk

SECONDS, SPEAKS = 10.0, 8
"""Length of the sound, and when the user begins to speak: the linear canceller is known by then."""
DELAY_MS = 60
ROOM = Room(delay_ms=DELAY_MS)
ENGINE_LAG = 224


def later(sound: Samples, samples: int) -> Samples:
    return np.concatenate((np.zeros(samples, np.int16), sound))[: len(sound)]


def run(
    played: Floats,
    heard: Floats,
    left: Floats,
    *,
    block: int = 480,
    lag_ms: int | None = DELAY_MS,
    plays: bool = True,
    engine_lag: int = ENGINE_LAG,
    mixer: DoubleTalk | None = None,
) -> Samples:
    mixer = mixer or DoubleTalk(engine_lag)
    streams = pcm16(heard), pcm16(played), later(pcm16(left), engine_lag)
    return np.concatenate(
        [
            mixer.process(*(each[at : at + block] for each in streams), lag_ms, plays=plays)
            for at in range(0, len(heard) - block + 1, block)
        ]
    )


@pytest.fixture(scope="module")
def played() -> Floats:
    return talk(1, SECONDS)


@pytest.fixture(scope="module")
def near() -> Floats:
    """The user, who speaks from then on."""
    return np.concatenate((np.zeros(SPEAKS * RATE), talk(2, SECONDS - SPEAKS)))


def test_the_user_is_heard_though_the_engine_takes_him_away(played: Floats, near: Floats) -> None:
    heard = ROOM.heard(played, near)

    output = run(played, heard, heard / 100)

    assert level_db(output, SPEAKS, SECONDS) >= level_db(pcm16(near), SPEAKS, SECONDS) - 4


def test_no_more_of_the_echo_is_left_than_the_engine_leaves(played: Floats) -> None:
    heard = ROOM.heard(played)

    output = run(played, heard, heard / 30)

    assert level_db(output, 0, SECONDS) <= level_db(pcm16(heard / 30), 0, SECONDS)
    assert level_db(output, 2, SECONDS) <= level_db(pcm16(heard / 30), 2, SECONDS) - 3  # less even


@pytest.mark.parametrize("wrong", ["reference", "delay"])
def test_a_linear_canceller_that_does_not_cancel_is_not_used(played: Floats, wrong: str) -> None:
    heard = ROOM.heard(played)
    reference = talk(3, SECONDS) if wrong == "reference" else played

    output = run(reference, heard, heard / 100, lag_ms=DELAY_MS if wrong == "reference" else 300)

    assert level_db(output, 0, SECONDS) <= level_db(pcm16(heard / 100), 0, SECONDS) + 0.5


def test_while_the_delay_is_not_known_the_output_is_the_engines(
    played: Floats, near: Floats
) -> None:
    heard = ROOM.heard(played, near)

    output = run(played, heard, heard / 10, lag_ms=None)

    expected = later(pcm16(heard / 10), DoubleTalk(ENGINE_LAG).lag)
    assert output.tolist() == expected.tolist()


def test_while_nothing_is_played_the_output_is_the_engines(near: Floats) -> None:
    output = run(np.zeros_like(near), near, near, plays=False)

    assert output.tolist() == later(pcm16(near), DoubleTalk(ENGINE_LAG).lag).tolist()


def test_streams_that_were_moved_are_learnt_anew(played: Floats, near: Floats) -> None:
    heard, mixer = ROOM.heard(played), DoubleTalk(ENGINE_LAG)
    run(played, heard, heard / 100, mixer=mixer)

    mixer.forget()
    heard = Room(delay_ms=100).heard(played, near)
    output = run(played, heard, heard / 100, lag_ms=100, mixer=mixer)

    assert level_db(output, 0, SPEAKS) <= level_db(pcm16(heard / 100), 0, SPEAKS) + 0.5
    assert level_db(output, SPEAKS, SECONDS) >= level_db(pcm16(near), SPEAKS, SECONDS) - 4


def test_it_does_not_matter_how_long_the_blocks_are(played: Floats, near: Floats) -> None:
    heard = ROOM.heard(played, near)

    outputs = [run(played, heard, heard / 100, block=block) for block in (240, 480, 960)]

    assert outputs[0].tolist() == outputs[1].tolist() == outputs[2].tolist()


@pytest.mark.parametrize("engine_lag", [0, 224, 400])
def test_both_are_later_by_the_same_lag(played: Floats, near: Floats, engine_lag: int) -> None:
    heard = ROOM.heard(played, near)
    lag = DoubleTalk(engine_lag).lag

    output = run(played, heard, near, engine_lag=engine_lag)[SPEAKS * RATE :].astype(float)

    size = 2 * len(output)
    spectrum = np.fft.rfft(output, size) * np.conj(np.fft.rfft(near[SPEAKS * RATE :], size))
    assert np.fft.irfft(spectrum, size).argmax() == pytest.approx(lag, abs=1)
