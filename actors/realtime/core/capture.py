"""Captured audio on its way to the server: live, or replayed after a lost connection."""

from __future__ import annotations

import collections

from actors.realtime.core.timeline import Timeline
from messages import SAMPLE_RATE, CapturedAudio, ReplayedAudio, ReplayEnded

__all__ = ["CaptureFeed"]

MEMORY = 30 * SAMPLE_RATE
"""Samples of appended audio that are kept. Speech whose transcript has not come is sent to a new
session as audio, and transcripts can be late."""
MOMENT = SAMPLE_RATE // 2
"""Safety margin in samples: the microphone keeps `MEMORY` too, but continues to capture, and so
to forget, until the request for a replay reaches it."""
REPLAY_NS = 1_000_000_000
"""Maximum time between two blocks of a replay; after it, live audio is appended again."""


class CaptureFeed:
    """Selects the audio to append, so that each session gets every sample once and in order."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.replay_by: int | None = None
        """Deadline for the next block of the replay; None: none is awaited. Until the replay ends,
        live blocks are not appended: it contains them."""
        self.appended_ns = 0
        """When audio was last appended."""
        self.newest_sample = self.newest_ns = 0
        """The end of the newest captured block: its sample and its time."""
        self._request_id = 0
        """Id of the last request for a replay."""
        self._speech_from: int | None = None
        """The sample at which known speech begins that the replay should contain; None once the
        first block has come, or if there is none."""
        self._memory: collections.deque[tuple[int, bytes]] = collections.deque()
        self._remembered = 0

    def is_new(self, block: CapturedAudio) -> bool:
        """Return whether a captured block comes for the first time: most come twice."""
        return block.first_sample + (len(block.pcm) >> 1) > self.newest_sample

    def continues(self, block: CapturedAudio) -> bool:
        """Return whether a captured block follows what came before: nothing is missing.

        While a replay is awaited, it is missing.
        """
        return block.first_sample <= self.newest_sample and self.replay_by is None

    def heard(self, block: CapturedAudio) -> None:
        """Record the time and position of a captured block, whether it is appended or not."""
        self.newest_sample = block.first_sample + (len(block.pcm) >> 1)
        self.newest_ns = block.captured_ns

    def idle(self) -> None:
        """Begin a session that needs no audio yet."""
        self.timeline = Timeline()
        self.replay_by = None

    def reopen(self, request_id: int, now: int) -> None:
        """Wait for a replay of the microphone in the current session.

        Args:
            request_id: of the `ReplayCapture` that the caller publishes.
            now: the time.
        """
        self.replay_by = now + REPLAY_NS
        self._request_id = request_id

    def restart(
        self, from_sample: int, request_id: int, now: int, *, has_speech: bool = False
    ) -> None:
        """Begin a session that first hears a replay.

        Args:
            from_sample: where the replay begins.
            request_id: of the `ReplayCapture` that the caller publishes.
            now: the time.
            has_speech: whether the replay is known to contain speech; what is missing of it is
                then reported by `missing`.
        """
        self._speech_from = from_sample if has_speech else None
        self.timeline = Timeline(from_sample)
        self.reopen(request_id, now)

    def live(self, block: CapturedAudio, now: int) -> bytes | None:
        """Return the part of a captured block to append; None: nothing."""
        if self.replay_by is not None:
            return None
        return self.append(block.pcm, block.first_sample, now)

    def replayed(self, block: ReplayedAudio, now: int) -> bytes | None:
        """Return the part of a replayed block to append; None: nothing."""
        if not self.is_replayed(block, now):
            return None
        return self.append(block.pcm, block.first_sample, now)

    def is_replayed(self, block: ReplayedAudio, now: int) -> bool:
        """Return whether a block belongs to the last requested replay; move its deadline."""
        if block.request_id != self._request_id:
            return False
        if self.replay_by is not None:
            self.replay_by = now + REPLAY_NS
        return True

    def missing(self, block: ReplayedAudio | ReplayEnded) -> int:
        """Return how many samples of known speech are missing at the start of the replay.

        Args:
            block: a message of the replay; only the first one counts.
        """
        if block.request_id != self._request_id or self._speech_from is None:
            return 0
        at = block.next_sample if isinstance(block, ReplayEnded) else block.first_sample
        speech_from, self._speech_from = self._speech_from, None
        return max(0, at - speech_from)

    def ended(self, end: ReplayEnded) -> bool:
        """Continue with live audio. Return False if an earlier replay has ended."""
        if end.request_id != self._request_id or self.replay_by is None:
            return False
        self.replay_by = None
        return True

    def tick(self, now: int) -> bool:
        """Return whether the replay is overdue. Live audio is then appended again."""
        if self.replay_by is None or now < self.replay_by:
            return False
        self.replay_by = None
        return True

    def append(self, pcm: bytes, first_sample: int, now: int) -> bytes | None:
        """Record that audio is appended. Return the part that was not appended before."""
        known = self.timeline.next_sample - first_sample
        if known > 0:
            pcm, first_sample = pcm[2 * known :], first_sample + known
        if len(pcm) < 2:
            return None
        self.timeline.append(first_sample, len(pcm) >> 1)
        self.appended_ns = now
        self._remember(first_sample, pcm)
        return pcm

    @property
    def since(self) -> int:
        """The oldest sample that the microphone can surely replay if it is asked now."""
        return max(0, self.newest_sample - MEMORY + MOMENT)

    @property
    def oldest_sample(self) -> int:
        """The first sample that `sound` remembers."""
        return self._memory[0][0] if self._memory else self.timeline.next_sample

    def sound(self, first_sample: int, last_sample: int) -> bytes:
        """Return the audio appended between two samples; empty if it is no longer remembered."""
        parts = []
        if self._memory and self._memory[0][0] <= first_sample:
            for first, pcm in self._memory:
                begin, end = max(0, first_sample - first), last_sample - first
                parts.append(pcm[2 * begin : 2 * max(end, 0)])
        return b"".join(parts)

    def _remember(self, first_sample: int, pcm: bytes) -> None:
        memory = self._memory
        # A new session may append audio again that an earlier one had: keep it once.
        while memory and memory[-1][0] >= first_sample:
            self._remembered -= len(memory.pop()[1]) >> 1
        memory.append((first_sample, pcm))
        self._remembered += len(pcm) >> 1
        while self._remembered > MEMORY:
            self._remembered -= len(memory.popleft()[1]) >> 1
