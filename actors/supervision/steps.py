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
    """Everything that must be open before this component is open."""


class Opened(LifeEvent, frozen=True):
    """Its actor is open."""


class Raised(LifeEvent, frozen=True):
    """Its actor, or the import of it, has raised; the process lives."""

    crash: Crashed


class Ended(LifeEvent, frozen=True):
    """Its process has ended and is reaped."""

    cause: str
    """The cause in one line."""
    trace: str
    """Traceback or stacks; empty: unknown."""
    killed_from_outside: bool = False
    """Whether SIGKILL or SIGTERM ended the process, and the supervisor had not sent it."""
    in_order: bool = False
    """Whether the process ended with exit code 0 and no failure is known."""


class Hung(LifeEvent, frozen=True):
    """The component has shown no sign of life for too long."""

    quiet_s: float


class Tick(LifeEvent, frozen=True):
    """Time has passed."""


class AllSent(LifeEvent, frozen=True):
    """All mail of its own was sent to the component."""


class Close(LifeEvent, frozen=True):
    """The component must close, after it has handled its mail."""


class GiveUp(LifeEvent, frozen=True):
    """The component must end at once, whatever it is doing."""

    why: str


# -- what is to be done -----------------------------------------------------------------------


class Spawn(Action, frozen=True):
    """Start a process; there is none."""


class OpenActor(Action, frozen=True):
    """Start an incarnation in the process that is there."""

    incarnation: int
    first: bool
    """Whether no incarnation has ever been open."""
    resumed: bool
    """Whether the incarnation before ran in the same process."""


class AwaitTurn(Action, frozen=True):
    """Tell the hub that the component can be opened when its turn has come."""


class ReportOpen(Action, frozen=True):
    """Tell the hub that the component is open, and send its mail."""


class StopProcess(Action, frozen=True):
    """Have the process close the actor and end."""

    why: str
    patience: bool = False
    """Whether to kill the process if it takes too long; otherwise `Shutdown` does that."""


class Kill(Action, frozen=True):
    """End the process at once; ``why``, if given, becomes the cause of its death."""

    why: str = ""


class KillHung(Action, frozen=True):
    """End the process after it has written its stacks."""

    why: str


class Abandon(Action, frozen=True):
    """End the process and wait for that; no `Ended` follows."""


class Blame(Action, frozen=True):
    """Note why the process is about to end by itself."""

    why: str
    trace: str


class BlameState(Action, frozen=True):
    """Note that the actor died while opening: its saved state may be at fault."""


class Reclaim(Action, frozen=True):
    """Take back the messages that the incarnation has not handled."""

    cause: str


class ReportCrash(Action, frozen=True):
    """Publish that the component has crashed."""

    cause: str
    trace: str


class ReportRestart(Action, frozen=True):
    """Publish that the component is open again."""

    cause: str
    after_s: float
    fresh: bool
    """Whether the component is in a new process."""
    crashed: bool
    """Whether the component had crashed; otherwise it had asked for a new process."""


class ReportParked(Action, frozen=True):
    """Publish that the component is backing off."""

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
