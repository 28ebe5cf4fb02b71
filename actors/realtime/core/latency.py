"""How long the user waits for an answer, from the end of speech to the first sample heard."""

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
        # The steps in between are not saved: after the death of the process they are unknown.
        self._committed_ns: int | None = None
        """When the server had committed the speech that is to be answered."""
        self._received: tuple[str, int] = ("", 0)
        """The answer whose audio was received last, and when its first audio was."""

    def asked(self, last_sample: int | None, now: int = 0) -> None:
        """Record where speech that is to be answered has ended; None: what was asked was typed.

        Args:
            last_sample: Its end on the session timeline.
            now: When the server had committed it.
        """
        self._saved.asked_until = last_sample
        self._committed_ns = now if last_sample is not None else None

    def received(self, response_id: str, now: int) -> None:
        """Record that audio of an answer was received."""
        if response_id != self._received[0]:
            self._received = (response_id, now)

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
        first = max(0, (at_ns - self._epoch_ns) * SAMPLE_RATE // _NS)
        if saved.asked_until is None:
            return PlaybackStarted(item_id, response_id, first)
        asked_ns = self._epoch_ns + saved.asked_until * _NS // SAMPLE_RATE
        saved.asked_until = None
        received_ns = self._received[1] if self._received[0] == response_id else None
        steps = [
            None if ns is None else max(0, (ns - asked_ns) // _NS_PER_MS)
            for ns in (at_ns, self._committed_ns, received_ns)
        ]
        return PlaybackStarted(item_id, response_id, first, *steps)
