"""The store of a fleet: who holds which conversation, and what is kept of it.

Two stores have the same contents: SQLite, in a file, for the hosts of one machine, and Postgres.
Each operation is one statement, so that no transaction is open while the network is waited for, and
all times are those of the store's clock: hosts may disagree about the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from messages import RtvoiceError

__all__ = [
    "FRESH_S",
    "VERSION",
    "Fenced",
    "HostRow",
    "Kept",
    "SessionRow",
    "Store",
    "StoreError",
]

VERSION = 1
"""Of the records in the store. A host leaves the conversations of a newer version alone."""
FRESH_S = 3.0
"""A host that has not reported itself for so long is asked for nothing, and another one may have
its name."""


class StoreError(RtvoiceError):
    """The store cannot be reached, or has refused a statement."""


class Fenced(StoreError):  # noqa: N818 - the usual word
    """Somebody else holds the conversation, or nobody does: nothing was written."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"the lease of conversation {session_id} is lost")
        self.session_id = session_id


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in the store."""

    id: str
    call: bytes
    """What its agent is made of: fields of `rtvoice.service.CallInfo` as JSON."""
    token_sha256: str
    """Of the token with which its caller comes again."""
    epoch: int
    """Number of owners that it has had; 0: none yet."""
    owner: str
    """Who holds it, or held it last (`rtvoice.fleet.owner`); empty: nobody."""
    host: str
    """Name of the host that held it last; empty: none yet."""
    left_s: float
    """Seconds until its lease runs out; negative: seconds since then."""
    ended: str | None
    """Why it has ended; None: it has not."""
    version: int = VERSION

    @property
    def is_held(self) -> bool:
        """Whether a host holds it."""
        return self.ended is None and bool(self.owner) and self.left_s >= 0


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has reported itself."""

    name: str
    url: str
    """Where callers and the gateway reach it: ``http://…``."""
    owner: str
    sessions: int
    room: int
    """How many more conversations it would take."""
    draining: bool
    age_s: float
    """Seconds since its last report."""


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a conversation."""

    records: list[bytes]
    """The lines of its journal."""
    state: bytes | None
    """What its components have saved last; None: nothing."""


class Store(Protocol):
    """A store. Its methods block, and may be called on any thread.

    All raise `StoreError` if the store cannot be reached.
    """

    def create(self, session_id: str, call: bytes, token_sha256: str) -> None:
        """Add a conversation that nobody holds."""

    def get(self, session_id: str) -> SessionRow | None:
        """Return a conversation; None: there is none."""

    def acquire(
        self, session_id: str, owner: str, host: str, ttl_s: float, dead: str = ""
    ) -> int | None:
        """Take a conversation that nobody holds, or whose lease has run out.

        Args:
            session_id: The conversation.
            owner: Who takes it.
            host: The name of the host.
            ttl_s: How long the lease is.
            dead: An owner that is proven dead, whose lease need not run out.

        Returns:
            The new epoch; None: somebody else holds it, or it has ended.
        """

    def renew(self, owner: str, ttl_s: float) -> dict[str, int]:
        """Renew all leases of an owner that have not run out; return their ids and epochs."""

    def release(self, session_id: str, epoch: int) -> bool:
        """Give up a lease; return whether it was still held."""

    def end(self, session_id: str, epoch: int, why: str) -> bool:
        """Record the end of a conversation; return whether the lease was still held."""

    def append(self, session_id: str, epoch: int, first: int, lines: Sequence[bytes]) -> None:
        """Append lines of the journal.

        Args:
            session_id: The conversation.
            epoch: That of the lease.
            first: The number of the first line; the first of all is 1.
            lines: The lines, without their ends.

        The same lines may be written again, after an error that does not tell whether they are
        there.

        Raises:
            Fenced: The lease is lost, or there are other lines with these numbers.
        """

    def save(self, session_id: str, epoch: int, state: bytes) -> None:
        """Replace the saved state.

        Raises:
            Fenced: The lease is lost. Nothing was written.
        """

    def read(self, session_id: str) -> Kept:
        """Return what is kept of a conversation."""

    def waiting(self, limit: int, without: Sequence[str] = ()) -> list[SessionRow]:
        """Return conversations that nobody holds and that have not ended, the oldest first.

        Args:
            limit: How many at most.
            without: Ids of others that are left out.
        """

    def owners(self) -> list[str]:
        """Return who holds conversations."""

    def live(self, owner: str | None = None) -> list[SessionRow]:
        """Return the conversations that have not ended; with an owner, those that it holds."""

    def report(self, host: HostRow, dead: str = "") -> bool:
        """Report a host, which is there for a while.

        Args:
            host: The host.
            dead: An owner that is proven dead, whose name it may have.

        Returns:
            Whether the name is its own: no other one has reported itself with it of late.
        """

    def hosts(self) -> list[HostRow]:
        """Return the hosts that have reported themselves."""

    def forget(self, host: str, owner: str) -> None:
        """Remove a host that is gone, unless another one has its name by now."""

    def secret(self) -> str:
        """Return the secret with which each part of a fleet proves that it belongs to it."""

    def close(self) -> None:
        """Close the connections."""
