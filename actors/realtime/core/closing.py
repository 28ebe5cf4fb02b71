"""When the conversation is over."""

from __future__ import annotations

import msgspec

from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context
from actors.realtime.core.link import Link
from actors.realtime.core.state import Ending, InputEnd, Saved
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
"""After `EndConversation`, at most so much is waited for the farewell."""
PROMPT_NS = 4 * _NS
"""So long the user has to answer what is said into the silence; the next of it comes after 5 s."""
INPUT_END_NS = 30 * _NS
"""After `CaptureEnded`, at most so much silence is sent."""
_MARGIN_NS = _NS
_EAGERNESS_S = {"low": 8, "medium": 4, "auto": 4, "high": 2}
"""How long semantic turn detection waits at most, as documented."""


class Closing:
    """Ends the conversation once that was requested and nothing is under way any more."""

    def __init__(self, context: Context, user: User, calls: Calls, link: Link) -> None:
        self._context = context
        self._user = user
        self._calls = calls
        self._link = link

    def end(self, message: EndConversation, now: int) -> None:
        """Record that the conversation is to end after the current answer."""
        if self._context.saved.ending is None:
            self._context.saved.ending = Ending(message.reason, now + FAREWELL_NS)

    def capture_ended(self, message: CaptureEnded, now: int) -> None:
        """Record that the input has ended."""
        if self._context.saved.input_end is None:
            self._context.saved.input_end = InputEnd(message.last_sample, now)
            self._user.talking.input_ended(message.last_sample, now)

    def tick(self, now: int) -> None:
        """Publish the end of the conversation when it has come."""
        context = self._context
        reason = _over(context.saved, context.settings, self._facts(now), now)
        if reason is None:
            return
        context.finished = True
        if reason == END_OF_INPUT and not context.saved.connected:
            why = self._link.outage.trouble
            context.publish(FatalError(f"cannot reach {context.server}: {why}"))
        else:
            context.publish(ConversationOver(reason))

    def deadlines(self, now: int) -> list[int]:
        """Return the times at which `tick` may find the conversation over."""
        return _deadlines(self._context.saved, self._context.settings, self._facts(now))

    def is_quiet(self, now: int) -> bool:
        """Return whether nothing is under way, so that the standby session can be swapped in."""
        facts = self._facts(now)
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
    """How things stand."""

    live_since: int | None
    """Since when there is a working session with the server; None: there is none."""
    busy: bool
    """An answer, speech, a tool call or a text of speech is under way."""
    drained_at: int | None
    """When what is played counts as played; None: nothing is."""
    next_sample: int
    """The first sample of the session that the server has not been sent, if it was to be."""


def _silence_ns(settings: Settings) -> int:
    """Return how much silence lets the server's turn detection find the end of speech."""
    vad = settings.turn_detection
    if vad is None:
        return 0
    if isinstance(vad, SemanticVad):
        return _EAGERNESS_S[vad.eagerness] * _NS
    return vad.silence_duration_ms * 1_000_000


def _over(saved: Saved, settings: Settings, facts: _Facts, now: int) -> str | None:
    """Return why the conversation is over; None: it is not.

    - `EndConversation`: what was being said has been played, or 10 s have passed.
    - `CaptureEnded`: the server was sent silence for as long as it needs to find the end of
      speech, and a second more; nothing is under way and everything has been played. At most 30 s
      of silence are sent; then only an answer that is still being played is waited for.
    - Nobody has spoken for `Settings.inactivity_timeout_s`, and nothing is under way. What the
      assistant says because the user is silent (`ServerVad.idle_timeout_ms`) does not count, but
      the user has 4 s to answer it.
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
    """Return the times at which `_over` may say something else."""
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
    if saved.input_end is None or facts.live_since is None:
        return None
    return max(saved.input_end.at_ns, facts.live_since) + _silence_ns(settings) + _MARGIN_NS


def _input_was_heard(saved: Saved, settings: Settings, facts: _Facts, now: int) -> bool:
    heard_at = _input_heard_at(saved, settings, facts)
    if saved.input_end is None or heard_at is None or now < heard_at:
        return False
    needed = (_silence_ns(settings) + _MARGIN_NS) * SAMPLE_RATE // _NS
    return facts.next_sample >= saved.input_end.last_sample + needed


def _quiet_until(saved: Saved, settings: Settings, facts: _Facts) -> int | None:
    if settings.inactivity_timeout_s is None or facts.live_since is None:
        return None
    quiet = saved.quiet_since_ns + int(settings.inactivity_timeout_s * _NS)
    return quiet if saved.prompted_ns is None else max(quiet, saved.prompted_ns + PROMPT_NS)
