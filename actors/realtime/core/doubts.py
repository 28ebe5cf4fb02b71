"""False interruptions: is detected speech a word or a cough (``interruption="confirmed"``)?

A doubt is open from `speech_started` until there is enough speech or a text (then it is speech), or
until the server has committed it and no text can come any more (then it is noise). It keeps
playback paused only as long as a decision is likely.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from actors.realtime.core.context import Context
from actors.realtime.core.interruption import PAUSE_NS
from actors.realtime.core.state import UnansweredTurn
from actors.realtime.core.timeline import SAMPLES_PER_MS
from actors.realtime.core.voice import ROOM, Measure
from messages import ServerVad

__all__ = ["SPEECH_MS", "Doubt", "Doubts", "Verdict"]

_NS = 1_000_000_000
SPEECH_MS = 400
"""Speech of at least this length is an interruption, whatever its text."""
QUIET_NS = 1 * _NS
"""When nobody was loud for this long, playback resumes, even undecided. The server's own
``silence_duration_ms`` is added."""
HOLD_TEXT_NS = 3 * _NS // 2
"""How long playback stays paused after the commit, to wait for the text."""
TEXT_NS = 5 * _NS
"""A text that comes later than this after the commit does not interrupt any more."""
COMMIT_NS = 2 * _NS
"""How long the server may take to commit speech that has stopped; later, it is not committed."""
MOST_NS = 30 * _NS
"""A doubt whose speech has not stopped after this time is closed as noise."""
LATE_MS = 500
"""How late the server may report the end of speech."""
_DOUBTS = 20
"""At most this many doubts are open; a further one replaces the oldest."""


class Verdict(Enum):
    """The decision about a doubt."""

    SPEECH = "somebody speaks: interrupt the assistant"
    NOISE = "nobody spoke: remove the item"
    RESUME = "not known yet: resume playback, and keep the doubt open"


class Doubt(msgspec.Struct):
    """Speech that the server has detected while the assistant was speaking."""

    item_id: str
    first_sample: int
    """Start of the speech on the session timeline."""
    opened_ns: int
    loud_ns: int
    """When a block was last loud."""
    measure: Measure
    stopped_ns: int | None = None
    """When the server has reported the end of the speech; None: it has not."""
    server_ms: float = 0.0
    """Length of the speech by the server's reports, without padding and silence; 0 or less:
    unknown."""
    turn: UnansweredTurn | None = None
    """The turn that the server has committed; None: it has not committed any."""
    committed_ns: int = 0
    awaits_text: bool = False
    """Whether the transcript of the speech may still come."""
    text: bool = False
    """Whether the transcript has any text so far."""
    holds: bool = True
    """Whether playback is paused because of this doubt."""


class Doubts:
    """The open doubts. `due` returns the decisions; the caller carries them out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, Doubt] = {}

    def __iter__(self) -> Iterator[Doubt]:
        return iter(self._open.values())

    def open(self, item_id: str, first_sample: int, now: int) -> None:
        """Open a doubt about speech that the server has detected."""
        capture = self._context.capture
        room = max(first_sample - ROOM, capture.oldest_sample)
        measure = Measure(capture.sound(room, first_sample))
        measure.hear(capture.sound(first_sample, capture.timeline.next_sample))
        self._open[item_id] = Doubt(item_id, first_sample, now, now, measure)
        if len(self._open) > _DOUBTS:
            del self._open[next(iter(self._open))]

    def get(self, item_id: str) -> Doubt | None:
        """Return the open doubt about an item."""
        return self._open.get(item_id)

    def name(self, old: str, new: str) -> None:
        """Change the item id of a doubt."""
        doubt = self._open.pop(old, None)
        if doubt is not None:
            doubt.item_id = new
            self._open[new] = doubt

    def close(self, doubt: Doubt) -> None:
        """Close a doubt that is decided."""
        self._open.pop(doubt.item_id, None)

    def clear(self) -> None:
        """Forget all doubts: the server session that they belong to has ended."""
        self._open.clear()

    def release(self) -> None:
        """Keep playback paused for no doubt any more: it was flushed."""
        for doubt in self:
            doubt.holds = False

    def holding(self) -> bool:
        """Return whether playback has to stay paused."""
        return any(doubt.holds for doubt in self)

    # -- evidence -----------------------------------------------------------------------------

    def hear(self, pcm: bytes, now: int) -> bool:
        """Measure a captured block. Return whether it belongs to a doubt."""
        last = next(reversed(self._open.values()), None)
        if last is None or last.turn is not None:
            return False
        if last.measure.hear(pcm):
            last.loud_ns = now
        if last.stopped_ns is None:  # speech that ended `LATE_MS` ago would have been reported
            sent = self._context.capture.timeline.next_sample
            last.server_ms = self._server_ms(last, sent) - LATE_MS
        return True

    def stopped(self, item_id: str, last_sample: int, now: int) -> None:
        """Record that the server has reported the end of the speech."""
        doubt = self.get(item_id)
        if doubt is not None:
            doubt.stopped_ns = now
            doubt.server_ms = self._server_ms(doubt, last_sample)

    def committed(self, doubt: Doubt, turn: UnansweredTurn, *, awaits_text: bool, now: int) -> None:
        """Record that the server has made an item of the speech."""
        doubt.turn, doubt.committed_ns, doubt.awaits_text = turn, now, awaits_text

    def note_text(self, item_id: str, text: str, *, final: bool) -> Doubt | None:
        """Record a transcript or a piece of one. Return the doubt about the item, if any."""
        doubt = self.get(item_id)
        if doubt is not None:
            doubt.text = doubt.text or bool(text.strip())
            doubt.awaits_text = doubt.awaits_text and not final
        return doubt

    def _server_ms(self, doubt: Doubt, end_sample: int) -> float:
        vad = self._context.settings.turn_detection
        if not isinstance(vad, ServerVad):
            return 0.0  # semantic detection ends a turn by its meaning, not after a fixed silence
        length_ms = (end_sample - doubt.first_sample) / SAMPLES_PER_MS
        return length_ms - vad.prefix_padding_ms - vad.silence_duration_ms

    # -- decisions ----------------------------------------------------------------------------

    def due(self, now: int) -> list[tuple[Doubt, Verdict]]:
        """Return the decisions that can be made now."""
        found = [(doubt, self._verdict(doubt, now)) for doubt in self]
        return [(doubt, verdict) for doubt, verdict in found if verdict is not None]

    def deadlines(self) -> list[int]:
        """Return when decisions are due without further evidence."""
        return [
            time
            for doubt in self
            for time in (self._noise_at(doubt), self._held_until(doubt) if doubt.holds else None)
            if time is not None
        ]

    def _verdict(self, doubt: Doubt, now: int) -> Verdict | None:
        if doubt.text or max(doubt.measure.voiced_ms, doubt.server_ms) >= SPEECH_MS:
            return Verdict.SPEECH
        if now >= self._noise_at(doubt):
            return Verdict.NOISE
        if doubt.holds and now >= self._held_until(doubt):
            return Verdict.RESUME
        return None

    def _noise_at(self, doubt: Doubt) -> int:
        if doubt.turn is not None:
            return doubt.committed_ns + (TEXT_NS if doubt.awaits_text else 0)
        if doubt.stopped_ns is not None:
            return doubt.stopped_ns + COMMIT_NS
        return doubt.opened_ns + MOST_NS

    def _held_until(self, doubt: Doubt) -> int:
        if doubt.turn is not None:
            until = doubt.committed_ns + HOLD_TEXT_NS
        else:
            vad = self._context.settings.turn_detection
            silence_ms = vad.silence_duration_ms if isinstance(vad, ServerVad) else 0
            until = doubt.loud_ns + QUIET_NS + silence_ms * 1_000_000
        return min(until, doubt.opened_ns + PAUSE_NS)
