"""The state that a component has saved, and whether it is to be trusted (guarantee G15)."""

from __future__ import annotations

__all__ = ["SavedState"]

_STRIKES = 2
"""State is set aside after this many incarnations in a row could not be opened with it."""


class SavedState:
    """What the incarnations of one component leave to the next."""

    def __init__(self, latest: bytes | None = None) -> None:
        self.latest = latest
        """What was saved last; None: nothing, or it was set aside."""
        self._strikes = 0

    def keep(self, state: bytes) -> None:
        """Replace the state."""
        self.latest = state

    def opened(self) -> None:
        """Record that an incarnation was opened with it."""
        self._strikes = 0

    def blame(self) -> bool:
        """Record that an incarnation could not be opened; return whether the state is set aside."""
        self._strikes += 1
        if self.latest is None or self._strikes < _STRIKES:
            return False
        self._strikes = 0
        self.latest = None
        return True
