"""What a program sends reaches a supervisor, however many of them die."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from actors.embedding.loop_end import LoopEnd
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

    @property
    def channel(self) -> Channel:
        return self._ours

    def read(self) -> Message:
        return decode(self._theirs.read())

    def die(self) -> None:
        self._outbox.detach()
        self.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


MADE: list[Supervisor] = []


@pytest.fixture(params=["sends at once", "has no call that does not block"])
def outbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    if request.param != "sends at once":  # as on Windows
        monkeypatch.setattr("actors.embedding.outbox.AT_ONCE", None)
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
    found = [first.read() for _ in range(3)]  # the question may come before the second command
    assert [each for each in found if not isinstance(each, Confirm)] == [
        SendText("one", "one"),
        SendText("two", "two"),
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
    assert supervisor.read() == AudioLost("microphone", 3_000, "no supervisor took it in time")


def test_waiting_for_a_confirmation_ends_when_the_session_is_over(outbox: Outbox) -> None:
    outbox.put(encode(SetMuted(True)))
    outbox.close()

    assert not outbox.wait_confirmed(TIMEOUT_S)


# -- without a thread -------------------------------------------------------------------------


def test_a_frame_is_sent_at_once_where_it_is_put() -> None:
    outbox = Outbox()
    supervisor = Supervisor(outbox)

    outbox.put(encode(ProgramCapture(bytes(480))))

    assert supervisor.read() == ProgramCapture(bytes(480))
    supervisor.close()


def test_what_a_full_socket_does_not_take_is_sent_by_the_loop_in_order() -> None:
    async def main() -> list[Message]:
        outbox = Outbox()
        supervisor = Supervisor(outbox)
        end = LoopEnd(asyncio.get_running_loop(), supervisor.channel, lambda: None)
        outbox.join(end)
        for number in range(400):
            outbox.put(encode(SendText("x" * 5_000, str(number))))
        read = [await asyncio.to_thread(supervisor.read) for _ in range(401)]
        outbox.put(encode(SetMuted(True)))
        read.append(await asyncio.to_thread(supervisor.read))
        end.leave()
        supervisor.close()
        return read

    read = asyncio.run(main())

    assert [m.item_id for m in read[:400] if isinstance(m, SendText)] == [
        str(number) for number in range(400)
    ]
    assert read[400:] == [Confirm(400), SetMuted(True)]


def test_any_thread_puts_frames_in_while_the_loop_sends() -> None:
    async def main() -> list[Message]:
        outbox = Outbox()
        supervisor = Supervisor(outbox)
        end = LoopEnd(asyncio.get_running_loop(), supervisor.channel, lambda: None)
        outbox.join(end)

        def put(name: str) -> None:
            for number in range(200):
                outbox.put(encode(SendText("x" * 3_000, f"{name} {number}")))

        putting = [threading.Thread(target=put, args=(name,)) for name in "ab"]
        for thread in putting:
            thread.start()
        read: list[Message] = []
        while len([m for m in read if isinstance(m, SendText)]) < 400:
            read.append(await asyncio.to_thread(supervisor.read))
        end.leave()
        supervisor.close()
        return read

    read = asyncio.run(main())

    for name in "ab":
        ids = [m.item_id for m in read if isinstance(m, SendText) and m.item_id[0] == name]
        assert ids == [f"{name} {number}" for number in range(200)]


def test_a_thread_takes_over_from_the_loop() -> None:
    async def main() -> Outbox:
        outbox = Outbox()
        supervisor = Supervisor(outbox)
        end = LoopEnd(asyncio.get_running_loop(), supervisor.channel, lambda: None)
        outbox.join(end)
        for number in range(400):
            outbox.put(encode(SendText("x" * 5_000, str(number))))
        outbox.leave()
        end.leave()
        return outbox

    outbox = asyncio.run(main())
    thread = threading.Thread(target=outbox.run)
    thread.start()
    read = [MADE[-1].read() for _ in range(401)]
    outbox.close()
    thread.join(TIMEOUT_S)
    MADE.pop().close()

    assert [m.item_id for m in read[:400] if isinstance(m, SendText)] == [
        str(number) for number in range(400)
    ]


def test_sound_that_a_full_socket_does_not_take_is_bounded() -> None:
    outbox = Outbox()
    supervisor = Supervisor(outbox)
    second = encode(ProgramCapture(bytes(48_000)))
    for _ in range(60):
        outbox.put(second)
    thread = threading.Thread(target=outbox.run)
    thread.start()
    read: list[Message] = []
    while not isinstance(read[-1] if read else None, AudioLost):
        read.append(supervisor.read())
    outbox.close()
    thread.join(TIMEOUT_S)
    supervisor.close()

    lost = read.pop()
    assert isinstance(lost, AudioLost)
    assert len(read) + lost.audio_ms / 1000 == 60
    assert lost.audio_ms >= 40_000
