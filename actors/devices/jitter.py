"""The jitter buffer's rule: how much of an answer has to be there before it is played. No clock."""

from __future__ import annotations

from messages import SAMPLE_RATE

__all__ = ["Prefill"]

_BLOCK = 20 * SAMPLE_RATE // 1000
_MOST = 6 * _BLOCK


class Prefill:
    """Waits for more after sound has faltered, and for less again while it does not.

    Args:
        samples: how many wait before an item starts, when all is well.
    """

    def __init__(self, samples: int) -> None:
        self._least = self._now = samples
        self._waited = 0
        self._faltered = False
        """Since an item last came to its end."""
        self._count, self._silent_ns = 0, 0
        """How often an item faltered and how long it was silent because of that, until told."""

    def is_enough(self, queued: int, asked: int, *, grows: bool) -> bool:
        """Return whether an item starts.

        Args:
            queued: the samples that are there.
            asked: how many the device wants now. It does not ask in vain for longer than the
                samples that are waited for would last.
            grows: more of the item is to come, and nothing is behind it.
        """
        if grows and queued < self._now and self._waited < self._now:
            self._waited += asked
            return False
        self._waited = 0
        return True

    def falter(self) -> None:
        """Note that audio came after what was before it had been played."""
        self._count += 1
        self._faltered = True
        self._now = min(2 * self._now, _MOST)

    def note_silence(self, ns: int) -> None:
        """Note how long that was."""
        self._silent_ns += ns

    def note_end(self) -> None:
        """Note that an item has come to its end: if it has not faltered, wait for a block less."""
        if not self._faltered:
            self._now = max(self._now - _BLOCK, self._least)
        self._faltered = False

    def told(self) -> tuple[int, int]:
        """Return how often it faltered, and the nanoseconds of silence, since this was asked."""
        told = self._count, self._silent_ns
        self._count, self._silent_ns = 0, 0
        return told
