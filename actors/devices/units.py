"""Samples, nanoseconds and blocks: the units that devices count in."""

from __future__ import annotations

from messages import PCM_BYTES_PER_MS, SAMPLE_RATE, Settings

__all__ = ["block_samples", "to_ns", "to_samples"]

_NS_PER_S = 1_000_000_000
_BLOCK_MS = (10, 100)


def to_samples(ns: int) -> int:
    """Return how many samples fit into so much time, rounded."""
    return (ns * SAMPLE_RATE + _NS_PER_S // 2) // _NS_PER_S


def to_ns(samples: int) -> int:
    """Return how long so many samples last, in nanoseconds."""
    return samples * _NS_PER_S // SAMPLE_RATE


def block_samples(settings: Settings) -> int:
    """Return the length of a captured block."""
    shortest, longest = _BLOCK_MS
    return min(max(settings.block_ms, shortest), longest) * PCM_BYTES_PER_MS // 2
