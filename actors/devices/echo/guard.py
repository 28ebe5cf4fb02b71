"""The guard: it lets the assistant listen while it speaks only as long as its echo is cancelled.

It looks at blocks of 20 ms in which something is heard while the loudspeaker plays. How much the
engine takes away of them (microphone minus output) separates the two cases, measured in 24 rooms:
24 to 49 dB in the median while it works, 1 to 12 dB while it does not. But a user who speaks over
the assistant, or with headphones, also makes it small. So, before it decides on little, it looks
whether the microphone hears the reference at all, and whether the output still does
(`actors.devices.echo.likeness`).
"""

from __future__ import annotations

import collections
import enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actors.devices.echo.likeness import RATE, Likeness, decimated, likeness

__all__ = ["FRAME", "Guard", "Verdict"]

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]

FRAME = 480
"""Samples of a block: 20 ms."""
_PER_S = 50
_PLAYS_DB, _FULL = -55.0, 32_768.0
_TAIL = 4 * _PER_S // 10
"""Blocks after the reference in which its echo may come: 400 ms, since the delay is not known."""
_HEARD_DB = 6.0
"""So far an echo stands out of the room's noise to be heard."""
_FLOORS, _FIVE, _ROOM_DB = 120, 5, -60.0
"""Tenths of a second whose quietest is the room; at first, its level is assumed."""
_OPEN_DB, _SHUT_DB, _SOME_DB = 15.0, 12.0, 13.0
_NEAR_FLOOR = 0.8
"""Share of the blocks that have to be as quiet as the room, where noise hides the rest."""
_OPEN, _OPEN_AGAIN = 4 * _PER_S // 10, 12 * _PER_S // 10
"""Heard blocks on which it opens: at first, and after it was shut."""
_LOUD_DB, _LOUD_OVER_DB, _LOUD = -50.0, 8.0, 0.25
"""Level, absolute and over the room, that counts as a voice (`actors.realtime.core.voice`); share
of the heard blocks that may have it in what is left, or an answer would interrupt itself."""
_UNHEARD = 3 * _PER_S // 2
"""Played blocks without echo after which there is none: headphones."""
_TALKED, _LEARNED = 4 * _PER_S, 8 * _PER_S
"""Heard blocks without any likeness to the reference after which there is no echo, only talk; heard
blocks after which the engine does not cancel here."""
_SHUT = _PER_S
"""Heard blocks on which it suspects."""
_LONG = 2 * _PER_S
_PATIENCE = 3 * _PER_S
"""Heard blocks for which the engine may adapt to a path that has changed."""
_LOOK, _TRY = _PER_S // 4, _PER_S // 10
"""Blocks between two looks whether it still cancels, and between two tries to open."""
_MEASURE = 5 * _PER_S
_THERE, _NOT_THERE = 15.0, 12.0
"""Clarity from which an echo is there, and below which it is not."""
_WINDOW, _BACK, _AFTER = 12 * RATE // 10, 2 * RATE, 2 * RATE // 10
"""Samples looked for; how much later than the reference, and how much sooner."""
_REACH_MS = 450
"""Delay behind the reference up to which the engine finds an echo."""


class Verdict(enum.Enum):
    """What the guard knows; the values are those of `messages.EchoState`."""

    value: Literal["learning", "cancelled", "failed"]
    LEARNING = "learning"
    """Not yet seen to cancel."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Seen not to cancel."""


