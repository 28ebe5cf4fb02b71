"""Appending captured audio at the server: live, replayed, or as part of a push-to-talk turn."""

from __future__ import annotations

from actors.realtime import wire
from actors.realtime.core.context import Context, LinkPhase
from actors.realtime.core.duplex import Duplex
from actors.realtime.core.talking import Talking
from actors.realtime.core.timeline import SAMPLES_PER_MS
from messages import AudioLost, CapturedAudio, ReplayedAudio, ReplayEnded

__all__ = ["Hearing"]

_SHORTEST_MS = 100
"""Minimum loss of speech that is published as `AudioLost`."""


class Hearing:
    """Appends captured audio to the server's input buffer, silenced while `Duplex` requires it."""

    def __init__(self, context: Context, duplex: Duplex, talking: Talking) -> None:
        self._context = context
        self._duplex = duplex
        self._talking = talking

    def captured(self, block: CapturedAudio, now: int) -> None:
        """Append a block that was just captured."""
        context = self._context
        context.capture.heard(block)
        if context.phase is not LinkPhase.LIVE:
            return
        if not self._talking.is_on:
            self._append(context.capture.live(block, now))
        elif self._talking.is_busy and context.capture.replay_by is None:
            self._talking.take(block.pcm, block.first_sample, now)

    def replayed(self, block: ReplayedAudio, now: int) -> None:
        """Append a block that the microphone replays."""
        capture = self._context.capture
        self._report_missing(block)
        if not self._talking.is_on:
            self._append(capture.replayed(block, now))
        elif capture.is_replayed(block, now):
            self._talking.take(block.pcm, block.first_sample, now)

    def replay_ended(self, message: ReplayEnded, now: int) -> None:
        """Continue with live audio."""
        self._report_missing(message)
        if self._context.capture.ended(message) and self._talking.is_on:
            self._talking.take(b"", message.next_sample, now)

    def remembered(self, first_sample: int, last_sample: int) -> bytes:
        """Return the audio that the server heard between two samples; empty if it is forgotten."""
        return self._duplex.passed(
            self._context.capture.sound(first_sample, last_sample), first_sample
        )

    def _append(self, pcm: bytes | None) -> None:
        if pcm:
            context = self._context
            first_sample = context.capture.timeline.next_sample - len(pcm) // 2
            context.send(wire.Append(self._duplex.passed(pcm, first_sample)))

    def _report_missing(self, message: ReplayedAudio | ReplayEnded) -> None:
        ms = self._context.capture.missing(message) // SAMPLES_PER_MS
        if ms >= _SHORTEST_MS:
            why = "it is older than what the microphone remembers, so no server has heard it"
            self._context.publish(AudioLost("realtime", ms, why))
