"""What the assistant says: what was received of each item, what was played, what was heard."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.realtime.state import Audible
from actors.realtime.timeline import SAMPLES_PER_MS
from messages import SAMPLE_RATE

__all__ = ["Cut", "Playback", "Spoken"]

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
    dropped: bool = False
    """Sound came after the interruption, and was not passed on."""
    text: str = ""
    reported: int = 0
    """How many characters of the text history knows."""
    begun: bool = False
    """Whether history knows the item."""
    ended: bool = False
    """Whether history knows that it is final."""
    length_known: bool = True

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
        self.received += count
        if self.parts and self.parts[-1][0] == content_index:
            self.parts[-1][1] += count
        else:
            self.parts.append([content_index, count])
        return pcm, first

    def heard(self) -> int:
        """Return how many samples were heard."""
        return min(self.played, self.received)

    def text_heard(self) -> str:
        """Return the text up to where it was heard, in proportion to the sound, in whole words."""
        if not self.length_known:
            return self.text
        if not self.received or not self.text:
            return ""
        size = len(self.text) * self.heard() // self.received
        if size >= len(self.text):
            return self.text
        cut = self.text[:size]
        return cut if self.text[size].isspace() else cut[: cut.rfind(" ") + 1].rstrip()

    def truncation(self) -> tuple[int, int] | None:
        """Return (content_index, audio_end_ms) of what was heard; None: there is nothing to cut."""
        if not self.parts or self.fully_heard():
            return None
        heard = self.heard()
        for index, samples in self.parts[:-1]:
            if heard < samples:
                return index, heard // SAMPLES_PER_MS
            heard -= samples
        return self.parts[-1][0], heard // SAMPLES_PER_MS


class Cut(msgspec.Struct):
    """An item that was interrupted."""

    item: Spoken
    truncation: tuple[int, int] | None


class Playback:
    """The items of the assistant, in the order in which they began, and one flush at a time."""

    def __init__(self, audible: Iterable[Audible] = (), now: int = 0) -> None:
        self.items: dict[str, Spoken] = {}
        self.muted: dict[str, None] = {}
        """Ids of responses of which nothing more is to be heard."""
        self.flush_by: int | None = None
        """Until when the speaker is waited for."""
        self._flushing: list[Spoken] = []
        self._news_ns = now
        for was in audible:
            self.items[was.item_id] = Spoken(
                was.item_id,
                was.response_id,
                session=0,
                received=was.samples,
                parts=[[0, was.samples]],
                complete=True,
                begun=True,
                ended=was.complete,
                length_known=was.complete,
            )

    def begin(self, item_id: str, response_id: str, session: int) -> Spoken:
        """Return the item, made if it is new."""
        item = self.items.get(item_id)
        if item is None or (session and not item.session):
            item = self.items[item_id] = Spoken(item_id, response_id, session)
            while len(self.items) > _ITEMS:
                del self.items[next(iter(self.items))]
        return item

    def queue(self) -> list[Spoken]:
        """Return the items that are being played or wait for it."""
        return [item for item in self.items.values() if item.received and not item.over]

    def audible(self) -> list[Audible]:
        """Return `queue` as it is saved."""
        return [
            Audible(item.item_id, item.response_id, item.received, item.complete)
            for item in self.queue()
        ]

    def news(self, now: int) -> None:
        """Take note of sound that came or was played."""
        self._news_ns = now

    def position(self, item_id: str, played: int, finished: bool, now: int) -> bool:
        """Take note of what the speaker says. Return whether an item was played to its end."""
        self._news_ns = now
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

    def flush(self, unvoiced: Iterable[Spoken], now: int) -> None:
        """Begin a flush of all that is queued and of ``unvoiced``, begun without sound so far."""
        queued = self.queue()
        self._flushing = queued + [item for item in unvoiced if item not in queued]
        self.mute({item.response_id for item in self._flushing})
        self.flush_by = now + FLUSH_NS

    def flushed(self, item_id: str, played: int) -> list[Cut]:
        """End the flush, by the speaker's answer or without one (``item_id`` empty).

        Return what was cut off. What was queued before the item that was playing has been heard,
        what was queued after it has not.
        """
        self.flush_by = None
        flushing, self._flushing = self._flushing, []
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
            cuts.append(Cut(item, item.truncation()))
        return cuts

    def cut_late(self, response_id: str) -> list[Cut]:
        """Return the items of a muted response that are wholly unheard and not cut so far."""
        late = []
        for item in self.items.values():
            if item.response_id == response_id and item.dropped and not item.cut and not item.over:
                item.cut = item.over = True
                late.append(Cut(item, (0, 0)))
        return late
