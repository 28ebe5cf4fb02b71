"""The standby session, prepared before the server ends the current one."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from actors.realtime import wire
from actors.realtime.core import errors, restore, session
from actors.realtime.core.actions import ConnectAfter, Disconnect
from actors.realtime.core.configuration import MAX_REFUSALS, Configuration
from actors.realtime.core.context import Context
from actors.realtime.core.errors import Meaning
from actors.realtime.core.recovery import Recovery
from messages import ConversationItem, HistoryRequest, HistorySnapshot

__all__ = ["Prepared", "StandbyStage", "Successor"]

_NS = 1_000_000_000
WAIT_NS = 10 * _NS
"""Maximum duration of each step: each part of the handshake, and each request to history."""
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Delay before each further attempt; the last value repeats."""


class StandbyStage(IntEnum):
    """The steps in the preparation of the standby session."""

    NONE = 0
    CONNECTING = 1
    CONNECTED = 2
    """Waiting for ``session.created``."""
    SEEDING = 3
    """Waiting for the history."""
    CONFIGURING = 4
    """Configuration and items are sent; waiting for ``session.updated``."""
    READY = 5
    """Waiting for a moment of silence."""
    CLOSING_UP = 6
    """Waiting for the history again: for the items since `SEEDING`."""


class Prepared(msgspec.Struct):
    """A session that has begun, and what it was sent."""

    number: int
    created_ns: int
    expires_ns: int
    configuration: dict[str, Any] = {}
    """As requested, including what the server refused of it: that need not be sent again."""
    items: list[dict[str, Any]] = []
    """The items that it was sent."""
    history: tuple[ConversationItem, ...] | None = None
    """The history that `items` were made of; None: it was sent none."""


class Successor:
    """Connects, configures and seeds the standby session; `Link` swaps it in.

    Its failures are logged, not published: the current session continues, and a new attempt
    follows.
    """

    def __init__(self, context: Context, configuration: Configuration, recovery: Recovery) -> None:
        self._context = context
        self._configuration = configuration
        self._recovery = recovery
        self._number = 0
        self._due_ns: int | None = None
        """Deadline of the current step or, at `StandbyStage.NONE`, the time to begin; None: none.

        While connecting there is none: the shell limits the time of a connection attempt.
        """
        self._request_id = 0
        self._failures = self._refusals = 0
        self._sent: dict[str, Any] = {}
        """The configuration as sent last, without the parameters that the server has refused."""
        self._prepared = Prepared(0, 0, 0)
        self.stage = StandbyStage.NONE

    @property
    def is_ready(self) -> bool:
        """Whether the standby session can take over."""
        return self.stage >= StandbyStage.READY

    def begin_at(self, due_ns: int) -> None:
        """Schedule the next standby session; drop the present one."""
        self.drop("the session is a new one")
        self._failures = 0
        self._due_ns = due_ns

    def drop(self, reason: str) -> None:
        """Drop the standby session, and start none until `begin_at`."""
        if self.stage is not StandbyStage.NONE:
            self._context.do(Disconnect(reason, spare=True))
        self._enter(StandbyStage.NONE, None)

    def take(self) -> Prepared:
        """Return the session. The caller makes its connection the main one."""
        self._enter(StandbyStage.NONE, None)
        return self._prepared

    # -- what happens -------------------------------------------------------------------------

    def connected(self, now: int) -> None:
        """Record that its websocket is open."""
        if self.stage is StandbyStage.CONNECTING:
            self._context.forget_ids(spare=True)
            self._enter(StandbyStage.CONNECTED, now + WAIT_NS)
        else:  # it was dropped while connecting, when there was no connection to close
            self._context.do(Disconnect("the standby session was dropped", spare=True))

    def lost(self, reason: str, now: int) -> None:
        """Record that its websocket could not be opened, or has closed; schedule a retry."""
        if self.stage is StandbyStage.NONE:
            return
        self._context.log("info", "the standby session has failed; retrying", reason=reason)
        seconds = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        self._enter(StandbyStage.NONE, now + int(seconds * _NS))

    def event(self, event: object, expires_ns: int, now: int) -> None:
        """Act on a server event of the standby session.

        Args:
            event: what `wire.decode` returns.
            expires_ns: when the server ends the session; valid for `wire.SessionCreated` only.
            now: the time.
        """
        match event:
            case wire.SessionCreated() if self.stage is StandbyStage.CONNECTED:
                self._number = self._context.next_session()
                self._prepared = Prepared(self._number, now, expires_ns)
                self._request_history(StandbyStage.SEEDING, now)
            case wire.SessionUpdated() if self.stage is StandbyStage.CONFIGURING:
                self._enter(StandbyStage.READY, None)
                self._context.log("info", "the standby session is ready")
            case wire.ErrorEvent(error=error):
                self._refused(error, now)

    def snapshot(self, message: HistorySnapshot, now: int) -> tuple[ConversationItem, ...] | None:
        """Use a history that was requested. Return it if the session can be swapped in now."""
        if message.request_id != self._request_id:
            return None
        if self.stage is StandbyStage.SEEDING:
            self._seed(message.items, now)
        elif self.stage is StandbyStage.CLOSING_UP:
            self._enter(StandbyStage.READY, None)
            return message.items
        return None

    def tick(self, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Start the standby session, end a step that is overdue, or prepare to swap.

        Args:
            now: the time.
            is_quiet: returns whether nobody speaks and nothing is under way, as a swap requires.
        """
        if self._due_ns is not None and now >= self._due_ns:
            match self.stage:
                case StandbyStage.NONE:
                    self._enter(StandbyStage.CONNECTING, None)
                    self._context.do(ConnectAfter(0.0, "before the session ends", spare=True))
                case StandbyStage.CLOSING_UP:  # history does not answer; the session is fine
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
        self._sent = configuration
        self._enter(StandbyStage.CONFIGURING, now + WAIT_NS)
        self._send(wire.SessionUpdate(configuration, self._context.event_id("prepare")))

    def _refused(self, error: wire.ErrorBody, now: int) -> None:
        """Configure without the refused parameter; start again after a fatal error.

        Other errors are only logged: what is still wrong shows once the session takes over.
        """
        error = self._context.attributed(error, spare=True)
        if self._context.created_again(error, spare=True):
            return
        code = errors.code_of(error)
        self._context.log("info", "the standby session reports an error", code=code)
        if errors.meaning(error) in (Meaning.FATAL, Meaning.EXPIRED):
            self._context.do(Disconnect(code, spare=True))
            self.lost(code, now)
        elif self.stage is StandbyStage.CONFIGURING and (error.param or "").startswith("session"):
            self._refusals += 1
            left = session.without(self._sent, error.param)
            if left is not None and self._refusals <= MAX_REFUSALS:
                self._configure(left, now)

    def _send(self, event: wire.ClientEvent) -> None:
        self._context.send(event, spare=True)
