"""The host: the process around one actor. It imports, feeds and accounts, and reports crashes.

Two threads: that of the actor, which sleeps on the channel itself and on what the actor watches, so
that a message costs one wake-up, and the main thread, which waits for the end of the actor or of
the hub.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib
import logging
import os
import select
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from actors.accounts import Accounts
from actors.base import Actor, Source, StartAnew
from actors.inbox import Inbox, Timer
from actors.logs import Logger, pass_on_library_logs
from messages import (
    Crashed,
    Hello,
    Init,
    Inject,
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
    encode,
    level_of,
    tag_of,
)
from messages.hints import rtvoice
from messages.paths import path_of_text
from messages.transport.channel import Channel, adopt_stdio
from messages.transport.direct import DirectInbox, DirectSender
from messages.transport.page import Page, Slot
from messages.transport.saved import StateFile

__all__ = ["Host", "main"]

_ORPHAN_S = 0.5
"""The process ends this long after the hub has gone, whether or not its actor has closed."""
_TRACEBACK_CHARS = 8000
_SAVE_S = 0.02
"""Saved state is sent for the record this much later, unless something is sent before."""
_COLLECTED_BYTES = 65_536
"""A longer message is sent at once."""


class _Watch:
    """A source that the actor waits for, and what to call when it is ready."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def run(self) -> None:
        """Call it, unless the watch has ended since the source was ready."""
        if self.call is not None:
            self.call()


