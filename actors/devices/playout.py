"""The playout: audio waiting for the speaker, and what became of it. No thread, no clock.

The actor pushes, flushes and settles; the device pulls, on its own thread. Each call holds one lock
for microseconds. Times are ``time.monotonic_ns()`` passed in; positions count within an item.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from actors.devices.fader import FADE, Fader, tail
from actors.devices.jitter import Prefill
from actors.devices.units import to_ns, to_samples
from messages import SAMPLE_RATE

__all__ = ["Finished", "Flushed", "Marker", "Played", "Playout", "Settled"]

_LOW = 100 * SAMPLE_RATE // 1000
"""With less than this waiting, the actor is told, so that it makes room for more."""
_NEW_RUN_NS = 50_000_000
"""The device's clock may differ so much from counting before sound counts as interrupted."""
_KNOWN_ITEMS = 16


class Marker(Protocol):
    """What remembers over a death how far each item was taken; see `actors.devices.mark`."""

    def taken(self) -> dict[str, int]: ...
    def set(self, item_id: str, taken: int) -> None: ...


class Played(NamedTuple):
    """A stretch of sound that was heard."""

    item_id: str
    run_ns: int
    """When the uninterrupted sound that it belongs to began."""
    offset: int
    """Where in that sound it lies, in samples."""
    pcm: bytes
    """As it was heard, volume and fade included."""


class Finished(NamedTuple):
    """An item of which the last sample was heard."""

    item_id: str
    played: int


class Settled(NamedTuple):
    """What has become true since the last look."""

    audio: list[Played]
    finished: list[Finished]
    position: tuple[str, int] | None
    """The item being played and how much of it was heard; None: no item is."""


class Flushed(NamedTuple):
    """Where playback stopped. ``item_id`` is empty if nothing was playing or waiting."""

    item_id: str
    played: int
    at_ns: int
    """When the device's own buffer has run out, so that this is true."""


class _PlayoutItem:
    __slots__ = ("begun", "dry_ns", "item_id", "last", "played", "received", "starved", "taken")

    def __init__(self, item_id: str, start: int) -> None:
        self.item_id = item_id
        self.received = start
        """The sample that is expected next."""
        self.taken = start
        """The sample that the device takes next."""
        self.played = start
        """The sample that is heard next."""
        self.begun = False
        """The device has taken something of it."""
        self.starved = False
        """The device wanted more of it in vain, and none has come since."""
        self.dry_ns = -1
        """When it fell silent because of that; -1: it did not."""
        self.last = False
        """All of it is received."""


class _Chunk(NamedTuple):
    item: _PlayoutItem
    first: int
    pcm: memoryview


class _Segment(NamedTuple):
    """What a device has taken at once of one item, until it was heard."""

    item: _PlayoutItem
    first: int
    pcm: bytes
    raw: memoryview
    """The same before volume and fades, to be played again if the device gives it back."""
    at_ns: int
    run_ns: int
    offset: int

    @property
    def samples(self) -> int:
        return len(self.pcm) // 2

    @property
    def end_ns(self) -> int:
        return self.at_ns + to_ns(self.samples)


