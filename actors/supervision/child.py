"""A component as the hub sees it: its mailbox, its incarnations, and what becomes of them."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from actors.supervision.drops import DropReport
from actors.supervision.hub import Hub
from actors.supervision.process import EXIT_GRACE_S, Process
from actors.supervision.restarting import RestartPolicy
from actors.supervision.specs import ChildSpec
from actors.supervision.tags import AUDIO_TAGS, ROUTED_FROM, type_name
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
from messages.loop import Line, watch_text
from messages.mailbox import Mailbox, MailboxFullError, Suspect
from messages.page import HELD, LOCAL, MAIL, Page
from messages.spawning import resident_bytes

__all__ = ["LOG_TAIL_CHARS", "Child", "ComponentHub", "State"]

_LAST_WORDS_S = 0.15
"""How long a child that hangs has to say where, before it is killed; one that is stopped says
nothing, and one that runs has usually done so after a millisecond."""
_LOOK_S = 0.01
_SHOW_STACKS: int | None = getattr(signal, "SIGUSR1", None)
"""A child answers it with the stacks of its threads (`actors.host.main`)."""
_FATAL = "Fatal Python error:"
_LOG_TAIL = 50
LOG_TAIL_CHARS = 2000
"""Of each record."""
_STACK_LINES = 500

State = Literal["new", "loading", "loaded", "opening", "open", "down", "parked", "closed"]


class ComponentHub(Hub, Protocol):
    """What a component needs of the hub."""

    given: dict[str, Any]
    """The settings as they were given."""
    page: Page
    page_path: Path
    starting: bool
    """Whether not every component has been opened yet."""

    @property
    def wanted(self) -> tuple[int, ...]:
        """Which messages that are sent on demand only somebody wants, by tag."""

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
    """One component: its mailbox, its process, its incarnations."""

    def __init__(self, hub: ComponentHub, spec: ChildSpec, slot: int) -> None:
        self.hub = hub
        self.spec = spec
        self.slot_index = slot
        self.slot = hub.page.slot(slot)
        self.mailbox = Mailbox({}, spec.window)
        self.accepts: dict[int, Rule] = {}
        self.described: dict[str, Any] = {}
        self.state: State = "new"
        self._was_open = False
        self.introduced = False
        """Whether it has said what it accepts."""
        self.state_bytes: bytes | None = None
        self.incarnation = 0
        self.restarts = 0
        self.pid = 0
        self.log_tail: collections.deque[str] = collections.deque(maxlen=_LOG_TAIL)
        self._policy = RestartPolicy()
        self._process: Process | None = None
        self._line: Line | None = None
        self._generation = 0
        self._lingering = self._closing = self._unended = self._given_up = False
        self._fresh_process = self._renews = False
        self._delay = 0.0
        """How long to wait before the next process, once the one that is ending has ended."""
        self._failure = ""
        self._down_at: float | None = None
        self._traceback = ""
        self._stacks: list[str] | None = None
        """What the process writes of its stacks, once it hangs or has had a fatal error."""
        self._drain: Callable[[int], None] = _nothing
        self._cause = ""
        self._bad_states = 0
        self._since = self._opened_at = 0.0
        self._told_audio = False
        self._drops = DropReport(spec.name, hub.publish)
        self._alive: tuple[int, ...] = ()
        self._alive_at = 0.0
        self._pinged_at = 0.0
        self._pings = 0

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

    # -- mail ---------------------------------------------------------------------------------

    def put(self, frame: bytes) -> None:
        """Add a message to the mailbox, and send it if the component is open."""
        if self.state == "closed":
            return
        try:
            self.mailbox.put(frame)
        except MailboxFullError as error:
            self.hub.dead_letter(self.name, Suspect(frame, 0), str(error))
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
                self.hub.loop.later(spec.linger_s, self._pump)
            return
        self._pump()

    def _pump(self) -> None:
        self._lingering = False
        if self.state != "open" or self._line is None:
            return
        frames = self.mailbox.take(self.slot)
        if frames:
            epoch = self.incarnation & 255
            self._line.write([with_epoch(frame, epoch) for frame in frames])
        if self._closing and not self.mailbox.waiting_mail:
            self.state = "closed"
            self._write(Stop("the session ends"))

    # -- one process --------------------------------------------------------------------------

    def launch(self) -> None:
        """Start a process and have it import the component."""
        self._generation += 1
        self._unended = False
        self.state, self._since = "loading", time.monotonic()
        self._policy.started(self._since)
        loop, generation = self.hub.loop, self._generation
        if self._line is not None:  # of a process that was killed, its end has not been read
            self._line.close()
            self._line = None
        try:
            self._process = Process(["actors", self.name], self.hub.environment_of(self.name))
        except OSError as error:
            self._not_launched(f"no process can be started: {error}")
            return
        self.pid = self._process.pid
        self._line = Line(
            loop,
            self._process.connection,
            self._read,
            lambda why: self._channel_ended(why, generation),
        )
        self._stacks = None
        self._drain = watch_text(loop, self._process.stderr, self._said)
        self._write(
            Init(
                self.name,
                self.spec.target,
                str(self.hub.page_path),
                self.slot_index,
                self.hub.given.get("agent") if self.name == "tools" else None,
                str(self.hub.given.get("log_level", "INFO")),
                bool(self.hub.given.get("probes", False)),
                self._memory_mib,
                self.hub.settings.import_path,
            )
        )

    def _not_launched(self, why: str) -> None:
        """Try again soon: the machine has no descriptors, processes or memory left just now."""
        self.state = "down"
        if self.hub.starting:  # later: the others of the session are not there yet
            self.hub.loop.later(0, lambda: self.hub.start_failed(self.name, why, ""))
        else:
            self.hub.log(self.name, "WARNING", why)
            self._later(RestartPolicy.MAX_DELAY_S, self._generation, self._relaunch)

    @property
    def _memory_mib(self) -> int:
        """What its process may use; 0: as much as there is."""
        if self.spec.memory_mib is not None:
            return self.spec.memory_mib
        return self.hub.settings.memory_limit_mib or 0

    def open(self, *, resumed: bool = False) -> None:
        """Start an incarnation in the process that is there."""
        self.incarnation += 1
        self.state, self._since = "opening", time.monotonic()
        self._policy.started(self._since)
        self._pings = 0
        self._told_audio = False
        self.slot.clear()
        first = not self._was_open  # one that died while opening has done nothing yet
        self._write(
            Open(
                self.incarnation,
                msgspec.Raw(msgspec.msgpack.encode(self.hub.settings)),
                msgspec.Raw(msgspec.msgpack.encode(self.hub.session_info(first=first))),
                self.state_bytes,
                resumed,
                self.hub.wanted,
            )
        )

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
            self.hub.loop.later(0, self.hub.child_closed)

    def bury(self) -> None:
        """Wait for the end of a process that was killed, as nobody looks at it any more."""
        if self._process is not None:
            self._process.wait()

    def _is_wanted(self) -> bool:
        """Return whether it is to be up: while the session stops, for what it still has to do."""
        if not self.hub.stopping:
            return True
        if self.hub.starting:  # nobody is opened any more who was not
            return False
        self.mailbox.settle(self.slot)
        mail = self.mailbox.waiting_mail or self.mailbox.in_flight
        return not self._given_up and (not self._closing or mail > 0)

    def _finish(self) -> None:
        self.state = "closed"
        self._write(Stop("the session ends"))

    def kill(self, why: str) -> None:
        """End the process; its restart follows from its end."""
        if self._process is not None:
            self._failure = self._failure or why
            self._process.kill()

    def _write(self, message: Message) -> None:
        if self._line is not None:
            self._line.write([encode(message, self.incarnation & 255)])

    def _said(self, line: str) -> None:
        if self._stacks is None and line.startswith(_FATAL):
            self._stacks = []
        if self._stacks is not None and len(self._stacks) < _STACK_LINES:
            self._stacks.append(line[:LOG_TAIL_CHARS])
            return
        self.hub.log(self.name, "WARNING" if self.state == "loading" else "DEBUG", line)

    def _read(self, frame: bytes) -> None:
        tag = tag_of(frame)
        if epoch_of(frame) != (0 if self.state == "loading" else self.incarnation & 255):
            return  # of an earlier incarnation
        if tag >= ROUTED_FROM:
            if tag in AUDIO_TAGS:
                self._told_audio = True
            self.hub.route(frame, self)
        else:
            self._told(decode(frame))

    def _told(self, message: Message) -> None:
        match message:
            case Room():
                self._pump()
            case Save(state):
                self.state_bytes = state
            case Log():
                self.hub.log_record(self.name, message)
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
            self.hub.child_loaded(self)
        elif self.incarnation:
            self.open()
        else:  # it died before its turn to be opened had come
            self.hub.open_next()

    def _opened(self) -> None:
        if self.state == "closed":
            return
        self.state = "open"
        self._was_open = True
        now = time.monotonic()
        self._opened_at = self._alive_at = self._pinged_at = now
        self._bad_states = 0
        if self._down_at is not None:
            ms = (now - self._down_at) * 1000
            self._down_at = None
            crashed = not self._renews
            self.restarts += crashed
            self.hub.publish(
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
        self.hub.child_open(self)
        self._pump()

    # -- crashes ------------------------------------------------------------------------------

    def _raised(self, crash: Crashed) -> None:
        if self.state == "closed" or crash.during == "close":  # it has been told to end
            self.hub.log(self.name, "WARNING", f"raised while closing: {crash.error}")
            return
        if crash.during in ("import", "open") and self.hub.starting:
            self._given_up = True  # or it would be tried again while the others are closed
            self.hub.start_failed(self.name, crash.error, crash.traceback)
            return
        if crash.during == "import":
            self._failure = f"cannot be imported: {crash.error}"
            self._traceback = crash.traceback
            return  # its process ends, which is the crash
        if crash.renews:
            self._renew(crash.error)
            return
        if crash.during == "open":
            self._blame_state()
        cause = crash.error if crash.plain else f"raised {crash.error}"
        if crash.spent:
            cause += f"; its process may use {self._memory_mib} MiB"
        self._crashed(cause, crash.traceback, soft=True, spent=crash.spent)

    def _blame_state(self) -> None:
        self._bad_states += 1
        if self.state_bytes is not None and self._bad_states >= 2:
            self._bad_states = 0
            self.state_bytes = None
            self.hub.publish(
                Notice(f"{self.name} could not be opened with its saved state; it starts without")
            )

    def _channel_ended(self, why: str, generation: int) -> None:
        self._line = None
        if why:
            self.kill(why)
        self._reap(time.monotonic() + EXIT_GRACE_S, generation)

    def _reap(self, deadline: float, generation: int) -> None:
        process = self._process
        if process is None or generation != self._generation:
            return
        if not process.ended():
            if time.monotonic() > deadline:
                process.kill()
            self.hub.loop.later(0.001, lambda: self._reap(deadline, generation))
            return
        self._process = None
        self._drain(0)  # its last words may be unread
        if self.state == "closed" or not self._is_wanted():
            if self.state != "closed":
                level = "DEBUG" if self.hub.starting else "WARNING"
                self.hub.log(self.name, level, f"ended while stopping: {process.cause}")
            self.state = "closed"
            self.hub.child_closed()
            return
        outside = not self._failure and process.killed_from_outside
        cause = self._failure or process.cause
        trace = self._traceback or "\n".join(self._stacks or ())
        self._traceback = self._failure = ""
        if self.state == "opening" and not outside:
            self._blame_state()
        self._crashed(cause, trace, soft=False)

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
        well_s = max(0.0, self._alive_at - self._opened_at) if self.state == "open" else 0.0
        self.hub.publish(ComponentCrashed(self.name, self.pid, cause, trace, tuple(self.log_tail)))
        progress = self._progress()
        self._renews = False
        self._go_down(cause, now)
        delay = self._policy.crashed(now, progress=progress, well_s=well_s)
        if delay is None and self.hub.stopping:
            self._give_up_closing()
        elif delay is None and self.hub.starting:
            self.hub.start_failed(self.name, cause, trace)
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
        self._pings = 0
        if suspect is not None:
            self.hub.dead_letter(self.name, suspect, cause)

    def _renew(self, cause: str) -> None:
        """Replace its process, as its actor has asked for: no crash, and never given up."""
        now = time.monotonic()
        self._renews = True
        self._go_down(cause, now)
        self._delay = self._policy.renewed(now)
        if self._process is not None:
            self._process.kill()

    def _progress(self) -> bool:
        """Return whether it has handled mail of its own, or made sound. Timers are no progress."""
        slot = self.slot
        self.mailbox.settle(slot)
        answered = self._pings - self.mailbox.pings
        return slot.handled(MAIL) > answered or slot.handled(HELD) > 0 or self._told_audio

    def _give_up(self, cause: str, soft: bool) -> None:
        if self.spec.essential:
            self.hub.fail(f"{self.name} keeps crashing: {cause}", self.name)
            return
        self.state = "parked"
        delay = self._policy.parked()
        self.hub.publish(ComponentParked(self.name, cause, delay))
        if soft:
            self._end_process()
        generation = self._generation
        self.hub.loop.later(delay, lambda: self._unpark(generation))

    def _unpark(self, generation: int) -> None:
        if self.state == "parked" and generation == self._generation:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
            self.state = "down"
            self._relaunch()

    def _restart_after(self, delay: float, soft: bool, spent: bool) -> None:
        generation = self._generation
        if not soft:
            self._later(delay, generation, self._relaunch)
        elif self._policy.soft() and not spent:
            self._fresh_process = False
            self._later(delay, generation, lambda: self.open(resumed=True))
        else:  # out of memory, or a third raise in a row: the process itself may be at fault
            self._delay = delay
            self._end_process()

    def _give_up_closing(self) -> None:
        """End what is not worth another start while the session stops."""
        self._finish()
        if self._process is None:
            self.hub.child_closed()

    def _later(self, delay: float, generation: int, call: Callable[[], None]) -> None:
        def run() -> None:
            if self.state != "down" or generation != self._generation:
                return
            if self._is_wanted():
                call()
            else:
                self._give_up_closing()

        if delay <= 0:
            run()
        else:
            self.hub.loop.later(delay, run)

    def _relaunch(self) -> None:
        if not self._is_wanted():
            self._give_up_closing()
            return
        delay, self._delay = self._delay, 0.0
        if delay > 0:
            self._later(delay, self._generation, self._relaunch)
            return
        self._fresh_process = True
        self.launch()

    def _end_process(self) -> None:
        """Have the process release its devices and end; kill it if it does not."""
        self._write(Stop("a new process takes over"))
        if self._process is not None:
            self.hub.loop.later(EXIT_GRACE_S, self._process.kill)

    # -- watching -----------------------------------------------------------------------------

    def check(self, now: float, hang_s: float, start_s: float) -> None:
        """Find out whether it has ended without the end of its channel, or is stuck."""
        if self._line is not None and self._process is not None and self._process.ended():
            if self._unended:  # what it has written has been read: something else keeps it open
                self._line.close()
                self._channel_ended("", self._generation)
                return
            self._unended = True
        if self.state in ("loading", "opening"):
            if now - self._since > start_s:
                why = f"has not started within {start_s:g} s"
                if self.hub.starting:  # seldom enough to be tried for ever
                    self.hub.start_failed(self.name, why, "")
                self.kill(why)
            return
        if self.state != "open" or self._failure:
            return
        slot = self.slot
        alive = (slot.handled(MAIL), slot.handled(HELD), slot.handled(LOCAL))
        if alive != self._alive:
            self._alive, self._alive_at = alive, now
        self.mailbox.settle(slot)
        if self.mailbox.in_flight == 0 and slot.in_hand() is None:
            if now - self._alive_at >= hang_s / 4:
                self._pings += 1
                self._pinged_at = now
                self.put(encode(Ping()))
            return
        if now - self._alive_at >= hang_s and (
            slot.in_hand() is not None or now - self._pinged_at >= hang_s / 2
        ):
            self._kill_hung(f"hung for {now - self._alive_at:.1f} s")

    def _kill_hung(self, why: str) -> None:
        """End a process that is stuck, once it has said where (if it is not stopped)."""
        self._failure = why
        process = self._process
        if process is not None and _SHOW_STACKS is not None and not process.stopped:
            self._stacks = []
            process.signal(_SHOW_STACKS)
            self._hear_out(process, time.monotonic() + _LAST_WORDS_S, 0)
        else:
            self.kill(why)

    def _hear_out(self, process: Process, deadline: float, lines: int) -> None:
        """End a process that hangs, once it has nothing more to say."""
        said = len(self._stacks or ())
        if (said and said == lines) or time.monotonic() > deadline:
            process.kill()
        else:
            self.hub.loop.later(_LOOK_S, lambda: self._hear_out(process, deadline, said))

    def tell_drops(self, now: float) -> None:
        """Tell what was dropped since the last time; once a second at most, until the end."""
        self._drops.tell(now, self.mailbox.lost)

    def strike(self, number: int) -> None:
        """Send its process a signal, for fault injection."""
        if self._process is not None:
            self._process.signal(number)

    def forgive(self, now: float) -> None:
        """Start all clocks anew: the supervisor itself did not run."""
        self._alive_at = self._pinged_at = self._since = now

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


def _nothing(_: object) -> None:
    pass
