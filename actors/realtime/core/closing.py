"""The end of the conversation: on request, at the end of the input, or after inactivity."""

from __future__ import annotations

import msgspec

from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context
from actors.realtime.core.link import Link
from actors.realtime.core.state import Ask, Ending, InputEnd, Saved
from actors.realtime.core.user import LATE_TRANSCRIPT_NS, User
from messages import (
    SAMPLE_RATE,
    CaptureEnded,
    ConversationOver,
    EndConversation,
    FatalError,
    SemanticVad,
    Settings,
)

__all__ = ["END_OF_INPUT", "FAREWELL_NS", "INPUT_END_NS", "PROMPT_NS", "Closing"]

_NS = 1_000_000_000
END_OF_INPUT = "end of input"
FAREWELL_NS = 10 * _NS
"""Maximum time between `EndConversation` and the end: for the farewell."""
PROMPT_NS = 4 * _NS
"""Time for the user to answer what the assistant says into the silence. It is shorter than the
5 s after which the server prompts again at the earliest, or the timeout would never be reached."""
INPUT_END_NS = 30 * _NS
"""Maximum length of the silence that is sent after `CaptureEnded`."""
_MARGIN_NS = _NS
"""Silence sent in addition to what the server's turn detection needs."""
_EAGERNESS_S = {"low": 8, "medium": 4, "auto": 4, "high": 2}
"""Maximum silence in seconds before semantic turn detection ends a turn, as documented."""


class Closing:
    """Decides when the conversation is over, and publishes that."""

    def __init__(self, context: Context, user: User, calls: Calls, link: Link) -> None:
        self._context = context
        self._user = user
        self._calls = calls
        self._link = link

    def end(self, message: EndConversation, now: int) -> None:
        """Record a request to end the conversation after the current response."""
        if self._context.saved.ending is None:
            self._context.saved.ending = Ending(message.reason, now + FAREWELL_NS)

    def say_goodbye(self, reason: str, instructions: str, now: int) -> None:
        """Request a farewell after what the assistant is saying, and end the conversation then.

        Args:
            reason: Why the conversation ends.
            instructions: What the farewell is to be.
            now: The time.
        """
        context = self._context
        if context.saved.ending is not None:
            return
        context.responses.want(Ask(extra=(instructions,), tools="none", insists=True))
        said_ns = max(now, context.playback.drained_at() or now)
        context.saved.ending = Ending(reason, said_ns + FAREWELL_NS)

    def capture_ended(self, message: CaptureEnded, now: int) -> None:
        """Record that the input has ended; a push-to-talk turn ends with it."""
        if self._context.saved.input_end is None:
            self._context.saved.input_end = InputEnd(message.last_sample, now)
            self._user.talking.input_ended(message.last_sample, now)

    def tick(self, now: int) -> None:
        """Publish the end of the conversation if it is over."""
        context = self._context
        reason = _over(context.saved, context.settings, self._facts(now), now)
        if reason is None:
            return
        context.finished = True
        # A file as input ends even without a server. That is a failure, not a conversation.
        if reason == END_OF_INPUT and not context.saved.connected:
            why = self._link.outage.trouble
            context.publish(FatalError(f"cannot reach {context.server}: {why}"))
        else:
            context.publish(ConversationOver(reason))

    def deadlines(self, now: int) -> list[int]:
        """Return the times in ns at which `tick` may find the conversation over."""
        return _deadlines(self._context.saved, self._context.settings, self._facts(now))

    def is_quiet(self, now: int) -> bool:
        """Return whether nothing is under way, so that the standby session can be swapped in."""
        facts = self._facts(now)
        # A transcript that is still to come would be lost with the session, and a swap can wait.
        if self._user.is_unheard(now, LATE_TRANSCRIPT_NS):
            return False
        return facts.live_since is not None and not facts.busy and facts.drained_at is None

    def _facts(self, now: int) -> _Facts:
        context = self._context
        busy = (
            context.responses.busy()
            or self._user.is_speaking(now)
            or self._user.is_unheard(now)
            or self._user.is_in_doubt()
            or self._user.talking.is_busy
            or bool(context.saved.calls)
            or self._calls.is_repeating()
            or context.playback.flush_by is not None
        )
        live = self._link.live_ns if context.capture.replay_by is None else None
        drained_at = context.playback.drained_at()
        capture = context.capture
        talking = self._user.talking.is_on
        heard = capture.newest_sample if talking else capture.timeline.next_sample
        return _Facts(live, busy, drained_at, heard)


