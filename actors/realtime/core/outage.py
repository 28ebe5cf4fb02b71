"""The time without a session with the server: since when, why, and when to try again."""

from __future__ import annotations

from actors.realtime.core.context import Context
from messages import Connected, Notice, Reconnected

__all__ = ["Outage"]

_MS = 1_000_000
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class Outage:
    """The present outage or, while a session is live, the last one. The first begins with us."""

    def __init__(self, context: Context, now: int) -> None:
        self._context = context
        self.since_ns = now
        self.cause = "realtime was started again" if context.saved.connected else ""
        self.trouble = "it did not begin a session"
        """Why there is no connection, as far as it is known."""
        self._failures = 0
        self._is_noticed = False
        """Whether the user knows that the server cannot be reached."""

    def begin(self, cause: str, now: int) -> None:
        """Record that the session has ended."""
        self.since_ns, self.cause = now, cause

    def unreachable(self, why: str) -> None:
        """Tell the user, once, that there is no connection."""
        self.trouble = why
        if not self._is_noticed:
            self._is_noticed = True
            notice = f"cannot reach {self._context.server}: {why}; trying again"
            self._context.publish(Notice(notice))

    def backoff_s(self, now: int) -> float:
        """Return how long to wait before the next connection, longer each time."""
        delay = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        jitter = 0.75 + now // 1000 % 1000 / 2000  # the clock's last digits are random enough
        return delay * jitter

    def reset_backoff(self) -> None:
        """Begin with short waits again: the session that has ended was a good one."""
        self._failures = 0

    def end(self, items: int, missing: int, now: int, *, restored: bool) -> None:
        """Publish that a session is live, and how much of the conversation it has."""
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
