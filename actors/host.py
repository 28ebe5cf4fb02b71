"""The host: the process around one actor. Imports it, feeds it, accounts for it, reports its crash.

Threads: the actor's own, which sleeps on the channel itself so that a message costs one wake-up,
and the main thread, which only waits for the end of the actor or of the hub.
"""

from __future__ import annotations

import collections
import faulthandler
import heapq
import importlib
import itertools
import logging
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.base import Actor, StartAnew
from messages import (
    Crashed,
    Hello,
    Init,
    Inject,
    Log,
    Message,
    Open,
    Ping,
    Ready,
    Room,
    Save,
    SessionInfo,
    Settings,
    Stop,
    UserError,
    Wanted,
    decode,
    epoch_of,
    level_name,
    level_of,
    tag_of,
)
from messages.channel import Channel, adopt_stdio
from messages.page import HELD, LOCAL, MAIL, Page, Slot

__all__ = ["Accounts", "Host", "Inbox", "Logger", "Timer", "main"]

_ORPHAN_S = 0.5
"""How long an actor may take to close once the hub is gone; then the process ends regardless."""
_TRACEBACK_CHARS = 8000
_LOG_CHARS = 8000
"""Of a log record, and of each of its fields; the rest is cut off."""


class Timer:
    """A call to be made later on the actor's thread."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Prevent the call, if it has not been made."""
        self.call = None


class Inbox:
    """What Pykka takes messages from: frames of the channel, posted calls and timers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._asleep = False

    def post(self, call: Callable[[], None]) -> None:
        """Queue a call and wake the actor; from any thread."""
        self._calls.append(call)
        if self._asleep:
            self._host.wake()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Queue a call for later; from the actor's thread."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def put(self, envelope: Envelope[Any]) -> None:
        """Take what Pykka itself sends, which is only the order to stop."""
        self._calls.append(envelope.message)
        self._host.wake()

    def empty(self) -> bool:
        """Tell Pykka to drain nothing: what is left belongs to the next incarnation."""
        return True

    def get(self) -> Envelope[Any]:
        """Return what is to be done next; sleeps until there is something."""
        host = self._host
        frames = host.channel.frames
        while True:
            if self._calls:
                return Envelope(self._calls.popleft())
            if self._timers and (due := self._due()) is not None:
                return Envelope(due)
            if frames:
                frame = frames.popleft()
                if epoch_of(frame) != host.epoch:
                    continue  # sent to an earlier incarnation
                if tag_of(frame) == Stop.tag():
                    host.over = True
                    return Envelope(_ActorStop())
                return Envelope(frame)
            if host.over:
                return Envelope(_ActorStop())
            self._sleep()

    def _due(self) -> Callable[[], None] | None:
        while self._timers:
            due, _, timer = self._timers[0]
            if timer.call is not None and due > time.monotonic():
                return None
            heapq.heappop(self._timers)
            if timer.call is not None:
                return timer.call
        return None

    def _sleep(self) -> None:
        self._asleep = True
        try:
            if self._calls:  # posted between the look and the flag
                return
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            self._host.wait(timeout)
        finally:
            self._asleep = False


class Accounts:
    """Begun and handled, in the page that survives us. Used on the actor's thread only."""

    def __init__(self, slot: Slot, held_tags: frozenset[int], room: Callable[[], None]) -> None:
        self._slot = slot
        self._held_tags = held_tags
        self._room = room
        self._handled = [0, 0]
        self._begun_held = 0
        self._local = 0
        self._held: collections.deque[tuple[Message, list[bool]]] = collections.deque()
        self._holding = False

    def handle(self, frame: bytes, dispatch: Callable[[Message], None]) -> None:
        """Decode a frame and handle it; if that raises, it stays the one in hand."""
        if tag_of(frame) in self._held_tags:
            self._handle_held(frame, dispatch)
            return
        self._slot.begin(MAIL, self._handled[MAIL] + 1)
        dispatch(decode(frame))
        self._settle(MAIL, 1)
        self._slot.end()

    def run(self, call: Callable[[], None]) -> None:
        """Run a posted call or timer, so that a hang in it is seen."""
        self._local += 1
        self._slot.begin(LOCAL, self._local)
        call()
        self._slot.end_local(self._local)

    def hold(self, message: Message) -> None:
        """See `Actor.hold`."""
        if not self._held or self._held[-1][0] is not message:
            raise ValueError(
                f"{type(message).__name__} cannot be held: only the message in hand, "
                f"if its rule in accepts has held=True"
            )
        self._holding = True

    def done(self, message: Message) -> None:
        """See `Actor.done`."""
        for held, finished in self._held:
            if held is message:
                finished[0] = True
                break
        else:
            raise ValueError(f"{type(message).__name__} is not held")
        self._settle_held()

    def _handle_held(self, frame: bytes, dispatch: Callable[[Message], None]) -> None:
        self._begun_held += 1
        self._slot.begin(HELD, self._begun_held)
        message = decode(frame)
        finished = [False]
        self._held.append((message, finished))
        self._holding = False
        dispatch(message)
        if not self._holding:
            finished[0] = True
        self._settle_held()
        self._slot.end()

    def _settle_held(self) -> None:
        count = 0
        while self._held and self._held[0][1][0]:
            self._held.popleft()
            count += 1
        if count:
            self._settle(HELD, count)

    def _settle(self, lane: int, count: int) -> None:
        self._handled[lane] += count
        if self._slot.settle(lane, self._handled[lane]):
            self._room()


