"""Alignment: lays the blocks of the reference ring end to end, on the timeline of the microphone.

The engine needs two streams without gaps. What it gets of the reference is 40 ms ahead of its echo
on purpose: early by 10 to 250 ms is as good as exact, but late by 20 ms is not cancelled at all.
"""

from __future__ import annotations

import collections
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.devices.card.reference import Played
from actors.devices.units import to_ns, to_samples
from messages import SAMPLE_RATE

__all__ = ["Alignment", "Ring"]

Samples = NDArray[np.int16]

_LEAD_NS = 40_000_000
_LEAST_LEAD_NS = 10_000_000
_KEPT = 4 * SAMPLE_RATE
_OFF = 30 * SAMPLE_RATE // 1000
"""Offset of the stamps that moves the reference, if it lasts."""
_OFF_BLOCKS = 3
_OFF_AT_ONCE = 4 * SAMPLE_RATE // 1000
"""The same once something is known to be missing in one of the streams."""
_STAMPS, _SETTLED = 9, 3
"""Stamps whose median counts; so many are needed to trust it."""
_ALIVE_NS = 100_000_000
"""A writer that is silent for longer is dead: nobody waits for it."""
_LOOKS, _SHORT = 25, 8
"""Blocks by which the lead is judged; if it was too long for so many of them, it is shortened."""
_SETTLING, _FIRST_LOOKS, _FIRST_SHORT = 50, 10, 5
"""The same for the first blocks, before the guard opens: both streams of a card still change by how
much they are delivered ahead or late. Its first three stamps are not reliable."""
_SPARE = 5 * SAMPLE_RATE // 1000
"""Samples by which the reference should be there before it is needed."""
_LONG_LOOKS = 250
"""Blocks after which a shortened lead may be longer again."""
_SILENCE = SAMPLE_RATE // 2
"""Samples of silence in which the lead may be made longer without any harm."""


class Ring(Protocol):
    """The source of the blocks; see `actors.devices.card.reference.ReferenceReader`."""

    @property
    def device(self) -> str: ...
    def read(self) -> list[Played]: ...