class Playout:
    """A queue of audio of one item after the other.

    Args:
        prefill: samples that should wait before an item starts. It starts with fewer if all of it
            is there, or once the device has asked for as many in vain.
        marker: remembers how far each item was taken. What it knows as taken is not played again.
        volume: 0.0-1.0.
    """

    def __init__(self, prefill: int = 0, marker: Marker | None = None, volume: float = 1.0) -> None:
        self._marker = marker
        self._lock = threading.Lock()
        self._items: collections.deque[_PlayoutItem] = collections.deque()
        self._known = marker.taken() if marker else {}
        self._chunks: collections.deque[_Chunk] = collections.deque()
        self._queued = 0
        self._segments: collections.deque[_Segment] = collections.deque()
        self._fader = Fader(volume)
        self._prefill = Prefill(prefill)
        self._running = False
        self._paused = False
        self._run_ns = -1
        self._run_samples = 0
        self._wake: Callable[[], None] = _nothing
        self._low = False
        self._told = False

    # -- for the actor ------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, on the device's thread, when there is room for more audio.

        Once; then again after the next `progress`.
        """
        with self._lock:
            self._wake = wake
            self._told = False

    def push(self, item_id: str, first: int, pcm: bytes, last: bool = False) -> None:
        """Queue audio of an item; what of it was queued or taken before is skipped."""
        with self._lock:
            item = self._item(item_id, first)
            if item.received < first:  # something before it is missing
                if item.taken == item.received:
                    item.taken = item.played = first
                item.received = first
            new = memoryview(pcm)[2 * (item.received - first) : len(pcm) & ~1]
            item.last = item.last or last
            if not new:
                return
            if item.starved:
                item.starved = False
                self._prefill.falter()
            self._chunks.append(_Chunk(item, item.received, new))
            item.received += len(new) // 2
            self._queued += len(new) // 2

    def progress(self) -> dict[str, int]:
        """Return the items that are not over, and which sample of each the device takes next."""
        with self._lock:
            self._told = False
            return {item.item_id: item.taken for item in self._items}

    def settle(self, heard_ns: int) -> Settled:
        """Return what was heard until this moment and has not been returned before."""
        with self._lock:
            audio = self._settle_audio(heard_ns)
            finished = self._settle_items()
            front = self._items[0] if self._items else None
            position = (front.item_id, front.played) if front else None
            return Settled(audio, finished, position)

    def left_ns(self, now_ns: int) -> int | None:
        """Return how long what is here still plays, if it is not interrupted; None: it is heard."""
        with self._lock:
            if not self._segments and not self._chunks:
                return None
            taken_ns = self._segments[-1].end_ns - now_ns if self._segments else 0
            return max(0, taken_ns) + to_ns(self._queued)

    def flush(self, now_ns: int, *, taken_back: bool = False) -> Flushed:
        """Throw away what waits, but for a fade-out of a few milliseconds.

        Args:
            now_ns: the time.
            taken_back: the device also forgets what it has taken and what was not heard when
                `settle` was called last.
        """
        with self._lock:
            if taken_back:
                self._take_back()
            self._paused = False
            current = self._current()
            tail = None if taken_back else self._fade_out()
            self._chunks.clear()
            self._queued = 0
            end_ns = max(now_ns, self._segments[-1].end_ns) if self._segments else now_ns
            if tail is None:
                self._stop(end_ns)
            else:
                self._chunks.append(tail)
                self._queued = len(tail.pcm) // 2
                end_ns += to_ns(self._queued)
            if current is None:
                return Flushed("", 0, end_ns)
            played = current.taken + (self._queued if tail and tail.item is current else 0)
            self._drop_from(current)
            self._remember(current.item_id, played)
            return Flushed(current.item_id, played, end_ns)

    def pause(self, *, taken_back: bool = False) -> None:
        """Give the device nothing more, but for a fade-out, until `resume` or `flush`.

        What is pushed meanwhile waits. Pausing twice is harmless.

        Args:
            taken_back: the device also gives back what it has taken and what was not heard when
                `settle` was called last; it is played when the pause is over.
        """
        with self._lock:
            if taken_back:
                self._put_back()
                self._halt()
            self._paused = True

    def give_back(self) -> list[tuple[str, int, bytes]]:
        """Take from a lost device what was not heard when `settle` was called last.

        Returns:
            That and what waits, to be pushed into the playout of another device: item, first sample
            and audio.
        """
        with self._lock:
            self._put_back()
            self._halt()
            return [
                (chunk.item.item_id, chunk.first, bytes(chunk.pcm))
                for chunk in self._chunks
                if chunk.item in self._items  # else it is the fade-out of a flush
            ]

    def resume(self) -> None:
        """Go on with the sample at which the pause began, faded in."""
        with self._lock:
            if self._paused:
                self._paused = False
                if not self._running:
                    self._fader.fade_in()

    def faltered(self) -> tuple[int, int]:
        """Return the underruns, and the nanoseconds of silence, since this was last asked."""
        with self._lock:
            return self._prefill.told()

    @property
    def running(self) -> bool:
        """Whether the device was given sound, and no silence since."""
        return self._running

    @property
    def paused(self) -> bool:
        """Whether nothing is given to the device although there may be something."""
        return self._paused

    def front(self) -> tuple[str, int]:
        """Return which item is being played, and the sample that is taken next; or an empty id."""
        with self._lock:
            current = self._current()
            return (current.item_id, current.taken) if current else ("", 0)

    def set_volume(self, volume: float) -> None:
        """Change the volume, 0.0-1.0, over a few milliseconds."""
        with self._lock:
            self._fader.set_volume(volume, sounding=self._running)

    # -- for the device -----------------------------------------------------------------------

    def pull(self, samples: int, at_ns: int) -> bytes:
        """Take the next block, silence where there is nothing.

        Args:
            samples: how many.
            at_ns: when its first sample will be heard.
        """
        return self._take(samples, at_ns, pads=True)

    def take(self, samples: int, at_ns: int) -> bytes:
        """Take the next block; it is shorter, or empty, where there is no more."""
        return self._take(samples, at_ns, pads=False)

    # -- taking, with the lock held -----------------------------------------------------------

    def _take(self, samples: int, at_ns: int, *, pads: bool) -> bytes:
        with self._lock:
            pcm = self._next(samples, at_ns, fades_in=pads)
            missing = samples - len(pcm) // 2
            if not pcm or (pads and missing):
                self._stop(at_ns + to_ns(samples - missing))
            if pads:
                self._note_edge(pcm)
                pcm += self._fader.run_out(missing)
            wake = self._low and not self._told
            if wake:
                self._told, self._low = True, False
        if wake:
            self._wake()
        return pcm

    def _next(self, samples: int, at_ns: int, *, fades_in: bool) -> bytes:
        if self._paused:
            return self._last_before_pause(samples, at_ns)
        if not self._chunks or not (self._running or self._may_start(samples)):
            return b""
        if not self._running:
            self._start(at_ns, fades_in=fades_in)
        plenty = self._queued >= _LOW
        parts, whole = self._next_parts(samples)
        if self._queued < _LOW and (plenty or whole):
            self._low = True
        raw = bytes(parts[0].pcm) if len(parts) == 1 else b"".join(part.pcm for part in parts)
        pcm = self._fader.scaled(raw)
        self._note_taken(parts, pcm, at_ns)
        return pcm

    def _last_before_pause(self, samples: int, at_ns: int) -> bytes:
        """Return the fade-out with which a pause begins; then nothing."""
        if not self._running or not self._chunks:
            self._halt()
            return b""
        parts, _ = self._next_parts(min(samples, FADE))
        pcm = self._fader.faded_out(b"".join(part.pcm for part in parts))
        self._note_taken(parts, pcm, at_ns)
        self._halt()
        return pcm

    def _next_parts(self, samples: int) -> tuple[list[_Chunk], bool]:
        """Return the parts of the next block, and whether a pushed piece is now all taken."""
        parts: list[_Chunk] = []
        missing = samples
        whole = False
        while missing and self._chunks:
            chunk = self._chunks.popleft()
            if len(chunk.pcm) > 2 * missing:
                rest = chunk._replace(first=chunk.first + missing, pcm=chunk.pcm[2 * missing :])
                self._chunks.appendleft(rest)
                chunk = chunk._replace(pcm=chunk.pcm[: 2 * missing])
            else:
                whole = True
            missing -= len(chunk.pcm) // 2
            parts.append(chunk)
        self._queued -= samples - missing
        return parts, whole

    def _may_start(self, samples: int) -> bool:
        first = self._chunks[0].item
        grows = not first.last and self._items[-1] is first
        return self._prefill.is_enough(self._queued, samples, grows=grows)

    def _start(self, at_ns: int, *, fades_in: bool) -> None:
        """Note that there is sound now."""
        self._running = True
        chunk = self._chunks[0]
        if chunk.item.dry_ns >= 0:
            self._prefill.note_silence(at_ns - chunk.item.dry_ns)
            chunk.item.dry_ns = -1
        if fades_in and chunk.first > 0:
            self._fader.fade_in()

    def _stop(self, at_ns: int) -> None:
        """Note that there is silence from then on."""
        if self._running and self._items and not self._chunks:
            newest = self._items[-1]
            newest.starved = not newest.last
            newest.dry_ns = at_ns if newest.starved else -1
        self._halt()

    def _halt(self) -> None:
        self._running = False
        self._run_ns = -1
        self._fader.silence()

    def _note_taken(self, parts: list[_Chunk], pcm: bytes, at_ns: int) -> None:
        expected_ns = self._run_ns + to_ns(self._run_samples)
        if self._run_ns == -1 or abs(at_ns - expected_ns) > _NEW_RUN_NS:
            self._run_ns, self._run_samples = at_ns, 0
        done = 0
        for item, first, piece in parts:
            samples = len(piece) // 2
            part = pcm[2 * done : 2 * (done + samples)]
            part_ns = at_ns + to_ns(done)
            self._segments.append(
                _Segment(item, first, part, piece, part_ns, self._run_ns, self._run_samples)
            )
            done += samples
            self._run_samples += samples
            item.taken = first + samples
            item.begun = True
            if self._marker:
                self._marker.set(item.item_id, item.taken)

    def _note_edge(self, pcm: bytes) -> None:
        """Note whether sound breaks off here if nothing follows: not where an item ends."""
        if pcm:
            item = self._segments[-1].item
            ends = item.last and item.taken == item.received
            self._fader.note_edge(pcm, breaks_off=not ends)

    # -- settling and flushing, with the lock held --------------------------------------------

    def _item(self, item_id: str, first: int) -> _PlayoutItem:
        for item in reversed(self._items):
            if item.item_id == item_id:
                return item
        item = _PlayoutItem(item_id, self._known.get(item_id, first))
        self._items.append(item)
        return item

    def _settle_audio(self, heard_ns: int) -> list[Played]:
        audio: list[Played] = []
        while self._segments:
            segment = self._segments[0]
            heard = segment.samples
            if segment.end_ns > heard_ns:
                heard = min(heard, to_samples(heard_ns - segment.at_ns))
                if heard <= 0:
                    break
            self._segments.popleft()
            segment.item.played = segment.first + heard
            pcm = segment.pcm[: 2 * heard]
            _append(audio, Played(segment.item.item_id, segment.run_ns, segment.offset, pcm))
            if heard < segment.samples:
                self._segments.appendleft(_rest(segment, heard))
                break
        return audio

    def _settle_items(self) -> list[Finished]:
        finished: list[Finished] = []
        while self._items:
            item = self._items[0]
            if item.played < item.received:
                break
            if item.last:
                finished.append(Finished(item.item_id, item.played))
                self._prefill.note_end()
            elif len(self._items) == 1 or not self._items[1].begun:
                break  # more of it may come
            self._items.popleft()
            self._remember(item.item_id, item.taken)
        return finished

    def _take_back(self) -> None:
        for segment in self._segments:
            segment.item.taken = min(segment.item.taken, segment.first)
        self._segments.clear()

    def _put_back(self) -> None:
        for segment in reversed(self._segments):
            self._chunks.appendleft(_Chunk(segment.item, segment.first, segment.raw))
            self._queued += segment.samples
            if self._marker:
                self._marker.set(segment.item.item_id, segment.first)
        self._take_back()

    def _current(self) -> _PlayoutItem | None:
        """Return the item that a flush interrupts: the last begun of those not heard to the end."""
        unheard = [item for item in self._items if item.played < item.received]
        begun = [item for item in unheard if item.begun]
        for items in (begun[-1:], unheard[:1], list(self._items)[:1]):
            if items:
                return items[0]
        return None

    def _fade_out(self) -> _Chunk | None:
        if not self._running or not self._chunks or not self._chunks[0].item.begun:
            return None
        first = self._chunks[0]
        pcm = b""
        for chunk in self._chunks:
            if chunk.item is not first.item or len(pcm) >= 2 * FADE:
                break
            pcm += chunk.pcm[: 2 * FADE]
        return first._replace(pcm=memoryview(tail(pcm)))

    def _drop_from(self, current: _PlayoutItem) -> None:
        """Drop the current item and what follows; what is before it will be heard."""
        kept = list(self._items)
        dropped = kept[kept.index(current) :]
        for item in dropped:
            self._remember(item.item_id, item.taken)
        self._items = collections.deque(item for item in kept if item not in dropped and item.last)

    def _remember(self, item_id: str, taken: int) -> None:
        self._known.pop(item_id, None)
        self._known[item_id] = taken
        while len(self._known) > _KNOWN_ITEMS:
            del self._known[next(iter(self._known))]


def _append(audio: list[Played], piece: Played) -> None:
    if audio:
        before = audio[-1]
        joins = before.item_id == piece.item_id and before.run_ns == piece.run_ns
        if joins and before.offset + len(before.pcm) // 2 == piece.offset:
            audio[-1] = before._replace(pcm=before.pcm + piece.pcm)
            return
    audio.append(piece)


def _rest(segment: _Segment, heard: int) -> _Segment:
    return segment._replace(
        first=segment.first + heard,
        pcm=segment.pcm[2 * heard :],
        raw=segment.raw[2 * heard :],
        at_ns=segment.at_ns + to_ns(heard),
        offset=segment.offset + heard,
    )


def _nothing() -> None:
    pass
