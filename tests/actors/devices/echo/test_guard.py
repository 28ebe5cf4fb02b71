"""The guard: half-duplex until the echo is seen to be cancelled, and again once it is not.

The engine is a stand-in that takes away what it is told to, so that the cases are exact; the real
one is in `test_canceller.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from actors.devices.echo.guard import FRAME, Guard, Verdict
from tests.actors.devices.echo.rooms import RATE, Floats, Room, pcm16, talk

SECONDS = 12.0
ROOM = Room()
QUIET = Room(gain=0.0)


def changes(
    played: Floats, heard: Floats, left: Floats, guard: Guard | None = None
) -> list[tuple[float, Verdict]]:
    """Return when the verdict changed, in seconds, and to what."""
    guard = guard or Guard()
    found, last = [], guard.verdict
    streams = [pcm16(each) for each in (heard, played, left)]
    for at in range(0, len(played) // FRAME * FRAME, FRAME):
        guard.judge(*(each[at : at + FRAME] for each in streams))
        if guard.verdict is not last:
            last = guard.verdict
            found.append((round(at / RATE, 1), last))
    return found


def after(second: float, before: Floats, then: Floats) -> Floats:
    at = int(second * RATE)
    return np.concatenate((before[:at], then[at:]))


@pytest.fixture(scope="module")
def played() -> Floats:
    return talk(1, SECONDS)


@pytest.mark.parametrize("delay_ms", [20, 80, 300])
def test_it_opens_within_a_second_and_knows_how_far_the_echo_is(
    played: Floats, delay_ms: int
) -> None:
    heard, guard = Room(delay_ms).heard(played), Guard()

    found = changes(played, heard, heard * 0.03, guard)

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED]
    assert found[0][0] <= 1.3
    assert guard.erle_db == pytest.approx(30, abs=1)
    assert guard.lag_ms == pytest.approx(delay_ms, abs=3)


def test_in_a_new_process_it_looks_longer_before_it_opens(played: Floats) -> None:
    heard = ROOM.heard(played)

    first, anew = (
        changes(played, heard, heard * 0.03, Guard(anew=anew))[0][0] for anew in (False, True)
    )

    assert 0.1 <= anew - first <= 0.3


def test_it_opens_on_what_is_cancelled_now_and_reports_that(played: Floats) -> None:
    heard, guard = ROOM.heard(played[: 2 * RATE]), Guard()

    changes(played[: 2 * RATE], heard, after(1, heard * 0.7, heard * 0.03), guard)

    assert guard.verdict is Verdict.CANCELLED
    assert guard.erle_db >= 15


def test_it_does_not_open_where_nothing_is_cancelled_and_then_says_so(played: Floats) -> None:
    heard = ROOM.heard(played)

    assert [verdict for _, verdict in changes(played, heard, heard)] == [Verdict.FAILED]


def test_it_does_not_open_while_nothing_is_played(played: Floats) -> None:
    silence = np.zeros_like(played)

    assert changes(silence, QUIET.heard(silence, talk(2, SECONDS)), silence) == []


@pytest.mark.parametrize("near_db", [-35.0, -25.0, -15.0])
def test_a_user_who_speaks_over_a_cancelled_echo_does_not_shut_it(
    played: Floats, near_db: float
) -> None:
    near = after(4, np.zeros_like(played), talk(3, SECONDS, near_db))
    heard = ROOM.heard(played, near)

    found = changes(played, heard, ROOM.heard(played) * 0.03 + near)

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED]


def test_headphones_open_it_and_no_talk_shuts_it(played: Floats) -> None:
    near = after(3, np.zeros_like(played), talk(3, SECONDS))
    heard = QUIET.heard(played, near)

    found = changes(played, heard, heard)

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED]
    assert found[0][0] <= 3.0


def test_headphones_open_it_under_a_user_who_never_stops(played: Floats) -> None:
    heard = QUIET.heard(played, talk(3, SECONDS))

    assert [verdict for _, verdict in changes(played, heard, heard)] == [Verdict.CANCELLED]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda played: np.roll(played, -RATE), id="a second early"),
        pytest.param(lambda played: np.roll(played, RATE), id="a second late"),
        pytest.param(lambda played: talk(9, SECONDS), id="something else"),
    ],
)
def test_a_reference_that_becomes_wrong_shuts_it_for_good(
    played: Floats, wrong: Callable[[Floats], Floats]
) -> None:
    heard = ROOM.heard(played)
    reference = after(4, played, wrong(played))

    found = changes(reference, heard, after(4, heard * 0.03, heard * 0.7))

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED, Verdict.FAILED]
    assert 4 < found[1][0] <= 7.5


def test_a_reference_that_is_right_again_opens_it_again(played: Floats) -> None:
    heard = ROOM.heard(played)
    reference = after(8, after(4, played, np.roll(played, -RATE)), played)
    left = after(8, after(4, heard * 0.03, heard * 0.7), heard * 0.03)

    found = changes(reference, heard, left)

    assert [verdict for _, verdict in found] == [
        Verdict.CANCELLED,
        Verdict.FAILED,
        Verdict.CANCELLED,
    ]
    assert found[-1][0] <= 8 + 5


def test_an_engine_that_adapts_to_a_new_path_has_time_for_that(played: Floats) -> None:
    heard = ROOM.heard(played)
    left = after(5.5, after(4, heard * 0.03, heard * 0.7), heard * 0.03)

    assert [verdict for _, verdict in changes(played, heard, left)] == [Verdict.CANCELLED]


def test_a_lost_echo_is_distinguished_from_a_user_who_speaks(played: Floats) -> None:
    heard, near = ROOM.heard(played), after(4, np.zeros_like(played), talk(3, SECONDS))
    lost, spoken_over = Guard(), Guard()

    changes(played, heard, after(6, after(4, heard * 0.03, heard * 0.7), heard * 0.03), lost)
    changes(played, ROOM.heard(played, near), heard * 0.03 + near, spoken_over)

    assert (lost.lost, spoken_over.lost) == (1, 0)


def test_streams_that_were_moved_are_judged_anew(played: Floats) -> None:
    heard, guard = ROOM.heard(played), Guard()
    half = len(played) // 2
    changes(played[:half], heard[:half], heard[:half] * 0.03, guard)

    guard.relearn()
    found = changes(played[half:], heard[half:], heard[half:] * 0.03, guard)

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED]
    assert found[0][0] <= 1.5


def test_it_opens_where_the_noise_of_the_room_hides_what_is_left(played: Floats) -> None:
    room = Room(gain=0.3, noise_db=-45.0)
    noise = Room(gain=0.0, noise_db=-45.0).heard(played)

    found = changes(played, room.heard(played), noise)

    assert [verdict for _, verdict in found] == [Verdict.CANCELLED]
