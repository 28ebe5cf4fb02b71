"""Synthetic rooms: what is played, and what a microphone hears of it. All from seeds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RATE", "Floats", "Room", "Samples", "level_db", "pcm16", "talk"]

RATE = 24_000
Samples = NDArray[np.int16]
Floats = NDArray[np.floating[Any]]


def pcm16(sound: Floats) -> Samples:
    return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


def level_db(sound: Samples, begin_s: float, end_s: float) -> float:
    """Return how loud a part of a sound is, in dBFS."""
    part = sound[int(begin_s * RATE) : int(end_s * RATE)].astype(float) / 32768
    return 10 * float(np.log10(np.mean(part**2) + 1e-10))


def talk(seed: int, seconds: float, level_db: float = -25.0) -> Floats:
    """Return a sound with the spectrum and the rhythm of speech: syllables, and pauses."""
    rng = np.random.default_rng(seed)
    size = int(seconds * RATE)
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    shape = 1 / (1 + (frequencies / 500) ** 2) * (frequencies > 100)
    voice = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape, size)
    envelope = np.zeros(size)
    at = int(0.1 * RATE)
    while at < size:
        length = int(rng.uniform(0.08, 0.25) * RATE)
        part = np.hanning(length)[: size - at] * rng.uniform(0.3, 1.0)
        envelope[at : at + length] = part
        pause = rng.uniform(0.25, 0.5) if rng.random() < 0.12 else rng.uniform(0.0, 0.06)
        at += length + int(pause * RATE)
    sound: Floats = voice * envelope
    loud = sound[envelope > 0.2]
    return sound * 10 ** (level_db / 20) / np.sqrt(np.mean(loud**2))


class Room(NamedTuple):
    """An echo path with a decaying tail, and the noise of the room."""

    delay_ms: int = 80
    gain: float = 0.5
    noise_db: float = -65.0
    seed: int = 1

    def heard(self, played: Floats, near: Floats | None = None) -> Floats:
        rng = np.random.default_rng(self.seed)
        tail = rng.standard_normal(RATE // 10) * np.exp(-np.arange(RATE // 10) / (0.02 * RATE))
        tail[0] = 3.0
        path = np.concatenate((np.zeros(self.delay_ms * RATE // 1000), tail))
        size = 1 << (len(played) + len(path)).bit_length()
        echo = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(path, size), size)
        echo = echo[: len(played)] * self.gain / np.sqrt(np.sum(tail**2))
        noise = rng.standard_normal(len(played)) * 10 ** (self.noise_db / 20)
        return echo + noise + (0 if near is None else near)
