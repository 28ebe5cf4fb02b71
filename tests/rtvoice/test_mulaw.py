"""The coding of telephone lines."""

from __future__ import annotations

import numpy as np

from rtvoice.audio.mulaw import from_mulaw, to_mulaw


def test_mulaw_is_that_of_g711() -> None:
    codes = bytes(range(256))
    levels = np.frombuffer(from_mulaw(codes), "<i2").astype(int)
    samples = np.arange(-32_768, 32_768)
    pcm = samples.astype("<i2").tobytes()
    decoded = np.frombuffer(from_mulaw(to_mulaw(pcm)), "<i2").astype(int)
    back = to_mulaw(from_mulaw(codes))

    # ITU-T G.711, table 2b, times four: the ends, the middle, and where a segment begins.
    assert [levels[code] for code in (0x80, 0x8F, 0x90, 0xFF, 0x7F, 0x00)] == [
        32_124,
        16_764,
        15_996,
        0,
        0,
        -32_124,
    ]
    assert back == codes.replace(b"\x7f", b"\xff")  # there are two zeros
    error = np.abs(decoded - np.clip(samples, -32_635, 32_635))
    assert np.all(error <= np.maximum(np.abs(samples) / 16, 8))
