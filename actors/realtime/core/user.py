"""What the user says and types, and what text it is heard as."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from actors.realtime import wire
from actors.realtime.core import errors, restore, session
from actors.realtime.core.context import Context
from actors.realtime.core.doubts import COMMIT_NS, Doubt, Doubts, Verdict
from actors.realtime.core.duplex import Duplex
from actors.realtime.core.hearing import Hearing
from actors.realtime.core.interruption import Interruption
from actors.realtime.core.state import Ask, Talk, UnansweredTurn
from actors.realtime.core.talking import Talking
from actors.realtime.core.typed import Typed
from messages import (
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
)

__all__ = ["User"]

_NS = 1_000_000_000
STILL_NS = 3 * _NS
"""Without captured sound for so long, speech that has begun is not waited for."""
TRANSCRIPT_NS = 5 * _NS
"""The end of the conversation waits so long for the text of speech."""
LATE_TRANSCRIPT_NS = 15 * _NS
"""The next session, for which there is time, waits so long: with this one the text is lost."""
SPEECH_DUE_NS = 3 * _NS
"""Speech that is sent again is answered first, if it is found within this time."""
_UNTRANSCRIBED = 20
"""At most this many items of speech are known to wait for their transcript."""


class _SpokenTurn(msgspec.Struct):
    item_id: str
    first_sample: int
    last_sample: int = 0
    stopped_ns: int | None = None


class User:
    """The speech of the user. `Talking` has push-to-talk, `Typed` what is typed."""

    def __init__(
        self, context: Context, interruption: Interruption, duplex: Duplex, epoch_ns: int
    ) -> None:
        self.typed = Typed(context, self.interrupted)
        self.talking = Talking(context, self.interrupted, epoch_ns)
        self.hearing = Hearing(context, duplex, self.talking)
        self._context = context
        self._interruption = interruption
        self._doubts = Doubts(context)
        self._speech: _SpokenTurn | None = None
        self._committed_ns = 0
        self._speech_due_by = 0
        self._silent = ""
        """Item id of silence that the server commits because nobody has spoken."""

    # -- the server's voice activity detection ------------------------------------------------

    def speech_started(self, event: wire.SpeechStarted, now: int) -> None:
        """Interrupt what is being said, if speech does; where it is in time is told."""
        context = self._context
        vad = context.settings.turn_detection
        first = context.capture.timeline.session_sample(event.audio_start_ms)
        if session.confirms(context.settings) and self._interruption.is_something_said():
            self._interruption.pause(now)
            self._doubts.open(event.item_id, first, now)
        elif vad is None or vad.interrupt_response:
            self._interruption.by_speech(now)
        self._speech = _SpokenTurn(event.item_id, first)
        self._speech_due_by = 0
        context.publish(UserSpeechStarted(event.item_id, first))
        context.activity.touch(now)

    def speech_stopped(self, event: wire.SpeechStopped, now: int) -> None:
        """Take note that speech has stopped; it is committed next."""
        context = self._context
        last = context.capture.timeline.session_sample(event.audio_end_ms)
        item_id = self._adopt(event.item_id)
        if self._speech is None or self._speech.item_id != item_id:
            self._speech = _SpokenTurn(item_id, last)
        self._speech.last_sample, self._speech.stopped_ns = last, now
        self._doubts.stopped(item_id, last, now)
        context.publish(UserSpeechStopped(item_id, last))
        context.activity.touch(now)

    def _adopt(self, item_id: str) -> str:
        """Return the item of the speech under way, which not every server names from the start."""
        if self._speech is None:
            return item_id
        if not item_id:
            return self._speech.item_id
        if not self._speech.item_id:
            self._speech.item_id = item_id
            self._doubts.name("", item_id)
        return item_id

    def stayed_silent(self, event: wire.TimeoutTriggered, now: int) -> None:
        """Take note that the server is about to commit silence: nobody is interrupted."""
        self._silent = event.item_id

    def committed(self, event: wire.Committed, now: int) -> None:
        """Take note that the server has made an item of speech."""
        context = self._context
        if event.item_id == self._silent:
            self._commit_silence(event, now)
            return
        self._adopt(event.item_id)
        end = context.capture.timeline.next_sample
        speech, talk = self._speech, self.talking.confirmed(event.item_id)
        if talk is not None:
            speech = _SpokenTurn(event.item_id, talk.first_sample, talk.last_sample or end)
        elif speech is None or speech.item_id != event.item_id:
            speech = _SpokenTurn(event.item_id, end, end)
        else:
            self._speech = None
        first = speech.first_sample
        last = max(first, speech.last_sample or end)
        context.chain.note(event.item_id, event.previous_item_id)
        turn = UnansweredTurn(event.item_id, True, first, last, wanted=self._is_answered(talk))
        doubt = self._doubts.get(event.item_id)
        if doubt is None:
            self._take(turn, now, by_key=talk is not None)
        else:
            self._doubts.committed(doubt, turn, awaits_text=self._awaits_text(turn), now=now)
        context.activity.touch(now)

    def _awaits_text(self, turn: UnansweredTurn) -> bool:
        context = self._context
        return context.settings.transcription_model is not None and turn.item_id not in context.done

    def _is_answered(self, talk: Talk | None) -> bool:
        """Tell whether a turn is answered without the program asking for it."""
        if talk is not None:
            return talk.respond
        vad = self._context.settings.turn_detection
        return vad is None or vad.create_response

    def _take(self, turn: UnansweredTurn, now: int, *, by_key: bool = False) -> None:
        """Tell history that there is a new turn, and see that it is answered."""
        context, saved, item_id = self._context, self._context.saved, turn.item_id
        before = context.chain.previous(item_id)
        expected = context.settings.transcription_model is not None
        first, last = turn.first_sample, turn.last_sample
        context.publish(UserItem(item_id, before, "", True, expected, first, last))
        if self._awaits_text(turn):
            saved.untranscribed = [*saved.untranscribed[1 - _UNTRANSCRIBED :], item_id]
        context.turns.keep(turn)
        if turn.wanted and not by_key:  # or it was asked for when it was committed
            self._have_answered(now)
        self._committed_ns = now

    def _have_answered(self, now: int) -> None:
        """Have what was committed answered: by the server itself or, if it only tells, by us."""
        responses = self._context.responses
        if session.confirms(self._context.settings):
            responses.want(Ask())
        else:
            responses.expect(now)

    def _commit_silence(self, event: wire.Committed, now: int) -> None:
        """Nobody has said it, so it is no turn; the assistant speaks all the same."""
        context, item_id = self._context, event.item_id
        self._silent = ""
        context.done[item_id] = True  # its transcript is nobody's
        context.chain.note(item_id, event.previous_item_id)
        context.chain.drop(item_id)
        self._have_answered(now)
        context.activity.prompts(now)

    def transcribed(self, event: wire.TranscriptionCompleted, now: int) -> None:
        """Tell history what speech was heard as."""
        if event.transcript is None:
            self.not_transcribed(wire.TranscriptionFailed(event.item_id), now)
            return
        self._doubts.told(event.item_id, event.transcript, final=True)
        self._settle(now)
        self._tell(UserTranscript(event.item_id, event.transcript))
        self._context.turns.transcribed(event.item_id)

    def not_transcribed(self, event: wire.TranscriptionFailed, now: int) -> None:
        """Tell history that there will be no text."""
        self._doubts.told(event.item_id, "", final=True)
        self._settle(now)
        error = event.error
        why = (error.message if error else None) or errors.code_of(error) or "no transcript"
        self._tell(UserTranscript(event.item_id, "", why))

    def heard_in_part(self, event: wire.TranscriptionDelta, now: int) -> None:
        """Take note that speech has a text, whatever it will be."""
        self._doubts.told(event.item_id, event.delta or "", final=False)

    def texts_lost(self, known: Container[str]) -> None:
        """Publish that transcripts which have not come will not come.

        Args:
            known: item ids of speech that has a text, or is heard again.
        """
        for item_id in self._context.saved.untranscribed:
            if item_id not in known:
                self._context.publish(UserTranscript(item_id, "", "the connection was lost"))
        self._context.saved.untranscribed = []

    # -- speech that may be none --------------------------------------------------------------

    def hear(self, pcm: bytes, now: int) -> bool:
        """Take a captured block. Return whether it may decide something."""
        return self._doubts.hear(pcm, now)

    def _settle(self, now: int) -> None:
        """Decide what can be decided about speech while something was being said."""
        for doubt, verdict in self._doubts.due(now):
            match verdict:
                case Verdict.SPEECH:
                    self._doubts.close(doubt)
                    self._doubts.let_go()
                    self._interruption.by_speech(now)
                    if doubt.turn is not None:
                        self._take(doubt.turn, now)
                case Verdict.NOISE:
                    self._doubts.close(doubt)
                    self._forget(doubt)
                case Verdict.GO_ON:
                    doubt.holds = False
                    doubt.measure.voiced_ms = 0  # what comes now has to be enough by itself
            if not self._doubts.holding():
                self._interruption.resume(now)

    def _forget(self, doubt: Doubt) -> None:
        """Undo an item in which nobody has spoken: neither server nor history have it."""
        context, turn = self._context, doubt.turn
        context.log("debug", "a sound was no interruption", voiced_ms=doubt.measure.voiced_ms)
        if turn is None:
            return
        context.done[turn.item_id] = True  # its transcript is nobody's
        context.leave_out(turn.item_id)
        if context.has_conversation:
            event_id = context.event_id(f"delete {turn.item_id}")
            context.send(wire.ItemDelete(turn.item_id, event_id))
        context.turns.noise(turn)

    def leave_out_doubts(self) -> None:
        """Forget items of which it will not be known whether anybody has spoken.

        The next session hears them again.
        """
        for doubt in self._doubts:
            if doubt.turn is not None:
                self._context.leave_out(doubt.turn.item_id)

    def _tell(self, transcript: UserTranscript) -> None:
        context, item_id = self._context, transcript.item_id
        if item_id in context.done:
            return
        context.done[item_id] = True
        context.publish(transcript)
        if item_id in context.saved.untranscribed:
            context.saved.untranscribed.remove(item_id)

    def interrupted(self, now: int) -> None:
        """Stop what is being said at the wish of the program."""
        self._doubts.let_go()
        self._interruption.by_program(None, now)

    # -- how it stands ------------------------------------------------------------------------

    def speech_from(self) -> int | None:
        """Return where speech began that has not become a turn."""
        if self.talking.is_on:
            return self.talking.first_sample()
        samples = [doubt.first_sample for doubt in self._doubts]
        if self._speech is not None:
            samples.append(self._speech.first_sample)
        return min(samples, default=None)

    def restored(self, plan: restore.Plan, now: int) -> int | None:
        """Begin a new session with the server. Return from which sample on it hears the user.

        None: it does not, as nobody talks.
        """
        self._speech, self._silent, self._speech_due_by = None, "", 0
        self._doubts.clear()
        self._interruption.orphaned(now)
        talk_from = self.talking.restored(plan.again, now)
        if self.talking.is_on:
            return talk_from
        if plan.hears_speech:
            self._speech_due_by = now + SPEECH_DUE_NS
        return plan.from_sample

    def turn_detection_changed(self) -> None:
        """Leave what was begun in the other way of taking turns."""
        self._speech, self._speech_due_by = None, 0
        if not self.talking.is_on:
            self.talking.switched_off()

    def is_speaking(self, now: int) -> bool:
        """Tell whether speech is under way or about to be, which the server answers by itself."""
        if now < self._speech_due_by or self.talking.is_talking():
            return True
        return self._speech is not None and now < self._context.capture.appended_ns + STILL_NS

    def is_in_doubt(self) -> bool:
        """Tell whether it is not yet known whether somebody has spoken."""
        return any(True for _ in self._doubts)

    def is_unheard(self, now: int, patience_ns: int = TRANSCRIPT_NS) -> bool:
        """Tell whether the text of speech may still come."""
        return bool(self._context.saved.untranscribed) and now < self._committed_ns + patience_ns

    def tick(self, now: int) -> None:
        """Decide what is due, and forget speech that was not committed."""
        self._settle(now)
        self.talking.tick(now)
        speech = self._speech
        if speech and speech.stopped_ns is not None and now >= speech.stopped_ns + COMMIT_NS:
            self._speech = None

    def deadlines(self) -> list[int]:
        """Return the times at which something of this changes by itself."""
        times = [self._speech_due_by, self._committed_ns + TRANSCRIPT_NS]
        times.append(self._committed_ns + LATE_TRANSCRIPT_NS)
        times.append(self.talking.deadline())
        times += self._doubts.deadlines()
        if self._speech is not None:
            times.append(self._context.capture.appended_ns + STILL_NS)
            if self._speech.stopped_ns is not None:
                times.append(self._speech.stopped_ns + COMMIT_NS)
        return times
