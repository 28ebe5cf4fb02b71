"""What a program sends reaches a supervisor, however many of them die."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from actors.embedding.outbox import Outbox
from messages import (
    AudioLost,
    Confirm,
    Message,
    ProgramCapture,
    SendText,
    SetMuted,
    StatusRequest,
    decode,
    encode,
)
from messages.transport.channel import Channel
from tests.rig import TIMEOUT_S


class Supervisor:
    """The other end of a channel: reads what the outbox sends."""

    def __init__(self, outbox: Outbox) -> None:
        ours, theirs = socket.socketpair()
        theirs.settimeout(TIMEOUT_S)
        self._outbox = outbox
        self._ours, self._theirs = Channel(ours), Channel(theirs)
        MADE.append(self)
        outbox.attach(self._ours)

    def read(self) -> Message:
        return decode(self._theirs.read())

    def die(self) -> None:
        self._outbox.detach()
        self.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


MADE: list[Supervisor] = []


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    made = Outbox()
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.close()
    thread.join(TIMEOUT_S)
    while MADE:
        MADE.pop().close()


def texts(*words: str) -> list[bytes]:
    return [encode(SendText(word, word)) for word in words]


def test_what_is_not_confirmed_is_sent_to_the_next_supervisor_in_order(outbox: Outbox) -> None:
    first = Supervisor(outbox)
    for frame in texts("one", "two"):
        outbox.put(frame)
    assert [first.read(), first.read(), first.read()] == [
        SendText("one", "one"),
        SendText("two", "two"),
        Confirm(2),
    ]
    outbox.confirmed(1)
    first.die()
    outbox.put(texts("three")[0])

    second = Supervisor(outbox)

    assert [second.read(), second.read()] == [SendText("two", "two"), SendText("three", "three")]
    assert second.read() == Confirm(3)
    outbox.confirmed(3)
    assert outbox.wait_confirmed(TIMEOUT_S)


def test_a_command_is_confirmed_only_when_the_supervisor_says_so(outbox: Outbox) -> None:
    supervisor = Supervisor(outbox)
    outbox.put(encode(SetMuted(True)))
    supervisor.read()

    assert not outbox.wait_confirmed(0.0)

    outbox.confirmed(1)
    assert outbox.wait_confirmed(0.0)


def test_a_request_for_the_state_is_made_again(outbox: Outbox) -> None:
    first = Supervisor(outbox)
    outbox.put(encode(StatusRequest(7)))
    assert first.read() == StatusRequest(7)
    first.die()

    assert Supervisor(outbox).read() == StatusRequest(7)


def test_sound_that_was_sent_is_not_sent_again(outbox: Outbox) -> None:
    first = Supervisor(outbox)
    outbox.put(encode(ProgramCapture(bytes(480))))
    outbox.put(encode(SetMuted(True)))
    assert [type(first.read()) for _ in range(2)] == [ProgramCapture, SetMuted]
    first.die()

    assert Supervisor(outbox).read() == SetMuted(True)


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_five_seconds_of_sound_wait_at_any_rate_and_the_rest_is_reported(
    outbox: Outbox, rate: int
) -> None:
    second = [bytes((number, 0)) * rate for number in range(8)]
    for pcm in second:
        outbox.put(encode(ProgramCapture(pcm, rate)))

    supervisor = Supervisor(outbox)

    heard = [supervisor.read() for _ in range(5)]
    assert heard == [ProgramCapture(pcm, rate) for pcm in second[3:]]
    assert supervisor.read() == AudioLost("microphone", 3_000, "there was no supervisor to take it")


def test_waiting_for_a_confirmation_ends_when_the_session_is_over(outbox: Outbox) -> None:
    outbox.put(encode(SetMuted(True)))
    outbox.close()

    assert not outbox.wait_confirmed(TIMEOUT_S)
