"""A component as the hub sees it: its mailbox, its process, and what its `Lifecycle` decides."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from actors.supervision import steps
from actors.supervision.child_process import ChildProcess
from actors.supervision.drops import DropReport
from actors.supervision.hub import Hub
from actors.supervision.lifecycle import Lifecycle, Moment, Phase
from actors.supervision.specs import ChildSpec
from actors.supervision.state import SavedState
from actors.supervision.tags import AUDIO_TAGS, ROUTED_FROM, type_name
from actors.supervision.watch import Watch
from messages import (
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Crashed,
    Hello,
    Init,
    Log,
    Message,
    Notice,
    Open,
    Ping,
    Ready,
    Room,
    Rule,
    Save,
    SessionInfo,
    Stop,
    decode,
    encode,
    epoch_of,
    tag_of,
    with_epoch,
)
from messages.transport.mailbox import Mailbox, MailboxFullError, Suspect
from messages.transport.page import HELD, MAIL, Slot
from messages.transport.saved import read_state, remove_state
from messages.transport.spawning import cpu_seconds, resident_bytes, waited_s

__all__ = ["Child", "ComponentHub"]

_LOG_TAIL = 50
_LOG_TAIL_CHARS = 2000
"""Of each record."""


class ComponentHub(Hub, Protocol):
    """What a component needs of the hub."""

    directory: Path
    """The directory of the session."""

    @property
    def wanted(self) -> tuple[int, ...]:
        """Tags of the messages that are sent on demand only and that somebody wants."""

    def init_of(self, child: Child) -> Init:
        """Return the first message to its process."""

    def session_info(self, *, first: bool) -> SessionInfo:
        """Return what its actor is told when it is opened."""

    def state_changed(self) -> None:
        """Have the record written: something has changed which the next supervisor needs."""

    def route(self, frame: bytes, source: Child | None = None) -> None:
        """Deliver a message of the component to everyone who accepts its type."""

    def dead_letter(self, name: str, suspect: Suspect, reason: str) -> None:
        """Publish that a message will not be handled."""

    def log_record(self, name: str, record: Log) -> None:
        """Take a record of its log."""

    def register(self, child: Child) -> None:
        """Take note of what it accepts: its first process has said so."""

    def child_open(self, child: Child) -> None:
        """Continue the start: it is open."""

    def child_closed(self) -> None:
        """Continue the end: nothing is left of it."""

    def fail(self, reason: str, component: str = "") -> None:
        """End the session because it cannot go on."""


class Child:
    """One component: its mailbox, its process, its incarnations.

    The hub puts messages into its mailbox, opens it in its turn, checks it now and then (`check`)
    and closes it. What happens to it goes to its `Lifecycle`, whose actions are performed here; a
    crash is nothing that the hub sees. It is over when it is `gone`.

    It is longer than other classes: it has a method for each thing that the hub, the process and
    the lifecycle ask of it, and decides nothing itself.
    """

    def __init__(
        self,
        hub: ComponentHub,
        spec: ChildSpec,
        slot: Slot,
        start_process: Callable[..., ChildProcess] = ChildProcess,
    ) -> None:
        """Prepare it; nothing runs before `launch`.

        Args:
            hub: The supervisor of this component.
            spec: Its child spec.
            slot: Its slot in the accounting page.
            start_process: Starts its processes.
        """
        self.spec = spec
        self.slot = slot
        self.mailbox = Mailbox({}, spec.window)
        self.hello: Hello | None = None
        """What its first process has said of it; None: nothing yet."""
        self.pid = 0
        """Of its latest process."""
        self.log_tail: collections.deque[str] = collections.deque(maxlen=_LOG_TAIL)
        self._hub = hub
        self._start_process = start_process
        self._life = Lifecycle(spec)
        self._watch = Watch(slot)
        self._drops = DropReport(spec.name, hub.publish)
        self._state = SavedState()
        self._restarts_before = 0
        self._process: ChildProcess | None = None
        self._lingering = False

    @property
    def name(self) -> str:
        """The name of the component."""
        return self.spec.name

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self._life.phase

    @property
    def accepts(self) -> dict[int, Rule]:
        """What it accepts, by tag; empty until it has said so."""
        return dict(self.hello.accepts) if self.hello else {}

    @property
    def described(self) -> dict[str, Any]:
        """Settings that it has found while importing, of the agent say."""
        found: dict[str, Any] = msgspec.msgpack.decode(self.hello.described) if self.hello else {}
        return found

    @property
    def restarts(self) -> int:
        """Number of restarts after a crash."""
        return self._restarts_before + self._life.restarts

    @property
    def asked_to_close(self) -> bool:
        """Whether `close` has been called."""
        return self._life.asked_to_close

    @property
    def gone(self) -> bool:
        """Whether the component has closed and its process has ended."""
        return self.phase is Phase.CLOSED

    @property
    def memory_mib(self) -> int:
        """What its process may use; 0: as much as there is."""
        if self.spec.memory_mib is not None:
            return self.spec.memory_mib
        return self._hub.settings.memory_limit_mib or 0

    @property
    def state(self) -> bytes | None:
        """What it has saved last."""
        return self._state.latest

    # -- for the hub --------------------------------------------------------------------------

    def inherit(self, state: bytes | None, commands: list[bytes], restarts: int) -> None:
        """Go on where the component of an earlier supervisor has stopped; before it is opened.

        Args:
            state: What that has saved last; None: nothing.
            commands: The confirmed messages of the program that it had not handled.
            restarts: How often it came back after a crash.
        """
        self._state = SavedState(state)
        self._restarts_before = restarts
        for frame in commands:
            self.mailbox.put(frame, is_command=True)
        self.mailbox.confirm()

    def commands(self) -> list[bytes]:
        """Return the confirmed messages of the program whose effect may not be in `state` yet."""
        self.mailbox.settle(self.slot)
        waiting = self.mailbox.confirmed()
        if self._process is not None and self._process.connected:
            self._process.drain()  # what is handled was saved before, but perhaps not read yet
        return waiting

    def launch(self) -> None:
        """Start a process and have it import the component.

        Later, as what fails ends the session: the other components have to be there by then.
        """
        self._hub.loop.later(0, lambda: self._step(steps.Launch()))

    def open(self) -> None:
        """Start its first incarnation: everything that it needs is there."""
        self._step(steps.YourTurn())

    def close(self) -> None:
        """Have it handle its mail, close and end; it is `gone` when its process has ended."""
        self._step(steps.Close())
        self._pump()

    def give_up(self, why: str) -> None:
        """End it at once, for good."""
        self._step(steps.GiveUp(why))

    def kill_process(self) -> None:
        """Kill the process and look at nothing else; for a bug of ours, whatever it has broken."""
        if self._process is not None:
            self._process.kill()

    def bury(self) -> None:
        """Wait for the end of a process that was killed, when the loop does not run any more."""
        if self._process is not None:
            self._process.wait()

    def kill(self, why: str) -> None:
        """End the process; its restart follows from its end."""
        if self._process is not None:
            self._process.kill(why)

    def strike(self, number: int) -> None:
        """Send its process a signal, for fault injection."""
        if self._process is not None:
            self._process.signal(number)

    def check(self, now: float, hang_s: float) -> None:
        """Find out whether it has ended without the end of its channel, or is stuck."""
        process = self._process
        if process is not None and process.look():
            return
        if self.phase is not Phase.OPEN:
            self._step(steps.Tick())
        if process is None or process.failure:
            return
        if self.phase in (Phase.LOADING, Phase.OPENING):
            if self._watch.is_stopped(now, process.is_stopped(), hang_s):
                self._step(steps.Hung(hang_s))
            return
        if self.phase is not Phase.OPEN:
            return
        match self._watch.look(now, self.mailbox, hang_s):
            case "idle":
                self.put(encode(Ping()))
            case "hung":
                self._step(steps.Hung(self._watch.quiet_s(now)))

    def forgive(self, now: float) -> None:
        """Start all clocks anew: the supervisor itself did not run."""
        self._watch.forgive(now)
        self._life.forgive(now)

    def publish_drops(self, now: float) -> None:
        """Publish what the mailbox has dropped since the last report, at most once a second."""
        self._drops.publish_new(now, self.mailbox.lost)

    def keep_log(self, record: Log) -> None:
        """Keep a log record of the component for the report of a later crash."""
        self.log_tail.append(f"{record.level} {record.text}"[:_LOG_TAIL_CHARS])

    def left(self) -> Iterator[str]:
        """Yield, in words, the messages that the component had not handled when it ended."""
        for tag, dropped in self.mailbox.lost.items():
            sound = f", {dropped.audio_ms} ms of sound" if dropped.audio_ms else ""
            yield f"{dropped.count} {type_name(tag)} to {self.name} (mailbox full{sound})"
        self.mailbox.settle(self.slot)
        for tag, count in self.mailbox.unhandled().items():
            yield f"{count} {type_name(tag)} to {self.name} (it has ended)"

    def status(self) -> dict[str, Any]:
        """Return what a program is told about it."""
        dropped = {type_name(tag): it.count for tag, it in self.mailbox.dropped.items()}
        return {
            "pid": self.pid,
            "state": self.phase.value,
            "restarts": self.restarts,
            "incarnation": self._life.incarnation,
            "mailbox": len(self.mailbox),
            "dropped": dropped,
            "handled": self.slot.handled(MAIL) + self.slot.handled(HELD),
            "memory_bytes": resident_bytes(self.pid) if self._process is not None else None,
            "cpu_seconds": cpu_seconds(self.pid) if self._process is not None else None,
        }

    # -- mail ---------------------------------------------------------------------------------

    def put(self, frame: bytes, *, is_command: bool = False) -> None:
        """Add a message to the mailbox, and send it if the component is open."""
        if self.phase in (Phase.CLOSING, Phase.CLOSED):
            return
        try:
            self.mailbox.put(frame, is_command=is_command)
        except MailboxFullError as error:
            self._hub.dead_letter(self.name, Suspect(frame, 0), str(error))
            if self.phase is Phase.OPEN:
                self.kill(f"is stuck: {error}")
            return
        if self.phase is not Phase.OPEN:
            return
        spec = self.spec
        if (
            spec.linger_s
            and tag_of(frame) in AUDIO_TAGS
            and self.mailbox.waiting < spec.linger_messages
        ):
            if not self._lingering:
                self._lingering = True
                self._hub.loop.later(spec.linger_s, self._pump)
            return
        self._pump()

    def _pump(self) -> None:
        """Send as much of its mail as may be in flight, if it is open."""
        self._lingering = False
        process = self._process
        if self.phase is not Phase.OPEN or process is None or not process.connected:
            return
        frames = self.mailbox.take(self.slot)
        if frames:
            epoch = self._life.incarnation & 255
            process.write([with_epoch(frame, epoch) for frame in frames])
        if self.asked_to_close and not self.mailbox.waiting_mail:
            self._step(steps.AllSent())

    def _write(self, message: Message) -> None:
        if self._process is not None:
            self._process.write([encode(message, self._life.incarnation & 255)])

    # -- what it says -------------------------------------------------------------------------

    def _said(self, line: str) -> None:
        loading = self.phase is Phase.LOADING
        self._hub.log(self.name, "WARNING" if loading else "DEBUG", line)

    def _read(self, frame: bytes) -> None:
        tag = tag_of(frame)
        if epoch_of(frame) != (0 if self.phase is Phase.LOADING else self._life.incarnation & 255):
            return  # of an earlier incarnation
        if tag >= ROUTED_FROM:
            if tag in AUDIO_TAGS:
                self._watch.sent_audio = True
            self._hub.route(frame, self)
        else:
            self._handle(decode(frame))

    def _handle(self, message: Message) -> None:
        match message:
            case Room():
                self._pump()
            case Save(state):
                self._state.keep(state)
                self._hub.state_changed()
            case Log():
                self._hub.log_record(self.name, message)
            case Hello():
                self._introduce(message)
            case Ready():
                self._step(steps.Opened())
            case Crashed():
                self._raised(message)

    def _introduce(self, hello: Hello) -> None:
        if self.hello is None and self.phase is Phase.LOADING:
            self.hello = hello
            self.mailbox = Mailbox(self.accepts, self.spec.window)
            self._hub.register(self)
        self._step(steps.Loaded())

    def _raised(self, crash: Crashed) -> None:
        if crash.spent:
            error = f"{crash.error}; its process may use {self.memory_mib} MiB"
            crash = msgspec.structs.replace(crash, error=error)
        self._step(steps.Raised(crash))

    def _ended(self, process: ChildProcess) -> None:
        self._process = None
        outside = process.killed_from_outside
        self._step(steps.Ended(process.cause, process.trace, outside, process.in_order))

    # -- what its lifecycle decides -----------------------------------------------------------

    def _step(self, event: steps.LifeEvent) -> None:
        """Give an event to the lifecycle, and do what it says."""
        for action in self._life.step(event, self._moment()):
            self._do(action)

    def _moment(self) -> Moment:
        mail = self.mailbox
        progress = self._watch.progress(mail)  # settles the mailbox
        left = mail.waiting_mail > 0 or mail.in_flight > 0
        start_s, waited = self._hub.settings.start_s, 0.0
        if self._process is not None and self.phase is not Phase.OPEN:
            waited = waited_s(self.pid)
        now, well_s = self._hub.loop.time(), self._watch.well_s
        return Moment(now, self._hub.stage, left, progress, well_s, start_s, waited)

    def _do(self, action: steps.Action) -> None:
        hub = self._hub
        match action:
            case steps.Spawn():
                self._spawn()
            case steps.OpenActor(incarnation, first, resumed):
                self._open(incarnation, first=first, resumed=resumed)
            case steps.AwaitTurn():
                hub.open_next()
            case steps.ReportOpen():
                self._watch.opened(self._hub.loop.time())
                self._state.opened()
                hub.child_open(self)
                self._pump()
            case steps.StopProcess(why, patience):
                self._write(Stop(why))
                if patience and self._process is not None:
                    self._process.kill_later()
            case steps.Kill(why):
                self.kill(why)
            case steps.KillHung(why) if self._process is not None:
                self._process.kill_hung(why)
            case steps.Abandon() if self._process is not None:
                self._process.abandon()
                self._process = None
            case steps.Blame(why, trace) if self._process is not None:
                self._process.blame(why, trace)
            case steps.BlameState():
                self._blame_state()
            case steps.Reclaim(cause):
                self._reclaim(cause)
            case steps.ReportCrash(cause, trace):
                tail = tuple(self.log_tail)
                crashed = ComponentCrashed(self.name, self.pid, cause, trace, tail)
                hub.route(encode(crashed), self)  # not to this one: handling it counts as progress
            case steps.ReportRestart():
                self._report_restart(action)
            case steps.ReportParked(cause, retry_s):
                hub.publish(ComponentParked(self.name, cause, retry_s))
            case steps.Fail(reason):
                hub.fail(reason, self.name)
            case steps.FailStart(error, trace):
                hub.start_failed(self.name, error, trace)
            case steps.Note(level, text):
                hub.log(self.name, level, text)
            case steps.Wake(seconds):
                hub.loop.later(seconds, lambda: self._step(steps.Tick()))
            case steps.Gone():  # later: the hub may be asking it to close just now
                hub.loop.later(0, hub.child_closed)

    def _spawn(self) -> None:
        try:
            self._process = self._start_process(
                self._hub.loop,
                self.name,
                self._hub.environment_of(self.name),
                read=self._read,
                said=self._said,
                ended=self._ended,
            )
        except OSError as error:
            self._step(steps.NotLaunched(f"no process can be started: {error}"))
            return
        self.pid = self._process.pid
        how = "forked" if self._process.forked else "not forked"
        self._hub.log("supervisor", "DEBUG", f"{self.name} is process {self.pid}, {how}")
        self._write(self._hub.init_of(self))

    def _open(self, incarnation: int, *, first: bool, resumed: bool) -> None:
        self._watch.begin(self.mailbox)
        self.slot.clear()
        self._write(
            Open(
                incarnation,
                msgspec.Raw(msgspec.msgpack.encode(self._hub.settings)),
                msgspec.Raw(msgspec.msgpack.encode(self._hub.session_info(first=first))),
                self._newest_state(),
                resumed,
                self._hub.wanted,
            )
        )

    def _newest_state(self) -> bytes | None:
        """Return what the component has saved last, which it may have written to its file alone."""
        written = read_state(self._hub.directory, self.name)
        if written is not None and written != self._state.latest:
            self._state.keep(written)
            self._hub.state_changed()
        return self._state.latest

    def _reclaim(self, cause: str) -> None:
        suspect = self.mailbox.reclaim(self.slot)
        self.slot.clear()  # or what has died while loading would count this progress again
        self._watch.begin(self.mailbox)
        if suspect is not None:
            self._hub.dead_letter(self.name, suspect, cause)

    def _blame_state(self) -> None:
        if self._state.blame():
            remove_state(self._hub.directory, self.name)
            text = f"{self.name} could not be opened with its saved state; it starts without"
            self._hub.publish(Notice(text))

    def _report_restart(self, restart: steps.ReportRestart) -> None:
        self._hub.publish(
            ComponentRestarted(
                self.name,
                self.pid,
                restart.cause,
                round(restart.after_s * 1000, 1),
                self._life.incarnation,
                restart.fresh,
                restart.crashed,
            )
        )
