"""Two clocks: samples of the session, and samples appended to one session with the server."""

from __future__ import annotations

import bisect

from messages import SAMPLE_RATE

__all__ = ["SAMPLES_PER_MS", "Timeline"]

SAMPLES_PER_MS = SAMPLE_RATE // 1000
_JUMPS = 256


class Timeline:
    """Maps both ways. The server counts what it was sent; our samples have jumps where nothing was.

    Of the jumps only the last ones are kept: the server speaks of the recent past.
    """

    def __init__(self, next_sample: int = 0) -> None:
        self.next_sample = next_sample
        """Of the session: the first one that has not been appended."""
        self.appended = 0
        """Samples the server has been sent."""
        self._server: list[int] = []
        self._session: list[int] = []

    def append(self, first_sample: int, count: int) -> None:
        """Take note of audio appended."""
        if first_sample != self.next_sample or not self._server:
            self._server.append(self.appended)
            self._session.append(first_sample)
            if len(self._server) > _JUMPS:
                del self._server[0], self._session[0]
        self.appended += count
        self.next_sample = first_sample + count

    def rewind(self, sample: int) -> None:
        """Forget what was sent from a sample on: the server has thrown it away."""
        if sample < self.next_sample:
            self.next_sample = sample
            self._server.clear()
            self._session.clear()

    def session_sample(self, server_ms: float | None) -> int:
        """Return the sample of the session at a time of the server's; None: the next sample."""
        if server_ms is None:
            return self.next_sample
        sample = int(server_ms * SAMPLES_PER_MS)
        if not self._server:
            return self.next_sample
        index = max(0, bisect.bisect_right(self._server, sample) - 1)
        return self._session[index] + max(0, sample - self._server[index])

    def server_ms(self, session_sample: int) -> float:
        """Return the server's time of a sample; of one that was not sent: of the next that was."""
        if not self._session:
            return 0.0
        index = max(0, bisect.bisect_right(self._session, session_sample) - 1)
        end = self._server[index + 1] if index + 1 < len(self._server) else self.appended
        offset = max(0, session_sample - self._session[index])
        return min(self._server[index] + offset, end) / SAMPLES_PER_MS
