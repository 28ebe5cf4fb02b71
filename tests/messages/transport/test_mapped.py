"""Mapped files: filled before they are mapped, shared, and as they were left."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from messages.transport import mapped
from messages.transport.mapped import map_file

SIZE = 8192


class SlowDisk:
    """The module ``os``, but each write stores no more than 1000 bytes."""

    written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, zeros: bytes) -> int:
        size = os.write(descriptor, zeros[:1000])
        self.written += size
        return size


@pytest.mark.parametrize("before", [None, b"", b"left by a killed process"])
def test_a_file_that_is_missing_or_too_short_is_written_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr(mapped, "os", disk)
    path = tmp_path / "m"
    if before is not None:
        path.write_bytes(before)

    found = map_file(path, SIZE, os.O_CREAT)

    assert bytes(found) == path.read_bytes() == bytes(SIZE)
    assert disk.written == SIZE  # not a hole


def test_a_file_that_was_filled_keeps_what_is_stored_unless_it_is_truncated(tmp_path: Path) -> None:
    map_file(tmp_path / "m", SIZE, os.O_CREAT)[:3] = b"abc"

    again = map_file(tmp_path / "m", SIZE, os.O_CREAT)
    kept = bytes(again[:3])
    again.close()

    assert kept == b"abc"
    assert bytes(map_file(tmp_path / "m", SIZE, os.O_CREAT | os.O_TRUNC)[:3]) == bytes(3)


def test_a_file_that_must_be_new_is_refused_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"abc")

    with pytest.raises(FileExistsError):
        map_file(tmp_path / "m", SIZE, os.O_CREAT | os.O_EXCL)

    assert (tmp_path / "m").read_bytes() == b"abc"


def test_without_being_created_a_file_is_neither_made_nor_filled(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")

    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "missing", SIZE)
    with pytest.raises(ValueError, match="greater than file size"):
        map_file(tmp_path / "short", SIZE)

    assert (tmp_path / "short").read_bytes() == b"abc"


def test_a_reader_sees_what_is_stored_and_stores_nothing(tmp_path: Path) -> None:
    writer = map_file(tmp_path / "m", SIZE, os.O_CREAT)
    reader = map_file(tmp_path / "m", SIZE, access=mmap.ACCESS_READ)

    writer[:3] = b"abc"

    assert reader[:3] == b"abc"
    with pytest.raises(TypeError):
        reader[:3] = b"xyz"
