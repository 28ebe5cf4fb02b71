"""Routing: which components, and whether the program, are given a message."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable

from actors.supervision.child import Child
from actors.supervision.peers import ProgramPeer
from actors.supervision.tags import HUB_TAGS, ON_DEMAND_TAGS, PASSING_TAGS, SOUND_TAGS
from messages import Message, Wanted, decode, encode, tag_of

__all__ = ["Router"]

_EARLY = 10_000
"""How many messages are buffered while it is not known who accepts them."""


class Router:
    """Delivers frames by their tag, unread.

    A component is given the types that it accepts, the program those that it has subscribed to.
    What the program sends before every component has said what it accepts is buffered.
    """

    def __init__(self, note: Callable[[Message], bool]) -> None:
        """Begin without receivers.

        Args:
            note: Is given the messages with `HUB_TAGS`; returns whether they are to be delivered.
        """
        self.peer: ProgramPeer | None = None
        """The program."""
        self._note = note
        self._table: dict[int, list[Child]] = {}
        self._left_out: list[Child] = []
        """The components that are sent nothing; see `leave_out`."""
        self._early: collections.deque[bytes] | None = collections.deque(maxlen=_EARLY)
        """None: every component has said what it accepts, or none will any more."""
        self._announced: tuple[int, ...] = ()
        """What the components know of `wanted`."""

    def add(self, child: Child) -> None:
        """Deliver to a component what it accepts from now on."""
        for tag in child.accepts:
            receivers = self._table.setdefault(tag, [])
            receivers.append(child)
            receivers.sort(key=lambda receiver: not receiver.spec.prompt)

    def leave_out(self, child: Child) -> None:
        """Deliver nothing to a component: with these settings, it has nothing to do."""
        self._left_out.append(child)
        for receivers in self._table.values():
            if child in receivers:
                receivers.remove(child)
        self._table = {tag: receivers for tag, receivers in self._table.items() if receivers}

    def route(self, frame: bytes, source: Child | None = None, *, is_command: bool = False) -> None:
        """Deliver a message to everyone who accepts its type, except its sender.

        Args:
            frame: The message.
            source: Its sender; None: the program, or the supervisor itself.
            is_command: Whether the program has sent the message.
        """
        tag = tag_of(frame)
        if tag in HUB_TAGS and not self._note(decode(frame)):
            return
        for child in self._table.get(tag, ()):
            if child is not source:
                child.put(frame, is_command=is_command)
        peer = self.peer
        if peer is not None and tag in peer.tags:
            peer.put(frame)

    def publish(self, message: Message) -> None:
        """Deliver a message of the supervisor's own."""
        self.route(encode(message))

    def route_from_program(self, frame: bytes) -> None:
        """Deliver a message of the program, now or once it is known who accepts it."""
        if self._early is None:
            self.route(frame, is_command=tag_of(frame) not in SOUND_TAGS)
        else:
            self._early.append(frame)

    def complete(self) -> None:
        """Deliver the messages buffered during start-up; nothing is buffered any more."""
        if self._early is None:
            return
        early, self._early = self._early, None
        self._announced = self.wanted  # the components are opened with this
        self.send_to_program(Wanted(self._announced))
        for frame in early:
            self.route_from_program(frame)

    def send_to_program(self, message: Message) -> None:
        """Send a message to the program alone, whether it has subscribed to it or not."""
        if self.peer is not None:
            self.peer.put(encode(message))

    def is_subscribed(self, tag: int) -> bool:
        """Return whether the program has subscribed to messages with a tag."""
        return self.peer is not None and tag in self.peer.tags

    @property
    def wanted(self) -> tuple[int, ...]:
        """What `Wanted` tells the components."""
        on_demand = [tag for tag in ON_DEMAND_TAGS if tag in self._table or self.is_subscribed(tag)]
        ahead = [tag for tag, receivers in self._table.items() if self._is_awaited(tag, receivers)]
        past = PASSING_TAGS if any(tag in self._table for tag in PASSING_TAGS) else ()
        return (*on_demand, *ahead, *past)

    def _is_awaited(self, tag: int, receivers: Iterable[Child]) -> bool:
        """Return whether a type that is sent ahead to one receiver is awaited by another one."""
        rules = [(child, child.accepts[tag]) for child in receivers]
        return any(rule.direct for _, rule in rules) and (
            self.is_subscribed(tag)
            or not all(rule.direct or child.spec.linger_s for child, rule in rules)
        )

    def announce_wanted(self, children: Iterable[Child]) -> None:
        """Tell the components and the program what is `wanted`, if that has changed.

        Not before all have said what they accept: they are opened with it, and what was announced
        before would reach them after that.
        """
        wanted = self.wanted
        if self._early is None and wanted != self._announced:
            self._announced = wanted
            self.send_to_program(Wanted(wanted))
            for child in children:
                if child not in self._left_out:
                    child.put(encode(Wanted(wanted)))
