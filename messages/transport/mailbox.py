"""The mailbox of one component, kept by the hub.

A message waits in the queue, is then in flight (sent, but not handled), and is at last handled.
When the component dies, the messages in flight return to the front of the queue. The message that
was in hand does so only if it may be started again (`Message.attempts`).
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
"""Most held audio in flight, so that a flush never waits behind more than this."""


class MailboxFullError(Exception):
    """Raised if too many control messages wait: the component is stuck."""

    def __init__(self, tag: int, waiting: int) -> None:
        self.tag = tag
        self.waiting = waiting
        super().__init__(f"{waiting} {_name(tag)} wait unhandled")


class Suspect(msgspec.Struct, frozen=True):
    """A message that was in hand when its receiver died, and must not be started again."""

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
        """The ids in the message, for the log; never the text of the conversation."""
        message = _decoded(self.frame)
        ids = ((name, getattr(message, name, None)) for name in _ID_FIELDS)
        return " ".join(f"{name}={value}" for name, value in ids if value)

    @property
    def audio_ms(self) -> int:
        """Length of the audio that it carried."""
        return _audio_bytes(self.frame) // PCM_BYTES_PER_MS


class Dropped(msgspec.Struct):
    """Count and size of the messages of one type that a full mailbox has dropped."""

    count: int = 0
    audio_bytes: int = 0

    @property
    def audio_ms(self) -> int:
        """Length of the audio that was dropped."""
        return self.audio_bytes // PCM_BYTES_PER_MS


class _Waiting(msgspec.Struct):
    frame: bytes
    order: int
    """Its sequence number among all messages to this receiver, in both lanes."""
    begun: int = 0
    """How often a handler was called with the message."""
    is_command: bool = False
    """Whether the program has sent the message."""
    is_confirmed: bool = False
    """Whether the program has the confirmation, so that it will not send the message again."""


class _Lane:
    """The messages of one lane, with flow control: only a limited number is in flight."""

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
    """The rule and the counters of one message type; looked up for every frame, hence the slots."""

    __slots__ = ("count", "dropped", "flushes", "lane", "rule", "size")

    def __init__(self, rule: Rule, lane: _Lane, flushes: tuple[int, ...]) -> None:
        self.rule = rule
        self.lane = lane
        self.flushes = flushes
        self.count = self.size = 0
        """Messages and bytes in the queue."""
        self.dropped = Dropped()

    def is_full(self, more: int) -> bool:
        rule = self.rule
        if rule.messages and self.count >= rule.messages:
            return True
        return bool(rule.size_bytes) and self.size + more > rule.size_bytes


class Mailbox:
    """The messages to one component that it has not handled yet."""

    def __init__(self, rules: Mapping[int, Rule], window: int = 8) -> None:
        self._rules = rules
        self._kinds: dict[int, _MessageKind] = {}
        self._lanes = (_Lane(window, None), _Lane(_HELD_MESSAGES, _HELD_BYTES))
        self._order = 0
        self._flushed: list[collections.deque[_Waiting]] = []

    def __len__(self) -> int:
        """Return how many messages are queued or in flight."""
        return sum(len(lane.queue) + len(lane.flight) for lane in self._lanes)

    @property
    def dropped(self) -> dict[int, Dropped]:
        """Messages dropped because the mailbox was full, by tag."""
        return {tag: kind.dropped for tag, kind in self._kinds.items() if kind.dropped.count}

    @property
    def lost(self) -> dict[int, Dropped]:
        """The part of `dropped` that is a loss: without types of which only the newest matters."""
        return {tag: it for tag, it in self.dropped.items() if not self._kinds[tag].rule.replaces}

    @property
    def waiting(self) -> int:
        """Number of messages that are queued."""
        return sum(len(lane.queue) for lane in self._lanes)

    @property
    def waiting_mail(self) -> int:
        """Number of ordinary messages that are queued."""
        return len(self._lanes[MAIL].queue)

    @property
    def in_flight(self) -> int:
        """Number of ordinary messages that are sent but not handled."""
        return len(self._lanes[MAIL].flight)

    @property
    def pings(self) -> int:
        """Number of pings that are queued or in flight."""
        lane = self._lanes[MAIL]
        return sum(tag_of(waiting.frame) == _PING for waiting in (*lane.flight, *lane.queue))

    def unhandled(self) -> dict[int, int]:
        """Return how many ordinary messages are queued or in flight, by tag, without pings."""
        lane = self._lanes[MAIL]
        tags = (tag_of(waiting.frame) for waiting in (*lane.flight, *lane.queue))
        return dict(collections.Counter(tag for tag in tags if tag != _PING))

    def confirm(self) -> None:
        """Record that the messages of the program that are here are confirmed to it."""
        lane = self._lanes[MAIL]
        for waiting in (*lane.flight, *lane.queue):
            waiting.is_confirmed = waiting.is_command

    def confirmed(self) -> list[bytes]:
        """Return the confirmed messages of the program that are queued or in flight."""
        lane = self._lanes[MAIL]
        return [one.frame for one in (*lane.flight, *lane.queue) if one.is_confirmed]

    def put(self, frame: bytes, *, is_command: bool = False) -> None:
        """Append a message to its queue; if it is full, drop the oldest of its type.

        Args:
            frame: The message.
            is_command: Whether the program has sent the message.

        Raises:
            MailboxFullError: If the queue is full, and messages of this type must not be dropped.
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
        kind.lane.queue.append(_Waiting(frame, self._order, 0, is_command))
        kind.count += 1
        kind.size += size

    def take(self, slot: Slot) -> list[bytes]:
        """Return the frames to send now, which are then in flight.

        If more are queued than may be in flight, the child is asked to send `Room`.
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
        """Remove the messages that were handled, and free those that were flushed.

        Flushed messages are freed here and not in `put`, as freeing ten minutes of audio takes
        milliseconds, for which a flush must not wait.
        """
        self._flushed.clear()
        for number, lane in enumerate(self._lanes):
            lane.settle(slot.handled(number))

    def reclaim(self, slot: Slot) -> Suspect | None:
        """After a crash, return the messages in flight to the front of the queue.

        Returns:
            The message that was in hand, if it must not be started again.
        """
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
                if tag != _PING:  # a ping asks about the incarnation that has died
                    lane.queue.appendleft(waiting)
                    self._kinds[tag].count += 1
                    self._kinds[tag].size += len(waiting.frame)
            lane.flight.clear()
            lane.flight_bytes = lane.handled = 0
        self._flush_again()
        return suspect

    def _flush_again(self) -> None:
        """Apply flushes that came back from flight to older messages that came back too."""
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
            lane.flight.append(waiting)  # kept until it is handled, to be sent again after a crash
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
        for waiting in () if nothing_else else queue:  # a scan of ten minutes of audio is slow
            if waiting.frame[4] != tag:
                kept.append(waiting)
            elif before is not None and waiting.order > before:
                kept.append(waiting)
                kind.count += 1
                kind.size += len(waiting.frame)
        kind.lane.queue = kept
        self._flushed.append(queue)


def _type(tag: int) -> type[Message]:
    """Return the type with a tag; a user's own type, unknown to the hub, counts as `Message`."""
    try:
        return type_of_tag(tag)
    except KeyError:
        return Message


def _decoded(frame: bytes) -> Message | None:
    """Return the message; None: it is of a user's own type, or broken."""
    try:
        return decode(frame)
    except FrameError:
        return None


def _audio_bytes(frame: bytes) -> int:
    return len(getattr(_decoded(frame), "pcm", b""))


def _name(tag: int) -> str:
    kind = _type(tag)
    return f"messages with tag {tag}" if kind is Message else kind.__name__
