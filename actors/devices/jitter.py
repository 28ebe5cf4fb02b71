"""The jitter buffer's rule: how much audio of an item must wait before it starts. No clock."""

from __future__ import annotations

from messages import SAMPLE_RATE

__all__ = ["Prefill"]

_BLOCK = 20 * SAMPLE_RATE // 1000
_MOST = 6 * _BLOCK


class Prefill:
    """The prefill: doubled after each underrun, a block shorter after each item without one.

    Args:
        samples: The shortest prefill, used while there are no underruns.
    """

    def __init__(self, samples: int) -> None:
        self._least = self._now = samples
        self._waited = 0
        """Samples that the device has asked for in vain before the start of the item."""
        self._faltered = False
        """Whether there was an underrun since the end of the last item."""
        self._count, self._silent_ns = 0, 0
        """Underruns, and the nanoseconds of silence they caused, since the last `take_faltered`."""

    def is_enough(self, queued: int, asked: int, *, grows: bool) -> bool:
        """Return whether an item may start.

        Args:
            queued: Samples in the queue.
            asked: Samples that the device asks for now. The item also starts once the device has
                asked for a whole prefill in vain, so that a short or slow item is not held back.
            grows: Whether more of this item may come; if not, the prefill does not apply.
        """
        if grows and queued < self._now and self._waited < self._now:
            self._waited += asked
            return False
        self._waited = 0
        return True

    def falter(self) -> None:
        """Record an underrun: audio arrived after the audio before it had been played."""
        self._count += 1
        self._faltered = True
        self._now = min(2 * self._now, _MOST)

    def note_silence(self, ns: int) -> None:
        """Record how long an underrun was."""
        self._silent_ns += ns

    def note_end(self) -> None:
        """Record the end of an item; shorten the prefill if the item had no underrun."""
        if not self._faltered:
            self._now = max(self._now - _BLOCK, self._least)
        self._faltered = False

    def take_faltered(self) -> tuple[int, int]:
        """Return the underruns, and the nanoseconds of silence, since the last call."""
        counted = self._count, self._silent_ns
        self._count, self._silent_ns = 0, 0
        return counted
