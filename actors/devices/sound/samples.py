"""Converts the samples of WAV files to floats.

It imports numpy, so import it only when needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.devices.sound.wav_format import FLOAT, WavFormat

__all__ = ["floats"]

_LOUDEST = 8.0
"""Limit of float samples. Values over 1.0 can be valid until channels are mixed and clipped; beyond
this limit they are garbage."""


def floats(raw: bytes, form: WavFormat) -> NDArray[np.float32]:
    """Convert raw frames to float32 in the range of int16, shape ``(n_frames, channels)``."""
    raw = raw[: len(raw) // form.frame_bytes * form.frame_bytes]
    wide: NDArray[np.float32]
    if form.kind == FLOAT:
        floats = np.nan_to_num(np.frombuffer(raw, f"<f{form.bits // 8}"))
        wide = floats.clip(-_LOUDEST, _LOUDEST).astype(np.float32) * 32768.0
    elif form.bits == 8:
        wide = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) * 256.0
    elif form.bits == 24:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, form.sample_bytes or 3)
        padded = np.zeros((len(parts), 4), np.uint8)
        padded[:, 1:] = parts[:, :3]  # of four bytes, the last repeats the sign
        wide = padded.view("<i4").reshape(-1).astype(np.float32) / 65536.0
    else:
        scale = np.float32(2.0 ** (16 - form.bits))
        wide = np.frombuffer(raw, f"<i{form.bits // 8}").astype(np.float32) * scale
    return wide.reshape(-1, form.channels)
