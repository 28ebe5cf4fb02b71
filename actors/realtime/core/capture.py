"""The user's sound on its way to the server: live, or again after a connection was lost."""

from __future__ import annotations

import collections

from actors.realtime.core.timeline import Timeline
from messages import SAMPLE_RATE, CapturedAudio, ReplayedAudio, ReplayEnded

__all__ = ["CaptureFeed"]

MEMORY = 30 * SAMPLE_RATE
"""How much of what was appended is remembered, in samples: speech may get its text late."""
MOMENT = SAMPLE_RATE // 2
"""The microphone, which remembers as much, may have forgotten so much more when it is asked."""
REPLAY_NS = 1_000_000_000
"""How long the microphone may be silent while it is asked to say everything again."""


class CaptureFeed:
    """Passes every sample on once, in order, to each session with the server."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.replay_by: int | None = None
        """Until when a replay is waited for; live blocks are part of it and not passed on."""
        self.appended_ns = 0
        """When sound was appended last."""
        self.newest_sample = self.newest_ns = 0
        """The end of the newest sound that was captured, and when that was."""
        self._request_id = 0
        self._speech_from: int | None = None
        """Where speech begins that the replay should have, until its first block has come."""
        self._memory: collections.deque[tuple[int, bytes]] = collections.deque()
        self._remembered = 0

    def heard(self, block: CapturedAudio) -> None:
        """Take note of a captured block, whether it is passed on or not."""
        self.newest_sample = block.first_sample + (len(block.pcm) >> 1)
        self.newest_ns = block.captured_ns

    def idle(self) -> None:
        """Begin a session with the server that has nothing to hear yet."""
        self.timeline = Timeline()
        self.replay_by = None

    def reopen(self, request_id: int, now: int) -> None:
        """Have sound of this session with the server come from the microphone's memory first."""
        self.replay_by = now + REPLAY_NS
        self._request_id = request_id

    def restart(
        self, from_sample: int, request_id: int, now: int, *, has_speech: bool = False
    ) -> None:
        """Begin a session with the server: what was captured from a sample on comes again.

        ``has_speech``: whether somebody is known to speak there.
        """
        self._speech_from = from_sample if has_speech else None
        self.timeline = Timeline(from_sample)
        self.reopen(request_id, now)

    def live(self, block: CapturedAudio, now: int) -> bytes | None:
        """Return what of a captured block is to be appended."""
        if self.replay_by is not None:
            return None
        return self.append(block.pcm, block.first_sample, now)

    def replayed(self, block: ReplayedAudio, now: int) -> bytes | None:
        """Return what of a block of the replay is to be appended."""
        if not self.is_replayed(block, now):
            return None
        return self.append(block.pcm, block.first_sample, now)

    def is_replayed(self, block: ReplayedAudio, now: int) -> bool:
        """Tell whether a block is of the replay that was asked for last."""
        if block.request_id != self._request_id:
            return False
        if self.replay_by is not None:
            self.replay_by = now + REPLAY_NS
        return True

    def missing(self, block: ReplayedAudio | ReplayEnded) -> int:
        """Return how many samples of speech a replay, of which this comes first, does not have."""
        if block.request_id != self._request_id or self._speech_from is None:
            return 0
        at = block.next_sample if isinstance(block, ReplayEnded) else block.first_sample
        speech_from, self._speech_from = self._speech_from, None
        return max(0, at - speech_from)

    def ended(self, end: ReplayEnded) -> bool:
        """Go on live. Return False if this is about an earlier replay."""
        if end.request_id != self._request_id or self.replay_by is None:
            return False
        self.replay_by = None
        return True

    def tick(self, now: int) -> bool:
        """Return whether the replay was waited for in vain; it goes on live then."""
        if self.replay_by is None or now < self.replay_by:
            return False
        self.replay_by = None
        return True

    def append(self, pcm: bytes, first_sample: int, now: int) -> bytes | None:
        """Take note that sound is appended; return what of it was not before."""
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
        """From this sample on the microphone can say again what it has captured, for a moment."""
        return max(0, self.newest_sample - MEMORY + MOMENT)

    @property
    def oldest_sample(self) -> int:
        """The first sample that `sound` remembers."""
        return self._memory[0][0] if self._memory else self.timeline.next_sample

    def sound(self, first_sample: int, last_sample: int) -> bytes:
        """Return what was appended between two samples; empty: it is not remembered any more."""
        parts = []
        if self._memory and self._memory[0][0] <= first_sample:
            for first, pcm in self._memory:
                begin, end = max(0, first_sample - first), last_sample - first
                parts.append(pcm[2 * begin : 2 * max(end, 0)])
        return b"".join(parts)

    def _remember(self, first_sample: int, pcm: bytes) -> None:
        memory = self._memory
        while memory and memory[-1][0] >= first_sample:  # it is appended again
            self._remembered -= len(memory.pop()[1]) >> 1
        memory.append((first_sample, pcm))
        self._remembered += len(pcm) >> 1
        while self._remembered > MEMORY:
            self._remembered -= len(memory.popleft()[1]) >> 1
