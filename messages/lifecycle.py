"""Messages between the supervisor and a component's process (tags 1-19); actors never see them."""

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
"""Log levels with the numbers of `logging`; a library's own level counts as the next lower one."""


def level_of(name: str) -> int:
    """Return the number of a level; an unknown level counts as INFO."""
    return LEVELS.get(name, LEVELS["INFO"])


def level_name(number: int) -> str:
    """Return the name of the highest level that is not above ``number``."""
    fitting = [name for name, level in LEVELS.items() if level <= number]
    return fitting[-1] if fitting else "DEBUG"


class Init(Message, frozen=True, array_like=True, tag=1):
    """Hub to child, once per process: what to import, and where the accounting page is."""

    name: str
    target: str
    """``module:Class`` of the actor."""
    page_path: str
    """The accounting page, a mapped file shared by the hub and all children of a session."""
    slot: int
    """Index of this child's slot in the page."""
    agent: str | None = None
    """``module:attr`` or ``file.py:attr`` of the user's agent, for the component that loads it."""
    log_level: str = "INFO"
    probes: bool = False
    """Whether the child accepts fault injection."""
    memory_mib: int = 0
    """Memory limit of the process; 0: no limit."""
    import_path: tuple[str, ...] = ()
    """`Settings.import_path`, which is needed before the other settings are known."""
    loads: tuple[str, ...] = ()
    """``module:attr`` or ``file.py:attr`` of what the component will load of the user's."""


class Hello(Message, frozen=True, array_like=True, tag=2):
    """Child to hub: the target is imported; the message types that it accepts."""

    pid: int
    accepts: tuple[tuple[int, Rule], ...]
    """Tag and overflow rule of each type."""
    described: msgspec.Raw = msgspec.Raw(b"\xc0")
    """Settings of the user's agent as a msgpack map, from the component that loads it; else nil."""


class Open(Message, frozen=True, array_like=True, tag=3):
    """Hub to child: start an incarnation of the actor."""

    incarnation: int
    settings: msgspec.Raw
    """`Settings`."""
    session: msgspec.Raw
    """`SessionInfo`."""
    state: bytes | None = None
    """State that an earlier incarnation saved last with `Actor.save`; None: there is none."""
    resumed: bool = False
    """Whether an earlier incarnation ran in the same process, so that `Actor.keep` is filled."""
    wanted: tuple[int, ...] = ()
    """See `Wanted`."""


class Ready(Message, frozen=True, array_like=True, tag=4):
    """Child to hub: ``opened()`` has returned; the actor is ready for mail."""


class Crashed(Message, frozen=True, array_like=True, tag=5):
    """Child to hub: the actor raised; its process continues and waits for `Open`, or ends."""

    error: str
    traceback: str
    during: str
    """``import``, ``open``, ``handle`` or ``close``."""
    spent: bool = False
    """Whether the process is out of memory, so that it must not be used again."""
    plain: bool = False
    """Whether ``error`` is a sentence for the user (`UserError`)."""
    renews: bool = False
    """Whether the actor asked for a new process (`actors.base.StartAnew`), which is not a crash."""


class Stop(Message, frozen=True, array_like=True, tag=6):
    """Hub to child: close and end, after the mail sent before has been handled."""

    reason: str


class Ping(Message, frozen=True, array_like=True, tag=7):
    """Hub to child, through the mailbox: a liveness probe; it is answered by being handled."""

    attempts = 1_000_000


class Room(Message, frozen=True, array_like=True, tag=8):
    """Child to hub: the child has handled the number of messages at which the hub wants waking."""


class Save(Message, frozen=True, array_like=True, tag=9):
    """Child to hub: the state to pass to the next incarnation."""

    state: bytes


class Log(Message, frozen=True, array_like=True, tag=10):
    """Child to hub: a log record, which the supervisor or the embedding program renders."""

    urgent = True
    level: str
    text: str
    fields: dict[str, msgspec.Raw] = {}
    component: str = ""


class Wanted(Message, frozen=True, array_like=True, tag=11):
    """Hub to child and program: which messages are wanted from now on.

    Those that are sent on demand only, if anybody accepts them, and those that one component is
    sent ahead (`Rule.direct`), if others wait for them too.
    """

    attempts = 1_000_000
    tags: tuple[int, ...]
