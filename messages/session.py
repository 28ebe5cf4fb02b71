"""Messages between a program and the supervisor (tags 120-139)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from messages.base import Message
from messages.paths import path_of_text

__all__ = [
    "FAULTS",
    "INACTIVITY_TIMEOUT",
    "Confirm",
    "Confirmed",
    "Inject",
    "SessionInfo",
    "StartSession",
    "Status",
    "StatusRequest",
    "StopSession",
    "Subscribe",
]

INACTIVITY_TIMEOUT = "inactivity timeout"
"""The reason of a session that ended because nobody spoke."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a session that are only known once it runs."""

    epoch_ns: int
    """``time.monotonic_ns()`` of sample 0 of the session timeline."""
    directory: str
    """The directory of the session's temporary files, deleted at its end; see `messages.paths`."""
    server_url: str = ""
    """The URL to which realtime connects."""
    first: bool = True
    """Whether this component is opened for the first time in this session."""
    resumed: Literal["", "supervisor", "journal"] = ""
    """Why all components are new although the conversation is not; empty: the conversation is new.
    ``supervisor``: the supervisor has died, and all components with it; ``journal``: the session
    resumes the journal of an earlier one (`Settings.resume`), whose timeline was another one."""

    def file(self, name: str) -> Path:
        """Return a path in the directory."""
        return Path(path_of_text(self.directory), name)


class StartSession(Message, frozen=True, array_like=True, tag=120):
    """Program to supervisor: start the session; the first message."""

    settings: dict[str, Any]
    """Fields of `Settings` as plain values; the agent or the default sets the others."""
    subscribe: tuple[int, ...] = ()
    """As in `Subscribe`."""
    directory: str = ""
    """The directory of the session; empty: the supervisor makes one."""
    defaults: dict[str, Any] = {}
    """Fields of `Settings` that are used where neither ``settings`` nor the agent has a value."""
    resumed: bool = False
    """Whether to continue the session of a dead supervisor, from its record in the directory."""


class Subscribe(Message, frozen=True, array_like=True, tag=121):
    """Program to supervisor: the tags of the messages to receive from now on."""

    tags: tuple[int, ...]


class StatusRequest(Message, frozen=True, array_like=True, tag=122):
    """Program to supervisor: request for the state of the components (`Status`)."""

    call_id: int


class Status(Message, frozen=True, array_like=True, tag=123):
    """Supervisor to program: the answer to `StatusRequest`."""

    call_id: int
    components: dict[str, dict[str, Any]]
    """For each component: ``pid``, ``state``, ``restarts``, ``mailbox``, ``dropped``, ``handled``,
    ``memory_bytes`` (resident) and ``cpu_seconds`` (both None if the system does not report it),
    ``faltered`` (number of underruns or overruns)."""
    others: dict[str, dict[str, Any]] = {}
    """For ``supervisor``, and ``sandbox`` if we started one: ``pid``, ``memory_bytes`` and
    ``cpu_seconds``."""


class StopSession(Message, frozen=True, array_like=True, tag=124):
    """Program to supervisor: end the session in order."""

    reason: str


class Confirm(Message, frozen=True, array_like=True, tag=126):
    """Program to supervisor: request for a `Confirmed`, once what was sent before is safe.

    It is safe when even the death of the supervisor does not undo it.
    """

    number: int


class Confirmed(Message, frozen=True, array_like=True, tag=127):
    """Supervisor to program: the answer to `Confirm`."""

    number: int


class Inject(Message, frozen=True, array_like=True, tag=125):
    """Program to one component: fail in this way; accepted only with `Settings.probes`."""

    component: str
    fault: str
    """One of `FAULTS`, or the name of a signal (``SIGKILL``), which the supervisor sends."""


FAULTS = {
    "raise": "its handler raises",
    "system-exit": "its handler raises SystemExit",
    "exit": "its process ends at once",
    "segfault": "it reads from address 0",
    "hang": "its handler does not return",
    "gil": "its handler keeps the interpreter's lock, so that no thread of it runs",
    "memory": "it uses all the memory that it is allowed",
    "raise-on-open": "its handler raises, and then its opening",
    "raise-on-close": "its handler raises, and then its closing",
    "torn-frame": "it is killed in the middle of a long message",
    "disk-full": "no file of its process can grow any more",
    "disk-free": "files can grow again",
    "disconnect": "its network connections break",
}
"""The faults that `Inject` can name, and their effects."""
