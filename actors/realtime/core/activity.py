"""Since when nobody has done anything, for the inactivity timeout."""

from __future__ import annotations

from actors.realtime.core.state import Saved

__all__ = ["Activity"]


class Activity:
    """The last activity of the user, and that of the assistant while the user is silent."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def touch(self, now: int) -> None:
        """Record activity of the user or the program."""
        self._saved.quiet_since_ns, self._saved.prompted_ns = now, None

    def goes_on(self, now: int) -> None:
        """Record activity of the assistant or a tool."""
        if self._saved.prompted_ns is None:
            self._saved.quiet_since_ns = now
        else:
            self._saved.prompted_ns = now

    def prompts(self, now: int) -> None:
        """Record that the assistant is about to speak because the user is silent."""
        self._saved.prompted_ns = now

    def begins(self, now: int) -> None:
        """Begin to count, as there is a session with the server for the first time."""
        self._saved.quiet_since_ns = now

    def leave_out(self, gap_ns: int, now: int) -> None:
        """Do not count a time without a session with the server, which has just ended."""
        self._saved.quiet_since_ns = min(now, self._saved.quiet_since_ns + gap_ns)
