"""Between a program and the supervisor (tags 120-139)."""

from __future__ import annotations

from typing import Any

import msgspec

from messages.base import Message

__all__ = [
    "FAULTS",
    "INACTIVITY_TIMEOUT",
    "Inject",
    "SessionInfo",
    "StartSession",
    "Status",
    "StatusRequest",
    "StopSession",
    "Subscribe",
]

INACTIVITY_TIMEOUT = "inactivity timeout"
"""The reason of a session that has ended because nobody had spoken."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor knows only once the session runs."""

    epoch_ns: int
    """``time.monotonic_ns()`` of sample 0 of the session timeline."""
    directory: str
    """A directory of the session's own, deleted at its end."""
    server_url: str = ""
    """Where realtime connects to."""
    first: bool = True
    """Whether this component is opened for the first time in this session."""


class StartSession(Message, frozen=True, array_like=True, tag=120):
    """Program to supervisor, its first message."""

    settings: dict[str, Any]
    """Fields of `Settings` as plain values; what is absent is the agent's or the default."""
    subscribe: tuple[int, ...] = ()


class Subscribe(Message, frozen=True, array_like=True, tag=121):
    """Program to supervisor: the tags of the messages it wants from now on."""

    tags: tuple[int, ...]


class StatusRequest(Message, frozen=True, array_like=True, tag=122):
    """Program to supervisor: how are the components?"""

    call_id: int


class Status(Message, frozen=True, array_like=True, tag=123):
    """Supervisor to program, the answer to `StatusRequest`."""

    call_id: int
    components: dict[str, dict[str, Any]]
    """Per component: ``pid``, ``state``, ``restarts``, ``mailbox``, ``dropped``, ``handled``,
    ``memory_bytes`` (resident; None where the system does not tell), ``faltered`` (how often its
    sound did)."""


class StopSession(Message, frozen=True, array_like=True, tag=124):
    """Program to supervisor: end the session in order."""

    reason: str


class Inject(Message, frozen=True, array_like=True, tag=125):
    """Program to one component, accepted only with `Settings.probes`: fail in this way."""

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
    "memory": "it uses all the memory that it may",
    "raise-on-open": "its handler raises, and then its opening",
    "raise-on-close": "its handler raises, and then its closing",
    "torn-frame": "it is killed in the middle of a long message",
    "disk-full": "no file of its process can grow any more",
    "disk-free": "files can grow again",
}
"""What `Inject` can name."""
