"""Levels: the loudness of each tenth of a second, independent of the size of blocks."""

from __future__ import annotations

import random
from array import array
from math import pi, sin

import numpy as np
import pytest

from actors.level import LEVEL_SAMPLES, Meter
from messages import SILENCE_DBFS


def tone(amplitude: float, samples: int = LEVEL_SAMPLES) -> bytes:
    wave = (amplitude * sin(2 * pi * 440 * i / 24_000) for i in range(samples))
    return array("h", (round(32767 * sample) for sample in wave)).tobytes()


@pytest.mark.parametrize(
    ("amplitude", "mean", "peak"),
    [(1.0, -3.0, 0.0), (0.5, -9.0, -6.0), (0.1, -23.0, -20.0), (0.001, -63.0, -59.9)],
)
def test_a_tone_has_the_level_of_its_amplitude(amplitude: float, mean: float, peak: float) -> None:
    ((rms_dbfs, peak_dbfs),) = Meter().add(tone(amplitude))

    assert rms_dbfs == pytest.approx(mean, abs=0.15)
    assert peak_dbfs == pytest.approx(peak, abs=0.15)


@pytest.mark.parametrize(
    ("sample", "level"),
    [(0, (SILENCE_DBFS, SILENCE_DBFS)), (-32768, (0.0, 0.0)), (32767, (0.0, 0.0))],
)
def test_no_level_is_out_of_bounds(sample: int, level: tuple[float, float]) -> None:
    assert list(Meter().add(array("h", [sample] * LEVEL_SAMPLES).tobytes())) == [level]


@pytest.mark.parametrize("block", [1, 240, 480, 960, 2400, 7001])
def test_the_levels_are_the_same_whatever_pieces_the_sound_comes_in(block: int) -> None:
    chosen = random.Random(3)
    samples = [chosen.randrange(-900 * (i // 2400 + 1), 900) for i in range(5 * 2400 + 100)]
    pcm = array("h", samples).tobytes()
    meter = Meter()

    pieces = [pcm[start : start + 2 * block] for start in range(0, len(pcm), 2 * block)]
    levels = [level for piece in pieces for level in meter.add(piece)]

    windows = np.array(samples[: 5 * 2400], float).reshape(5, 2400)
    means = 20 * np.log10(np.sqrt((windows**2).mean(axis=1)) / 32767)
    peaks = 20 * np.log10(np.abs(windows).max(axis=1) / 32767)
    assert [level[0] for level in levels] == pytest.approx(means.round(1).tolist())
    assert [level[1] for level in levels] == pytest.approx(peaks.round(1).tolist())


def test_the_rest_is_measured_as_if_silence_followed() -> None:
    meter = Meter()
    assert list(meter.add(tone(1.0, LEVEL_SAMPLES // 4))) == []

    ((rms_dbfs, peak_dbfs),) = meter.rest()

    assert (rms_dbfs, peak_dbfs) == (pytest.approx(-9.0, abs=0.2), 0.0)
    assert list(meter.rest()) == []
