"""Input and output through messages: the component's side of devices in the program.

Both run in `pump`, usually on the actor's thread; they have no thread and no clock.
"""

from __future__ import annotations

import collections
import importlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.devices.base import Capture, Captured, Playback
from actors.devices.errors import DeviceError
from actors.devices.playout import Playout
from actors.devices.units import RATES, to_ns, to_samples
from messages import (
    SAMPLE_RATE,
    Message,
    ProgramCapture,
    ProgramFlush,
    ProgramFlushed,
    ProgramPlayed,
    ProgramPlayout,
    ProgramVolume,
)

if TYPE_CHECKING:
    from actors.devices.own.conversion import Conversion

__all__ = ["ProgramInput", "ProgramOutput", "ProgramRateError"]

_BURST_NS = 200_000_000
"""Captured audio is delivered at most this far ahead of real time."""
_QUIET_NS = 500_000_000
"""Time without audio after which silence is delivered: without it, the server would wait for more
of a turn that has ended."""
_MOST_LATE_NS = 5_000_000_000
"""Lag of the blocks after which they restart at now instead of catching up."""
_CATCH_UP = 200 * SAMPLE_RATE // 1000
"""Number of waiting samples, without those already due, above which the device catches up: it
delivers at twice the speed until it is at real time again."""
_MAX_WAITING = 30 * SAMPLE_RATE * 2
"""Bytes of captured audio that may wait; beyond this, the oldest are dropped."""
_MOST_PIECES = 3000
"""Pieces that may wait for the import of what converts them, 30 s of 10 ms; then as above."""
_CONVERSION = "actors.devices.own.conversion"
_AHEAD = 200 * SAMPLE_RATE // 1000
"""Audio for playback is sent to the program at most this far ahead of real time."""
_HAND_OVER = 100 * SAMPLE_RATE // 1000
"""Interval at which more of it is sent, in samples."""
_STALE_NS = 500_000_000
"""Time without a new `ProgramPlayed` after which the clock determines the position."""
_STEADY = 0.75
"""A device that moved on more slowly than this, in parts of real time, may be about to stop: its
position is not moved on until it reports the next one."""
_SHORTEST = 20 * SAMPLE_RATE // 1000
"""Shortest interval between two reports from which a speed can be computed, in samples."""


class ProgramRateError(DeviceError):
    """Raised for audio of the program with a sample rate that cannot be converted."""

    def __init__(self, hz: int) -> None:
        super().__init__(hz)
        self.hz = hz

    def __str__(self) -> str:
        return f"the program's audio has {self.hz} Hz; it must be between 8000 and 192000 Hz"


