"""Double talk: more of the user while the assistant speaks.

Where somebody speaks over an echo, AEC3 takes most of him away with it. A linear canceller
(`actors.devices.echo.linear`) leaves him, but also more of the echo. So both run, and the output is
that of AEC3, except where the linear one leaves much more than it usually does of an echo, for a
while: that is the user. Where it leaves much less than AEC3, AEC3's is lowered.
"""

from __future__ import annotations

import collections

import numpy as np
from numpy.typing import NDArray

from actors.devices.echo.linear import BLOCK, LAG, LinearCanceller
from messages import SAMPLE_RATE

__all__ = ["DoubleTalk"]

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]

_FULL_SCALE = np.float32(32_768.0)
_TINY = 1e-10

_EARLY_MS = 30
"""By how much the echo may come earlier than was measured."""
_MOVED_MS = 25
"""By how much its delay may change, until the linear canceller has to begin anew."""
_REACH_MS = 600

_HEARD = 1e-5
"""Power of a block from which it counts: -50 dBFS."""
_USUAL = 3.0
"""The user leaves more than so many times what is left of an echo in the median."""
_LEAST, _MOST = 1e-3, 0.1
"""Bounds of that, as shares of the microphone's power. Where it would be more than the most, the
linear canceller does not cancel, and is not used."""
_USELESS = 0.5
"""Nor is it where its filter leaves more than that in the median: it knows no path."""
_COUNTED = 2000
"""Blocks whose rest is known: 20 s in which something was heard."""
_LEARNED = 500
"""Such blocks after which it is known what is usual: 5 s. Sooner, after the two streams were moved
against each other, the linear canceller still leaves what sounds like a user."""
_RELEARN = 10
"""Blocks between two looks at the median."""
_OVER_ENGINE = 3.0
"""How many times as much as AEC3 the linear canceller has to leave."""
_TALKS = 10
"""Blocks of talk, less those without, after which the user is believed to speak."""
_MOST_TALK = 20

_OPEN = 0.37
"""How fast the output changes from one to the other, per block."""
_CLOSE = 0.3
"""How fast AEC3's output is lowered, per block."""
_LOWERED = 0.1
"""How far at most."""


