"""Push-to-talk: where a turn begins and ends in the captured audio, and when it is committed."""

from __future__ import annotations

from collections.abc import Callable

from actors.realtime import wire
from actors.realtime.core.context import Context
from actors.realtime.core.restore import GIVEN_UP, MAX_REPEATS
from actors.realtime.core.state import Ask, Talk, UnansweredTurn
from actors.realtime.core.timeline import SAMPLES_PER_MS
from messages import (
    Notice,
    ReplayCapture,
    StartTalking,
    StopTalking,
    UserSpeechStarted,
    UserSpeechStopped,
)

__all__ = ["Talking"]

_NS = 1_000_000_000
SHORTEST = 100 * SAMPLES_PER_MS
"""Minimum length of a turn in samples: the API refuses shorter ones. A key that is held for less
was touched by accident."""
TAIL_NS = _NS
"""After the key is released, maximum time between two blocks of audio captured before that."""


class Talking:
    """The turns of a user who presses a key to speak (``turn_detection`` is None).

    A turn is an interval of the session timeline: from a moment before the key is pressed (the
    pre-roll) to its release. Only the audio of turns is appended; at its end, a turn is committed.
    It stays in `Saved.talks` until the server confirms it, so that a new connection or process can
    send all of it again, in order. The pre-roll has been captured before the key was pressed: the
    microphone is asked to replay it (`ReplayCapture`).

    https://platform.openai.com/docs/guides/realtime-conversations#push-to-talk
    """

    def __init__(self, context: Context, interrupt: Callable[[int], None], epoch_ns: int) -> None:
        self._context = context
        self._interrupt = interrupt
        self._epoch_ns = epoch_ns
        self._session = -1
        """Number of the server session to which audio is appended; -1: none yet."""
        self._committed = 0
        """How many of `Saved.talks`, from the first one, are committed and not confirmed."""
        self._appended = 0
        """Samples of the first turn after these that were appended."""
        self._tail_by = 0
        """When a turn that has ended is committed even if its last audio has not arrived."""

    @property
    def is_on(self) -> bool:
        """Whether push-to-talk is in use."""
        return self._context.settings.turn_detection is None

    @property
    def is_busy(self) -> bool:
        """Whether there is a turn that the server has not confirmed."""
        return bool(self._context.saved.talks)

    def is_talking(self) -> bool:
        """Return whether there is a turn that is not committed."""
        return self._current() is not None

    # -- the key ------------------------------------------------------------------------------

    def start(self, message: StartTalking, now: int) -> None:
        """Begin a turn, and interrupt the assistant. Do nothing if the key is down already."""
        context, talks = self._context, self._context.saved.talks
        if not self.is_on:
            why = "push-to-talk needs turn_detection=None: turn detection is switched on"
            context.publish(Notice(why))
            return
        if talks and talks[-1].last_sample is None:
            return
        self._interrupt(now)
        if self._is_live() and not self.is_talking():
            # Audio may be left in the buffer from before push-to-talk was switched on.
            context.send(wire.Clear(context.event_id("clear")))
        pressed = self._sample_at(message.at_ns or now)
        first = max(self._end(), pressed - context.settings.preroll_ms * SAMPLES_PER_MS)
        talks.append(Talk(first, pressed))
        context.publish(UserSpeechStarted("", first))
        context.activity.touch(now)
        if self._is_live():
            request_id = context.request_id()
            context.capture.reopen(request_id, now)
            context.publish(ReplayCapture(self._from_sample(first), request_id))

    def stop(self, message: StopTalking, now: int) -> None:
        """End the turn. It is committed when all its audio has arrived."""
        self._finish(self._sample_at(message.at_ns or now), now, respond=message.respond)

    def input_ended(self, last_sample: int, now: int) -> None:
        """End the turn because the input has ended."""
        self._finish(last_sample, now, respond=True)

    def _end(self) -> int:
        """Return the end of the last turn, before which no pre-roll may begin."""
        saved = self._context.saved
        ends = [talk.last_sample or 0 for talk in saved.talks]
        ends += [turn.last_sample for turn in saved.turns]
        return max([saved.safe_sample, *ends])

    def _finish(self, at: int, now: int, *, respond: bool) -> None:
        context, talks = self._context, self._context.saved.talks
        if not talks or talks[-1].last_sample is not None:
            return
        talk = talks[-1]
        sent = context.capture.timeline.next_sample if self._current() is talk else 0
        # Live audio is appended without delay, so it may already reach past the release.
        talk.last_sample = max(at, talk.first_sample, sent if self._appended else 0)
        talk.respond = respond
        self._tail_by = now + TAIL_NS
        context.activity.touch(now)
        if self._is_live() and context.capture.replay_by is None:
            self.take(b"", context.capture.newest_sample, now)

    # -- audio --------------------------------------------------------------------------------

    def take(self, pcm: bytes, first_sample: int, now: int) -> None:
        """Append the part of the audio that belongs to turns, and commit turns that it completes.

        Args:
            pcm: audio; empty if only the position is known.
            first_sample: where it begins. Audio that arrives later begins later.
            now: the time.
        """
        end = first_sample + len(pcm) // 2
        while self._is_live() and (talk := self._current()) is not None:
            last = end if talk.last_sample is None else min(end, talk.last_sample)
            begin = max(first_sample, talk.first_sample)
            if begin < last:
                piece = pcm[2 * (begin - first_sample) : 2 * (last - first_sample)]
                new = self._context.capture.append(piece, begin, now)
                if new:
                    self._appended += len(new) // 2
                    self._tail_by = now + TAIL_NS
                    self._context.send(wire.Append(new))
            if talk.last_sample is None or end < talk.last_sample:
                return
            self._commit(talk, now)

    def _commit(self, talk: Talk, now: int) -> None:
        context, saved = self._context, self._context.saved
        assert talk.last_sample is not None
        appended, self._appended = self._appended, 0
        if min(appended, talk.last_sample - talk.pressed_sample) < SHORTEST:
            saved.talks.remove(talk)
            context.send(wire.Clear(context.event_id("clear")))
            # The audio may be pre-roll of the next turn, so it has to be appended again then.
            context.capture.timeline.rewind(talk.first_sample)
            context.publish(UserSpeechStopped("", talk.last_sample))
        else:
            self._committed += 1
            context.send(wire.Commit(context.event_id("commit")))
            if talk.respond:
                context.responses.want(Ask())
        context.activity.touch(now)

    # -- confirmations of the server ----------------------------------------------------------

    def confirmed(self, item_id: str) -> Talk | None:
        """Return the turn of which the server has made an item; None: none was committed."""
        if not self._committed:
            return None
        talk = self._drop_first()
        self._context.publish(UserSpeechStopped(item_id, talk.last_sample or 0))
        return talk

    def refused(self) -> None:
        """Drop the turn whose commit the server has refused."""
        if self._committed:
            self._drop_first()

    def _drop_first(self) -> Talk:
        self._committed -= 1
        return self._context.saved.talks.pop(0)

    # -- state and sessions -------------------------------------------------------------------

    def first_sample(self) -> int | None:
        """Return the start of the first turn that the server has not confirmed; None: none."""
        talks = self._context.saved.talks
        return talks[0].first_sample if talks else None

    def restored(self, again: list[UnansweredTurn], now: int) -> int | None:
        """Begin a new server session, to which unanswered and unconfirmed turns are sent again.

        Args:
            again: confirmed turns without an answer, which the new session has to hear.
            now: the time.

        Returns:
            The sample at which the audio to be sent again begins; None: there is no such turn, as
            always with turn detection.
        """
        context, saved = self._context, self._context.saved
        if not self.is_on:
            saved.talks, again = [], []
        for talk in saved.talks:
            talk.tries += talk.last_sample is not None
        left = [talk for talk in saved.talks if talk.tries <= MAX_REPEATS]
        if len(left) < len(saved.talks):
            context.publish(Notice(GIVEN_UP))
        saved.talks = [
            Talk(turn.first_sample, turn.first_sample, turn.last_sample, turn.wanted)
            for turn in again
        ] + left
        self._session = self._context.session
        self._committed = self._appended = 0
        self._tail_by = now + 2 * TAIL_NS
        return self.first_sample()

    def switched_off(self) -> None:
        """Leave audio that the server has, and that is not committed, to its turn detection."""
        del self._context.saved.talks[self._committed :]
        self._appended = 0

    def tick(self, now: int) -> None:
        """Commit a turn that has ended and whose last audio does not arrive in time."""
        talk = self._current()
        if talk is None or talk.last_sample is None or not self._is_live() or now < self._tail_by:
            return
        talk.last_sample = max(talk.first_sample, self._context.capture.timeline.next_sample)
        self._commit(talk, now)

    def deadline(self) -> int:
        """Return when `tick` may have something to do."""
        return self._tail_by

    def _is_live(self) -> bool:
        return self._context.has_conversation and self._session == self._context.session

    def _current(self) -> Talk | None:
        """Return the first turn that is not committed: the one that audio is appended for."""
        talks = self._context.saved.talks
        return talks[self._committed] if len(talks) > self._committed else None

    def _from_sample(self, first: int) -> int:
        """Return the first sample to replay when a turn begins at sample ``first``.

        An earlier turn that is not committed yet may need audio from before that.
        """
        current = self._current()
        if current is None or current.first_sample >= first:
            return first
        return max(current.first_sample, self._context.capture.timeline.next_sample)

    def _sample_at(self, at_ns: int) -> int:
        """Return the sample that was captured at a time."""
        capture = self._context.capture
        since_ns = at_ns - (capture.newest_ns or self._epoch_ns)
        return max(0, capture.newest_sample + since_ns * SAMPLES_PER_MS // 1_000_000)
