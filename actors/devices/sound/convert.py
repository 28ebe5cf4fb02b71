"""Converts audio between the session's format, int16 mono at 24 kHz, and that of a sound card.

It imports numpy, so import it only when needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from actors.devices.sound.resample import Resampling, best_resampler
from messages import SAMPLE_RATE

__all__ = ["Downmix", "FromCard", "ToCard", "to_floats", "to_pcm"]

_STEP = 5 * SAMPLE_RATE // 1000
"""Samples pulled at once; few, because audio that is pulled early cannot be flushed any more."""
_S = 1_000_000_000
_CANCELLING = 0.05
"""Energy of the sum of all channels, relative to the sum of their energies, below which they cancel
each other out. It is 1 for unrelated channels, and below this for two that correlate by -0.95."""
_HALF_LIFE_S = 0.5
"""Time after which sound counts half in these energies."""


class _CardConverter:
    """A resampler that counts the audio inside it; it does nothing if the rates are equal."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz, self._to_hz = from_hz, to_hz
        self._resampler: Resampling | None = None
        if from_hz != to_hz:
            self._resampler = best_resampler(from_hz, to_hz)
        self._fed = self._given = 0

    def convert(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._resampler is None:
            return samples
        out = self._resampler.process(samples)
        self._fed += len(samples)
        self._given += len(out)
        return out

    @property
    def inside_ns(self) -> int:
        return self._fed * _S // self._from_hz - self._given * _S // self._to_hz


class Downmix:
    """Mixes channels to mono: their mean or, while they cancel each other out, the loudest one.

    They do where one of two is inverted, as with a balanced microphone at a stereo input.

    Args:
        channels: Number of channels.
        rate: Sample rate in Hz.
    """

    def __init__(self, channels: int, rate: int) -> None:
        self.cancelled = False
        """Whether channels have cancelled each other out."""
        self._rate = rate
        self._energies = np.zeros(channels)
        self._energy_of_sum = 0.0

    def mix(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return frames, shape ``(n_frames, channels)``, as mono."""
        channels = len(self._energies)
        if channels == 1 or not len(frames):
            return frames[:, 0]
        mean: NDArray[np.float32] = frames.mean(axis=1)
        kept = 0.5 ** (len(frames) / (_HALF_LIFE_S * self._rate))
        self._energies = kept * self._energies + np.square(frames, dtype=np.float64).sum(axis=0)
        energy = float(np.square(channels * mean, dtype=np.float64).sum())
        self._energy_of_sum = kept * self._energy_of_sum + energy
        if self._energy_of_sum >= _CANCELLING * self._energies.sum():
            return mean
        self.cancelled = True
        return frames[:, self._energies.argmax()]


class FromCard:
    """Converts the audio that a card delivers to 24 kHz mono.

    Args:
        rate: Sample rate of the card, 8000..192000 Hz.
        channels: Channels of the card; see `Downmix`.

    Raises:
        UnsupportedRateError: If the rate is out of range.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._channels = channels
        self._downmix = Downmix(channels, rate)
        self._converter = _CardConverter(rate, SAMPLE_RATE)

    def convert(self, data: bytes) -> bytes:
        """Convert a block; the samples still in the resampler come with the next block."""
        frames = to_floats(data).reshape(-1, self._channels)
        return to_pcm(self._converter.convert(self._downmix.mix(frames)))

    @property
    def cancelled(self) -> bool:
        """Whether channels have cancelled each other out."""
        return self._downmix.cancelled

    @property
    def inside_ns(self) -> int:
        """Duration of the audio that was delivered but not returned yet."""
        return self._converter.inside_ns


class ToCard:
    """Converts 24 kHz mono to the audio that a card plays.

    Args:
        rate: Sample rate of the card, 8000..192000 Hz.
        channels: Channels of the card; each gets the same audio.

    Raises:
        UnsupportedRateError: If the rate is out of range.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        self._converter = _CardConverter(SAMPLE_RATE, rate)
        self._ready = np.zeros(0, np.float32)

    def pull(self, take: Callable[[int, int], bytes], frames: int, at_ns: int) -> bytes:
        """Return the next block for the card.

        Args:
            take: Takes so many samples from the playout, told when they will be heard.
            frames: Length of the block in frames of the card.
            at_ns: When its first frame will be heard.
        """
        while len(self._ready) < frames:
            due_ns = at_ns + len(self._ready) * _S // self._rate + self._converter.inside_ns
            samples = to_floats(take(_STEP, due_ns))
            self._ready = np.concatenate((self._ready, self._converter.convert(samples)))
        block, self._ready = self._ready[:frames], self._ready[frames:]
        return to_pcm(np.repeat(block, self._channels))

    @property
    def inside_ns(self) -> int:
        """Duration of the audio that was pulled but not given to the card yet."""
        return len(self._ready) * _S // self._rate + self._converter.inside_ns


def to_floats(pcm: bytes) -> NDArray[np.float32]:
    """Return int16 little-endian samples as float32 in the same range."""
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def to_pcm(samples: NDArray[np.float32]) -> bytes:
    """Return float32 samples in the range of int16 as int16 little-endian, clipped."""
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()
