"""The lifecycle of a component: a table of events and phases, and laws over random lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.supervision.hub import SessionStage
from actors.supervision.lifecycle import MORE_TIME, Lifecycle, Moment, Phase
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

KILLED = Ended("killed by SIGKILL", "", killed_from_outside=True)
FAULT = Ended("killed by SIGSEGV", "the stacks")
DONE = Ended("exited with code 0", "", in_order=True)


def raised(during: str = "handle", **fields: bool) -> Raised:
    return Raised(Crashed("ValueError: no", "the traceback", during, **fields))


class Life:
    """A lifecycle with a clock that the test moves, in a session at one stage."""

    def __init__(
        self, stage: SessionStage = SessionStage.RUNNING, *, essential: bool = False
    ) -> None:
        self.life = Lifecycle(ChildSpec(name="echo", target="", essential=essential))
        self.stage = stage
        self.now = 100.0
        self.mail = self.progress = False

    def step(self, event: LifeEvent, after_s: float = 1.0) -> list[Action]:
        """Let an event happen, by default a second after the one before."""
        self.now += after_s
        at = Moment(self.now, self.stage, self.mail, self.progress, well_s=0.5, start_s=15.0)
        return self.life.step(event, at)

    def until(self, phase: Phase) -> Life:
        """Lead it to a phase by the shortest way."""
        lead = [Launch(), Loaded(), YourTurn(), Opened()]
        for event in lead:
            if self.life.phase is phase:
                return self
            self.step(event)
        if phase is Phase.DOWN:
            self.step(KILLED)
            self.step(KILLED, 0)
            while self.life.phase is not Phase.DOWN:
                for event in (Loaded(), Opened(), KILLED):
                    self.step(event, 0)
        elif phase is Phase.PARKED:
            while self.life.phase is not Phase.PARKED:
                for event in (Tick(), Loaded(), KILLED):
                    self.step(event)
        elif phase is Phase.CLOSING:
            self.step(Close())
            self.stage = SessionStage.ENDING
            self.step(AllSent())
        elif phase is Phase.CLOSED:
            self.step(GiveUp("over"))
            self.step(DONE)
        assert self.life.phase is phase
        return self


COMING_UP: list[tuple[Phase, LifeEvent, list[Action], Phase]] = [
    (Phase.NEW, Launch(), [Spawn()], Phase.LOADING),
    (Phase.LOADING, Loaded(), [AwaitTurn()], Phase.LOADED),
    (Phase.LOADED, YourTurn(), [OpenActor(1, first=True, resumed=False)], Phase.OPENING),
    (Phase.OPENING, Opened(), [ReportOpen()], Phase.OPEN),
    (Phase.LOADING, Tick(), [], Phase.LOADING),
    (Phase.OPENING, Tick(), [], Phase.OPENING),
    (Phase.OPEN, Tick(), [], Phase.OPEN),
    (Phase.OPEN, Hung(3.25), [KillHung("hung for 3.2 s")], Phase.OPEN),
    (
        Phase.LOADING,
        NotLaunched("no process can be started"),
        [Note("WARNING", "no process can be started"), Wake(2.0)],
        Phase.DOWN,
    ),
    (
        Phase.LOADING,
        raised("import"),
        [Blame("cannot be imported: ValueError: no", "the traceback")],
        Phase.LOADING,
    ),
]

CRASHING: list[tuple[Phase, LifeEvent, list[Action], Phase]] = [
    (
        Phase.OPEN,
        raised(),
        [
            ReportCrash("raised ValueError: no", "the traceback"),
            Reclaim("raised ValueError: no"),
            OpenActor(2, first=False, resumed=True),
        ],
        Phase.OPENING,
    ),
    (
        Phase.OPEN,
        raised(plain=True),
        [
            ReportCrash("ValueError: no", "the traceback"),
            Reclaim("ValueError: no"),
            OpenActor(2, first=False, resumed=True),
        ],
        Phase.OPENING,
    ),
    (
        Phase.OPEN,
        raised(spent=True),
        [
            ReportCrash("raised ValueError: no", "the traceback"),
            Reclaim("raised ValueError: no"),
            StopProcess("a new process takes over", patience=True),
        ],
        Phase.DOWN,
    ),
    (Phase.OPEN, raised(renews=True), [Reclaim("ValueError: no"), Kill()], Phase.DOWN),
    (
        Phase.OPENING,
        raised("open"),
        [
            BlameState(),
            ReportCrash("raised ValueError: no", "the traceback"),
            Reclaim("raised ValueError: no"),
            OpenActor(2, first=True, resumed=True),
        ],
        Phase.OPENING,
    ),
    (
        Phase.OPEN,
        KILLED,
        [ReportCrash("killed by SIGKILL", ""), Reclaim("killed by SIGKILL"), Spawn()],
        Phase.LOADING,
    ),
    (
        Phase.OPENING,
        KILLED,
        [ReportCrash("killed by SIGKILL", ""), Reclaim("killed by SIGKILL"), Spawn()],
        Phase.LOADING,
    ),
    (
        Phase.OPENING,
        FAULT,
        [
            BlameState(),
            ReportCrash("killed by SIGSEGV", "the stacks"),
            Reclaim("killed by SIGSEGV"),
            Spawn(),
        ],
        Phase.LOADING,
    ),
    (
        Phase.LOADED,
        KILLED,
        [ReportCrash("killed by SIGKILL", ""), Reclaim("killed by SIGKILL"), Spawn()],
        Phase.LOADING,
    ),
]

CLOSING: list[tuple[Phase, LifeEvent, list[Action], Phase]] = [
    (Phase.NEW, Close(), [Gone()], Phase.CLOSED),
    (Phase.LOADING, Close(), [StopProcess("the session ends")], Phase.CLOSING),
    (Phase.OPEN, Close(), [StopProcess("the session ends")], Phase.CLOSING),
    (Phase.DOWN, Close(), [Gone()], Phase.CLOSED),
    (Phase.PARKED, Close(), [Gone()], Phase.CLOSED),
    (Phase.NEW, GiveUp("why"), [Kill("why"), Gone()], Phase.CLOSED),
    (Phase.OPEN, GiveUp("why"), [Kill("why")], Phase.CLOSING),
    (Phase.CLOSING, GiveUp("why"), [Kill("why")], Phase.CLOSING),
    (Phase.CLOSING, DONE, [Gone()], Phase.CLOSED),
    (
        Phase.CLOSING,
        KILLED,
        [Note("WARNING", "ended while stopping: killed by SIGKILL"), Gone()],
        Phase.CLOSED,
    ),
    (
        Phase.CLOSING,
        raised("close"),
        [Note("WARNING", "raised while closing: ValueError: no")],
        Phase.CLOSING,
    ),
    (Phase.CLOSED, GiveUp("why"), [], Phase.CLOSED),
]


def named(row: tuple[Phase, LifeEvent, list[Action], Phase]) -> str:
    return f"{row[0].value}-{type(row[1]).__name__}"


@pytest.mark.parametrize("row", [*COMING_UP, *CRASHING], ids=named)
def test_each_event_in_each_phase_while_the_session_runs(
    row: tuple[Phase, LifeEvent, list[Action], Phase],
) -> None:
    phase, event, actions, after = row
    it = Life().until(phase)

    assert it.step(event) == actions
    assert it.life.phase is after


@pytest.mark.parametrize("row", CLOSING, ids=named)
def test_each_event_in_each_phase_while_the_session_ends(
    row: tuple[Phase, LifeEvent, list[Action], Phase],
) -> None:
    phase, event, actions, after = row
    it = Life().until(phase)
    it.stage = SessionStage.ENDING

    assert it.step(event) == actions
    assert it.life.phase is after


@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.value)
def test_events_that_mean_nothing_in_a_phase_change_nothing(phase: Phase) -> None:
    meant = {
        Phase.NEW: {Launch},
        Phase.LOADING: {Loaded, NotLaunched, Raised, Hung, Ended},
        Phase.LOADED: {YourTurn, Ended},
        Phase.OPENING: {Opened, Raised, Hung, Ended},
        Phase.OPEN: {Raised, Hung, Ended},
        Phase.DOWN: {Tick},
        Phase.PARKED: {Tick},
        Phase.CLOSING: {Ended},
    }
    others = [Launch(), Loaded(), YourTurn(), Opened(), NotLaunched("no"), Hung(9), AllSent()]

    for event in others:
        if type(event) not in meant.get(phase, set()):
            it = Life().until(phase)
            assert it.step(event) == [], event
            assert it.life.phase is phase, event


def test_it_comes_back_with_the_time_it_was_away() -> None:
    it = Life().until(Phase.OPEN)
    it.step(KILLED)
    it.step(Loaded(), 0.5)

    assert it.step(Opened(), 0.25) == [
        ReportRestart("killed by SIGKILL", 0.75, fresh=True, crashed=True),
        ReportOpen(),
    ]
    assert it.life.restarts == 1


def test_it_is_away_from_the_first_crash_until_it_is_open_again() -> None:
    it = Life().until(Phase.OPEN)
    it.step(KILLED)
    it.step(FAULT, 0.5)
    it.step(Tick(), 0.1)
    it.step(Loaded(), 0.4)

    assert it.step(Opened(), 0.25)[0] == ReportRestart("killed by SIGSEGV", 1.25, True, True)


def test_a_parked_one_is_not_started_again_for_its_mail_while_the_session_ends() -> None:
    it = Life().until(Phase.PARKED)
    it.stage, it.mail = SessionStage.ENDING, True

    assert it.step(Close()) == [Gone()]


def test_asking_for_a_new_process_is_not_a_crash() -> None:
    it = Life().until(Phase.OPEN)
    it.step(raised(renews=True))

    assert it.step(KILLED, 0) == [Spawn()]
    it.step(Loaded())
    assert ReportRestart("ValueError: no", 2.0, fresh=True, crashed=False) in it.step(Opened())
    assert it.life.restarts == 0


def test_a_second_process_is_not_started_before_the_first_has_ended() -> None:
    it = Life().until(Phase.OPEN)
    it.step(raised(spent=True))

    assert it.step(Tick(), 60) == []
    assert it.step(DONE, 0) == [Spawn()]


def test_a_third_raise_in_a_row_ends_the_process() -> None:
    it = Life().until(Phase.OPEN)
    for _ in range(2):
        it.step(raised())
        it.step(Tick(), 0.1)  # the second restart is delayed
        it.step(Opened())

    assert it.step(raised())[2:] == [
        StopProcess("a new process takes over", patience=True),
        Wake(0.1),
    ]


def crash_until_parked(it: Life, crash: LifeEvent, *between: LifeEvent) -> list[list[Action]]:
    """Let it crash and come back until it is parked; return what each crash led to."""
    seen = []
    while it.life.phase is not Phase.PARKED:
        seen.append(it.step(crash, 0))
        if it.life.phase is not Phase.PARKED:
            for event in between:
                it.step(event, 0)
            it.step(Tick(), 5)
            for event in (Loaded(), Opened()):
                it.step(event, 0)
    return seen


def test_one_that_crashes_again_and_again_waits_longer_and_is_parked() -> None:
    it = Life().until(Phase.OPEN)

    crashes = crash_until_parked(it, KILLED)

    waits = [action.seconds for seen in crashes for action in seen if isinstance(action, Wake)]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 1.0])
    assert ReportParked("killed by SIGKILL", 1.0) in crashes[-1]
    assert it.step(Tick(), 0.5) == []
    assert it.step(Tick(), 0.5) == [Spawn()]


def test_a_parked_one_whose_process_has_not_ended_gets_another_all_the_same() -> None:
    it = Life().until(Phase.OPEN)
    crash_until_parked(it, raised(spent=True), DONE)

    assert it.step(Tick(), 1) == [Abandon(), Spawn()]


def test_the_session_fails_with_what_is_essential() -> None:
    it = Life(essential=True).until(Phase.OPEN)

    crashes = crash_until_parked(it, KILLED)

    assert crashes[-1][-1] == Fail("echo keeps crashing: killed by SIGKILL")
    assert it.step(Tick(), 3600) == []


@pytest.mark.parametrize(
    ("phase", "event"),
    [(Phase.LOADING, raised("import")), (Phase.OPENING, raised("open"))],
)
def test_a_session_that_starts_fails_with_the_reason(phase: Phase, event: LifeEvent) -> None:
    it = Life(SessionStage.STARTING).until(phase)

    assert it.step(event) == [FailStart("ValueError: no", "the traceback")]
    assert it.step(FAULT) == []


def test_a_session_that_starts_fails_with_what_takes_too_long() -> None:
    it = Life(SessionStage.STARTING).until(Phase.LOADING)
    why = f"has not started within 15 s; {MORE_TIME}"

    assert it.step(Tick(), 15.1) == [Kill(why), FailStart(why, "")]


def test_the_time_without_a_processor_does_not_count_as_starting() -> None:
    life = Lifecycle(ChildSpec(name="echo", target=""))
    life.step(Launch(), Moment(100.0))

    assert life.step(Tick(), Moment(119.0, start_s=15.0, waited_s=4.0)) == []
    assert life.step(Tick(), Moment(119.1, start_s=15.0, waited_s=4.0)) != []


def test_the_time_that_a_process_waited_before_it_opens_again_counts() -> None:
    it = Life().until(Phase.OPEN)
    life = it.life
    life.step(raised(), Moment(200.0, waited_s=60.0))
    assert life.phase is Phase.OPENING

    assert life.step(Tick(), Moment(216.0, start_s=15.0, waited_s=60.0)) != []


def test_what_takes_too_long_to_come_back_is_killed() -> None:
    it = Life().until(Phase.OPEN)
    it.step(KILLED)

    assert it.step(Tick(), 15.1) == [Kill(f"has not started within 15 s; {MORE_TIME}")]


def test_a_new_process_may_help_once_at_the_start_of_a_session() -> None:
    it = Life(SessionStage.STARTING).until(Phase.OPENING)
    it.step(raised("open", renews=True))
    it.step(KILLED)
    it.step(Loaded())

    assert it.step(raised("open", renews=True)) == [FailStart("ValueError: no", "the traceback")]


def test_mail_is_handled_before_the_end_also_after_a_crash() -> None:
    it = Life().until(Phase.OPEN)
    it.stage, it.mail = SessionStage.ENDING, True

    assert it.step(Close()) == []
    assert it.step(KILLED)[-1] == Spawn()
    it.step(Loaded())
    it.step(Opened())
    assert it.step(AllSent()) == [StopProcess("the session ends")]


def test_an_idle_component_that_dies_at_the_end_is_not_restarted() -> None:
    it = Life().until(Phase.OPEN)
    it.stage, it.mail = SessionStage.ENDING, True
    it.step(Close())
    it.mail = False

    note = Note("WARNING", "ended while stopping: killed by SIGKILL")
    assert it.step(KILLED) == [note, Gone()]


def test_nothing_is_opened_in_a_session_that_ends_before_it_has_started() -> None:
    it = Life(SessionStage.STARTING).until(Phase.LOADED)
    it.stage, it.mail = SessionStage.CANCELLED, True

    assert it.step(Close()) == [StopProcess("the session ends")]


def test_a_reloaded_component_is_not_opened_in_a_session_that_ends_early() -> None:
    it = Life(SessionStage.STARTING).until(Phase.OPEN)
    it.step(KILLED)
    it.stage = SessionStage.CANCELLED

    assert it.step(Loaded()) == [StopProcess("the session ends")]


def test_what_is_open_handles_its_mail_in_a_session_that_ends_before_it_has_started() -> None:
    it = Life(SessionStage.STARTING).until(Phase.OPEN)
    it.stage, it.mail = SessionStage.CANCELLED, True

    assert it.step(Close()) == []
    assert it.step(AllSent()) == [StopProcess("the session ends")]


# -- laws -------------------------------------------------------------------------------------

EVENTS = st.one_of(
    st.sampled_from([Launch(), Loaded(), YourTurn(), Opened(), Tick(), AllSent(), Hung(9.0)]),
    st.builds(
        lambda during, **flags: Raised(Crashed("E", "", during, **flags)),
        st.sampled_from(["import", "open", "handle", "close"]),
        spent=st.booleans(),
        plain=st.booleans(),
        renews=st.booleans(),
    ),
    st.builds(Ended, st.just("killed"), st.just(""), st.booleans(), st.booleans()),
    st.just(NotLaunched("no process")),
)
STEPS = st.lists(
    st.tuples(EVENTS, st.sampled_from([0.0, 0.06, 2.0, 40.0]), st.booleans(), st.booleans()),
    max_size=60,
)


class World:
    """Performs what a lifecycle wants, and knows what may be wanted of it."""

    def __init__(self, *, essential: bool) -> None:
        self.life = Lifecycle(ChildSpec(name="echo", target="", essential=essential))
        self.now = 0.0
        self.stage = SessionStage.STARTING
        self.mail = self.progress = False
        self.alive = False
        self.running = False
        """Whether an incarnation was started in the process and has not ended."""
        self.wakes: list[float] = []
        self.gone = 0

    def happens(self, event: LifeEvent, after_s: float = 0.0) -> None:
        """Let an event happen, if it can."""
        self.now += after_s
        if any(wake <= self.now for wake in self.wakes):
            self.wakes = [wake for wake in self.wakes if wake > self.now]
            self.happens(Tick())
        if isinstance(event, Ended | NotLaunched | Raised | Loaded | Opened) and not self.alive:
            return
        if isinstance(event, Ended):
            self.alive = self.running = False
        if isinstance(event, NotLaunched):
            if self.life.phase is not Phase.LOADING:
                return
            self.alive = False
        if isinstance(event, Raised):
            self.running = False
        at = Moment(self.now, self.stage, self.mail, self.progress, 0.1, 15.0)
        for action in self.life.step(event, at):
            self.perform(action)

    def perform(self, action: Action) -> None:
        match action:
            case Spawn():
                assert not self.alive, "two processes"
                self.alive = True
            case OpenActor():
                assert self.alive, "an incarnation without a process"
                assert not self.running, "two incarnations"
                self.running = True
            case Abandon():
                self.alive = self.running = False
            case Wake(seconds):
                assert seconds > 0
                self.wakes.append(self.now + seconds)
            case Fail() | FailStart():
                self.ends()
            case Gone():
                assert not self.alive, "a process is left"
                self.gone += 1

    def ends(self) -> None:
        if self.stage is SessionStage.STARTING:
            self.stage = SessionStage.CANCELLED
        elif self.stage is SessionStage.RUNNING:
            self.stage = SessionStage.ENDING

    def has_next_step(self) -> bool:
        """Return whether the life goes on: something runs, a timer is set, or it has ended."""
        done = self.life.phase in (Phase.NEW, Phase.CLOSED, Phase.PARKED)
        return self.alive or bool(self.wakes) or done


@given(steps=STEPS, essential=st.booleans(), starts_after=st.integers(0, 20))
def test_there_are_never_two_processes_and_it_always_ends(
    steps: list[tuple[LifeEvent, float, bool, bool]], essential: bool, starts_after: int
) -> None:
    world = World(essential=essential)
    world.happens(Launch())
    for number, (event, after_s, mail, progress) in enumerate(steps):
        if number == starts_after and world.stage is SessionStage.STARTING:
            world.stage = SessionStage.RUNNING
        world.mail, world.progress = mail, progress
        world.happens(event, after_s)
        assert world.alive == world.life.has_process
        assert world.has_next_step(), world.life.phase

    world.ends()
    world.mail = False
    world.happens(Close())
    world.happens(GiveUp("time is over"))
    world.happens(Ended("killed by SIGKILL", ""))

    assert world.life.phase is Phase.CLOSED
    assert world.gone == 1


@given(steps=STEPS)
def test_after_any_life_a_component_that_works_again_is_open(
    steps: list[tuple[LifeEvent, float, bool, bool]],
) -> None:
    world = World(essential=False)
    world.stage = SessionStage.RUNNING
    world.happens(Launch())
    for event, after_s, mail, progress in steps:
        world.mail, world.progress = mail, progress
        world.happens(event, after_s)

    for event in (Ended("exited", ""), Tick(), Loaded(), YourTurn(), Opened()):
        world.happens(event, 31.0 if isinstance(event, Tick) else 0.0)  # the longest wait is 30 s

    assert world.life.phase is Phase.OPEN
