"""The supervisor: starts the components, carries their messages, restarts what crashes.

``python -m supervisor`` runs a conversation; `Session` embeds one in a program. Both use a
`Supervisor`: one thread, one selector, a mailbox for each component. It routes frames by their tag
without reading the rest, and keeps what is not handled. User code never runs in its process.

This module is the hub: how a session starts, runs and ends. The supervised components are in
`actors.supervision`; the program's side of a session is in `actors.embedding`.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os
    import sys

    # Python looks for modules in the current folder first: a file there with the name of a module
    # that we import must not stand in for it. The user's own modules are loaded by our children.
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib is not imported yet
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != here:
        del sys.path[0]
    try:
        try:
            from rtvoice.command.cli import main
        except ModuleNotFoundError as error:
            run = os.path.join(here, "scripts", "run")  # noqa: PTH118 - as above
            set_up = f"call {run}, " if os.path.exists(run) else ""  # noqa: PTH110
            sys.stderr.write(
                f"rtvoice: this Python ({sys.executable}) has no package {error.name}; {set_up}"
                f"install rtvoice for it, or call the Python for which it is installed\n"
            )
            raise SystemExit(2) from None
        main()
    except KeyboardInterrupt:  # while it is still being imported
        raise SystemExit(130) from None

import contextlib
import math
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.supervision.child import Child
from actors.supervision.directory import make_directory, make_page, page_path, sweep
from actors.supervision.hub import SessionStage
from actors.supervision.lifecycle import Phase
from actors.supervision.peers import ProgramPeer
from actors.supervision.probe import Probe
from actors.supervision.record import Kept, Record, UnusableRecordError, read, state_path
from actors.supervision.restarting import RestartPolicy
from actors.supervision.routing import Router
from actors.supervision.sandbox import SandboxChild
from actors.supervision.shutdown import Shutdown
from actors.supervision.specs import SPECS, ChildSpec
from actors.supervision.summary import Summary
from messages import (
    ConfigurationError,
    Confirm,
    Confirmed,
    ConversationOver,
    DeadLetter,
    FatalError,
    Init,
    Inject,
    Log,
    Message,
    Notice,
    RtvoiceError,
    SessionEnding,
    SessionFailed,
    SessionFailedError,
    SessionInfo,
    SessionStarted,
    StartSession,
    Status,
    StatusRequest,
    StopSession,
    Subscribe,
    SupervisorDiedError,
    decode,
    encode,
    level_of,
)
from messages.exit_codes import EXIT_BUG, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from messages.paths import path_of_text, printable, text_of_path
from messages.transport.channel import adopt_stdio
from messages.transport.loop import Loop
from messages.transport.mailbox import Suspect
from messages.transport.saved import read_state, remove_state
from messages.transport.spawning import cpu_seconds, environment_with_us, resident_bytes
from messages.urls import shown
from messages.validation import checked_settings

if TYPE_CHECKING:
    from actors.embedding.session import Session
    from actors.embedding.stream import EventStream, Listener
else:

    def __getattr__(name: str) -> Any:
        """Import the embedding API on first use: the hub itself needs no event loop."""
        if name not in ("EventStream", "Listener", "Session"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from actors.embedding import session, stream

        globals().update(
            EventStream=stream.EventStream, Listener=stream.Listener, Session=session.Session
        )
        return globals()[name]


__all__ = [
    "SPECS",
    "ChildSpec",
    "ConfigurationError",
    "EventStream",
    "Listener",
    "RestartPolicy",
    "RtvoiceError",
    "Session",
    "SessionFailedError",
    "Supervisor",
    "SupervisorDiedError",
    "serve_program",
]

_SLOW_START_S = 5.0
"""A start that takes longer is reported, with the components that it waits for."""
_CHECK_S = (0.1, 0.25)
"""Interval of the checks of all components: while the session starts or ends, and while it runs."""
_NONE = "there is none"
_OVERSLEPT_S = 1.0
"""The supervisor itself did not run if it wakes this much later than planned."""


class Supervisor:
    """The hub of one session. Runs on the thread that calls `run`, until the session has ended.

    It has many attributes because it is the one place that knows the whole session: most are its
    parts (`Router`, `Child`, `SandboxChild`, `Shutdown`, `Summary`) or given at the start.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        api_key: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        specs: Sequence[ChildSpec] = SPECS,
        directory: str = "",
        resumed: bool = False,
    ) -> None:
        """Check the settings of a session; `run` starts it.

        Args:
            settings: Fields of `messages.Settings` as plain values. A field that is absent comes
                from the agent (``settings["agent"]``), then from ``defaults``.
            api_key: For the realtime component alone; None: ``OPENAI_API_KEY`` of the environment.
            defaults: Fields that are used where neither ``settings`` nor the agent has a value.
            specs: The components, in start order.
            directory: The directory of the session; empty: a new one.
            resumed: Whether to continue the session of a dead supervisor, from its record in the
                directory.

        Raises:
            ConfigurationError: A setting is unknown or out of range, or the session's directory
                cannot be made.
        """
        self.given = dict(settings)
        self._defaults = dict(defaults or {})
        self.settings = checked_settings({**self._defaults, **self.given})
        sweep()
        self.directory = Path(path_of_text(directory)) if directory else make_directory()
        self._page_path = page_path(self.directory, os.getpid())
        self._page = make_page(self._page_path)
        self.loop = Loop()
        self.stage = SessionStage.STARTING
        self._specs = specs
        self._api_key = api_key
        self._router = Router(self._note)
        self.route, self.publish = self._router.route, self._router.publish
        self.route_from_program = self._router.route_from_program
        self._children: dict[str, Child] = {}
        self._opening: list[Child] = []
        """The components that are not open yet, in start order."""
        self._ending: Shutdown | None = None
        self._sandbox: SandboxChild | None = None
        self._described = False
        """Whether the settings in the user's agent are known."""
        self._epoch_ns = self._began_ns = time.monotonic_ns()
        self._resumed: Literal["", "supervisor", "journal"] = "supervisor" if resumed else ""
        self._is_prepared = self._is_broken = False
        self._unconfirmed: int | None = None
        """Number of the last command that the program wants to be confirmed."""
        self._can_resume = bool(directory)
        self._is_abandoned = False
        """Whether the program has disappeared; another program may resume the conversation."""
        self._record = Record(self.loop, self.directory, self._kept, self.publish)
        self._ticked = time.monotonic()
        self._reported_slow = False
        self._summary = Summary()
        self._code = EXIT_OK
        self._exit_code: int | None = None
        """None until the session has ended."""

    # -- for the program ----------------------------------------------------------------------

    def run(self) -> int:
        """Run the session to its end; return 0, 2 (it could not start) or 3 (it failed)."""
        self.loop.call(self._start)
        try:
            while self._exit_code is None:
                self.loop.turn()
        except Exception as error:
            self._is_broken = True
            with contextlib.suppress(Exception):  # the hub is broken: this may fail too
                text = f"{type(error).__name__}: {error}"
                self._router.send_to_program(Log("CRITICAL", text, component="supervisor"))
            raise
        finally:  # also on a bug of ours (G16): the caller gets the exception, no child lives on
            self._end_processes()
        return self._exit_code

    def send(self, message: Message) -> None:
        """Handle a message of the program; from any thread or signal handler."""
        self.loop.call(lambda: self.obey(message, encode(message)))

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of each component: pid, state, restarts, mailbox, memory, …."""
        children = list(self._children.items())  # a copy: any thread may ask
        return {
            name: {**child.status(), "faltered": self._summary.faltered(name)}
            for name, child in children
        }

    def others(self) -> dict[str, dict[str, Any]]:
        """Return pid, memory and CPU time of the processes that are no components."""
        pids = {"supervisor": os.getpid()}
        if self._sandbox is not None and self._sandbox.pid:
            pids["sandbox"] = self._sandbox.pid
        return {
            name: {"pid": pid, "memory_bytes": resident_bytes(pid), "cpu_seconds": cpu_seconds(pid)}
            for name, pid in pids.items()
        }

    def attach(self, connection: socket.socket) -> None:
        """Use the program at the other end of a socket."""
        self._router.peer = ProgramPeer(self, connection)

    def _end_processes(self) -> None:
        """Kill what lives on and release everything, whatever is broken in the hub itself."""
        children = list(self._children.values())
        for child in children:
            child.kill_process()
        if self._sandbox is not None:
            self._sandbox.close()
        for child in children:
            child.bury()
        self._release()

    def kill_children(self) -> None:
        """Kill every process at once: on a second Ctrl-C, and on a bug of ours."""
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
            index = len(self._children)
            child = Child(self, spec, self._page.slot(index))
            self._children[spec.name] = child
            self._opening.append(child)
            child.launch()

    def _add_what_settings_name(self) -> None:
        settings = self.settings
        agent_may_say = "agent" in self.given and not self._described
        if settings.server == "sandbox" and self._sandbox is None and not agent_may_say:
            self._sandbox = SandboxChild(self)
        new = settings.components.keys() - self._children.keys()
        self._add(ChildSpec(name=name, target=settings.components[name]) for name in sorted(new))

    def register(self, child: Child) -> None:
        """Add a component, whose first process has said what it accepts, to the routing table."""
        self._router.add(child)
        if child.described and not self.stage.is_last:  # else it would start components
            self._describe(child)

    def _describe(self, child: Child) -> None:
        try:
            self.settings = checked_settings({**self._defaults, **child.described, **self.given})
        except ConfigurationError as error:
            self.start_failed(child.name, str(error), "")
            return
        self._described = True
        self._add_what_settings_name()

    def open_next(self) -> None:
        """Open the next component in start order, if everything that it needs is there.

        None is opened before all have said what they accept: a message must not miss its receiver.
        """
        if self.stage is not SessionStage.STARTING:
            return
        if not all(child.hello for child in self._children.values()):
            return
        if not self._is_prepared:
            self._is_prepared = True
            for child in self._children.values():
                if child.spec.needs and getattr(self.settings, child.spec.needs) is None:
                    self._router.leave_out(child)
            self._prepare()
        self._router.complete()
        if not self._opening:
            self._started()
            return
        child = self._opening[0]
        if child.phase is not Phase.LOADED:
            return
        if child.name == "realtime" and self._sandbox is not None and not self._sandbox.url:
            return
        child.open()

    # -- going on with an earlier conversation ------------------------------------------------

    @property
    def _record_path(self) -> Path | None:
        """Where the record is kept beside the journal; None: only while the session runs."""
        if self.settings.redact is not None:  # it has texts, as the components save them
            return None
        journal = self.settings.resume or self.settings.journal_path
        return state_path(journal) if journal else None

    def _prepare(self) -> None:
        """Give the components what those of an earlier supervisor or session have left."""
        path = self._record_path
        if self._resumed == "supervisor":
            path = self._record.found
        elif self.settings.resume:
            self._resumed = "journal"
        if not self._resumed or path is None:
            return
        try:
            kept, why = read(path), _NONE
        except UnusableRecordError as error:
            kept, why = None, str(error)
        if kept is None:
            for name in self._children:  # what they have saved belongs to the timeline of then
                remove_state(self.directory, name)
            if self._resumed == "journal" and why == _NONE:
                return  # the conversation had ended in order: its settings ended with it
            self.publish(
                Notice(
                    f"The state that belongs to the conversation is not used: {why}. It goes on "
                    f"from the journal alone, with the settings of its start."
                )
            )
            return
        if self._resumed == "supervisor":
            self._epoch_ns = kept.epoch_ns
        self._summary = Summary(kept.summary)
        for name, child in self._children.items():
            commands = kept.commands.get(name, [])
            state = kept.states.get(name)
            if self._resumed == "supervisor":  # what a component has written itself is newer
                state = read_state(self.directory, name) or state
            child.inherit(state, commands, kept.restarts.get(name, 0))

    def _kept(self) -> Kept:
        """Return what the next supervisor needs."""
        children = self._children.items()
        settings = msgspec.structs.replace(self.settings, server=shown(self.settings.server))
        return Kept(
            epoch_ns=self._epoch_ns,
            settings=msgspec.Raw(msgspec.msgpack.encode(settings)),
            commands={name: found for name, child in children if (found := child.commands())},
            states={name: child.state for name, child in children if child.state is not None},
            restarts={name: child.restarts for name, child in children if child.restarts},
            summary=self._summary.state,
        )

    def state_changed(self) -> None:
        """Have the record written soon: a component has saved its state."""
        self._record.changed()

    def child_open(self, child: Child) -> None:
        """Open the next component: this one is open."""
        if self._opening and self._opening[0] is child:
            del self._opening[0]
            self.open_next()

    def _started(self) -> None:
        self.stage = SessionStage.RUNNING
        self._record.begin(self._record_path)  # now: no other session has the journal
        self._confirm()
        pids = {name: child.pid for name, child in self._children.items()}
        pids["supervisor"] = os.getpid()
        if self._sandbox is not None:
            pids["sandbox"] = self._sandbox.pid
        settings = self.settings
        self.publish(
            SessionStarted(
                pids,
                shown(self._server_url()),
                printable(settings.input),
                printable(settings.output),
                bool(self._sandbox),
                self._epoch_ns,
                self._summary.items,
                settings.turn_detection is None,
            )
        )
        if settings.max_seconds is not None:
            self.loop.later(settings.max_seconds, lambda: self.stop("the time is over"))

    def start_failed(self, name: str, error: str, trace: str) -> None:
        """End a session that has not started, with the reason."""
        if trace:
            self.log(name, "DEBUG", trace)
        self.fail(f"{name} cannot start: {error}", name, code=EXIT_USAGE)

    def init_of(self, child: Child) -> Init:
        """Return the first message to a process; the agent's settings may not be known yet."""
        given = self.given
        return Init(
            child.name,
            child.spec.target,
            text_of_path(str(self._page_path)),
            child.slot.index,
            self.settings.agent if child.name == "tools" else None,
            str(given.get("log_level", "INFO")),
            bool(given.get("probes", False)),
            child.memory_mib,
            self.settings.import_path,
            tuple(filter(None, (getattr(self.settings, key) for key in child.spec.loads))),
        )

    def session_info(self, *, first: bool) -> SessionInfo:
        """Return the facts of the session that a component is opened with."""
        return SessionInfo(
            epoch_ns=self._epoch_ns,
            directory=text_of_path(str(self.directory)),
            server_url=self._server_url(),
            first=first and self._resumed != "supervisor",
            resumed=self._resumed if first else "",
        )

    def _server_url(self) -> str:
        if self._sandbox is not None:
            return self._sandbox.url
        return "" if self.settings.server == "openai" else self.settings.server

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment of a child; only realtime and user code see the API key."""
        environment = environment_with_us(os.environ)
        environment["OPENBLAS_NUM_THREADS"] = "1"  # else importing numpy starts threads
        if self._api_key is not None:
            environment.pop("OPENAI_API_KEY", None)
            if name == "realtime":
                environment["OPENAI_API_KEY"] = self._api_key
        elif name not in ("realtime", "tools", *self.settings.components):
            environment.pop("OPENAI_API_KEY", None)
        return environment

    # -- messages -----------------------------------------------------------------------------

    def obey(self, message: Message, frame: bytes) -> None:
        """Handle a request of the program, or deliver its message."""
        match message:
            case StopSession(reason):
                self.stop(reason)
            case Subscribe(tags):
                if self._router.peer is not None:
                    self._router.peer.tags = frozenset(tags)
                    self._router.announce_wanted(self._children.values())
            case Confirm(number):
                self._unconfirmed = number
                self._confirm()
            case StatusRequest(call_id):
                self._router.send_to_program(Status(call_id, self.status(), self.others()))
            case Inject(name, fault):
                self._inject(name, fault, frame)
            case _:
                self.route_from_program(frame)

    def _confirm(self) -> None:
        """Confirm the commands of the program, once the record has them.

        Before all components are open there is no record: if this supervisor died, nobody would
        know of them.
        """
        if self._unconfirmed is None or self.stage is SessionStage.STARTING:
            return
        for child in self._children.values():
            child.mailbox.confirm()
        self._record.write()
        self._router.send_to_program(Confirmed(self._unconfirmed))
        self._unconfirmed = None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Tags of the messages that are sent on demand only and that somebody wants."""
        return self._router.wanted

    def _inject(self, name: str, fault: str, frame: bytes) -> None:
        child = self._children.get(name)
        if child is None or not self.settings.probes:
            self.log("supervisor", "WARNING", f"{fault} is not injected into {name!r}")
        elif fault in signal.Signals.__members__:
            child.strike(signal.Signals[fault])
        else:
            child.put(frame)

    def _note(self, message: Message) -> bool:
        """Handle a message about the whole session; return whether it is to be delivered."""
        match message:
            case ConversationOver(reason):
                self.stop(reason)
            case FatalError(reason):
                self.fail(reason, "realtime")
            case _:
                self._record.changed()
                is_news = self._summary.note(message)
                if not is_news and self._resumed:
                    # An earlier supervisor may have died before it delivered the turn.
                    self._router.send_to_program(message)
                return is_news
        return True

    def dead_letter(self, name: str, suspect: Suspect, reason: str) -> None:
        """Publish that a message will not be handled."""
        if suspect.tag == DeadLetter.tag():  # else a full mailbox of dead letters would never end
            self._summary.lose(f"{suspect.name} to {name} ({reason})")
            return
        self.publish(
            DeadLetter(
                name, suspect.name, reason, suspect.attempts, suspect.about, suspect.audio_ms
            )
        )

    def log(self, name: str, level: str, text: str) -> None:
        """Log a line on behalf of a process."""
        self.log_record(name, Log(level, text))

    def log_record(self, name: str, record: Log) -> None:
        """Keep a log record for crash events, and give it to the program."""
        child = self._children.get(name)
        if child is not None:
            child.keep_log(record)
        is_wanted = level_of(record.level) >= level_of(self.settings.log_level)
        if is_wanted and self._router.is_subscribed(Log.tag()):
            self._router.send_to_program(msgspec.structs.replace(record, component=name))

    # -- time ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        interval = min(_CHECK_S[self.stage is SessionStage.RUNNING], self.settings.hang_s / 8)
        now = time.monotonic()
        overslept = now - self._ticked > interval + min(_OVERSLEPT_S, self.settings.hang_s / 2)
        self._ticked = now
        for child in self._children.values():
            if overslept:
                child.forgive(now)
            child.check(now, self.settings.hang_s)
            child.publish_drops(now)
        if self._router.peer is not None:
            self._router.peer.publish_drops(now)
        if self.stage is SessionStage.STARTING and now - self._began_ns / 1e9 > _SLOW_START_S:
            self._report_slow_start()
        self.loop.later(interval, self._tick)

    def _report_slow_start(self) -> None:
        """Publish, once, which components the start waits for."""
        if not self._reported_slow:
            self._reported_slow = True
            names = [child.name for child in self._opening]
            if self._sandbox is not None and not self._sandbox.url:
                names.append("sandbox")
            self.publish(Notice(f"Still starting: waiting for {', '.join(names)}."))

    # -- end ----------------------------------------------------------------------------------

    def fail(self, reason: str, component: str = "", *, code: int = EXIT_FAILED) -> None:
        """End the session because it cannot go on."""
        if self.stage.is_last:
            return
        self._code = code
        self.publish(SessionFailed(reason, component))
        self.stop(reason)

    def stop(self, reason: str, *, within_s: float | None = None) -> None:
        """End the session: close the components in reverse order."""
        if self.stage.is_last:
            return
        starting = self.stage is SessionStage.STARTING
        self.stage = SessionStage.CANCELLED if starting else SessionStage.ENDING
        self._router.complete()  # so that what is still buffered is reported as lost
        self.publish(SessionEnding(reason))
        within_s = within_s or self.settings.stop_s * 0.9
        order = list(reversed(self._children.values()))
        self._ending = Shutdown(self.loop, order, within_s, partial(self._ended, reason))
        self.loop.later(within_s, self.kill_children)
        self._ending.advance()

    def abandon(self, *, within_s: float) -> None:
        """End the session because the program has gone."""
        self._is_abandoned = True
        self.stop("the program has gone", within_s=within_s)

    def child_closed(self) -> None:
        """Close the next component: this one is gone."""
        if self._ending is not None:
            self._ending.advance()

    def _ended(self, reason: str) -> None:
        for child in self._children.values():
            child.publish_drops(math.inf)
        if self._router.peer is not None:
            self._router.peer.publish_drops(math.inf)
        self.publish(
            self._summary.ended(
                reason,
                {name: child.restarts for name, child in self._children.items()},
                self._left(),
                (time.monotonic_ns() - self._epoch_ns) / 1e9,
                failed=self._code != EXIT_OK,
            )
        )
        self._exit_code = self._code
        if self._code == EXIT_OK and not self._is_abandoned:
            self._record.remove()
        else:
            self._record.write()

    def _left(self) -> Iterator[str]:
        """Yield what the end of the session loses, in words."""
        peer = self._router.peer
        if peer is not None and peer.dropped:
            yield f"{peer.dropped} messages to the program (it did not read them)"
        for child in self._children.values():
            yield from child.left()

    def _release(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
        if self._router.peer is not None:
            self._router.peer.close()
        self.loop.close()
        if not (self._is_broken and self._can_resume):  # the next supervisor goes on with it
            shutil.rmtree(self.directory, ignore_errors=True)


def serve_program() -> int:
    """Serve the program that has started this process: ``python -m rtvoice.peer``."""
    channel = adopt_stdio()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program handles Ctrl-C
    try:
        first = decode(channel.read_first())  # the hub reads what follows
    except EOFError:
        return EXIT_OK
    assert isinstance(first, StartSession), first
    api_key = os.environ.pop("RTVOICE_API_KEY", None)
    try:
        hub = Supervisor(
            first.settings,
            api_key=api_key,
            defaults=first.defaults,
            directory=first.directory,
            resumed=first.resumed,
        )
    except ConfigurationError as error:
        channel.write(SessionFailed(str(error)))
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, lambda *_: hub.send(StopSession("terminated")))
    hub.attach(channel.connection)
    hub.send(Subscribe(first.subscribe))
    try:
        return hub.run()
    except Exception:  # noqa: BLE001 - a bug of ours; the traceback goes to the program's stderr
        traceback.print_exc()
        return EXIT_BUG
