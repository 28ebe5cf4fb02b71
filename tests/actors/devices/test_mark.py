"""Marks: the counters that a process leaves in a mapped file for its successor."""

from __future__ import annotations

from pathlib import Path

from actors.devices.mark import ItemMark, Mark
from messages import SessionInfo


def session(directory: Path | str, *, first: bool = False) -> SessionInfo:
    return SessionInfo(epoch_ns=0, directory=str(directory), first=first)


def test_numbers_are_zero_at_first_and_outlive_their_mark(tmp_path: Path) -> None:
    mark = Mark(session(tmp_path, first=True), "m")
    assert (mark[0], mark[1]) == (0, 0)

    mark[1] = 12_345

    assert Mark(session(tmp_path), "m")[1] == 12_345


def test_a_new_session_begins_with_zeros(tmp_path: Path) -> None:
    Mark(session(tmp_path), "m")[0] = 7

    assert Mark(session(tmp_path, first=True), "m")[0] == 0


def test_without_a_directory_a_mark_works_and_is_forgotten() -> None:
    mark = Mark(session(""), "m")
    mark[0] = 7

    assert mark[0] == 7
    assert Mark(session(""), "m")[0] == 0


def test_the_item_being_played_and_the_one_before_are_remembered(tmp_path: Path) -> None:
    mark = ItemMark(session(tmp_path, first=True), "m")
    assert mark.taken() == {}

    for item, taken in [("a", 10), ("b", 5), ("b", 20), ("c", 1)]:
        mark.set(item, taken)

    assert ItemMark(session(tmp_path), "m").taken() == {"b": 20, "c": 1}


def test_a_mark_is_continued_by_the_next_process(tmp_path: Path) -> None:
    ItemMark(session(tmp_path), "m").set("a", 10)

    again = ItemMark(session(tmp_path), "m")
    again.set("a", 30)

    assert ItemMark(session(tmp_path), "m").taken() == {"a": 30}


def test_the_volume_is_remembered(tmp_path: Path) -> None:
    mark = ItemMark(session(tmp_path), "m")
    assert mark.volume is None

    mark.volume = 0.0

    assert ItemMark(session(tmp_path), "m").volume == 0.0


def test_a_damaged_mark_is_no_obstacle(tmp_path: Path) -> None:
    ItemMark(session(tmp_path), "m").set("a", 10)
    (tmp_path / "m").write_bytes(b"\xff" * 4096)

    damaged = ItemMark(session(tmp_path), "m")
    damaged.set("b", 3)

    assert damaged.taken()["b"] == 3
