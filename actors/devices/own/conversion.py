"""Converts the sample rate of a program's audio.

It imports numpy, so import it only while a device opens, or on a thread: not in a handler.
"""

from __future__ import annotations

from actors.devices.sound.convert import to_floats, to_pcm
from actors.devices.sound.resample import Resampler

__all__ = ["Conversion"]


class Conversion:
    """Converts a stream of audio, int16 little-endian mono.

    Args:
        from_hz: Its sample rate, 8000..192000 Hz.
        to_hz: The wanted rate, 8000..192000 Hz.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = Resampler(from_hz, to_hz)

    def process(self, pcm: bytes) -> bytes:
        """Return what can be computed so far, with whole samples given."""
        return to_pcm(self._resampler.process(to_floats(pcm)))

    def flush(self) -> bytes:
        """Return the rest, as if silence followed, and reset for a new stream."""
        return to_pcm(self._resampler.flush())
