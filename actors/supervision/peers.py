"""The program as the hub sees it: at the other end of a socket."""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

from actors.supervision.drops import DROPS_S
from actors.supervision.tags import AUDIO_TAGS, type_name
from messages import (
    Confirm,
    Inject,
    Log,
    Message,
    MessagesDropped,
    SessionEnded,
    SessionFailed,
    StatusRequest,
    StopSession,
    Subscribe,
    WireEvent,
    decode,
    tag_of,
)
from messages.transport.loop import Line, Loop

__all__ = ["PeerHub", "ProgramPeer"]

_DROPPED_TAGS = frozenset((*AUDIO_TAGS, WireEvent.tag(), Log.tag()))
"""Tags of the messages that are dropped for a program that does not read."""
_LAST_TAGS = frozenset((SessionFailed.tag(), SessionEnded.tag()))
_ORDERS = (StopSession, Subscribe, StatusRequest, Confirm, Inject)
_ORDER_TAGS = frozenset(kind.tag() for kind in _ORDERS)
_ABANDONED_S = 0.8
"""How long the components may take to close when the program has died (G8)."""
_MAX_PEER_BYTES = 16 * 1024 * 1024
"""When more than this waits for a program that does not read, sound and log records are dropped;
with twice as much the session fails."""


class PeerHub(Protocol):
    """What the program needs of the hub."""

    loop: Loop

    def obey(self, message: Message, frame: bytes) -> None:
        """Handle a request of the program."""

    def route_from_program(self, frame: bytes) -> None:
        """Deliver a message of the program to everyone who accepts its type."""

    def publish(self, message: Message) -> None:
        """Deliver a message of the supervisor's own."""

    def abandon(self, *, within_s: float) -> None:
        """End the session because the program has gone."""

    def fail(self, reason: str) -> None:
        """End the session because it cannot go on."""


class ProgramPeer:
    """The program that has started this process: receives frames, and sends requests."""

    def __init__(self, hub: PeerHub, connection: socket.socket) -> None:
        self.tags: frozenset[int] = frozenset()
        """Tags of the messages it has subscribed to."""
        self._hub = hub
        self._connection = connection
        self.dropped = 0
        """Number of sound messages and log records dropped because it did not read."""
        self._unreported: dict[int, int] = {}
        """Number of those not yet reported, by tag."""
        self._published_at = 0.0
        self._line = Line(hub.loop, connection, self._read, self._gone)

    def put(self, frame: bytes) -> None:
        tag, unsent = tag_of(frame), self._line.unsent
        if unsent > _MAX_PEER_BYTES and tag in _DROPPED_TAGS:
            self.dropped += 1
            self._unreported[tag] = self._unreported.get(tag, 0) + 1
        elif unsent > 2 * _MAX_PEER_BYTES and tag not in _LAST_TAGS:
            self._hub.loop.call(lambda: self._hub.fail("the program does not read what it is told"))
        else:
            self._line.write([frame])

    def publish_drops(self, now: float) -> None:
        """Publish what was dropped since the last report; at most once a second."""
        if not self._unreported or now - self._published_at < DROPS_S:
            return
        self._published_at = now
        unreported, self._unreported = self._unreported, {}
        for tag, count in unreported.items():
            self._hub.publish(MessagesDropped("program", type_name(tag), count))

    def close(self) -> None:
        """Send what is left, for at most a second."""
        with contextlib.suppress(OSError):
            self._connection.setblocking(True)
            self._connection.settimeout(1.0)
            self._line.flush_all()
        self._line.close()

    def _read(self, frame: bytes) -> None:
        if tag_of(frame) in _ORDER_TAGS:
            self._hub.obey(decode(frame), frame)
        else:  # it may be of a type of the user's own, which is unknown here
            self._hub.route_from_program(frame)

    def _gone(self, _why: str) -> None:
        self._hub.abandon(within_s=_ABANDONED_S)
