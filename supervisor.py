"""The supervisor: starts the components, carries their messages, restarts what crashes.

``python -m supervisor`` runs a conversation; `Session` embeds one in a program. Both come down to a
`Supervisor`: one thread, one selector, a mailbox for each component. It routes frames by their tag
and never reads what they carry, keeps what is not handled, and is the only one who knows who there
is. User code never runs in its process.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os
    import sys

    # Python looks into the folder in which it is called first: a file there that has the name of
    # something we import is not what we want. What is the user's own is loaded by our children.
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib is not imported yet
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != here:
        del sys.path[0]
    try:
        try:
            from rtvoice.cli import main
        except ModuleNotFoundError as error:
            sys.stderr.write(
                f"rtvoice: this Python ({sys.executable}) has no package {error.name}; install "
                f"rtvoice for it, or call the Python for which it is installed\n"
            )
            raise SystemExit(2) from None
        main()
    except KeyboardInterrupt:  # while it is still being imported
        raise SystemExit(130) from None

import collections
import math
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from actors.embedding.session import Session
from actors.embedding.stream import EventStream, Listener
from actors.supervision.directory import make_directory, make_page, sweep
from actors.supervision.drops import DropReport
from actors.supervision.peers import LocalPeer, Peer, ProgramPeer
from actors.supervision.probe import Probe
from actors.supervision.process import EXIT_GRACE_S, Process
from actors.supervision.restarting import RestartPolicy
from actors.supervision.sandbox import Sandbox
from actors.supervision.settings import checked
from actors.supervision.specs import SPECS, ChildSpec
from actors.supervision.tags import AUDIO_TAGS, ROUTED_FROM, type_name
from messages import (
    AudioLost,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    ConfigurationError,
    ConversationOver,
    Crashed,
    DeadLetter,
    FatalError,
    FileOpened,
    Hello,
    Init,
    Inject,
    InputLevel,
    Log,
    Message,
    Notice,
    Open,
    OutputLevel,
    Ping,
    Ready,
    Room,
    RtvoiceError,
    Rule,
    Save,
    SessionEnded,
    SessionEnding,
    SessionFailed,
    SessionFailedError,
    SessionInfo,
    SessionStarted,
    SoundFaltered,
    StartSession,
    Status,
    StatusRequest,
    Stop,
    StopSession,
    Subscribe,
    SupervisorDiedError,
    ToolCall,
    Turn,
    Wanted,
    decode,
    encode,
    epoch_of,
    level_of,
    tag_of,
    with_epoch,
)
from messages.channel import adopt_stdio
from messages.loop import Line, Loop, watch_text
from messages.mailbox import Mailbox, MailboxFullError, Suspect
from messages.page import HELD, LOCAL, MAIL
from messages.spawning import environment_with_us, resident_bytes

__all__ = [
    "SPECS",
    "ChildSpec",
    "ConfigurationError",
    "EventStream",
    "Listener",
    "Peer",
    "RestartPolicy",
    "RtvoiceError",
    "Session",
    "SessionFailedError",
    "Supervisor",
    "SupervisorDiedError",
    "serve_program",
]

_OVERSLEPT_S = 1.0
_LAST_WORDS_S = 0.15
"""How long a child that hangs has to say where, before it is killed; one that is stopped says
nothing, and one that runs has usually done so after a millisecond."""
_LOOK_S = 0.01
_SHOW_STACKS: int | None = getattr(signal, "SIGUSR1", None)
"""A child answers it with the stacks of its threads (`actors.host.main`)."""
_FATAL = "Fatal Python error:"
_LOG_TAIL = 50
_LOG_TAIL_CHARS = 2000
"""Of each record."""
_STACK_LINES = 500
_LOST = 100
"""How many losses the summary names one by one."""
_TOLD = 1000
"""How many turns and calls are remembered, so as not to tell or count them twice."""
_EARLY = 10_000
"""How many messages wait at the start until it is known who accepts them."""

EXIT_OK, EXIT_USAGE, EXIT_FAILED, EXIT_BUG = 0, 2, 3, 70


State = Literal["new", "loading", "loaded", "opening", "open", "down", "parked", "closed"]


class _Child:
    """One component: its mailbox, its process, its incarnations."""

    def __init__(self, hub: Supervisor, spec: ChildSpec, slot: int) -> None:
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
            self._stacks.append(line[:_LOG_TAIL_CHARS])
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


class Supervisor:
    """The hub of one session. Runs on the thread that calls `run`, until the session has ended."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        peer: Peer | None = None,
        api_key: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        specs: Sequence[ChildSpec] = SPECS,
    ) -> None:
        """Take the settings of a session.

        Args:
            settings: Fields of `messages.Settings` as plain values. What is absent is the agent's
                (``settings["agent"]``) or the default.
            peer: What is told of the session.
            api_key: For the realtime component alone; None: ``OPENAI_API_KEY`` of the environment.
            defaults: Settings that an agent's own go before.
            specs: The components, in the order of opening.

        Raises:
            ConfigurationError: a setting is unknown or out of range, or there is no room for the
                session's directory.
        """
        self.given = dict(settings)
        self._defaults = dict(defaults or {})
        self.settings = checked({**self._defaults, **self.given})
        sweep()
        self.directory = make_directory()
        self.page_path = self.directory / "page"
        self.page = make_page(self.page_path)
        self.loop = Loop()
        self.starting = True
        self.stopping = False
        self._unknown = True
        """Not every component has said yet what it accepts."""
        self._early: collections.deque[bytes] = collections.deque(maxlen=_EARLY)
        """What the program or the keyboard has said before that."""
        self._specs = specs
        self._api_key = api_key
        self._peer: LocalPeer | ProgramPeer | None = LocalPeer(peer) if peer else None
        self._children: dict[str, _Child] = {}
        self._table: dict[int, list[_Child]] = {}
        self._wanted: tuple[int, ...] = ()
        self._sandbox: Sandbox | None = None
        self._described = False
        self._epoch_ns = time.monotonic_ns()
        self._opening: list[_Child] = []
        self._closing: list[_Child] = []
        self._reason = ""
        self._exit_code: int | None = None
        self._patience_s = 0.0
        self._code = EXIT_OK
        self._ticked = time.monotonic()
        self._counts: collections.Counter[str] = collections.Counter()
        self._told: dict[str, None] = {}
        self._files: dict[str, None] = {}
        self._lost: list[str] = []
        self._more_lost = 0
        self._faltered: dict[tuple[str, str], SoundFaltered] = {}

    # -- for the program ----------------------------------------------------------------------

    def run(self) -> int:
        """Run the session to its end; return 0, 2 (it could not start) or 3 (it failed)."""
        self.loop.call(self._start)
        try:
            while self._exit_code is None:
                self.loop.turn()
        finally:  # on a bug of ours too (G16): the caller gets the exception, no child lives on
            self.kill_children()
            for child in self._children.values():
                child.bury()
            self._release()
        return self._exit_code

    def send(self, message: Message) -> None:
        """Do or pass on what the program says; from any thread or signal handler."""
        self.loop.call(lambda: self.obey(message, encode(message)))

    def status(self) -> dict[str, dict[str, Any]]:
        """Return how each component is: pid, state, restarts, mailbox, memory, …."""
        children = list(self._children.items())  # at once: any thread may ask
        faltered = list(self._faltered.values())
        return {
            name: {
                **child.status(),
                "faltered": sum(told.count for told in faltered if told.component == name),
            }
            for name, child in children
        }

    def attach(self, connection: socket.socket) -> None:
        """Make the program at the other end of a socket the peer."""
        self._peer = ProgramPeer(self, connection)

    def kill_children(self) -> None:
        """End every process at once; for a second Ctrl-C and for bugs."""
        for child in self._children.values():
            child.give_up("the supervisor ends")
        if self._sandbox is not None:
            self._sandbox.close()

    # -- start --------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.given.get("probes") and hasattr(socket, "AF_UNIX"):
            try:
                Probe(self)
            except OSError as error:  # the path of a socket has a hundred characters at most
                self.log("supervisor", "WARNING", f"faults from other programs: {error}")
        self._add(self._specs)
        self._add_what_settings_name()
        self._tick()

    def _add(self, specs: Iterable[ChildSpec]) -> None:
        for spec in specs:
            child = _Child(self, spec, len(self._children))
            self._children[spec.name] = child
            self._opening.append(child)
            child.launch()

    def _add_what_settings_name(self) -> None:
        settings = self.settings
        agent_may_say = "agent" in self.given and not self._described
        if settings.server == "sandbox" and self._sandbox is None and not agent_may_say:
            self._sandbox = Sandbox(self)
        new = settings.components.keys() - self._children.keys()
        self._add(ChildSpec(name=name, target=settings.components[name]) for name in sorted(new))

    def child_loaded(self, child: _Child) -> None:
        """Note what a component accepts; when all are known, open them."""
        for tag in child.accepts:
            receivers = self._table.setdefault(tag, [])
            receivers.append(child)
            receivers.sort(key=lambda receiver: receiver.spec.linger_s)  # who is in a hurry first
        if child.described:
            self._describe(child)
        self.open_next()

    def _describe(self, child: _Child) -> None:
        try:
            self.settings = checked({**self._defaults, **child.described, **self.given})
        except ConfigurationError as error:
            self.start_failed(child.name, str(error), "")
            return
        self._described = True
        self._add_what_settings_name()

    def _route_early(self) -> None:
        """Give what came before it was known who accepts it to those who do, as far as is known."""
        self._unknown = False
        while self._early:
            self.route(self._early.popleft())

    def open_next(self) -> None:
        """Open the next component, in order, if everything it needs is there.

        Nobody is opened before all have said what they accept: no message may miss its receiver.
        """
        if not self.starting or self.stopping:
            return
        if not all(child.introduced for child in self._children.values()):
            return
        self._route_early()
        if not self._opening:
            self._started()
            return
        child = self._opening[0]
        if child.state != "loaded":
            return
        if child.name == "realtime" and self._sandbox is not None and not self._sandbox.url:
            return
        child.open()

    def child_open(self, child: _Child) -> None:
        """Go on with the next one."""
        if self.starting and self._opening and self._opening[0] is child:
            del self._opening[0]
            self.open_next()

    def _started(self) -> None:
        self.starting = False
        pids = {name: child.pid for name, child in self._children.items()}
        pids["supervisor"] = os.getpid()
        if self._sandbox is not None:
            pids["sandbox"] = self._sandbox.pid
        settings = self.settings
        self.publish(
            SessionStarted(
                pids,
                self._server_url(),
                settings.input,
                settings.output,
                bool(self._sandbox),
                self._epoch_ns,
            )
        )
        if settings.max_seconds is not None:
            self.loop.later(settings.max_seconds, lambda: self.stop("the time is over"))

    def start_failed(self, name: str, error: str, trace: str) -> None:
        """End a session that has not begun, with the reason."""
        if trace:
            self.log(name, "DEBUG", trace)
        self.fail(f"{name} cannot start: {error}", name, code=EXIT_USAGE)

    def session_info(self, *, first: bool) -> SessionInfo:
        """Return what a component is told when it is opened."""
        return SessionInfo(
            epoch_ns=self._epoch_ns,
            directory=str(self.directory),
            server_url=self._server_url(),
            first=first,
        )

    def _server_url(self) -> str:
        if self._sandbox is not None:
            return self._sandbox.url
        return "" if self.settings.server == "openai" else self.settings.server

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment of a child: only realtime and the user's tools see the key."""
        environment = environment_with_us(os.environ)
        environment["OPENBLAS_NUM_THREADS"] = "1"  # importing numpy starts threads otherwise
        if self._api_key is not None:
            environment.pop("OPENAI_API_KEY", None)
            if name == "realtime":
                environment["OPENAI_API_KEY"] = self._api_key
        elif name not in ("realtime", "tools", *self.settings.components):
            environment.pop("OPENAI_API_KEY", None)
        return environment

    # -- messages -----------------------------------------------------------------------------

    def route(self, frame: bytes, source: _Child | None = None) -> None:
        """Give a message to every component that accepts its type, and to the program."""
        tag = tag_of(frame)
        if tag in _HUB_TAGS and not self._note(decode(frame)):
            return
        for child in self._table.get(tag, ()):
            if child is not source:
                child.put(frame)
        if self._peer is not None and tag in self._peer.tags:
            self._peer.put(frame)

    def publish(self, message: Message) -> None:
        """Tell everyone something of our own."""
        self.route(encode(message))

    def obey(self, message: Message, frame: bytes) -> None:
        """Do what the program says, or pass it on."""
        match message:
            case StopSession(reason):
                self.stop(reason)
            case Subscribe(tags):
                if self._peer is not None:
                    self._peer.tags = frozenset(tags)
                    self._tell_wanted()
            case StatusRequest(call_id):
                self._tell_peer(Status(call_id, self.status()))
            case Inject(name, fault):
                self._inject(name, fault, frame)
            case _ if self._unknown:
                self._early.append(frame)
            case _:
                self.route(frame)

    @property
    def wanted(self) -> tuple[int, ...]:
        """Which messages that are sent on demand only somebody wants."""
        peer = self._peer.tags if self._peer is not None else frozenset()
        return tuple(tag for tag in _ON_DEMAND_TAGS if tag in peer or tag in self._table)

    def _tell_wanted(self) -> None:
        """Tell the components what is wanted, if that has changed."""
        wanted = self.wanted
        if wanted != self._wanted:
            self._wanted = wanted
            for child in self._children.values():
                child.put(encode(Wanted(wanted)))

    def _inject(self, name: str, fault: str, frame: bytes) -> None:
        child = self._children.get(name)
        if child is None or not self.settings.probes:
            self.log("supervisor", "WARNING", f"{fault} is not injected into {name!r}")
        elif fault in signal.Signals.__members__:
            child.strike(signal.Signals[fault])
        else:
            child.put(frame)

    def _tell_peer(self, message: Message) -> None:
        if self._peer is not None:
            self._peer.put(encode(message))

    def _note(self, message: Message) -> bool:
        """Take notice of what concerns the session as a whole; return whether it is news."""
        match message:
            case Turn(item_id=told) | ToolCall(call_id=told):
                kind = type(message).__name__
                if told not in self._told:
                    self._told[told] = None
                    if len(self._told) > _TOLD:
                        del self._told[next(iter(self._told))]
                    self._counts[kind] += 1
                else:  # history died between telling a turn and noting that it did
                    return not isinstance(message, Turn)
            case ConversationOver(reason):
                self.stop(reason)
            case FatalError(reason):
                self.fail(reason, "realtime")
            case SoundFaltered(name, reason):
                before = self._faltered.get((name, reason))
                self._faltered[name, reason] = before.plus(message) if before else message
            case AudioLost(name, audio_ms, reason):
                self._lose(f"{audio_ms} ms of sound at the {name} ({reason})")
            case DeadLetter(name, what, reason, about=about):
                self._lose(f"{' '.join(filter(None, (what, about)))} to {name} ({reason})")
            case FileOpened(path):
                self._files[path] = None
        return True

    def dead_letter(self, name: str, suspect: Suspect, reason: str) -> None:
        """Tell that a message will not be handled."""
        if suspect.tag == DeadLetter.tag():  # or a full mailbox of these would go on for ever
            self._lose(f"{suspect.name} to {name} ({reason})")
            return
        self.publish(
            DeadLetter(
                name, suspect.name, reason, suspect.attempts, suspect.about, suspect.audio_ms
            )
        )

    def _lose(self, what: str) -> None:
        """Keep for the summary what was lost, up to a bound."""
        if len(self._lost) < _LOST:
            self._lost.append(what)
        else:
            self._more_lost += 1

    def log(self, name: str, level: str, text: str) -> None:
        """Take a line that a process has written."""
        self.log_record(name, Log(level, text))

    def log_record(self, name: str, record: Log) -> None:
        """Keep a record for crash reports, and pass it to whoever renders logs."""
        child = self._children.get(name)
        if child is not None:
            child.log_tail.append(f"{record.level} {record.text}"[:_LOG_TAIL_CHARS])
        wanted = level_of(self.settings.log_level)
        if level_of(record.level) >= wanted and self._peer is not None:
            if Log.tag() in self._peer.tags:
                self._tell_peer(msgspec.structs.replace(record, component=name))

    # -- time ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        interval = min(0.1, self.settings.hang_s / 8)
        now = time.monotonic()
        overslept = now - self._ticked > interval + min(_OVERSLEPT_S, self.settings.hang_s / 2)
        self._ticked = now
        for child in self._children.values():
            if overslept:
                child.forgive(now)
            child.check(now, self.settings.hang_s, self.settings.start_s)
            child.tell_drops(now)
        if self._peer is not None:
            self._peer.tell_drops(now)
        self.loop.later(interval, self._tick)

    # -- end ----------------------------------------------------------------------------------

    def fail(self, reason: str, component: str = "", *, code: int = EXIT_FAILED) -> None:
        """End the session because it cannot go on."""
        if self.stopping:
            return
        self._code = code
        self.publish(SessionFailed(reason, component))
        self.stop(reason)

    def stop(self, reason: str, *, within_s: float | None = None) -> None:
        """Close the components one after the other; a later one may still need an earlier one."""
        if self.stopping:
            return
        self._patience_s = (within_s or self.settings.stop_s * 0.9) / 2
        self.stopping = True
        self._route_early()  # nobody will handle it, but it is told that it is lost
        self._reason = reason
        self.publish(SessionEnding(reason))
        self._closing = list(reversed(self._children.values()))
        self.loop.later(self._patience_s * 2, self.kill_children)
        self._close_next()

    def child_closed(self) -> None:
        """Go on with the next one."""
        if self.stopping:
            self._close_next()

    def _close_next(self) -> None:
        while self._closing:
            child = self._closing[0]
            if not child.asked_to_close:
                child.close()
                self.loop.later(self._patience_s, partial(child.give_up, "did not close"))
            if not child.gone:
                return
            del self._closing[0]
        self._ended()

    def _ended(self) -> None:
        restarts = {name: child.restarts for name, child in self._children.items()}
        for child in self._children.values():
            child.tell_drops(math.inf)
        if self._peer is not None:
            self._peer.tell_drops(math.inf)
        self._lost.extend(self._dropped())
        if self._more_lost:
            self._lost.append(f"{self._more_lost} more, each told when it happened")
        self.publish(
            SessionEnded(
                self._reason,
                self._counts["Turn"],
                self._counts["ToolCall"],
                {name: count for name, count in restarts.items() if count},
                tuple(self._lost),
                tuple(self._files),
                round((time.monotonic_ns() - self._epoch_ns) / 1e9, 3),
                self._code != EXIT_OK,
                tuple(told.text for told in self._faltered.values()),
            )
        )
        self._exit_code = self._code

    def _dropped(self) -> Iterator[str]:
        if self._peer is not None and self._peer.dropped:
            yield f"{self._peer.dropped} messages to the program (it did not read them)"
        for name, child in self._children.items():
            for tag, dropped in child.mailbox.lost.items():
                sound = f", {dropped.audio_ms} ms of sound" if dropped.audio_ms else ""
                yield f"{dropped.count} {type_name(tag)} to {name} (mailbox full{sound})"
            child.mailbox.settle(child.slot)
            for tag, count in child.mailbox.unhandled().items():
                yield f"{count} {type_name(tag)} to {name} (it has ended)"

    def _release(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
        if self._peer is not None:
            self._peer.close()
        self.loop.close()
        shutil.rmtree(self.directory, ignore_errors=True)


_HUB_TAGS = frozenset(
    kind.tag()
    for kind in (
        Turn,
        ToolCall,
        ConversationOver,
        FatalError,
        AudioLost,
        DeadLetter,
        FileOpened,
        SoundFaltered,
    )
)
_ON_DEMAND_TAGS = (InputLevel.tag(), OutputLevel.tag())


def serve_program() -> int:
    """Be the supervisor of a program that has started us: ``python -m supervisor --peer``."""
    channel = adopt_stdio()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to answer
    try:
        first = decode(channel.read())
    except EOFError:
        return EXIT_OK
    assert isinstance(first, StartSession), first
    api_key = os.environ.pop("RTVOICE_API_KEY", None)
    try:
        hub = Supervisor(first.settings, api_key=api_key)
    except ConfigurationError as error:
        channel.write(SessionFailed(str(error)))
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, lambda *_: hub.send(StopSession("terminated")))
    hub.attach(channel.connection)
    hub.send(Subscribe(first.subscribe))
    try:
        return hub.run()
    except Exception:  # noqa: BLE001 - a bug of ours; its place reaches the program's stderr
        traceback.print_exc()
        return EXIT_BUG


