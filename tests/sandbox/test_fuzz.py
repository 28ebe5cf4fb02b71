"""Random frames to the sandbox and to our own side: neither dies, hangs or grows.

A failure names its seed. `--long` sends a million frames each way.
"""

from __future__ import annotations

import gc
import json
import random
import resource
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from actors.realtime import wire
from messages import SendText, Turn
from rtvoice.sandbox.conversation import Recognition
from rtvoice.sandbox.faults import GARBAGE
from rtvoice.sandbox.launch import start_sandbox
from rtvoice.sandbox.session import Listen, ServerSession
from rtvoice.testing import SandboxServer
from supervisor import Session as Conversation
from tests.actors.realtime.core.bench import Bench
from tests.rig import TIMEOUT_S
from tests.sandbox.client import MS, Client, said
from tests.sandbox.frames import CLIENT, frame, server_events
from tests.sandbox.test_many import memory_mib

FRAMES = 100
"""Of one session."""
SEEDS = st.integers(0, 2**32 - 1)
LONG = 1_000_000
GROWTH_MIB = 40
ERROR_FIELDS = {"type", "code", "message", "param", "event_id"}


def fuzz_sandbox(seed: int) -> None:
    chosen = random.Random(seed)
    session = ServerSession("gpt-realtime-2.1")
    session.open()
    open_responses: set[str] = set()
    for _ in range(FRAMES):
        session.receive(frame(chosen, CLIENT))
        for work in session.take_work():
            if isinstance(work, Listen):
                session.heard(work.item_id, Recognition(0.8, chosen.choice(["", None, "hello"])))
                continue
            speech = session.think(work.response_id)
            if speech is not None:
                session.speak(work.response_id, ["Well"], bytes(40 * MS))
                if chosen.random() < 0.7:
                    session.finish(work.response_id)
        for event in session.take_events():
            json.dumps(event)
            kind = event["type"]
            if kind == "error":
                assert event["error"].keys() == ERROR_FIELDS
            elif kind == "response.created":
                open_responses.add(event["response"]["id"])
            elif kind == "response.done":
                open_responses.remove(event["response"]["id"])
    session.receive('{"type": "session.update", "session": {"type": "realtime"}}')
    assert session.take_events()[-1]["type"] == "session.updated"


def fuzz_core(seed: int) -> None:
    chosen = random.Random(seed)
    bench = Bench(transcription_model="gpt-transcribe", greeting="Hi").live()
    for _ in range(FRAMES):
        text = frame(chosen, server_events())
        event = wire.decode(text if isinstance(text, bytes) else text.encode())
        bench.take(event)
        bench.collect()
        if chosen.random() < 0.1:
            bench.capture(chosen.randrange(10**5))
            bench.wait(chosen.choice((0.04, 0.5, 3)))
        if bench.core.phase.name == "OFFLINE":
            bench.connect()
            bench.snapshot()
            bench.server("session.updated", session={})
        deadline = bench.core.next_deadline(bench.now)
        assert deadline is None or deadline > bench.now
        bench.clear_but_requests()
    assert len(json.dumps(str(bench.core.saved))) < 200_000


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_the_sandbox_answers_whatever_a_client_sends(seed):
    fuzz_sandbox(seed)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_the_core_goes_on_whatever_a_server_sends(seed):
    fuzz_core(seed)


def used_mib() -> float:
    """Memory of this process now; its peak says nothing of what is left."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize("fuzz", [fuzz_sandbox, fuzz_core])
def test_a_million_frames_kill_nobody_and_leave_nothing(fuzz):
    seeds = random.Random(time.time_ns())
    sessions = LONG // FRAMES
    settled = 0.0
    for number in range(sessions):
        seed = seeds.randrange(2**32)
        began = time.monotonic()
        try:
            fuzz(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        assert time.monotonic() - began < TIMEOUT_S, f"seed {seed} hangs"
        if number == sessions // 10:
            settled = used_mib()

    assert used_mib() - settled < GROWTH_MIB


@pytest.mark.parametrize("sessions", [5, pytest.param(1000, marks=pytest.mark.long)])
def test_a_running_sandbox_survives_random_clients(sessions):
    chosen = random.Random(sessions)
    harmless = tuple(event for event in CLIENT if event["type"] != "sandbox.misbehave")
    settled = 0.0
    with start_sandbox(0, 10, "--pace=0") as running:
        for number in range(sessions):
            with Client(running.url, max_queue=None) as client:
                try:
                    for _ in range(FRAMES):
                        client.socket.send(frame(chosen, harmless))
                    client.send("response.cancel", response_id="none", event_id="the last")
                    while client.expect("error")["error"]["event_id"] != "the last":
                        pass
                except ConnectionClosed as closed:
                    raise AssertionError(f"session {number} of {sessions}: {closed}") from None
            if number == sessions // 10:
                settled = memory_mib(running.pid)
        grown = memory_mib(running.pid) - settled
        with Client(running.url) as client:
            client.expect("session.created")
            answer = client.ask("thank you", output_modalities=["text"])

    assert said(answer) == "You are welcome."
    assert grown < 2 * GROWTH_MIB


def test_a_conversation_goes_on_through_all_kinds_of_garbage():
    kinds = sorted(set(GARBAGE) - {"huge"})
    with SandboxServer() as server:
        server.say("One, two, three.")
        server.misbehave(*(f"garbage {kind} after response.output_audio.delta" for kind in kinds))
        with Conversation(server=server.url, input="silence", output="null") as conversation:
            turns = conversation.events(Turn)
            conversation.send(SendText("count", "text-1"))
            server.expect("response.output_audio.delta")
            conversation.send(SendText("thank you", "text-2"))
            for turn in turns:
                if turn.text == "You are welcome.":
                    break

    assert server.connections == 2  # bytes that are no frame end the first one
