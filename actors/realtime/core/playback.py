"""The assistant's message items: how much audio of each was received, played and heard."""

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
"""How long the speaker may take to answer `FlushPlayback` with its position."""
SILENT_SPEAKER_NS = 5 * _NS
"""If the speaker reports nothing for this long after queued audio should have ended, the audio
counts as played."""
_ITEMS = 200
"""At most this many items, and muted responses, are remembered: the newest."""


class Spoken(msgspec.Struct):
    """A message item of the assistant, and how far it was received and played."""

    item_id: str
    response_id: str
    """Empty if unknown."""
    session: int
    """Number of the server session that it belongs to; 0: that session is lost."""
    previous_item_id: str | None = None
    received: int = 0
    """Samples published to the speaker."""
    carry: bytes = b""
    """The first byte of a sample whose second byte has not arrived."""
    parts: list[list[int]] = []
    """``[content_index, samples]`` for each run of audio of one content part, as received."""
    complete: bool = False
    """Whether no more audio will arrive."""
    played: int = 0
    """Samples that the speaker has reported as played."""
    over: bool = False
    """Whether the item has been played to its end or cut off."""
    cut: bool = False
    """Whether an interruption has cut the item off."""
    dropped: list[int] = []
    """Indexes of content parts whose audio arrived after the interruption and was dropped."""
    text: str = ""
    """The transcript or text received so far."""
    written: bool = False
    """Whether the item is text without audio, which the user reads as it arrives."""
    text_heard: str | None = None
    """The text up to the interruption, as published in `Interrupted`; None: not interrupted."""
    reported: int = 0
    """Characters of the text that were published to history."""
    begun: bool = False
    """Whether the item was published to history."""
    ended: bool = False
    """Whether the item was published to history as final."""
    length_known: bool = True
    """False for audio of an earlier process, which may have received more than it saved."""

    def is_arriving(self) -> bool:
        """Return whether it has audio to play and more is still to arrive."""
        return self.received > 0 and not (self.over or self.complete)

    def fully_heard(self) -> bool:
        """Return whether all audio has arrived and has been played."""
        return self.complete and self.length_known and self.heard() >= self.received

    def take(self, pcm: bytes, content_index: int) -> tuple[bytes, int]:
        """Count received audio. Return its whole samples and the position of the first one."""
        if self.carry:
            pcm, self.carry = self.carry + pcm, b""
        if len(pcm) & 1:
            pcm, self.carry = pcm[:-1], pcm[-1:]
        first, count = self.received, len(pcm) >> 1
        self.over = self.over and self.cut
        self.complete = self.complete and not pcm  # another content part has begun
        self.received += count
        if self.parts and self.parts[-1][0] == content_index:
            self.parts[-1][1] += count
        else:
            self.parts.append([content_index, count])
        return pcm, first

    def heard(self) -> int:
        """Return how many of the received samples were played."""
        return min(self.played, self.received)

    def estimate_heard(self) -> str:
        """Return the part of the text that was heard: in proportion to the audio, in whole words.

        The API gives no times of words, so this is an estimate.
        """
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
        """Return (content_index, audio_end_ms) of each content part that was not fully heard.

        These are the arguments of ``conversation.item.truncate``.
        """
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
    """An item that an interruption has cut off."""

    item: Spoken
    truncations: list[tuple[int, int]]
    """(content_index, audio_end_ms) of the parts to truncate, see `Spoken.truncations`."""
    again: bool = False
    """Whether the item had been cut off before; this cut is then for audio that arrived since."""


class _Flush(msgspec.Struct):
    """A `FlushPlayback` that the speaker has not answered, and the items that it cuts off."""

    sent_ns: int
    items: list[Spoken]


