"""Whether a component is alive and does anything, by its accounts: decisions, without a clock."""

from __future__ import annotations

from typing import Literal

from messages.transport.mailbox import Mailbox
from messages.transport.page import HELD, LOCAL, MAIL, Slot

__all__ = ["Watch"]


class Watch:
    """The signs of life of one component, incarnation after incarnation.

    It is alive when it has handled anything: mail, held messages, or work of its own. It has made
    progress when that was more than answers to pings, or when it has told of sound. Times are in
    seconds of any one clock.
    """

    def __init__(self, slot: Slot) -> None:
        self.told_audio = False
        """Whether the incarnation has told of sound."""
        self._slot = slot
        self._handled: tuple[int, ...] = ()
        self._opened_at = self._alive_at = self._pinged_at = 0.0
        self._pings = 0

    def begin(self, mailbox: Mailbox) -> None:
        """Note that what the component does from now on is done by another incarnation.

        Both when one has ended and when one is started: what dies in between has done nothing.
        """
        self._pings = mailbox.pings  # the one before it was sent these in vain
        self.told_audio = False

    def opened(self, now: float) -> None:
        """Note that it is open."""
        self._opened_at = self._alive_at = self._pinged_at = now

    def forgive(self, now: float) -> None:
        """Start all clocks anew: the supervisor itself did not run."""
        self._alive_at = self._pinged_at = now

    @property
    def well_s(self) -> float:
        """How long it was open and not stuck."""
        return max(0.0, self._alive_at - self._opened_at)

    def quiet_s(self, now: float) -> float:
        """Return how long it has shown no sign of life."""
        return now - self._alive_at

    def look(self, now: float, mailbox: Mailbox, hang_s: float) -> Literal["", "idle", "hung"]:
        """Look at its accounts.

        Returns:
            ``idle``: it has nothing to do, and is to be sent a ping, which is counted by that.
            ``hung``: what it was sent or has in hand is not handled.
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
        """Return whether it has handled mail of its own, or made sound. Timers are no progress."""
        slot = self._slot
        mailbox.settle(slot)
        answered = self._pings - mailbox.pings
        return slot.handled(MAIL) > answered or slot.handled(HELD) > 0 or self.told_audio