class Logger:
    """Log records as messages to the supervisor, which renders them."""

    def __init__(self, send: Callable[[Message], None], level: int) -> None:
        self._send = send
        self.level = level

    def debug(self, text: str, **fields: Any) -> None:
        """Log for developers."""
        self.log(logging.DEBUG, text, fields)

    def info(self, text: str, **fields: Any) -> None:
        """Log for whoever runs this. Never what was said, never a key."""
        self.log(logging.INFO, text, fields)

    def warning(self, text: str, **fields: Any) -> None:
        """Log something that is not as it should be."""
        self.log(logging.WARNING, text, fields)

    def error(self, text: str, **fields: Any) -> None:
        """Log a failure."""
        self.log(logging.ERROR, text, fields)

    def log(self, level: int, text: str, fields: dict[str, Any]) -> None:
        """Send a record if its level is wanted."""
        if level < self.level:
            return
        packed = {key: msgspec.Raw(_pack(value)) for key, value in fields.items()}
        self._send(Log(level_name(level), _cut(text), packed))


def _pack(value: Any) -> bytes:
    try:
        packed = msgspec.msgpack.encode(value)
    except (TypeError, OverflowError):
        packed = msgspec.msgpack.encode(_cut(repr(value)))
    if len(packed) > _LOG_CHARS:
        packed = msgspec.msgpack.encode(_cut(repr(value)))
    return packed


def _cut(text: str) -> str:
    if len(text) <= _LOG_CHARS:
        return text
    return f"{text[:_LOG_CHARS]}… ({len(text)} characters)"