class Alignment:
    """Returns for each captured block what the loudspeaker plays 40 ms after it.

    Positions are samples in the order of the ring. A stamp says when the sample at a position is
    heard; the median of the last stamps maps times to positions.

    Args:
        ring: The source of the blocks.
        lead_ms: The lead that an earlier process has found possible; 0: not known.
    """

    def __init__(self, ring: Ring, lead_ms: int = 0) -> None:
        self._ring = ring
        self._buffer = np.zeros(_KEPT, np.int16)
        self._end = 0
        """Position after the newest sample."""
        self._at: int | None = None
        """Position of the next sample to return; None: nothing was written yet."""
        self._zero_ns: collections.deque[int] = collections.deque(maxlen=_STAMPS)
        """The time at which position 0 is heard, by each of the last stamps."""
        self._run = -1
        self._doubts = 0
        """How often the next offset counts at once, as samples are missing in one of the streams:
        twice where the stamps begin anew, since the first ones are not reliable."""
        self._off = 0
        """Successive blocks that were off."""
        self._written_ns = 0
        """When the last block was found in the ring."""
        self._lead_ns = min(max(lead_ms * 1_000_000, _LEAST_LEAD_NS), _LEAD_NS)
        if not lead_ms:
            self._lead_ns = _LEAD_NS
        self._spare: collections.deque[int] = collections.deque(maxlen=_LONG_LOOKS)
        """By how many samples the reference of the last blocks was there early; negative: late."""
        self.blocks = self.late = self.moves = 0
        """Blocks returned while a loudspeaker was there; those whose reference came too late; how
        often the reference was moved."""

    @property
    def lead_ms(self) -> int:
        """By how much the reference is ahead."""
        return self._lead_ns // 1_000_000

    def is_ready(self, samples: int, now_ns: int, *, again: bool = False) -> bool:
        """Return whether the reference of the next block is there, or will not come.

        Args:
            samples: Length of the block.
            now_ns: The time.
            again: Whether it was asked before for this block.
        """
        self._read(now_ns)
        if self._at is None or now_ns - self._written_ns > _ALIVE_NS:
            return True
        spare = self._end - self._at - samples
        if not again:
            self._spare.append(spare)
        return spare >= 0

    def take(self, first_ns: int, samples: int, now_ns: int, *, lost: bool) -> tuple[Samples, bool]:
        """Return the reference of a captured block, and whether it was moved.

        Args:
            first_ns: When the first sample of the block was captured.
            samples: Length of the block.
            now_ns: The time.
            lost: Whether audio is missing before it.
        """
        self._read(now_ns)
        if not self._zero_ns:
            return np.zeros(samples, np.int16), False
        moved = self._judge_lead() | self._move(first_ns, lost=lost)
        self.moves += moved
        assert self._at is not None
        if now_ns - self._written_ns <= _ALIVE_NS:
            self.blocks += 1
            self.late += self._end < self._at + samples
        reference = self._samples(self._at, samples)
        self._at += samples
        return reference, moved

    def _read(self, now_ns: int) -> None:
        for block in self._ring.read():
            if block.run != self._run or block.late:
                self._run = block.run
                self._zero_ns.clear()
                self._doubts = 2
            self._zero_ns.append(block.heard_ns - to_ns(self._end))
            pcm = np.frombuffer(block.pcm, "<i2")
            at = self._end % _KEPT
            first = min(len(pcm), _KEPT - at)
            self._buffer[at : at + first] = pcm[:first]
            self._buffer[: len(pcm) - first] = pcm[first:]
            self._end += len(pcm)
            self._written_ns = now_ns

    def _move(self, first_ns: int, *, lost: bool) -> bool:
        """Follow the stamps if they are off. Return whether the reference was moved."""
        stamps = sorted(self._zero_ns)
        wanted = to_samples(first_ns + self._lead_ns - stamps[len(stamps) // 2])
        if self._at is None:
            self._at = wanted
            return False
        offset = abs(wanted - self._at)
        self._off = self._off + 1 if offset > _OFF else 0
        self._doubts = max(self._doubts, int(lost))
        enough = _SETTLED if self._doubts > 1 else _STAMPS
        counts = self._doubts > 0 and len(stamps) >= enough
        self._doubts -= counts
        if not (counts and offset > _OFF_AT_ONCE) and self._off < _OFF_BLOCKS:
            return False
        self._at, self._off = wanted, 0
        return True

    def _judge_lead(self) -> bool:
        """Lead by less if the loudspeaker is told too late what it plays, or by more again.

        A reference with a hole in each block is worse than one that is moved.

        Returns:
            Whether the reference was moved while something was played.
        """
        settling = self.blocks < _SETTLING
        looks, short = (_FIRST_LOOKS, _FIRST_SHORT) if settling else (_LOOKS, _SHORT)
        spare = sorted(list(self._spare)[-looks:])
        if self._at is None or len(spare) < looks:
            return False
        if spare[short] < 0:
            wanted_ns = self._lead_ns - to_ns(_SPARE - spare[1])
        elif len(self._spare) == _LONG_LOOKS and self._is_silent():
            wanted_ns = self._lead_ns + to_ns(max(min(self._spare) - _SPARE, 0))
        else:
            return False
        wanted_ns = min(max(wanted_ns, _LEAST_LEAD_NS), _LEAD_NS)
        change = to_samples(wanted_ns - self._lead_ns)
        self._lead_ns = wanted_ns
        self._at += change
        self._spare.clear()
        return change < 0

    def _is_silent(self) -> bool:
        assert self._at is not None
        return not self._samples(self._at - _SILENCE, _SILENCE).any()

    def _samples(self, first: int, samples: int) -> Samples:
        """Return samples by position; zeros where there are none, or none any more."""
        found = np.zeros(samples, np.int16)
        begin, end = max(first, self._end - _KEPT, 0), min(first + samples, self._end)
        if begin < end:
            places = np.arange(begin, end) % _KEPT
            found[begin - first : end - first] = self._buffer[places]
        return found
