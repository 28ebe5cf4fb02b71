"""The fader: volume, and short ramps where sound starts or stops, which would click otherwise.

It has no clock. It works on 16-bit mono PCM without NumPy: importing NumPy would cost every session
memory and start-up time, although at full volume there is nothing to compute.
"""

from __future__ import annotations

import sys
from array import array

from messages import SAMPLE_RATE

__all__ = ["FADE", "Fader", "tail"]

FADE = 8 * SAMPLE_RATE // 1000
"""Length of every ramp in samples, 8 ms: the fade-out of a flush or a pause, a change of volume,
the fade-out at an underrun and the fade-in after it."""


class Fader:
    """Applies the volume and the ramps to audio on its way to the device.

    Args:
        volume: The volume to start with, 0.0-1.0.
    """

    def __init__(self, volume: float) -> None:
        self._gain = self._target = volume
        self._step = 0.0
        self._edge, self._edge_left = 0, 0
        """The last sample played (0 where an item ended), and the samples left of its ramp down."""

    def set_volume(self, volume: float, *, sounding: bool) -> None:
        """Change the volume; over a ramp if audio is playing, as a step would click."""
        self._target = volume
        if sounding:
            self._step = (volume - self._gain) / FADE
        else:
            self._gain = volume

    def fade_in(self) -> None:
        """Start the next audio with a ramp up."""
        self._gain, self._step = 0.0, self._target / FADE

    def silence(self) -> None:
        """End a ramp under way, because no audio is playing now."""
        self._gain = self._target

    def scaled(self, pcm: bytes) -> bytes:
        """Return the next piece with volume and ramp applied."""
        if self._gain == self._target:
            return _scaled(pcm, self._gain)
        left = max(1, round((self._target - self._gain) / self._step))
        count = min(left, len(pcm) // 2)
        ramp = _ramped(pcm[: 2 * count], self._gain, self._step)
        self._gain = self._target if count == left else self._gain + count * self._step
        return ramp + _scaled(pcm[2 * count :], self._gain)

    def faded_out(self, pcm: bytes) -> bytes:
        """Return the last piece before silence, at most `FADE` samples, with a ramp down."""
        return _ramped(pcm, self._gain, -self._gain / FADE)

    def note_edge(self, pcm: bytes, *, breaks_off: bool) -> None:
        """Record the last audio played.

        Args:
            pcm: The audio, not empty.
            breaks_off: Whether the sound would be cut off if nothing followed.
        """
        self._edge = _unpacked(pcm[-2:])[0] if breaks_off else 0
        self._edge_left = FADE

    def run_out(self, samples: int) -> bytes:
        """Return silence of this length; after sound that was cut off, it starts with a ramp down.

        The audio that would have been faded out is not there yet, so the ramp holds and lowers the
        last sample.
        """
        count = min(self._edge_left, samples) if self._edge else 0
        left = self._edge_left = self._edge_left - count
        ramp = [round(self._edge * (left + i) / FADE) for i in reversed(range(count))]
        return _packed(ramp) + bytes(2 * (samples - count))


def tail(pcm: bytes) -> bytes:
    """Return the start of discarded audio with a ramp down, before the volume is applied."""
    return _ramped(pcm[: 2 * FADE], 1.0, -1.0 / FADE)


def _scaled(pcm: bytes, gain: float) -> bytes:
    if gain == 1.0:
        return pcm
    if gain == 0.0:
        return bytes(len(pcm))
    whole = round(gain * 65_536)  # integer arithmetic takes a quarter of the time of floats
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
