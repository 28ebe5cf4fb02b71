"""The format of the samples in a WAV file."""

from __future__ import annotations

from typing import NamedTuple

from messages import SAMPLE_RATE

__all__ = ["FLOAT", "PCM", "WavFormat"]

PCM, FLOAT = 1, 3
"""The two kinds of samples, as ``wFormatTag`` of ``fmt``."""


class WavFormat(NamedTuple):
    """The format of a WAV file's samples, and their position in the file."""

    kind: int
    channels: int
    rate: int
    bits: int
    data_start: int
    frames: int
    missing: int = 0
    """Frames that the header promises and the file does not have."""
    sample_bytes: int = 0
    """How many bytes each sample takes, if not the bits alone; 0: as the bits say."""

    @property
    def frame_bytes(self) -> int:
        return self.channels * (self.sample_bytes or self.bits // 8)

    @property
    def native(self) -> bool:
        """Whether the samples have the session's format, so that no conversion is needed."""
        return self[:4] == (PCM, 1, SAMPLE_RATE, 16)
