"""What a program sends to its supervisor, kept until no death of the supervisor can undo it."""

from __future__ import annotations

import collections
import contextlib
import select
import threading
import time
from collections.abc import Sequence

import msgspec

from actors.embedding.direct_end import DirectEnd
from actors.embedding.loop_end import LoopEnd
from messages import (
    AudioLost,
    Confirm,
    MayPass,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlushed,
    ProgramPlayed,
    ProgramToolAnswer,
    SetMuted,
    UseInput,
    decode,
    encode,
    encode_sound,
    message_types,
    tag_of,
)
from messages.transport.channel import AT_ONCE, Channel
from messages.transport.frame import split

__all__ = ["Outbox"]

_MAX_SOUND_S = 5.0
"""Sound that waits for a supervisor; older sound is dropped."""
_PASSING = frozenset(
    kind.tag() for kind in (ProgramCapture, ProgramPlayed, ProgramFlushed, MayPass, Confirm)
)
"""Tags of messages that are worthless to the next supervisor once they were sent."""
_DIRECT = frozenset(
    kind.tag() for kind in message_types().values() if kind.direct or kind is ProgramPlayed
)
"""Tags of messages that go straight too."""
_SOUND, _POSITION = ProgramCapture.tag(), ProgramPlayed.tag()
_TOOL_ANSWER = ProgramToolAnswer.tag()
_HOLD_S = 0.4
"""The supervisor is sent sound this much later than the microphone."""
_DOUBT_S = 0.5
"""After a piece that did not go straight, and after a crash of the microphone, none is held for
this long."""
_FOR_MICROPHONE = frozenset(kind.tag() for kind in (SetMuted, UseInput, ProgramCaptureEnded))
"""Tags of the commands that the microphone obeys."""
_MOST_HELD_S = 0.5
"""It is sent at once when this much is held, of a burst."""
_FULL_S = 0.5
"""How long the thread waits for a socket that is full before it looks whether it is to end."""


