"""Between the supervisor and the process of a component (tags 1-19). No actor sees these."""

from __future__ import annotations

import msgspec

from messages.base import Message
from messages.rules import Rule

__all__ = [
    "LEVELS",
    "Crashed",
    "Hello",
    "Init",
    "Log",
    "Open",
    "Ping",
    "Ready",
    "Room",
    "Save",
    "Stop",
    "Wanted",
    "level_name",
    "level_of",
]

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
"""Log levels as `logging` numbers them. Others, which a library may have, stay where they are."""


def level_of(name: str) -> int:
    """Return the number of a level; of one that nobody knows here, that of INFO."""
    return LEVELS.get(name, LEVELS["INFO"])


def level_name(number: int) -> str:
    """Return the highest level that is not above ``number``."""
    fitting = [name for name, level in LEVELS.items() if level <= number]
    return fitting[-1] if fitting else "DEBUG"


class Init(Message, frozen=True, array_like=True, tag=1):
    """Hub to child, once a process: what to import and where to keep accounts."""

    name: str
    target: str
    """``module:Class`` of the actor."""
    page_path: str
    """The accounting page, a mapped file shared by the hub and all children of a session."""
    slot: int
    """Which slot of the page is this child's."""
    agent: str | None = None
    """``module:attr`` or ``file.py:attr`` of the user's agent, for the component that loads it."""
    log_level: str = "INFO"
    probes: bool = False
    """Whether fault injection is answered."""
    memory_mib: int = 0
    """What the process may use; 0: as much as there is."""
    import_path: tuple[str, ...] = ()
    """`Settings.import_path`, known before the rest of the settings."""


class Hello(Message, frozen=True, array_like=True, tag=2):
    """Child to hub: the target is imported; this is what it accepts."""

    pid: int
    accepts: tuple[tuple[int, Rule], ...]
    described: msgspec.Raw = msgspec.Raw(b"\xc0")
    """Settings found while importing, as a msgpack map (of the agent, by the one that loads it)."""


class Open(Message, frozen=True, array_like=True, tag=3):
    """Hub to child: start an incarnation of the actor."""

    incarnation: int
    settings: msgspec.Raw
    """`Settings`."""
    session: msgspec.Raw
    """`SessionInfo`."""
    state: bytes | None = None
    """What the incarnation before last passed to `Actor.save`; None at first."""
    resumed: bool = False
    """Whether an incarnation in the same process came before, so that `Actor.keep` is filled."""
    wanted: tuple[int, ...] = ()
    """See `Wanted`."""


class Ready(Message, frozen=True, array_like=True, tag=4):
    """Child to hub: ``opened()`` has returned; mail may come."""


class Crashed(Message, frozen=True, array_like=True, tag=5):
    """Child to hub: the actor raised. The process lives on and awaits `Open`, or ends."""

    error: str
    traceback: str
    during: str
    """``import``, ``open``, ``handle`` or ``close``."""
    spent: bool = False
    """Whether the process is not to be used again: it is out of memory."""
    plain: bool = False
    """Whether ``error`` is a sentence for the user (`UserError`)."""
    renews: bool = False
    """Whether this is no crash: the actor wants a new process (`actors.base.StartAnew`)."""


class Stop(Message, frozen=True, array_like=True, tag=6):
    """Hub to child: close and end; what was sent before is handled first."""

    reason: str


class Ping(Message, frozen=True, array_like=True, tag=7):
    """Hub to child, through the mailbox: it counts as handled, which is the answer."""

    attempts = 1_000_000


class Room(Message, frozen=True, array_like=True, tag=8):
    """Child to hub: as many messages are handled as the hub asked to be woken at."""


class Save(Message, frozen=True, array_like=True, tag=9):
    """Child to hub: state that the next incarnation shall be given."""

    state: bytes


class Log(Message, frozen=True, array_like=True, tag=10):
    """Child to hub: one log record, rendered by the supervisor or by the embedding program."""

    level: str
    text: str
    fields: dict[str, msgspec.Raw] = {}
    component: str = ""


class Wanted(Message, frozen=True, array_like=True, tag=11):
    """Hub to child: which messages that are sent on demand only somebody wants from now on."""

    attempts = 1_000_000
    tags: tuple[int, ...]
