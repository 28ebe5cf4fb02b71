"""The last activity of the user, the program and the assistant, for the inactivity timeout."""

from __future__ import annotations

from actors.realtime.core.state import Saved

__all__ = ["Activity"]


class Activity:
    """The times from which the inactivity timeout counts."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def touch(self, now: int) -> None:
        """Record activity of the user or the program."""
        self._saved.quiet_since_ns, self._saved.prompted_ns = now, None

    def goes_on(self, now: int) -> None:
        """Record activity of the assistant or of a tool."""
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
        """Leave out an outage that has just ended."""
        self._saved.quiet_since_ns = min(now, self._saved.quiet_since_ns + gap_ns)
