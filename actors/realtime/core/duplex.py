"""Half-duplex: while the assistant is audible, the server hears silence, and so no echo of it.

Where the microphone cancels the echo, the server hears what is left.
"""

from __future__ import annotations

from collections.abc import Iterator

from actors.devices.echo.choice import MISSING, is_headset
from actors.realtime.core.playback import PlaybackAccount
from actors.realtime.core.setup import Setup
from actors.realtime.core.state import Interval, Saved
from messages import SAMPLE_RATE, DeviceInUse, EchoState

__all__ = ["Duplex"]

_NS = 1_000_000_000
TAIL_NS = _NS // 4
"""How long the echo of a room lasts after playback has ended."""
STILL_NS = 1 * _NS
"""If the speaker reports no progress for this long, the assistant is not audible: playback is
paused, its audio is late, or there is no device."""
_KEPT_SAMPLES = 60 * SAMPLE_RATE
"""How far back intervals are kept: more than the 30 s that the microphone can replay."""
_NOTICE = (
    "The assistant would hear itself over the loudspeaker, so it does not listen while it speaks: "
    "Enter interrupts it (in a program: agent.interrupt()). With headphones, or devices that "
    'cancel echo, let it listen all the time: --full-duplex, or Agent(duplex="full").'
)
_NOT_CANCELLED = (
    "The echo of the loudspeaker is not cancelled ({reason}), so the assistant does not listen "
    "while it speaks: Enter interrupts it (in a program: agent.interrupt())."
)
_FOR_EVER = 1 << 62


class Duplex:
    """Records when the assistant was audible, and silences the audio that was captured then.

    What was captured while its echo was cancelled is not silenced. Positions are samples of the
    session timeline, by the clocks of the devices. So the result is the same whether a block
    arrives live, late, or again for another server session.
    """

    def __init__(
        self, setup: Setup, saved: Saved, playback: PlaybackAccount, epoch_ns: int
    ) -> None:
        self._setup = setup
        self._saved = saved
        self._playback = playback
        self._epoch_ns = epoch_ns
        self._moved_ns = 0
        """When the assistant was last known to be audible."""
        intervals = saved.audible
        if intervals and intervals[-1].end is None:
            self._moved_ns = epoch_ns + intervals[-1].first * _NS // SAMPLE_RATE

    def is_half(self) -> bool:
        """Return whether the server hears silence while the assistant is audible."""
        settings = self._setup.settings
        if settings.turn_detection is None:  # push-to-talk: the user decides when it listens
            return False
        if settings.duplex == "auto":
            return self._echoes() and self._echo_is() != "cancelled"
        return settings.duplex == "half"

    def _echo_is(self) -> str:
        return self._saved.echo.state if self._saved.echo is not None else "off"

    def _echoes(self) -> bool:
        echoes = self._saved.echoes
        return echoes.get("input", False) and echoes.get("output", False)

    def device(self, message: DeviceInUse, now: int) -> str:
        """Record which device is used. Headsets and files cause no echo.

        Returns:
            A notice to publish: once, when the conversation becomes half-duplex.
        """
        saved = self._saved
        echoes = message.card and not is_headset(message.name)
        saved.echoes = {**saved.echoes, message.direction: echoes}
        if message.direction == "output" and self._playback.queue():
            self.sounds(now)  # audio that waited for a device is played now
        if not self.is_half() or saved.notified_duplex or self._echo_is() == "learning":
            return ""
        saved.notified_duplex = True
        reason = saved.echo.reason if saved.echo is not None else ""
        if reason.startswith(MISSING):
            return f"{_NOTICE} Or let it cancel the echo: {reason.removeprefix(MISSING)}."
        return _NOTICE

    def echo(self, message: EchoState) -> str:
        """Record whether the echo is cancelled, and from which sample on.

        Returns:
            The notice to publish, once, when cancelling fails; else empty.
        """
        saved, intervals = self._saved, self._saved.cancelled
        saved.echo = message
        begun = bool(intervals) and intervals[-1].end is None
        if message.state == "cancelled" and not begun:
            first = message.from_sample
            kept = [old for old in intervals if (old.end or 0) > first - _KEPT_SAMPLES]
            saved.cancelled = [*kept, Interval(first)]
        elif message.state != "cancelled" and begun:
            intervals[-1].end = max(message.from_sample, intervals[-1].first)
        if message.state != "failed" or saved.notified_echo or not self.is_half():
            return ""
        saved.notified_echo = True
        return _NOT_CANCELLED.format(reason=message.reason)

    def sounds(self, now: int) -> bool:
        """Record that the assistant is audible, or is about to be.

        Returns:
            Whether the assistant was silent before.
        """
        self._moved_ns = now
        intervals = self._saved.audible
        if intervals and intervals[-1].end is None:
            return False
        first = self._sample(now)
        kept = [old for old in intervals if (old.end or 0) > first - _KEPT_SAMPLES]
        self._saved.audible = [*kept, Interval(first)]
        return True

    def tick(self, now: int) -> None:
        """Record that the assistant is no longer audible, if playback has ended."""
        until = self.deadline()
        playback = self._playback
        silent = not playback.queue() and playback.flush_by is None
        if until is not None and (silent or now >= until):
            self._saved.audible[-1].end = self._sample(now + TAIL_NS)

    def deadline(self) -> int | None:
        """Return when the assistant counts as silent without news; None: it is silent."""
        intervals = self._saved.audible
        if not intervals or intervals[-1].end is not None:
            return None
        return self._moved_ns + STILL_NS

    def passed(self, pcm: bytes, first_sample: int) -> bytes:
        """Return captured audio as the server hears it: silenced where the assistant is audible."""
        settings, audible = self._setup.settings, self._saved.audible
        if not audible or settings.turn_detection is None or settings.duplex == "full":
            return pcm
        heard: list[Interval] = []
        if settings.duplex == "auto":
            if not self._echoes():
                return pcm
            heard = self._saved.cancelled
        end_sample, quiet = first_sample + len(pcm) // 2, pcm
        for first, end in _without(audible, heard):
            first, end = max(first, first_sample), min(end, end_sample)  # noqa: PLW2901
            if first < end:
                begin, stop = 2 * (first - first_sample), 2 * (end - first_sample)
                quiet = quiet[:begin] + bytes(stop - begin) + quiet[stop:]
        return quiet

    def _sample(self, now: int) -> int:
        """Return the sample of the session timeline at a time."""
        return (now - self._epoch_ns) * SAMPLE_RATE // _NS


def _without(intervals: list[Interval], others: list[Interval]) -> Iterator[tuple[int, int]]:
    """Return the parts of intervals that are in no other, which are in order."""
    for interval in intervals:
        first, last = interval.first, _FOR_EVER if interval.end is None else interval.end
        for other in others:
            yield first, min(last, other.first)
            first = max(first, _FOR_EVER if other.end is None else other.end)
        yield first, last
