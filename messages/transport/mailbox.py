"""The mailbox of one component, kept by the hub: what waits, what is in flight, what is handled.

mailbox -> flight (sent, not handled) -> handled. What was in flight when the component died comes
back to the front, but for the one message that was in hand, if it may not be begun again.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

import msgspec

from messages.base import Message, type_of_tag
from messages.lifecycle import Ping
from messages.rules import CONTROL, PCM_BYTES_PER_MS, Rule
from messages.transport.frame import FrameError, decode, tag_of
from messages.transport.page import HELD, MAIL, Slot

__all__ = ["Dropped", "Mailbox", "MailboxFullError", "Suspect"]

_PING = Ping.tag()
_ID_FIELDS = ("item_id", "call_id", "name", "component", "fault")
_HELD_MESSAGES = 8
_HELD_BYTES = 300 * PCM_BYTES_PER_MS
"""Held audio in flight: a flush never waits behind more than this."""


class MailboxFullError(Exception):
    """Control messages have piled up: the component is stuck."""

    def __init__(self, tag: int, waiting: int) -> None:
        self.tag = tag
        self.waiting = waiting
        super().__init__(f"{waiting} {_name(tag)} wait unhandled")


class Suspect(msgspec.Struct, frozen=True):
    """A message that was in hand when its receiver died, and may not be begun again."""

    frame: bytes
    attempts: int

    @property
    def tag(self) -> int:
        """The tag of its type."""
        return tag_of(self.frame)

    @property
    def name(self) -> str:
        """The name of its type."""
        return _name(self.tag)

    @property
    def about(self) -> str:
        """What it was about, by the ids in it; never what was said."""
        message = _decoded(self.frame)
        ids = ((name, getattr(message, name, None)) for name in _ID_FIELDS)
        return " ".join(f"{name}={value}" for name, value in ids if value)

    @property
    def audio_ms(self) -> int:
        """How much sound it carried."""
        return _audio_bytes(self.frame) // PCM_BYTES_PER_MS


class Dropped(msgspec.Struct):
    """What a full mailbox has dropped of one type."""

    count: int = 0
    audio_bytes: int = 0

    @property
    def audio_ms(self) -> int:
        """How much sound that was."""
        return self.audio_bytes // PCM_BYTES_PER_MS


class _Waiting(msgspec.Struct):
    frame: bytes
    order: int
    """Its place among all messages to this receiver, over both lanes."""
    begun: int = 0
    """How often a handler was called with it."""


class _Lane:
    """Messages that are accounted in one order."""

    def __init__(self, max_messages: int, max_bytes: int | None) -> None:
        self.queue: collections.deque[_Waiting] = collections.deque()
        self.flight: collections.deque[_Waiting] = collections.deque()
        self.flight_bytes = 0
        self.handled = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    @property
    def room(self) -> bool:
        if len(self.flight) >= self._max_messages:
            return False
        return self._max_bytes is None or self.flight_bytes < self._max_bytes

    def settle(self, handled: int) -> None:
        for _ in range(min(handled - self.handled, len(self.flight))):
            self.flight_bytes -= len(self.flight.popleft().frame)
        self.handled = max(self.handled, handled)

    def wake_at(self) -> int:
        return self.handled + max(1, len(self.flight) // 2)


class _MessageKind:
    """What the mailbox knows of one type of message. Looked up for every frame, hence the slots."""

    __slots__ = ("count", "dropped", "flushes", "lane", "rule", "size")

    def __init__(self, rule: Rule, lane: _Lane, flushes: tuple[int, ...]) -> None:
        self.rule = rule
        self.lane = lane
        self.flushes = flushes
        self.count = self.size = 0
        """Messages and bytes that wait."""
        self.dropped = Dropped()

    def is_full(self, more: int) -> bool:
        rule = self.rule
        if rule.messages and self.count >= rule.messages:
            return True
        return bool(rule.size_bytes) and self.size + more > rule.size_bytes


class Mailbox:
    """What one component has been sent and has not handled."""

    def __init__(self, rules: Mapping[int, Rule], window: int = 8) -> None:
        self._rules = rules
        self._kinds: dict[int, _MessageKind] = {}
        self._lanes = (_Lane(window, None), _Lane(_HELD_MESSAGES, _HELD_BYTES))
        self._order = 0
        self._flushed: list[collections.deque[_Waiting]] = []

    def __len__(self) -> int:
        """Return how many messages wait or are in flight."""
        return sum(len(lane.queue) + len(lane.flight) for lane in self._lanes)

    @property
    def dropped(self) -> dict[int, Dropped]:
        """What was dropped because the mailbox was full, by tag."""
        return {tag: kind.dropped for tag, kind in self._kinds.items() if kind.dropped.count}

    @property
    def lost(self) -> dict[int, Dropped]:
        """What of it is a loss, by tag: not where only the newest message matters."""
        return {tag: it for tag, it in self.dropped.items() if not self._kinds[tag].rule.replaces}

    @property
    def waiting(self) -> int:
        """How many messages have not been sent."""
        return sum(len(lane.queue) for lane in self._lanes)

    @property
    def waiting_mail(self) -> int:
        """How many ordinary messages have not been sent."""
        return len(self._lanes[MAIL].queue)

    @property
    def in_flight(self) -> int:
        """How many ordinary messages have been sent and are not handled."""
        return len(self._lanes[MAIL].flight)

    @property
    def pings(self) -> int:
        """How many pings wait or are in flight."""
        lane = self._lanes[MAIL]
        return sum(tag_of(waiting.frame) == _PING for waiting in (*lane.flight, *lane.queue))

    def unhandled(self) -> dict[int, int]:
        """How many ordinary messages wait or are in flight, by tag."""
        lane = self._lanes[MAIL]
        tags = (tag_of(waiting.frame) for waiting in (*lane.flight, *lane.queue))
        return dict(collections.Counter(tag for tag in tags if tag != _PING))

    def put(self, frame: bytes) -> None:
        """Add a message at the end.

        Raises:
            MailboxFullError: too many messages wait that may not be dropped.
        """
        tag = tag_of(frame)
        kind = self._kinds.get(tag) or self._learn(tag)
        for other in kind.flushes:
            self._flush(other)
        size = len(frame)
        while kind.is_full(size):
            if not kind.rule.drops:
                raise MailboxFullError(tag, kind.count)
            if not self._drop_oldest(kind, tag):
                break
        self._order += 1
        kind.lane.queue.append(_Waiting(frame, self._order))
        kind.count += 1
        kind.size += size

    def take(self, slot: Slot) -> list[bytes]:
        """Return the frames to send now, and put them in flight.

        If more wait than may be in flight, the child is asked to say when there is room.
        """
        frames: list[bytes] = []
        for number, lane in enumerate(self._lanes):
            if not lane.queue:
                continue
            lane.settle(slot.handled(number))
            self._fill(lane, frames)
            if lane.queue:  # the child may have handled some before it could see the request
                slot.wake_at(number, lane.wake_at())
                lane.settle(slot.handled(number))
                self._fill(lane, frames)
        return frames

    def settle(self, slot: Slot) -> None:
        """Forget what has been handled, and what was flushed.

        Freeing ten minutes of audio takes milliseconds, which a flush must not wait for.
        """
        self._flushed.clear()
        for number, lane in enumerate(self._lanes):
            lane.settle(slot.handled(number))

    def reclaim(self, slot: Slot) -> Suspect | None:
        """After a death: put what was not handled in front again. Return what may not be again."""
        self.settle(slot)
        in_hand = slot.in_hand()
        suspect: Suspect | None = None
        for number, lane in enumerate(self._lanes):
            back = list(lane.flight)
            if in_hand is not None and in_hand[0] == number:
                place = in_hand[1] - lane.handled - 1
                if 0 <= place < len(back):
                    suspect = self._begun(back, place)
            for waiting in reversed(back):
                tag = tag_of(waiting.frame)
                if tag != _PING:
                    lane.queue.appendleft(waiting)
                    self._kinds[tag].count += 1
                    self._kinds[tag].size += len(waiting.frame)
            lane.flight.clear()
            lane.flight_bytes = lane.handled = 0
        self._flush_again()
        return suspect

    def _flush_again(self) -> None:
        """Drop what came back from flight and was sent before a flush that came back too."""
        for waiting in list(self._lanes[MAIL].queue):
            for tag in self._kinds[tag_of(waiting.frame)].flushes:
                self._flush(tag, before=waiting.order)

    def _learn(self, tag: int) -> _MessageKind:
        rule = self._rules.get(tag, CONTROL)
        flushes = tuple(other.tag() for other in _type(tag).flushes)
        kind = _MessageKind(rule, self._lanes[HELD if rule.held else MAIL], flushes)
        self._kinds[tag] = kind
        return kind

    def _begun(self, back: list[_Waiting], place: int) -> Suspect | None:
        message = back[place]
        message.begun += 1
        tag = tag_of(message.frame)
        if message.begun < _type(tag).attempts:
            return None
        del back[place]
        return Suspect(message.frame, message.begun)

    def _fill(self, lane: _Lane, frames: list[bytes]) -> None:
        while lane.queue and lane.room:
            waiting = lane.queue.popleft()
            frame = waiting.frame
            lane.flight.append(waiting)
            lane.flight_bytes += len(frame)
            kind = self._kinds[frame[4]]
            kind.count -= 1
            kind.size -= len(frame)
            frames.append(frame)

    def _drop_oldest(self, kind: _MessageKind, tag: int) -> bool:
        queue = kind.lane.queue
        for place, waiting in enumerate(queue):
            if tag_of(waiting.frame) == tag:
                del queue[place]
                kind.count -= 1
                kind.size -= len(waiting.frame)
                kind.dropped.count += 1
                kind.dropped.audio_bytes += _audio_bytes(waiting.frame)
                return True
        return False

    def _flush(self, tag: int, before: int | None = None) -> None:
        kind = self._kinds.get(tag)
        if kind is None or not kind.count:
            return
        queue, kept = kind.lane.queue, collections.deque[_Waiting]()
        nothing_else = before is None and kind.count == len(queue)
        kind.count = kind.size = 0
        for waiting in () if nothing_else else queue:  # looking at ten minutes takes a while
            if waiting.frame[4] != tag:
                kept.append(waiting)
            elif before is not None and waiting.order > before:
                kept.append(waiting)
                kind.count += 1
                kind.size += len(waiting.frame)
        kind.lane.queue = kept
        self._flushed.append(queue)


def _type(tag: int) -> type[Message]:
    """Return the type; a user's own, which only the children know, counts as a plain message."""
    try:
        return type_of_tag(tag)
    except KeyError:
        return Message


def _decoded(frame: bytes) -> Message | None:
    """Return the message, or None: of a user's own type, or broken."""
    try:
        return decode(frame)
    except FrameError:
        return None


def _audio_bytes(frame: bytes) -> int:
    return len(getattr(_decoded(frame), "pcm", b""))


def _name(tag: int) -> str:
    kind = _type(tag)
    return f"messages with tag {tag}" if kind is Message else kind.__name__
