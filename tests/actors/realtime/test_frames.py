"""Text frames of the websocket protocol, against the package that reads and writes all others."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from actors.realtime.frames import FrameSplitter, text_frame

LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 200_000]


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    chance, at = random.Random(seed), 0
    while at < len(data):
        size = chance.choice([1, 2, 3, 7, 100, 65_536])
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("size", LENGTHS)
def test_the_package_reads_what_we_write(size: int) -> None:
    server = ServerProtocol(state=State.OPEN, max_size=None)
    text = random.Random(size).randbytes(size).hex()[:size].encode()

    server.receive_data(text_frame(text, os.urandom(4)))

    (read,) = server.events_received()
    assert isinstance(read, Frame)
    assert (read.opcode, read.fin, bytes(read.data)) == (Opcode.TEXT, True, text)


@pytest.mark.parametrize("seed", range(20))
def test_messages_in_pieces_of_any_size_are_whole(seed: int) -> None:
    texts = [b"x" * size for size in LENGTHS]
    splitter = FrameSplitter()

    stream = b"".join(frame(Opcode.TEXT, text) for text in texts)
    read = [found for piece in pieces(stream, seed) for found in splitter.feed(piece)]

    assert read == [(text, b"") for text in texts]


@pytest.mark.parametrize(
    "other",
    [
        frame(Opcode.PING, b"1234"),
        frame(Opcode.CLOSE, b"\x03\xe8bye"),
        frame(Opcode.BINARY, b"x" * 300),
        frame(Opcode.TEXT, b"half", fin=False),
        frame(Opcode.CONT, b"rest"),
    ],
    ids=["ping", "close", "binary", "fragment", "continuation"],
)
def test_every_other_frame_is_left_whole_to_the_package(other: bytes) -> None:
    splitter = FrameSplitter()

    stream = frame(Opcode.TEXT, b"before") + other + frame(Opcode.TEXT, b"after")
    read = [found for piece in pieces(stream, 1) for found in splitter.feed(piece)]

    assert read == [(b"before", b""), (None, other), (b"after", b"")]


@pytest.mark.parametrize(
    "wrong",
    [
        frame(Opcode.TEXT, b"masked, which no server may", mask=True)[:2],
        b"\xc1",  # a bit that nobody has agreed on
        b"\x83",  # an opcode that there is not
        b"\x89\x7e",  # a ping that is too long
        b"\x09\x00",  # a ping in fragments
    ],
    ids=["masked", "reserved", "opcode", "long ping", "fragment of a ping"],
)
def test_a_wrong_frame_is_passed_on_as_soon_as_its_head_shows_it_with_all_after_it(
    wrong: bytes,
) -> None:
    splitter = FrameSplitter()

    stream = frame(Opcode.TEXT, b"before") + wrong
    read = [found for byte in stream for found in splitter.feed(bytes((byte,)))]
    read += splitter.feed(b"\x81\x00")

    assert read[0] == (b"before", b"")
    assert b"".join(rest for _, rest in read) == wrong + b"\x81\x00"


def test_nothing_is_unpacked_in_the_middle_of_a_message_in_fragments() -> None:
    splitter, text = FrameSplitter(), frame(Opcode.TEXT, b"text")
    splitter.unpacks = False

    assert list(splitter.feed(text)) == [(None, text)]


def test_a_length_that_no_frame_has_is_for_the_package_to_refuse() -> None:
    broken = b"\x81\x7f\xff" + bytes(7) + b"what follows"

    assert list(FrameSplitter().feed(broken)) == [(None, broken)]


def test_a_long_message_costs_no_copy_a_piece() -> None:
    """Its pieces are joined once: with a copy of all of it for each, this would take minutes."""
    size = 40_000_000
    head, splitter = b"\x81\x7f" + size.to_bytes(8, "big"), FrameSplitter()

    assert list(splitter.feed(head)) == []
    for _ in range(size // 1000 - 1):
        assert list(splitter.feed(b"x" * 1000)) == []
    ((message, _),) = splitter.feed(b"x" * 1000)

    assert message is not None
    assert len(message) == size
