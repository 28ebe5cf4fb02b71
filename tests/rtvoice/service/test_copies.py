"""Sound passes the program without being decoded, and is copied once, in each direction."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from actors.devices.own.hosted import HostedOutput
from messages import Message, ProgramCapture, ProgramPlayout, decode, encode
from messages.transport.channel import Channel
from rtvoice.service.line import Line
from rtvoice.service.socket import Socket
from rtvoice.service.talk import Talk
from rtvoice.testing import SandboxServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S
from tests.rtvoice.service.stage import serving, until
from tests.rtvoice.service.test_calls import service_for

SIZE = 192_000


@contextlib.contextmanager
def copies() -> Iterator[list[float]]:
    """Measure how much memory a block takes at most, in parts of `SIZE`."""
    found: list[float] = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield found
        found.append((tracemalloc.get_traced_memory()[1] - before) / SIZE)
    finally:
        tracemalloc.stop()


@in_a_loop
async def test_sound_of_a_caller_is_copied_once_into_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rtvoice.service.call._PIECE_S", 1.0)
    wire = Talk()
    frames = [bytes(SIZE // 2) for _ in range(2)]  # as the ASGI server hands them over
    decoded: list[Message] = []
    monkeypatch.setattr("actors.embedding.outbox.decode", decoded.append)
    with SandboxServer(timeout_s=2 * TIMEOUT_S) as sandbox:
        service = service_for(sandbox)
        async with serving(service) as stage, stage.caller() as caller:
            session = (await caller.hello(rate=SIZE // 2))["session"]
            await caller.expect("started")
            call = service._desk._calls[session]
            with copies() as found:
                for frame in frames:
                    received = wire.received(frame)
                    assert isinstance(received, bytes)
                    call._hear(received)

    assert 1 <= found[0] < 1.5
    assert not decoded


@in_a_loop
async def test_sound_for_a_caller_is_what_was_decoded_from_the_message() -> None:
    sent: list[Any] = []
    told: list[Message] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        await asyncio.Event().wait()

    line = Line(192_000)
    line.attach(Socket({}, receive, send), Talk())
    output = HostedOutput(line, told.append)
    running = asyncio.ensure_future(output.run_again_and_again())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        theirs.sendall(encode(ProgramPlayout(bytes(38_400), 0)))  # 100 ms, as the speaker sends it
        while not channel.frames:
            channel.fill()
    frame = channel.frames.popleft()

    message = decode(frame)
    assert isinstance(message, ProgramPlayout)
    output.receive(message)
    await until(lambda: sent, "it is not sent")
    running.cancel()
    await asyncio.wait({running})

    assert sent[0]["bytes"] is message.pcm
    assert not any(isinstance(each, ProgramCapture) for each in told)
