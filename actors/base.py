"""The actor: the base class of every component.

An actor is a class with ``accepts``, ``opened()``, ``handle(message)`` and ``closed()``. It runs
alone in its process, on one thread, and may raise whenever it likes: the supervisor starts it
again and it goes on with the next message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec
import pykka

from messages import Message, Rule, SessionInfo, Settings, UserError, decode

if TYPE_CHECKING:
    from actors.accounts import Accounts
    from actors.inbox import Inbox, Timer
    from actors.logs import Logger
    from messages.transport.direct import DirectInbox

__all__ = ["Actor", "ActorHost", "Source", "StartAnew"]

State = TypeVar("State")


class StartAnew(UserError):  # noqa: N818 - nothing has failed
    """Raised by an actor that needs a new process; it is not counted as a crash.

    Its process is killed, so the actor closes what has to be closed first. ``str()`` is the reason.
    """


class Source(Protocol):
    """An open, non-blocking socket, for `Actor.watch`."""

    def fileno(self) -> int:
        """Return its descriptor."""


class ActorHost(Protocol):
    """What an actor needs of the process around it (`actors.host.Host`)."""

    name: str
    settings: Settings
    session: SessionInfo
    state: bytes | None
    """What was saved last."""
    epoch: int
    keep: dict[str, Any]
    resumed: bool
    wanted: frozenset[int]
    """Tags of the messages that are sent on demand only and that somebody wants."""
    logger: Logger
    accounts: Accounts
    direct: DirectInbox | None
    """Receives datagrams of other components; None: the actor has not been opened yet."""
    over: bool
    """True: no incarnation follows, because the supervisor has said stop or has died."""
    orphaned: bool
    """True once the supervisor has died: the next one starts from the state saved until then."""

    def new_inbox(self) -> Inbox:
        """Return the inbox of a new incarnation."""

    def watch(self, source: Source, ready: Callable[[], None], *, write: bool) -> None:
        """See `Actor.watch`."""

    def unwatch(self, source: Source) -> None:
        """See `Actor.unwatch`."""

    def run_thread(self, loop: Callable[[], None]) -> None:
        """Run the actor's loop on a thread of its own."""

    def send(self, message: Message, epoch: int, *, straight: bool = True) -> None:
        """Write a message to the supervisor; from any thread."""

    holds_back: bool
    """Whether what was sent ahead still waits to be sent to the supervisor."""

    def send_ahead(self, message: Message, epoch: int) -> None:
        """See `Actor.send_ahead`."""

    def send_past(self, message: Message, epoch: int) -> bool:
        """See `Actor.send_past`."""

    def send_held_back(self) -> None:
        """See `Actor.send_held_back`."""

    def save(self, state: bytes, epoch: int, *, recorded: bool = True) -> None:
        """Keep state for the next incarnation, and for the session's record if asked to."""

    collects: bool
    """True: messages that are not urgent wait for `send_collected`; False: each is sent at once."""

    def send_collected(self) -> None:
        """Send what was collected."""

    def send_rest(self, *, defers: bool = False) -> None:
        """Send what was collected, and what was saved for the record, or that a little later."""

    def ready(self) -> None:
        """Report that the actor is open."""

    def crashed(self, error: BaseException, during: str) -> None:
        """Report why the actor is dead, and during what: ``open``, ``handle`` or ``close``."""

    def own_message(self, message: Message) -> None:
        """Handle a message that is for the process, not for the actor."""

    def trip(self, moment: str) -> None:
        """Raise if a fault was injected for this moment: ``open`` or ``close``."""


