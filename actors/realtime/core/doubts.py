"""Speech that may interrupt the assistant or not: a word or a cough (``interruption="confirmed"``).

A doubt is open from `speech_started` until there is enough speech or a text (it is speech), or the
server has committed it and nothing more is to come (it is noise). It holds the playback paused no
longer than it has to.
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
"""So much speech is an interruption, whatever is said."""
QUIET_NS = 1 * _NS
"""When nobody has been loud for so long, the assistant goes on, decided or not."""
HOLD_TEXT_NS = 3 * _NS // 2
"""The assistant waits so long for the text of what was committed, and then goes on."""
TEXT_NS = 5 * _NS
"""A text that comes later than this after the commit is none of an interruption."""
COMMIT_NS = 2 * _NS
"""After speech has stopped, it is committed within this time."""
MOST_NS = 30 * _NS
LATE_MS = 500
"""The server may tell the end of speech so late."""
_DOUBTS = 20


class Verdict(Enum):
    """What is to be done about a doubt."""

    SPEECH = "somebody speaks: interrupt"
    NOISE = "nobody spoke: forget it"
    GO_ON = "not known yet, and no longer waited for"


class Doubt(msgspec.Struct):
    """Speech, as the server calls it, while something was being said."""

    item_id: str
    first_sample: int
    opened_ns: int
    loud_ns: int
    """When somebody was loud last."""
    measure: Measure
    stopped_ns: int | None = None
    server_ms: float = 0.0
    """How long it was by the server's account, as far as that tells."""
    turn: UnansweredTurn | None = None
    """What the server has committed."""
    committed_ns: int = 0
    awaits_text: bool = False
    text: bool = False
    holds: bool = True
    """Playback is paused because of it."""


class Doubts:
    """The doubts that are open. They decide nothing by themselves: `due` says what is due."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, Doubt] = {}

    def __iter__(self) -> Iterator[Doubt]:
        return iter(self._open.values())

    def open(self, item_id: str, first_sample: int, now: int) -> None:
        """Begin to doubt speech that the server has heard."""
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
        """Change the item that a doubt is about."""
        doubt = self._open.pop(old, None)
        if doubt is not None:
            doubt.item_id = new
            self._open[new] = doubt

    def close(self, doubt: Doubt) -> None:
        """End a doubt, decided."""
        self._open.pop(doubt.item_id, None)

    def clear(self) -> None:
        """Forget all doubts: the session with the server that they belong to is gone."""
        self._open.clear()

    def let_go(self) -> None:
        """Hold playback no more: it was flushed."""
        for doubt in self:
            doubt.holds = False

    def holding(self) -> bool:
        """Tell whether playback is to stay paused."""
        return any(doubt.holds for doubt in self)

    # -- what becomes known -------------------------------------------------------------------

    def hear(self, pcm: bytes, now: int) -> bool:
        """Take a captured block. Return whether a doubt is about it."""
        last = next(reversed(self._open.values()), None)
        if last is None or last.turn is not None:
            return False
        if last.measure.hear(pcm):
            last.loud_ns = now
        if last.stopped_ns is None:  # the server would have told by now that it has
            sent = self._context.capture.timeline.next_sample
            last.server_ms = self._server_ms(last, sent) - LATE_MS
        return True

    def stopped(self, item_id: str, last_sample: int, now: int) -> None:
        """Take note of the end of speech, which the server tells by silence."""
        doubt = self.get(item_id)
        if doubt is not None:
            doubt.stopped_ns = now
            doubt.server_ms = self._server_ms(doubt, last_sample)

    def committed(self, doubt: Doubt, turn: UnansweredTurn, *, awaits_text: bool, now: int) -> None:
        """Take note that the server has made an item of it."""
        doubt.turn, doubt.committed_ns, doubt.awaits_text = turn, now, awaits_text

    def told(self, item_id: str, text: str, *, final: bool) -> Doubt | None:
        """Take note of a text, or of a piece of it. Return the doubt about it, if there is one."""
        doubt = self.get(item_id)
        if doubt is not None:
            doubt.text = doubt.text or bool(text.strip())
            doubt.awaits_text = doubt.awaits_text and not final
        return doubt

    def _server_ms(self, doubt: Doubt, end_sample: int) -> float:
        vad = self._context.settings.turn_detection
        if not isinstance(vad, ServerVad):
            return 0.0  # it ends a turn by its meaning
        length_ms = (end_sample - doubt.first_sample) / SAMPLES_PER_MS
        return length_ms - vad.prefix_padding_ms - vad.silence_duration_ms

    # -- what follows -------------------------------------------------------------------------

    def due(self, now: int) -> list[tuple[Doubt, Verdict]]:
        """Return what is to be done now."""
        found = [(doubt, self._verdict(doubt, now)) for doubt in self]
        return [(doubt, verdict) for doubt, verdict in found if verdict is not None]

    def deadlines(self) -> list[int]:
        """Return when something is due if nothing becomes known."""
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
            return Verdict.GO_ON
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
