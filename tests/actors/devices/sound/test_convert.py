"""Conversion for sound cards: lossless up to 10 kHz, and without losing the time of a sample."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from actors.devices.playout import Playout
from actors.devices.sound import convert
from actors.devices.sound.convert import Downmix, FromCard, ToCard
from actors.devices.sound.resample import Resampler, SoxrResampler
from actors.devices.units import to_ns

CARDS = [(48_000, 2), (44_100, 1), (44_100, 6), (96_000, 2), (24_000, 2)]


@pytest.fixture(params=[Resampler, SoxrResampler])
def _resampler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert with each of the two."""
    if request.param is SoxrResampler:
        pytest.importorskip("soxr")
    monkeypatch.setattr(convert, "best_resampler", request.param)


def chirp(seconds: float = 2.0) -> np.ndarray:
    """Return a sound that goes from 50 Hz to 11.5 kHz."""
    t = np.arange(int(seconds * 24_000)) / 24_000
    return 12_000 * np.sin(2 * np.pi * (50 * t + (11_500 - 50) / (2 * seconds) * t**2))


def levels_db(heard: np.ndarray, sound: np.ndarray, up_to_hz: int = 10_000) -> np.ndarray:
    """Return how much louder each third of an octave has become."""
    size = len(heard) + len(sound)
    there, was = np.fft.rfft(heard, size), np.fft.rfft(sound, size)
    hz = np.fft.rfftfreq(size, 1 / 24_000)
    edges = np.append(np.geomspace(100, up_to_hz, 24), up_to_hz)
    bands = [(hz >= low) & (hz < high) for low, high in pairwise(edges)]
    return np.array(
        [
            10 * np.log10(np.sum(np.abs(there[band]) ** 2) / np.sum(np.abs(was[band]) ** 2))
            for band in bands
            if band.any()
        ]
    )


def played(to_card: ToCard, playout: Playout, frames: int, channels: int) -> np.ndarray:
    """Return what 110 blocks of a card are, a row for each frame."""
    data = b"".join(to_card.pull(playout.pull, frames, 0) for _ in range(110))
    return np.frombuffer(data, "<i2").reshape(-1, channels)


@pytest.mark.usefixtures("_resampler")
@pytest.mark.parametrize(("rate", "channels"), CARDS)
def test_a_chirp_through_a_card_and_back_keeps_its_level_to_10_khz(
    rate: int, channels: int
) -> None:
    sound = chirp()
    playout = Playout()
    playout.push("a", 0, sound.astype("<i2").tobytes(), last=True)
    frames = rate // 50

    on_card = played(ToCard(rate, channels), playout, frames, channels)
    from_card = FromCard(rate, channels)
    heard = b"".join(
        from_card.convert(on_card[at : at + frames].tobytes())
        for at in range(0, len(on_card), frames)
    )

    assert (on_card == on_card[:, :1]).all()
    levels = levels_db(np.frombuffer(heard, "<i2").astype(float), sound)
    assert np.abs(levels).max() < 0.5


@pytest.mark.usefixtures("_resampler")
@pytest.mark.parametrize(("rate", "channels"), CARDS)
def test_it_is_known_when_what_is_pulled_will_be_heard(rate: int, channels: int) -> None:
    class Click(Playout):
        """Plays a click in the 20th step."""

        due_ns = 0
        pulls = 0

        def pull(self, samples: int, at_ns: int) -> bytes:
            self.pulls += 1
            block = np.zeros(samples, "<i2")
            if self.pulls == 20:
                self.due_ns = at_ns + to_ns(50)
                block[50] = 30_000
            return block.tobytes()

    playout, to_card, frames = Click(), ToCard(rate, channels), rate // 100

    on_card = [to_card.pull(playout.pull, frames, number * 10_000_000) for number in range(20)]

    samples = np.frombuffer(b"".join(on_card), "<i2").reshape(-1, channels)[:, 0].astype(int)
    heard_ns = int(np.abs(samples).argmax()) * 1_000_000_000 // rate
    assert heard_ns == pytest.approx(playout.due_ns, abs=100_000)