class Guard:
    """Judges an engine by what goes in and what comes out. No clock: it counts blocks."""

    def __init__(self) -> None:
        self.verdict = Verdict.LEARNING
        self.erle_db = 0.0
        """How much the engine takes away, in the median of the last 1.5 s of heard echo."""
        self.lost = 0
        """How often the engine was seen to have lost the echo: made anew, it finds it sooner."""
        self.lag_ms: int | None = None
        """How much later than the reference the echo comes; None: none was found."""
        self._floors: collections.deque[float] = collections.deque(maxlen=_FLOORS)
        self._five: list[float] = []
        self._hold = 0
        self._taken: collections.deque[float] = collections.deque(maxlen=_PATIENCE)
        self._quiet: collections.deque[bool] = collections.deque(maxlen=_PATIENCE)
        self._loud: collections.deque[bool] = collections.deque(maxlen=_PATIENCE)
        self._levels: collections.deque[float] = collections.deque(maxlen=_PATIENCE)
        self._unheard = self._heard = 0
        """Blocks in which something was played and nothing was heard, in a row; heard blocks."""
        self._alike = False
        """Whether what was heard could be an echo of the reference."""
        self._suspected = 0
        """Heard blocks since the engine is suspected not to cancel an echo within its reach."""
        self._told_lost = False
        """Whether that was counted as lost."""
        self._look = self._tries = self._measure = 0
        self._echo_db: float | None = None
        """How loud the echo was when it was cancelled; None: it never was."""
        self._microphone = np.zeros(_WINDOW + _AFTER, np.float32)
        self._output = np.zeros(_WINDOW + _AFTER, np.float32)
        self._reference = np.zeros(_WINDOW + _BACK + _AFTER, np.float32)

    @property
    def plays(self) -> bool:
        """Whether something is played, or its echo may still come."""
        return self._hold > 0

    def relearn(self) -> None:
        """Forget that it cancels: the two streams were moved against each other."""
        if self.verdict is Verdict.CANCELLED:
            self.verdict = Verdict.LEARNING
        self._clear()

    def judge(self, microphone: Samples, reference: Samples, output: Samples) -> None:
        """Take the next 20 ms of all three."""
        self._keep(microphone, reference, output)
        heard_db, left_db = _db(microphone), _db(output)
        floor_db = self._room(heard_db)
        plays = _db(reference) > _PLAYS_DB
        self._hold = _TAIL if plays else self._hold - 1
        if self._hold <= 0:
            return
        self._look += 1
        self._tries += 1
        self._measure += 1
        if heard_db > floor_db + _HEARD_DB:
            self._unheard = 0
            self._heard += 1
            self._taken.append(heard_db - left_db)
            self._quiet.append(left_db < floor_db + _HEARD_DB)
            self._loud.append(left_db > max(_LOUD_DB, floor_db + _LOUD_OVER_DB))
            self._levels.append(heard_db)
            self._suspected += self._suspected > 0
        elif plays:
            self._unheard += 1
        if self.verdict is not Verdict.CANCELLED:
            if self._tries >= _TRY:
                self._tries = 0
                self._try()
        elif self._look >= _LOOK:
            self._watch()

    # -- deciding -----------------------------------------------------------------------------

    def _try(self) -> None:
        """Open if the echo is cancelled, or if there is none."""
        if self._unheard >= _UNHEARD:
            self._open()
            return
        needed = _OPEN if self.verdict is Verdict.LEARNING else _OPEN_AGAIN
        if len(self._taken) < needed:
            return
        quiet = self._is_quiet(needed)
        cancelled = quiet or float(np.median(list(self._taken)[-needed:])) >= _OPEN_DB
        loud = float(np.mean(list(self._loud)[-needed:])) > _LOUD
        opens = cancelled and not loud
        if not opens and self._look < _LOOK:
            return
        self._look = 0
        found = self._find(self._microphone)
        self._alike = self._alike or found.clarity >= _NOT_THERE
        if opens and self._is_within_reach(found):
            self._note(found)
            self._open()
        elif self.verdict is Verdict.LEARNING:
            # Noise may hide the likeness of a weak echo; then it hides what is left of it too.
            if quiet or (not self._alike and self._heard >= _TALKED):
                self._open()
            elif self._heard >= _LEARNED:
                self._shut()

    def _is_quiet(self, blocks: int) -> bool:
        """Return whether what is left of the last heard blocks is no louder than the room."""
        return float(np.mean(list(self._quiet)[-blocks:])) >= _NEAR_FLOOR

    def _watch(self) -> None:
        """Shut if the echo is no longer cancelled."""
        if len(self._taken) < _SHUT:
            return
        taken = list(self._taken)
        self.erle_db = float(np.median(taken[-3 * _PER_S // 2 :]))
        median_db = float(np.median(taken[-_SHUT:]))
        if median_db >= _OPEN_DB or self._is_quiet(_SHUT):
            self._suspected, self._told_lost = 0, False
        if median_db >= _SHUT_DB or self._is_quiet(_SHUT):
            if self._measure >= _MEASURE:
                self._look = 0
                self._note(self._find(self._microphone))
            return
        self._look = 0
        left = self._find(self._output)
        if left.clarity < _THERE:
            if self._is_echo_of_something_else():
                self._shut()
            return
        self._suspected = self._suspected or 1
        if self._is_within_reach(left) and self._suspected < _PATIENCE:
            # The path has changed, and the engine adapts; but it may take long for that.
            if not self._told_lost:
                self._told_lost = True
                self.lost += 1
            return
        self._shut()

    def _is_echo_of_something_else(self) -> bool:
        """Return whether what is heard is as loud as the echo was, but none of the reference."""
        if self._echo_db is None or len(self._taken) < _LONG:
            return False
        if np.percentile(list(self._taken)[-_LONG:], 85) >= _SOME_DB:
            return False
        if np.percentile(list(self._levels)[-_LONG:], 90) > self._echo_db + _HEARD_DB:
            return False  # the user is louder
        return self._find(self._microphone).clarity < _NOT_THERE

    def _open(self) -> None:
        if self._taken:
            self.erle_db = float(np.median(list(self._taken)[-_OPEN:]))
        self.verdict = Verdict.CANCELLED
        self._clear()

    def _shut(self) -> None:
        self.erle_db = float(np.median(list(self._taken)[-_SHUT:]))
        self.verdict = Verdict.FAILED
        self.lost += 1
        self._clear()

    def _clear(self) -> None:
        self._taken.clear()
        self._loud.clear()
        self._quiet.clear()
        self._levels.clear()
        self._unheard = self._heard = self._suspected = 0
        self._alike = self._told_lost = False

    # -- looking ------------------------------------------------------------------------------

    def _find(self, sound: Floats) -> Likeness:
        return likeness(sound[:_WINDOW], self._reference)

    def _lag_ms(self, found: Likeness) -> int:
        return (_BACK - found.at) * 1000 // RATE

    def _is_within_reach(self, found: Likeness) -> bool:
        return found.clarity >= _THERE and 0 <= self._lag_ms(found) <= _REACH_MS

    def _note(self, found: Likeness) -> None:
        if self._is_within_reach(found):
            self._measure = 0
            self.lag_ms = self._lag_ms(found)
            self._echo_db = float(np.percentile(list(self._levels), 90))

    def _room(self, heard_db: float) -> float:
        """Return the level of the room; while something plays, it can only fall."""
        known = len(self._floors) > 2
        floor_db = min(self._floors) if known else _ROOM_DB
        self._five.append(heard_db)
        if len(self._five) == _FIVE:
            level_db = sum(self._five) / _FIVE
            self._five = []
            if not known or not self.plays or level_db < floor_db:
                self._floors.append(level_db)
        return floor_db

    def _keep(self, microphone: Samples, reference: Samples, output: Samples) -> None:
        for kept, new in (
            (self._microphone, microphone),
            (self._reference, reference),
            (self._output, output),
        ):
            part = decimated(new)
            kept[: -len(part)] = kept[len(part) :]
            kept[-len(part) :] = part


def _db(samples: Samples) -> float:
    x = samples.astype(np.float32) / _FULL
    return 10.0 * float(np.log10(float(x @ x) / len(x) + 1e-10))
