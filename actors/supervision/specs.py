"""Who there is: the components, named and not imported, in the order of opening."""

from __future__ import annotations

import msgspec

__all__ = ["SPECS", "ChildSpec"]


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor knows of a component before it has started it."""

    name: str
    target: str
    """``module:Class`` of the actor."""
    essential: bool = False
    """Whether the session fails when it cannot be kept up."""
    linger_s: float = 0.0
    """Audio for it is collected for so long, to wake it less often."""
    linger_messages: int = 10
    window: int = 8
    """Messages sent and not yet handled, at most."""
    memory_mib: int | None = None
    """What its process may use; None: `Settings.memory_limit_mib`, as for code of the user's."""


_OURS_MIB = 512
"""Ours use 60 to 150 MiB of data, thread stacks included."""

SPECS = (
    ChildSpec(
        name="recorder",
        target="actors.recorder:Recorder",
        linger_s=0.2,
        window=20,
        memory_mib=_OURS_MIB,
    ),
    ChildSpec(name="history", target="actors.history:History", memory_mib=_OURS_MIB),
    ChildSpec(name="speaker", target="actors.speaker:Speaker", memory_mib=_OURS_MIB),
    ChildSpec(name="tools", target="actors.tools.actor:ToolExecutor"),
    ChildSpec(
        name="realtime",
        target="actors.realtime.actor:Realtime",
        essential=True,
        memory_mib=_OURS_MIB,
    ),
    ChildSpec(name="microphone", target="actors.microphone:Microphone", memory_mib=_OURS_MIB),
)
"""In the order of opening; closed in reverse."""
