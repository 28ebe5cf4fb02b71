"""The mapped file of a component's state is whole whenever its writer dies."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.transport import saved
from messages.transport.saved import StateFile, read_state, remove_state


@given(st.lists(st.binary(max_size=40_000), min_size=1, max_size=8))
def test_the_state_written_last_is_read(tmp_path_factory: Any, states: list[bytes]) -> None:
    directory = tmp_path_factory.mktemp("saved")
    file = StateFile(directory, "echo")

    for state in states:
        file.write(state)

        assert read_state(directory, "echo") == state


def test_the_next_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for state in (b"first", b"second", b"third"):
        StateFile(tmp_path, "echo").write(state)

        assert read_state(tmp_path, "echo") == state


def test_a_process_that_only_opens_the_file_keeps_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StateFile(tmp_path, "echo").write(b"whole")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    file = StateFile(tmp_path, "echo")
    monkeypatch.setattr(saved, "_write_half", die)
    with pytest.raises(KeyboardInterrupt):
        file.write(b"torn")

    assert read_state(tmp_path, "echo") == b"whole"


@pytest.mark.parametrize("done", range(4))
def test_a_death_while_writing_leaves_what_was_saved_before(tmp_path: Path, done: int) -> None:
    file = StateFile(tmp_path, "echo")
    file.write(b"before")
    path = tmp_path / "echo.saved"
    whole = path.read_bytes()
    file.write(b"after!")
    new = path.read_bytes()
    changed = [place for place in range(len(new)) if new[place] != whole[place]]
    torn = bytearray(whole)
    for place in changed[: len(changed) * done // 4]:
        torn[place] = new[place]

    path.write_bytes(torn)

    assert read_state(tmp_path, "echo") == b"before"


@pytest.mark.parametrize("place", [0, 8, 12, 16, -1])
def test_damage_is_noticed(tmp_path: Path, place: int) -> None:
    StateFile(tmp_path, "echo").write(b"x" * (saved._LEAST_BYTES - saved._HEAD.size))
    path = tmp_path / "echo.saved"
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half + (saved._LEAST_BYTES - 1 if place < 0 else place)] ^= 1

    path.write_bytes(data)

    assert read_state(tmp_path, "echo") is None


def test_a_file_that_is_cut_off_or_missing_is_none(tmp_path: Path) -> None:
    StateFile(tmp_path, "echo").write(b"whole")
    path = tmp_path / "echo.saved"
    path.write_bytes(path.read_bytes()[:-1])

    assert read_state(tmp_path, "echo") is None
    assert read_state(tmp_path, "other") is None


def test_a_state_that_is_removed_is_gone_until_the_process_saves_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "echo")
    file.write(b"poison")

    remove_state(tmp_path, "echo")
    assert read_state(tmp_path, "echo") is None
    file.write(b"better")

    assert read_state(tmp_path, "echo") == b"better"
    remove_state(tmp_path, "other")  # was never written


def test_what_is_older_than_a_state_that_cannot_be_written_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(tmp_path, "echo")
    file.write(b"older")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(saved, "map_file", fail)  # as when a tool has used up all descriptors
        assert not file.write(b"x" * saved._LEAST_BYTES)

    assert read_state(tmp_path, "echo") is None  # the supervisor is sent the newer one
    assert file.write(b"newest")
    assert read_state(tmp_path, "echo") == b"newest"


def test_a_folder_that_cannot_be_written_is_left_to_the_supervisor(tmp_path: Path) -> None:
    StateFile(tmp_path / "missing", "echo").write(b"state")
