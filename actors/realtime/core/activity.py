"""The last activity of the user, the program and the assistant, for the inactivity timeout."""

from __future__ import annotations

from actors.realtime.core.state import Saved

__all__ = ["Activity"]


class Activity:
    """Records the times from which the inactivity timeout counts."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def touch(self, now: int) -> None:
        """Record activity of the user or the program."""
        self._saved.quiet_since_ns, self._saved.prompted_ns = now, None

    def progress(self, now: int) -> None:
        """Record progress of the assistant or of a tool."""
        # Speech of the assistant that the user's silence prompts must not extend the timeout for
        # ever: the server would prompt again and again.
        if self._saved.prompted_ns is None:
            self._saved.quiet_since_ns = now
        else:
            self._saved.prompted_ns = now

    def prompts(self, now: int) -> None:
        """Record that the server answers the user's silence (`ServerVad.idle_timeout_ms`)."""
        self._saved.prompted_ns = now

    def begins(self, now: int) -> None:
        """Start counting: the first session with the server is live."""
        self._saved.quiet_since_ns = now

    def leave_out(self, gap_ns: int, now: int) -> None:
        """Do not count an outage that has just ended.

        Args:
            gap_ns: the length of the outage.
            now: the time.
        """
        self._saved.quiet_since_ns = min(now, self._saved.quiet_since_ns + gap_ns)
