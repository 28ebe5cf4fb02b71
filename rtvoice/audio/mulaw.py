"""G.711 mu-law, the coding of telephone lines: 8 bits a sample (ITU-T G.711)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["from_mulaw", "to_mulaw"]

_BIAS, _CLIP = 132, 32_635
"""ITU-T G.711, in 16 bits."""


def to_mulaw(pcm: bytes) -> bytes:
    """Convert 16-bit PCM to mu-law."""
    samples = np.frombuffer(pcm, "<i2").astype(np.int32)
    magnitudes = np.minimum(np.abs(samples), _CLIP) + _BIAS
    exponents = np.frexp(magnitudes)[1] - 8  # the place of the first one bit
    mantissas = (magnitudes >> (exponents + 3)) & 0x0F
    codes = np.where(samples < 0, 0x80, 0) | (exponents << 4) | mantissas
    return np.asarray(~codes & 0xFF, np.uint8).tobytes()


def from_mulaw(data: bytes) -> bytes:
    """Convert mu-law to 16-bit PCM."""
    return np.take(_decoded(), np.frombuffer(data, np.uint8)).tobytes()


@cache
def _decoded() -> np.ndarray[Any, Any]:
    codes = ~np.arange(256) & 0xFF
    magnitudes = (((codes & 0x0F) << 3) + _BIAS << ((codes >> 4) & 0x07)) - _BIAS
    return np.where(codes & 0x80, -magnitudes, magnitudes).astype("<i2")
