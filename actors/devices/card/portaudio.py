"""Sound cards, through PyAudio and PortAudio.

The unusual choices here follow from measurements or from known faults of the two libraries:

- Streams use callbacks: stopping a blocking stream while another thread reads it crashes.
- A callback always returns the frames that were asked for: fewer would end the stream.
- Only differences of PortAudio's times are used: on Linux its clock is not the monotonic clock.
- Each opening makes a new PyAudio: PortAudio lists the devices only once.

ALSA, JACK and PortAudio write pages of text to standard error; the supervisor keeps it as debug
records, as it does for every component.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from actors.devices.base import Capture, Captured, Playback
from actors.devices.card.listing import DeviceId, Direction, Found, SoundDevice, choose
from actors.devices.card.probe import about_all
from actors.devices.card.reference import ReferenceWriter
from actors.devices.errors import (
    DeviceBusyError,
    DeviceLostError,
    DeviceOpenError,
    DeviceRateError,
    SoundLibraryError,
)
from actors.devices.playout import Playout
from actors.devices.units import to_ns
from messages import SAMPLE_RATE

if TYPE_CHECKING:
    from pyaudio import Stream

    from actors.devices.sound.convert import FromCard, ToCard

__all__ = [
    "PortAudioCapture",
    "PortAudioPlayback",
]

_CAPTURE_MS = 20
_PLAY_MS = 12
"""Length of an output buffer. Three buffers are filled ahead (two in PortAudio, one in PulseAudio),
and the callback comes once per buffer, so after a flush the speaker falls silent within 36-48 ms,
plus the 8 ms of the fade-out. With 20 ms it would be 60-80 ms; with 10 ms a stall of 20 ms would be
heard."""
_SWITCH_S = 0.0005
"""Interval after which another Python thread gives up the GIL when the callback waits for it."""
_LOST_NS = 350_000_000
"""Time without a callback after which a device is lost; the loss is noticed within 0.5 s."""
_BUSY_NS = 1_500_000_000
"""The same on an overloaded machine, whose sound server may be this late."""
_CHECK_S = 0.1
"""Interval of the checks for a lost device."""
_LOOKS = 3
"""Successive punctual checks without a new callback before a device can be lost. If the checks
themselves are late, the machine is too busy to decide."""
_FIRST_NS = 3_000_000_000
"""The same right after opening: Bluetooth takes time, and so does the start of a sound server."""
_ALIVE_NS = 40_000_000
"""Time after the last callback for which the device is assumed to play; audio that it holds for
later may be lost with it."""
_UNSETTLED = 3
"""The times of this many callbacks after the opening are not reliable."""
_INT16, _CONTINUE, _OVERFLOW, _UNDERFLOW = 8, 0, 2, 4  # portaudio.h
_BUSY, _BAD_RATE, _BAD_CHANNELS = -9985, -9997, -9998

_CallbackResult = tuple[bytes | None, int]


# -- PortAudio ------------------------------------------------------------------------------------


def _ways(native: int, channels: int) -> list[tuple[int, int]]:
    """Return the pairs of rate and channels to try when a card is opened, the best first."""
    ways = [(SAMPLE_RATE, 1)]
    for rate in (native, 48_000, 44_100):
        ways += [(rate, count) for count in sorted({1, min(channels, 2), channels})]
    return list(dict.fromkeys(ways))


class _Library:
    """An initialized PortAudio library."""

    def __init__(self, direction: Direction) -> None:
        try:
            import pyaudio
        except ImportError as error:
            reason = "PyAudio is not installed"
            if error.name != "pyaudio":
                reason = f"PyAudio does not load ({error})"
            raise SoundLibraryError(direction, reason) from None
        self.direction = direction
        self._pyaudio = pyaudio
        try:
            self._audio = pyaudio.PyAudio()
        except OSError as error:
            raise SoundLibraryError(direction, f"PortAudio does not start ({error})") from None

    def choose(self, wanted: str, known: DeviceId | None) -> Found:
        """Return the device that a setting names.

        Raises:
            NoSuchDeviceError: If no device fits.
        """
        devices = msgspec.convert(list(about_all(self._audio)), list[SoundDevice])
        return choose(devices, wanted, self.direction, known)

    def open(
        self, device: SoundDevice, callback: Callable[..., _CallbackResult]
    ) -> tuple[Stream, int, int]:
        """Open a stream of 24 kHz mono, or of the best format that the device supports.

        Returns:
            The stream, not started, its sample rate and its channels.

        Raises:
            DeviceOpenError: If the device opens in no format.
        """
        ways = _ways(device.rate, device.channels(self.direction))
        block_ms = _CAPTURE_MS if self.direction == "input" else _PLAY_MS
        where: dict[str, Any] = {
            self.direction: True,
            f"{self.direction}_device_index": device.index,
        }
        errors: list[Exception] = []
        for rate, channels in ways:
            try:
                stream = self._audio.open(
                    rate=rate,
                    channels=channels,
                    format=_INT16,
                    frames_per_buffer=rate * block_ms // 1000,
                    start=False,
                    stream_callback=callback,
                    **where,
                )
                return stream, rate, channels
            except (OSError, ValueError) as error:
                errors.append(error)
        raise self._why_not(device, errors, tuple(dict.fromkeys(rate for rate, _ in ways)))

    def _why_not(
        self, device: SoundDevice, errors: Sequence[Exception], rates: tuple[int, ...]
    ) -> DeviceOpenError:
        codes = {getattr(error, "errno", None) for error in errors}
        if _BUSY in codes:
            return DeviceBusyError(device.name, self.direction)
        if codes <= {_BAD_RATE, _BAD_CHANNELS}:
            return DeviceRateError(device.name, self.direction, rates)
        return DeviceOpenError(device.name, self.direction, _words(errors[0]))

    def close(self) -> None:
        self._audio.terminate()


def _is_busy() -> bool:
    """Return whether the machine is overloaded; False where there is no load average (Windows)."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _hurry() -> None:
    """Give the current thread, PortAudio's, real-time priority on Linux, if permitted."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(1))


class _Stream:
    """An open stream, and the watchdog that detects its loss."""

    def __init__(
        self,
        wanted: str,
        known: DeviceId | None,
        direction: Direction,
        callback: Callable[..., _CallbackResult],
    ) -> None:
        sys.setswitchinterval(_SWITCH_S)
        self._library = _Library(direction)
        self.error: Exception | None = None
        self.callbacks = 0
        self.last_ns = 0
        self._opener = threading.get_ident()
        try:
            self.found = self._library.choose(wanted, known)
            device = self.found.device
            self.name = device.name
            self._stream, self.rate, self.channels = self._library.open(device, callback)
        except BaseException:
            self._library.close()
            raise
        self._closed = False
        self._seen = -1
        self._looked_ns = 0
        self._looks = 0
        """Successive punctual checks that found no new callback."""

    @property
    def latency_s(self) -> float:
        return float(self._stream.get_output_latency())

    def start(self) -> None:
        self.last_ns = time.monotonic_ns()
        self._stream.start_stream()

    def note_callback(self, now_ns: int) -> None:
        self.last_ns = now_ns
        # Only PortAudio's own thread gets the priority, not the actor's, which opened the stream.
        if not self.callbacks and threading.get_ident() != self._opener:
            _hurry()
        self.callbacks += 1

    def check(self, now_ns: int) -> None:
        if self._closed:
            return
        if self.error is not None:  # raised by our callback
            raise self.error
        if not self._stream.is_active():
            raise DeviceLostError(self.name, "it has stopped (unplugged, or its server is gone)")
        silent_ns = now_ns - self.last_ns
        if self._is_still(now_ns) and silent_ns > self._limit_ns():
            raise DeviceLostError(self.name, f"nothing came from it for {silent_ns // 10**6} ms")

    def _is_still(self, now_ns: int) -> bool:
        """Return whether no callback came since the last check, and count punctual checks.

        A late check does not count: then this process may be the one that slept.
        """
        still = self._seen == self.callbacks
        in_time = now_ns - self._looked_ns <= 2 * _CHECK_S * 1e9
        self._looks = self._looks + 1 if still and in_time else 0
        self._seen, self._looked_ns = self.callbacks, now_ns
        return still

    def _limit_ns(self) -> int:
        """Return the permitted time without a callback; longer on a busy machine.

        If this process gets no time for its checks, the sound server gets none for its callbacks.
        """
        if self.callbacks <= _UNSETTLED or self._looks < _LOOKS:
            return _FIRST_NS
        return _BUSY_NS if _is_busy() else _LOST_NS

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._stream.stop_stream()
            with contextlib.suppress(OSError):
                self._stream.close()
            self._library.close()


class _OnCard:
    """The common part of input and output on a sound card."""

    check_s: ClassVar[float | None] = _CHECK_S
    card: ClassVar[bool] = True
    _stream: _Stream

    @property
    def rate(self) -> int:
        """Sample rate of the card in Hz; audio is converted from or to 24 kHz."""
        return self._stream.rate

    @property
    def channels(self) -> int:
        """Number of channels in which the card was opened."""
        return self._stream.channels

    def check(self, now_ns: int) -> None:
        self._stream.check(now_ns)

    def close(self) -> None:
        self._stream.close()


class PortAudioCapture(_OnCard, Capture):
    """A sound card as input.

    Args:
        wanted: ``default``, an index or a part of a name.
        block: Length of a block in samples, or a function of the device's name that returns it.
        known: The device that ``wanted`` named before.

    Raises:
        DeviceError: If the device is not there or does not open.
    """

    jump_ns = 100_000_000
    jump_loses = True

    def __init__(
        self, wanted: str, block: int | Callable[[str], int], known: DeviceId | None = None
    ) -> None:
        self._parts = bytearray()
        self._deliver: Callable[[Captured], None] = _ignore
        self._converter: FromCard | None = None
        self.overflows = 0
        """Number of overruns: the card had to discard audio."""
        self._reported_overflows = 0
        self._lost = False
        self._stream = _Stream(wanted, known, "input", self._callback)
        self.name, self.found = self._stream.name, self._stream.found
        try:
            self._block = block if isinstance(block, int) else block(self.name)
        except BaseException:
            self._stream.close()
            raise
        if (self._stream.rate, self._stream.channels) != (SAMPLE_RATE, 1):
            from actors.devices.sound.convert import FromCard

            self._converter = FromCard(self._stream.rate, self._stream.channels)

    def start(
        self, deliver: Callable[[Captured], None], failed: Callable[[Exception], None]
    ) -> None:
        self._deliver = deliver
        self._stream.start()

    def faltered(self) -> int:
        new = self.overflows - self._reported_overflows
        self._reported_overflows = self.overflows
        return new

    def _callback(
        self, data: bytes, frames: int, times: Mapping[str, float], status: int
    ) -> _CallbackResult:
        try:
            self._take(data, frames, times, status)
        except Exception as error:  # noqa: BLE001 - it would end the stream and be lost
            self._stream.error = error
        return None, _CONTINUE

    def _take(self, data: bytes, frames: int, times: Mapping[str, float], status: int) -> None:
        now, stream = time.monotonic_ns(), self._stream
        stream.note_callback(now)
        if status & _OVERFLOW:
            self.overflows += 1
            self._lost = True
        age_s = times["current_time"] - times["input_buffer_adc_time"]
        length_s = frames / stream.rate
        if stream.callbacks <= _UNSETTLED or not length_s <= age_s < 1.0:
            age_s = length_s  # not plausible: assume that the block has just ended
        end_ns = now - int((age_s - length_s) * 1e9)
        if self._converter is None:
            self._parts += data
        else:
            self._parts += self._converter.convert(data)
            if self._converter.cancelled:
                self.note_cancelled()
            end_ns -= self._converter.inside_ns  # the converter still holds the newest samples
        size = 2 * self._block
        while len(self._parts) >= size:
            pcm = bytes(self._parts[:size])
            del self._parts[:size]
            last_ns = end_ns - to_ns(len(self._parts) // 2)
            self._deliver(Captured(pcm, last_ns - to_ns(self._block), now, lost=self._lost))
            self._lost = False


class PortAudioPlayback(_OnCard, Playback):
    """A sound card as output. Its stream always runs; without audio it plays silence.

    Args:
        wanted: ``default``, an index or a part of a name.
        known: The device that ``wanted`` named before.
        directory: Where the reference ring is written, for the echo canceller; None: nowhere.

    Raises:
        DeviceError: If the device is not there or does not open.
    """

    loses = True
    prefill_ms = 40

    def __init__(
        self, wanted: str, known: DeviceId | None = None, directory: Path | None = None
    ) -> None:
        self._playout: Playout | None = None
        self._converter: ToCard | None = None
        self._last_dac_ns = 0
        self.underflows = 0
        """Number of underruns while audio was playing: the callback was too late."""
        self._reported_underflows = 0
        self._stream = _Stream(wanted, known, "output", self._callback)
        self.name, self.found = self._stream.name, self._stream.found
        self._latency_s = self._stream.latency_s
        self._reference: ReferenceWriter | None = None
        if directory is not None:
            with contextlib.suppress(OSError):  # a full disk: the echo is not cancelled
                self._reference = ReferenceWriter(directory, self.name)
        self._late = False
        """Whether the card has reported an underrun since the last block of the reference."""
        if (self._stream.rate, self._stream.channels) != (SAMPLE_RATE, 1):
            from actors.devices.sound.convert import ToCard

            self._converter = ToCard(self._stream.rate, self._stream.channels)

    def start(self, playout: Playout, failed: Callable[[Exception], None]) -> None:
        self._playout = playout
        self._stream.start()

    def heard_until(self, now_ns: int) -> int:
        return min(now_ns, self._stream.last_ns + _ALIVE_NS)

    def faltered(self) -> int:
        new = self.underflows - self._reported_underflows
        self._reported_underflows = self.underflows
        return new

    def _callback(
        self, _: bytes | None, frames: int, times: Mapping[str, float], status: int
    ) -> _CallbackResult:
        try:
            return self._give(frames, times, status), _CONTINUE
        except Exception as error:  # noqa: BLE001 - it would end the stream and be lost
            self._stream.error = error
            return bytes(2 * frames * self._stream.channels), _CONTINUE

    def _give(self, frames: int, times: Mapping[str, float], status: int) -> bytes:
        now, stream = time.monotonic_ns(), self._stream
        stream.note_callback(now)
        ahead_s = times["output_buffer_dac_time"] - times["current_time"]
        if stream.callbacks <= _UNSETTLED or not 0.0 <= ahead_s < 2.0:
            ahead_s = self._latency_s  # not plausible: use the latency that the stream reports
        dac_ns = self._last_dac_ns = max(self._last_dac_ns, now + int(ahead_s * 1e9))
        assert self._playout is not None
        self.underflows += bool(status & _UNDERFLOW) and self._playout.running
        self._late = self._late or bool(status & _UNDERFLOW)
        if self._converter is None:
            return self._pull(frames, dac_ns)
        return self._converter.pull(self._pull, frames, dac_ns)

    def _pull(self, samples: int, at_ns: int) -> bytes:
        """Take audio from the playout, and tell the echo canceller what is heard when."""
        assert self._playout is not None
        pcm = self._playout.pull(samples, at_ns)
        if self._reference is not None:
            self._reference.write(pcm, at_ns, late=self._late)
            self._late = False
        return pcm


def _ignore(_: Captured) -> None:
    pass
