"""A session in asyncio: the loop reads and writes, and threads relieve it while it is blocked."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.embedding.direct_end import DirectEnd
from actors.embedding.session import Session
from messages import (
    Message,
    ProgramCapture,
    SendText,
    SessionEnded,
    StopSession,
    SupervisorRestarted,
    Turn,
)
from rtvoice import Tools
from tests.conversation import noise
from tests.fake_server import Connection, FakeServer
from tests.rig import QUIET, TIMEOUT_S

_OPEN = Path("/proc/self/fd")
Body = Callable[[Session], Awaitable[None]]


def threads() -> set[str]:
    """Return the names of the session's threads that read and write."""
    names = {thread.name for thread in threading.enumerate()}
    return names & {"rtvoice-read", "rtvoice-write"}


async def until_on_loop() -> None:
    end = time.monotonic() + TIMEOUT_S
    while threads():
        assert time.monotonic() < end, threads()
        await asyncio.sleep(0.005)


def run(server: FakeServer, body: Body, **settings: Any) -> None:
    async def main() -> None:
        async with Session(server=server.url, **{**QUIET, **settings}) as session:
            await asyncio.wait_for(until_on_loop(), TIMEOUT_S)
            await body(session)

    asyncio.run(main())


def say(session: Session, *texts: str) -> None:
    for text in texts:
        session.send(SendText(text, f"id of {text}"))


async def heard(events: AsyncIterator[Message], count: int) -> list[str]:
    texts: list[str] = []
    async with asyncio.timeout(TIMEOUT_S):
        async for event in events:
            assert isinstance(event, Turn)
            texts.append(event.text)
            if len(texts) == count:
                break
    return texts


def test_no_thread_reads_or_writes(server: FakeServer) -> None:
    async def body(session: Session) -> None:
        events = session.events(Turn)
        say(session, "one", "two")
        assert await heard(aiter(events), 2) == ["one", "two"]
        assert threads() == set()

    run(server, body)


@pytest.mark.parametrize("call", ["status", "confirm", "stop", "get"])
def test_a_call_that_blocks_the_loop_works_on_it(server: FakeServer, call: str) -> None:
    async def body(session: Session) -> None:
        events = session.events(Turn)
        say(session, "one")
        if call == "status":
            assert session.status(TIMEOUT_S)["speaker"]["state"] == "open"
        elif call == "confirm":
            session.confirm(TIMEOUT_S)
        elif call == "get":
            assert events.get(TIMEOUT_S) == Turn("user", "one", "id of one")
        else:
            assert session.stop().turns == 1
            return
        say(session, "two")
        assert (await heard(aiter(events), 1 if call == "get" else 2))[-1] == "two"
        await until_on_loop()

    run(server, body)


@pytest.mark.parametrize("call", ["status", "confirm", "stop", "wait"])
def test_a_thread_for_which_the_loop_waits_is_served(server: FakeServer, call: str) -> None:
    async def body(session: Session) -> None:
        done = threading.Event()

        def work() -> None:
            if call == "wait":
                with pytest.raises(TimeoutError):
                    session.wait(0.01)
            else:
                getattr(session, call)(timeout_s=TIMEOUT_S)
            done.set()

        threading.Thread(target=work, daemon=True).start()
        assert done.wait(TIMEOUT_S)

    run(server, body)


def test_a_loop_that_is_blocked_misses_nothing(server: FakeServer) -> None:
    texts = [f"text {number} {'x' * 20_000}" for number in range(60)]

    async def body(session: Session) -> None:
        events = session.events(Turn)
        say(session, *texts)  # more than a socket holds, in both directions
        time.sleep(0.5)  # noqa: ASYNC251 - what a program must not do

        assert await heard(aiter(events), len(texts)) == texts

    run(server, body)


def test_a_supervisor_that_dies_is_replaced_and_the_loop_serves_the_next_one(
    server: FakeServer,
) -> None:
    async def body(session: Session) -> None:
        restarts, turns = session.events(SupervisorRestarted), session.events(Turn)
        assert session.started is not None
        os.kill(session.started.pids["supervisor"], signal.SIGKILL)
        say(session, "meanwhile")

        async with asyncio.timeout(TIMEOUT_S):
            assert isinstance(await anext(aiter(restarts)), SupervisorRestarted)
        assert await heard(aiter(turns), 1) == ["meanwhile"]
        await until_on_loop()

    run(server, body)


