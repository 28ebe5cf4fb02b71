"""The life of a component: events in, actions out; no process, socket, thread or clock.

`Lifecycle.step` is given an event and a `Moment` (the time, and what the accounts say), and returns
the actions that the shell (`actors.supervision.child`) performs, in order. The table is the one
``match`` in `step`; pairs of event and phase that are not in it are ignored.

::

    NEW ─ Launch ─▶ LOADING ─ Loaded ─▶ LOADED ─ YourTurn ─▶ OPENING ─ Opened ─▶ OPEN
                       ▲                                       ▲                │
                       └────────── a new process ──┐           │                │ Raised, Ended
                                                 DOWN ─ the same process ◀──────┤
                                                   ▲                            ▼ too often
                                                   └────────────────────────  PARKED

    any phase ─ Close (no mail left), GiveUp ─▶ CLOSING ─ Ended ─▶ CLOSED
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

import msgspec

from actors.supervision.hub import SessionStage
from actors.supervision.restarting import RestartPolicy
from actors.supervision.specs import ChildSpec
from actors.supervision.steps import (
    Abandon,
    Action,
    AllSent,
    AwaitTurn,
    Blame,
    BlameState,
    Close,
    Ended,
    Fail,
    FailStart,
    GiveUp,
    Gone,
    Hung,
    Kill,
    KillHung,
    Launch,
    LifeEvent,
    Loaded,
    Note,
    NotLaunched,
    OpenActor,
    Opened,
    Raised,
    Reclaim,
    ReportCrash,
    ReportOpen,
    ReportParked,
    ReportRestart,
    Spawn,
    StopProcess,
    Tick,
    Wake,
    YourTurn,
)
from messages import Crashed

__all__ = ["MORE_TIME", "Lifecycle", "Moment", "Phase"]


MORE_TIME = (
    "a slow or busy machine may need more: --start-timeout SECONDS, or start_timeout_s of the Agent"
)


class Phase(enum.Enum):
    """How far a component is; the values are those of `Session.status`."""

    NEW = "new"
    LOADING = "loading"
    """A process imports the component."""
    LOADED = "loaded"
    """It has said what it accepts and awaits its turn to be opened."""
    OPENING = "opening"
    OPEN = "open"
    DOWN = "down"
    """No incarnation runs; one is started when its time has come."""
    PARKED = "parked"
    """It has crashed too often; it is tried again after a long while, or never."""
    CLOSING = "closing"
    """Its process has been told to stop, or killed; no incarnation follows."""
    CLOSED = "closed"


class Moment(NamedTuple):
    """The inputs of `Lifecycle.step` besides the event."""

    now: float
    """Seconds of a monotonic clock."""
    stage: SessionStage = SessionStage.RUNNING
    mail: bool = False
    """Whether messages of its own were sent to the component that it has not handled."""
    progress: bool = False
    """Whether this incarnation has made progress (`Watch.progress`)."""
    well_s: float = 0.0
    """Seconds for which this incarnation was open and not stuck."""
    start_s: float = math.inf
    """Time limit for loading, and for opening."""
    waited_s: float = 0.0
    """Seconds for which its process was ready to run and got no processor; they do not count."""


class _Downtime(msgspec.Struct):
    """Why no incarnation runs, from the first crash until one is open again."""

    since: float
    cause: str = ""
    fresh: bool = False
    """Whether the incarnation is being started in a new process."""
    renewal: bool = False
    """Whether the actor has asked for a new process (`actors.base.StartAnew`)."""


class Lifecycle:
    """What becomes of one component, from its launch until nothing of it is left.

    It keeps these laws, whatever happens in whatever order: there is never a second process; while
    the session runs, a component that is not parked for good always has a next step; once it was
    closed or given up and its process has ended, it is closed.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self.phase = Phase.NEW
        self.has_process = False
        """Whether there is a process: started and not reaped."""
        self.incarnation = 0
        """How often its actor was started."""
        self.restarts = 0
        """How often it came back after a crash."""
        self.asked_to_close = False
        self._spec = spec
        self._policy = RestartPolicy()
        self._was_open = False
        self._since = self._waited_s = 0.0
        """When the component began to load or to open, and `Moment.waited_s` at that time."""
        self._downtime: _Downtime | None = None
        self._due = math.inf
        """When the next start is due, while the component is down or parked."""
        self._reuses = False
        """Whether the next start reuses the present process."""

    def step(self, event: LifeEvent, at: Moment) -> list[Action]:
        """Return the actions that follow from an event, in order."""
        match event, self.phase:
            case _, Phase.CLOSED:
                return []

            # Coming up.
            case Launch(), Phase.NEW:
                return self._launch(at)
            case NotLaunched(why), Phase.LOADING:
                return self._not_launched(why, at)
            case Loaded(), Phase.LOADING if self.incarnation:
                return self._open(at) if self._is_needed(at) else self._finish()
            case Loaded(), Phase.LOADING:
                self.phase = Phase.LOADED
                return [AwaitTurn()]
            case YourTurn(), Phase.LOADED:
                return self._open(at)
            case Opened(), Phase.OPENING:
                return self._opened(at)
            case Tick(), Phase.LOADING | Phase.OPENING:
                return self._check_start(at)

            # Crashing.
            case Raised(crash), Phase.LOADING | Phase.OPENING | Phase.OPEN:
                return self._raised(crash, at)
            case Raised(crash), _:  # it is on its way out
                return [Note("WARNING", f"raised while closing: {crash.error}")]
            case Hung(quiet_s), Phase.LOADING | Phase.OPENING | Phase.OPEN:
                return [KillHung(f"hung for {quiet_s:.1f} s")]
            case Ended(), _:
                return self._ended(event, at)

            # Coming back.
            case Tick(), Phase.DOWN | Phase.PARKED if at.now >= self._due:
                return self._restart(at)

            # Closing.
            case Close(), _:
                self.asked_to_close = True
                stays = self.phase is not Phase.PARKED and self._is_needed(at)
                return [] if stays else self._finish()
            case AllSent(), Phase.OPEN if self.asked_to_close:
                return self._finish()
            case GiveUp(why), _:
                return [Kill(why), *self._finish(stop=False)]
        return []

    def forgive(self, now: float) -> None:
        """Restart its clock, because the supervisor itself did not run."""
        self._since = now

    def _is_needed(self, at: Moment) -> bool:
        """Return whether it should run: while the session ends, only as long as it has mail."""
        match at.stage:
            case SessionStage.STARTING | SessionStage.RUNNING:
                return True
            case (
                SessionStage.CANCELLED
            ):  # nothing is opened any more; what is open handles its mail
                return self.phase is Phase.OPEN and at.mail
            case SessionStage.ENDING:
                return not self.asked_to_close or at.mail

    # -- coming up ----------------------------------------------------------------------------

    def _launch(self, at: Moment) -> list[Action]:
        self.phase, self._since, self._waited_s = Phase.LOADING, at.now, 0.0
        self.has_process = True
        self._policy.started(at.now)
        return [Spawn()]

    def _not_launched(self, why: str, at: Moment) -> list[Action]:
        """Try again soon: the machine has no descriptors, processes or memory left just now."""
        self.has_process = False
        if at.stage is SessionStage.STARTING:
            return [*self._park(math.inf), FailStart(why, "")]
        delay = RestartPolicy.MAX_DELAY_S
        return [Note("WARNING", why), *self._wait(delay, at, reuse=False)]

    def _open(self, at: Moment, *, resumed: bool = False) -> list[Action]:
        self.phase, self._since, self._waited_s = Phase.OPENING, at.now, at.waited_s
        self.incarnation += 1
        self._policy.started(at.now)
        return [OpenActor(self.incarnation, not self._was_open, resumed)]

    def _opened(self, at: Moment) -> list[Action]:
        self.phase = Phase.OPEN
        self._was_open = True
        downtime, self._downtime = self._downtime, None
        if downtime is None:
            return [ReportOpen()]
        crashed = not downtime.renewal
        self.restarts += crashed
        after_s = at.now - downtime.since
        return [ReportRestart(downtime.cause, after_s, downtime.fresh, crashed), ReportOpen()]

    def _check_start(self, at: Moment) -> list[Action]:
        if at.now - self._since <= at.start_s + max(0.0, at.waited_s - self._waited_s):
            return []
        why = f"has not started within {at.start_s:g} s; {MORE_TIME}"
        if at.stage is SessionStage.STARTING:
            return [*self._park(math.inf), Kill(why), FailStart(why, "")]
        return [Kill(why)]

    # -- crashing -----------------------------------------------------------------------------

    def _raised(self, crash: Crashed, at: Moment) -> list[Action]:
        if crash.during == "close":
            return [Note("WARNING", f"raised while closing: {crash.error}")]
        again = self._downtime is not None and self._downtime.renewal
        if crash.during in ("import", "open") and at.stage in (
            SessionStage.STARTING,
            SessionStage.CANCELLED,
        ):
            if again or not crash.renews:  # a new process may help once, not for ever
                return [*self._park(math.inf), FailStart(crash.error, crash.traceback)]
        if crash.during == "import":  # its process ends, which is the crash
            return [Blame(f"cannot be imported: {crash.error}", crash.traceback)]
        if crash.renews:
            return self._renew(crash.error, at)
        blamed: list[Action] = [BlameState()] if crash.during == "open" else []
        cause = crash.error if crash.plain else f"raised {crash.error}"
        return [*blamed, *self._crashed(cause, crash.traceback, at, spent=crash.spent)]

    def _renew(self, cause: str, at: Moment) -> list[Action]:
        """Replace its process, as its actor has asked for: no crash, and never given up."""
        down = self._go_down(cause, at.now, renewal=True)
        delay = self._policy.renewed(at.now)
        return [*down, *self._wait(delay, at, reuse=False), Kill()]

    def _ended(self, event: Ended, at: Moment) -> list[Action]:
        self.has_process = False
        if self.phase is Phase.CLOSING or not self._is_needed(at):
            if self.phase is Phase.CLOSING and event.in_order:
                return self._close()
            level = "DEBUG" if at.stage is SessionStage.CANCELLED else "WARNING"
            return [Note(level, f"ended while stopping: {event.cause}"), *self._close()]
        if self.phase in (Phase.DOWN, Phase.PARKED):  # as expected
            self._reuses = False
            return self._restart(at) if at.now >= self._due else []
        blamed: list[Action] = []
        if self.phase is Phase.OPENING and not event.killed_from_outside:
            blamed = [BlameState()]
        return [*blamed, *self._crashed(event.cause, event.trace, at)]

    def _crashed(self, cause: str, trace: str, at: Moment, *, spent: bool = False) -> list[Action]:
        """Account for the death of an incarnation, and decide when the next one starts.

        Args:
            cause: The cause in one line.
            trace: Traceback or stacks; empty: unknown.
            at: The moment of the death.
            spent: Whether its process, if that lives, must not be used again.
        """
        well_s = at.well_s if self.phase is Phase.OPEN else 0.0
        delay = self._policy.crashed(at.now, progress=at.progress, well_s=well_s)
        report = [ReportCrash(cause, trace), *self._go_down(cause, at.now)]
        if delay is None:
            return [*report, *self._exceeded(cause, trace, at)]
        # Out of memory, or a third raise in a row: the process itself may be at fault.
        reuse = self.has_process and not spent and self._policy.soft()
        return [*report, *self._end_process(reuse), *self._wait(delay, at, reuse=reuse)]

    def _go_down(self, cause: str, now: float, *, renewal: bool = False) -> list[Action]:
        self.phase = Phase.DOWN
        if self._downtime is None:
            self._downtime = _Downtime(now)
        self._downtime.cause, self._downtime.renewal = cause, renewal
        return [Reclaim(cause)]

    def _exceeded(self, cause: str, trace: str, at: Moment) -> list[Action]:
        """Give up what crashes too often: for a while or, what is essential, with the session."""
        match at.stage:
            case SessionStage.ENDING | SessionStage.CANCELLED:
                return self._finish()
            case SessionStage.STARTING:
                return [*self._park(math.inf), FailStart(cause, trace)]
        if self._spec.essential:
            return [*self._park(math.inf), Fail(f"{self._spec.name} keeps crashing: {cause}")]
        delay = self._policy.parked()
        park, end = self._park(at.now + delay), self._end_process(reuse=False)
        return [ReportParked(cause, delay), *park, *end, Wake(delay)]

    def _park(self, until: float) -> list[Action]:
        self.phase, self._due, self._reuses = Phase.PARKED, until, False
        return []

    def _end_process(self, reuse: bool) -> list[Action]:
        if reuse or not self.has_process:
            return []
        return [StopProcess("a new process takes over", patience=True)]

    # -- coming back --------------------------------------------------------------------------

    def _wait(self, delay: float, at: Moment, *, reuse: bool) -> list[Action]:
        self.phase, self._due, self._reuses = Phase.DOWN, at.now + delay, reuse
        return [Wake(delay)] if delay > 0 else self._restart(at)

    def _restart(self, at: Moment) -> list[Action]:
        """Start the next incarnation, which is due; not beside a process that has yet to end."""
        if not self._is_needed(at):
            return self._finish()
        if self._downtime is not None:
            self._downtime.fresh = not self._reuses
        if self._reuses:
            return self._open(at, resumed=True)
        if self.has_process and self.phase is Phase.DOWN:
            return []  # `Ended` follows
        abandoned: list[Action] = [Abandon()] if self.has_process else []
        return [*abandoned, *self._launch(at)]

    # -- closing ------------------------------------------------------------------------------

    def _finish(self, *, stop: bool = True) -> list[Action]:
        """Start no further incarnation; end the process, if there is one."""
        if not self.has_process:
            return self._close()
        self.phase = Phase.CLOSING
        return [StopProcess("the session ends")] if stop else []

    def _close(self) -> list[Action]:
        self.phase = Phase.CLOSED
        return [Gone()]
