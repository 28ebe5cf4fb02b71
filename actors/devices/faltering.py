"""Counts of underruns and overruns, reported at most once a second. No clock."""

from __future__ import annotations

from messages import SoundFaltered

__all__ = ["CAME_LATE", "NOT_SERVED", "Faltering"]

CAME_LATE = "what the assistant says came too late"
NOT_SERVED = "the sound card was not served in time"

_PERIOD_NS = 1_000_000_000


class Faltering:
    """Counts underruns and overruns by reason until they are reported.

    Args:
        component: The component whose sound faltered: ``microphone`` or ``speaker``.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self._unreported: dict[str, tuple[int, int]] = {}
        """By reason: the count, and the nanoseconds of silence."""
        self._reported_ns = -_PERIOD_NS

    def note(self, reason: str, count: int, silent_ns: int = 0) -> None:
        """Add to the count and the silence of a reason."""
        if count or silent_ns:
            before, silent_before = self._unreported.get(reason, (0, 0))
            self._unreported[reason] = before + count, silent_before + silent_ns

    def report(self, now_ns: int, *, at_once: bool = False) -> list[SoundFaltered]:
        """Return the reports to send now.

        Args:
            now_ns: The time.
            at_once: Report although the last report is less than a second old, because the
                component ends.
        """
        if not self._unreported or (now_ns - self._reported_ns < _PERIOD_NS and not at_once):
            return []
        self._reported_ns = now_ns
        unreported, self._unreported = self._unreported, {}
        return [
            SoundFaltered(self._component, reason, count, silent_ns // 1_000_000)
            for reason, (count, silent_ns) in unreported.items()
        ]

    def has_unreported(self) -> bool:
        """Return whether counts wait for the next report."""
        return bool(self._unreported)