def items(connection: Connection) -> list[str]:
    """Return the types of the items that a session of the server was sent, or their output."""
    made = [event["item"] for event in connection.of("conversation.item.create")]
    return [item.get("output") or item["type"] for item in made]


@pytest.mark.parametrize("dies", ["connection", "realtime", "supervisor"])
def test_an_answer_of_the_program_that_only_the_server_has_counts(
    server: FakeServer, dies: str
) -> None:
    """It went straight, past tools and the supervisor, which stand still."""
    tools, runs, goes_on = Tools(), threading.Event(), threading.Event()

    @tools.action("Looks.")
    def look() -> str:
        runs.set()
        goes_on.wait(TIMEOUT_S)
        return "seen"

    async def body(session: Session) -> None:
        assert session.started is not None
        pids = {**session.started.pids}
        pids |= {name: each["pid"] for name, each in session.status().items()}
        first = await asyncio.to_thread(server.connection)
        await until_on_loop()
        turns = aiter(session.events(Turn))
        await asyncio.to_thread(first.hear, "question", "Look")
        await heard(turns, 1)
        await asyncio.to_thread(first.call, "look", "{}", call_id="call_1")
        assert await asyncio.to_thread(runs.wait, TIMEOUT_S)
        still = "supervisor" if dies == "supervisor" else "tools"
        os.kill(pids[still], signal.SIGSTOP)
        goes_on.set()
        await asyncio.to_thread(server.wait_for, lambda: items(first) == ["seen"])
        if dies == "supervisor":
            os.kill(pids["supervisor"], signal.SIGKILL)
        else:
            await asyncio.to_thread(first.say, "I see", noise(100, 1), item="answer")
            await heard(turns, 1)
            if dies == "realtime":
                os.kill(pids["realtime"], signal.SIGKILL)
            else:
                first.drop()

        again = await asyncio.to_thread(server.connection, 1)

        told = ["message", "function_call", "seen", *(["message"] if dies != "supervisor" else [])]
        await asyncio.to_thread(server.wait_for, lambda: len(items(again)) >= len(told))
        if dies != "supervisor":
            os.kill(pids["tools"], signal.SIGCONT)
        session.send(SendText("And?", "and"))
        await asyncio.to_thread(again.expect, "response.create")
        assert items(again)[: len(told)] == told
        assert items(again).count("seen") == 1

    run(server, body, tools=tools)


def test_a_session_outlives_its_loop(server: FakeServer) -> None:
    session = Session(server=server.url, **QUIET)

    async def begin() -> None:
        await session.__aenter__()
        await until_on_loop()

    asyncio.run(begin())
    events = session.events(Turn)
    say(session, "one")

    assert events.get(TIMEOUT_S) == Turn("user", "one", "id of one")
    assert session.status(TIMEOUT_S)["history"]["state"] == "open"
    assert session.stop().turns == 1


class _End:
    """Notes the end of a session."""

    kinds = (SessionEnded,)

    def __init__(self) -> None:
        self.came = threading.Event()

    def put(self, message: Message | None) -> None:
        if message is None:
            self.came.set()


def test_a_command_is_enough_to_serve_a_session_whose_loop_is_closed(server: FakeServer) -> None:
    session, end = Session(server=server.url, **QUIET), _End()

    async def begin() -> None:
        await session.__aenter__()
        await until_on_loop()

    session.listen(end)
    asyncio.run(begin())
    session.send(StopSession("it is enough"))

    assert end.came.wait(TIMEOUT_S)


def test_messages_keep_their_order_when_a_listener_blocks(server: FakeServer) -> None:
    texts = [f"text {number}" for number in range(100)]
    taken: list[str] = []
    all_taken = threading.Event()

    async def body(session: Session) -> None:
        class Blocking:
            kinds = (Turn,)

            def put(self, message: Message | None) -> None:
                if isinstance(message, Turn):
                    with session.blocking():
                        time.sleep(0.002)
                    taken.append(message.text)
                    if len(taken) == len(texts):
                        all_taken.set()

        session.listen(Blocking())
        say(session, *texts)
        time.sleep(0.3)  # noqa: ASYNC251 - so that many arrive at once
        assert await asyncio.to_thread(all_taken.wait, TIMEOUT_S)

    run(server, body)

    assert taken == texts


