"""The newest sound that was sent to the recorder, for the case that the supervisor dies with it.

The supervisor collects sound for the recorder for a fifth of a second. The sender keeps as much in
a mapped file of the session, which the next recorder reads.

Layout: two unsigned 64-bit numbers, the first sample and the end of what is kept, and the samples
(int16 mono, 24 kHz), sample n of the timeline in place n modulo their number. Only the newer half
is read: a writer that is killed has damaged the older one at most.
"""

from __future__ import annotations

import contextlib
import os
import struct

from actors.base import Actor
from messages import SAMPLE_RATE, SessionInfo
from messages.transport.mapped import map_file

__all__ = ["RecentSound", "keep_recent", "recent_sound"]

_HEAD = struct.Struct("=QQ")
_SAMPLES = 2 * SAMPLE_RATE
_BYTES = _HEAD.size + 2 * _SAMPLES


class RecentSound:
    """The sender's end.

    Args:
        session: The session.
        component: Name of the sender.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, session: SessionInfo, component: str) -> None:
        flags = os.O_CREAT | (os.O_TRUNC if session.first else 0)
        self._map = map_file(session.file(_name(component)), _BYTES, flags)
        self._first, self._end = _HEAD.unpack_from(self._map)

    def put(self, first: int, pcm: bytes) -> None:
        """Keep sound that is sent.

        Args:
            first: Its first sample on the timeline of the session.
            pcm: int16 mono, 24 kHz.
        """
        end = first + len(pcm) // 2
        if first < 0 or end - first > _SAMPLES // 2 or end <= self._end - _SAMPLES // 2:
            return
        if not self._end or first - self._end > _SAMPLES // 2:
            self._first = self._end = first
        elif first > self._end:
            self._write(self._end, bytes(2 * (first - self._end)))
        self._write(first, pcm)
        self._end = max(self._end, end)
        _HEAD.pack_into(self._map, 0, self._first, self._end)

    def _write(self, first: int, pcm: bytes) -> None:
        place = first % _SAMPLES
        fits = 2 * min(_SAMPLES - place, len(pcm) // 2)
        for at, part in ((place, pcm[:fits]), (0, pcm[fits:])):
            start = _HEAD.size + 2 * at
            self._map[start : start + len(part)] = part

    def close(self) -> None:
        """Unmap the file; the file itself remains."""
        self._map.close()


def keep_recent(actor: Actor, *, always: bool = False) -> RecentSound | None:
    """Return where an actor keeps what it sends to the recorder.

    It survives a raise. Without it, because the disk is full, a death costs the recording more.

    Args:
        actor: The actor.
        always: Whether to keep it also if nothing is recorded; otherwise, None is returned then.
    """
    if not actor.session.directory or not (always or actor.settings.recording_path is not None):
        return None
    if "recent" not in actor.keep:
        with contextlib.suppress(OSError):
            actor.keep["recent"] = RecentSound(actor.session, actor.name)
    kept: RecentSound | None = actor.keep.get("recent")
    return kept


def recent_sound(session: SessionInfo, component: str) -> tuple[int, bytes]:
    """Return the newest sound that a component has sent: its first sample, and the sound."""
    try:
        data = session.file(_name(component)).read_bytes()
    except OSError:
        return 0, b""
    if len(data) < _BYTES:
        return 0, b""
    first, end = _HEAD.unpack_from(data)
    first = max(first, end - _SAMPLES // 2)
    ring = data[_HEAD.size :] * 2
    place = first % _SAMPLES
    return first, ring[2 * place : 2 * (place + end - first)]


def _name(component: str) -> str:
    return f"{component}.recent"
