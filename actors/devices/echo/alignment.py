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
"""Samples of the reference that are kept."""

_OFF = 30 * SAMPLE_RATE // 1000
"""Samples by which the stamps must differ from the reference to move it, if they do so for
`_OFF_BLOCKS`."""
_OFF_BLOCKS = 3
_OFF_AT_ONCE = 4 * SAMPLE_RATE // 1000
"""Samples by which they must differ to move it at once, where one of the streams has a gap."""
_STAMPS = 9
"""Stamps whose median counts."""
_FIRST_STAMPS = 3
"""Stamps whose median is trusted where they begin anew."""
_ALIVE_NS = 100_000_000
"""A writer that is silent for longer is dead: nobody waits for it."""

_LEAD_BLOCKS = 25
"""Blocks by which the lead is judged."""
_LATE_BLOCKS = 8
"""Blocks of these whose reference may come too late; if there are more, the lead is shortened."""
_SETTLING = 50
"""Blocks, the first ones, in which the lead is judged sooner: the guard is not open yet, and both
streams of a card still change by how much they are delivered ahead or late."""
_FIRST_LEAD_BLOCKS = 10
_FIRST_LATE_BLOCKS = 5
_MARGIN = 5 * SAMPLE_RATE // 1000
"""Samples by which the reference should be there before it is needed."""
_LONG_BLOCKS = 250
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
        """Number of the writer of the last block."""
        self._checks = 0
        """Checks to come in which a small offset counts at once, as one of the streams has a gap:
        two where the stamps begin anew, since the first three are not reliable."""
        self._off_blocks = 0
        """Successive blocks for which the stamps differed."""
        self._written_ns = 0
        """When the last block was found in the ring."""
        self._lead_ns = min(max(lead_ms * 1_000_000, _LEAST_LEAD_NS), _LEAD_NS)
        if not lead_ms:
            self._lead_ns = _LEAD_NS
        self._margins: collections.deque[int] = collections.deque(maxlen=_LONG_BLOCKS)
        """By how many samples the reference of the last blocks was there early; negative: late."""
        self.blocks = 0
        """Blocks returned while a loudspeaker was there."""
        self.late = 0
        """Those whose reference came too late."""
        self.moves = 0
        """How often the reference was moved."""

    @property
    def lead_ms(self) -> int:
        """By how much the reference is ahead."""
        return self._lead_ns // 1_000_000

    def is_ready(self, samples: int, now_ns: int, *, again: bool = False) -> bool:
        """Return whether the reference of the next block is there, or will not come.

        Args:
            samples: Length of the block.
            now_ns: The time.
            again: Whether this is a repeated call for the same block.
        """
        self._read(now_ns)
        if self._at is None or now_ns - self._written_ns > _ALIVE_NS:
            return True
        margin = self._end - self._at - samples
        if not again:
            self._margins.append(margin)
        return margin >= 0

    def take(self, first_ns: int, samples: int, now_ns: int, *, lost: bool) -> tuple[Samples, bool]:
        """Return the reference of a captured block, and whether it was moved.

        Args:
            first_ns: When the first sample of the block was captured.
            samples: Length of the block.
            now_ns: The time.
            lost: Whether audio is missing before the block.
        """
        self._read(now_ns)
        if not self._zero_ns:
            return np.zeros(samples, np.int16), False
        moved = self._adapt_lead() | self._move(first_ns, lost=lost)
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
                self._checks = 2
            self._zero_ns.append(block.heard_ns - to_ns(self._end))
            pcm = np.frombuffer(block.pcm, "<i2")
            at = self._end % _KEPT
            first = min(len(pcm), _KEPT - at)
            self._buffer[at : at + first] = pcm[:first]
            self._buffer[: len(pcm) - first] = pcm[first:]
            self._end += len(pcm)
            self._written_ns = now_ns

    def _move(self, first_ns: int, *, lost: bool) -> bool:
        """Follow the stamps if they differ. Return whether the reference was moved."""
        stamps = sorted(self._zero_ns)
        wanted = to_samples(first_ns + self._lead_ns - stamps[len(stamps) // 2])
        if self._at is None:
            self._at = wanted
            return False
        offset = abs(wanted - self._at)
        self._off_blocks = self._off_blocks + 1 if offset > _OFF else 0
        self._checks = max(self._checks, int(lost))
        enough = _FIRST_STAMPS if self._checks > 1 else _STAMPS
        checks = self._checks > 0 and len(stamps) >= enough
        self._checks -= checks
        if not (checks and offset > _OFF_AT_ONCE) and self._off_blocks < _OFF_BLOCKS:
            return False
        self._at, self._off_blocks = wanted, 0
        return True

    def _adapt_lead(self) -> bool:
        """Shorten the lead if the reference comes too late for it; later, lengthen the lead again.

        A reference with a hole in each block is worse than one that is moved.

        Returns:
            Whether the reference was moved while something was played.
        """
        settling = self.blocks < _SETTLING
        blocks = _FIRST_LEAD_BLOCKS if settling else _LEAD_BLOCKS
        may_be_late = _FIRST_LATE_BLOCKS if settling else _LATE_BLOCKS
        margins = sorted(list(self._margins)[-blocks:])
        if self._at is None or len(margins) < blocks:
            return False
        if margins[may_be_late] < 0:
            wanted_ns = self._lead_ns - to_ns(_MARGIN - margins[1])
        elif len(self._margins) == _LONG_BLOCKS and self._is_silent():
            wanted_ns = self._lead_ns + to_ns(max(min(self._margins) - _MARGIN, 0))
        else:
            return False
        wanted_ns = min(max(wanted_ns, _LEAST_LEAD_NS), _LEAD_NS)
        change = to_samples(wanted_ns - self._lead_ns)
        self._lead_ns = wanted_ns
        self._at += change
        self._margins.clear()
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
