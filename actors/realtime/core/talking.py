"""Push-to-talk: which of what is captured is a turn, where it begins and where it ends."""

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
"""The API takes no turn that is shorter; a key that is pressed for less was touched by accident."""
TAIL_NS = _NS
"""How long the sound from before the key was released may take to arrive."""


class Talking:
    """The turns of a user who says when they begin and end (``turn_detection`` is None).

    A turn is a stretch of the session timeline, from a moment before the key was pressed (the
    pre-roll) to its release. Only its sound is appended, then it is committed. Until the server
    has confirmed that, it is in `Saved.talks`: another connection, or another process, is sent all
    of it again, in order. What was captured before a turn began comes from the microphone, which is
    asked to say it again (`ReplayCapture`).

    https://platform.openai.com/docs/guides/realtime-conversations#push-to-talk
    """

    def __init__(self, context: Context, interrupt: Callable[[int], None], epoch_ns: int) -> None:
        self._context = context
        self._interrupt = interrupt
        self._epoch_ns = epoch_ns
        self._session = -1
        """Number of the session with the server that is sent sound; -1: none is yet."""
        self._committed = 0
        """Turns, the first of `Saved.talks`, of which the server was told that they are whole."""
        self._appended = 0
        """Samples of the turn after these that the server was sent."""
        self._tail_by = 0

    @property
    def is_on(self) -> bool:
        """Tell whether the user says when turns begin and end."""
        return self._context.settings.turn_detection is None

    @property
    def is_busy(self) -> bool:
        """Tell whether there is a turn that the server has not confirmed."""
        return bool(self._context.saved.talks)

    def is_talking(self) -> bool:
        """Tell whether there is sound of a turn that the server has not been sent."""
        return self._current() is not None

    # -- the key ------------------------------------------------------------------------------

    def start(self, message: StartTalking, now: int) -> None:
        """Begin a turn, and stop what is being said; the same again does nothing."""
        context, talks = self._context, self._context.saved.talks
        if not self.is_on:
            context.publish(Notice("there is no push-to-talk: turn detection is switched on"))
            return
        if talks and talks[-1].last_sample is None:
            return
        self._interrupt(now)
        if self._is_live() and not self.is_talking():
            context.send(wire.Clear(context.event_id("clear")))  # there may be sound of before
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
        """End the turn: it is committed when all its sound has come."""
        self._finish(self._sample_at(message.at_ns or now), now, respond=message.respond)

    def input_ended(self, last_sample: int, now: int) -> None:
        """End the turn, as nothing more will come."""
        self._finish(last_sample, now, respond=True)

    def _end(self) -> int:
        """Return where the last turn ended: its sound is no pre-roll of another."""
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
        # What was sent already is part of it.
        talk.last_sample = max(at, talk.first_sample, sent if self._appended else 0)
        talk.respond = respond
        self._tail_by = now + TAIL_NS
        context.activity.touch(now)
        if self._is_live() and context.capture.replay_by is None:
            self.take(b"", context.capture.newest_sample, now)

    # -- sound --------------------------------------------------------------------------------

    def take(self, pcm: bytes, first_sample: int, now: int) -> None:
        """Append what of the sound belongs to turns; nothing that comes later lies before it."""
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
            context.capture.timeline.rewind(talk.first_sample)  # it may be the next one's pre-roll
            context.publish(UserSpeechStopped("", talk.last_sample))
        else:
            self._committed += 1
            context.send(wire.Commit(context.event_id("commit")))
            if talk.respond:
                context.responses.want(Ask())
        context.activity.touch(now)

    # -- what the server says -----------------------------------------------------------------

    def confirmed(self, item_id: str) -> Talk | None:
        """Take note that the server has made an item of a turn. None: it is none of ours."""
        if not self._committed:
            return None
        talk = self._drop_first()
        self._context.publish(UserSpeechStopped(item_id, talk.last_sample or 0))
        return talk

    def refused(self) -> None:
        """Take note that the server has not made an item of it."""
        if self._committed:
            self._drop_first()

    def _drop_first(self) -> Talk:
        self._committed -= 1
        return self._context.saved.talks.pop(0)

    # -- how it stands ------------------------------------------------------------------------

    def first_sample(self) -> int | None:
        """Return where the first turn begins that the server has not confirmed."""
        talks = self._context.saved.talks
        return talks[0].first_sample if talks else None

    def restored(self, again: list[UnansweredTurn], now: int) -> int | None:
        """Begin a new session with the server: it hears these again, and what is not confirmed.

        With turn detection there are none of either. Return the sample from which it hears; None:
        nothing has to be heard.
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
        """Leave the sound that the server has to its turn detection."""
        del self._context.saved.talks[self._committed :]
        self._appended = 0

    def tick(self, now: int) -> None:
        """Commit a turn whose last sound does not come."""
        talk = self._current()
        if talk is None or talk.last_sample is None or not self._is_live() or now < self._tail_by:
            return
        talk.last_sample = max(talk.first_sample, self._context.capture.timeline.next_sample)
        self._commit(talk, now)

    def deadline(self) -> int:
        """Return when something of this changes by itself."""
        return self._tail_by

    def _is_live(self) -> bool:
        return self._context.told and self._session == self._context.session

    def _current(self) -> Talk | None:
        """Return the turn whose sound is, or will be, appended."""
        talks = self._context.saved.talks
        return talks[self._committed] if len(talks) > self._committed else None

    def _from_sample(self, first: int) -> int:
        """Return from where on sound is needed, if the last turn begins there."""
        current = self._current()
        if current is None or current.first_sample >= first:
            return first
        return max(current.first_sample, self._context.capture.timeline.next_sample)

    def _sample_at(self, at_ns: int) -> int:
        """Return what was being captured at a time."""
        capture = self._context.capture
        since_ns = at_ns - (capture.newest_ns or self._epoch_ns)
        return max(0, capture.newest_sample + since_ns * SAMPLES_PER_MS // 1_000_000)
