"""What was said in a conversation, with where its sound is in the recording."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from messages import (
    SAMPLE_RATE,
    Interrupted,
    PlaybackEnded,
    PlaybackStarted,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice.folder.reading import Part
from rtvoice.view import Entry, Latency, View

__all__ = ["Said", "said_in"]


class Said(msgspec.Struct):
    """An entry of the talk, and its sound."""

    entry: Entry
    start_s: float | None = None
    """Where its sound begins in the recording; None: it has none."""
    end_s: float | None = None
    latency: Latency | None = None
    """The steps of an answer to speech."""


def said_in(part: Part, view: View) -> Iterator[Said]:
    """Yield the entries of a part of a conversation, in order."""
    ranges, latencies = _ranges(part), _latencies(part)
    for entry in view.entries:
        start, end = ranges.get(entry.id, (None, None))
        yield Said(entry, start, end, latencies.get(entry.id))


def _ranges(part: Part) -> dict[str, tuple[float, float]]:
    """Return where each item is in the recording, in seconds."""
    found: dict[str, tuple[float, float]] = {}
    begun_at = 0
    first_of: dict[str, int] = {}
    for _, event in part.events:
        match event:
            case UserSpeechStarted(_, first):
                begun_at = first
            case UserSpeechStopped(item_id, last) if item_id:
                found[item_id] = (begun_at / SAMPLE_RATE, last / SAMPLE_RATE)
            case PlaybackStarted(item_id=item_id, first_sample=first):
                first_of[item_id] = first
            case PlaybackEnded(item_id, heard_ms) | Interrupted(item_id, heard_ms):
                if item_id in first_of:
                    start_s = first_of[item_id] / SAMPLE_RATE
                    found[item_id] = (start_s, start_s + heard_ms / 1000)
    return found


def _latencies(part: Part) -> dict[str, Latency]:
    return {
        event.item_id: Latency(
            event.item_id,
            event.after_speech_ms,
            event.committed_after_ms,
            event.received_after_ms,
        )
        for _, event in part.events
        if isinstance(event, PlaybackStarted) and event.after_speech_ms is not None
    }
