"""The wait for an answer, with clocks of which the server's is not exact."""

from __future__ import annotations

from actors.realtime.core.latency import Latency
from actors.realtime.core.state import Saved

EPOCH_NS = 10**12


def test_an_answer_is_not_heard_before_the_speech_has_ended_nor_before_the_session() -> None:
    latency = Latency(Saved(), EPOCH_NS)
    latency.asked(48_000)

    early = latency.heard("a1", "r1", EPOCH_NS - 5_000_000)

    assert early is not None
    assert (early.first_sample, early.after_speech_ms) == (0, 0)


def test_the_time_is_from_the_last_sample_of_speech_to_the_first_of_the_answer() -> None:
    latency = Latency(Saved(), EPOCH_NS)
    latency.asked(48_000)

    started = latency.heard("a1", "r1", EPOCH_NS + 2_650_000_000)

    assert started is not None
    assert (started.first_sample, started.after_speech_ms) == (63_600, 650)
