"""The sounds of the world: distinguishable utterances, and coughs."""

from __future__ import annotations

import numpy as np

__all__ = ["cough", "spoken", "understood"]

_QUIETEST = 5000


def spoken(number: int, samples: int) -> bytes:
    """The sound of an utterance: its loudness is its number."""
    level = _QUIETEST + number
    wave = np.where(np.arange(samples) // 12 % 2, level, -level)
    return wave.astype("<i2").tobytes()


def cough(samples: int) -> bytes:
    """A noise that is as loud as speech, and no word."""
    wave = np.where(np.arange(samples) // 5 % 2, _QUIETEST, -_QUIETEST)
    return wave.astype("<i2").tobytes()


def understood(pcm: bytes) -> str:
    """Return the transcript of audio: the numbers of the utterances in it."""
    levels = np.abs(np.frombuffer(pcm, "<i2").astype(int))
    loud = levels[levels > _QUIETEST]
    return " ".join(f"ask {level - _QUIETEST}" for level in dict.fromkeys(loud.tolist()))
