"""Outages, the times without a session with the server: their cause, and backing off."""

from __future__ import annotations

from actors.realtime.core.context import Context
from messages import Connected, Notice, Reconnected

__all__ = ["SILENT", "Outage"]

_MS, _NS = 1_000_000, 1_000_000_000
REMIND_NS = 30 * _NS
"""Time after which the user is notified again that there is no session."""
SILENT = (
    "it accepts the connection and begins no session; is the URL right (its path usually is "
    "/v1/realtime), and does it speak the OpenAI Realtime API?"
)
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class Outage:
    """The current outage or, during a session, the previous one. The first begins at the start."""

    def __init__(self, context: Context, now: int) -> None:
        self._context = context
        saved = context.saved
        if saved.offline_since_ns is None:  # otherwise the process before this one died in it
            saved.offline_since_ns = now
        self.since_ns = saved.offline_since_ns
        self.cause = "realtime was started again" if saved.connected else ""
        self.trouble = "there is no connection yet"
        """Why there is no session, if known."""
        self._failures = 0
        self._noticed_ns: int | None = None
        """When the user was last notified of this outage; None: not yet."""

    def begin(self, cause: str, now: int) -> None:
        """Record that the session has ended, and why."""
        self.since_ns, self.cause, self.trouble = now, cause, cause
        self._context.saved.offline_since_ns = now

    def connected(self) -> None:
        """Record that there is a connection: what is missing now is the session."""
        self.trouble = SILENT

    def unreachable(self, why: str, now: int) -> None:
        """Record a failed attempt to connect; notify the user of the first, then at intervals."""
        self._failed(f"cannot reach {self._context.server}: {why}", why, now)

    def silent(self, now: int) -> None:
        """Record a connection on which no session began; notify the user likewise."""
        self._failed(f"{self._context.server} is silent: {SILENT}", SILENT, now)

    def _failed(self, notice: str, why: str, now: int) -> None:
        self.trouble = why
        if self._noticed_ns is None:
            self._context.publish(Notice(f"{notice}; trying again"))
        elif now >= self._noticed_ns + REMIND_NS:
            so_far = f"still no session after {(now - self.since_ns) // _NS} s"
            self._context.publish(Notice(f"{so_far}: {notice}; trying again"))
        else:
            return
        self._noticed_ns = now

    def given_up_at(self) -> int | None:
        """Return when to give up; None: never."""
        timeout_s = self._timeout_s()
        return None if timeout_s is None else self.since_ns + int(timeout_s * _NS)

    def verdict(self) -> str:
        """Return why the conversation ends: there was no session for too long."""
        how = "for" if self._context.saved.connected else "within"
        server, seconds = self._context.server, self._timeout_s() or 0
        return f"no session with {server} {how} {seconds:g} s: {self.trouble}"

    def _timeout_s(self) -> float | None:
        context = self._context
        settings = context.settings
        if context.saved.connected:
            return settings.outage_timeout_s
        return settings.connect_timeout_s

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
            if self._noticed_ns is not None:
                context.publish(Notice(f"connected to {context.server}"))
        self._noticed_ns = None
        context.saved.offline_since_ns = None
