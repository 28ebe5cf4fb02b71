"""A component as the hub sees it: its mailbox, its incarnations, and what becomes of them."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import msgspec

from actors.supervision.child_process import ChildProcess
from actors.supervision.drops import DropReport
from actors.supervision.hub import Hub
from actors.supervision.restarting import RestartPolicy
from actors.supervision.specs import ChildSpec
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
from messages.transport.spawning import resident_bytes

__all__ = ["Child", "ComponentHub", "State"]

_LOG_TAIL = 50
_LOG_TAIL_CHARS = 2000
"""Of each record."""

State = Literal["new", "loading", "loaded", "opening", "open", "down", "parked", "closed"]


class ComponentHub(Hub, Protocol):
    """What a component needs of the hub."""

    starting: bool
    """Whether not every component has been opened yet."""

    @property
    def wanted(self) -> tuple[int, ...]:
        """Which messages that are sent on demand only somebody wants, by tag."""

    def init_of(self, child: Child) -> Init:
        """Return what its process is told first."""

    def session_info(self, *, first: bool) -> SessionInfo:
        """Return what its actor is told when it is opened."""

    def route(self, frame: bytes, source: Child | None = None) -> None:
        """Give what it has sent to who accepts its type."""

    def dead_letter(self, name: str, suspect: Suspect, reason: str) -> None:
        """Tell that a message will not be handled."""

    def log_record(self, name: str, record: Log) -> None:
        """Take a record of its log."""

    def child_loaded(self, child: Child) -> None:
        """Note what it accepts: its first process has said so."""

    def child_open(self, child: Child) -> None:
        """Go on with the start: it is open."""

    def child_closed(self) -> None:
        """Go on with the end: it has closed."""

    def fail(self, reason: str, component: str = "") -> None:
        """End the session because it cannot go on."""


class Child:
    """One component: its mailbox, its process, its incarnations.

    The hub puts messages into its mailbox, opens it in its turn, looks at it now and then (`check`)
    and closes it; what crashes in between is started again here. It is over when it is `gone`.
    """

    def __init__(self, hub: ComponentHub, spec: ChildSpec, index: int, slot: Slot) -> None:
        """Take what there is before it is launched.

        Args:
            hub: Who keeps it up.
            spec: What is known of it.
            index: The number of its slot in the accounting page.
            slot: That slot.
        """
        self.spec = spec
        self.index = index
        self.slot = slot
        self.mailbox = Mailbox({}, spec.window)
        self.accepts: dict[int, Rule] = {}
        """By tag; known once it is introduced."""
        self.described: dict[str, Any] = {}
        """Settings that it has found while importing (of the agent)."""
        self.state: State = "new"
        self.introduced = False
        """Whether it has said what it accepts."""
        self.incarnation = 0
        """How often its actor was started."""
        self.restarts = 0
        """How often it came back after a crash."""
        self.pid = 0
        """Of its latest process."""
        self.log_tail: collections.deque[str] = collections.deque(maxlen=_LOG_TAIL)
        self._hub = hub
        self._policy = RestartPolicy()
        self._watch = Watch(slot)
        self._drops = DropReport(spec.name, hub.publish)
        self._process: ChildProcess | None = None
        self._launches = 0
        self._saved: bytes | None = None
        """What the actor has saved last."""
        self._bad_states = 0
        self._since = 0.0
        """When it began to load or to open."""
        self._was_open = self._lingering = self._closing = self._given_up = False
        self._fresh_process = self._renews = False
        self._delay = 0.0
        """How long to wait before the next process, once the one that is ending has ended."""
        self._down_at: float | None = None
        self._cause = ""

    @property
    def name(self) -> str:
        """The name of the component."""
        return self.spec.name

    @property
    def asked_to_close(self) -> bool:
        """Whether `close` has been called."""
        return self._closing

    @property
    def gone(self) -> bool:
        """Whether it has closed, and nothing of it is left."""
        return self.state == "closed" and self._process is None

    @property
    def memory_mib(self) -> int:
        """What its process may use; 0: as much as there is."""
        if self.spec.memory_mib is not None:
            return self.spec.memory_mib
        return self._hub.settings.memory_limit_mib or 0

    # -- mail ---------------------------------------------------------------------------------

    def put(self, frame: bytes) -> None:
        """Add a message to the mailbox, and send it if the component is open."""
        if self.state == "closed":
            return
        try:
            self.mailbox.put(frame)
        except MailboxFullError as error:
            self._hub.dead_letter(self.name, Suspect(frame, 0), str(error))
            if self.state == "open":
                self.kill(f"is stuck: {error}")
            return
        if self.state != "open":
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
        self._lingering = False
        process = self._process
        if self.state != "open" or process is None or not process.connected:
            return
        frames = self.mailbox.take(self.slot)
        if frames:
            epoch = self.incarnation & 255
            process.write([with_epoch(frame, epoch) for frame in frames])
        if self._closing and not self.mailbox.waiting_mail:
            self.state = "closed"
            self._write(Stop("the session ends"))

    # -- its processes and incarnations -------------------------------------------------------

    def launch(self) -> None:
        """Start a process and have it import the component."""
        self._launches += 1
        self.state, self._since = "loading", time.monotonic()
        self._policy.started(self._since)
        try:
            self._process = ChildProcess(
                self._hub.loop,
                self.name,
                self._hub.environment_of(self.name),
                read=self._read,
                said=self._said,
                ended=self._process_ended,
            )
        except OSError as error:
            self._not_launched(f"no process can be started: {error}")
            return
        self.pid = self._process.pid
        self._write(self._hub.init_of(self))

    def _not_launched(self, why: str) -> None:
        """Try again soon: the machine has no descriptors, processes or memory left just now."""
        self.state = "down"
        if self._hub.starting:  # later: the others of the session are not there yet
            self._hub.loop.later(0, lambda: self._hub.start_failed(self.name, why, ""))
        else:
            self._hub.log(self.name, "WARNING", why)
            self._later(RestartPolicy.MAX_DELAY_S, self._relaunch)

    def open(self, *, resumed: bool = False) -> None:
        """Start an incarnation in the process that is there."""
        self.incarnation += 1
        self.state, self._since = "opening", time.monotonic()
        self._policy.started(self._since)
        self._watch.begin(self.mailbox)
        self.slot.clear()
        first = not self._was_open  # one that died while opening has done nothing yet
        self._write(
            Open(
                self.incarnation,
                msgspec.Raw(msgspec.msgpack.encode(self._hub.settings)),
                msgspec.Raw(msgspec.msgpack.encode(self._hub.session_info(first=first))),
                self._saved,
                resumed,
                self._hub.wanted,
            )
        )

    def kill(self, why: str) -> None:
        """End the process; its restart follows from its end."""
        if self._process is not None:
            self._process.kill(why)

    def strike(self, number: int) -> None:
        """Send its process a signal, for fault injection."""
        if self._process is not None:
            self._process.signal(number)

    def _end_process(self) -> None:
        """Have the process release its devices and end; kill it if it does not."""
        self._write(Stop("a new process takes over"))
        if self._process is not None:
            self._process.kill_later()

    def _write(self, message: Message) -> None:
        if self._process is not None:
            self._process.write([encode(message, self.incarnation & 255)])

    # -- what it says -------------------------------------------------------------------------

    def _said(self, line: str) -> None:
        self._hub.log(self.name, "WARNING" if self.state == "loading" else "DEBUG", line)

    def _read(self, frame: bytes) -> None:
        tag = tag_of(frame)
        if epoch_of(frame) != (0 if self.state == "loading" else self.incarnation & 255):
            return  # of an earlier incarnation
        if tag >= ROUTED_FROM:
            if tag in AUDIO_TAGS:
                self._watch.told_audio = True
            self._hub.route(frame, self)
        else:
            self._told(decode(frame))

    def _told(self, message: Message) -> None:
        match message:
            case Room():
                self._pump()
            case Save(state):
                self._saved = state
            case Log():
                self._hub.log_record(self.name, message)
            case Hello():
                self._loaded(message)
            case Ready():
                self._opened()
            case Crashed():
                self._raised(message)

    def _loaded(self, hello: Hello) -> None:
        if self.state == "closed":
            return
        self.state = "loaded"
        if not self.introduced:
            self.introduced = True
            self.accepts = dict(hello.accepts)
            self.mailbox = Mailbox(self.accepts, self.spec.window)
            self.described = msgspec.msgpack.decode(hello.described)
            self._hub.child_loaded(self)
        elif self.incarnation:
            self.open()
        else:  # it died before its turn to be opened had come
            self._hub.open_next()

    def _opened(self) -> None:
        if self.state == "closed":
            return
        self.state = "open"
        self._was_open = True
        now = time.monotonic()
        self._watch.opened(now)
        self._bad_states = 0
        if self._down_at is not None:
            ms = (now - self._down_at) * 1000
            self._down_at = None
            crashed = not self._renews
            self.restarts += crashed
            self._hub.publish(
                ComponentRestarted(
                    self.name,
                    self.pid,
                    self._cause,
                    round(ms, 1),
                    self.incarnation,
                    self._fresh_process,
                    crashed,
                )
            )
        self._hub.child_open(self)
        self._pump()

    def _raised(self, crash: Crashed) -> None:
        if self.state == "closed" or crash.during == "close":  # it has been told to end
            self._hub.log(self.name, "WARNING", f"raised while closing: {crash.error}")
            return
        fails = crash.during in ("import", "open") and self._hub.starting
        if fails and (self._renews or not crash.renews):  # once it may; for ever it may not
            self._given_up = True  # or it would be tried again while the others are closed
            self._hub.start_failed(self.name, crash.error, crash.traceback)
            return
        if crash.during == "import":
            if self._process is not None:
                self._process.blame(f"cannot be imported: {crash.error}", crash.traceback)
            return  # its process ends, which is the crash
        if crash.renews:
            self._renew(crash.error)
            return
        if crash.during == "open":
            self._blame_state()
        cause = crash.error if crash.plain else f"raised {crash.error}"
        if crash.spent:
            cause += f"; its process may use {self.memory_mib} MiB"
        self._crashed(cause, crash.traceback, soft=True, spent=crash.spent)

    # -- crashes and restarts -----------------------------------------------------------------

    def _process_ended(self, process: ChildProcess) -> None:
        self._process = None
        if self.state == "closed" or not self._is_wanted():
            if self.state != "closed":
                level = "DEBUG" if self._hub.starting else "WARNING"
                self._hub.log(self.name, level, f"ended while stopping: {process.ending}")
            self.state = "closed"
            self._hub.child_closed()
            return
        if self.state == "opening" and not process.killed_from_outside:
            self._blame_state()
        self._crashed(process.cause, process.trace, soft=False)

    def _crashed(self, cause: str, trace: str, *, soft: bool, spent: bool = False) -> None:
        """Account for the death of an incarnation, and decide when the next one starts.

        Args:
            cause: In one line.
            trace: Where it was, as far as that is known.
            soft: The actor has ended, its process lives.
            spent: Its process is not to be used again.
        """
        if self.state in ("down", "parked"):  # its process ends as expected
            if self.state == "down":
                self._relaunch()
            return
        now = time.monotonic()
        well_s = self._watch.well_s if self.state == "open" else 0.0
        self._hub.publish(ComponentCrashed(self.name, self.pid, cause, trace, tuple(self.log_tail)))
        progress = self._watch.progress(self.mailbox)
        self._renews = False
        self._go_down(cause, now)
        delay = self._policy.crashed(now, progress=progress, well_s=well_s)
        if delay is None and self._hub.stopping:
            self._give_up_closing()
        elif delay is None and self._hub.starting:
            self._hub.start_failed(self.name, cause, trace)
        elif delay is None:
            self._give_up(cause, soft)
        else:
            self._restart_after(delay, soft, spent)

    def _go_down(self, cause: str, now: float) -> None:
        """Take back what an incarnation that has ended did not handle."""
        self.state = "down"
        self._cause = cause
        if self._down_at is None:
            self._down_at = now
        suspect = self.mailbox.reclaim(self.slot)
        self.slot.clear()  # or what has died while loading would count this progress again
        self._watch.begin(self.mailbox)
        if suspect is not None:
            self._hub.dead_letter(self.name, suspect, cause)

    def _renew(self, cause: str) -> None:
        """Replace its process, as its actor has asked for: no crash, and never given up."""
        now = time.monotonic()
        self._renews = True
        self._go_down(cause, now)
        self._delay = self._policy.renewed(now)
        if self._process is not None:
            self._process.kill()

    def _restart_after(self, delay: float, soft: bool, spent: bool) -> None:
        if not soft:
            self._later(delay, self._relaunch)
        elif self._policy.soft() and not spent:
            self._fresh_process = False
            self._later(delay, lambda: self.open(resumed=True))
        else:  # out of memory, or a third raise in a row: the process itself may be at fault
            self._delay = delay
            self._end_process()

    def _relaunch(self) -> None:
        if not self._is_wanted():
            self._give_up_closing()
            return
        delay, self._delay = self._delay, 0.0
        if delay > 0:
            self._later(delay, self._relaunch)
            return
        self._fresh_process = True
        self.launch()

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        """Go on after a while, unless it is parked, or launched by somebody else, by then."""
        launches = self._launches

        def run() -> None:
            if self.state != "down" or launches != self._launches:
                return
            if self._is_wanted():
                call()
            else:
                self._give_up_closing()

        if delay <= 0:
            run()
        else:
            self._hub.loop.later(delay, run)

    def _give_up(self, cause: str, soft: bool) -> None:
        if self.spec.essential:
            self._hub.fail(f"{self.name} keeps crashing: {cause}", self.name)
            return
        self.state = "parked"
        delay = self._policy.parked()
        self._hub.publish(ComponentParked(self.name, cause, delay))
        if soft:
            self._end_process()
        launches = self._launches
        self._hub.loop.later(delay, lambda: self._unpark(launches))

    def _unpark(self, launches: int) -> None:
        if self.state == "parked" and launches == self._launches:
            if self._process is not None:
                self._process.abandon()
                self._process = None
            self.state = "down"
            self._relaunch()

    def _blame_state(self) -> None:
        self._bad_states += 1
        if self._saved is not None and self._bad_states >= 2:
            self._bad_states = 0
            self._saved = None
            self._hub.publish(
                Notice(f"{self.name} could not be opened with its saved state; it starts without")
            )

    # -- its end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Have the component close in order; it is gone when its channel ends."""
        self._closing = True
        if self.state == "open":
            self._pump()
        elif self.state == "parked" or not self._is_wanted():
            self._finish()

    def give_up(self, why: str) -> None:
        """End the process for good."""
        self._given_up = True
        self.kill(why)
        if self._process is None and self.state != "closed":
            self.state = "closed"
            self._hub.loop.later(0, self._hub.child_closed)

    def bury(self) -> None:
        """Wait for the end of a process that was killed, as nobody looks at it any more."""
        if self._process is not None:
            self._process.wait()

    def _finish(self) -> None:
        self.state = "closed"
        self._write(Stop("the session ends"))

    def _give_up_closing(self) -> None:
        """End what is not worth another start while the session stops."""
        self._finish()
        if self._process is None:
            self._hub.child_closed()

    def _is_wanted(self) -> bool:
        """Return whether it is to be up: while the session stops, for what it still has to do."""
        if not self._hub.stopping:
            return True
        if self._hub.starting:  # nobody is opened any more who was not
            return False
        self.mailbox.settle(self.slot)
        mail = self.mailbox.waiting_mail or self.mailbox.in_flight
        return not self._given_up and (not self._closing or mail > 0)

    # -- being looked at ----------------------------------------------------------------------

    def check(self, now: float, hang_s: float, start_s: float) -> None:
        """Find out whether it has ended without the end of its channel, or is stuck."""
        process = self._process
        if process is not None and process.look():
            return
        if self.state in ("loading", "opening"):
            if now - self._since > start_s:
                why = f"has not started within {start_s:g} s"
                if self._hub.starting:  # seldom enough to be tried for ever
                    self._hub.start_failed(self.name, why, "")
                self.kill(why)
            return
        if self.state != "open" or process is None or process.failure:
            return
        match self._watch.look(now, self.mailbox, hang_s):
            case "idle":
                self.put(encode(Ping()))
            case "hung":
                process.kill_hung(f"hung for {self._watch.quiet_s(now):.1f} s")

    def forgive(self, now: float) -> None:
        """Start all clocks anew: the supervisor itself did not run."""
        self._watch.forgive(now)
        self._since = now

    def tell_drops(self, now: float) -> None:
        """Tell what was dropped since the last time; once a second at most, until the end."""
        self._drops.tell(now, self.mailbox.lost)

    def keep_log(self, record: Log) -> None:
        """Keep a record of its log for the crash that may follow."""
        self.log_tail.append(f"{record.level} {record.text}"[:_LOG_TAIL_CHARS])

    def left(self) -> Iterator[str]:
        """Yield in words what it was sent and has not handled, once it is gone."""
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
            "state": self.state,
            "restarts": self.restarts,
            "incarnation": self.incarnation,
            "mailbox": len(self.mailbox),
            "dropped": dropped,
            "handled": self.slot.handled(MAIL) + self.slot.handled(HELD),
            "memory_bytes": resident_bytes(self.pid) if self._process is not None else None,
        }
