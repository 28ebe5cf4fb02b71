"""Whole conversations on a simulated clock: server and history agree with what was said."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import Disconnected, Reconnected, ServerVad
from tests.actors.realtime.core.world import laws
from tests.actors.realtime.core.world.world import World

# More of them, and new ones each time: RTVOICE_TEST_EXAMPLES=10000
_WANTED = os.environ.get("RTVOICE_TEST_EXAMPLES")


def _examples(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=int(_WANTED or count),
        derandomize=_WANTED is None,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


pauses = st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0, 3.0, 6.0])
said = ["talk", "talk", "talk", "talk", "cough", "tap", "type", "show", "ask", "interrupt"]
others = ["notify", "change", "drop", "offline", "die", "kill", "wait"]
steps = st.tuples(st.sampled_from([*said, *others]), pauses)
kinds: dict[str, dict[str, Any]] = {
    "immediate": {},
    "confirmed": {"interruption": "confirmed"},
    "push-to-talk": {"turn_detection": None},
    "half-duplex": {"duplex": "half"},
    "text": {"output_modality": "text"},
    "text, push-to-talk": {"output_modality": "text", "turn_detection": None},
    "speech does not interrupt": {"turn_detection": ServerVad(interrupt_response=False)},
    "turns are kept": {"turn_detection": ServerVad(create_response=False)},
    "turns are kept, confirmed": {
        "turn_detection": ServerVad(create_response=False),
        "interruption": "confirmed",
    },
}


def play(
    seed: int, session_s: float, kind: str, moves: list[tuple[str, float]], *, is_rough: bool
) -> World:
    world = World(seed=seed, session_s=session_s, is_rough=is_rough, **kinds[kind])
    for what, pause in moves:
        match what:
            case "offline":
                world.process.drop(offline_s=pause)
            case "drop" | "die":
                getattr(world.process, what)()
            case "kill":
                world.kill()
            case "wait":
                world.run(1.0)
            case _:
                getattr(world.user, what)()
        world.run(pause)
    world.settle()
    return world


def _keeps_the_laws(
    seed: int,
    session_s: float,
    kind: str,
    moves: list[tuple[str, float]],
    *,
    is_rough: bool = False,
) -> None:
    world = play(seed, session_s, kind, moves, is_rough=is_rough)

    laws.hold(world)
    laws.turns_are_published(world)
    laws.questions_are_answered_once(world)
    asked = [what for what, _ in moves if what in said]
    if asked and asked[-1] in ("type", "show"):
        assert laws.is_answered(world) or world.failures or laws.is_interrupted(world)
    assert world.noticed | world.interrupted >= set(world.user.notices)
    assert world.greetings <= 1 + world.process.deaths + len(world.process.all_lines)


conversations = given(
    st.integers(0, 1000),
    st.sampled_from([3600.0, 90.0, 60.0]),
    st.sampled_from(sorted(kinds)),
    st.lists(steps, max_size=25),
    st.booleans(),
)


@_examples(60)
@conversations
def test_whatever_happens_the_server_has_what_was_said_and_heard(
    seed: int, session_s: float, kind: str, moves: list[tuple[str, float]], is_rough: bool
) -> None:
    _keeps_the_laws(seed, session_s, kind, moves, is_rough=is_rough)


def test_a_typed_turn_is_answered_though_unanswered_speech_is_heard_again() -> None:
    moves = [("talk", 0.0), ("talk", 0.0), ("type", 0.3), ("drop", 0.0)]

    _keeps_the_laws(0, 3600.0, "turns are kept", moves)


@pytest.mark.parametrize("tells_order", [True, False])
@pytest.mark.parametrize("ms", [1660, 1700, 1720, 1760])
def test_what_is_typed_while_speech_is_committed_stands_where_the_server_has_it(
    ms: int, tells_order: bool
) -> None:
    world = World(seed=1)
    world.run(3)
    world.process.all_lines[0].tells_order = tells_order

    world.user.say()
    world.run(ms / 1000)
    world.user.type()
    world.settle()

    laws.hold(world)
    laws.turns_are_published(world)


@pytest.mark.long
@pytest.mark.timeout(1800)
@_examples(6000)
@conversations
def test_whatever_happens_thousands_of_times_it_has_what_was_said_and_heard(
    seed: int, session_s: float, kind: str, moves: list[tuple[str, float]], is_rough: bool
) -> None:
    _keeps_the_laws(seed, session_s, kind, moves, is_rough=is_rough)


def _talk(hours: float, session_s: float, drop_every_s: float, *, seed: int) -> World:
    """Talk for so long, with a drop now and then, in mid-sentence or not."""
    world = World(seed=seed, session_s=session_s)
    world.run(3)
    next_drop = world.clock.now + int(drop_every_s * 1e9)
    end = world.clock.now + int(hours * 3600 * 1e9)
    while world.clock.now < end:
        world.user.say()
        world.run(1.8 + world.random.choice([2.0, 5.0, 6.0, 9.0, 15.0]))
        if world.clock.now >= next_drop:
            next_drop += int(drop_every_s * 1e9)
            world.run(world.random.uniform(0, 4))
            world.process.drop(offline_s=world.random.choice([0.0, 0.0, 1.5]))
            world.run(world.random.choice([0.2, 3.0]))
    world.settle()
    return world


def _is_one_conversation(world: World, renewals: int, drops: int) -> None:
    laws.hold(world)
    laws.turns_are_published(world)
    gaps = [event.gap_ms for event in world.of(Reconnected)]
    assert all(event.state_restored for event in world.of(Reconnected))
    assert gaps.count(0) >= renewals
    assert len(world.of(Disconnected)) == drops
    assert len(gaps) - gaps.count(0) <= drops
    assert world.greetings == 1


@pytest.mark.parametrize("seed", [0, 1, 4])  # with 4 the servers accept no ids but their own
def test_two_minutes_with_a_drop_every_forty_seconds_are_one_conversation(seed: int) -> None:
    world = _talk(2 / 60, 36, 40, seed=seed)

    laws.hold(world)
    laws.turns_are_published(world)
    assert world.greetings == 1
    assert len(world.of(Reconnected)) >= 4


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_three_hours_with_a_drop_every_ten_minutes_are_one_conversation(seed: int) -> None:
    world = _talk(3, 3600, 600, seed=seed)

    _is_one_conversation(world, renewals=0, drops=18)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_three_hours_without_a_drop_are_one_conversation_without_a_gap() -> None:
    world = _talk(3, 3600, 10**6, seed=5)

    _is_one_conversation(world, renewals=3, drops=0)
