"""What a program and its components send each other straight."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from actors.embedding.direct_end import DirectEnd
from actors.embedding.loop_end import LoopEnd
from actors.embedding.outbox import Outbox
from actors.embedding.session import Session
from messages import (
    Message,
    ProgramCapture,
    ProgramCaptureEnded,
    ProgramFlush,
    ProgramFlushed,
    ProgramPlayed,
    ProgramPlayout,
    ProgramToolAnswer,
    ProgramToolCall,
    SetMuted,
    ToolAnswer,
    UseInput,
    Wanted,
    decode,
    encode,
    tool_answer,
)
from messages.transport.direct import DirectInbox, DirectSender
from tests.actors.embedding.test_outbox import Supervisor

SOUND = bytes(1920)
"""A block of 40 ms."""


@pytest.fixture(autouse=True)
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has gone through the supervisor just before."""
    monkeypatch.setattr("actors.embedding.outbox._DOUBT_S", 0.0)


class Ends:
    """An outbox on a loop, and both ends of its two ways."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "page-1"
        self.loop = asyncio.get_running_loop()
        self.outbox = Outbox()
        self.supervisor = Supervisor(self.outbox)
        self.microphone = DirectInbox(self.base, [ProgramCapture.tag()])
        self.speaker = DirectInbox(self.base, [ProgramPlayed.tag(), ProgramFlushed.tag()])
        self.came = asyncio.Event()
        tags = [ProgramPlayout.tag(), ProgramFlush.tag(), ProgramToolCall.tag()]
        self.direct = DirectEnd(self.base, tags, self.loop, self.came.set)
        self.end = LoopEnd(self.loop, self.supervisor.channel, lambda: None)
        self.outbox.join(self.end, self.direct)
        self.sender = DirectSender(self.base)

    def replace_supervisor(self) -> None:
        self.supervisor.die()
        self.outbox.leave()
        self.end.leave()
        self.supervisor = Supervisor(self.outbox)
        self.end = LoopEnd(self.loop, self.supervisor.channel, lambda: None)
        self.outbox.join(self.end, self.direct)

    def close(self) -> None:
        self.end.leave()
        self.direct.close()
        for inbox in (self.microphone, self.speaker):
            inbox.close()
        self.sender.close()
        self.supervisor.close()

    def capture(self, *, rate: int = 24_000) -> None:
        self.outbox.put_sound(ProgramCapture(b"", rate), [SOUND])

    async def told(self) -> Message:
        return await asyncio.to_thread(self.supervisor.read)


def straight(inbox: DirectInbox) -> list[Message]:
    """Return what has come straight."""
    frames = iter(inbox.take, None)
    return [decode(frame) for frame in frames if frame is not None]


def run(folder: Path, body: Callable[[Ends], Awaitable[None]]) -> None:
    async def main() -> None:
        ends = Ends(folder)
        try:
            await body(ends)
        finally:
            ends.close()

    asyncio.run(main())


def numbers(messages: list[Message]) -> list[int]:
    assert all(isinstance(message, ProgramCapture) for message in messages)
    return [message.number for message in messages if isinstance(message, ProgramCapture)]


# -- to the components ----------------------------------------------------------------------------


@pytest.mark.parametrize(("doubt_s", "waits"), [(0.0, True), (60.0, False)])
def test_sound_goes_straight_and_through_the_supervisor_later_or_if_in_doubt_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubt_s: float, waits: bool
) -> None:
    """It is in doubt after a piece that did not go straight: the microphone may refuse others."""
    monkeypatch.setattr("actors.embedding.outbox._DOUBT_S", doubt_s)

    async def body(ends: Ends) -> None:
        began = ends.loop.time()
        for _ in range(3):
            ends.capture()

        assert numbers(straight(ends.microphone)) == [1, 2, 3]
        assert numbers([await ends.told() for _ in range(3)]) == [1, 2, 3]
        assert (ends.loop.time() - began > 0.2) is waits

    run(tmp_path, body)


def test_sound_that_the_microphone_may_have_lost_goes_through_the_supervisor_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.embedding.outbox._DOUBT_S", 60.0)

    async def body(ends: Ends) -> None:
        ends.capture()
        began = ends.loop.time()

        ends.outbox.doubt()
        ends.capture()

        assert numbers([await ends.told() for _ in range(2)]) == [1, 2]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


def test_sound_that_cannot_go_straight_goes_through_the_supervisor_after_that_before_it(
    tmp_path: Path,
) -> None:
    async def body(ends: Ends) -> None:
        ends.capture()
        ends.microphone.close()
        began = ends.loop.time()

        ends.capture()

        assert numbers([await ends.told() for _ in range(2)]) == [1, 2]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


def test_sound_after_a_piece_that_did_not_go_straight_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(ends: Ends) -> None:
        monkeypatch.setattr("actors.embedding.outbox._DOUBT_S", 60.0)
        ends.microphone.close()
        ends.capture()
        ends.microphone = DirectInbox(ends.base, [ProgramCapture.tag()])
        began = ends.loop.time()

        ends.capture()

        assert numbers(straight(ends.microphone)) == [2]
        assert numbers([await ends.told() for _ in range(2)]) == [1, 2]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


@pytest.mark.parametrize("command", [SetMuted(True), UseInput("card"), ProgramCaptureEnded()])
def test_sound_after_a_command_for_the_microphone_does_not_overtake_it(
    tmp_path: Path, command: Message
) -> None:
    async def body(ends: Ends) -> None:
        ends.capture()
        ends.outbox.put(encode(command))
        ends.capture()
        ends.capture()

        first, third = numbers(straight(ends.microphone))
        before, told, after = [await ends.told() for _ in range(3)]

        assert told == command
        assert numbers([before, after]) == [first, third - 1]
        assert third - 1 > first + 1, "so the microphone refuses what comes before its turn"

    run(tmp_path, body)


def test_sound_that_others_began_to_wait_for_is_known_to_a_session(tmp_path: Path) -> None:
    session = Session(server="sandbox")
    session._take(Wanted((ProgramCapture.tag(),)))

    assert session._outbox.wanted == {ProgramCapture.tag()}


def test_a_wrong_rate_is_left_to_the_microphone_to_report(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.capture(rate=0)

        assert straight(ends.microphone) == [ProgramCapture(SOUND, 0, number=1)]

    run(tmp_path, body)


def test_an_answer_that_must_not_overtake_others_goes_through_the_supervisor(
    tmp_path: Path,
) -> None:
    async def body(ends: Ends) -> None:
        tools = DirectInbox(ends.base, [ProgramToolAnswer.tag()])
        answers = [ProgramToolAnswer("a", "1"), ProgramToolAnswer("b", "2", in_order=True)]

        ends.outbox.put(encode(answers[0]))
        ends.outbox.put(encode(answers[1]), straight=False)

        assert straight(tools) == answers[:1]
        assert ends.outbox.commands() == 0
        tools.close()

    run(tmp_path, body)


def test_what_goes_straight_alone_is_not_sent_to_the_supervisor(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        answer = tool_answer("a", "t", "1", failed=False)
        assert not ends.outbox.send_past(encode(answer))  # nobody takes it so
        realtime = DirectInbox(ends.base, [ToolAnswer.tag()])

        assert ends.outbox.send_past(encode(answer))

        assert straight(realtime) == [answer]
        ends.outbox.put(encode(SetMuted(True)))
        assert isinstance(ends.supervisor.read(), SetMuted)
        ends.outbox.leave()
        assert not ends.outbox.send_past(encode(answer))
        realtime.close()

    run(tmp_path, body)


def test_sound_is_sent_to_the_supervisor_before_threads_take_over(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.capture()
        began = ends.loop.time()
        ends.outbox.leave()

        assert numbers([await ends.told()]) == [1]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


def test_a_command_does_not_overtake_sound(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.capture()
        ends.outbox.put(encode(ProgramCaptureEnded()))

        assert numbers([await ends.told()]) == [1]
        assert await ends.told() == ProgramCaptureEnded()

    run(tmp_path, body)


def test_sound_on_its_way_to_a_supervisor_that_dies_is_sent_to_the_next(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.capture()
        ends.capture()
        ends.replace_supervisor()
        ends.capture()

        assert numbers([await ends.told() for _ in range(2)]) == [1, 2]

    run(tmp_path, body)


def test_sound_that_was_sent_in_part_when_the_supervisor_died_is_sent_again(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.outbox.put(encode(SetMuted(True)))
        for _ in itertools.takewhile(lambda _: not ends.outbox._frame, range(2_000)):
            ends.capture()
        assert ends.outbox._frame, "the socket was never full"
        for _ in range(3):
            ends.capture()
        ends.replace_supervisor()

        assert await ends.told() == SetMuted(True)
        found = await ends.told()
        assert isinstance(found, ProgramCapture)
        assert numbers([await ends.told() for _ in range(3)]) == [
            found.number + ahead for ahead in range(1, 4)
        ]

    run(tmp_path, body)


def test_of_sound_that_was_on_its_way_together_no_piece_is_lost_with_the_supervisor(
    tmp_path: Path,
) -> None:
    async def body(ends: Ends) -> None:
        ends.supervisor.channel.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)
        for _ in range(5):
            ends.capture()
        ends.outbox.put(encode(SetMuted(True)))
        assert ends.outbox._frame, "all five were sent"
        ends.replace_supervisor()

        assert numbers([await ends.told() for _ in range(5)]) == [1, 2, 3, 4, 5]
        assert await ends.told() == SetMuted(True)

    run(tmp_path, body)


def test_sound_that_others_wait_for_goes_through_the_supervisor_at_once(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.outbox.wanted = frozenset({ProgramCapture.tag()})
        began = ends.loop.time()

        ends.capture()

        assert numbers([await ends.told()]) == [1]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


def test_a_burst_does_not_wait(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        began = ends.loop.time()
        for _ in range(10):
            ends.outbox.put_sound(ProgramCapture(b"", 8_000), [SOUND])

        assert numbers([await ends.told() for _ in range(5)]) == [1, 2, 3, 4, 5]
        assert ends.loop.time() - began < 0.2

    run(tmp_path, body)


def test_a_position_goes_straight_alone_and_the_answer_to_a_flush_both_ways(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        flushed = ProgramFlushed(1, 2, 3)

        ends.outbox.put(encode(ProgramPlayed(10, 20)))
        ends.outbox.put(encode(flushed))

        assert straight(ends.speaker) == [ProgramPlayed(10, 20), flushed]
        assert await ends.told() == flushed

    run(tmp_path, body)


def test_a_position_that_cannot_go_straight_goes_through_the_supervisor(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.speaker.close()

        ends.outbox.put(encode(ProgramPlayed(10, 20)))

        assert await ends.told() == ProgramPlayed(10, 20)

    run(tmp_path, body)


# -- from the components --------------------------------------------------------------------------


def test_what_has_come_before_the_end_is_read_and_later_nobody_can_send(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        sent = [ProgramPlayout(b"ab", 0), ProgramFlush(7), ProgramPlayout(b"cd", 1)]
        for message in sent:
            assert ends.sender.send(encode(message))

        ends.direct.leave()

        assert not ends.sender.send(encode(ProgramPlayout(b"ef", 2)))
        assert list(ends.direct.drain()) == sent
        assert list(ends.direct.drain()) == []

    run(tmp_path, body)


def test_the_loop_is_told_when_something_comes(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        ends.sender.send(encode(ProgramFlush(7)))

        await asyncio.wait_for(ends.came.wait(), 10)

        assert list(ends.direct.drain()) == [ProgramFlush(7)]

    run(tmp_path, body)


def test_a_call_that_comes_both_ways_comes_once(tmp_path: Path) -> None:
    async def body(ends: Ends) -> None:
        first, second = (encode(ProgramToolCall(name, "t", "{}")) for name in "ab")
        assert not ends.direct.was_ahead(second)
        ends.sender.send(first)
        ends.sender.send(second)

        assert list(ends.direct.drain()) == [ProgramToolCall("a", "t", "{}")]
        assert ends.direct.was_ahead(first)

    run(tmp_path, body)
