"""The order of items."""

from __future__ import annotations

import pytest

from actors.realtime.core.chain import Chain


def test_the_servers_order_counts_and_null_means_the_latest_item() -> None:
    chain = Chain()

    chain.note("a")
    chain.note("b")
    chain.note("c", "a")
    chain.note("d", None)

    assert [chain.previous(item) for item in "abcd"] == [None, "a", "a", "c"]


def test_an_item_that_is_not_noted_is_the_next_one() -> None:
    chain = Chain()
    chain.note("a")

    assert chain.previous("new") == "a"


def test_an_item_that_history_lacks_and_nobody_has_placed_is_the_last() -> None:
    chain = Chain()
    chain.note("a")
    chain.drop("cut off")
    chain.note("b", "cut off")

    assert chain.previous("b") == "a"


def test_noting_an_item_again_changes_nothing() -> None:
    chain = Chain()
    chain.note("a")
    chain.note("b")

    moved = [chain.note("b", None), chain.note("b", "a")]

    assert moved == [[], []]
    assert chain.previous("a") is None
    assert chain.previous("b") == "a"
    assert chain.previous("c") == "b"


def test_an_item_in_another_place_than_assumed_is_moved() -> None:
    chain = Chain()
    chain.note("a")
    chain.append("typed")
    chain.append("typed too")
    chain.note("spoken", "a")  # the server got it before the typed ones

    moved = [chain.note("typed", "spoken"), chain.note("typed too", "typed")]

    assert moved == [["typed"], []]
    assert chain.previous("typed") == "spoken"
    assert chain.previous("next") == "typed too"


def test_without_an_order_items_stand_as_they_arrive() -> None:
    chain = Chain()
    chain.note("a")
    chain.append("typed")
    chain.append("typed too")
    assert chain.previous("typed too") == "typed"
    chain.note("spoken")  # the server got it before the typed ones

    moved = [chain.note("typed"), chain.note("typed too"), chain.note("typed")]

    assert moved == [["typed"], [], []]
    assert [chain.previous(item) for item in ("spoken", "typed", "typed too")] == [
        "a",
        "spoken",
        "typed",
    ]
    assert chain.previous("next") == "typed too"


def test_what_is_refused_is_not_waited_for() -> None:
    chain = Chain()
    chain.note("a")
    chain.append("typed")
    chain.drop("typed")

    chain.note("spoken")

    assert chain.previous("spoken") == "a"


def test_a_moved_item_leaves_no_cycle_in_the_order() -> None:
    chain = Chain()
    chain.note("typed")
    chain.note("greeting")  # the server says of it that nothing is before it

    moved = chain.note("typed", "greeting")

    assert moved == ["greeting", "typed"]
    assert chain.previous("greeting") is None
    assert chain.previous("typed") == "greeting"
    assert chain.previous("next") == "typed"


def test_items_that_history_does_not_know_stand_for_the_one_before() -> None:
    chain = Chain()
    chain.note("call")
    chain.hide("output")
    chain.note("output")
    chain.note("answer")

    assert chain.previous("answer") == "call"


@pytest.mark.parametrize("is_known", [True, False])
def test_an_item_that_is_left_out_leads_to_the_one_before_it_wherever_it_comes(
    is_known: bool,
) -> None:
    chain = Chain()
    chain.note("a")
    if is_known:
        chain.note("call", "a")

    chain.drop("call")
    chain.note("b", "a")
    chain.note("call", "b")

    assert chain.previous("next") == "b"


def test_items_are_published_under_the_id_that_history_knows() -> None:
    chain = Chain()
    chain.restart({"short": "a very long id"})
    chain.note("short")

    assert chain.previous("next") == "a very long id"


def test_what_comes_after_a_replay_comes_after_the_whole_history() -> None:
    chain = Chain()
    chain.note("a")

    chain.join("z")
    chain.note("b", "a")

    assert chain.previous("b") == "z"
    assert chain.known_as("a") == "a"


def test_without_a_replay_too() -> None:
    chain = Chain()

    chain.join("z")
    chain.note("b")

    assert chain.previous("b") == "z"


def test_aliases_that_go_round_end() -> None:
    chain = Chain()
    chain.restart({"a": "b", "b": "a"})
    chain.note("a")

    assert chain.previous("c") in ("a", "b")


def test_it_does_not_grow_for_ever() -> None:
    chain = Chain()

    for number in range(5000):
        chain.note(f"i{number}")
        chain.hide(f"o{number}")

    assert chain.previous("new") == "i4999"
    assert "i0" not in chain


def test_what_follows_items_that_stand_behind_each_other_is_found() -> None:
    chain = Chain()
    chain.note("a", "b")
    chain.note("b", "a")
    chain.note("c", "b")

    assert chain.drop("a") == ["b"]
    assert chain.drop("b") == ["c"]
