"""What the guard bases its verdict on: the level of the room, the last sound, the heard blocks.

No clock: all of it counts blocks of 20 ms.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.devices.echo.likeness import RATE, decimated, likeness

__all__ = ["BLOCKS_PER_S", "HEARD_DB", "HeardBlocks", "LastSound", "Match", "RoomLevel"]

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]

BLOCKS_PER_S = 50

HEARD_DB = 6.0
"""A block is heard if it is louder than the room by more than this."""
_VOICE_DB = -50.0
"""Least level that counts as a voice (`actors.realtime.core.voice`)."""
_VOICE_OVER_DB = 8.0
"""A voice is louder than the room by more than this."""

_TENTH = BLOCKS_PER_S // 10
_TENTHS = 120
"""Tenths of a second, the quietest of which is the level of the room."""
_KNOWN_TENTHS = 3
"""Tenths of a second after which the level of the room is known."""
_ASSUMED_DB = -60.0
"""Level of the room until it is known."""

_WINDOW = 12 * RATE // 10
"""Samples that are compared with the reference."""
_LATER = 2 * RATE
"""Samples by which they may be later than the reference."""
_SOONER = 2 * RATE // 10
"""Samples by which they may be sooner than the reference."""
_THERE = 15.0
"""Clarity from which a sound contains an echo of the reference."""
_NOT_THERE = 12.0
"""Clarity below which it contains none. In between, it is not known."""
_REACH_MS = 450
"""Delay behind the reference up to which the engine finds an echo."""

_KEPT = 3 * BLOCKS_PER_S
"""Heard blocks that are kept."""


class RoomLevel:
    """The level of the room without speech: that of the quietest of the last tenths of a second."""

    def __init__(self) -> None:
        self._tenths_db: collections.deque[float] = collections.deque(maxlen=_TENTHS)
        self._blocks_db: list[float] = []
        """Levels of the blocks of the current tenth of a second."""

    @property
    def db(self) -> float:
        """The level; assumed until it is known."""
        return min(self._tenths_db) if self._is_known() else _ASSUMED_DB

    def add(self, block_db: float, *, plays: bool) -> None:
        """Take the level of the next block; while something plays, the room's can only fall."""
        self._blocks_db.append(block_db)
        if len(self._blocks_db) < _TENTH:
            return
        tenth_db = sum(self._blocks_db) / _TENTH
        self._blocks_db.clear()
        if not self._is_known() or not plays or tenth_db < self.db:
            self._tenths_db.append(tenth_db)

    def _is_known(self) -> bool:
        return len(self._tenths_db) >= _KNOWN_TENTHS


class Match(NamedTuple):
    """The most probable echo of the reference in a sound."""

    clarity: float
    """How certain the match is; see `actors.devices.echo.likeness`."""
    lag_ms: int
    """Delay of the echo behind the reference; negative: the echo comes sooner."""

    @property
    def is_there(self) -> bool:
        """Whether the sound certainly contains an echo."""
        return self.clarity >= _THERE

    @property
    def is_absent(self) -> bool:
        """Whether the sound certainly contains no echo."""
        return self.clarity < _NOT_THERE

    @property
    def is_within_reach(self) -> bool:
        """Whether the sound certainly contains an echo, and the engine can find it."""
        return self.is_there and 0 <= self.lag_ms <= _REACH_MS


class LastSound:
    """The last 1.4 s of microphone and output, and the last 3.4 s of the reference, at 8 kHz."""

    def __init__(self) -> None:
        self._microphone = np.zeros(_WINDOW + _SOONER, np.float32)
        self._output = np.zeros(_WINDOW + _SOONER, np.float32)
        self._reference = np.zeros(_WINDOW + _LATER + _SOONER, np.float32)

    def add(self, microphone: Samples, reference: Samples, output: Samples) -> None:
        """Take the next block of all three, at 24 kHz."""
        for kept, new in (
            (self._microphone, microphone),
            (self._reference, reference),
            (self._output, output),
        ):
            part = decimated(new)
            kept[: -len(part)] = kept[len(part) :]
            kept[-len(part) :] = part

    def match_microphone(self) -> Match:
        """Look for an echo of the reference in what the microphone hears."""
        return self._match(self._microphone)

    def match_output(self) -> Match:
        """Look for an echo of the reference in what the engine leaves."""
        return self._match(self._output)

    def _match(self, sound: Floats) -> Match:
        found = likeness(sound[:_WINDOW], self._reference)
        return Match(found.clarity, (_LATER - found.at) * 1000 // RATE)


class _HeardBlock(NamedTuple):
    """A block in which something was heard while the loudspeaker played."""

    heard_db: float
    """Level of the microphone."""
    removed_db: float
    """How much the engine has taken away: microphone minus output."""
    is_quiet: bool
    """Whether the output is no louder than the room."""
    is_loud: bool
    """Whether the output is as loud as a voice."""


class HeardBlocks:
    """The blocks heard while the loudspeaker played, since the guard last began to judge anew."""

    def __init__(self) -> None:
        self._last: collections.deque[_HeardBlock] = collections.deque(maxlen=_KEPT)
        self.count = 0
        """Heard blocks; more than are kept."""
        self.unheard = 0
        """Successive blocks in which something was played and nothing was heard."""
        self.may_be_echo = False
        """Whether an echo of the reference was found, or could not be excluded."""
        self.suspect = 0
        """Heard blocks since the engine is suspected not to cancel an echo; 0: it is not."""
        self.counted_as_lost = False
        """Whether `Guard.lost` already counts this suspicion."""

    def add(self, heard_db: float, left_db: float, room_db: float) -> None:
        """Take a heard block: the levels of microphone, output and room."""
        is_quiet = left_db < room_db + HEARD_DB
        is_loud = left_db > max(_VOICE_DB, room_db + _VOICE_OVER_DB)
        self._last.append(_HeardBlock(heard_db, heard_db - left_db, is_quiet, is_loud))
        self.count += 1
        self.unheard = 0
        if self.suspect:
            self.suspect += 1

    def begin_suspicion(self) -> None:
        """Suspect that the engine does not cancel an echo, unless it is suspected already."""
        self.suspect = self.suspect or 1

    def end_suspicion(self) -> None:
        """Note that the engine cancels the echo."""
        self.suspect, self.counted_as_lost = 0, False

    def loudest_db(self, blocks: int = _KEPT) -> float:
        """Return the level of the loudest of the last blocks in the microphone: percentile 90."""
        return float(np.percentile([block.heard_db for block in self._newest(blocks)], 90))

    def removed_db(self, blocks: int) -> float:
        """Return how much the engine has taken away of the last blocks, in the median."""
        return float(np.median([block.removed_db for block in self._newest(blocks)]))

    def most_removed_db(self, blocks: int) -> float:
        """Return how much it has taken away of those it cancels best: percentile 85."""
        return float(np.percentile([block.removed_db for block in self._newest(blocks)], 85))

    def quiet_share(self, blocks: int) -> float:
        """Return the share of the last blocks whose output is no louder than the room."""
        return float(np.mean([block.is_quiet for block in self._newest(blocks)]))

    def loud_share(self, blocks: int) -> float:
        """Return the share of the last blocks whose output is as loud as a voice."""
        return float(np.mean([block.is_loud for block in self._newest(blocks)]))

    def _newest(self, blocks: int) -> list[_HeardBlock]:
        return list(self._last)[-blocks:]
