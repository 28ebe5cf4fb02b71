"""The measure of speech, which distinguishes words from coughs in any room."""

from __future__ import annotations

import math
import random
from array import array

import pytest

from actors.realtime.core.voice import Measure

BLOCK = 960


def noise(ms: int, dbfs: float, seed: int = 1) -> bytes:
    """Return noise of a level."""
    rng = random.Random(seed)
    scale = 32768 * 10 ** (dbfs / 20) * math.sqrt(3)
    return array("h", [int(scale * rng.uniform(-1, 1)) for _ in range(24 * ms)]).tobytes()


def heard(pcm: bytes, from_ms: int) -> int:
    """Return how long a measure finds somebody loud that is begun at a moment."""
    begin = 48 * from_ms
    measure = Measure(pcm[:begin])
    for at in range(begin, len(pcm), 2 * BLOCK):
        measure.hear(pcm[at : at + 2 * BLOCK])
    return measure.voiced_ms


@pytest.mark.parametrize("room_db", [-120.0, -70.0, -55.0, -40.0])
@pytest.mark.parametrize("ms", [120, 300, 600])
def test_as_long_as_somebody_is_louder_than_the_room_is_counted(room_db: float, ms: int) -> None:
    room = noise(1000, room_db)
    loud = noise(ms, max(-35.0, room_db + 20), seed=2)
    pcm = room + loud + room

    assert heard(pcm, 720) == pytest.approx(ms, abs=40)


def test_sound_before_the_speech_does_not_count() -> None:
    pcm = noise(500, -60) + noise(500, -20, 2) + noise(1000, -60)

    assert heard(pcm, 1200) == 0


def test_a_steady_noise_is_the_room() -> None:
    assert heard(noise(3000, -25), 2000) <= 40


def test_silence_counts_as_nobody() -> None:
    assert heard(bytes(2 * 24 * 2000), 1000) == 0


def test_without_a_past_only_loudness_counts() -> None:
    measure = Measure()

    measure.hear(noise(200, -30) + noise(200, -60, 2))

    assert measure.voiced_ms == 200


def test_blocks_of_any_length_are_measured_as_one_stream() -> None:
    pcm, rng = noise(990, -20), random.Random(3)
    measure = Measure()
    at = 0

    while at < len(pcm):
        size = 2 * rng.randrange(1, 2000)
        measure.hear(pcm[at : at + size])
        at += size

    assert measure.voiced_ms == 980
