"""The record of a session is written at once where it must be, and soon otherwise."""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.supervision.record import Kept, Record, read
from messages import Notice
from tests.actors.supervision.test_child import FakeLoop


class Rig:
    """A record whose contents and clock the test sets."""

    def __init__(self, directory: Path) -> None:
        self.loop = FakeLoop()
        self.path = directory / "talk.journal.state"
        self.restarts: dict[str, int] = {}
        self.notices: list[Notice] = []
        self.record = Record(self.loop, directory, self.kept, self.notices.append)  # type: ignore[arg-type]

    def kept(self) -> Kept:
        return Kept(epoch_ns=1, settings=msgspec.Raw(b"\x80"), restarts=dict(self.restarts))

    def change(self, count: int) -> None:
        self.restarts["speaker"] = count
        self.record.changed()

    def written(self) -> int:
        kept = read(self.path)
        assert kept is not None
        return kept.restarts.get("speaker", 0)


def test_a_change_is_written_within_50_ms(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.record.begin(rig.path)

    rig.change(1)
    rig.loop.pass_s(0.02)
    rig.change(2)
    assert rig.written() == 0  # several changes are written together
    rig.loop.pass_s(0.03)

    assert rig.written() == 2
    rig.change(3)
    rig.loop.pass_s(0.05)
    assert rig.written() == 3


def test_what_was_written_at_once_is_not_written_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.record.begin(rig.path)
    rig.change(1)

    rig.record.write()
    assert rig.written() == 1
    rig.path.unlink()
    rig.loop.pass_s(1)

    assert not rig.path.exists()


def test_a_removed_record_is_not_written_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.record.begin(rig.path)
    rig.change(1)

    rig.record.remove()
    rig.loop.pass_s(1)

    assert not rig.path.exists()


def test_a_record_that_cannot_be_written_is_published_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.record.begin(rig.path)
    directory = tmp_path.rename(tmp_path.with_name("away"))

    for count in (1, 2):
        rig.change(count)
        rig.loop.pass_s(0.05)

    assert len(rig.notices) == 1
    assert "journal alone" in rig.notices[0].text
    directory.rename(tmp_path)
    rig.change(3)
    rig.loop.pass_s(0.05)
    assert rig.written() == 3
