"""What a fork server and those who ask it for processes say to each other."""

from __future__ import annotations

import sys
from typing import ClassVar

import msgspec

if sys.platform == "linux":
    import resource

__all__ = [
    "ANSWER_BYTES",
    "FOLDER",
    "LIFELINE",
    "MAX_BYTES",
    "REQUESTS",
    "STAGES",
    "Answer",
    "Inherited",
    "Order",
    "Stage",
]

MAX_BYTES = 1 << 20
"""Longest datagram; the kernel takes less (``net.core.wmem_default``)."""
ANSWER_BYTES = 1024
"""Room for an `Answer`, which is a few bytes long."""
LIFELINE, FOLDER, REQUESTS = 3, 4, 5
"""Numbers of the descriptors that a forked child begins with, after its standard streams."""
_RESOURCES = 16
"""Limits that Linux has (getrlimit(2))."""


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """Modules that the fork server imports before it forks a child of this kind."""

    arguments: tuple[str, ...]
    """The first arguments of the child."""
    modules: tuple[str, ...]
    """With ``module:function``, the function is called too."""

    def is_for(self, arguments: tuple[str, ...]) -> bool:
        """Return whether a child with these arguments needs it."""
        return arguments[: len(self.arguments)] == self.arguments


STAGES = (
    Stage((), ("actors.host:warm_up", "random", "resource")),
    Stage(("rtvoice.peer",), ("rtvoice.hub:supervisor",)),
    Stage(("actors", "recorder"), ("actors.recorder",)),
    Stage(("actors", "history"), ("actors.history",)),
    Stage(("actors", "speaker"), ("actors.speaker", "actors.devices.silence")),
    Stage(("actors", "tools"), ("actors.tools.actor",)),
    Stage(
        ("actors", "realtime"),
        ("actors.realtime.actor", "actors.realtime.websocket", "encodings.idna"),
    ),
    Stage(("actors", "microphone"), ("actors.microphone", "actors.devices.own.program")),
)
"""In the order in which a session needs them."""


class Inherited(msgspec.Struct, frozen=True, array_like=True):
    """What a process inherits from the one that starts it, but for its environment and folder."""

    umask: int
    ignored: int
    """Ignored signals, as a mask: bit 0 is signal 1."""
    blocked: int
    """Blocked signals, as a mask."""
    limits: tuple[tuple[int, int], ...]
    """Soft and hard limits, by the number of the resource."""

    @classmethod
    def ours(cls) -> Inherited:
        """Return that of the calling thread; none of it is changed, as `os.umask` would do."""
        found = {}
        with open("/proc/thread-self/status", "rb") as status:  # noqa: PTH123 - at each start of a process
            for line in status:
                name, _, value = line.partition(b":")
                found[name] = value
        return cls(
            int(found[b"Umask"], 8),
            int(found[b"SigIgn"], 16),
            int(found[b"SigBlk"], 16),
            tuple(resource.getrlimit(number) for number in range(_RESOURCES)),
        )


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A request: fork a child that does what ``python -P -m ARGUMENTS`` would do.

    When its pid has been received, its environment is sent to the answers' socket, where only the
    child reads it. A child whose asker has gone, or does not wait any longer, ends there.
    """

    DESCRIPTORS: ClassVar = ("answers", "stdin", "stdout", "stderr", "lifeline", "folder")
    """The descriptors sent with the order."""

    arguments: tuple[str, ...]
    inherited: Inherited
    forks: bool
    """Whether the child may itself request children."""
    end_signal: int
    """The signal that the kernel sends to the process group of the child when the asker ends."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The fork server's answer: a pid; when the child has ended, its exit code too."""

    pid: int = 0
    code: int | None = None
    error: int = 0
    """Not 0: no child could be forked, because of this error of the system."""
