"""The output ``null``: in real time, and woken seldom."""

from __future__ import annotations

import pytest

from actors.devices.opening import open_playback
from actors.devices.playout import Playout
from actors.devices.silence import NullPlayback
from messages import SessionInfo, Settings

MS = 1_000_000


def play(device: NullPlayback, playout: Playout, until_ms: int) -> int:
    """Let time go by from 0 to here; return how often the device was woken."""
    now_ns, woken = 0, 0
    device.start(playout, lambda _: None)
    while now_ns <= until_ms * MS:
        woken += 1
        _, wait_s = device.pump(now_ns)
        assert wait_s is not None
        now_ns += round(wait_s * 1e9)
    return woken


@pytest.mark.parametrize(
    ("recording", "times"), [(None, 11), ("talk.wav", 51)], ids=["unrecorded", "recorded"]
)
def test_it_takes_more_at_once_where_nothing_is_recorded(recording: str | None, times: int) -> None:
    settings = Settings(output="null", recording_path=recording)
    device, playout = open_playback(settings, SessionInfo(epoch_ns=0, directory="")), Playout()
    assert isinstance(device, NullPlayback)
    playout.push("a", 0, bytes(2 * 48_000))

    assert play(device, playout, 1_000) == times


def test_what_it_had_taken_and_not_played_is_taken_back() -> None:
    device, playout = NullPlayback(), Playout()
    playout.push("a", 0, bytes(2 * 48_000))
    play(device, playout, 510)  # it has taken 600 ms

    playout.settle(device.heard_until(510 * MS))
    flushed = playout.flush(510 * MS, taken_back=device.clears)
    device.flush(510 * MS)
    playout.push("b", 0, bytes(2 * 2_400))
    device.pump(515 * MS)

    assert flushed.played == 510 * 24
    assert playout.settle(525 * MS).position == ("b", 240), "the next one begins at once"
