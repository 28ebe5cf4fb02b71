"""Hang detection and progress of a component, from its accounting slot; no clock."""

from __future__ import annotations

import math
from typing import Literal

from messages.transport.mailbox import Mailbox
from messages.transport.page import HELD, LOCAL, MAIL, Slot

__all__ = ["Watch"]


class Watch:
    """The signs of life of one component, incarnation after incarnation.

    Everything handled is a sign of life: mail, held messages, posted calls and timers. Progress is
    handled mail other than pings, handled held messages, or sound sent. Times are seconds of any
    monotonic clock.
    """

    def __init__(self, slot: Slot) -> None:
        self.sent_audio = False
        """Whether this incarnation has sent audio."""
        self._slot = slot
        self._handled: tuple[int, ...] = ()
        self._opened_at = self._alive_at = self._pinged_at = 0.0
        self._pings = 0
        self._stopped_at = math.inf

    def begin(self, mailbox: Mailbox) -> None:
        """Count from here on for the next incarnation.

        Called when an incarnation has ended and again when the next one is started: a process that
        dies in between has made no progress.
        """
        self._pings = mailbox.pings  # sent to the last incarnation, which did not answer
        self.sent_audio = False
        self._stopped_at = math.inf

    def opened(self, now: float) -> None:
        """Record that it is open."""
        self._stopped_at = math.inf
        self._opened_at = self._alive_at = self._pinged_at = now

    def forgive(self, now: float) -> None:
        """Restart all clocks, because the supervisor itself did not run."""
        self._alive_at = self._pinged_at = now
        self._stopped_at = math.inf

    @property
    def well_s(self) -> float:
        """How long this incarnation was open and not stuck."""
        return max(0.0, self._alive_at - self._opened_at)

    def quiet_s(self, now: float) -> float:
        """Return the time since the last sign of life."""
        return now - self._alive_at

    def is_stopped(self, now: float, stopped: bool, hang_s: float) -> bool:
        """Return whether its process has been stopped by a signal for ``hang_s``.

        For one that loads or opens, which has no accounts yet.
        """
        if not stopped:
            self._stopped_at = math.inf
        elif self._stopped_at == math.inf:
            self._stopped_at = now
        return now - self._stopped_at >= hang_s

    def look(self, now: float, mailbox: Mailbox, hang_s: float) -> Literal["", "idle", "hung"]:
        """Check for signs of life.

        Returns:
            ``idle``: it has nothing to do; the caller must send it a ping.
            ``hung``: it has not handled anything for ``hang_s`` although it has work.
        """
        slot = self._slot
        handled = (slot.handled(MAIL), slot.handled(HELD), slot.handled(LOCAL))
        if handled != self._handled:
            self._handled, self._alive_at = handled, now
        mailbox.settle(slot)
        quiet_s = self.quiet_s(now)
        in_hand = slot.in_hand() is not None
        if mailbox.in_flight == 0 and not in_hand:
            if quiet_s < hang_s / 4:
                return ""
            self._pings += 1
            self._pinged_at = now
            return "idle"
        if quiet_s >= hang_s and (in_hand or now - self._pinged_at >= hang_s / 2):
            return "hung"
        return ""

    def progress(self, mailbox: Mailbox) -> bool:
        """Return whether this incarnation has made progress; timers do not count."""
        slot = self._slot
        mailbox.settle(slot)
        answered = self._pings - mailbox.pings
        return slot.handled(MAIL) > answered or slot.handled(HELD) > 0 or self.sent_audio
