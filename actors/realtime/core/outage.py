"""Outages, the times without a session with the server: their cause, and backing off."""

from __future__ import annotations

from actors.realtime.core.context import Context
from messages import Connected, Notice, Reconnected

__all__ = ["Outage"]

_MS = 1_000_000
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class Outage:
    """The current outage or, during a session, the previous one. The first begins at the start."""

    def __init__(self, context: Context, now: int) -> None:
        self._context = context
        self.since_ns = now
        self.cause = "realtime was started again" if context.saved.connected else ""
        self.trouble = "it did not begin a session"
        """Why there is no session, as far as that is known."""
        self._failures = 0
        self._is_noticed = False
        """Whether the user was notified of this outage."""

    def begin(self, cause: str, now: int) -> None:
        """Record that the session has ended, and why."""
        self.since_ns, self.cause = now, cause

    def unreachable(self, why: str) -> None:
        """Record a failed attempt to connect, and notify the user of the first."""
        self.trouble = why
        if not self._is_noticed:
            self._is_noticed = True
            notice = f"cannot reach {self._context.server}: {why}; trying again"
            self._context.publish(Notice(notice))

    def backoff_s(self, now: int) -> float:
        """Return the delay before the next attempt to connect, longer each time."""
        delay = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        jitter = 0.75 + now // 1000 % 1000 / 2000  # the clock's last digits are random enough
        return delay * jitter

    def reset_backoff(self) -> None:
        """Start with a short delay again: the session that has ended was a good one."""
        self._failures = 0

    def end(self, items: int, missing: int, now: int, *, restored: bool) -> None:
        """Publish that a session is live.

        Args:
            items: how many items of the conversation it has.
            missing: of how many turns neither text nor sound is left.
            now: the time.
            restored: whether it has everything that was said.
        """
        context, gap_ns = self._context, now - self.since_ns
        if context.saved.connected:
            context.publish(Reconnected(restored, items, gap_ns // _MS, self.cause, missing))
            context.activity.leave_out(gap_ns, now)
        else:
            context.activity.begins(now)
            context.publish(Connected(context.server))
            if self._is_noticed:
                context.publish(Notice(f"connected to {context.server}"))
        self._is_noticed = False
