"""The reference ring: what one process writes and another reads, whenever either of them dies."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from actors.devices.card.reference import NAME, ReferenceReader, ReferenceWriter

MS = 1_000_000
SLOT_0, SLOT, SLOTS = 4096, 1024, 512


def block(number: int, samples: int = 288) -> bytes:
    return struct.pack("<h", number % 30_000 + 1) * samples


def written(
    path: Path, count: int, device: str = "Built-in"
) -> tuple[ReferenceWriter, list[bytes]]:
    writer = ReferenceWriter(path, device)
    blocks = [block(number) for number in range(count)]
    for number, pcm in enumerate(blocks):
        writer.write(pcm, number * 12 * MS)
    return writer, blocks


def test_what_is_written_is_read_once_in_order_with_its_time(tmp_path: Path) -> None:
    writer, _ = written(tmp_path, 1)
    reader = ReferenceReader(tmp_path)
    reader.read()
    writer.write(block(1), 12 * MS)
    writer.write(block(2), 24 * MS)

    found = reader.read()

    assert [(each.pcm, each.heard_ns, each.late) for each in found] == [
        (block(1), 12 * MS, False),
        (block(2), 24 * MS, False),
    ]
    assert reader.read() == []


def test_a_reader_begins_with_the_newest_block(tmp_path: Path) -> None:
    _, blocks = written(tmp_path, 700)

    assert [each.pcm for each in ReferenceReader(tmp_path).read()] == blocks[-1:]


def test_before_a_card_plays_there_is_nothing(tmp_path: Path) -> None:
    reader = ReferenceReader(tmp_path)
    assert (reader.read(), reader.device) == ([], "")

    written(tmp_path, 1)

    assert [each.pcm for each in reader.read()] == [block(0)]
    assert reader.device == "Built-in"


def test_a_long_block_takes_several_slots(tmp_path: Path) -> None:
    writer, _ = written(tmp_path, 0)
    long = b"".join(block(number, 1) for number in range(1200))
    reader = ReferenceReader(tmp_path)
    writer.write(long, 0, late=True)
    reader._next = 0

    found = reader.read()

    assert b"".join(each.pcm for each in found) == long
    assert [round(each.heard_ns / MS, 1) for each in found] == [0, 20.7, 41.3]
    assert [each.late for each in found] == [True, False, False]


def test_a_new_writer_goes_on_where_a_dead_one_stopped(tmp_path: Path) -> None:
    first, _ = written(tmp_path, 2)
    reader = ReferenceReader(tmp_path)
    reader.read()
    del first  # killed: it closes nothing

    written(tmp_path, 3, device="Wohnzimmer é")
    found = reader.read()

    assert [each.pcm for each in found] == [block(0), block(1), block(2)]
    assert {each.run for each in found} == {2}
    assert reader.device == "Wohnzimmer é"


def test_a_reader_that_slept_goes_on_with_the_newest_and_knows_it(tmp_path: Path) -> None:
    writer, _ = written(tmp_path, 1)
    reader = ReferenceReader(tmp_path)
    reader.read()

    for number in range(SLOTS):
        writer.write(block(number), 0)
    found = reader.read()

    assert [(each.pcm, each.late) for each in found] == [(block(SLOTS - 1), True)]


@pytest.mark.parametrize("sequence", [0, 3 + SLOTS])
def test_a_slot_that_is_being_written_is_skipped(tmp_path: Path, sequence: int) -> None:
    writer, _ = written(tmp_path, 1)
    reader = ReferenceReader(tmp_path)
    reader.read()
    for number in (1, 2, 3):
        writer.write(block(number), number * 12 * MS)
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(SLOT_0 + 2 * SLOT)
        file.write(struct.pack("=Q", sequence))

    found = reader.read()

    assert [(each.pcm, each.late) for each in found] == [(block(1), False), (block(3), True)]


def test_a_ring_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        ReferenceWriter(tmp_path / "gone", "Built-in")
