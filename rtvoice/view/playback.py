"""How much of each answer was heard, by what was played of it."""

from __future__ import annotations

from messages import SAMPLE_RATE
from rtvoice.view.entries import Entries
from rtvoice.view.state import Entry

__all__ = ["Playback"]

_CHARACTERS_A_SECOND = 15.0
"""How fast the assistant speaks, until the first answer has shown it: 150 words a minute."""


class Playback:
    """The answer that is being played; it keeps `Entry.heard` of all answers.

    Args:
        talk: The entries.
    """

    def __init__(self, talk: Entries) -> None:
        self.item_id = ""
        """Id of the item that is being played; empty: none."""
        self.is_paused = False
        self._talk = talk
        self._samples: dict[str, int] = {}
        """Length of the audio of each answer that is complete."""
        self._begun: set[str] = set()
        """Ids of the answers whose playback has begun and not ended."""
        self._cut: dict[str, tuple[int, str]] = {}
        """What was heard of each interrupted answer: milliseconds and text."""
        self._pace = _CHARACTERS_A_SECOND

    # -- the answer ---------------------------------------------------------------------------

    def measure(self, characters: int, seconds: float) -> None:
        """Learn how fast the assistant speaks, from more than a second of an answer."""
        if seconds > 1.0:
            self._pace = characters / seconds

    def complete(self, entry: Entry, samples: int) -> None:
        """Take the length of an answer whose text is complete; 0: it is written, not spoken."""
        self._samples[entry.id] = samples
        if not samples:  # a written answer is read as it comes
            entry.heard = len(entry.text)

    def set_text(self, entry: Entry, text: str) -> None:
        """Take the whole text of an answer of which no piece has come."""
        entry.text = text
        if entry.state == "interrupted":
            entry.heard = self._length_heard(text, *self._cut[entry.id])
        elif entry.id not in self._begun:
            entry.heard, entry.state = len(text), "complete"

    # -- the loudspeaker ----------------------------------------------------------------------

    def begin(self, entry: Entry) -> None:
        """Record that the first sample of an answer was played."""
        self.item_id = entry.id
        self._begun.add(entry.id)

    def advance(self, item_id: str, samples: int, *, finished: bool) -> None:
        """Record how much of an answer was played."""
        self.is_paused = False
        if finished:
            return  # `PlaybackEnded` or `Interrupted` says what was heard
        entry = self._talk.find(item_id)
        if entry is None or entry.state == "interrupted":
            return
        self.item_id = item_id
        if total := self._samples.get(item_id, 0):
            heard = int(len(entry.text) * samples / total)
        else:
            heard = int(samples / SAMPLE_RATE * self._pace)
        heard = min(max(heard, entry.heard), len(entry.text))
        if heard != entry.heard:
            entry.heard = heard
            self._talk.touch(item_id)

    def end(self, item_id: str, heard_ms: int) -> None:
        """Record that an answer was heard to its end."""
        entry = self._stopped(item_id)
        if entry is not None:
            entry.heard = len(entry.text)
            if entry.state == "partial":
                entry.state = "complete"
            self.measure(len(entry.text), heard_ms / 1000)

    def interrupt(self, item_id: str, heard_ms: int, text_heard: str) -> None:
        """Record that an answer was interrupted, and what was heard of it."""
        self._cut[item_id] = heard_ms, text_heard
        entry = self._stopped(item_id)
        if entry is not None:
            entry.heard = self._length_heard(entry.text, heard_ms, text_heard)
            entry.state = "interrupted"

    def _stopped(self, item_id: str) -> Entry | None:
        """Record that an answer is not played any more; return its entry, which changes."""
        self.is_paused = False
        self._begun.discard(item_id)
        if self.item_id == item_id or not item_id:
            self.item_id = ""
        entry = self._talk.find(item_id)
        if entry is not None:
            self._talk.touch(item_id)
        return entry

    def _length_heard(self, text: str, heard_ms: int, text_heard: str) -> int:
        """Return how many characters of an interrupted answer were heard."""
        if text_heard and text.startswith(text_heard):
            return len(text_heard)
        return min(len(text_heard) or int(heard_ms / 1000 * self._pace), len(text))
