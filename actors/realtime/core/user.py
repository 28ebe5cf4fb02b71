"""The user's turns: speech that the server detects, and its transcripts."""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from actors.realtime import wire
from actors.realtime.core import errors, restore, session
from actors.realtime.core.context import Context, LinkPhase
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
"""If no audio was appended for this long, speech that has begun blocks nothing any more."""
TRANSCRIPT_NS = 5 * _NS
"""How long the end of the conversation waits for a transcript."""
LATE_TRANSCRIPT_NS = 15 * _NS
"""How long the swap to the standby session waits for a transcript, which the swap would lose."""
SPEECH_DUE_NS = 3 * _NS
"""How long a new session may take to detect the speech that was sent again. Until then no response
is requested, so that this speech is answered first."""
_UNTRANSCRIBED = 20
"""At most this many items of speech are remembered as waiting for their transcript."""


class _SpokenTurn(msgspec.Struct):
    item_id: str
    first_sample: int
    last_sample: int = 0
    stopped_ns: int | None = None


class User:
    """The user's speech. `Talking` handles push-to-talk, `Typed` typed turns."""

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
        """Id of the silent item that the server is about to commit; see `stayed_silent`."""

    # -- the server's voice activity detection ------------------------------------------------

    def speech_started(self, event: wire.SpeechStarted, now: int) -> None:
        """Publish that speech has begun; interrupt or pause the assistant if the settings say so.

        Without ``interrupt_response`` the server does not interrupt either. For a server that does
        not name the position, speech begins now.
        """
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
        """Publish that speech has stopped; the server commits it next."""
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
        """Return the item of the current speech. Some servers name it only when it has stopped."""
        if self._speech is None:
            return item_id
        if not item_id:
            return self._speech.item_id
        if not self._speech.item_id:
            self._speech.item_id = item_id
            self._doubts.name("", item_id)
        return item_id

    def stayed_silent(self, event: wire.TimeoutTriggered, now: int) -> None:
        """Record that the server is about to commit silence because nobody has spoken."""
        self._silent = event.item_id

    def committed(self, event: wire.Committed, now: int) -> None:
        """Handle an item that the server has made of speech: a turn, a doubt, or silence."""
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
        context.saved.hears_again = False
        first = speech.first_sample
        last = max(first, speech.last_sample or end)
        context.chain.note(event.item_id, event.previous_item_id)
        turn = UnansweredTurn(event.item_id, True, first, last, wanted=self._is_answered(talk))
        doubt = self._doubts.get(event.item_id)
        if doubt is None:
            self._publish_turn(turn, now, by_key=talk is not None)
        else:
            self._doubts.committed(doubt, turn, awaits_text=self._awaits_text(turn), now=now)
        context.activity.touch(now)

    def _awaits_text(self, turn: UnansweredTurn) -> bool:
        context = self._context
        return context.settings.transcription_model is not None and turn.item_id not in context.done

    def _is_answered(self, talk: Talk | None) -> bool:
        """Return whether a turn is answered without a request of the program."""
        if talk is not None:
            return talk.respond
        return session.answers_each_turn(self._context.settings)

    def _publish_turn(self, turn: UnansweredTurn, now: int, *, by_key: bool = False) -> None:
        """Publish a new turn, and have it answered. ``by_key``: whether it is push-to-talk."""
        context, saved, item_id = self._context, self._context.saved, turn.item_id
        before = context.chain.previous(item_id)
        expected = context.settings.transcription_model is not None
        first, last = turn.first_sample, turn.last_sample
        context.publish(UserItem(item_id, before, "", True, expected, first, last))
        if self._awaits_text(turn):
            saved.untranscribed = [*saved.untranscribed[1 - _UNTRANSCRIBED :], item_id]
        context.turns.keep(turn)
        if turn.wanted:
            context.latency.asked(last, now)
        if turn.wanted and not by_key:  # `Talking` requests the response to push-to-talk
            self._have_answered(now)
        self._committed_ns = now

    def _have_answered(self, now: int) -> None:
        """Request a response or, if the server's turn detection begins one itself, expect it."""
        responses = self._context.responses
        if session.confirms(self._context.settings):
            responses.want(Ask())
        else:
            responses.expect(now)

    def _commit_silence(self, event: wire.Committed, now: int) -> None:
        """Handle committed silence: it is not a turn, but the server answers it."""
        context, item_id = self._context, event.item_id
        self._silent = ""
        context.done[item_id] = True  # so that its transcript is not published
        context.chain.note(item_id, event.previous_item_id)
        context.chain.drop(item_id)
        self._have_answered(now)
        context.activity.prompts(now)

    def transcribed(self, event: wire.TranscriptionCompleted, now: int) -> None:
        """Publish the transcript of speech."""
        if event.transcript is None:
            self.not_transcribed(wire.TranscriptionFailed(event.item_id), now)
            return
        self._doubts.note_text(event.item_id, event.transcript, final=True)
        self._settle(now)
        self._publish_transcript(UserTranscript(event.item_id, event.transcript))
        self._context.turns.transcribed(event.item_id)

    def not_transcribed(self, event: wire.TranscriptionFailed, now: int) -> None:
        """Publish that there will be no transcript, and why."""
        self._doubts.note_text(event.item_id, "", final=True)
        self._settle(now)
        error = event.error
        why = (error.message if error else None) or errors.code_of(error) or "no transcript"
        self._publish_transcript(UserTranscript(event.item_id, "", why))

    def heard_in_part(self, event: wire.TranscriptionDelta, now: int) -> None:
        """Record a piece of a transcript: speech that has words may decide a doubt."""
        self._doubts.note_text(event.item_id, event.delta or "", final=False)

    def texts_lost(self, known: Container[str], awaited: Iterable[str]) -> None:
        """Publish that the missing transcripts of a lost session will not come.

        Args:
            known: Ids of items that have a text in history, or whose speech is heard again.
            awaited: Ids of further items whose text history may await.
        """
        for item_id in dict.fromkeys([*self._context.saved.untranscribed, *awaited]):
            if item_id not in known:
                self._context.publish(UserTranscript(item_id, "", "the connection was lost"))
        self._context.saved.untranscribed = []

    # -- speech in doubt ----------------------------------------------------------------------

    def hear(self, pcm: bytes, now: int) -> bool:
        """Measure a captured block. Return whether it may decide a doubt."""
        return self._doubts.hear(pcm, now)

    def _settle(self, now: int) -> None:
        """Act on the doubts that can be decided, or whose pause has lasted long enough."""
        for doubt, verdict in self._doubts.due(now):
            match verdict:
                case Verdict.SPEECH:
                    self._doubts.close(doubt)
                    self._doubts.release()
                    self._interruption.by_speech(now)
                    if doubt.turn is not None:
                        self._publish_turn(doubt.turn, now)
                case Verdict.NOISE:
                    self._doubts.close(doubt)
                    self._forget(doubt)
                case Verdict.RESUME:
                    doubt.holds = False
                    # What was said so far no longer counts: further speech must be enough alone.
                    doubt.measure.voiced_ms = 0
            if not self._doubts.holding():
                self._interruption.resume(now)

    def _forget(self, doubt: Doubt) -> None:
        """Remove an item that is noise from the server and from the item order.

        It was never published to history.
        """
        context, turn = self._context, doubt.turn
        context.log("debug", "a sound was no interruption", voiced_ms=doubt.measure.voiced_ms)
        if turn is None:
            return
        context.done[turn.item_id] = True  # so that its transcript is not published
        context.leave_out(turn.item_id)
        if context.has_conversation:
            event_id = context.event_id(f"delete {turn.item_id}")
            context.send(wire.ItemDelete(turn.item_id, event_id))
        context.turns.noise(turn)

    def leave_out_doubts(self) -> None:
        """Remove the items in doubt from the item order: the next session hears them again."""
        for doubt in self._doubts:
            if doubt.turn is not None:
                self._context.leave_out(doubt.turn.item_id)

    def _publish_transcript(self, transcript: UserTranscript) -> None:
        context, item_id = self._context, transcript.item_id
        if item_id in context.done:
            return
        context.done[item_id] = True
        context.publish(transcript)
        if item_id in context.saved.untranscribed:
            context.saved.untranscribed.remove(item_id)

    def interrupted(self, now: int) -> None:
        """Interrupt the assistant because the program asks for it."""
        self._doubts.release()
        self._context.latency.asked(None)
        self._interruption.by_program(None, now)

    # -- state --------------------------------------------------------------------------------

    def speech_from(self) -> int | None:
        """Return the sample at which speech began that is not a turn yet; None: there is none."""
        if self.talking.is_on:
            return self.talking.first_sample()
        samples = [doubt.first_sample for doubt in self._doubts]
        if self._speech is not None:
            samples.append(self._speech.first_sample)
        return min(samples, default=None)

    def restored(self, plan: restore.Plan, now: int) -> int | None:
        """Begin a new server session.

        Returns:
            The sample from which it hears the user; None: with push-to-talk, while nobody talks.
        """
        self._speech, self._silent, self._speech_due_by = None, "", 0
        self._doubts.clear()
        self._interruption.orphaned(now)
        talk_from = self.talking.restored(plan.again, now)
        if self.talking.is_on:
            return talk_from
        saved = self._context.saved
        saved.hears_again |= plan.hears_speech
        if saved.hears_again and saved.repeats <= restore.MAX_REPEATS:
            self._speech_due_by = now + SPEECH_DUE_NS
        return plan.from_sample

    def turn_detection_changed(self) -> None:
        """Drop what the previous kind of turn-taking had begun."""
        self._speech, self._speech_due_by = None, 0
        if not self.talking.is_on:
            self.talking.switched_off()

    def is_speaking(self, now: int) -> bool:
        """Return whether the user speaks, or is about to: speech that is sent again is awaited."""
        if now < self._speech_due_by or self.talking.is_talking():
            return True
        return self._speech is not None and now < self._context.capture.appended_ns + STILL_NS

    def is_in_doubt(self) -> bool:
        """Return whether a doubt is open."""
        return any(True for _ in self._doubts)

    def is_unheard(self, now: int, patience_ns: int = TRANSCRIPT_NS) -> bool:
        """Return whether a transcript may still come, at most ``patience_ns`` after the commit."""
        return bool(self._context.saved.untranscribed) and now < self._committed_ns + patience_ns

    def tick(self, now: int) -> None:
        """Do what is due; forget speech that was not committed in time."""
        self._settle(now)
        self.talking.tick(now)
        speech = self._speech
        if speech and speech.stopped_ns is not None and now >= speech.stopped_ns + COMMIT_NS:
            self._speech = speech = None
        is_live = self._context.phase is LinkPhase.LIVE
        if is_live and speech is None and now >= self._speech_due_by:
            self._context.saved.hears_again = False

    def deadlines(self) -> list[int]:
        """Return when the state changes without an event."""
        times = [self._speech_due_by, self._committed_ns + TRANSCRIPT_NS]
        times.append(self._committed_ns + LATE_TRANSCRIPT_NS)
        times.append(self.talking.deadline())
        times += self._doubts.deadlines()
        if self._speech is not None:
            times.append(self._context.capture.appended_ns + STILL_NS)
            if self._speech.stopped_ns is not None:
                times.append(self._speech.stopped_ns + COMMIT_NS)
        return times
