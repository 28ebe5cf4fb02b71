"""A linear echo canceller: it removes less of the echo than AEC3, and nothing of the user's speech.

A partitioned-block Kalman filter in the frequency domain (Enzner and Vary 2006; Kuech et al. 2014).
It tracks the uncertainty of each coefficient. So double talk does not make it diverge, without a
detector of double talk, and it can estimate the residual echo, which the post filter removes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "LAG", "LinearCanceller"]

Floats = NDArray[np.float32]
Spectra = NDArray[np.complex64]

BLOCK = 240
"""Samples of a block: 10 ms."""
LAG = BLOCK
"""Samples by which the output is later than the input."""

_SIZE = 2 * BLOCK
_BINS = BLOCK + 1
_PARTS = 16
"""Blocks of the echo path that are modelled: 160 ms."""
_PARTS_DECAY = 6.0
"""Blocks in which the echo path is expected to decay to 37 %."""
_KEPT = np.float32(0.98)
"""Share of the echo path's energy that is expected to be unchanged after 20 ms."""
_FIRST = 1e-2
"""Expected energy of a coefficient at the start."""
_NOISE = np.float32(BLOCK * 10**-7.5)
_HEARD = 5e-5
"""Minimum energy of the reference's spectrum for an update of the filter."""
_LEAST, _MOST = np.float32(1e-9), np.float32(10.0)
"""Bounds of the uncertainty."""

_WORSE = 4.0
"""Factor: the filter has diverged if its output has this many times the energy of its input."""
_QUIET = BLOCK * 3e-6
_USELESS = 0.5
"""With a larger share of the input's energy in its output, the filter does not cancel."""
_USELESS_BLOCKS = 40
"""Number of such blocks after which it is reset."""
_ANEW = np.float32(0.3)
"""The uncertainty after that reset."""

_OVER = np.float32(3.0)
"""Oversubtraction: the post filter removes this many times the estimated residual echo."""
_FLOOR = np.float32(0.01)
_DOWN, _UP = np.float32(0.55), np.float32(0.23)
"""Smoothing of the post filter's gains, falling and rising: share of the difference per block."""


class LinearCanceller:
    """Takes out of a sound what is a linear echo of the reference, to 160 ms behind it."""

    def __init__(self) -> None:
        self._path: Spectra = np.zeros((_PARTS, _BINS), np.complex64)
        self._uncertainty: Floats = np.ones((_PARTS, _BINS), np.float32)
        decay = np.exp(-np.arange(_PARTS) / _PARTS_DECAY)
        self._first: Floats = (_FIRST * decay[:, None]).astype(np.float32)
        self._played: Spectra = np.zeros((_PARTS, _BINS), np.complex64)
        """Spectra of the last blocks of the reference, the newest first."""
        self._power: Floats = np.zeros((_PARTS, _BINS), np.float32)
        """Their power."""
        self._last_reference: Floats = np.zeros(BLOCK, np.float32)
        self._left: Floats = np.zeros(_BINS, np.float32)
        """Power of the output: the user's speech and the residual echo."""
        self._rest: Floats = np.zeros(_BINS, np.float32)
        """Expected power of the echo in the input."""
        self._useless = 0
        self.left = 0.0
        """Power of the last block after the filter, before the post filter. The post filter would
        hide that a filter does not cancel: it also attenuates an output that is only echo."""
        self._post_filter = _PostFilter()

    def process(self, sound: Floats, reference: Floats) -> Floats:
        """Return the next block without the echo, later by `LAG`; full scale is 1."""
        self._play(reference)
        echo = np.fft.irfft((self._path * self._played).sum(0))[BLOCK:].astype(np.float32)
        left = sound - echo
        energy, left_energy = float(sound @ sound), float(left @ left)
        self.left = left_energy / BLOCK
        if left_energy > _WORSE * energy + _QUIET:
            self._path *= np.float32(0.5)
        if float(self._power[0].sum()) > _HEARD:
            self._learn(left)
            is_useless = left_energy > _USELESS * energy
            self._useless = self._useless + 1 if is_useless else max(self._useless - 2, 0)
            if self._useless > _USELESS_BLOCKS:
                self._useless = 0
                np.maximum(self._uncertainty, _ANEW, out=self._uncertainty)
        else:
            self._rest *= np.sqrt(np.float32(0.5))
        return self._post_filter.process(left, self._rest)

    def _play(self, reference: Floats) -> None:
        both = np.concatenate((self._last_reference, reference))
        spectrum = np.fft.rfft(both)
        self._last_reference = both[BLOCK:]
        for kept in (self._played, self._power):
            kept[1:] = kept[:-1]
        self._played[0] = spectrum
        self._power[0] = _power(spectrum)

    def _learn(self, left: Floats) -> None:
        """Correct the path by what is left of the sound."""
        spectrum = np.fft.rfft(np.concatenate((np.zeros(BLOCK, np.float32), left)))
        self._left += (1 - np.sqrt(np.float32(0.5))) * (_power(spectrum) - self._left)
        self._rest = np.float32(0.5) * (self._power * self._uncertainty).sum(0)
        gain = self._uncertainty / (self._rest + self._left + _NOISE)
        change = np.fft.irfft(gain * np.conj(self._played) * spectrum, axis=1)
        change[:, BLOCK:] = 0
        self._path += np.fft.rfft(change, axis=1).astype(np.complex64)
        certain = 1 - np.float32(0.5) * gain * self._power
        self._uncertainty *= _KEPT * certain
        self._uncertainty += (1 - _KEPT) * (_power(self._path) + self._first)
        np.clip(self._uncertainty, _LEAST, _MOST, out=self._uncertainty)


class _PostFilter:
    """Lowers the frequencies in which echo is expected; 20 ms long windows, each 10 ms."""

    def __init__(self) -> None:
        self._window: Floats = np.sqrt(np.hanning(_SIZE + 1)[:-1]).astype(np.float32)
        self._last: Floats = np.zeros(BLOCK, np.float32)
        self._end: Floats = np.zeros(BLOCK, np.float32)
        self._gains: Floats = np.ones(_BINS, np.float32)

    def process(self, left: Floats, rest: Floats) -> Floats:
        """Return the next block, later by `LAG`."""
        spectrum = np.fft.rfft(np.concatenate((self._last, left)) * self._window)
        self._last = left
        share = _OVER * np.float32(0.5) * rest / (_power(spectrum) + _LEAST)
        wanted = np.maximum(1 - share, _FLOOR)
        speed = np.where(wanted < self._gains, _DOWN, _UP)
        self._gains += speed * (wanted - self._gains)
        sound = np.fft.irfft(spectrum * self._gains).astype(np.float32) * self._window
        output: Floats = sound[:BLOCK] + self._end
        self._end = sound[BLOCK:]
        return output


def _power(spectrum: NDArray[np.complexfloating]) -> Floats:
    power: Floats = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
    return power
