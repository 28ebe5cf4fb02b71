"""The guard: it lets the assistant listen while it speaks only as long as its echo is cancelled.

It looks at blocks of 20 ms in which something is heard while the loudspeaker plays. How much the
engine takes away of them (microphone minus output) separates the two cases, measured in 24 rooms:
24 to 49 dB in the median while it works, 1 to 12 dB while it does not. But it is small too while
the user speaks over the assistant, or wears headphones. So before the guard takes that for a
failure, it looks for an echo of the reference, in the microphone and in the output
(`actors.devices.echo.likeness`).
"""

from __future__ import annotations

import enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actors.devices.echo.observed import (
    BLOCKS_PER_S,
    HEARD_DB,
    HeardBlocks,
    LastSound,
    Match,
    RoomLevel,
)

__all__ = ["FRAME", "Guard", "Verdict"]

Samples = NDArray[np.int16]

FRAME = 480
"""Samples of a block: 20 ms."""
_FULL_SCALE = 32_768.0
_PLAYS_DB = -55.0
"""Level of the reference above which something is played."""
_TAIL = 4 * BLOCKS_PER_S // 10
"""Blocks after the reference in which its echo may come: 400 ms, since the delay is not known."""

_OPEN_DB = 15.0
"""Median of what the engine takes away, from which it cancels the echo: the guard opens."""
_SHUT_DB = 12.0
"""The same median, below which the engine is doubted: the guard looks for an echo in the output."""
_SOME_DB = 13.0
"""What it takes away of the best blocks, from which it still cancels: the user speaks over it."""
_QUIET_SHARE = 0.8
"""Share of the blocks that have to be as quiet as the room, where noise hides the rest."""
_LOUD_SHARE = 0.25
"""Most of the heard blocks that may sound like a voice in what is left, or an answer would
interrupt itself."""

_OPEN = 4 * BLOCKS_PER_S // 10
"""Heard blocks on which it opens at first."""
_OPEN_ANEW = 5 * BLOCKS_PER_S // 10
"""The same in a new process, which begins in the middle of an answer: the engine leaves more of the
echo at first. With 0.4 s, one answer in ten interrupted itself; with 0.7 s, it listens again only
after more than a second."""
_OPEN_AGAIN = 12 * BLOCKS_PER_S // 10
"""Heard blocks on which it opens after it was shut."""
_UNHEARD = 3 * BLOCKS_PER_S // 2
"""Played blocks without echo after which there is none: headphones."""
_TALKED = 4 * BLOCKS_PER_S
"""Heard blocks without any likeness to the reference after which there is no echo, only talk."""
_LEARNED = 8 * BLOCKS_PER_S
"""Heard blocks after which the engine does not cancel here."""
_SHUT = BLOCKS_PER_S
"""Heard blocks on which it suspects."""
_LONG = 2 * BLOCKS_PER_S
"""Heard blocks on which it shuts if they are an echo of something else than the reference."""
_PATIENCE = 3 * BLOCKS_PER_S
"""Heard blocks for which the engine may adapt to a path that has changed."""
_REPORTED = 3 * BLOCKS_PER_S // 2
"""Heard blocks of which `Guard.erle_db` is the median."""

_LOOK = BLOCKS_PER_S // 4
"""Blocks between two looks for an echo, which take 2 ms of CPU each."""
_TRY = BLOCKS_PER_S // 10
"""Blocks between two tries to open."""
_MEASURE = 5 * BLOCKS_PER_S
"""Blocks between two measurements of the lag, while the echo is cancelled."""


class Verdict(enum.Enum):
    """What the guard knows; the values are those of `messages.EchoState`."""

    value: Literal["learning", "cancelled", "failed"]
    LEARNING = "learning"
    """Not yet seen to cancel."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Seen not to cancel."""


