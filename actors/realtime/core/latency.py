"""How long the user waits for an answer: from the end of speech to the first sample heard."""

from __future__ import annotations

from actors.realtime.core.state import Saved
from messages import SAMPLE_RATE, PlaybackStarted

__all__ = ["Latency"]

_NS = 1_000_000_000
_NS_PER_MS = 1_000_000


class Latency:
    """Measures the first answer to each turn of speech.

    Args:
        saved: The saved state.
        epoch_ns: ``time.monotonic_ns()`` of sample 0 of the session timeline.
    """

    def __init__(self, saved: Saved, epoch_ns: int) -> None:
        self._saved = saved
        self._epoch_ns = epoch_ns

    def asked(self, last_sample: int | None) -> None:
        """Record where speech that is to be answered has ended; None: what was asked was typed."""
        self._saved.asked_until = last_sample

    def heard(self, item_id: str, response_id: str, at_ns: int) -> PlaybackStarted | None:
        """Return the event for an answer whose first sample was heard, once.

        Args:
            item_id: The item that is playing.
            response_id: The answer that it belongs to.
            at_ns: When the first sample of the item was heard.
        """
        saved = self._saved
        if response_id == saved.heard_response:
            return None
        saved.heard_response = response_id
        after_ms = None
        if saved.asked_until is not None:
            asked_ns = self._epoch_ns + saved.asked_until * _NS // SAMPLE_RATE
            after_ms = max(0, (at_ns - asked_ns) // _NS_PER_MS)
            saved.asked_until = None
        first = max(0, (at_ns - self._epoch_ns) * SAMPLE_RATE // _NS)
        return PlaybackStarted(item_id, response_id, first, after_ms)
