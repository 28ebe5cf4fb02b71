"""Conversions between samples, nanoseconds and blocks, and the sample rates that are possible."""

from __future__ import annotations

from messages import PCM_BYTES_PER_MS, SAMPLE_RATE, Settings

__all__ = ["RATES", "block_samples", "to_ns", "to_samples"]

RATES = range(8_000, 192_001)
"""Sample rates that can be converted, in Hz."""
_NS_PER_S = 1_000_000_000
_BLOCK_MS = (10, 100)
"""Shortest and longest block."""
_DEFAULT_MS, _CANCELLING_MS, _ENGINE_MS = 40, 20, 10
"""Length of a block where none is set: usually, and where echo is cancelled, which takes 9 ms
itself; its engine works on multiples of 10 ms."""
_PACED_MS = 100
"""Length of a block of a file or of silence, where nobody waits for the end of it."""


def to_samples(ns: int) -> int:
    """Convert nanoseconds to samples of 24 kHz, rounded to the nearest."""
    return (ns * SAMPLE_RATE + _NS_PER_S // 2) // _NS_PER_S


def to_ns(samples: int) -> int:
    """Convert samples of 24 kHz to nanoseconds."""
    return samples * _NS_PER_S // SAMPLE_RATE


def block_samples(settings: Settings, *, cancels: bool = False, paced: bool = False) -> int:
    """Return the length of a captured block in samples, from ``settings.block_ms``.

    Args:
        settings: The settings of the session.
        cancels: Whether the echo in the block is cancelled.
        paced: Whether the device is a file or silence. Longer blocks save wake-ups there.
    """
    shortest, longest = _BLOCK_MS
    usual_ms = _PACED_MS if paced else _CANCELLING_MS if cancels else _DEFAULT_MS
    wanted_ms = settings.block_ms or usual_ms
    block_ms = min(max(wanted_ms, shortest), longest)
    if cancels:
        block_ms -= block_ms % _ENGINE_MS
    return block_ms * PCM_BYTES_PER_MS // 2
