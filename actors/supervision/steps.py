"""The events and actions of `Lifecycle`: what can happen to a component, and what to do."""

from __future__ import annotations

import msgspec

from messages import Crashed

__all__ = [
    "Abandon",
    "Action",
    "AllSent",
    "AwaitTurn",
    "Blame",
    "BlameState",
    "Close",
    "Ended",
    "Fail",
    "FailStart",
    "GiveUp",
    "Gone",
    "Hung",
    "Kill",
    "KillHung",
    "Launch",
    "LifeEvent",
    "Loaded",
    "NotLaunched",
    "Note",
    "OpenActor",
    "Opened",
    "Raised",
    "Reclaim",
    "ReportCrash",
    "ReportOpen",
    "ReportParked",
    "ReportRestart",
    "Spawn",
    "StopProcess",
    "Tick",
    "Wake",
    "YourTurn",
]


class LifeEvent(msgspec.Struct, frozen=True):
    """Something has happened to a component."""


class Action(msgspec.Struct, frozen=True):
    """Something is to be done about a component."""


# -- what happens -----------------------------------------------------------------------------


class Launch(LifeEvent, frozen=True):
    """The session wants the component."""


class NotLaunched(LifeEvent, frozen=True):
    """The system has refused a process."""

    why: str


class Loaded(LifeEvent, frozen=True):
    """The process has imported the component."""


class YourTurn(LifeEvent, frozen=True):
    """Everything that has to be open before this component is open."""


class Opened(LifeEvent, frozen=True):
    """Its actor is open."""


class Raised(LifeEvent, frozen=True):
    """Its actor, or the import of it, has raised; the process lives."""

    crash: Crashed


class Ended(LifeEvent, frozen=True):
    """Its process has ended and is reaped."""

    cause: str
    """In one line."""
    trace: str
    """Where it was, if that is known."""
    killed_from_outside: bool = False
    """Whether a signal ended it that is neither ours nor its own fault."""
    in_order: bool = False
    """Whether it ended by itself, without an error."""


class Hung(LifeEvent, frozen=True):
    """It has shown no sign of life for too long."""

    quiet_s: float


class Tick(LifeEvent, frozen=True):
    """Time has passed."""


class AllSent(LifeEvent, frozen=True):
    """No mail of its own waits to be sent to it any more."""


class Close(LifeEvent, frozen=True):
    """It is its turn to close: its mail is handled first."""


class GiveUp(LifeEvent, frozen=True):
    """It has to end at once, whatever it is doing."""

    why: str


# -- what is to be done -----------------------------------------------------------------------


class Spawn(Action, frozen=True):
    """Start a process; there is none."""


class OpenActor(Action, frozen=True):
    """Start an incarnation in the process that is there."""

    incarnation: int
    first: bool
    """Whether none has ever been open."""
    resumed: bool
    """Whether the one before ran in the same process."""


class AwaitTurn(Action, frozen=True):
    """Tell the hub that the component can be opened when its turn has come."""


class ReportOpen(Action, frozen=True):
    """Tell the hub that it is open, and send its mail."""


class StopProcess(Action, frozen=True):
    """Have the process close the actor and end."""

    why: str
    patience: bool = False
    """Whether to kill it if it takes too long; else whoever closes the session sees to that."""


class Kill(Action, frozen=True):
    """End the process at once. With a reason: that is why it died."""

    why: str = ""


class KillHung(Action, frozen=True):
    """End the process, after it has shown where it is stuck."""

    why: str


class Abandon(Action, frozen=True):
    """End the process and wait for that; no `Ended` follows."""


class Blame(Action, frozen=True):
    """Note why the process is about to end by itself."""

    why: str
    trace: str


class BlameState(Action, frozen=True):
    """Note that it died while opening: its saved state may be at fault."""


class Reclaim(Action, frozen=True):
    """Take back what it has not handled."""

    cause: str


class ReportCrash(Action, frozen=True):
    """Publish that it has crashed."""

    cause: str
    trace: str


class ReportRestart(Action, frozen=True):
    """Publish that it is back."""

    cause: str
    after_s: float
    fresh: bool
    """Whether in a new process."""
    crashed: bool
    """Whether it had crashed; else it had asked for a new process."""


class ReportParked(Action, frozen=True):
    """Publish that it is not tried again for a while."""

    cause: str
    retry_s: float


class Fail(Action, frozen=True):
    """End the session: it cannot go on without the component."""

    reason: str


class FailStart(Action, frozen=True):
    """End a session that has not begun."""

    error: str
    trace: str


class Note(Action, frozen=True):
    """Log a line."""

    level: str
    text: str


class Wake(Action, frozen=True):
    """Let a `Tick` come after so many seconds."""

    seconds: float


class Gone(Action, frozen=True):
    """Tell the hub that nothing is left of it."""