class Outbox:
    """Sends the frames of a program, in order, to the supervisor that there is.

    A command counts as confirmed when the supervisor says so; the others are sent again to the
    next supervisor. Any thread may put frames in. A frame is sent at once if the socket takes it
    and nothing waits; the rest is sent by an event loop (`join`) or by `run` on a thread.

    It has more attributes than other classes: what waits, what is in hand, what was sent and who
    sends are changed together, under one lock.
    """

    def __init__(self) -> None:
        self._waiting: collections.deque[bytes] = collections.deque()
        self._sound_s = self._dropped_s = 0.0
        """Length of the sound in `_waiting`; of what was dropped."""
        self._frame = b""
        """The frame in hand, or several of sound: a part of it is sent. Empty: there is none."""
        self._done = 0
        """Bytes of it that are sent."""
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
        self._watch: LoopEnd | None = None
        """Where an event loop sends what waits; None: a thread does, in `run`."""
        self._called = False
        """Whether the loop is going to send what waits."""
        self._direct: DirectEnd | None = None
        """Sends straight; None: nothing does."""
        self._number = 0
        """Number of the last piece of sound."""
        self._next_is_barred = False
        """Whether the next piece is sent through the supervisor alone, behind a command, which has
        taken a number: so the microphone refuses the pieces after it until then."""
        self._doubtful_until_s = 0.0
        """Until then, the microphone may refuse pieces that go straight: none is held."""
        self._commands = 0
        """Commands put in so far, without answers of tools."""
        self._held: list[bytes] = []
        """Sound that has gone straight, and not to the supervisor yet."""
        self._held_s = 0.0
        """Its length."""
        self._timer_runs = False
        """Whether the loop has a timer that sends it."""
        self.wanted: frozenset[int] = frozenset()
        """Tags of the messages that others wait for too (`Wanted`)."""
        self._news = threading.Condition()

    def commands(self) -> int:
        """Return how many commands were put in so far, without answers of tools; on any thread."""
        return self._commands

    def put(self, frame: bytes, *, straight: bool = True) -> None:
        """Send a frame, or append it to those that wait.

        Args:
            frame: The frame.
            straight: Whether one of a type that can go straight does so too.
        """
        tag = tag_of(frame)
        with self._news:
            if straight and self._direct is not None and tag in _DIRECT:
                is_there = self._direct.send(frame)
                if is_there and tag == _POSITION:  # the next one makes it worthless
                    return
            if tag not in _PASSING:
                self._count += 1
                self._commands += tag != _TOOL_ANSWER
                self._send_held()
            self._put(frame)
            if tag in _FOR_MICROPHONE:  # sound after it must not overtake it
                self._number += 1
                self._next_is_barred = True

    def send_past(self, frame: bytes) -> bool:
        """Send a frame straight, and not to the supervisor; return whether that was possible."""
        with self._news:
            return self._direct is not None and self._direct.send(frame)

    def put_sound(self, message: ProgramCapture, pieces: Sequence[bytes]) -> None:
        """Send captured sound, or append it to what waits, where only the newest is kept.

        It goes straight to the microphone if nothing waits, and to the supervisor a little later,
        with the sound after it: to wake the supervisor for each piece costs more than the rest of
        its way.

        Args:
            message: What there is to say of it; its ``pcm`` is not used.
            pieces: What this field is to be.
        """
        with self._news:
            self._number += 1
            numbered = msgspec.structs.replace(message, pcm=b"", number=self._number)
            frame = encode_sound(numbered, pieces)
            now_s = time.monotonic()
            if not self._went_straight(frame):
                self._doubt()
                self._put(frame)
                return
            self._held.append(frame)
            self._held_s += _length_s(sum(map(len, pieces)), message.sample_rate)
            if (
                self._held_s > _MOST_HELD_S
                or now_s < self._doubtful_until_s
                or _SOUND in self.wanted
            ):
                self._send_held()
            elif not self._timer_runs and self._watch is not None:
                self._timer_runs = True
                self._watch.later(_HOLD_S, self._send_held_on_loop)

    def doubt(self) -> None:
        """Hold nothing for a while: the microphone may have lost what has gone straight."""
        with self._news:
            self._doubt()

    def _doubt(self) -> None:
        self._doubtful_until_s = time.monotonic() + _DOUBT_S
        self._send_held()

    def _went_straight(self, frame: bytes) -> bool:
        """Send a piece of sound straight, if it can; return whether it was."""
        through, self._next_is_barred = self._next_is_barred, False
        if through or self._direct is None or self._channel is None:
            return False
        return not (self._waiting or self._frame) and self._direct.send(frame)

    def _send_held_on_loop(self) -> None:
        with self._news:
            self._timer_runs = False
            self._send_held()

    def _send_held(self) -> None:
        """Send the supervisor the sound that has gone straight."""
        held, self._held, self._held_s = self._held, [], 0.0
        if held:
            self._put(b"".join(held))

    def _put(self, frames: bytes) -> None:
        if self._channel is None or self._waiting or self._frame or AT_ONCE is None:
            for frame in split(frames):
                self._wait(frame)
        else:
            self._begin(frames)
            self._send_rest()
        self._wake()

    def _wait(self, frame: bytes) -> None:
        self._waiting.append(frame)
        if tag_of(frame) == _SOUND:
            self._sound_s += _seconds(frame)
            while self._sound_s > _MAX_SOUND_S:
                self._drop_oldest_sound()

    def _drop_oldest_sound(self) -> None:
        oldest = next(frame for frame in self._waiting if tag_of(frame) == _SOUND)
        self._waiting.remove(oldest)
        self._sound_s -= _seconds(oldest)
        self._dropped_s += _seconds(oldest)

    def attach(self, channel: Channel) -> None:
        """Send to this supervisor from now on, first what is not confirmed."""
        with self._news:
            self._interrupt()
            self._waiting.extendleft(frame for _, frame in reversed(self._sent))
            self._sent_count -= len(self._sent)
            self._sent.clear()
            self._asked = False
            self._channel = channel
            self._report_drops()
            self._wake()

    def _report_drops(self) -> None:
        if self._dropped_s:
            lost_ms, self._dropped_s = round(self._dropped_s * 1000), 0.0
            lost = AudioLost("microphone", lost_ms, "no supervisor took it in time")
            self._waiting.append(encode(lost))
            self._count += 1

    def detach(self) -> None:
        """Keep what comes: the supervisor has ended."""
        with self._news:
            self._interrupt()
            self._channel = None

    def _interrupt(self) -> None:
        """Stop sending what is in hand: the supervisor is gone. A command is kept anyway."""
        if self._frame and tag_of(self._frame) == _SOUND:
            for frame in reversed(list(split(self._frame))):
                self._waiting.appendleft(frame)
                self._sound_s += _seconds(frame)
        self._frame, self._done = b"", 0

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
            self._wake()

    def wait_confirmed(self, timeout_s: float) -> bool:
        """Wait until all commands put in so far are confirmed; return whether they are."""
        with self._news:
            number = self._count
            done = self._news.wait_for(lambda: self._confirmed >= number or self._closed, timeout_s)
            return done and self._confirmed >= number

    # -- sending what waits -------------------------------------------------------------------

    def join(self, watch: LoopEnd, direct: DirectEnd | None = None) -> None:
        """Have an event loop send what waits; `run` ends. Call it on the loop's thread.

        Args:
            watch: Has the loop do so.
            direct: Sends straight; None: nothing does.
        """
        with self._news:
            self._watch, self._called = watch, False
            self._direct, self._timer_runs = direct, False
            self._doubtful_until_s = time.monotonic() + _DOUBT_S
            self._news.notify_all()
            self._wake()

    def leave(self) -> None:
        """Have a thread send what waits from now on, in `run`; from any thread."""
        with self._news:
            self._watch = self._direct = None
            self._send_held()

    def run(self) -> None:
        """Send what waits until `close` or `join`."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._is_served() or self._has_work())
                channel = self._channel
                if self._is_served():
                    return
                if AT_ONCE is not None:
                    taken = self._send_waiting()
                elif not self._frame:
                    self._begin(self._next())
            if channel is None:
                continue
            if AT_ONCE is None:
                self._send_blocking(channel)
            elif not taken:
                with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile
                    select.select([], [channel], [], _FULL_S)

    def _send_blocking(self, channel: Channel) -> None:
        try:
            channel.write_frame(self._frame)
        except OSError:
            with self._news:
                if self._channel is channel:
                    self._interrupt()
                    self._channel = None
        else:
            with self._news:
                if self._channel is channel:
                    self._frame = b""

    def _is_served(self) -> bool:
        return self._closed or self._watch is not None

    def _has_work(self) -> bool:
        if self._channel is None:
            return False
        asks = bool(self._sent) and not self._asked
        return asks or bool(self._waiting or self._frame or self._dropped_s)

    def _wake(self) -> None:
        """Have what waits sent; with the lock held."""
        if not self._has_work():
            return
        if self._watch is None:
            self._news.notify_all()
        elif not self._called:
            self._called = True
            self._watch.call(self._send_on_loop)

    def _send_on_loop(self) -> None:
        """Send what waits; while the socket is full, the loop calls this when it takes more."""
        with self._news:
            if self._watch is None:
                return
            taken = self._send_waiting()
            self._called = not taken
            self._watch.when_writable(None if taken else self._send_on_loop)

    def _send_waiting(self) -> bool:
        """Send what waits, and ask for confirmation; return False if the socket is full."""
        while self._channel is not None and self._has_work():
            if not self._frame:
                self._begin(self._next())
            if not self._send_rest():
                return self._channel is None
        return True

    def _next(self) -> bytes:
        if not self._waiting:
            self._report_drops()
        if not self._waiting:
            self._asked = True
            return encode(Confirm(self._sent_count))
        frame = self._waiting.popleft()
        if tag_of(frame) == _SOUND:
            self._sound_s -= _seconds(frame)
        return frame

    def _begin(self, frame: bytes) -> None:
        self._frame, self._done = frame, 0
        if tag_of(frame) not in _PASSING:
            self._sent_count += 1
            self._sent.append((self._sent_count, frame))

    def _send_rest(self) -> bool:
        """Send the frame in hand; return False if the socket is full or the supervisor gone."""
        assert self._channel is not None
        try:
            while self._done < len(self._frame):
                self._done += self._channel.send_at_once(self._frame, self._done)
        except BlockingIOError:
            return False
        except OSError:
            self._interrupt()
            self._channel = None
            return False
        self._frame, self._done = b"", 0
        return True


def _seconds(frame: bytes) -> float:
    """Return the length of a block of sound."""
    sound = decode(frame)
    assert isinstance(sound, ProgramCapture)
    return _length_s(len(sound.pcm), sound.sample_rate)


def _length_s(size: int, rate: int) -> float:
    """Return the length of so many bytes; the microphone reports a rate that cannot be."""
    return size / 2 / max(1, rate)