class DoubleTalk:
    """Makes one output of that of the engine and that of a linear canceller.

    Args:
        engine_lag: Samples by which the engine's output is later than its input.
    """

    def __init__(self, engine_lag: int) -> None:
        self.lag = max(engine_lag, LAG)
        """Samples by which the output is later than the input."""
        self._engine = _Delay(self.lag - engine_lag)
        self._microphone = _Delay(self.lag - LAG)
        self._reference: Floats = np.zeros(_REACH_MS * SAMPLE_RATE // 1000 + BLOCK, np.float32)
        self.forget()

    def forget(self) -> None:
        """Begin anew: the two streams were moved against each other."""
        self._linear: LinearCanceller | None = None
        self._lag_ms = 0
        """The delay of the echo that the linear canceller was made for."""
        self._last = (0.0, 0.0, 0.0)
        self._opened = 0.0
        self._gain = 1.0
        self.distrust()

    def distrust(self) -> None:
        """Forget how well the linear canceller cancels."""
        self._left: collections.deque[float] = collections.deque(maxlen=_COUNTED)
        """What it left of the last blocks in which something was heard, as shares."""
        self._unfiltered: collections.deque[float] = collections.deque(maxlen=_COUNTED)
        """The same without its post filter."""
        self._since_look = 0
        self._is_useless = False
        """Whether it was seen not to cancel."""
        self._usual: float | None = None
        """Share of the microphone's power from which it is the user's; None: it cannot be told."""
        self._talk = 0

    def process(
        self,
        microphone: Samples,
        reference: Samples,
        engine: Samples,
        lag_ms: int | None,
        *,
        plays: bool,
    ) -> Samples:
        """Return the next part of the output.

        Args:
            microphone: What was captured; a multiple of 10 ms.
            reference: What was played.
            engine: What the engine has left of it.
            lag_ms: How much later than the reference the echo comes; None: it is not known.
            plays: Whether the loudspeaker plays, or its echo may still come.
        """
        output = np.empty(len(microphone), np.float32)
        for at in range(0, len(microphone), BLOCK):
            part = slice(at, at + BLOCK)
            output[part] = self._block(
                microphone[part].astype(np.float32) / _FULL_SCALE,
                reference[part].astype(np.float32) / _FULL_SCALE,
                self._engine.add(engine[part].astype(np.float32) / _FULL_SCALE),
                lag_ms,
                plays=plays,
            )
        rounded: Samples = np.clip(np.rint(output * _FULL_SCALE), -32_768, 32_767).astype(np.int16)
        return rounded

    def _block(
        self, heard: Floats, reference: Floats, cleaned: Floats, lag_ms: int | None, *, plays: bool
    ) -> Floats:
        self._reference[:-BLOCK] = self._reference[BLOCK:]
        self._reference[-BLOCK:] = reference
        heard = self._microphone.add(heard)
        if lag_ms is not None and (self._linear is None or abs(lag_ms - self._lag_ms) > _MOVED_MS):
            self.forget()
            self._linear, self._lag_ms = LinearCanceller(), lag_ms
        if self._linear is None:
            return cleaned
        later = min(max(self._lag_ms - _EARLY_MS, 0), _REACH_MS) * SAMPLE_RATE // 1000
        end = len(self._reference) - later
        linear = self._linear.process(heard, self._reference[end - BLOCK : end])
        # Levels are those of 20 ms.
        now = (_power(heard), _power(linear), _power(cleaned))
        levels = [(a + b) / 2 + _TINY for a, b in zip(self._last, now, strict=True)]
        self._last = now
        if plays and levels[0] > _HEARD:
            self._learn(levels[1] / levels[0], self._linear.left / (now[0] + _TINY))
        self._listen(*levels, plays=plays)
        return self._mix(linear, cleaned, levels[1] / levels[2], plays=plays)

    def _learn(self, left: float, without_post_filter: float) -> None:
        """Learn what is usually left of an echo."""
        self._left.append(left)
        self._unfiltered.append(without_post_filter)
        self._since_look += 1
        if len(self._left) < _LEARNED or self._since_look < _RELEARN:
            return
        self._since_look = 0
        usual = max(_USUAL * float(np.median(self._left)), _LEAST)
        unfiltered = float(np.median(self._unfiltered))
        self._is_useless = usual >= _MOST or unfiltered >= _USELESS
        self._usual = None if self._is_useless else usual

    def _listen(self, heard: float, linear: float, cleaned: float, *, plays: bool) -> None:
        """Decide whether the user speaks."""
        talks = (
            plays
            and self._usual is not None
            and linear > max(_HEARD, self._usual * heard, _OVER_ENGINE * cleaned)
        )
        self._talk = min(self._talk + 1, _MOST_TALK) if talks else max(self._talk - 1, 0)

    def _mix(self, linear: Floats, cleaned: Floats, more: float, *, plays: bool) -> Floats:
        """Return the mixture of both.

        Args:
            linear: The linear canceller's output.
            cleaned: The engine's.
            more: The power of the one as a share of that of the other.
            plays: Whether there may be an echo.
        """
        opened, gain = self._opened, self._gain
        self._opened += _OPEN * ((1.0 if self._talk >= _TALKS else 0.0) - opened)
        lowers = plays and not self._is_useless
        wanted = min(max(2 * more**0.5, _LOWERED), 1.0) if lowers else 1.0
        self._gain = wanted if wanted > gain else gain + _CLOSE * (wanted - gain)
        if gain < 1.0 or self._gain < 1.0:
            cleaned = cleaned * np.linspace(gain, self._gain, BLOCK, dtype=np.float32)
        if opened < 0.01 and self._opened < 0.01:
            return cleaned
        share = np.linspace(opened, self._opened, BLOCK, dtype=np.float32)
        return share * linear + (1 - share) * cleaned


class _Delay:
    """Returns sound later by some samples."""

    def __init__(self, samples: int) -> None:
        self._held: Floats = np.zeros(samples, np.float32)

    def add(self, sound: Floats) -> Floats:
        joined = np.concatenate((self._held, sound))
        self._held = joined[len(sound) :]
        return joined[: len(sound)]


def _power(sound: Floats) -> float:
    return float(sound @ sound) / len(sound)
