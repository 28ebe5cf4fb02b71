"""What the assistant says: what was received of each item, what was played, what was heard."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import msgspec

from actors.realtime.core.state import Audible
from actors.realtime.core.timeline import SAMPLES_PER_MS
from messages import SAMPLE_RATE

__all__ = ["Cut", "PlaybackAccount", "Spoken"]

_NS = 1_000_000_000
FLUSH_NS = 300_000_000
"""How long the speaker may take to say where it stopped."""
SILENT_SPEAKER_NS = 5 * _NS
"""Past its length by so much without news, sound counts as played."""
_ITEMS = 200


class Spoken(msgspec.Struct):
    """A message item of the assistant."""

    item_id: str
    response_id: str
    session: int
    """The session with the server that it belongs to; 0: one that is gone."""
    previous_item_id: str | None = None
    received: int = 0
    """Samples passed on to the speaker."""
    carry: bytes = b""
    """Half a sample, until the other half comes."""
    parts: list[list[int]] = []
    """Per content part with sound: [content_index, samples received]."""
    complete: bool = False
    """No more sound will come."""
    played: int = 0
    over: bool = False
    """Played to its end, or cut off."""
    cut: bool = False
    dropped: list[int] = []
    """Content parts of which sound came after the interruption, and was not passed on."""
    text: str = ""
    written: bool = False
    """The text is the answer itself, which has no sound: it was read as it came."""
    text_heard: str | None = None
    """The text up to where it was heard, if it was cut off; as everybody was told."""
    reported: int = 0
    """How many characters of the text history knows."""
    begun: bool = False
    """Whether history knows the item."""
    ended: bool = False
    """Whether history knows that it is final."""
    length_known: bool = True

    def goes_on(self) -> bool:
        """Return whether it is played or waits for it, and more sound is to come."""
        return self.received > 0 and not (self.over or self.complete)

    def fully_heard(self) -> bool:
        """Tell whether everything that will come was played."""
        return self.complete and self.length_known and self.heard() >= self.received

    def take(self, pcm: bytes, content_index: int) -> tuple[bytes, int]:
        """Return whole samples to be played, and which sample of the item is the first."""
        if self.carry:
            pcm, self.carry = self.carry + pcm, b""
        if len(pcm) & 1:
            pcm, self.carry = pcm[:-1], pcm[-1:]
        first, count = self.received, len(pcm) >> 1
        self.over = self.over and self.cut
        self.complete = self.complete and not pcm  # a further part
        self.received += count
        if self.parts and self.parts[-1][0] == content_index:
            self.parts[-1][1] += count
        else:
            self.parts.append([content_index, count])
        return pcm, first

    def heard(self) -> int:
        """Return how many samples were heard."""
        return min(self.played, self.received)

    def estimate_heard(self) -> str:
        """Return the text up to where it was heard, in proportion to the sound, in whole words."""
        if self.written and not self.received:
            return self.text
        if not self.heard() or not self.text:
            return ""
        if not self.length_known:
            return self.text
        size = len(self.text) * self.heard() // self.received
        if size >= len(self.text):
            return self.text
        cut = self.text[:size]
        return cut if self.text[size].isspace() else cut[: cut.rfind(" ") + 1].rstrip()

    def truncations(self) -> list[tuple[int, int]]:
        """Return (content_index, audio_end_ms) of each part that was not heard to its end."""
        if not self.parts:
            return []
        left, last = self.heard(), self.parts[-1][0]
        heard: dict[int, int] = {}
        received: dict[int, int] = {}
        for index, samples in self.parts:
            taken = min(left, samples)
            left -= taken
            heard[index] = heard.get(index, 0) + taken
            received[index] = received.get(index, 0) + samples
        return [
            (index, heard[index] // SAMPLES_PER_MS)
            for index in heard
            if heard[index] < received[index] or (index == last and not self.complete)
        ]


class Cut(msgspec.Struct):
    """An item that was interrupted."""

    item: Spoken
    truncations: list[tuple[int, int]]
    again: bool = False
    """It was cut before; this is about sound that came afterwards."""


class _Flush(msgspec.Struct):
    sent_ns: int
    items: list[Spoken]


class PlaybackAccount:
    """The items of the assistant, in the order in which they began, and one flush at a time."""

    def __init__(self, audible: Iterable[Audible] = (), now: int = 0) -> None:
        self.items: dict[str, Spoken] = {}
        self._open: list[Spoken] = []
        """Of the items, those that may be in the `queue`, which is asked for with every event."""
        self.muted: dict[str, None] = {}
        """Ids of responses of which nothing more is to be heard."""
        self.flush_by: int | None = None
        """Until when the speaker is waited for."""
        self._flushes: collections.deque[_Flush] = collections.deque()
        self._news_ns = now
        for was in audible:
            self.items[was.item_id] = Spoken(
                was.item_id,
                was.response_id,
                session=0,
                received=was.samples,
                parts=[[0, was.samples]],
                complete=True,
                text=was.text,
                begun=True,
                ended=was.complete,
                length_known=was.complete,
            )
        self._open += self.items.values()

    def begin(self, item_id: str, response_id: str, session: int) -> Spoken:
        """Return the item, made if it is new."""
        item = self.items.get(item_id)
        if item is None or (session and not item.session):
            item = self.items[item_id] = Spoken(item_id, response_id, session)
            while len(self.items) > _ITEMS:
                del self.items[next(iter(self.items))]
            self._reopen(item)
        elif item.over:  # a further part may follow
            self._reopen(item)
        return item

    def _reopen(self, item: Spoken) -> None:
        self._open = [other for other in self.items.values() if other is item or not other.over]

    def queue(self) -> list[Spoken]:
        """Return the items that are being played or wait for it."""
        return [item for item in self._open if item.received and not item.over]

    def audible(self) -> list[Audible]:
        """Return `queue` as it is saved."""
        return [
            Audible(item.item_id, item.response_id, item.received, item.complete, item.text)
            for item in self.queue()
        ]

    def news(self, now: int) -> None:
        """Take note of sound that came or was played."""
        self._news_ns = max(self._news_ns, now)

    def resumed(self, now: int) -> None:
        """Take note that what is queued plays on after a pause."""
        self._news_ns = now

    def position(self, item_id: str, played: int, finished: bool, now: int) -> bool:
        """Take note of what the speaker says. Return whether an item was played to its end."""
        self.news(now)
        item = self.items.get(item_id)
        if not item_id:
            return False
        if item is None:  # of a time that we do not remember
            item = self.begin(item_id, "", 0)
            item.complete = item.begun = item.ended = True
            item.length_known = False
        if not item.length_known:
            item.received = max(item.received, played)
        item.played = max(item.played, played)
        if not finished or item.over:
            return False
        for earlier in self.items.values():
            earlier.over = earlier.over or earlier.received > 0
            if earlier is item:
                break
        item.over = True
        return True

    def drained_at(self) -> int | None:
        """Return when everything counts as played even if the speaker says nothing; None: it is."""
        waiting = self.queue()
        if not waiting:
            return None
        left = sum(item.received - item.heard() for item in waiting)
        return self._news_ns + left * _NS // SAMPLE_RATE + SILENT_SPEAKER_NS

    def give_up(self) -> None:
        """Count everything that is complete as played."""
        for item in self.queue():
            item.over = True

    # -- interruption -------------------------------------------------------------------------

    def mute(self, response_ids: Iterable[str]) -> None:
        """Let nothing more of these responses be heard."""
        for response_id in response_ids:
            self.muted[response_id] = None
        while len(self.muted) > _ITEMS:
            del self.muted[next(iter(self.muted))]

    def unflushed(self) -> list[Spoken]:
        """Return the items of `queue` that no flush is about."""
        flushing = {item.item_id for flush in self._flushes for item in flush.items}
        return [item for item in self.queue() if item.item_id not in flushing]

    def flush(self, items: Iterable[Spoken], now: int) -> None:
        """Begin a flush of items, some of which may have no sound so far."""
        items = list(items)
        self._flushes.append(_Flush(now, items))
        self.mute({item.response_id for item in items})
        self.flush_by = now + FLUSH_NS

    def flushed(self, item_id: str, played: int, flush_ns: int = 0) -> list[Cut]:
        """End a flush by the speaker's answer, and those before it that it has not answered.

        Args:
            item_id: of what was playing; empty: nothing was.
            played: how many samples of it.
            flush_ns: which flush this answers; 0: the oldest.

        Returns:
            What was cut off. What was queued before the item that was playing has been heard, what
            was queued after it has not.
        """
        if flush_ns and all(flush.sent_ns != flush_ns for flush in self._flushes):
            return []  # it was given up
        cuts = []
        while self._flushes:
            flush = self._flushes.popleft()
            if not flush_ns or flush.sent_ns == flush_ns:
                cuts += self.cut(flush.items, item_id, played)
                break
            cuts += self.cut(flush.items, "", 0)
        if not self._flushes:
            self.flush_by = None
        return cuts

    def give_up_flushes(self) -> list[Cut]:
        """End all flushes without an answer: what was known last counts."""
        cuts = []
        while self._flushes:
            cuts += self.flushed("", 0)
        return cuts

    def cut(self, flushing: list[Spoken], item_id: str, played: int) -> list[Cut]:
        """Cut off items, knowing where the speaker stopped; see `flushed`."""
        ids = [item.item_id for item in flushing]
        playing = ids.index(item_id) if item_id in ids else -1
        cuts = []
        for index, item in enumerate(flushing):
            if index < playing:
                item.played = max(item.played, item.received)
            elif index == playing:
                item.played = max(item.played, played)
            if item.over:  # the end came after all
                continue
            item.over = True
            if item.fully_heard() and item.received:
                continue
            item.cut = True
            cuts.append(Cut(item, item.truncations()))
        return cuts

    def cut_late(self, response_id: str) -> list[Cut]:
        """Return what came of a muted response after the interruption, and was not cut so far."""
        if response_id not in self.muted:
            return []
        late = []
        for item in self.items.values():
            if item.response_id != response_id:
                continue
            known = {index for index, _ in item.parts}
            unheard = [(index, 0) for index in item.dropped if index not in known]
            item.dropped = []
            if unheard or (item.text and not item.received and not item.cut):
                late.append(Cut(item, unheard, again=item.cut))
                item.cut = item.over = True
        return late