class Actor(pykka.ThreadingActor):
    """A component: started by its host, sent messages by the supervisor, dead when it raises.

    `opened`, `handle`, `closed`, posted calls, timers and the calls of watched sources all run on
    the actor's own thread, one at a time. No handler waits on a network, a device or a tool: those
    have threads of their own, which `post` to the actor, or are non-blocking and are watched.
    """

    accepts: ClassVar[Mapping[type[Message], Rule]] = {}
    """The message types it accepts, each with its overflow rule."""
    collects: ClassVar[bool] = False
    """True: the messages that a handler sends are written together when it returns, which wakes the
    supervisor once instead of several times. Only for an actor whose handlers never wait.

    A message that is `Message.urgent` is written at once, after those that were sent before it.
    `save` and `done` first write what was sent before them, so that no death of the process keeps
    the state and loses its messages."""
    use_daemon_thread = True

    def __init__(self, host: ActorHost) -> None:
        self.host = host
        self.settings: Settings = host.settings
        self.session: SessionInfo = host.session
        self.keep: dict[str, Any] = host.keep
        """Objects that survive a raise, but not the death of the process: the next incarnation in
        this process finds them. When the process ends, the host calls their ``close()`` in reverse
        order."""
        self.resumed: bool = host.resumed
        """True: a previous incarnation in this process has filled `keep` and then raised."""
        self.name: str = host.name
        self.log: Logger = host.logger
        self._epoch = host.epoch
        self._inbox: Inbox = host.new_inbox()
        self.is_ahead = False
        """True: the message in hand came straight; False: through the supervisor."""
        super().__init__()

    # -- for subclasses to override -----------------------------------------------------------

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        """Return settings found while importing; called once per process, before anything else."""
        return {}

    @classmethod
    def prepare(cls, names: Iterable[str]) -> None:
        """Import what `opened` will need, while other components are imported.

        It is called once per process, after `describe`. What it raises is not reported: `opened`
        raises it again.

        Args:
            names: ``module:attr`` or ``file.py:attr`` of what the actor will load of the user's.
        """
        for name in names:
            from actors.loading import prepare

            prepare(name)

    def opened(self) -> None:
        """Open devices and connections; if that fails, release them again before raising."""

    def handle(self, message: Message) -> None:
        """Handle one message of a type in ``accepts``."""

    def can_take_ahead(self, message: Message) -> bool:
        """Return whether a message that has come straight can be handled before those on their way.

        If not, it is ignored, and handled when it comes through the supervisor.
        """
        return True

    def came_again(self, frame: bytes) -> None:
        """Note that a message that had come straight has come through the supervisor too.

        It was handled the first time. The other receivers of its type have been sent it by now.
        """

    def closed(self) -> None:
        """Release what is not in `keep`; also called after a raise."""

    # -- for subclasses to call ---------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message to every component that accepts its type.

        A message that is sent on demand only is left out while nobody wants it.
        """
        self.host.send(message, self._epoch)

    def send_ahead(self, message: Message) -> None:
        """Send a message straight to the component that takes it so (`Rule.direct`).

        It is also sent through the supervisor, like all messages: at once if it cannot be sent
        straight, else with what is sent next. Whoever uses this calls `send_held_back` soon. The
        receiver knows by the message itself that it has had it.
        """
        self.host.send_ahead(message, self._epoch)

    def send_through(self, message: Message) -> None:
        """Send a message with `Message.direct` through the supervisor alone."""
        self.host.send(message, self._epoch, straight=False)

    def send_past(self, message: Message) -> bool:
        """Send a message straight to whoever takes it so, and not through the supervisor.

        Unlike the other methods, any thread may call it.

        Returns:
            Whether it was sent: somebody receives its type so, and has room for it.
        """
        return self.host.send_past(message, self._epoch)

    def take_straight(self, wait_s: float = 0.0) -> None:
        """Handle the next message that has come straight, if there is one.

        Called between the steps of a long call: it may answer what an earlier step has sent, and
        nobody waits for the other steps.

        Args:
            wait_s: For how long to wait for one.
        """
        direct = self.host.direct
        if direct is not None and direct.socket is not None:
            if wait_s:
                direct.has_news(wait_s)
            self._take_direct(direct)

    def send_held_back(self) -> None:
        """Send the supervisor what was sent ahead."""
        self.host.send_held_back()

    def is_wanted(self, kind: type[Message]) -> bool:
        """Return whether anybody wants a type of message (`Wanted`)."""
        return kind.tag() in self.host.wanted

    def save(self, state: Any, *, recorded: bool = True) -> None:
        """Keep ``state`` for the next incarnation, from this moment on; it has to be small.

        Args:
            state: What is encoded and kept.
            recorded: Whether to keep it in the session's record too, for another day; False: what
                has changed since the last time matters only while the session runs.
        """
        self.host.save(msgspec.msgpack.encode(state), self._epoch, recorded=recorded)

    def saved(self, kind: type[State]) -> State | None:
        """Return the state that was saved last, or None if none was saved."""
        if self.host.state is None:
            return None
        return msgspec.msgpack.decode(self.host.state, type=kind)

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the actor's thread; other threads may call this, and `send_past`."""
        self._inbox.post(call)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Run ``call`` on the actor's thread later, unless the returned timer is cancelled."""
        return self._inbox.after(seconds, call)

    def watch(self, source: Source, ready: Callable[[], None], *, write: bool = False) -> None:
        """Run ``ready`` on the actor's thread whenever ``source`` can be read.

        The source is in the same wait as the messages, so that it costs one wake-up and no thread.
        ``ready`` runs like a posted call; it must not block, and is called again as long as there
        is something left to read. Watching a source again replaces what was watched. A raise ends
        all watches: the next incarnation begins its own.

        Args:
            source: It must stay open until `unwatch`.
            ready: What to call.
            write: Whether to call it too whenever the source can be written to.
        """
        self.host.watch(source, ready, write=write)

    def unwatch(self, source: Source) -> None:
        """End a watch; ``ready`` is not called any more. Does nothing if there is none."""
        self.host.unwatch(source)

    def crash(self, error: Exception) -> None:
        """Report that the actor, which is stuck in `opened`, has failed; from any thread."""
        self.host.crashed(error, "open")

    def hold(self, message: Message) -> None:
        """Keep ``message`` from counting as handled when `handle` returns, until `done`.

        Only for the message in hand, and only if its rule has ``held=True``.
        """
        self.host.accounts.hold(message)

    def done(self, message: Message) -> None:
        """Count a held message as handled. Before that, it is delivered again after a crash."""
        self.host.send_collected()
        self.host.accounts.done(message)

    # -- Pykka --------------------------------------------------------------------------------

    def _create_actor_inbox(self) -> Any:  # type: ignore[override]
        return self._inbox

    def _start_actor_loop(self) -> None:
        self.host.run_thread(self._actor_loop)

    def on_start(self) -> None:
        """Open, and report the outcome to the supervisor."""
        try:
            self.opened()
            self.host.trip("open")
        except BaseException as error:  # noqa: BLE001 - also SystemExit: every end is reported
            self._fail(error, "open")
            return
        direct = self.host.direct
        if direct is not None and direct.socket is not None:
            self.watch(direct.socket, partial(self._take_direct, direct))
        self.host.ready()

    def on_receive(self, message: Any) -> None:
        """Handle one frame or posted call: accounted as begun before, as handled after."""
        host = self.host
        host.collects = self.collects
        try:
            if not isinstance(message, bytes):
                host.accounts.run(message)
                host.send_rest(defers=True)
            elif host.direct is not None and host.direct.was_ahead(message):
                self.came_again(message)
                host.accounts.pass_over(message)
                host.send_rest(defers=True)
            else:
                host.accounts.handle(message, self._dispatch)
        except BaseException as error:  # noqa: BLE001 - reported to the supervisor
            self._fail(error, "handle")

    def on_stop(self) -> None:
        """Close in order, when the supervisor says stop or is gone."""
        try:
            self._close()
            self.send_held_back()
            self.host.send_rest()
        except BaseException as error:  # noqa: BLE001 - reported to the supervisor
            self.host.crashed(error, "close")

    def _close(self) -> None:
        self.host.trip("close")
        self.closed()

    def _take_direct(self, direct: DirectInbox) -> None:
        frame = direct.take()
        if frame is None:
            return
        message = decode(frame)
        if not self.can_take_ahead(message):
            return
        self.is_ahead = True
        self.handle(message)
        self.is_ahead = False
        rule = self.accepts[type(message)]
        if rule.size_bytes and not rule.held:  # a held message is handled when it comes again
            direct.handled(frame)

    def _dispatch(self, message: Message) -> None:
        if type(message) in self.accepts:
            self.handle(message)
            self.host.send_rest()  # before it counts as handled: the record may have it, a command
        else:
            self.host.own_message(message)

    def _fail(self, error: BaseException, during: str) -> None:
        # Not re-raised: Pykka would only log it, but the supervisor has to know.
        self.actor_stopped.set()
        pykka.ActorRegistry.unregister(self.actor_ref)
        try:
            self._close()
        except BaseException as second:  # noqa: BLE001 - reported with the first
            error.add_note(f"and closing it raised {second!r}")
        self.host.crashed(error, during)