def test_a_killed_session_ends_though_its_loop_is_closed(server: FakeServer) -> None:
    session, end = Session(server=server.url, **QUIET), _End()

    async def begin() -> None:
        await session.__aenter__()
        await until_on_loop()

    session.listen(end)
    asyncio.run(begin())
    session.kill()

    assert end.came.wait(TIMEOUT_S)


def test_a_loop_that_cannot_watch_sockets_is_served_by_threads(server: FakeServer) -> None:
    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:
            raise NotImplementedError

    async def main() -> None:
        async with Session(server=server.url, **QUIET) as session:
            events = session.events(Turn)
            say(session, "one", "two")
            assert await heard(aiter(events), 2) == ["one", "two"]
            assert threads() == {"rtvoice-read", "rtvoice-write"}
            assert session.status(TIMEOUT_S)["speaker"]["state"] == "open"
            say(session, "three")
            assert await heard(aiter(events), 1) == ["three"]

    with asyncio.Runner(loop_factory=Proactor) as runner:
        runner.run(main())


def test_a_listener_that_raises_on_the_loop_ends_the_session(server: FakeServer) -> None:
    class Broken:
        kinds = (Turn,)

        def put(self, message: Message | None) -> None:
            if message is not None:
                raise ValueError("of the program")

    async def body(session: Session) -> None:
        session.listen(Broken())
        say(session, "one")
        with pytest.raises(Exception, match="failed to handle a message: ValueError") as caught:
            await asyncio.to_thread(session.wait, TIMEOUT_S)
        assert isinstance(caught.value.__cause__, ValueError)
        raise caught.value

    with pytest.raises(Exception, match="of the program"):
        run(server, body)


@pytest.mark.skipif(not _OPEN.is_dir(), reason="needs /proc")
def test_no_descriptor_of_a_session_is_left(server: FakeServer) -> None:
    async def main() -> list[int]:
        counts = []
        for _ in range(3):
            async with Session(server=server.url, **QUIET) as session:
                await until_on_loop()
                say(session, "one")
                await session.status_async()
            await asyncio.sleep(0)
            counts.append(len(os.listdir(_OPEN)))  # noqa: PTH208 - of this process
        return counts

    first, *_, last = asyncio.run(main())

    assert last <= first  # what earlier tests have left may be closed meanwhile


class Loudspeaker:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.played = b""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def clear_buffer(self) -> None: ...

    async def play_chunk(self, chunk: bytes) -> None:
        self.played += chunk


def test_the_programs_device_gets_everything_in_order_whoever_reads(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes straight; through the supervisor while the loop is blocked; and on a thread."""
    speech, device, past = noise(3_000, 1), Loudspeaker(), list[Message]()
    drain = DirectEnd.drain

    def counted(end: DirectEnd) -> Iterator[Message]:
        for message in drain(end):
            past.append(message)
            yield message

    monkeypatch.setattr(DirectEnd, "drain", counted)

    async def body(session: Session) -> None:
        async def until_played(share: float) -> None:
            async with asyncio.timeout(TIMEOUT_S):
                while len(device.played) < share * len(speech):  # noqa: ASYNC110 - a device has no event
                    await asyncio.sleep(0.005)

        session.send(SendText("go on", "id"))
        server.connection().expect("response.create")
        server.connection().say("a story", speech, item="a")
        await until_played(0.1)
        time.sleep(1.3)  # noqa: ASYNC251 - more than its socket holds
        await until_played(0.6)
        time.sleep(0.4)  # noqa: ASYNC251 - there is something in the socket,
        session.status()  # when a thread takes over
        await until_played(1)

    run(server, body, output_device=device)

    assert device.played == speech
    assert len(past) > 3, "nothing has come straight"


def test_the_microphone_gets_everything_that_a_program_captures_in_order(
    server: FakeServer,
) -> None:
    blocks = [noise(40, number) for number in range(40)]

    async def body(session: Session) -> None:
        connection = server.connection()
        for number, block in enumerate(blocks):
            session.send_sound(ProgramCapture(b""), [block[:100], block[100:]])
            if number % 10 == 5:
                session.status()  # meanwhile, threads write
            await asyncio.sleep(0.02)
        sent = b"".join(blocks)
        server.wait_for(lambda: sent in heard_by(connection))

    run(server, body, input="program")


def heard_by(connection: Connection) -> bytes:
    appended = connection.of("input_audio_buffer.append")
    return b"".join(base64.b64decode(event["audio"]) for event in appended)
