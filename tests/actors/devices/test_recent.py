"""What was sent to the recorder lately is read by the next one."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from actors.devices.recent import RecentSound, recent_sound
from messages import SessionInfo

RING = 48_000


@pytest.fixture
def session(tmp_path: Path) -> SessionInfo:
    return SessionInfo(epoch_ns=0, directory=str(tmp_path))


def pcm(first: int, samples: int) -> bytes:
    """Return sound in which each sample is known by its value."""
    return array("h", [1 + number % 30_000 for number in range(first, first + samples)]).tobytes()


def test_without_a_file_there_is_none(session: SessionInfo) -> None:
    assert recent_sound(session, "microphone") == (0, b"")


def test_the_newest_second_is_kept_wherever_the_ring_is_cut(session: SessionInfo) -> None:
    kept = RecentSound(session, "microphone")
    for first in range(1_000, 1_000 + 3 * RING, 960):
        kept.put(first, pcm(first, 960))

        begin = max(1_000, first + 960 - RING // 2)
        assert recent_sound(session, "microphone") == (begin, pcm(begin, first + 960 - begin))


def test_between_what_was_sent_there_is_silence(session: SessionInfo) -> None:
    kept = RecentSound(session, "speaker")
    kept.put(RING - 100, pcm(0, 50))
    kept.put(RING + 200, pcm(0, 50))

    assert recent_sound(session, "speaker") == (RING - 100, pcm(0, 50) + bytes(500) + pcm(0, 50))


def test_what_comes_long_after_stands_alone(session: SessionInfo) -> None:
    kept = RecentSound(session, "speaker")
    kept.put(0, pcm(0, 50))
    kept.put(RING, pcm(7, 50))

    assert recent_sound(session, "speaker") == (RING, pcm(7, 50))


def test_the_next_process_goes_on(session: SessionInfo) -> None:
    RecentSound(session, "speaker").put(0, pcm(0, 960))
    again = SessionInfo(epoch_ns=0, directory=session.directory, first=False)

    RecentSound(again, "speaker").put(960, pcm(960, 960))

    assert recent_sound(session, "speaker") == (0, pcm(0, 1920))
    RecentSound(session, "speaker")
    assert recent_sound(session, "speaker") == (0, b""), "a new session has none"
