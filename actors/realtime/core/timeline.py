"""The mapping between the session timeline and the audio appended to one server session."""

from __future__ import annotations

import bisect

from messages import SAMPLE_RATE

__all__ = ["SAMPLES_PER_MS", "Timeline"]

SAMPLES_PER_MS = SAMPLE_RATE // 1000
_JUMPS = 256
"""At most this many of the newest jumps are kept: server times are of the recent past."""


class Timeline:
    """Maps samples of the session timeline to times of the server, and back.

    The server counts the audio that it was sent, without gaps. The session timeline has a jump
    wherever no audio was appended.
    """

    def __init__(self, next_sample: int = 0) -> None:
        self.next_sample = next_sample
        """The first sample of the session timeline that has not been appended."""
        self.appended = 0
        """Number of samples that the server was sent."""
        self._server: list[int] = []
        """The jumps: the number of samples appended before each."""
        self._session: list[int] = []
        """The first sample of the session timeline after each jump."""

    def append(self, first_sample: int, count: int) -> None:
        """Record audio that was appended."""
        if first_sample != self.next_sample or not self._server:
            self._server.append(self.appended)
            self._session.append(first_sample)
            if len(self._server) > _JUMPS:
                del self._server[0], self._session[0]
        self.appended += count
        self.next_sample = first_sample + count

    def rewind(self, sample: int) -> None:
        """Forget the audio from a sample on: the server has discarded it."""
        if sample < self.next_sample:
            self.next_sample = sample
            self._server.clear()
            self._session.clear()

    def session_sample(self, server_ms: float | None) -> int:
        """Return the sample of the session timeline at a server time; None: the next sample."""
        if server_ms is None:
            return self.next_sample
        sample = int(server_ms * SAMPLES_PER_MS)
        if not self._server:
            return self.next_sample
        index = max(0, bisect.bisect_right(self._server, sample) - 1)
        return self._session[index] + max(0, sample - self._server[index])

    def server_ms(self, session_sample: int) -> float:
        """Return the server time of a sample or, if that was not sent, of the next one that was."""
        if not self._session:
            return 0.0
        index = max(0, bisect.bisect_right(self._session, session_sample) - 1)
        end = self._server[index + 1] if index + 1 < len(self._server) else self.appended
        offset = max(0, session_sample - self._session[index])
        return min(self._server[index] + offset, end) / SAMPLES_PER_MS
