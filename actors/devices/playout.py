"""The playout: the queue of audio for the device, and the record of what was heard of it.

The actor pushes, flushes and settles; the device pulls on its own thread. Each call holds one lock
for microseconds. The playout has no thread and no clock: times are ``time.monotonic_ns()``, passed
in. Positions are samples within an item.

The life of a sample: `Playout.push` queues it in a `_Chunk`; when the device takes it, it moves to
a `_Segment` with the time at which it will be heard; once that time has passed, `Playout.settle`
returns it in a `Played`.
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
"""With fewer samples queued than this, the actor is woken, so that it acknowledges messages and the
supervisor sends more."""
_NEW_RUN_NS = 50_000_000
"""Difference between the device's clock and the sample count that starts a new run."""
_KNOWN_ITEMS = 16
"""Number of past items whose position is remembered, so that late audio of them is skipped."""


class Marker(Protocol):
    """Keeps the samples taken of each item over a crash; see `actors.devices.mark.ItemMark`."""

    def taken(self) -> dict[str, int]: ...
    def set(self, item_id: str, taken: int) -> None: ...


class Played(NamedTuple):
    """A piece of audio that was heard."""

    item_id: str
    run_ns: int
    """Start time of its run, which is a stretch of audio without interruption."""
    offset: int
    """Position in the run, in samples."""
    pcm: bytes
    """The audio as it was heard, with volume and fades applied."""


class Finished(NamedTuple):
    """An item that was heard to its end."""

    item_id: str
    played: int


class Settled(NamedTuple):
    """The changes since the last call of `Playout.settle`."""

    audio: list[Played]
    finished: list[Finished]
    position: tuple[str, int] | None
    """The current item and the samples heard of it; None: there is no current item."""


class Flushed(NamedTuple):
    """Where a flush stopped playback.

    If nothing was playing or queued, it is the end of the last item that was heard to its end, even
    if that is long ago: realtime may not know it yet. ``item_id`` is empty if there is none.
    """

    item_id: str
    played: int
    at_ns: int
    """When the device's own buffer runs out; until then, audio is still heard."""


class _PlayoutItem:
    __slots__ = (
        "begun",
        "dry_ns",
        "item_id",
        "last",
        "played",
        "received",
        "start",
        "starved",
        "taken",
    )

    def __init__(self, item_id: str, start: int) -> None:
        self.item_id = item_id
        self.start = start
        """The first sample pushed."""
        self.received = start
        """The next sample to be pushed."""
        self.taken = start
        """The next sample to be taken by the device."""
        self.played = start
        """The next sample to be heard."""
        self.begun = False
        """Whether the device has taken audio of this item."""
        self.starved = False
        """Whether an underrun lasts: the device asked for more, and no audio has arrived since."""
        self.dry_ns = -1
        """When the underrun began; -1: there is none."""
        self.last = False
        """Whether the end of the item was pushed."""


class _Chunk(NamedTuple):
    """Queued audio of one item; ``first`` is the position of its first sample."""

    item: _PlayoutItem
    first: int
    pcm: memoryview


class _Segment(NamedTuple):
    """Audio of one item that the device has taken in one call and that is not yet heard."""

    item: _PlayoutItem
    first: int
    pcm: bytes
    raw: memoryview
    """The same audio before volume and fades; played again if the device gives it back."""
    samples: int
    at_ns: int
    """When its first sample is heard."""
    end_ns: int
    """When its last sample has been heard."""
    run_ns: int
    offset: int