class PlaybackAccount:
    """The assistant's items, in the order in which they began, and the unanswered flushes.

    Args:
        audible: items that an earlier process had not seen played to their end.
        now: the time in ns.
    """

    def __init__(self, audible: Iterable[Audible] = (), now: int = 0) -> None:
        self.items: dict[str, Spoken] = {}
        self._open: list[Spoken] = []
        """The items that may be in the `queue`. Every event needs that, and `items` is long."""
        self.muted: dict[str, None] = {}
        """Ids of interrupted responses: audio that still arrives for them is dropped."""
        self.flush_by: int | None = None
        """Deadline for the speaker's answer to the flushes; None: no flush is open."""
        self._flushes: collections.deque[_Flush] = collections.deque()
        self._news_ns = now
        """When audio was last received or reported as played."""
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
        """Return the item; create it if it is new."""
        item = self.items.get(item_id)
        if item is None or (session and not item.session):
            item = self.items[item_id] = Spoken(item_id, response_id, session)
            while len(self.items) > _ITEMS:
                del self.items[next(iter(self.items))]
            self._reopen(item)
        elif item.over:  # another content part may follow
            self._reopen(item)
        return item

    def _reopen(self, item: Spoken) -> None:
        self._open = [other for other in self.items.values() if other is item or not other.over]

    def queue(self) -> list[Spoken]:
        """Return the items that are playing or waiting to be played."""
        return [item for item in self._open if item.received and not item.over]

    def is_awaited(self, item: Spoken, short: int) -> bool:
        """Return whether the speaker waits for more of an item: it has little else to play.

        Args:
            item: The item. If it has begun no sound yet, all earlier ones were heard to their end,
                so that it cannot overtake one.
            short: The number of samples that is little.
        """
        waiting = self.queue()
        if not item.received and waiting:
            return False
        return sum(other.received - other.heard() for other in waiting) < short

    def audible(self) -> list[Audible]:
        """Return the `queue` in the form in which it is saved."""
        return [
            Audible(item.item_id, item.response_id, item.received, item.complete, item.text)
            for item in self.queue()
        ]

    def news(self, now: int) -> None:
        """Record that audio was received or played."""
        self._news_ns = max(self._news_ns, now)

    def resumed(self, now: int) -> None:
        """Record that playback continues after a pause."""
        # A pause sets the time of the last news ahead, to its own end: set it back.
        self._news_ns = now

    def position(self, item_id: str, played: int, finished: bool, now: int) -> bool:
        """Record the speaker's position. Return whether an item was played to its end by it."""
        self.news(now)
        item = self.items.get(item_id)
        if not item_id:
            return False
        if item is None:  # from before this process began, and not in the saved state
            item = self.begin(item_id, "", 0)
            item.complete = item.begun = item.ended = True
            item.length_known = False
        if not item.length_known:
            item.received = max(item.received, played)
        item.played = max(item.played, played)
        if not finished or item.over:
            return False
        # Items are played in order, so those that began earlier have ended too.
        for earlier in self.items.values():
            earlier.over = earlier.over or earlier.received > 0
            if earlier is item:
                break
        item.over = True
        return True

    def drained_at(self) -> int | None:
        """Return when the queue counts as played even without news; None: the queue is empty."""
        waiting = self.queue()
        if not waiting:
            return None
        left = sum(item.received - item.heard() for item in waiting)
        return self._news_ns + left * _NS // SAMPLE_RATE + SILENT_SPEAKER_NS

    def give_up(self) -> None:
        """Count the whole queue as played: the speaker has reported nothing for too long."""
        for item in self.queue():
            item.over = True

    # -- interruption -------------------------------------------------------------------------

    def mute(self, response_ids: Iterable[str]) -> None:
        """Drop all audio that still arrives for these responses."""
        for response_id in response_ids:
            self.muted[response_id] = None
        while len(self.muted) > _ITEMS:
            del self.muted[next(iter(self.muted))]

    def unflushed(self) -> list[Spoken]:
        """Return the items of the `queue` that no open flush cuts off."""
        flushing = {item.item_id for flush in self._flushes for item in flush.items}
        return [item for item in self.queue() if item.item_id not in flushing]

    def flush(self, items: Iterable[Spoken], now: int) -> None:
        """Record a flush of items, some of which may have no audio yet."""
        items = list(items)
        self._flushes.append(_Flush(now, items))
        self.mute({item.response_id for item in items})
        self.flush_by = now + FLUSH_NS

    def flushed(self, item_id: str, played: int, flush_ns: int = 0) -> list[Cut]:
        """Close a flush that the speaker has answered, and unanswered ones before it.

        Args:
            item_id: the item that was playing; empty: none.
            played: samples of it that were played.
            flush_ns: ``sent_ns`` of the flush that is answered; 0: the oldest one.

        Returns:
            The items that were cut off. Items queued before the one that was playing were heard,
            those queued after it were not.
        """
        if flush_ns and all(flush.sent_ns != flush_ns for flush in self._flushes):
            return []  # the answer came after `FLUSH_NS`: the flush is closed already
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
        """Close all flushes without an answer; the last reported positions count."""
        cuts = []
        while self._flushes:
            cuts += self.flushed("", 0)
        return cuts

    def cut(self, flushing: list[Spoken], item_id: str, played: int) -> list[Cut]:
        """Cut off items where the speaker stopped.

        Args:
            flushing: the items, in the order of playback.
            item_id: as for `flushed`.
            played: as for `flushed`.
        """
        ids = [item.item_id for item in flushing]
        playing = ids.index(item_id) if item_id in ids else -1
        cuts = []
        for index, item in enumerate(flushing):
            if index < playing:
                item.played = max(item.played, item.received)
            elif index == playing:
                item.played = max(item.played, played)
            if item.over:  # played to its end before the flush reached the speaker
                continue
            item.over = True
            if item.fully_heard() and item.received:
                continue
            item.cut = True
            cuts.append(Cut(item, item.truncations()))
        return cuts

    def cut_late(self, response_id: str) -> list[Cut]:
        """Return cuts for what a muted response has sent since the interruption.

        The server has all of it in its item, so it has to be truncated as well.
        """
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
