"""Conversions between samples, nanoseconds and blocks, and the sample rates that are possible."""

from __future__ import annotations

from messages import PCM_BYTES_PER_MS, SAMPLE_RATE, Settings

__all__ = ["RATES", "block_samples", "to_ns", "to_samples"]

RATES = range(8_000, 192_001)
"""Sample rates that can be converted, in Hz."""
_NS_PER_S = 1_000_000_000
_BLOCK_MS = (10, 100)
"""Shortest and longest block."""


def to_samples(ns: int) -> int:
    """Convert nanoseconds to samples of 24 kHz, rounded to the nearest."""
    return (ns * SAMPLE_RATE + _NS_PER_S // 2) // _NS_PER_S


def to_ns(samples: int) -> int:
    """Convert samples of 24 kHz to nanoseconds."""
    return samples * _NS_PER_S // SAMPLE_RATE


def block_samples(settings: Settings) -> int:
    """Return the length of a captured block in samples, from ``settings.block_ms``."""
    shortest, longest = _BLOCK_MS
    return min(max(settings.block_ms, shortest), longest) * PCM_BYTES_PER_MS // 2