class ProgramInput(Capture):
    """Turns audio from the program, in pieces of any length and rate, into blocks in real time.

    Audio that is late, because the program or this process was held up, is delivered at twice the
    speed until it has caught up. While nothing comes, silence is delivered.

    It has more attributes than other classes: the pace of a device that it does not see has to be
    told from what comes.

    Args:
        block: Length of a block in samples.
        rate: The sample rate that is expected, in Hz. What converts it is imported now; if another
            one comes, on a thread, while the audio waits.
        goes_on: Whether an earlier process of the session may have received audio; if so, silence
            is delivered without waiting for the first piece.
    """

    name = "program"
    jump_ns = 2 * _QUIET_NS

    def __init__(self, block: int, *, rate: int = SAMPLE_RATE, goes_on: bool = False) -> None:
        self._block = block
        self._arrived: collections.deque[ProgramCapture | None] = collections.deque()
        """What is not converted yet; None: a pause."""
        self._waiting = bytearray()
        self._odd = b""
        self._rate = SAMPLE_RATE
        self._conversion: Conversion | None = None
        self._importing: threading.Thread | None = None
        if rate != SAMPLE_RATE:
            importlib.import_module(_CONVERSION)
        self._deliver: Callable[[Captured], None] = _ignore
        self._due_ns = 0
        """When a sound card would deliver the next block; 0: no audio has come yet."""
        self._first_ns = 0
        """When the program captured the first piece."""
        self._goes_on = goes_on
        self._position = 0
        self._behind = True
        """True: the device catches up. So it is at the start, with what was captured before it."""
        self._lost = False
        self._ended = False
        self._quiet = False
        """Whether to deliver the padded rest and then silence, instead of waiting for audio."""
        self._silent = False
        """Whether the end of the input was delivered."""

    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        self._deliver = deliver

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def feed(self, message: ProgramCapture) -> None:
        """Queue captured audio of the program; `pump` delivers it.

        Raises:
            ProgramRateError: If its sample rate cannot be converted.
        """
        if self._ended:
            return
        if message.sample_rate not in RATES:
            raise ProgramRateError(message.sample_rate)
        self._quiet = False
        self._first_ns = self._first_ns or message.captured_ns
        self._arrive(message)

    def _arrive(self, message: ProgramCapture | None) -> None:
        if len(self._arrived) >= _MOST_PIECES:
            self._arrived.popleft()
            self._lost = True
        self._arrived.append(message)
        self._convert()

    def _convert(self) -> None:
        """Convert what has arrived, unless what is needed for that is still imported."""
        while self._arrived:
            message = self._arrived[0]
            if message is None:
                self._waiting += self._conversion.flush() if self._conversion is not None else b""
                self._odd = b""
            elif message.sample_rate == self._rate or self._change_rate(message.sample_rate):
                self._append(message.pcm)
            else:
                return
            self._arrived.popleft()

    def _change_rate(self, rate: int) -> bool:
        """Prepare for audio with another rate; return False while the import is under way."""
        if rate == SAMPLE_RATE:
            self._conversion, self._rate = None, rate
            return True
        if self._importing is None and _CONVERSION not in sys.modules:
            self._importing = threading.Thread(
                target=importlib.import_module, args=(_CONVERSION,), name="import", daemon=True
            )
            self._importing.start()
        if self._importing is not None and self._importing.is_alive():
            return False
        module = importlib.import_module(_CONVERSION)  # raises what was raised on the thread
        self._conversion, self._rate = module.Conversion(rate, SAMPLE_RATE), rate
        return True

    def _append(self, pcm: bytes) -> None:
        pcm = self._odd + pcm if self._odd else pcm
        if len(pcm) % 2:
            pcm, self._odd = pcm[:-1], pcm[-1:]
        else:
            self._odd = b""
        self._waiting += pcm if self._conversion is None else self._conversion.process(pcm)
        if (extra := len(self._waiting) - _MAX_WAITING) > 0:
            del self._waiting[: extra + extra % 2]
            self._lost = True

    def end(self) -> None:
        """End the input: deliver what is left, then silence; later audio is ignored."""
        if self._ended:
            return
        self.pause()
        self._ended = True

    def pause(self) -> None:
        """Deliver what is left, then silence until more audio comes: the device has failed."""
        self._arrive(None)
        self._quiet = True

    def pump(self, now_ns: int) -> float | None:
        self._convert()
        block_ns = to_ns(self._block)
        if not self._due_ns:
            if not (self._arrived or self._waiting or self._quiet or self._goes_on):
                return None
            self._due_ns = self._first_ns or now_ns
        if self._due_ns < now_ns - _MOST_LATE_NS:
            self._due_ns = now_ns
        while True:
            wait_ns = self._wait_ns(now_ns)
            if wait_ns > 0:
                return wait_ns / 1e9
            end_ns = min(self._due_ns, now_ns)
            late = to_samples(max(0, now_ns - self._due_ns))
            most = self._block if self._behind else _CATCH_UP
            is_ahead = self._behind and self._due_ns > now_ns  # then each block waits for its time
            self._behind = is_ahead or len(self._waiting) // 2 - late > most
            # Half a block: twice the speed.
            self._due_ns += block_ns // 2 if self._behind else block_ns
            self._deliver(self._next(end_ns - block_ns, end_ns))

    def _wait_ns(self, now_ns: int) -> int:
        """Return how long to wait before the next block is delivered; 0 or less: deliver it."""
        if self._has_block():
            return self._due_ns - _BURST_NS - now_ns
        if not self._quiet and self._due_ns + _QUIET_NS <= now_ns:
            self._quiet = True
        return self._due_ns + (0 if self._quiet else _QUIET_NS) - now_ns

    def _has_block(self) -> bool:
        return len(self._waiting) >= (1 if self._quiet else 2 * self._block)

    def _next(self, first_ns: int, end_ns: int) -> Captured:
        size = 2 * self._block
        pcm = bytes(self._waiting[:size])
        del self._waiting[:size]
        used = -1
        if self._ended and not (self._arrived or self._waiting or self._silent):
            self._silent = True
            used = len(pcm) // 2
        self._position += len(pcm) // 2
        lost, self._lost = self._lost, False
        pcm += bytes(size - len(pcm))
        return Captured(pcm, first_ns, end_ns, self._position, used, lost)


