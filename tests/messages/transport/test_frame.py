"""Frames and messages: what goes in comes out, and garbage is refused."""

from __future__ import annotations

import contextlib
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import (
    FrameError,
    Message,
    ProgramCapture,
    Tokens,
    decode,
    encode,
    encode_sound,
    message_types,
    split,
)
from messages.transport.frame import HEAD_BYTES, Splitter, epoch_of, tag_of, with_epoch

KINDS = [kind for kind in message_types().values() if kind.__module__.startswith("messages.")]


def example(kind: type[Message]) -> Message:
    """Build a message with a value for every field that has no default."""
    values = {str: "x", int: 7, float: 0.5, bool: True, bytes: b"pcm", dict: {}, tuple: ()}
    fields = {}
    for field in msgspec.structs.fields(kind):
        if not field.required:
            continue
        origin = getattr(field.type, "__origin__", field.type)
        literal = getattr(field.type, "__args__", None)
        if origin in values:
            fields[field.name] = values[origin]
        elif field.type is msgspec.Raw:
            fields[field.name] = msgspec.Raw(b"\xc0")
        elif literal and isinstance(literal[0], str | int):
            fields[field.name] = literal[0]
        elif field.type is Tokens:
            fields[field.name] = Tokens(input_text=7)
        else:
            fields[field.name] = None
    return kind(**fields)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_wire(kind: type[Message]) -> None:
    message = example(kind)

    assert decode(encode(message, 5)) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_is_immutable(kind: type[Message]) -> None:
    message = example(kind)

    for field in msgspec.structs.fields(kind):
        with pytest.raises(AttributeError):
            setattr(message, field.name, None)


def decode_or_refuse(frame: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode(frame), Message)


def test_tags_are_unique_and_below_those_of_users() -> None:
    tags = [kind.tag() for kind in KINDS]

    assert len(tags) == len(set(tags))
    assert all(1 <= tag < 200 for tag in tags)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 1_000_000])
def test_sound_in_pieces_is_the_same_message_as_in_one(size: int) -> None:
    pcm = b"\xc4\0" * size
    pieces = [pcm[:size], pcm[size:-1], b"", pcm[-1:]] if size else []
    whole = ProgramCapture(pcm, 16_000, 2**62)

    frame = encode_sound(ProgramCapture(b"", 16_000, 2**62), pieces, epoch=9)

    assert decode(frame) == whole
    assert list(split(frame)) == [frame]
    assert (tag_of(frame), epoch_of(frame)) == (ProgramCapture.tag(), 9)


def test_a_frame_names_its_tag_and_its_epoch() -> None:
    frame = encode(example(KINDS[0]), 200)

    assert (tag_of(frame), epoch_of(frame)) == (KINDS[0].tag(), 200)
    assert epoch_of(with_epoch(frame, 3)) == 3
    assert decode(with_epoch(frame, 3)) == decode(frame)


@given(st.lists(st.sampled_from(KINDS), max_size=20), st.data())
@settings(max_examples=50)
def test_a_stream_of_frames_is_cut_where_it_was_joined(
    kinds: list[type[Message]], data: st.DataObject
) -> None:
    frames = [encode(example(kind)) for kind in kinds]
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))

    first = list(split(stream[:cut]))
    rest = list(split(stream[sum(map(len, first)) :]))

    assert first + rest == frames


@given(st.lists(st.sampled_from(KINDS), max_size=20), st.lists(st.integers(0, 2000)))
@settings(max_examples=100)
def test_a_stream_in_pieces_of_any_size_is_cut_where_it_was_joined(
    kinds: list[type[Message]], cuts: list[int]
) -> None:
    frames = [encode(example(kind)) for kind in kinds]
    stream = b"".join(frames)
    ends = sorted({*(cut for cut in cuts if cut < len(stream)), len(stream)})
    splitter = Splitter()

    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *ends])]
    found = [frame for piece in pieces for frame in splitter.feed(piece)]

    assert found == frames


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_garbage_is_refused_by_name_or_not_yet_a_frame(garbage: bytes) -> None:
    try:
        frames = list(split(garbage))
    except FrameError:
        return
    for frame in frames:
        decode_or_refuse(frame)


@given(st.sampled_from(KINDS), st.integers(0, 100), st.integers(0, 255))
@settings(max_examples=500)
def test_a_damaged_frame_is_a_message_or_a_frame_error(
    kind: type[Message], place: int, value: int
) -> None:
    frame = bytearray(encode(example(kind)))
    frame[HEAD_BYTES + place % max(1, len(frame) - HEAD_BYTES) - 1] = value

    decode_or_refuse(bytes(frame))