class Playout:
    """The queue of audio for the device, in the order of items, and the record of what was heard.

    One large class, because all of its state is under one lock: each operation changes the queue,
    the items and the segments together, and the device must never see one without the others.

    It is longer and has more attributes than other classes: the actor and the device change the
    same facts, under one lock.

    Args:
        prefill: Samples that must be queued before an item starts. It starts with fewer if all of
            it is there, or once the device has asked for this many in vain.
        marker: Keeps the samples taken of each item; these are not played again after a crash.
        volume: 0.0-1.0.
    """

    def __init__(self, prefill: int = 0, marker: Marker | None = None, volume: float = 1.0) -> None:
        self._marker = marker
        self._lock = threading.Lock()
        self._items: collections.deque[_PlayoutItem] = collections.deque()
        """The items that are not over, in the order of playback."""
        self._known = marker.taken() if marker else {}
        """Samples taken of past items, by item id."""
        self._finished = Finished("", 0)
        """The last item that was heard to its end."""
        self._chunks: collections.deque[_Chunk] = collections.deque()
        self._queued = 0
        """Samples in `_chunks`."""
        self._segments: collections.deque[_Segment] = collections.deque()
        self._fader = Fader(volume)
        self._prefill = Prefill(prefill)
        self._running = False
        """Whether the device gets audio now; False: it gets silence."""
        self._paused = False
        self._run_ns = -1
        """Start time of the current run; -1: there is none."""
        self._run_samples = 0
        self._wake: Callable[[], None] = _nothing
        self._low = False
        """Whether the actor should be woken, because the queue ran low or a chunk was used up."""
        self._woken = False
        """Whether the actor was woken and has not called `progress` since."""

    # -- for the actor ------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None]) -> None:
        """Set the function that is called, on the device's thread, when the queue runs low.

        It is called once, and again only after the next `progress`.
        """
        with self._lock:
            self._wake = wake
            self._woken = False

    def push(self, item_id: str, first: int, pcm: bytes, last: bool = False) -> None:
        """Queue audio of an item; samples that were pushed or taken before are skipped."""
        with self._lock:
            item = self._item(item_id, first)
            if item.received < first:  # audio before it was lost: go on without it
                if item.taken == item.received:
                    item.taken = item.played = first
                item.received = first
            new = memoryview(pcm)[2 * (item.received - first) : len(pcm) & ~1]
            item.last = item.last or last
            if not new:
                return
            if item.starved:  # the silence was an underrun, and not the end of the item
                item.starved = False
                self._prefill.falter()
            self._chunks.append(_Chunk(item, item.received, new))
            item.received += len(new) // 2
            self._queued += len(new) // 2

    def continues(self, item_id: str, first: int) -> bool:
        """Return whether audio can be pushed without audio missing before it."""
        with self._lock:
            for item in self._items:
                if item.item_id == item_id:
                    return first <= item.received
                if not item.last:
                    return False
            return first == 0 and item_id not in self._known

    def progress(self) -> dict[str, int]:
        """Return the samples that the device has taken of each item that is not over."""
        with self._lock:
            self._woken = False
            return {item.item_id: item.taken for item in self._items}

    def settle(self, heard_ns: int) -> Settled:
        """Return the audio heard up to this time, without that of earlier calls."""
        with self._lock:
            audio = self._settle_audio(heard_ns)
            finished = self._settle_items()
            front = self._items[0] if self._items else None
            position = (front.item_id, front.played) if front else None
            return Settled(audio, finished, position)

    def left_ns(self, now_ns: int) -> int | None:
        """Return how long the audio here still plays if not interrupted; None: all was heard."""
        with self._lock:
            if not self._segments and not self._chunks:
                return None
            # What the device has taken plays first, and then the queue.
            taken_ns = self._segments[-1].end_ns - now_ns if self._segments else 0
            return max(0, taken_ns) + to_ns(self._queued)

    def flush(self, now_ns: int, *, taken_back: bool = False, overheard: int = 0) -> Flushed:
        """Discard the queue, except for a fade-out of a few milliseconds.

        Args:
            now_ns: The time.
            taken_back: Whether the device also discards what it has taken; if so, everything not
                heard at the last `settle` counts as not played.
            overheard: Samples that were settled and not heard; they count as not played.
        """
        with self._lock:
            if taken_back:
                self._take_back()
            self._paused = False
            current = self._current(plays_on=not taken_back)
            if current is not None and overheard:
                current.taken = max(min(current.start, current.taken), current.taken - overheard)
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
                return Flushed(*self._finished, end_ns)
            played = current.taken + (self._queued if tail and tail.item is current else 0)
            self._drop_from(current)
            self._remember(current.item_id, played)
            return Flushed(current.item_id, played, end_ns)

    def pause(self, *, taken_back: bool = False) -> None:
        """Give the device a fade-out, and then silence until `resume` or `flush`.

        Audio pushed during the pause is queued. Pausing twice is harmless.

        Args:
            taken_back: Whether the device also discards what it has taken; if so, everything not
                heard at the last `settle` is played after the pause.
        """
        with self._lock:
            if taken_back:
                self._put_back()
                self._halt()
            self._paused = True

    def give_back(self) -> list[tuple[str, int, bytes]]:
        """Return all audio that a lost device has not played, for the playout of another device.

        Returns:
            Item, first sample and audio of each piece: first what the device had taken but what was
            not heard at the last `settle`, then the queue.
        """
        with self._lock:
            self._put_back()
            self._halt()
            return [
                (chunk.item.item_id, chunk.first, bytes(chunk.pcm))
                for chunk in self._chunks
                if chunk.item in self._items  # otherwise it is the fade-out of a flush
            ]

    def resume(self) -> None:
        """Continue with the sample at which the pause began, with a fade-in."""
        with self._lock:
            if self._paused:
                self._paused = False
                if not self._running:  # otherwise the device has not noticed the pause yet
                    self._fader.fade_in()

    def faltered(self) -> tuple[int, int]:
        """Return the underruns, and the nanoseconds of silence, since the last call."""
        with self._lock:
            return self._prefill.take_faltered()

    @property
    def running(self) -> bool:
        """Whether the last block given to the device was audio, not silence."""
        return self._running

    @property
    def paused(self) -> bool:
        """Whether playback is paused; the queue may hold audio."""
        return self._paused

    @property
    def queued(self) -> int:
        """The samples that wait for the device."""
        return self._queued

    def front(self) -> tuple[str, int]:
        """Return the current item and the next sample to be taken; the id is empty without one."""
        with self._lock:
            current = self._current(plays_on=True)
            return (current.item_id, current.taken) if current else ("", 0)

    def set_volume(self, volume: float) -> None:
        """Change the volume, 0.0-1.0, with a short ramp."""
        with self._lock:
            self._fader.set_volume(volume, sounding=self._running)

    # -- for the device -----------------------------------------------------------------------

    def pull(self, samples: int, at_ns: int) -> bytes:
        """Take the next block, padded with silence.

        Args:
            samples: The length of the block.
            at_ns: When its first sample will be heard.
        """
        return self._take(samples, at_ns, pads=True)

    def take(self, samples: int, at_ns: int) -> bytes:
        """Take the next block; it is shorter, or empty, if the queue has less."""
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
            wake = self._low and not self._woken
            if wake:
                self._woken, self._low = True, False
        if wake:
            self._wake()  # not under the lock: it calls foreign code
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
        """Return the fade-out that starts a pause; after it, nothing."""
        if not self._running or not self._chunks:
            self._halt()
            return b""
        parts, _ = self._next_parts(min(samples, FADE))
        pcm = self._fader.faded_out(b"".join(part.pcm for part in parts))
        self._note_taken(parts, pcm, at_ns)
        self._halt()
        return pcm

    def _next_parts(self, samples: int) -> tuple[list[_Chunk], bool]:
        """Return the parts of the next block, and whether this takes the end of a pushed piece."""
        parts: list[_Chunk] = []
        missing = samples
        whole = False
        while missing and self._chunks:
            chunk = self._chunks.popleft()
            if len(chunk.pcm) > 2 * missing:
                item, first, pcm = chunk
                self._chunks.appendleft(_Chunk(item, first + missing, pcm[2 * missing :]))
                chunk = _Chunk(item, first, pcm[: 2 * missing])
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
        """Record that the device is given audio from now on."""
        self._running = True
        chunk = self._chunks[0]
        if chunk.item.dry_ns >= 0:
            self._prefill.note_silence(at_ns - chunk.item.dry_ns)
            chunk.item.dry_ns = -1
        if fades_in and chunk.first > 0:  # the start of an item needs no ramp
            self._fader.fade_in()

    def _stop(self, at_ns: int) -> None:
        """Record that the device is given silence from this time on."""
        if self._running and self._items and not self._chunks:
            # It is an underrun only if more of the item comes, which `push` finds out.
            newest = self._items[-1]
            newest.starved = not newest.last
            newest.dry_ns = at_ns if newest.starved else -1
        self._halt()

    def _halt(self) -> None:
        self._running = False
        self._run_ns = -1
        self._fader.silence()

    def _note_taken(self, parts: list[_Chunk], pcm: bytes, at_ns: int) -> None:
        # Within a run, time is the count of samples: the device's own times jitter.
        expected_ns = self._run_ns + to_ns(self._run_samples)
        if self._run_ns == -1 or abs(at_ns - expected_ns) > _NEW_RUN_NS:
            self._run_ns, self._run_samples = at_ns, 0
        done, part_ns = 0, at_ns
        for item, first, piece in parts:
            samples = len(piece) // 2
            part = pcm[2 * done : 2 * (done + samples)]
            run_ns, offset = self._run_ns, self._run_samples
            done += samples
            end_ns = at_ns + to_ns(done)
            self._segments.append(
                _Segment(item, first, part, piece, samples, part_ns, end_ns, run_ns, offset)
            )
            part_ns = end_ns
            self._run_samples += samples
            item.taken = first + samples
            item.begun = True
            if self._marker:
                self._marker.set(item.item_id, item.taken)

    def _note_edge(self, pcm: bytes) -> None:
        """Record the last sample for a ramp down in case nothing follows; no ramp at item ends."""
        if pcm:
            item = self._segments[-1].item
            ends = item.last and item.taken == item.received
            self._fader.note_edge(pcm, breaks_off=not ends)

    # -- settling and flushing, with the lock held --------------------------------------------

    def _item(self, item_id: str, first: int) -> _PlayoutItem:
        for item in reversed(self._items):
            if item.item_id == item_id:
                return item
        # An item that is over, or of before a crash, may come again: skip what was taken of it.
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
                self._finished = Finished(item.item_id, item.played)
                finished.append(self._finished)
                self._prefill.note_end()
            elif len(self._items) == 1 or not self._items[1].begun:
                break  # more audio of this item may come
            self._items.popleft()
            self._remember(item.item_id, item.taken)
        return finished

    def _take_back(self) -> None:
        """Count what the device has taken but not played as not taken, and discard it."""
        for segment in self._segments:
            segment.item.taken = min(segment.item.taken, segment.first)
        self._segments.clear()

    def _put_back(self) -> None:
        """Put what the device has taken but not played back at the front of the queue."""
        for segment in reversed(self._segments):
            self._chunks.appendleft(_Chunk(segment.item, segment.first, segment.raw))
            self._queued += segment.samples
            if self._marker:
                self._marker.set(segment.item.item_id, segment.first)
        self._take_back()

    def _current(self, *, plays_on: bool) -> _PlayoutItem | None:
        """Return the current item, the one that a flush interrupts.

        That is the newest item of which the device has taken audio and which is not heard to its
        end, if the device still plays the end of the item before; if it does not, the oldest one.
        If there is none, it is the first item that waits.
        """
        unheard = [item for item in self._items if item.played < item.received]
        begun = [item for item in unheard if item.begun]
        for items in (begun[-1:] if plays_on else begun[:1], unheard[:1], list(self._items)[:1]):
            if items:
                return items[0]
        return None

    def _fade_out(self) -> _Chunk | None:
        """Return the fade-out of a flush; None: no audio is playing that would click."""
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
        """Drop the current item and all after it; the items before it will still be heard."""
        kept = list(self._items)
        dropped = kept[kept.index(current) :]
        for item in dropped:
            self._remember(item.item_id, item.taken)
        self._items = collections.deque(item for item in kept if item not in dropped and item.last)

    def _remember(self, item_id: str, taken: int) -> None:
        self._known.pop(item_id, None)  # so that it becomes the newest of the dict
        self._known[item_id] = taken
        while len(self._known) > _KNOWN_ITEMS:
            del self._known[next(iter(self._known))]


def _append(audio: list[Played], piece: Played) -> None:
    """Append a piece, or join it to the last one if it continues it."""
    if audio:
        before = audio[-1]
        joins = before.item_id == piece.item_id and before.run_ns == piece.run_ns
        if joins and before.offset + len(before.pcm) // 2 == piece.offset:
            audio[-1] = before._replace(pcm=before.pcm + piece.pcm)
            return
    audio.append(piece)


def _rest(segment: _Segment, heard: int) -> _Segment:
    """Return a segment without the samples that were heard."""
    return segment._replace(
        first=segment.first + heard,
        pcm=segment.pcm[2 * heard :],
        raw=segment.raw[2 * heard :],
        samples=segment.samples - heard,
        at_ns=segment.at_ns + to_ns(heard),
        offset=segment.offset + heard,
    )


def _nothing() -> None:
    pass
