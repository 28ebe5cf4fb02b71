"""Faltering: how often sound had a gap or a crackle, told at most once a second. No clock."""

from __future__ import annotations

from messages import SoundFaltered

__all__ = ["CAME_LATE", "NOT_SERVED", "Faltering"]

CAME_LATE = "what the assistant says came too late"
NOT_SERVED = "the sound card was not served in time"

_PERIOD_NS = 1_000_000_000


class Faltering:
    """Sums for each reason, until they are told.

    Args:
        component: whose sound it is.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self._untold: dict[str, tuple[int, int]] = {}
        self._told_ns = -_PERIOD_NS

    def note(self, reason: str, count: int, silent_ns: int = 0) -> None:
        """Add to the sums of a reason."""
        if count or silent_ns:
            before, silent_before = self._untold.get(reason, (0, 0))
            self._untold[reason] = before + count, silent_before + silent_ns

    def tell(self, now_ns: int, *, at_once: bool = False) -> list[SoundFaltered]:
        """Return what is to be told now; what is not due waits, unless it is the end."""
        if not self._untold or (now_ns - self._told_ns < _PERIOD_NS and not at_once):
            return []
        self._told_ns = now_ns
        untold, self._untold = self._untold, {}
        return [
            SoundFaltered(self._component, reason, count, silent_ns // 1_000_000)
            for reason, (count, silent_ns) in untold.items()
        ]

    def untold(self) -> bool:
        """Whether there is something that was not due yet."""
        return bool(self._untold)
