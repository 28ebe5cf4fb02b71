"""The fader: volume, and the ramps without which sound that begins or ends would click. No clock.

All of it works on 16-bit mono PCM, and without NumPy: at full volume there is nothing to do.
"""

from __future__ import annotations

import sys
from array import array

from messages import SAMPLE_RATE

__all__ = ["FADE", "Fader", "tail"]

FADE = 8 * SAMPLE_RATE // 1000
"""Samples of every ramp, so that nothing clicks: of the fade-out of a flush or a pause, from one
volume to another, down where audio ran out and up where it goes on. 8 ms."""


class Fader:
    """Makes what is played as loud as it should be.

    Args:
        volume: 0.0-1.0.
    """

    def __init__(self, volume: float) -> None:
        self._gain = self._target = volume
        self._step = 0.0
        self._edge, self._edge_left = 0, 0
        """The last sample that was played, if sound broke off there, and the rest of its ramp."""

    def set_volume(self, volume: float, *, sounding: bool) -> None:
        """Go to another volume, over a ramp where there is sound that would click."""
        self._target = volume
        if sounding:
            self._step = (volume - self._gain) / FADE
        else:
            self._gain = volume

    def fade_in(self) -> None:
        """Have the next sound begin with a ramp up."""
        self._gain, self._step = 0.0, self._target / FADE

    def silence(self) -> None:
        """Note that there is no sound now: no ramp goes on."""
        self._gain = self._target

    def scaled(self, pcm: bytes) -> bytes:
        """Return the next piece as it is to be played."""
        if self._gain == self._target:
            return _scaled(pcm, self._gain)
        left = max(1, round((self._target - self._gain) / self._step))
        count = min(left, len(pcm) // 2)
        ramp = _ramped(pcm[: 2 * count], self._gain, self._step)
        self._gain = self._target if count == left else self._gain + count * self._step
        return ramp + _scaled(pcm[2 * count :], self._gain)

    def faded_out(self, pcm: bytes) -> bytes:
        """Return the last piece before silence, at most a ramp long, as it is to be played."""
        return _ramped(pcm, self._gain, -self._gain / FADE)

    def note_edge(self, pcm: bytes, *, breaks_off: bool) -> None:
        """Note what was played last; whether sound breaks off there if nothing follows."""
        self._edge = _unpacked(pcm[-2:])[0] if breaks_off else 0
        self._edge_left = FADE

    def run_out(self, samples: int) -> bytes:
        """Return so much silence, at its beginning a ramp down from where the sound broke off."""
        count = min(self._edge_left, samples) if self._edge else 0
        left = self._edge_left = self._edge_left - count
        ramp = [round(self._edge * (left + i) / FADE) for i in reversed(range(count))]
        return _packed(ramp) + bytes(2 * (samples - count))


def tail(pcm: bytes) -> bytes:
    """Return what is still played, before volume, of sound that is cut off: a ramp down."""
    return _ramped(pcm[: 2 * FADE], 1.0, -1.0 / FADE)


def _scaled(pcm: bytes, gain: float) -> bytes:
    if gain == 1.0:
        return pcm
    if gain == 0.0:
        return bytes(len(pcm))
    whole = round(gain * 65_536)  # in whole numbers, in a quarter of the time
    return _packed([(sample * whole + 32_768) >> 16 for sample in _unpacked(pcm)])


def _ramped(pcm: bytes, gain: float, step: float) -> bytes:
    samples = _unpacked(pcm)
    return _packed([round(sample * (gain + step * i)) for i, sample in enumerate(samples, 1)])


def _unpacked(pcm: bytes) -> array[int]:
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _packed(values: list[int]) -> bytes:
    samples = array("h", values)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
