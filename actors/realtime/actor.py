"""The realtime component: connects the protocol core with the server and the other components."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from actors.base import Actor
from actors.conversation import ITEM_MESSAGES
from actors.files import path_of
from actors.lease import LeaseLostError, lease_of
from actors.published import PublishedChanges, sent_outputs
from actors.realtime import wire
from actors.realtime.address import KEY_VARIABLE, address_of
from actors.realtime.connection import (
    Connection,
    PingAnswered,
    ReceivedText,
    WebsocketClosed,
    WebsocketOpened,
    WebsocketRefused,
)
from actors.realtime.core.actions import (
    ConnectAfter,
    Disconnect,
    KeepOutput,
    Publish,
    SaveState,
    SendEvent,
    Swap,
    WriteLog,
)
from actors.realtime.core.core import Core
from actors.realtime.core.state import Saved
from actors.realtime.pictures import Pictures
from messages import (
    CONTROL,
    DIRECT,
    CapturedAudio,
    CaptureEnded,
    CreateResponse,
    DeadLetter,
    DeviceInUse,
    EchoState,
    EndConversation,
    FatalError,
    FlushPlayback,
    HistorySnapshot,
    Interrupt,
    Keep,
    Message,
    Newest,
    Notice,
    PlaybackFlushed,
    PlaybackLost,
    PlayedPosition,
    ReplayedAudio,
    ReplayEnded,
    RoundTrip,
    Say,
    SendImage,
    SendText,
    SetSpeed,
    StartTalking,
    StopTalking,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    UpdateSettings,
    WantWireEvents,
    WireEvent,
)

if TYPE_CHECKING:
    from actors.inbox import Timer

__all__ = ["Realtime"]

_KEPT_CORE, _KEPT_CHANGES = "core", "changes"
_KEPT_CONNECTIONS = ("connection", "spare")
"""Keys in `Actor.keep`: the current connection and that of the standby session (``spare``)."""
_HOLD_S = 0.1
"""Interval at which sound that the speaker has already is sent to the supervisor."""
_QUESTIONS, _ANSWERS = (FlushPlayback, ToolCall), (PlaybackFlushed, ToolAnswer)
_PATIENCE_S = 0.001
"""For how long their answer is waited for before anything else is done."""
_EARLY_S = 0.0005
"""Added to each timer, which may run this much too early."""


class Realtime(Actor):
    """The shell around the `Core`: it performs the core's actions and passes events and times in.

    Core and connection survive an exception (`Actor.keep`): the server sees one connection, and at
    most the event being handled is lost. After the death of the process, a new one restores the
    conversation from `Saved` and the history.
    """

    collects = True
    accepts: ClassVar = {
        CapturedAudio: Keep(30, direct=True),
        ReplayedAudio: Keep(40),
        ReplayEnded: CONTROL,
        CaptureEnded: CONTROL,
        # As many as come in 5 s, at ten per second: the last one of an item must not be lost.
        PlayedPosition: Newest(50, direct=True),
        PlaybackFlushed: DIRECT,
        PlaybackLost: CONTROL,
        DeviceInUse: CONTROL,
        EchoState: CONTROL,
        ToolAnswer: DIRECT,
        ToolsAvailable: CONTROL,
        SetSpeed: CONTROL,
        SendText: CONTROL,
        SendImage: CONTROL,
        Say: CONTROL,
        StartTalking: CONTROL,
        StopTalking: CONTROL,
        Interrupt: CONTROL,
        EndConversation: CONTROL,
        HistorySnapshot: CONTROL,
        CreateResponse: CONTROL,
        UpdateSettings: CONTROL,
        WantWireEvents: CONTROL,
    }

    def opened(self) -> None:
        """Continue with the kept core and connections, or begin to connect. Never waits."""
        self._timer: Timer | None = None
        self._hold_timer: Timer | None = None
        self._timer_ns = 0
        self._asks = False
        """Whether a flush or a call was just sent, and its answer has not come."""
        self._connecting: dict[bool, Timer] = {}
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        self._address = address_of(self.settings, self._key, self.session.server_url)
        if self._address.keeps_key:
            self.log.warning("the API key is not sent over a connection without encryption")
        self._pictures = Pictures(self._picture_folder())
        self._lease = lease_of(self.settings.lease_path)
        changes = self.keep.get(_KEPT_CHANGES) or PublishedChanges(self.session)
        self._changes: PublishedChanges = changes
        self.keep[_KEPT_CHANGES] = changes
        self._check_key_log()
        now = time.monotonic_ns()
        kept = self.keep.get(_KEPT_CORE)
        if isinstance(kept, Core):
            self._core = kept
            # The timers of pending attempts to connect died with our predecessor.
            if not self._resume(spare=False):
                self._connect()
            if not self._resume(spare=True):
                self._core.lost(1006, "", now, spare=True)
            self._core.resumed(now)
        else:
            outputs = () if self.session.first else tuple(sent_outputs(self.session))
            self._core = self.keep[_KEPT_CORE] = Core(
                self.settings, self.session, self.saved(Saved), now, outputs
            )
            self._core.opened(now)
        self._perform()
        self._set_timer(now)

    def _check_key_log(self) -> None:
        """Remove ``SSLKEYLOGFILE`` from the environment if that file cannot be written.

        Otherwise `ssl` would raise for each connection.
        """
        path = os.environ.get("SSLKEYLOGFILE")
        if not path:
            return
        try:
            with open(path, "a"):  # noqa: PTH123 - as ssl opens it
                pass
        except OSError as error:
            del os.environ["SSLKEYLOGFILE"]
            text = f"SSLKEYLOGFILE cannot be written ({path}: {error.strerror}); it is ignored"
            self.log.info(text)
            self.send(Notice(f"{text}."))

    def handle(self, message: Message) -> None:
        """Pass a message to the core, and perform the actions that follow."""
        now, ticks = time.monotonic_ns(), True
        if type(message) in _ANSWERS:
            self._asks = False
        try:
            if type(message) is SendImage:
                self._show(message, now)
            else:
                ticks = self._core.message(message, now)
            if ticks:
                self._perform(saves=False)  # first: somebody may wait for it
                self._core.tick(now)
        finally:
            self._perform()
            if ticks:
                self._set_timer(now)

    def can_take_ahead(self, message: Message) -> bool:
        """Return whether no sound before it is still to come."""
        return self._core.can_take_ahead(message)

    def _show(self, message: SendImage, now: int) -> None:
        try:
            image = self._pictures.keep(message)
        except OSError as error:
            why = error.strerror or str(error)
            self.send(Notice(f"the image was not sent, because it cannot be stored: {why}"))
            return
        self._core.image(message, image, now)

    def closed(self) -> None:
        """At the end of the session, publish how much was heard, and what was never sent."""
        core = self.keep.get(_KEPT_CORE)
        if self.host.over and not self.host.orphaned and isinstance(core, Core):
            core.ended()
            self._perform()
            for item_id in core.unsent():
                why = "it was typed, and has not reached the server"
                self.send(DeadLetter(self.name, SendText.__name__, why, 1, f"item_id={item_id}"))

    # -- the core's actions -------------------------------------------------------------------

    def _perform(self, *, saves: bool = True) -> None:
        """Perform the core's actions.

        Args:
            saves: Whether to save the state at the end. Otherwise it is saved with what the next
                event changes, but before a tool call is published: see `Core.take`.
        """
        for action in self._core.take(saves=saves):
            match action:
                case SendEvent(event, spare):
                    self._send(event, spare=spare)
                case Publish(message, ahead=True):
                    self._send_ahead(message)
                case Publish(message):
                    if isinstance(message, ITEM_MESSAGES):
                        self._changes.put(message)
                    self.send(message)
                    self._asks |= type(message) in _QUESTIONS
                case KeepOutput(answer):
                    self._changes.put(answer)
                case SaveState(state, recorded):
                    self._write_changes()
                    self.save(state, recorded=recorded)
                case WriteLog(level, text, fields):
                    getattr(self.log, level)(text, **fields)
                case ConnectAfter(seconds, reason, spare):
                    self.log.debug("connecting", seconds=seconds, reason=reason, spare=spare)
                    if (timer := self._connecting.pop(spare, None)) is not None:
                        timer.cancel()
                    connect = functools.partial(self._connect, spare=spare)
                    self._connecting[spare] = self.after(seconds, connect)
                case Disconnect(reason, spare):
                    self.log.debug("disconnecting", reason=reason, spare=spare)
                    self._disconnect(spare=spare)
                case Swap(reason):
                    self.log.debug("swapping connections", reason=reason)
                    self._swap()
        if saves:
            self._write_changes()

    def _write_changes(self) -> None:
        """Write what was published, for a history after the supervisor's death.

        It is sent first: a kill between the writing and the saving would have history know of what
        realtime does again.
        """
        if self._changes.is_written:
            return
        self.host.send_collected()
        if self.host.orphaned:  # it does not write its state either: the two must not differ
            self._changes.forget()
        else:
            self._changes.write()

    def _send_ahead(self, message: Message) -> None:
        self.send_ahead(message)
        if self.is_wanted(type(message)):
            self.send_held_back()
        elif self._hold_timer is None:
            self._hold_timer = self.after(_HOLD_S, self._send_held_back)

    def _send_held_back(self) -> None:
        self._hold_timer = None
        self.send_held_back()

    def _send(self, event: wire.ClientEvent, *, spare: bool) -> None:
        connection = self._connection(spare=spare)
        if connection is None:
            return
        if type(event) is wire.ItemCreate:
            event.item = self._pictures.filled(event.item)
        data = wire.encode(event)
        self._pass_on(event, data, "client", spare=spare)
        connection.send(data)

    def _set_timer(self, now: int) -> None:
        due = self._core.next_deadline(now)
        if due is None or (self._timer is not None and self._timer_ns <= due):
            return  # the present timer runs first, and `_tick` then sets the next one
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due
        left_s = (due - time.monotonic_ns()) / 1e9  # ``now`` may be when an event was read
        self._timer = self.after(max(0.0, left_s + _EARLY_S), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic_ns()
        try:
            self._core.tick(now)
        finally:
            self._perform()
            self._set_timer(now)

    # -- the connection -----------------------------------------------------------------------

    def _connection(self, *, spare: bool = False) -> Connection | None:
        kept = self.keep.get(_KEPT_CONNECTIONS[spare])
        return kept if isinstance(kept, Connection) else None

    def _resume(self, *, spare: bool) -> bool:
        """Continue with a kept connection. Return False if there is none, or it has ended."""
        connection = self._connection(spare=spare)
        if connection is None or (connection.is_over() and not connection.arrived):
            return False
        self._attend(connection)
        return True

    def _attend(self, connection: Connection) -> None:
        connection.attend(self, lambda: self._drain(connection))

    def _swap(self) -> None:
        self._disconnect()
        current, spare = _KEPT_CONNECTIONS
        if spare in self.keep:
            self.keep[current] = self.keep.pop(spare)

    def _picture_folder(self) -> Path:
        journal = self.settings.journal_path
        keeps = journal and self.settings.redact is None
        return path_of(f"{journal}.images") if keeps else self.session.file("images")

    def _connect(self, *, spare: bool = False) -> None:
        self._connecting.pop(spare, None)
        self._disconnect(spare=spare)
        if wrong := self._address.wrong_key:
            now = time.monotonic_ns()
            self._core.connect_failed(0, wrong, "the key is not valid", now, spare=spare)
            self._perform()
            return
        if self._lease is not None and not self._lease.is_good:
            self.send(FatalError(str(LeaseLostError())))
            return
        connection = Connection(
            self._address.url, self._address.headers, self._key, self._may_send()
        )
        self._attend(connection)
        self.keep[_KEPT_CONNECTIONS[spare]] = connection
        connection.start()

    def _may_send(self) -> Callable[[], bool] | None:
        """Return what is asked before each write; None: everything may be sent."""
        lease = self._lease
        return (lambda: lease.is_good) if lease is not None else None

    def _disconnect(self, *, spare: bool = False) -> None:
        connection = self._connection(spare=spare)
        if connection is not None:
            del self.keep[_KEPT_CONNECTIONS[spare]]
            connection.close_soon()

    def _drain(self, connection: Connection) -> None:
        """Handle what has arrived, until nothing is left or the connection is no longer used.

        The actions of an event are performed before the next one is handled. What is due is done,
        the state saved and the timer set at the end, or for a message that has come straight.
        """
        ticks, now = False, time.monotonic_ns()
        self._asks = False
        try:
            while connection.arrived:
                spare = connection is self._connection(spare=True)
                if not spare and connection is not self._connection():
                    break
                arrived = connection.arrived.popleft()
                if isinstance(arrived, ReceivedText):
                    now, event = arrived.read_ns, wire.decode(arrived.data)
                    self._pass_on(event, arrived.data, "server", spare=spare)
                    ticks |= self._core.server_event(event, now, spare=spare)
                else:
                    now, ticks = time.monotonic_ns(), True
                    self._met(arrived, now, spare=spare)
                if ticks or connection.arrived:
                    self._perform(saves=False)
                    self.take_straight()  # what was just performed may be answered already
            if ticks:
                self._core.tick(now)
                self._perform(saves=False)
            # Before the supervisor is woken and the state written.
            self.take_straight(_PATIENCE_S if self._asks else 0.0)
        finally:
            self._perform()
            if ticks:
                self._set_timer(now)

    def _met(
        self,
        arrived: WebsocketOpened | WebsocketRefused | WebsocketClosed | PingAnswered,
        now: int,
        *,
        spare: bool,
    ) -> None:
        """Pass the beginning or the end of a connection to the core, and publish its round trip."""
        match arrived:
            case WebsocketOpened(server_ns):
                self._core.connected(now, time.time_ns(), server_ns, spare=spare)
            case WebsocketRefused(status, code, text):
                self._core.connect_failed(status, code, text, now, spare=spare)
            case WebsocketClosed(code_, reason):
                self._core.lost(code_, reason, now, spare=spare)
            case PingAnswered(round_trip_s) if not spare and self.is_wanted(RoundTrip):
                self.send(RoundTrip(round(round_trip_s * 1000, 1)))

    def _pass_on(
        self, event: object, data: bytes, direction: Literal["server", "client"], *, spare: bool
    ) -> None:
        """Send the program an event, if it has subscribed to it."""
        if self._core.wire_events and not spare:
            name = wire.name_of(event)
            if name in self._core.wire_events:
                self.send(WireEvent(name, direction, data))
