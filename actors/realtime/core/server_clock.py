"""When the server ends a session, by our clock."""

from __future__ import annotations

from actors.realtime import wire

__all__ = ["SESSION_NS", "ServerClock"]

_NS = 1_000_000_000
SESSION_NS = 60 * 60 * _NS
"""How long a session lasts if the server does not say (documented: 60 minutes)."""
SHORTEST_NS, LONGEST_NS = 1 * _NS, 24 * 3600 * _NS
"""An ``expires_at`` outside these limits is ignored: a clock may be wrong."""
SAME_NS = 2 * _NS
"""Ours is used if the clocks differ by no more: the server's is known to the second only."""


class ServerClock:
    """Translates the server's ``expires_at`` to ``time.monotonic_ns()``."""

    def __init__(self) -> None:
        self._unix_ns: int | None = None
        """The server's clock minus ours; None: not known."""

    def set(self, unix_ns: int, server_ns: int | None, now: int) -> None:
        """Record what time it is: ``unix_ns`` by our wall clock, ``server_ns`` by the server's."""
        if server_ns is not None and abs(server_ns - unix_ns) > SAME_NS:
            unix_ns = server_ns
        self._unix_ns = unix_ns - now

    def expires_ns(self, event: object, now: int) -> int:
        """Return when the server ends a session that it has just created."""
        at = event.expires_at() if isinstance(event, wire.SessionCreated) else None
        if at is not None and self._unix_ns is not None:
            left = at * _NS - self._unix_ns - now
            if SHORTEST_NS <= left <= LONGEST_NS:
                return now + int(left)
        return now + SESSION_NS
