"""Half-duplex: while the assistant is audible, the server hears silence, and so no echo of it."""

from __future__ import annotations

from actors.realtime.core.playback import PlaybackAccount
from actors.realtime.core.setup import Setup
from actors.realtime.core.state import Interval, Saved
from messages import SAMPLE_RATE, DeviceInUse

__all__ = ["NOTICE", "Duplex", "is_headset"]

_NS = 1_000_000_000
TAIL_NS = _NS // 4
"""How long the echo of a room lasts after playback has ended."""
STILL_NS = 1 * _NS
"""If the speaker reports no progress for this long, the assistant is not audible: playback is
paused, its audio is late, or there is no device."""
_KEPT_SAMPLES = 60 * SAMPLE_RATE
"""How far back intervals are kept: more than the 30 s that the microphone can replay."""
_HEADSETS = ("headset", "headphone", "earphone", "earbud", "airpods", "hands-free", "handsfree")
NOTICE = (
    "The assistant would hear itself over the loudspeaker, so it does not listen while it speaks: "
    "Enter interrupts it (in a program: agent.interrupt()). With headphones, or devices that "
    'cancel echo, let it listen all the time: --full-duplex, or Agent(duplex="full").'
)


def is_headset(device: str) -> bool:
    """Return whether a device is a headset, by its name: a microphone does not hear it play."""
    name = device.casefold()
    return any(kind in name for kind in _HEADSETS)


class Duplex:
    """Records when the assistant was audible, and silences the audio that was captured then.

    Positions are samples of the session timeline, by the clocks of the devices. So the result is
    the same whether a block arrives live, late, or again for another server session.
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
            echoes = self._saved.echoes
            return echoes.get("input", False) and echoes.get("output", False)
        return settings.duplex == "half"

    def device(self, message: DeviceInUse, now: int) -> bool:
        """Record which device is used. Headsets and files cause no echo.

        Returns:
            Whether to publish the `NOTICE`: once, when the conversation becomes half-duplex.
        """
        saved = self._saved
        echoes = message.card and not is_headset(message.name)
        saved.echoes = {**saved.echoes, message.direction: echoes}
        if message.direction == "output" and self._playback.queue():
            self.sounds(now)  # audio that waited for a device is played now
        if not self.is_half() or saved.notified_duplex:
            return False
        saved.notified_duplex = True
        return True

    def sounds(self, now: int) -> bool:
        """Record that the assistant is audible, or is about to be.

        Returns:
            Whether it was silent before.
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
        intervals = self._saved.audible
        if not intervals or not self.is_half():
            return pcm
        end_sample, quiet = first_sample + len(pcm) // 2, pcm
        for interval in intervals:
            first = max(interval.first, first_sample)
            end = min(end_sample if interval.end is None else interval.end, end_sample)
            if first < end:
                begin, stop = 2 * (first - first_sample), 2 * (end - first_sample)
                quiet = quiet[:begin] + bytes(stop - begin) + quiet[stop:]
        return quiet

    def _sample(self, now: int) -> int:
        """Return the sample of the session timeline at a time."""
        return (now - self._epoch_ns) * SAMPLE_RATE // _NS