class _LogBridge(logging.Handler):
    """Passes records of libraries' loggers on."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logger.level)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format: of the library, not of who logs there
            text = str(record.msg)
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._logger.log(record.levelno, text, {"logger": record.name})


class Host:
    """One process, one component, one incarnation of its actor after the other."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.name = ""
        self.keep: dict[str, Any] = {}
        self.armed: set[str] = set()
        """Moments at which an injected fault happens."""
        self.settings = Settings()
        self.session = SessionInfo(epoch_ns=0, directory="")
        self.state: bytes | None = None
        self.epoch = 0
        self.resumed = False
        self.wanted: frozenset[int] = frozenset()
        self.over = False
        """No incarnation follows: the hub said stop, or is gone."""
        self.accounts: Accounts
        self.logger = Logger(lambda message: self.send(message, self.epoch), logging.INFO)
        self._slot: Slot
        self._probes = False
        self._ended = threading.Event()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._end_signal, self._end_seen = socket.socketpair()
        self._selector = selectors.SelectSelector()  # epoll rounds timers up to milliseconds
        self._selector.register(channel.connection, selectors.EVENT_READ, channel)
        self._selector.register(self._woken, selectors.EVENT_READ)

    # -- the process --------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the hub says stop or is gone. Return the exit code."""
        kind = self._import()
        if kind is None:
            return 1
        while not self.over and (order := self._next_open()) is not None:
            self._run_incarnation(kind, order)
        return self._close_kept()

    def _import(self) -> type[Actor] | None:
        try:
            init = decode(self.channel.read())
        except EOFError:
            return None
        assert isinstance(init, Init), init
        self.name = init.name
        self._probes = init.probes
        self._slot = Page(Path(init.page_path)).slot(init.slot)
        self.logger.level = level_of(init.log_level)
        limit_memory(init.memory_mib)
        _pass_on_library_logs(self.logger)
        sys.path.extend(folder for folder in init.import_path if folder not in sys.path)
        try:
            module, _, attribute = init.target.partition(":")
            kind = getattr(importlib.import_module(module), attribute)
            if not (isinstance(kind, type) and issubclass(kind, Actor)):
                raise TypeError(f"{init.target} is not an actors.base.Actor")
            described = kind.describe(init.agent)
            if not isinstance(described, Mapping):
                raise TypeError(f"describe() of {init.target} returned no mapping: {described!r}")
            accepts = tuple((message.tag(), rule) for message, rule in kind.accepts.items())
            self._accepts = accepts
            found = msgspec.Raw(msgspec.msgpack.encode(described))
            self.send(Hello(os.getpid(), accepts, found), 0)
        except BaseException as error:  # noqa: BLE001 - the supervisor is told
            self.crashed(error, "import")
            return None
        return kind

    def _next_open(self) -> Open | None:
        """Wait for the order to start an incarnation; no actor lives, so this thread may read."""
        while True:
            try:
                frame = self.channel.read()
            except EOFError:
                return None
            if tag_of(frame) == Stop.tag():
                return None
            if tag_of(frame) == Open.tag():
                order = decode(frame)
                assert isinstance(order, Open)
                return order

    def _run_incarnation(self, kind: type[Actor], order: Open) -> None:
        self.settings = msgspec.msgpack.decode(order.settings, type=Settings)
        self.session = msgspec.msgpack.decode(order.session, type=SessionInfo)
        self.state, self.resumed = order.state, order.resumed
        self.epoch = order.incarnation & 255
        self.wanted = frozenset(order.wanted)
        held = frozenset(tag for tag, rule in self._accepts if rule.held)
        self.accounts = Accounts(self._slot, held, self._send_room)
        self._ended.clear()
        kind.start(self)
        self._watch()

    def _watch(self) -> None:
        """Sleep until the actor has ended; if the hub goes first, see that we end soon."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.channel.connection, 0)  # no events: hang-up and errors only
            poll.register(self._end_seen, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._end_seen.fileno() not in ready:
                self.over = True
                faulthandler.dump_traceback_later(_ORPHAN_S, exit=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - lives as long as we do
        self._ended.wait()
        self._end_seen.recv(1)

    def _close_kept(self) -> int:
        code = 0
        for kept in reversed(self.keep.values()):
            close = getattr(kept, "close", None)
            try:
                if close is not None:
                    close()
            except Exception as error:  # noqa: BLE001 - the supervisor is told
                self.crashed(error, "close")
                code = 1
        return code

    def close(self) -> None:
        """Release the descriptors, where the process goes on (in tests)."""
        self._selector.close()
        for used in (self._waker, self._woken, self._end_signal, self._end_seen):
            used.close()
        self.channel.close()

    # -- for the actor ------------------------------------------------------------------------

    def send(self, message: Message, epoch: int) -> None:
        """Write a message to the hub; from any thread."""
        try:
            self.channel.write(message, epoch)
        except OSError:
            self.over = True  # the hub is gone, which the reader of the channel sees too

    def save(self, state: bytes, epoch: int) -> None:
        """Pass state to the hub, if it is not what the hub has."""
        if state != self.state:
            self.state = state
            self.send(Save(state), epoch)

    def ready(self) -> None:
        """Say that the actor is open."""
        self.send(Ready(), self.epoch)

    def crashed(self, error: BaseException, during: str) -> None:
        """Tell the supervisor why the actor is dead."""
        trace = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
        spent = isinstance(error, MemoryError)
        plain = isinstance(error, UserError)
        renews = isinstance(error, StartAnew)
        self.send(Crashed(_one_line(error), trace, during, spent, plain, renews), self.epoch)

    def own_message(self, message: Message) -> None:
        """Handle what every actor is told and no actor sees."""
        if isinstance(message, Ping):
            return
        if isinstance(message, Wanted):
            self.wanted = frozenset(message.tags)
        if isinstance(message, Inject) and self._probes:
            from actors.faults import commit

            commit(message.fault, self)

    def trip(self, moment: str) -> None:
        """Raise if a fault is armed for this moment: ``open`` or ``close``."""
        if moment in self.armed:
            from actors.faults import InjectedError

            self.armed.discard(moment)
            raise InjectedError(f"injected, on {moment}")

    def new_inbox(self) -> Inbox:
        """Return the inbox of a new incarnation."""
        return Inbox(self)

    def run_thread(self, loop: Callable[[], None]) -> None:
        """Run the actor's loop on a thread whose end we see."""

        def run() -> None:
            try:
                loop()
            finally:
                self._ended.set()
                self._end_signal.send(b"x")

        threading.Thread(target=run, name=self.name, daemon=True).start()

    def wake(self) -> None:
        """End the sleep of the actor's thread; from any thread."""
        try:
            self._waker.send(b"x")
        except (BlockingIOError, OSError):
            pass  # it has been woken often enough, or is ending

    def wait(self, timeout: float | None) -> None:
        """Sleep until there are frames, or a wake-up, or the time is over."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._woken.recv(4096)
            else:
                try:
                    self.channel.fill()
                except EOFError:
                    self.over = True
                    self._selector.unregister(self.channel.connection)

    def _send_room(self) -> None:
        self.send(Room(), self.epoch)


def _one_line(error: BaseException) -> str:
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _pass_on_library_logs(logger: Logger) -> None:
    logging.basicConfig(level=max(logger.level, logging.INFO), handlers=[_LogBridge(logger)])
    logging.getLogger("pykka").setLevel(logging.CRITICAL)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # we tell why it failed


def limit_memory(mib: int) -> None:
    """Have the system refuse us more than this; 0: no limit. Only Linux counts it all."""
    if mib and sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = mib * 1024 * 1024
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def show_stacks_when_stuck() -> None:
    """Write the stacks of all threads to standard error at a fatal error and at SIGUSR1.

    Done without running Python code, so that it works in an endless handler and in C code.
    """
    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1)


def die_with_parent() -> None:
    """On Linux, have the kernel end us when the supervisor dies, even stopped or without the GIL.

    Elsewhere the end of the channel does it, as soon as Python code can run.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Run the process of a component: ``python -m actors NAME``."""
    if len(sys.argv) != 2 or os.isatty(0):
        sys.exit("python -m actors NAME is started by the supervisor: run python -m supervisor")
    channel = adopt_stdio()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_stacks_when_stuck()
    die_with_parent()
    code = Host(channel).run()
    sys.stderr.flush()
    os._exit(code)  # threads of devices and tools are not waited for
