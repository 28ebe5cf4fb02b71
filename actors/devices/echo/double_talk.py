"""Double talk: keeps the user's speech while the assistant speaks.

AEC3 suppresses most of what a user says over an echo. A linear canceller
(`actors.devices.echo.linear`) keeps it, but removes less of the echo. Both run. The output is that
of AEC3. While the residual of the linear canceller is much larger than that of an echo alone, the
user speaks, and the output is the linear one's. Where its residual is much smaller than AEC3's, the
output of AEC3 is attenuated.
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
"""The filter starts this long before the measured delay of the echo."""
_MOVED_MS = 25
"""A change of the delay by more than this resets the linear canceller."""
_REACH_MS = 600

_HEARD = 1e-5
"""Minimum power of a block that is taken into account: -50 dBFS."""
_USUAL = 3.0
"""Factor: a residual above this many times the median residual of an echo is the user's speech."""
_LEAST, _MOST = 1e-3, 0.1
"""Bounds of that threshold, as shares of the microphone's power. Above the upper bound, the linear
canceller does not cancel, and its output is not used."""
_USELESS = 0.5
"""With a larger median residual before the post filter (as a share of the microphone's power), the
filter has not found the echo path, and its output is not used."""
_COUNTED = 2000
"""Number of residuals that are kept: 20 s of audible blocks."""
_LEARNED = 500
"""Number of residuals from which the median is used: 5 s. Shortly after a reset the filter has not
converged, and its residual would be taken for the user's speech."""
_RELEARN = 10
"""Blocks between two updates of the median."""
_OVER_ENGINE = 3.0
"""Factor: the linear residual must exceed AEC3's by this much, in power, to count as speech."""
_TALKS = 10
"""Blocks with speech minus blocks without, from which the output is the linear canceller's."""
_MOST_TALK = 20

_OPEN = 0.37
"""Cross-fade: the share of the remaining difference that is covered in each block."""
_CLOSE = 0.3
"""Attenuation of AEC3's output: the same share, in each block."""
_LOWERED = 0.1
"""Smallest gain of AEC3's output (-20 dB)."""


class DoubleTalk:
    """Combines the outputs of the engine and of a linear canceller.

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
        """Reset: microphone and reference were shifted against each other."""
        self._linear: LinearCanceller | None = None
        self._lag_ms = 0
        """The delay of the echo that the linear canceller was made for."""
        self._last = (0.0, 0.0, 0.0)
        self._opened = 0.0
        self._gain = 1.0
        self.distrust()

    def distrust(self) -> None:
        """Discard the statistics of the residual."""
        self._left: collections.deque[float] = collections.deque(maxlen=_COUNTED)
        """Residuals of the last audible blocks, as shares of the microphone's power."""
        self._unfiltered: collections.deque[float] = collections.deque(maxlen=_COUNTED)
        """The same before the post filter."""
        self._since_look = 0
        self._is_useless = False
        """True: the linear canceller does not cancel, by its median residual."""
        self._usual: float | None = None
        """Threshold of the residual, as a share of the microphone's power; None: not known."""
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
        """Add the residual of a block, and update the threshold."""
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
        """Return the combined output of a block.

        Args:
            linear: The linear canceller's output.
            cleaned: The engine's.
            more: Ratio of their powers, linear to engine.
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
    """Delays a signal by a number of samples."""

    def __init__(self, samples: int) -> None:
        self._held: Floats = np.zeros(samples, np.float32)

    def add(self, sound: Floats) -> Floats:
        joined = np.concatenate((self._held, sound))
        self._held = joined[len(sound) :]
        return joined[: len(sound)]


def _power(sound: Floats) -> float:
    return float(sound @ sound) / len(sound)