class Guard:
    """Judges an engine by what goes in and what comes out. No clock: it counts blocks.

    Args:
        anew: Whether an earlier process has cancelled the echo of this session.
    """

    def __init__(self, *, anew: bool = False) -> None:
        self._needed = _OPEN_ANEW if anew else _OPEN
        self.verdict = Verdict.LEARNING
        self.erle_db = 0.0
        """How much the engine takes away, in the median of the last 1.5 s of heard echo."""
        self.lost = 0
        """How often the engine was seen to have lost the echo: made anew, it finds it sooner."""
        self.lag_ms: int | None = None
        """How much later than the reference the echo comes; None: none was found."""
        self._room = RoomLevel()
        self._sound = LastSound()
        self._heard = HeardBlocks()
        self._tail = 0
        """Blocks in which the echo of what was played may still come; not positive: none."""
        self._since_look = self._since_try = self._since_measured = 0
        """Blocks since the last look, try and measurement, without those in which nothing plays."""
        self._echo_db: float | None = None
        """Level of the echo when it was last cancelled; None: it never was."""

    @property
    def plays(self) -> bool:
        """Whether the loudspeaker plays, or its echo may still come."""
        return self._tail > 0

    def relearn(self) -> None:
        """Forget that it cancels: the two streams were moved against each other."""
        if self.verdict is Verdict.CANCELLED:
            self.verdict = Verdict.LEARNING
        self._heard = HeardBlocks()

    def judge(self, microphone: Samples, reference: Samples, output: Samples) -> None:
        """Take the next 20 ms of all three."""
        self._sound.add(microphone, reference, output)
        heard_db, left_db, room_db = _db(microphone), _db(output), self._room.db
        self._room.add(heard_db, plays=self.plays)
        plays = _db(reference) > _PLAYS_DB
        self._tail = _TAIL if plays else self._tail - 1
        if not self.plays:
            return
        self._since_look += 1
        self._since_try += 1
        self._since_measured += 1
        if heard_db > room_db + HEARD_DB:
            self._heard.add(heard_db, left_db, room_db)
        elif plays:
            self._heard.unheard += 1
        if self.verdict is not Verdict.CANCELLED:
            if self._since_try >= _TRY:
                self._since_try = 0
                self._try()
        elif self._since_look >= _LOOK:
            self._watch()

    def _try(self) -> None:
        """Open if the echo is cancelled, or if there is none."""
        heard = self._heard
        if heard.unheard >= _UNHEARD:
            self._open()
            return
        needed = self._needed if self.verdict is Verdict.LEARNING else _OPEN_AGAIN
        if heard.count < needed:
            return
        is_quiet = heard.quiet_share(needed) >= _QUIET_SHARE
        is_cancelled = is_quiet or heard.removed_db(needed) >= _OPEN_DB
        opens = is_cancelled and heard.loud_share(needed) <= _LOUD_SHARE
        if not opens and self._since_look < _LOOK:
            return
        self._since_look = 0
        found = self._sound.match_microphone()
        heard.may_be_echo = heard.may_be_echo or not found.is_absent
        if opens and found.is_within_reach:
            self._note(found)
            self._open()
        elif self.verdict is Verdict.LEARNING:
            # Noise may hide the likeness of a weak echo; then it hides what is left of it too.
            if is_quiet or (not heard.may_be_echo and heard.count >= _TALKED):
                self._open()
            elif heard.count >= _LEARNED:
                self._shut()

    def _watch(self) -> None:
        """Shut if the echo is no longer cancelled."""
        heard = self._heard
        if heard.count < _SHUT:
            return
        self.erle_db = heard.removed_db(_REPORTED)
        removed_db = heard.removed_db(_SHUT)
        is_quiet = heard.quiet_share(_SHUT) >= _QUIET_SHARE
        if removed_db >= _OPEN_DB or is_quiet:
            heard.end_suspicion()
        if removed_db >= _SHUT_DB or is_quiet:
            if self._since_measured >= _MEASURE:
                self._since_look = 0
                self._note(self._sound.match_microphone())
            return
        self._since_look = 0
        left = self._sound.match_output()
        if not left.is_there:
            if self._is_echo_of_something_else():
                self._shut()
            return
        heard.begin_suspicion()
        if left.is_within_reach and heard.suspect < _PATIENCE:
            # The path has changed, and the engine adapts; but it may take long for that.
            if not heard.counted_as_lost:
                heard.counted_as_lost = True
                self.lost += 1
            return
        self._shut()

    def _is_echo_of_something_else(self) -> bool:
        """Return whether what is heard is as loud as the echo was, but none of the reference."""
        heard = self._heard
        if self._echo_db is None or heard.count < _LONG:
            return False
        if heard.most_removed_db(_LONG) >= _SOME_DB:
            return False
        if heard.loudest_db(_LONG) > self._echo_db + HEARD_DB:
            return False  # the user is louder
        return self._sound.match_microphone().is_absent

    def _open(self) -> None:
        if self._heard.count:
            self.erle_db = self._heard.removed_db(_OPEN)
        self.verdict = Verdict.CANCELLED
        self._heard = HeardBlocks()

    def _shut(self) -> None:
        self.erle_db = self._heard.removed_db(_SHUT)
        self.verdict = Verdict.FAILED
        self.lost += 1
        self._heard = HeardBlocks()

    def _note(self, found: Match) -> None:
        """Record how late and how loud the echo is."""
        if found.is_within_reach:
            self._since_measured = 0
            self.lag_ms = found.lag_ms
            self._echo_db = self._heard.loudest_db()


def _db(samples: Samples) -> float:
    x = samples.astype(np.float32) / _FULL_SCALE
    return 10.0 * float(np.log10(float(x @ x) / len(x) + 1e-10))
