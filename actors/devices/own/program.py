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
"""With more samples waiting than this, not counting those already due, they are delivered at twice
the speed, so that no delay remains."""
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
            behind = len(self._waiting) // 2 - late > _CATCH_UP
            self._due_ns += block_ns // 2 if behind else block_ns  # half a block: twice the speed
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
    flush took back. A report counts at most up to the audio sent. If the reported position has not
    grown for half a second, or the program reports nothing, the clock determines the position.

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
        self._runs: collections.deque[tuple[int, int]] = collections.deque([(0, 0)], maxlen=8)
        """The last runs without interruption: first sample, and the time at which it was due."""
        self._reported = 0
        """Samples of 24 kHz that the program reports as played."""
        self._reported_ns = 0
        """When that number last grew, or could start to grow; 0: the program reports nothing."""
        self._behind_ns = 0
        """When the program last reported that its device is behind; 0: it is not."""

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def pump(self, now_ns: int) -> tuple[list[Message], float | None]:
        if self._playout is None:
            return [], None
        messages: list[Message] = []
        while True:
            dry = self._clock(now_ns) >= self._given
            at_ns = now_ns if dry else self._due_ns(self._given)
            # The lead counts from the clock, as audio must go on even if the reports stop.
            room = _AHEAD if dry else self._clock(now_ns) + _AHEAD - self._given
            if room <= 0 or now_ns - self._behind_ns < _STALE_NS:
                return messages, _HAND_OVER / SAMPLE_RATE
            pcm = self._playout.take(room, at_ns)
            if not pcm:
                return messages, None
            if dry:
                self._runs.append((self._given, now_ns))
                self._reported_ns = now_ns if self._reported_ns else 0
            messages.append(self._handed_over(pcm))

    def heard_until(self, now_ns: int) -> int:
        return self._due_ns(self._heard(now_ns))

    def flush(self, now_ns: int) -> list[Message]:
        self._given = self._heard(now_ns)
        self._reported = min(self._reported, self._given)
        self._sent = self._given * self._rate // SAMPLE_RATE
        if self._conversion is not None:
            self._conversion.flush()  # the rest is not heard
        self._behind_ns = 0
        while len(self._runs) > 1 and self._runs[-1][0] > self._given:
            self._runs.pop()  # none of this run was heard
        return [ProgramFlush()]

    def set_volume(self, volume: float) -> list[Message]:
        return [ProgramVolume(volume)] if self.scales else []

    def played(self, message: ProgramPlayed) -> None:
        """Apply a position report of the program."""
        reported = message.played_samples * SAMPLE_RATE // self._rate
        if message.played_samples >= self._sent:
            reported = self._given  # all of it; the division above rounds down
        if reported > self._reported or message.playing or not self._reported_ns:
            self._reported, self._reported_ns = min(reported, self._given), message.at_ns
        waiting = message.waiting_samples * SAMPLE_RATE // self._rate
        self._behind_ns = message.at_ns if waiting > _AHEAD else 0

    def _handed_over(self, pcm: bytes) -> Message:
        self._given += len(pcm) // 2
        pcm = pcm if self._conversion is None else self._conversion.process(pcm)
        message = ProgramPlayout(pcm, self._sent)
        self._sent += len(pcm) // 2
        return message

    def _heard(self, now_ns: int) -> int:
        """Return the samples of 24 kHz that were played."""
        if self._reported_ns and now_ns - self._reported_ns < _STALE_NS:
            return self._reported
        return max(self._reported, self._clock(now_ns))

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