class ProgramOutput(Playback):
    """Sends audio to the program ahead of real time, and follows its reports of what was played.

    Samples are counted at the program's rate from the start of the device, without audio that a
    flush took back. A report counts at most up to the audio sent. From a report on, the position
    moves on by the clock, as fast as it did between the last two reports but not faster than real
    time, while the program says that its device plays. If the reported position has not grown for
    half a second, or the program reports nothing, the clock alone determines the position. A flush
    asks the program for the position at which its device was cleared.

    It has more attributes than other classes: the position of a device that it does not see has to
    be told from its reports and the clock.

    Args:
        rate: The sample rate that the program wants, in Hz.
        scales: Whether the program's device applies the volume itself.

    Raises:
        ProgramRateError: If this rate cannot be converted.
    """

    name = "program"
    clears = True

    def __init__(self, rate: int, *, scales: bool = False) -> None:
        self._rate = rate
        self.scales = scales
        if rate not in RATES:
            raise ProgramRateError(rate)
        self._conversion: Conversion | None = None
        if rate != SAMPLE_RATE:
            self._conversion = importlib.import_module(_CONVERSION).Conversion(SAMPLE_RATE, rate)
        self._playout: Playout | None = None
        self._given = 0
        """Samples of 24 kHz taken from the playout, without those that a flush took back."""
        self._sent = 0
        """The same as sent to the program, in samples of its rate."""
        self._idle = True
        """Whether nothing was sent since the start or the last flush."""
        self._runs: collections.deque[tuple[int, int]] = collections.deque([(0, 0)], maxlen=8)
        """The last runs without interruption: first sample, and the time at which it was due."""
        self._reported = 0
        """Samples of 24 kHz that were played for certain: reported, or sent before this run."""
        self._reported_ns = 0
        """Time of the last report in this run; 0: there is none."""
        self._grown_ns = 0
        """When the reported position last grew, or the device played according to the program."""
        self._speed = 0.0
        """How fast the position moves on since the last report: 1.0 is real time."""
        self._behind_ns = 0
        """When the program last reported that its device is behind; 0: it is not."""
        self._settled = 0
        """The highest position of which `heard_until` has said that it was heard."""
        self._cleared = 0
        """The position at the last flush; the device is never before it."""
        self._cleared_ns = 0
        """When the device was cleared last; reports of before are about audio that is gone."""
        self._awaited = 0
        """Number of the `ProgramFlush` whose answer is awaited; 0: none is."""
        self._exact: int | None = None
        """The position at which the device was cleared, until `flush`; None: unknown."""
        self._told = False
        """Whether `clear` has told the program what `flush` tells it otherwise."""

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        if self._playout is None or self._told:
            return [], None
        messages: list[Message] = []
        while True:
            dry = self._idle or self._clock(now_ns) >= self._given
            at_ns = now_ns if dry else self._due_ns(self._given)
            # The lead counts from the clock, as audio must go on even if the reports stop.
            room = _AHEAD if dry else self._clock(now_ns) + _AHEAD - self._given
            if room <= 0 or now_ns - self._behind_ns < _STALE_NS:
                return messages, _HAND_OVER / SAMPLE_RATE
            pcm = self._playout.take(room, at_ns)
            if not pcm:
                return messages, None
            if dry:
                self._begin_run(now_ns)
            messages.append(self._handed_over(pcm))

    def heard_until(self, now_ns: int) -> int:
        heard = self._heard(now_ns)
        self._settled = max(self._settled, heard)
        return self._due_ns(heard)

    def clear(self, now_ns: int) -> list[Message]:
        self._told = True
        if self._idle:  # its device has nothing; where it had stopped is known
            return [ProgramFlush()]
        self._awaited = now_ns  # no process has used this number before
        return [ProgramFlush(now_ns)]

    @property
    def clearing(self) -> bool:
        return bool(self._awaited)

    @property
    def overheard(self) -> int:
        return max(0, self._settled - self._exact) if self._exact is not None else 0

    def flushed(self, message: ProgramFlushed) -> bool:
        """Apply the answer to a flush; return False if it is the answer to another one."""
        if not self._awaited or message.number != self._awaited:
            return False
        self._awaited, self._cleared_ns = 0, message.at_ns
        if message.played_samples >= 0:
            self._exact = max(self._cleared, self._converted(message.played_samples))
        return True

    def flush(self, now_ns: int) -> list[Message]:
        self._given = self._cleared = self._reported = self._settled = self._heard(now_ns)
        self._cleared_ns = max(self._cleared_ns, now_ns if self._exact is None else 0)
        self._exact, self._awaited, self._reported_ns, self._idle = None, 0, 0, True
        self._sent = self._given * self._rate // SAMPLE_RATE
        if self._conversion is not None:
            self._conversion.flush()  # the rest is not heard
        self._behind_ns = 0
        while len(self._runs) > 1 and self._runs[-1][0] > self._given:
            self._runs.pop()  # none of this run was heard
        told, self._told = self._told, False
        return [] if told else [ProgramFlush()]

    def set_volume(self, volume: float) -> list[Message]:
        return [ProgramVolume(volume)] if self.scales else []

    def played(self, message: ProgramPlayed) -> None:
        """Apply a position report of the program."""
        if message.at_ns < self._cleared_ns or self._told:
            return
        reported = self._converted(message.played_samples)
        if reported > self._reported or message.playing or not self._reported_ns:
            self._speed = self._speed_to(reported, message)
            self._reported, self._reported_ns = reported, message.at_ns
            self._grown_ns = message.at_ns
        waiting = message.waiting_samples * SAMPLE_RATE // self._rate
        self._behind_ns = message.at_ns if waiting > _AHEAD else 0

    def _converted(self, samples: int) -> int:
        """Return a count of the program in samples of 24 kHz, at most what was sent."""
        if samples >= self._sent:
            return self._given  # all of it; the division below rounds down
        return min(self._given, samples * SAMPLE_RATE // self._rate)

    def _speed_to(self, reported: int, message: ProgramPlayed) -> float:
        if not message.playing:
            return 0.0
        before = (self._reported, self._reported_ns) if self._reported_ns else self._runs[-1]
        passed = to_samples(message.at_ns - before[1])
        if passed < _SHORTEST:
            return self._speed if self._reported_ns else 1.0
        speed = min(1.0, (reported - before[0]) / passed)
        return speed if speed >= _STEADY else 0.0

    def _begin_run(self, now_ns: int) -> None:
        self._runs.append((self._given, now_ns))
        self._idle = False
        late = self._is_reported(now_ns) and self._reported + self._moved(now_ns) < self._given
        if not late:  # else the device has not played the end of the last run yet, and goes on
            self._reported, self._reported_ns = self._given, 0

    def _handed_over(self, pcm: bytes) -> Message:
        self._given += len(pcm) // 2
        pcm = pcm if self._conversion is None else self._conversion.process(pcm)
        message = ProgramPlayout(pcm, self._sent)
        self._sent += len(pcm) // 2
        return message

    def _heard(self, now_ns: int) -> int:
        """Return the samples of 24 kHz that were played."""
        if self._exact is not None:
            return self._exact
        if self._is_reported(now_ns):
            moved = self._reported + self._moved(now_ns)
            return max(self._reported, min(moved, self._given - 1))
        return max(self._reported, self._clock(now_ns))

    def _is_reported(self, now_ns: int) -> bool:
        """Return whether the program's reports determine the position."""
        return bool(self._reported_ns) and now_ns - self._grown_ns < _STALE_NS

    def _moved(self, now_ns: int) -> int:
        """Return the samples that the position has moved on since the last report."""
        return int(to_samples(max(0, now_ns - self._reported_ns)) * self._speed)

    def _clock(self, now_ns: int) -> int:
        """Return the samples that a device without delay would have played."""
        first, first_ns = self._runs[-1]
        return min(self._given, first + to_samples(now_ns - first_ns))

    def _due_ns(self, sample: int) -> int:
        """Return the time at which a sample was due, from the run that it belongs to."""
        fitting = (run for run in reversed(self._runs) if run[0] <= sample)
        first, first_ns = next(fitting, self._runs[0])
        return first_ns + to_ns(sample - first)


def _ignore(_: Captured) -> None:
    pass