@pytest.mark.usefixtures("_resampler")
@pytest.mark.parametrize(("rate", "channels"), CARDS)
def test_it_is_known_when_what_is_delivered_was_heard(rate: int, channels: int) -> None:
    from_card, frames = FromCard(rate, channels), rate // 50
    click = np.zeros((frames * 10, channels), "<i2")
    click[frames * 5 + 100] = 30_000
    heard = np.zeros(0)

    for at in range(0, len(click), frames):
        out = np.frombuffer(from_card.convert(click[at : at + frames].tobytes()), "<i2")
        end_ns = (at + frames) * 1_000_000_000 // rate - from_card.inside_ns
        heard = np.append(heard, out)
        assert len(heard) == pytest.approx(end_ns * 24_000 / 1e9, abs=1)

    assert np.abs(heard).argmax() == pytest.approx((frames * 5 + 100) * 24_000 / rate, abs=3)


@pytest.mark.usefixtures("_resampler")
def test_little_is_pulled_ahead() -> None:
    playout, to_card = Playout(), ToCard(48_000, 2)
    for number in range(20):
        to_card.pull(playout.pull, 480, number)

        assert to_card.inside_ns <= 16_000_000


@pytest.mark.usefixtures("_resampler")
def test_the_loudest_sound_is_clipped_and_does_not_wrap() -> None:
    square = np.where(np.arange(9_600) // 24 % 2, 32_767, -32_768).astype("<i2")
    playout = Playout()
    playout.push("a", 0, square.tobytes(), last=True)

    on_card = played(ToCard(48_000, 1), playout, 480, 1)[:, 0].astype(int)

    assert np.abs(np.diff(on_card)).max() < 55_000
    assert (on_card.min(), on_card.max()) == (-32_768, 32_767)


def test_without_soxr_ours_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)

    assert isinstance(convert.best_resampler(48_000, 24_000), Resampler)


def test_with_soxr_it_is_used() -> None:
    pytest.importorskip("soxr")

    assert isinstance(convert.best_resampler(48_000, 24_000), SoxrResampler)


# -- channels -------------------------------------------------------------------------------------

RATE = 24_000


def mixed(mix: Downmix, frames: np.ndarray, size: int = 480) -> np.ndarray:
    """Return what comes of frames in blocks."""
    blocks = [frames[at : at + size].astype(np.float32) for at in range(0, len(frames), size)]
    return np.concatenate([mix.mix(block) for block in blocks])


def test_of_channels_in_antiphase_the_loudest_is_heard() -> None:
    sound, mix = chirp(1.0), Downmix(3, RATE)

    heard = mixed(mix, np.stack([0.4 * sound, -sound, 0.6 * sound], axis=1))

    assert np.abs(heard + sound).max() < 1
    assert mix.cancelled


@pytest.mark.parametrize("other", [0.0, -0.5, 1.0])
def test_of_other_channels_the_mean_is_heard(other: float) -> None:
    sound, mix = chirp(1.0), Downmix(2, RATE)

    heard = mixed(mix, np.stack([sound, other * sound], axis=1))

    assert np.abs(heard - (1 + other) / 2 * sound).max() < 1
    assert not mix.cancelled


def test_silence_and_unrelated_channels_do_not_cancel_out() -> None:
    noise, mix = np.random.default_rng(7).normal(0, 1000, (RATE, 2)), Downmix(2, RATE)

    heard = mixed(mix, np.concatenate([np.zeros((RATE, 2)), noise]))

    assert np.abs(heard[RATE:] - noise.mean(axis=1)).max() < 1
    assert not mix.cancelled


def test_after_channels_in_antiphase_others_are_heard_as_their_mean() -> None:
    sound, mix = chirp(2.0), Downmix(2, RATE)
    opposed, left = np.stack([sound, -sound], axis=1), np.stack([sound, 0 * sound], axis=1)

    heard = mixed(mix, np.concatenate([opposed, left]))

    assert np.abs(heard[-RATE:] - 0.5 * sound[-RATE:]).max() < 1
