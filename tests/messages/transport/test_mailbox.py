"""The mailbox: nothing lost, nothing twice, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import (
    CONTROL,
    AssistantAudio,
    CapturedAudio,
    FlushPlayback,
    Keep,
    Message,
    Newest,
    SendText,
    SetVolume,
    ToolCall,
    decode,
    encode,
)
from messages.transport.mailbox import Dropped, Mailbox, MailboxFullError
from messages.transport.page import HELD, MAIL, Page, Slot

RULES = {
    CapturedAudio.tag(): Newest(5),
    AssistantAudio.tag(): Keep(60, held=True),
    SetVolume.tag(): CONTROL,
    ToolCall.tag(): CONTROL,
    FlushPlayback.tag(): CONTROL,
}


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Page(tmp_path / "page", create=True).slot(3)


def call(number: int) -> bytes:
    return encode(ToolCall(str(number), "tool", "{}"))


def audio(number: int, ms: int = 100) -> bytes:
    return encode(AssistantAudio(bytes(48 * ms), "item", "response", number))


def sent(mailbox: Mailbox, slot: Slot) -> list[Message]:
    return [decode(frame) for frame in mailbox.take(slot)]


def test_the_newest_are_kept_and_the_dropped_are_counted(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    for number in range(8):
        mailbox.put(encode(CapturedAudio(b"", number, 0)))

    firsts = [m.first_sample for m in sent(mailbox, slot) if isinstance(m, CapturedAudio)]

    assert firsts == [3, 4, 5, 6, 7]
    assert mailbox.dropped == {CapturedAudio.tag(): Dropped(3, 0)}


def test_control_is_never_dropped_but_a_full_mailbox_raises() -> None:
    mailbox = Mailbox(RULES)
    for number in range(CONTROL.messages):
        mailbox.put(call(number))

    with pytest.raises(MailboxFullError, match="1000 ToolCall wait unhandled"):
        mailbox.put(call(0))

    assert not mailbox.dropped


def test_a_command_is_kept_for_the_next_supervisor_once_it_is_confirmed(slot: Slot) -> None:
    box = Mailbox({})
    box.put(encode(SendText("of the program", "1")), is_command=True)
    box.put(encode(SendText("of a component", "2")))
    assert box.confirmed() == []  # the program sends it again

    box.confirm()
    box.put(encode(SendText("later", "3")), is_command=True)
    assert box.confirmed() == [encode(SendText("of the program", "1"))]

    box.take(slot)
    slot.settle(MAIL, 1)
    box.settle(slot)
    assert box.confirmed() == []


def test_audio_is_bounded_by_its_length(slot: Slot) -> None:
    mailbox = Mailbox({AssistantAudio.tag(): Keep(1.0, held=True)})
    for number in range(100):
        mailbox.put(audio(number))

    assert len(mailbox) == 9
    assert mailbox.dropped[AssistantAudio.tag()].count == 91


def test_at_most_300_ms_of_held_audio_are_in_flight_and_control_passes_it(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    for number in range(50):
        mailbox.put(audio(number))
    mailbox.put(encode(SetVolume(0.5)))

    messages = sent(mailbox, slot)

    assert sum(isinstance(message, AssistantAudio) for message in messages) == 3
    assert SetVolume(0.5) in messages


def test_a_flush_empties_what_came_before_it_and_not_what_comes_after(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    for number in range(50):
        mailbox.put(audio(number))
    mailbox.put(encode(FlushPlayback("barge-in")))
    mailbox.put(audio(99))

    firsts = [m.first_sample for m in sent(mailbox, slot) if isinstance(m, AssistantAudio)]

    assert firsts == [99]


def test_a_flush_that_comes_back_after_a_death_drops_what_it_had_flushed(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    mailbox.put(audio(0))
    mailbox.take(slot)
    mailbox.put(encode(FlushPlayback("barge-in")))
    mailbox.put(audio(99))
    mailbox.take(slot)

    mailbox.reclaim(slot)
    slot.clear()

    messages = sent(mailbox, slot)
    assert [m.first_sample for m in messages if isinstance(m, AssistantAudio)] == [99]
    assert FlushPlayback("barge-in") in messages


def test_the_child_is_asked_to_say_when_there_is_room(slot: Slot) -> None:
    mailbox = Mailbox(RULES, window=8)
    for number in range(20):
        mailbox.put(call(number))
    mailbox.take(slot)

    woken = [slot.settle(MAIL, handled) for handled in (1, 2, 3, 4)]

    assert woken == [False, False, False, True]
    assert len(mailbox.take(slot)) == 4


def test_held_messages_come_again_in_order_after_a_death(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    for number in range(4):
        mailbox.put(audio(number))
    mailbox.take(slot)
    for number in (1, 2, 3):
        slot.begin(HELD, number)
        slot.end()
    slot.settle(HELD, 1)

    suspect = mailbox.reclaim(slot)
    slot.clear()

    assert suspect is None
    assert [m.first_sample for m in sent(mailbox, slot) if isinstance(m, AssistantAudio)] == [
        1,
        2,
        3,
    ]


def test_a_message_that_kills_again_and_again_is_given_up_after_its_attempts(slot: Slot) -> None:
    mailbox = Mailbox(RULES)
    mailbox.put(audio(0))
    suspects = []
    for _ in range(AssistantAudio.attempts):
        mailbox.take(slot)
        slot.begin(HELD, 1)
        suspects.append(mailbox.reclaim(slot))
        slot.clear()

    assert suspects[:-1] == [None] * (AssistantAudio.attempts - 1)
    assert suspects[-1] is not None
    assert (suspects[-1].name, suspects[-1].attempts) == ("AssistantAudio", 3)
    assert len(mailbox) == 0


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(["put", "take", "handle", "die idle", "die in hand"]), max_size=80
    ).filter(len)
)
def test_whatever_happens_each_message_is_handled_once_in_order_or_a_suspect(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    slot = Page(tmp_path_factory.mktemp("page") / "page", create=True).slot(0)
    mailbox, child = Mailbox(RULES), list[str]()
    handled, suspects, put, count = list[str](), 0, 0, 0
    for step in [*steps, "take", *["handle", "take"] * len(steps)]:
        if step == "put":
            mailbox.put(call(put))
            put += 1
        elif step == "take":
            child += [m.call_id for m in sent(mailbox, slot) if isinstance(m, ToolCall)]
        elif step == "handle" and child:
            count += 1
            slot.begin(MAIL, count)
            handled.append(child.pop(0))
            slot.settle(MAIL, count)
            slot.end()
        elif step.startswith("die"):
            if step == "die in hand" and child:
                slot.begin(MAIL, count + 1)
            suspects += mailbox.reclaim(slot) is not None
            slot.clear()
            child.clear()
            count = 0

    assert handled == sorted(set(handled), key=int)
    assert len(handled) + suspects == put