class Host:
    """One process of one component: runs the incarnations of its actor one after the other.

    It has more attributes than other classes: each is one thing that the actor, the hub or the end
    of the process needs of the process, and only here do they meet.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.name = ""
        self.keep: dict[str, Any] = {}
        self.armed: set[str] = set()
        """Moments (``open``, ``close``) at which an injected fault happens."""
        self.settings = Settings()
        self.session = SessionInfo(epoch_ns=0, directory="")
        self.state: bytes | None = None
        self.epoch = 0
        self.resumed = False
        self.wanted: frozenset[int] = frozenset()
        self.over = False
        """True: no incarnation follows, because the hub has said stop or has died."""
        self.orphaned = False
        """True once the hub has died: the next one starts from the state saved until then."""
        self.accounts: Accounts
        self.logger = Logger(lambda message: self.send(message, self.epoch), logging.INFO)
        self._slot: Slot
        self._state_file: StateFile | None = None
        self._is_unrecorded = False
        """Whether the state that was saved last is not for the record."""
        self._save_is_due = False
        self._save_timer: Timer | None = None
        """Sends what was saved."""
        self._inbox: Inbox
        self.collects = False
        self._collected: list[bytes] = []
        """Frames that leave with the next urgent one, or when the message is handled."""
        self.holds_back = False
        """Whether all collected frames were sent ahead, and can wait for `send_held_back`."""
        self.direct: DirectInbox | None = None
        self._direct_sender: DirectSender | None = None
        """None: `Init` has not come yet."""
        self._actor_thread = 0
        self._probes = False
        self._faults: Any = None
        """The module of the faults that can be injected; None: they cannot."""
        self._ended = threading.Event()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._end_signal, self._end_seen = socket.socketpair()
        self._selector = selectors.SelectSelector()  # epoll rounds timeouts up to milliseconds
        self._selector.register(channel.connection, selectors.EVENT_READ, channel)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._watches: dict[Source, _Watch] = {}

    # -- the process --------------------------------------------------------------------------

    def run(self) -> int:
        """Run incarnations until the hub says stop or is gone; return the exit code."""
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
        if init.probes:
            self._faults = importlib.import_module("actors.faults")
        page = Path(path_of_text(init.page_path))
        self._slot = Page(page).slot(init.slot)
        self._direct_base, self._direct_sender = page, DirectSender(page)
        self.logger.level = level_of(init.log_level)
        limit_memory(init.memory_mib)
        pass_on_library_logs(self.logger)
        folders = map(path_of_text, init.import_path)
        sys.path.extend(folder for folder in folders if folder not in sys.path)
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
        except BaseException as error:  # noqa: BLE001 - reported to the supervisor
            self.crashed(error, "import")
            return None
        with contextlib.suppress(Exception):  # `Actor.opened` raises it again
            kind.prepare(init.loads)
        return kind

    def _next_open(self) -> Open | None:
        """Wait for `Open`; no actor runs, so this thread may read the channel."""
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
        if self.direct is not None:
            self.direct.close()
        tags = [tag for tag, rule in self._accepts if rule.direct]
        self.direct = DirectInbox(self._direct_base, tags)
        self._ended.clear()
        kind.start(self)
        self._watch()

    def _watch(self) -> None:
        """Wait for the end of the actor; if the hub dies first, end the process soon after."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.channel.connection, 0)  # no events: hang-up and errors only
            poll.register(self._end_seen, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._end_seen.fileno() not in ready:
                self.over = self.orphaned = True
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
            except Exception as error:  # noqa: BLE001 - reported to the supervisor
                self.crashed(error, "close")
                code = 1
        return code

    def close(self) -> None:
        """Release the descriptors, in a process that lives on (in tests)."""
        self._selector.close()
        for used in (self._waker, self._woken, self._end_signal, self._end_seen):
            used.close()
        if self.direct is not None:
            self.direct.close()
        if self._direct_sender is not None:
            self._direct_sender.close()
        self.channel.close()

    # -- for the actor ------------------------------------------------------------------------

    def send(self, message: Message, epoch: int, *, straight: bool = True) -> None:
        """Write a message to the hub, unless nobody wants it; from any thread.

        Args:
            message: The message.
            epoch: The incarnation that sends it.
            straight: Whether one with `Message.direct` is sent straight too.
        """
        if message.on_demand and message.tag() not in self.wanted:
            return
        frame = encode(message, epoch)
        is_there = message.direct and straight and self._sent_directly(frame)
        if threading.get_ident() != self._actor_thread:
            self._write(frame)
            return
        if is_there and not (self.direct is not None and self.direct.has_news()):
            let_others_run()
        self._collected.append(frame)
        self.holds_back = False
        is_urgent = message.urgent and not is_there
        if not self.collects or is_urgent or len(frame) > _COLLECTED_BYTES:
            self.send_collected()

    def send_ahead(self, message: Message, epoch: int) -> None:
        """See `Actor.send_ahead`."""
        frame = encode(message, epoch)
        if not self._collected:
            self.holds_back = True
        self._collected.append(frame)
        if not self._sent_directly(frame):
            self.send_held_back()

    def send_past(self, message: Message, epoch: int) -> bool:
        """See `Actor.send_past`."""
        return self._sent_directly(encode(message, epoch))

    def send_held_back(self) -> None:
        """See `Actor.send_held_back`."""
        self.holds_back = False
        self.send_collected()

    def _sent_directly(self, frame: bytes) -> bool:
        return not self.over and self._direct_sender is not None and self._direct_sender.send(frame)

    def send_collected(self) -> None:
        """Send what was collected, and with it what was saved and not sent for the record yet."""
        if not self._collected or self.holds_back:
            return
        self._collect_save()
        frames, self._collected = self._collected, []
        self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _write(self, frames: bytes) -> None:
        try:
            self.channel.write_frame(frames)
        except OSError:
            self.over = self.orphaned = True  # the reader of the channel sees that too

    def save(self, state: bytes, epoch: int, *, recorded: bool = True) -> None:
        """Write state to the file of the session, for the next incarnation.

        What was sent before has left by then: the next incarnation takes it for sent. The hub,
        which writes the record, is sent the state by `send_rest`; what cannot be written, now.
        """
        if state == self.state and not (recorded and self._is_unrecorded):
            return
        self.state = state
        written, writes = False, bool(self.session.directory) and not self.orphaned
        self.send_held_back()
        if writes:
            if self._state_file is None:
                self._state_file = StateFile(self.session.directory, self.name)
            written = self._state_file.write(state)
        self._is_unrecorded = written and not recorded
        if not written:
            self.send(Save(state), epoch)
        elif recorded:
            self._save_is_due = True

    def send_rest(self, *, defers: bool = False) -> None:
        """Send what was collected, and then, for the record, what was saved.

        Args:
            defers: Whether what was saved may be sent a little later, if nothing else is sent now:
                the record is written later still, and who is waited for need not wake the hub.
        """
        self.collects = False
        if not defers:
            self._collect_save()
        elif self._save_is_due and self._save_timer is None:
            self._save_timer = self._inbox.after(_SAVE_S, self._send_save)
        if self._collected and not self.holds_back:
            self.send_collected()

    def _send_save(self) -> None:
        self._save_timer = None
        self.send_rest()

    def _collect_save(self) -> None:
        if not self._save_is_due or self.state is None:
            return
        self._save_is_due = self.holds_back = False
        self._collected.append(encode(Save(self.state), self.epoch))
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None

    def ready(self) -> None:
        """Report that the actor is open."""
        self.send_rest()
        self.send(Ready(), self.epoch)

    def crashed(self, error: BaseException, during: str) -> None:
        """Report to the supervisor why the actor is dead."""
        self.send_held_back()
        self.send_rest()
        trace = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
        spent = isinstance(error, MemoryError)
        plain = isinstance(error, UserError)
        renews = isinstance(error, StartAnew)
        self.send(Crashed(_one_line(error), trace, during, spent, plain, renews), self.epoch)

    def own_message(self, message: Message) -> None:
        """Handle a message that is for the process, not for the actor."""
        if isinstance(message, Ping):
            return
        if isinstance(message, Wanted):
            self.wanted = frozenset(message.tags)
        if isinstance(message, Inject) and self._probes:
            self._faults.commit(message.fault, self)

    def trip(self, moment: str) -> None:
        """Raise if a fault is armed for this moment: ``open`` or ``close``."""
        if moment in self.armed:
            self.armed.discard(moment)
            raise self._faults.InjectedError(f"injected, on {moment}")

    def new_inbox(self) -> Inbox:
        """Return the inbox of a new incarnation; it watches nothing yet."""
        for source in list(self._watches):
            self.unwatch(source)
        self._inbox, self._save_timer = Inbox(self), None
        return self._inbox

    def watch(self, source: Source, ready: Callable[[], None], *, write: bool) -> None:
        """See `Actor.watch`."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if (watch := self._watches.get(source)) is not None:
            watch.call = ready
            self._selector.modify(source, events, watch)
            return
        self._watches[source] = watch = _Watch(ready)
        self._selector.register(source, events, watch)

    def unwatch(self, source: Source) -> None:
        """See `Actor.unwatch`."""
        if (watch := self._watches.pop(source, None)) is not None:
            watch.call = None
            self._selector.unregister(source)

    def run_thread(self, loop: Callable[[], None]) -> None:
        """Run the actor's loop on a thread, and notice its end."""

        def run() -> None:
            self._actor_thread = threading.get_ident()
            try:
                loop()
            finally:
                self._actor_thread = 0
                self._ended.set()
                self._end_signal.send(b"x")

        threading.Thread(target=run, name=self.name, daemon=True).start()

    def wake(self) -> None:
        """End the sleep of the actor's thread; from any thread."""
        try:
            self._waker.send(b"x")
        except (BlockingIOError, OSError):
            pass  # enough wake-ups are pending, or the process is ending

    def wait(self, timeout: float | None) -> list[Callable[[], None]]:
        """Sleep until there are frames, a wake-up, a ready source, or the timeout is over.

        Return the calls of the sources that are ready.
        """
        try:
            ready = self._selector.select(timeout)
        except (OSError, ValueError) as error:  # a watched source was closed
            return [functools.partial(_raise, error)]
        calls: list[Callable[[], None]] = []
        for key, _ in ready:
            if isinstance(key.data, _Watch):
                calls.append(key.data.run)
            elif key.data is None:
                self._woken.recv(4096)
            else:
                try:
                    self.channel.fill()
                except EOFError:
                    self.over = self.orphaned = True
                    self._selector.unregister(self.channel.connection)
        return calls

    def _send_room(self) -> None:
        self.send(Room(), self.epoch)


def _raise(error: Exception) -> None:
    raise error


def _one_line(error: BaseException) -> str:
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def let_others_run() -> None:
    """Let the receiver of what was just sent straight run now, if it shares this core.

    Before CPython 3.12 it keeps the interpreter lock, so that the other threads of this process
    wait too.
    """
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def warm_up() -> None:
    """Do what each process does once, so that those that are forked afterwards share its memory."""
    decode(encode(Ping()))  # builds the decoder of all messages
    for kind, found in (
        (Settings, Settings()),
        (SessionInfo, SessionInfo(epoch_ns=0, directory="")),
    ):
        msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=kind)


def limit_memory(mib: int) -> None:
    """Limit the memory of this process; 0: no limit. Only Linux counts all of it."""
    if mib and sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = mib * 1024 * 1024
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def show_stacks_when_stuck() -> None:
    """Write the stacks of all threads to standard error on a fatal error and on SIGUSR1.

    This runs no Python code, so that it works in an endless handler and in C code too.
    """
    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1)


def main() -> None:
    """Run the process of a component: ``python -m actors NAME``."""
    if len(sys.argv) != 2 or os.isatty(0):
        sys.exit(f"python -m actors NAME is started by the supervisor: run {rtvoice()}")
    channel = adopt_stdio()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_stacks_when_stuck()
    code = Host(channel).run()
    sys.stderr.flush()
    os._exit(code)  # threads of devices and tools are not waited for
