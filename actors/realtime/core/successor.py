"""The next session with the server, made ready while the present one goes on."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from actors.realtime import wire
from actors.realtime.core import errors, restore, session
from actors.realtime.core.actions import ConnectAfter, Disconnect, SendEvent
from actors.realtime.core.configuration import MAX_REFUSALS, Configuration
from actors.realtime.core.context import Context
from actors.realtime.core.errors import Meaning
from actors.realtime.core.recovery import Recovery
from messages import ConversationItem, HistoryRequest, HistorySnapshot

__all__ = ["Prepared", "StandbyStage", "Successor"]

_NS = 1_000_000_000
WAIT_NS = 10 * _NS
"""How long each step of the handshake, and an answer of the history, may take."""
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class StandbyStage(IntEnum):
    """How far the next session is."""

    NONE = 0
    CONNECTING = 1
    CONNECTED = 2
    """``session.created`` is awaited."""
    SEEDING = 3
    """The history is awaited."""
    CONFIGURING = 4
    """It was told everything; ``session.updated`` is awaited."""
    READY = 5
    """A silent moment is awaited."""
    CLOSING_UP = 6
    """The history is awaited once more, for what was said meanwhile."""


class Prepared(msgspec.Struct):
    """A session that has begun, and what it was told."""

    number: int
    created_ns: int
    expires_ns: int
    configuration: dict[str, Any] = {}
    """As it was wanted: what the server refused of it is not left out."""
    items: list[dict[str, Any]] = []
    history: tuple[ConversationItem, ...] | None = None
    """What these items say; None: the history was not among what it was told."""


class Successor:
    """Connects, configures and seeds a second session; `Link` swaps it in.

    Its troubles are nobody's: the present session goes on, and it is tried again.
    """

    def __init__(self, context: Context, configuration: Configuration, recovery: Recovery) -> None:
        self._context = context
        self._configuration = configuration
        self._recovery = recovery
        self._number = 0
        self._due_ns: int | None = None
        """When the step under way has taken too long or, at `StandbyStage.NONE`, when to begin."""
        self._request_id = 0
        self._failures = self._refusals = 0
        self._told: dict[str, Any] = {}
        """The configuration, without what the server refuses."""
        self._prepared = Prepared(0, 0, 0)
        self.stage = StandbyStage.NONE

    @property
    def is_ready(self) -> bool:
        """Tell whether it can take over."""
        return self.stage >= StandbyStage.READY

    def begin_at(self, due_ns: int) -> None:
        """Set when to begin; what there was is given up."""
        self.drop("the session is a new one")
        self._failures = 0
        self._due_ns = due_ns

    def drop(self, reason: str) -> None:
        """Give it up, and do not try again."""
        if self.stage is not StandbyStage.NONE:
            self._context.do(Disconnect(reason, spare=True))
        self._enter(StandbyStage.NONE, None)

    def take(self) -> Prepared:
        """Hand the session over; its connection is the main one from here on."""
        self._enter(StandbyStage.NONE, None)
        return self._prepared

    # -- what happens -------------------------------------------------------------------------

    def connected(self, now: int) -> None:
        """Take note that its websocket is open."""
        if self.stage is StandbyStage.CONNECTING:
            self._enter(StandbyStage.CONNECTED, now + WAIT_NS)
        else:  # it was given up before there was a connection that could be closed
            self._context.do(Disconnect("it is not wanted any more", spare=True))

    def lost(self, reason: str, now: int) -> None:
        """Take note that there is no websocket, or none any more; it is tried again."""
        if self.stage is StandbyStage.NONE:
            return
        self._context.log("info", "the next session is not to be had yet", reason=reason)
        seconds = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        self._enter(StandbyStage.NONE, now + int(seconds * _NS))

    def event(self, event: object, expires_ns: int, now: int) -> None:
        """Act on an event of its server. ``expires_ns``: when it ends, of `wire.SessionCreated`."""
        match event:
            case wire.SessionCreated() if self.stage is StandbyStage.CONNECTED:
                self._number = self._context.next_session()
                self._prepared = Prepared(self._number, now, expires_ns)
                self._request_history(StandbyStage.SEEDING, now)
            case wire.SessionUpdated() if self.stage is StandbyStage.CONFIGURING:
                self._enter(StandbyStage.READY, None)
                self._context.log("info", "the next session with the server is ready")
            case wire.ErrorEvent(error=error):
                self._refused(error, now)

    def snapshot(self, message: HistorySnapshot, now: int) -> tuple[ConversationItem, ...] | None:
        """Take the history; return it if the session can be swapped in now."""
        if message.request_id != self._request_id:
            return None
        if self.stage is StandbyStage.SEEDING:
            self._seed(message.items, now)
        elif self.stage is StandbyStage.CLOSING_UP:
            self._enter(StandbyStage.READY, None)
            return message.items
        return None

    def tick(self, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Begin, give up what takes too long, or ask for what was said meanwhile."""
        if self._due_ns is not None and now >= self._due_ns:
            match self.stage:
                case StandbyStage.NONE:
                    self._enter(StandbyStage.CONNECTING, None)
                    self._context.do(ConnectAfter(0.0, "before the session ends", spare=True))
                case StandbyStage.CLOSING_UP:
                    self._enter(StandbyStage.READY, None)
                case _:
                    self._context.do(Disconnect("it took too long", spare=True))
                    self.lost("it took too long", now)
        if self.stage is StandbyStage.READY and is_quiet(now):
            self._request_history(StandbyStage.CLOSING_UP, now)

    def deadline(self) -> int | None:
        """Return when `tick` has something to do."""
        return self._due_ns

    # -- steps --------------------------------------------------------------------------------

    def _enter(self, stage: StandbyStage, due_ns: int | None) -> None:
        self.stage, self._due_ns = stage, due_ns

    def _request_history(self, stage: StandbyStage, now: int) -> None:
        self._enter(stage, now + WAIT_NS)
        self._request_id = self._context.request_id()
        self._context.publish(HistoryRequest(self._request_id))

    def _seed(self, history: tuple[ConversationItem, ...], now: int) -> None:
        prepared = self._prepared
        prepared.configuration = self._configuration.whole()
        self._refusals = 0
        self._configure(prepared.configuration, now)
        plan = self._recovery.plan_for(history)
        for event in restore.difference([], plan.items, self._context.event_id):
            self._send(event)
        prepared.items, prepared.history = plan.items, history

    def _configure(self, configuration: dict[str, Any], now: int) -> None:
        self._told = configuration
        self._enter(StandbyStage.CONFIGURING, now + WAIT_NS)
        self._send(wire.SessionUpdate(configuration, self._context.event_id("prepare")))

    def _refused(self, error: wire.ErrorBody, now: int) -> None:
        """Do without what the server does not want; what is worse shows when it takes over."""
        code = errors.code_of(error)
        self._context.log("info", "the next session refuses something", code=code)
        if errors.meaning(error) in (Meaning.FATAL, Meaning.EXPIRED):
            self._context.do(Disconnect(code, spare=True))
            self.lost(code, now)
        elif self.stage is StandbyStage.CONFIGURING and (error.param or "").startswith("session"):
            self._refusals += 1
            left = session.without(self._told, error.param)
            if left is not None and self._refusals <= MAX_REFUSALS:
                self._configure(left, now)

    def _send(self, event: wire.ClientEvent) -> None:
        self._context.do(SendEvent(event, spare=True))
