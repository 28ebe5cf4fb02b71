"""The mapping between samples of the session and times of the server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.realtime.core.timeline import Timeline

blocks = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 2000)), min_size=1, max_size=50)


def _append(steps: list[tuple[int, int]]) -> tuple[Timeline, list[int]]:
    """Append blocks, each after a gap; return also which sample each appended one is."""
    timeline, samples, at = Timeline(), [], 0
    for gap, count in steps:
        at += gap
        timeline.append(at, count)
        samples.extend(range(at, at + count))
        at += count
    return timeline, samples


def test_without_gaps_both_clocks_agree() -> None:
    timeline = Timeline(24_000)
    timeline.append(24_000, 24_000)

    assert timeline.session_sample(500) == 36_000
    assert timeline.server_ms(36_000) == 500


def test_a_gap_is_not_heard_by_the_server() -> None:
    timeline = Timeline()
    timeline.append(0, 24_000)
    timeline.append(48_000, 24_000)

    assert timeline.session_sample(999) == 23_976
    assert timeline.session_sample(1000) == 48_000
    assert timeline.server_ms(30_000) == 1000


@given(blocks)
def test_every_sample_is_found_again(steps: list[tuple[int, int]]) -> None:
    timeline, samples = _append(steps)

    for position in range(0, len(samples), 24):
        assert timeline.session_sample(position / 24) == samples[position]
        assert timeline.server_ms(samples[position]) == position / 24
    assert timeline.appended == len(samples)
    assert timeline.next_sample == samples[-1] + 1


def test_only_the_last_gaps_are_remembered() -> None:
    timeline, samples = _append([(1, 24)] * 1000)

    assert timeline.session_sample(999) == samples[999 * 24]
    assert timeline.session_sample(0) >= 0


def test_before_anything_was_appended_there_is_an_answer_too() -> None:
    assert Timeline(100).session_sample(5000) == 100
    assert Timeline(100).server_ms(50) == 0
