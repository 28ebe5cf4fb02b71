"""Resampling: level, aliases, length, independence from the size of blocks."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.devices.sound.resample import Resampler, SoxrResampler, UnsupportedRateError, resample

RATES = [8000, 16000, 22050, 24000, 44100, 48000, 96000, 192000]
PAIRS = [
    (24000, 48000),
    (48000, 24000),
    (44100, 24000),
    (24000, 44100),
    (24000, 16000),
    (22050, 24000),
    (24000, 8000),
    (8000, 24000),
    (192000, 24000),
    (44101, 24000),
]


def tone(hz, rate, seconds=1.0):
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def converted(samples, from_hz, to_hz):
    stream = Resampler(from_hz, to_hz)
    return np.concatenate((stream.process(samples), stream.flush()))


def level_and_rest_db(samples, hz, rate):
    """Level of the tone, and of everything else against it, over a whole number of periods."""
    middle = samples[rate // 10 : rate // 10 + rate // 2]
    turn = np.exp(-2j * np.pi * hz * np.arange(len(middle)) / rate)
    found = 2 * np.mean(middle * turn)
    rest = middle - np.real(found * np.conj(turn))
    level = 20 * np.log10(abs(found))
    return level, 20 * np.log10(np.sqrt(2) * np.std(rest) + 1e-12) - level


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
@pytest.mark.parametrize("hz", [200, 1000, 3000])
def test_a_tone_keeps_its_level_and_nothing_is_added(from_hz, to_hz, hz):
    out = converted(tone(hz, from_hz), from_hz, to_hz)

    level_db, rest_db = level_and_rest_db(out, hz, to_hz)
    assert abs(level_db) < 0.05
    assert rest_db < -85


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 24000), (44100, 24000), (24000, 16000)])
def test_a_tone_past_the_band_is_gone(from_hz, to_hz):
    out = converted(tone(to_hz / 2 * 13 / 12, from_hz), from_hz, to_hz)

    assert 20 * np.log10(np.abs(out[1000:-1000]).max()) < -90


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_a_sound_stays_where_it_was(from_hz, to_hz):
    click = np.zeros(from_hz, np.float32)
    click[from_hz // 2] = 1.0

    out = converted(click, from_hz, to_hz)

    assert abs(int(np.argmax(np.abs(out))) - to_hz // 2) <= 1


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_a_constant_passes_unchanged(from_hz, to_hz):
    out = converted(np.full(from_hz // 4, 0.5, np.float32), from_hz, to_hz)

    assert np.allclose(out[200:-200], 0.5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    from_hz=st.sampled_from(RATES),
    to_hz=st.sampled_from(RATES),
    cuts=st.lists(st.integers(0, 700), max_size=12),
    seed=st.integers(0, 99),
)
def test_blocks_do_not_matter_and_the_length_is_exact(from_hz, to_hz, cuts, seed):
    total = sum(cuts)
    samples = np.random.default_rng(seed).uniform(-1, 1, total).astype(np.float32)
    stream, at, parts = Resampler(from_hz, to_hz), 0, []

    for count in cuts:
        parts.append(stream.process(samples[at : at + count]))
        at += count
    out = np.concatenate([*parts, stream.flush()])

    assert len(out) == (2 * total * to_hz + from_hz) // (2 * from_hz)
    assert np.allclose(out, converted(samples, from_hz, to_hz), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(from_hz=st.integers(8000, 192000), to_hz=st.integers(8000, 192000))
def test_any_rate_gives_the_length_and_the_level(from_hz, to_hz):
    out = converted(np.full(2000, 0.25, np.float32), from_hz, to_hz)

    assert len(out) == (2 * 2000 * to_hz + from_hz) // (2 * from_hz)
    assert abs(out[len(out) // 2] - 0.25) < 1e-3


def test_after_flush_it_begins_anew():
    stream = Resampler(48000, 24000)
    stream.process(tone(1000, 48000, 0.1))
    stream.flush()

    again = np.concatenate((stream.process(tone(500, 48000, 0.1)), stream.flush()))

    assert np.array_equal(again, converted(tone(500, 48000, 0.1), 48000, 24000))


def test_equal_rates_change_nothing():
    samples = tone(440, 24000, 0.1)

    assert np.array_equal(converted(samples, 24000, 24000), samples)


def test_it_lags_by_a_millisecond_and_no_more():
    stream = Resampler(24000, 48000)

    out = stream.process(np.zeros(2400, np.float32))

    assert 4800 - len(out) <= 48


def test_whole_sounds_are_int16_and_clip_instead_of_wrapping():
    loud = np.where(np.arange(4800) // 24 % 2, 32767, -32768).astype("<i2")

    out = np.frombuffer(resample(loud.tobytes(), 24000, 48000), "<i2")

    assert len(out) == 9600
    assert out.max() == 32767
    assert out.min() == -32768
    assert np.all(np.sign(out[100:-100:96].astype(int)) == np.sign(out[100].astype(int)))


def test_no_sound_is_no_sound():
    assert resample(b"", 44100, 24000) == b""


@pytest.mark.parametrize(("from_hz", "to_hz"), [(7999, 24000), (24000, 192001), (0, 24000)])
def test_rates_out_of_range_are_refused_by_name(from_hz, to_hz):
    with pytest.raises(UnsupportedRateError, match="not between 8000 and 192000") as caught:
        Resampler(from_hz, to_hz)

    assert caught.value.hz in (from_hz, to_hz)


# -- by libsoxr -----------------------------------------------------------------------------------

if_soxr = pytest.mark.skipif(not find_spec("soxr"), reason="soxr is not installed")


def converted_by_soxr(samples, from_hz, to_hz, block=480):
    stream = SoxrResampler(from_hz, to_hz)
    parts = [stream.process(samples[at : at + block]) for at in range(0, len(samples), block)]
    return np.concatenate((*parts, stream.flush()))


@if_soxr
@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
@pytest.mark.parametrize("hz", [200, 1000, 3000])
def test_soxr_keeps_the_level_of_a_tone_and_adds_nothing(from_hz, to_hz, hz):
    out = converted_by_soxr(tone(hz, from_hz), from_hz, to_hz)

    level_db, rest_db = level_and_rest_db(out, hz, to_hz)
    assert abs(level_db) < 0.05
    assert rest_db < -100


@if_soxr
@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 24000), (44100, 24000), (24000, 16000)])
def test_soxr_lets_no_tone_past_the_band(from_hz, to_hz):
    out = converted_by_soxr(tone(to_hz / 2 * 13 / 12, from_hz), from_hz, to_hz)

    assert 20 * np.log10(np.abs(out[1000:-1000]).max()) < -95


@if_soxr
@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(24000, 48000), (48000, 24000), (24000, 44100), (44100, 24000), (192000, 24000)],
)
def test_soxr_gives_steadily_and_lags_by_twelve_milliseconds_at_most(from_hz, to_hz):
    stream, block, given = SoxrResampler(from_hz, to_hz), from_hz // 50, 0
    for number in range(1, 100):
        given += len(stream.process(np.zeros(block, np.float32)))

        lag_s = number * block / from_hz - given / to_hz
        assert lag_s < 0.012

    assert given + len(stream.flush()) == pytest.approx(99 * block * to_hz / from_hz, abs=1)


@if_soxr
def test_soxr_begins_anew_after_a_flush():
    stream = SoxrResampler(48000, 24000)
    stream.process(tone(1000, 48000, 0.1))
    stream.flush()

    again = np.concatenate((stream.process(tone(500, 48000, 0.1)), stream.flush()))

    assert np.array_equal(again, converted_by_soxr(tone(500, 48000, 0.1), 48000, 24000, 10**6))


@if_soxr
def test_soxr_refuses_the_same_rates():
    with pytest.raises(UnsupportedRateError, match="not between 8000 and 192000"):
        SoxrResampler(24000, 192001)
