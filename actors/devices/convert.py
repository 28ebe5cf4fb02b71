"""Between the int16 bytes of a session and the float32 arrays of numpy. Imported only at need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["downmixed", "to_floats", "to_pcm"]


def to_floats(pcm: bytes) -> NDArray[np.float32]:
    """Return int16 little-endian samples as float32 in the same range."""
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def to_pcm(samples: NDArray[np.float32]) -> bytes:
    """Return float32 samples in the range of int16 as int16 little-endian, clipped."""
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def downmixed(samples: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return the mean of interleaved channels."""
    return samples if channels == 1 else samples.reshape(-1, channels).mean(axis=1)
