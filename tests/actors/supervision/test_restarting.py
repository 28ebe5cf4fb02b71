"""When a crashed component is restarted, by plain calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.supervision.restarting import RestartPolicy


def test_new_processes_are_a_second_apart() -> None:
    policy = RestartPolicy()
    policy.started(100.0)

    assert policy.renewed(100.2) == pytest.approx(0.8)
    assert policy.renewed(105.0) == 0.0


def test_restart_delays_grow_without_progress_until_the_intensity_is_exceeded() -> None:
    policy = RestartPolicy()

    delays = [policy.crashed(now, progress=False) for now in (0, 1, 2, 3, 4, 5)]

    assert delays == [0.0, 0.05, 0.1, 0.2, 0.4, None]


def test_slow_failures_are_not_retried_for_ever() -> None:
    policy = RestartPolicy()

    delays = [policy.crashed(15.0 * attempt, progress=False, well_s=0.0) for attempt in range(6)]

    assert delays[-1] is None


def test_crashes_are_forgotten_after_ten_seconds_without_another() -> None:
    policy = RestartPolicy()

    delays = [policy.crashed(11.0 * life, progress=False, well_s=10.1) for life in range(10)]

    assert delays == [0.0] * 10


def test_progress_resets_the_count_but_starts_stay_apart() -> None:
    policy = RestartPolicy()
    for now in (0, 1, 2):
        policy.crashed(now, progress=False)
    policy.started(3.0)

    assert policy.crashed(3.01, progress=True) == pytest.approx(0.04)
    assert policy.row == 1


def test_a_parked_component_is_retried_less_and_less_often_until_progress() -> None:
    policy = RestartPolicy()

    delays = [policy.parked() for _ in range(7)]
    policy.crashed(100.0, progress=True)

    assert delays == [1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
    assert policy.parked() == 1.0


def test_what_was_parked_is_not_parked_again_by_its_first_crash() -> None:
    policy = RestartPolicy()
    while policy.crashed(0.0, progress=False) is not None:
        pass
    policy.parked()

    assert policy.crashed(1.0, progress=False) == 0.0


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=50))
def test_a_component_is_never_started_more_often_than_every_50_ms(
    steps: list[tuple[float, bool]],
) -> None:
    policy, now, last = RestartPolicy(), 100.0, -1.0
    for lived, progress in steps:
        now += lived
        delay = policy.crashed(now, progress=progress)
        if delay is None:
            delay = policy.parked()
        now += delay
        assert now - last >= policy.MIN_SPACING_S - 1e-9
        policy.started(now)
        last = now
