"""Why a service does not take a caller."""

from __future__ import annotations

from messages import RtvoiceError

__all__ = ["Busy", "Draining"]


class Busy(RtvoiceError):  # noqa: N818 - a state of the service, not a fault
    """Raised before anything is started: there is no place for another conversation."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason, retry_after_s)
        self.reason = reason
        """What is short: ``sessions``, ``cpu``, ``memory``, ``lag`` or ``tokens``."""
        self.retry_after_s = retry_after_s
        """When another try may succeed."""

    def __str__(self) -> str:
        return f"{_SENTENCES[self.reason]}; try again in {self.retry_after_s:g} s"


class Draining(RtvoiceError):  # noqa: N818 - as above
    """Raised before anything is started: the service ends once its conversations have ended."""

    def __str__(self) -> str:
        return "the service is ending and takes no new conversations; try another instance"


_SENTENCES = {
    "sessions": "all places of the service are taken",
    "cpu": "the service has no CPU left for another conversation",
    "memory": "the service has no memory left for another conversation",
    "lag": "the service is too busy to carry another conversation",
    "tokens": "the tokens of this minute are used up",
}