class _Facts(msgspec.Struct):
    """The facts from which the end of the conversation is decided."""

    live_since: int | None
    """When the current session became live, in ns; None: there is none, or it still hears a
    replay."""
    busy: bool
    """Whether a response, speech, a tool call or a transcript is under way."""
    drained_at: int | None
    """When the audio in the speaker's queue counts as played, in ns; None: the queue is empty."""
    next_sample: int
    """End of the audio that was appended; with push-to-talk, of the audio that was captured."""


def _silence_ns(settings: Settings) -> int:
    """Return the silence in ns after which the server's turn detection ends a turn."""
    vad = settings.turn_detection
    if vad is None:
        return 0
    if isinstance(vad, SemanticVad):
        return _EAGERNESS_S[vad.eagerness] * _NS
    return vad.silence_duration_ms * 1_000_000


def _over(saved: Saved, settings: Settings, facts: _Facts, now: int) -> str | None:
    """Return the reason why the conversation is over; None: it is not over.

    - After `EndConversation`: the current response has been played, or 10 s have passed.
    - After `CaptureEnded`: the server was sent the silence that it needs to detect the end of
      speech, and one more second; nothing is under way and everything has been played. After 30 s
      of silence, only audio that is still playing is waited for.
    - After `Settings.inactivity_timeout_s` without activity, if nothing is under way. What the
      assistant says because the user is silent (`ServerVad.idle_timeout_ms`) does not count as
      activity, but gives the user 4 s to answer.
    """
    silent = facts.drained_at is None
    if saved.ending is not None and (
        now >= saved.ending.deadline_ns or (silent and not facts.busy)
    ):
        return saved.ending.reason
    if saved.input_end is not None and silent:
        if now >= saved.input_end.at_ns + INPUT_END_NS:
            return END_OF_INPUT
        if not facts.busy and _input_was_heard(saved, settings, facts, now):
            return END_OF_INPUT
    quiet = _quiet_until(saved, settings, facts)
    if quiet is not None and silent and not facts.busy and now >= quiet:
        return "inactivity timeout"
    return None


def _deadlines(saved: Saved, settings: Settings, facts: _Facts) -> list[int]:
    """Return the times in ns at which the result of `_over` may change."""
    times = []
    if saved.ending is not None:
        times.append(saved.ending.deadline_ns)
    if saved.input_end is not None:
        times.append(saved.input_end.at_ns + INPUT_END_NS)
        heard = _input_heard_at(saved, settings, facts)
        if heard is not None:
            times.append(heard)
    quiet = _quiet_until(saved, settings, facts)
    if quiet is not None and not facts.busy:
        times.append(quiet)
    return times


def _input_heard_at(saved: Saved, settings: Settings, facts: _Facts) -> int | None:
    """Return when the server can have detected the end of the input; None: it has not ended."""
    if saved.input_end is None or facts.live_since is None:
        return None
    return max(saved.input_end.at_ns, facts.live_since) + _silence_ns(settings) + _MARGIN_NS


def _input_was_heard(saved: Saved, settings: Settings, facts: _Facts, now: int) -> bool:
    """Return whether the server was sent all input and enough silence after it."""
    heard_at = _input_heard_at(saved, settings, facts)
    if saved.input_end is None or heard_at is None or now < heard_at:
        return False
    needed = (_silence_ns(settings) + _MARGIN_NS) * SAMPLE_RATE // _NS
    return facts.next_sample >= saved.input_end.last_sample + needed


def _quiet_until(saved: Saved, settings: Settings, facts: _Facts) -> int | None:
    """Return when the inactivity timeout ends, in ns; None: it does not run."""
    if settings.inactivity_timeout_s is None or facts.live_since is None:
        return None
    quiet = saved.quiet_since_ns + int(settings.inactivity_timeout_s * _NS)
    return quiet if saved.prompted_ns is None else max(quiet, saved.prompted_ns + PROMPT_NS)
