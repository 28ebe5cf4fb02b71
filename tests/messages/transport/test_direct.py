"""Datagrams from component to component."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import CapturedAudio, FlushPlayback, Message, ToolAnswer, decode, encode
from messages.transport.direct import DirectInbox, DirectSender

FLUSH = FlushPlayback.tag()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "page-1"


@pytest.fixture
def inbox(base: Path) -> Iterator[DirectInbox]:
    made = DirectInbox(base, [FLUSH])
    yield made
    made.close()


@pytest.fixture
def sender(base: Path) -> Iterator[DirectSender]:
    made = DirectSender(base)
    yield made
    made.close()


def taken(inbox: DirectInbox) -> list[Message]:
    frame = inbox.take()
    return [decode(frame)] if frame is not None else []


def test_a_message_reaches_the_component_that_takes_its_type(
    inbox: DirectInbox, sender: DirectSender
) -> None:
    assert sender.send(encode(FlushPlayback("now", 1)))

    assert taken(inbox) == [FlushPlayback("now", 1)]
    assert taken(inbox) == []


def test_a_message_that_nobody_takes_is_not_sent(inbox: DirectInbox, sender: DirectSender) -> None:
    assert not sender.send(encode(ToolAnswer("c", "t", "1")))
    inbox.close()
    assert not sender.send(encode(FlushPlayback("now", 1)))


def test_a_long_message_is_not_sent(base: Path, sender: DirectSender) -> None:
    inbox = DirectInbox(base, [ToolAnswer.tag()])

    assert not sender.send(encode(ToolAnswer("c", "t", "x" * 40_000)))
    assert sender.send(encode(ToolAnswer("c", "t", "x" * 20_000)))

    inbox.close()


def test_a_receiver_that_does_not_read_holds_nobody_up(
    inbox: DirectInbox, sender: DirectSender
) -> None:
    sent = [sender.send(encode(FlushPlayback("now", number))) for number in range(10_000)]

    assert sent[0]
    assert not sent[-1]
    assert taken(inbox) == [FlushPlayback("now", 0)]


def test_of_two_equal_messages_the_second_one_is_dropped_whichever_way_it_comes(
    inbox: DirectInbox, sender: DirectSender
) -> None:
    first, second = encode(FlushPlayback("now", 1)), encode(FlushPlayback("now", 2), 7)

    sender.send(first)
    assert taken(inbox) == [FlushPlayback("now", 1)]
    assert inbox.was_ahead(first)
    assert not inbox.was_ahead(first), "a third one would be another message"

    assert not inbox.was_ahead(second)
    sender.send(encode(FlushPlayback("now", 2)))  # the epoch does not count
    assert taken(inbox) == []


def test_sound_that_came_directly_comes_again_unless_it_was_handled(
    base: Path, sender: DirectSender
) -> None:
    inbox = DirectInbox(base, [CapturedAudio.tag()])
    first, second = encode(CapturedAudio(b"ab", 0, 0)), encode(CapturedAudio(b"cd", 1, 0))

    sender.send(first)
    sender.send(second)

    assert taken(inbox) == [CapturedAudio(b"ab", 0, 0)]
    assert taken(inbox) == [CapturedAudio(b"cd", 1, 0)]
    inbox.handled(second)
    assert not inbox.was_ahead(first)
    assert inbox.was_ahead(second)
    inbox.close()


def test_what_one_component_is_sent_directly_keeps_its_order(
    base: Path, sender: DirectSender
) -> None:
    inbox = DirectInbox(base, [ToolAnswer.tag(), FLUSH, CapturedAudio.tag()])
    messages = [FlushPlayback("a", 1), ToolAnswer("c", "t", "1"), CapturedAudio(b"ab", 0, 0)]

    for message in [*messages, *reversed(messages)]:
        sender.send(encode(message))

    assert [taken(inbox) for _ in messages] == [[message] for message in messages]
    inbox.close()


def test_the_next_incarnation_of_a_component_receives_all_its_types(
    base: Path, sender: DirectSender
) -> None:
    tags = [ToolAnswer.tag(), FLUSH]
    DirectInbox(base, tags).close()

    inbox = DirectInbox(base, tags)

    assert sender.send(encode(FlushPlayback("a", 1)))
    assert sender.send(encode(ToolAnswer("c", "t", "1")))
    assert taken(inbox) == [FlushPlayback("a", 1)]
    assert taken(inbox) == [ToolAnswer("c", "t", "1")]
    inbox.close()


def test_the_first_component_gets_a_type_and_the_next_one_when_it_has_ended(
    base: Path, inbox: DirectInbox, sender: DirectSender
) -> None:
    other = DirectInbox(base, [FLUSH])
    assert other.socket is None

    assert inbox.socket is not None
    inbox.socket.close()  # as by its death: the file remains
    third = DirectInbox(base, [FLUSH])
    sender.send(encode(FlushPlayback("now", 1)))

    assert taken(third) == [FlushPlayback("now", 1)]
    other.close()
    third.close()


def test_what_belongs_to_another_supervisor_does_not_arrive(
    tmp_path: Path, inbox: DirectInbox
) -> None:
    orphan = DirectSender(tmp_path / "page-2")

    assert not orphan.send(encode(FlushPlayback("now", 1)))

    assert taken(inbox) == []
    orphan.close()


def test_a_path_that_is_too_long_for_an_address_means_no_datagrams(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()

    inbox, sender = DirectInbox(folder / "page", [FLUSH]), DirectSender(folder / "page")

    assert inbox.socket is None
    assert not sender.send(encode(FlushPlayback("now", 1)))
    sender.close()


def test_what_comes_by_a_link_that_somebody_else_has_left_is_ignored(
    base: Path, sender: DirectSender
) -> None:
    """A component took two types and has ended; another one takes its first address."""
    DirectInbox(base, [FLUSH, ToolAnswer.tag()]).close()
    inbox = DirectInbox(base, [FLUSH])

    sender.send(encode(ToolAnswer("c", "t", "1")))
    sender.send(encode(FlushPlayback("now", 1)))

    assert taken(inbox) == [FlushPlayback("now", 1)]
    inbox.close()
