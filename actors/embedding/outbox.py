"""What a program sends to its supervisor, kept until no death of the supervisor can undo it."""

from __future__ import annotations

import collections
import threading

from messages import Confirm, ProgramCapture, ProgramPlayed, StatusRequest, encode, tag_of
from messages.transport.channel import Channel

__all__ = ["Outbox"]

_MAX_SOUND_BYTES = 5 * 48_000
"""Sound that waits for a supervisor, at 24 kHz for 5 s; older sound is dropped."""
_PASSING = frozenset(kind.tag() for kind in (ProgramCapture, ProgramPlayed, StatusRequest, Confirm))
"""Tags of messages that are worthless to the next supervisor once they were sent."""
_SOUND = ProgramCapture.tag()


class Outbox:
    """Sends the frames of a program, in order, to the supervisor that there is.

    A command counts as confirmed when the supervisor says so; the others are sent again to the
    next supervisor. Any thread may put frames in; `run` sends them on a thread of its own.
    """

    def __init__(self) -> None:
        self._waiting: collections.deque[bytes] = collections.deque()
        self._sound_bytes = 0
        """Of the sound among them."""
        self._dropped_bytes = 0
        self._sent: collections.deque[tuple[int, bytes]] = collections.deque()
        """Commands that were sent and are not confirmed, with their numbers."""
        self._count = 0
        """Commands put in so far."""
        self._sent_count = 0
        self._confirmed = 0
        """Number of the last command that is confirmed."""
        self._asked = False
        """Whether a `Confirm` is on its way."""
        self._channel: Channel | None = None
        self._closed = False
        self._news = threading.Condition()

    def put(self, frame: bytes) -> None:
        """Append a frame; if sound has waited for too long, drop the oldest."""
        with self._news:
            self._waiting.append(frame)
            tag = tag_of(frame)
            if tag == _SOUND:
                self._sound_bytes += len(frame)
                while self._channel is None and self._sound_bytes > _MAX_SOUND_BYTES:
                    self._drop_oldest_sound()
            elif tag not in _PASSING:
                self._count += 1
            self._news.notify_all()

    def _drop_oldest_sound(self) -> None:
        oldest = next(frame for frame in self._waiting if tag_of(frame) == _SOUND)
        self._waiting.remove(oldest)
        self._sound_bytes -= len(oldest)
        self._dropped_bytes += len(oldest)

    def attach(self, channel: Channel) -> int:
        """Send to this supervisor from now on, first what is not confirmed.

        Returns:
            How many milliseconds of sound were dropped meanwhile.
        """
        with self._news:
            self._waiting.extendleft(frame for _, frame in reversed(self._sent))
            self._sent_count -= len(self._sent)
            self._sent.clear()
            self._asked = False
            self._channel = channel
            dropped, self._dropped_bytes = self._dropped_bytes, 0
            self._news.notify_all()
        return dropped // 48

    def detach(self) -> None:
        """Keep what comes: the supervisor has ended."""
        with self._news:
            self._channel = None

    def close(self) -> None:
        """End `run`, and whoever waits for a confirmation."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def confirmed(self, number: int) -> None:
        """Forget the commands up to this one: they are safe."""
        with self._news:
            self._asked = False
            self._confirmed = max(self._confirmed, number)
            while self._sent and self._sent[0][0] <= number:
                self._sent.popleft()
            self._news.notify_all()

    def wait_confirmed(self, timeout_s: float) -> bool:
        """Wait until all commands put in so far are confirmed; return whether they are."""
        with self._news:
            number = self._count
            done = self._news.wait_for(lambda: self._confirmed >= number or self._closed, timeout_s)
            return done and self._confirmed >= number

    def run(self) -> None:
        """Send frames until `close`."""
        while (found := self._next()) is not None:
            channel, frame = found
            try:
                channel.write_frame(frame)
            except OSError:
                self._failed(channel, frame)

    def _next(self) -> tuple[Channel, bytes] | None:
        with self._news:
            self._news.wait_for(lambda: self._closed or self._has_work())
            channel = self._channel
            if self._closed or channel is None:
                return None
            if not self._waiting:
                self._asked = True
                return channel, encode(Confirm(self._sent_count))
            frame = self._waiting.popleft()
            tag = tag_of(frame)
            if tag == _SOUND:
                self._sound_bytes -= len(frame)
            elif tag not in _PASSING:
                self._sent_count += 1
                self._sent.append((self._sent_count, frame))
            return channel, frame

    def _has_work(self) -> bool:
        if self._channel is None:
            return False
        return bool(self._waiting) or (bool(self._sent) and not self._asked)

    def _failed(self, channel: Channel, frame: bytes) -> None:
        """Keep what could not be sent, and wait for another supervisor."""
        with self._news:
            if self._channel is channel:
                self._channel = None
            if tag_of(frame) == _SOUND:
                self._waiting.appendleft(frame)
                self._sound_bytes += len(frame)
