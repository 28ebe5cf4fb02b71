from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtvoice.service.admission import Admission, Cost, Limits, Load
from rtvoice.service.errors import Busy, Draining


def admission(**limits: Any) -> Admission:
    return Admission(Limits(**{"cores": 2.0, "parallel": 2, **limits}))


def taken_until_busy(table: Admission) -> tuple[int, str]:
    for number in range(1000):
        try:
            table.take()
        except Busy as busy:
            return number, busy.reason
    return 1000, ""


def test_a_place_is_reserved_by_the_call_that_says_yes() -> None:
    table = admission(max_sessions=4, cpu_limit=None)

    assert taken_until_busy(table) == (4, "sessions")


def test_a_released_place_is_given_again_and_only_once() -> None:
    table = admission(max_sessions=1, cpu_limit=None)
    place = table.take()
    place.release()
    table.take()
    place.release()

    with pytest.raises(Busy, match="all places of the service are taken; try again in 5 s"):
        table.take()


def test_who_leaves_while_starting_is_not_expected_to_cost_anything() -> None:
    table = admission(cpu_limit=None)
    table.measured(Load(free_mib=100))

    for _ in range(10):
        table.take().release()

    assert taken_until_busy(table) == (2, "memory")


def test_a_starting_conversation_counts_three_times() -> None:
    table = admission(parallel=100, cpu_limit=0.5)  # one core, of which each start takes 0.15

    assert taken_until_busy(table) == (6, "cpu")


def test_those_that_wait_for_their_start_count_once() -> None:
    table = admission(parallel=2, cpu_limit=0.5)  # 2 * 0.15, and 14 * 0.05

    assert taken_until_busy(table) == (16, "cpu")


def test_what_other_programs_use_is_not_there_for_us() -> None:
    table = admission(cpu_limit=0.75)
    table.measured(Load(busy_cores=1.4))

    with pytest.raises(Busy) as refused:
        table.take()

    assert refused.value.reason == "cpu"


def test_memory_that_was_promised_is_not_promised_again() -> None:
    table = admission(cpu_limit=None)
    table.measured(Load(free_mib=100))

    assert taken_until_busy(table) == (2, "memory")


@pytest.mark.parametrize(
    ("limits", "load", "reason"),
    [
        ({"lag_limit_ms": 50}, Load(lag_ms=51), "lag"),
        ({"tokens_per_minute": 100}, Load(tokens=100), "tokens"),
        ({}, Load(tokens_left=0), "tokens"),
    ],
)
def test_each_limit_refuses_with_its_own_reason(
    limits: dict[str, Any], load: Load, reason: str
) -> None:
    table = admission(**limits)
    table.measured(load)

    assert table.shortage() == reason


def test_what_a_conversation_costs_is_learned() -> None:
    table = admission()
    for _ in range(4):
        table.take().state = "running"

    for _ in range(50):
        table.measured(Load(busy_cores=0.4, tree_cores=0.4, pss_mib=200, tokens=4000))

    assert table.cost == pytest.approx(Cost(0.1, 50, 1000), rel=0.01)
    assert table.capacity == 15


def test_nothing_is_learned_while_one_starts() -> None:
    table = admission()
    table.take()
    table.measured(Load(tree_cores=2.0, pss_mib=500))

    assert table.cost == Cost()


def test_who_drains_takes_nobody() -> None:
    table = admission()
    table.draining = True

    with pytest.raises(Draining):
        table.take()


@given(st.lists(st.sampled_from(["take", "run", "release", "measure"]), max_size=60))
def test_there_are_never_more_than_allowed(steps: list[str]) -> None:
    table = admission(max_sessions=5, cpu_limit=None)
    places: list[Any] = []
    for step in steps:
        if step == "take":
            try:
                places.append(table.take())
            except Busy:
                assert len(places) == 5
        elif step == "run" and places:
            places[-1].state = "running"
        elif step == "release" and places:
            places.pop().release()
        elif step == "measure":
            table.measured(Load(free_mib=math.inf))
        assert table.count() == len(places) <= 5
