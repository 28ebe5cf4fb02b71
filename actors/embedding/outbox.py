"""What a program sends to its supervisor, kept until no death of the supervisor can undo it."""

from __future__ import annotations

import collections
import threading

from messages import (
    AudioLost,
    Confirm,
    ProgramCapture,
    ProgramFlushed,
    ProgramPlayed,
    decode,
    encode,
    tag_of,
)
from messages.transport.channel import Channel

__all__ = ["Outbox"]

_MAX_SOUND_S = 5.0
"""Sound that waits for a supervisor; older sound is dropped."""
_PASSING = frozenset(
    kind.tag() for kind in (ProgramCapture, ProgramPlayed, ProgramFlushed, Confirm)
)
"""Tags of messages that are worthless to the next supervisor once they were sent."""
_SOUND = ProgramCapture.tag()


class Outbox:
    """Sends the frames of a program, in order, to the supervisor that there is.

    A command counts as confirmed when the supervisor says so; the others are sent again to the
    next supervisor. Any thread may put frames in; `run` sends them on a thread of its own.
    """

    def __init__(self) -> None:
        self._waiting: collections.deque[bytes] = collections.deque()
        self._sound_s = self._dropped_s = 0.0
        """Length of the sound that has come while there was no supervisor; of what was dropped."""
        self._sent: collections.deque[tuple[int, bytes]] = collections.deque()
        """Commands that were sent and are not confirmed, with their numbers."""
        self._count = 0
        """Commands put in so far."""
        self._sent_count = 0
        self._confirmed = 0
        """Number of the last command that is confirmed."""
        self._asked = False
        """Whether a `Confirm` was sent that the hub has not answered."""
        self._channel: Channel | None = None
        self._closed = False
        self._news = threading.Condition()

    def put(self, frame: bytes) -> None:
        """Append a frame; if sound has waited for too long, drop the oldest."""
        with self._news:
            self._waiting.append(frame)
            tag = tag_of(frame)
            if tag not in _PASSING:
                self._count += 1
            elif tag == _SOUND and self._channel is None:
                self._sound_s += _seconds(frame)
                while self._sound_s > _MAX_SOUND_S:
                    self._drop_oldest_sound()
            self._news.notify_all()

    def _drop_oldest_sound(self) -> None:
        oldest = next(frame for frame in self._waiting if tag_of(frame) == _SOUND)
        self._waiting.remove(oldest)
        self._sound_s -= _seconds(oldest)
        self._dropped_s += _seconds(oldest)

    def attach(self, channel: Channel) -> None:
        """Send to this supervisor from now on, first what is not confirmed."""
        with self._news:
            self._waiting.extendleft(frame for _, frame in reversed(self._sent))
            self._sent_count -= len(self._sent)
            self._sent.clear()
            self._asked = False
            self._channel = channel
            if self._dropped_s:
                lost_ms = round(self._dropped_s * 1000)
                lost = AudioLost("microphone", lost_ms, "there was no supervisor to take it")
                self._waiting.append(encode(lost))
                self._count += 1
            self._sound_s = self._dropped_s = 0.0
            self._news.notify_all()

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
            if tag_of(frame) not in _PASSING:
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


def _seconds(frame: bytes) -> float:
    """Return the length of a block of sound."""
    sound = decode(frame)
    assert isinstance(sound, ProgramCapture)
    return len(sound.pcm) / 2 / sound.sample_rate
