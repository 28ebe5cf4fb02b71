"""The child specs: name and class of each component, in start order; nothing is imported."""

from __future__ import annotations

import msgspec

__all__ = ["SPECS", "ChildSpec"]


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor knows about a component before it starts it."""

    name: str
    target: str
    """``module:Class`` of the actor."""
    essential: bool = False
    """Whether the session fails when the component exceeds its restart intensity."""
    needs: str | None = None
    """The setting without which it has nothing to do and is sent nothing; None: none."""
    loads: tuple[str, ...] = ()
    """The settings that may name something of the user's that it loads."""
    prompt: bool = False
    """Whether the user waits for what it does: messages are delivered to it before the others."""
    linger_s: float = 0.0
    """Audio is collected this long before it is sent, to wake the component less often."""
    linger_messages: int = 10
    """Audio is sent at once when this many messages wait."""
    window: int = 8
    """At most this many messages are in flight: sent and not handled."""
    memory_mib: int | None = None
    """Memory limit of its process; None: `Settings.memory_limit_mib`, as for user code."""


_OURS_MIB = 512
"""Memory limit of our own components, which use 60 to 150 MiB, thread stacks included."""

SPECS = (
    ChildSpec(
        name="recorder",
        target="actors.recorder:Recorder",
        needs="recording_path",
        linger_s=0.2,
        window=20,
        memory_mib=_OURS_MIB,
    ),
    ChildSpec(name="history", target="actors.history:History", memory_mib=_OURS_MIB),
    ChildSpec(
        name="speaker",
        target="actors.speaker:Speaker",
        loads=("output",),
        prompt=True,
        memory_mib=_OURS_MIB,
    ),
    ChildSpec(
        name="tools",
        target="actors.tools.actor:ToolExecutor",
        loads=("named_tools",),
        prompt=True,
    ),
    ChildSpec(
        name="realtime",
        target="actors.realtime.actor:Realtime",
        essential=True,
        prompt=True,
        memory_mib=_OURS_MIB,
    ),
    ChildSpec(
        name="microphone",
        target="actors.microphone:Microphone",
        loads=("input",),
        prompt=True,
        memory_mib=_OURS_MIB,
    ),
)
"""In the order of opening; closed in reverse."""
