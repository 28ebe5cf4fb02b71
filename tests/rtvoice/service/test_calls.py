"""Callers at real sockets: served, refused, lost, and those who send what they may not."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from messages.transport import forking
from rtvoice import (
    Agent,
    AgentStartedEvent,
    ComponentCrashed,
    ResponseEnded,
    SupervisorRestarted,
)
from rtvoice.service import Busy, CallInfo, Draining, Service
from rtvoice.service.admission import Admission, Limits, Place
from rtvoice.service.asgi import App
from rtvoice.service.load import Processes
from rtvoice.service.socket import Socket
from rtvoice.service.talk import Talk
from rtvoice.testing import SandboxServer, speech
from tests.loop import in_a_loop
from tests.messages.transport.test_forking import start_server
from tests.proc import parent
from tests.rig import TIMEOUT_S, wait_until_gone
from tests.rtvoice.service.stage import Caller, Stage, seller, serving, until, whole_journals
from tests.test_command import speaks

needs_a_voice = pytest.mark.skipif(not speaks, reason="needs espeak-ng")


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=1.5, timeout_s=2 * TIMEOUT_S) as server:
        yield server


def service_for(sandbox: SandboxServer, **options: Any) -> Service:
    """Return a service without limits that depend on this machine."""
    return Service(seller(sandbox), **{"cpu_limit": None, "lag_limit_ms": None, **options})


def counts(stage: Stage, metric: str) -> bool:
    """Return whether a metric is there, with this value."""
    return f"rtvoice_{metric}" in stage.service.metrics().decode()


# -- served ------------------------------------------------------------------------------------


@needs_a_voice
@in_a_loop
async def test_what_a_caller_says_while_the_conversation_starts_is_answered(
    sandbox: SandboxServer,
) -> None:
    sandbox.hear("what is your name")
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        hello = await caller.hello()
        await caller.socket.send(speech("what is your name"))
        assert not caller.told[1:]  # it has not started
        answer = await caller.expect("turn", role="assistant")
        await caller.hears()
        await until(lambda: counts(stage, "response_seconds_count 1.0"), "one answer was heard")
        await until(lambda: counts(stage, 'tokens_total{kind="output_audio"}'), "it has tokens")
        await until(lambda: not counts(stage, "dollars_total 0.0\n"), "it has a price")
        sessions = stage.service.sessions()
        page = json.loads((await stage.get("/sessions"))[1])

    assert answer["text"] == "My name is Sandbox."
    assert (hello["rate"], hello["resumed"]) == (24000, False)
    assert hello["session"] == sessions[0]["id"] == page["sessions"][0]["id"]
    assert hello["token"] not in json.dumps(page)


@needs_a_voice
@in_a_loop
async def test_a_telephone_line_talks_interrupts_and_hangs_up(sandbox: SandboxServer) -> None:
    from rtvoice.audio.mulaw import to_mulaw
    from rtvoice.service.twilio import Twilio
    from tests.test_examples import in_pieces

    sandbox.hear("tell me a story")
    provider, told, seen = Twilio(), [], []
    provider.greeted('{"event": "start", "streamSid": "MZ1", "start": {}}')
    pieces = in_pieces(speech("tell me a story"), 8000)
    greeting = "Bicycle shop, hello! What can I do for you on this fine day in the morning?"

    def make_agent(call: CallInfo) -> Agent:
        seen.append(call)
        return seller(sandbox, greeting=greeting)(call)

    async with serving(Service(make_agent, cpu_limit=None, lag_limit_ms=None)) as stage:
        async with stage.connect("/twilio") as socket:
            await socket.send('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
            start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": {"shop": "7"}}
            await socket.send(json.dumps({"event": "start", "streamSid": "MZ1", "start": start}))
            marks: list[Any] = []
            async for text in socket:
                told.append(json.loads(text)["event"])
                if told[-1] == "mark":
                    marks.append(text)
                    if len(marks) < 8:
                        await socket.send(text)  # it was heard
                    if len(marks) == 8:
                        for piece in pieces:
                            (frame, _) = provider.sound(piece)
                            await socket.send(frame)
                elif told[-1] == "clear":
                    break
            cut = sandbox.expect("conversation.item.truncate")
            await socket.send('{"event": "stop", "streamSid": "MZ1", "stop": {}}')
            await stage.empty()
        metrics = (await stage.get("/metrics"))[1]

    assert seen[0].parameters == {"shop": "7", "callSid": "CA1", "streamSid": "MZ1"}
    assert (seen[0].kind, seen[0].sample_rate) == ("twilio", 8000)
    assert 0 < cut["audio_end_ms"] <= 800  # the marks that came back, not those that were cleared
    assert 'rtvoice_sessions_ended_total{reason="hung_up"} 1.0' in metrics
    assert "rtvoice_interruptions_total 1.0" in metrics
    assert to_mulaw(bytes(4)) == b"\xff\xff"


@in_a_loop
async def test_a_caller_who_hangs_up_is_no_failed_device_and_no_warning(
    sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rtvoice")
    async with serving(service_for(sandbox)) as stage:
        async with stage.caller() as caller:
            await caller.hello()
            await caller.expect("started")
            await caller.socket.send(bytes(960))
        await stage.empty()
        async with stage.caller() as caller:
            await caller.hello()  # and one who does so while it starts
        await stage.empty()
        metrics = (await stage.get("/metrics"))[1]

    said = [r.getMessage() for r in caplog.records if r.name == "rtvoice.service"]
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []
    assert [re.sub(r"[\d.]+", "N", text) for text in said] == ["ended after N s: hung_up"] * 2
    assert 'rtvoice_sessions_ended_total{reason="hung_up"} 2.0' in metrics


@needs_a_voice
@in_a_loop
async def test_the_death_of_a_supervisor_is_nothing_to_the_caller(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    sandbox.hear("what is your name")
    started: list[AgentStartedEvent] = []
    restarts: list[SupervisorRestarted] = []

    def make_agent(call: CallInfo) -> Agent:
        agent = seller(sandbox)(call)
        subscribe = agent.event_bus.subscribe
        subscribe(AgentStartedEvent, started.append)
        subscribe(SupervisorRestarted, restarts.append)
        return agent

    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None, journals=tmp_path)
    async with serving(service) as stage, stage.caller() as caller:
        await caller.hello()
        await caller.expect("started")
        await until(lambda: started, "it does not tell its processes")
        pids = started[0].pids
        os.kill(pids["supervisor"], signal.SIGKILL)
        await asyncio.to_thread(wait_until_gone, list(pids.values()), TIMEOUT_S / 10)
        await until(lambda: restarts, "it is not restarted")
        await caller.socket.send(speech("what is your name"))
        await caller.expect("turn", role="assistant", text="My name is Sandbox.")
        await caller.hears()
        metrics = (await stage.get("/metrics"))[1]

    assert 'rtvoice_restarts_total{cause="killed",component="supervisor"} 1.0' in metrics
    (records,) = whole_journals(tmp_path)
    assert "My name is Sandbox." in json.dumps(records)


@pytest.mark.skipif(not forking.available(), reason="nothing is forked here")
@needs_a_voice
@in_a_loop
async def test_the_death_of_the_forking_process_is_nothing_to_the_callers(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    sandbox.hear("what is your name")
    started: list[AgentStartedEvent] = []
    faults: list[object] = []

    def make_agent(call: CallInfo) -> Agent:
        agent = seller(sandbox)(call)
        agent.event_bus.subscribe(AgentStartedEvent, started.append)
        for kind in (ComponentCrashed, SupervisorRestarted):
            agent.event_bus.subscribe(kind, faults.append)
        return agent

    forker = start_server()
    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None, journals=tmp_path)
    async with serving(service) as stage, stage.caller() as caller:
        await caller.hello()
        await caller.expect("started")
        await until(lambda: started, "it does not tell its processes")
        forked = parent(started[0].pids["supervisor"]) == forker
        used = Processes()
        used.cores()
        before_mib = used.pss_mib()
        os.kill(forker, signal.SIGKILL)
        await until(lambda: parent(started[0].pids["supervisor"]) != forker, "it lives on")
        await caller.socket.send(speech("what is your name"))
        await caller.expect("turn", role="assistant", text="My name is Sandbox.")
        await caller.hears()
        used.cores()
        after_mib = used.pss_mib()
        async with stage.caller() as later:
            await later.hello()
            await later.expect("started")
        await until(lambda: len(service.sessions()) == 1, "the later one goes on")
        unharmed = not faults
    pids = [pid for event in started for pid in event.pids.values()]
    await asyncio.to_thread(wait_until_gone, pids, TIMEOUT_S / 10)

    assert forked
    assert len(whole_journals(tmp_path)) == len(started) == 2
    assert after_mib > 0.75 * before_mib  # the conversation is still measured
    assert unharmed, faults
    assert caller.code == 1000


@pytest.mark.long
@partial(in_a_loop, limit_s=60 * TIMEOUT_S)
async def test_nothing_grows_with_two_hundred_conversations(sandbox: SandboxServer) -> None:
    async def held(stage: Stage, count: int) -> tuple[int, int, float]:
        for _ in range(count):
            async with stage.caller() as caller:
                await caller.hello()
                await caller.expect("started")
                await caller.socket.send(bytes(960))
            await stage.empty()
        sandbox.events.clear()
        gc.collect()
        processes = Processes()
        processes.cores()
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - none stays open for it
        return descriptors, threading.active_count(), processes.pss_mib()

    async with serving(service_for(sandbox)) as stage:
        before = await held(stage, 20)
        after = await held(stage, 200)

    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2] + 12


@in_a_loop
async def test_metrics_have_no_ids_and_no_place_stays_taken(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox, max_sessions=1)) as stage:
        for _ in range(3):
            async with stage.caller() as caller:
                hello = await caller.hello()
                await caller.expect("started")
                metrics = (await stage.get("/metrics"))[1]
                assert hello["session"] not in metrics
            await stage.empty()
        metrics = (await stage.get("/metrics"))[1]

    assert "rtvoice_sessions_started_total 3.0" in metrics
    assert 'rtvoice_sessions{state="running"} 0.0' in metrics
    assert "rtvoice_capacity 1.0" in metrics


# -- admission ---------------------------------------------------------------------------------


async def attempt(stage: Stage, held: list[Caller], path: str = "/talk") -> float:
    """Call; return the seconds until the refusal, or 0.0 and keep the caller."""
    began = time.monotonic()
    try:
        socket = await stage.connect(path)
    except InvalidStatus as error:
        took, refused = time.monotonic() - began, error.response
    else:
        held.append(Caller(socket))
        return 0.0
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert b"all places of the service are taken" in (refused.body or b"")
    return took


async def burst(sandbox: SandboxServer, callers: int, places: int) -> list[float]:
    held: list[Caller] = []
    async with serving(service_for(sandbox, max_sessions=places)) as stage:
        took = await asyncio.gather(*(attempt(stage, held) for _ in range(callers)))
        assert len(held) == places
        await asyncio.gather(*(caller.hello() for caller in held))
        await asyncio.gather(*(caller.expect("started") for caller in held))
        metrics = (await stage.get("/metrics"))[1]
        for caller in held:
            await caller.socket.close()
        await stage.empty()
    refused = f'rtvoice_sessions_refused_total{{reason="sessions"}} {callers - places:.1f}'
    assert refused in metrics
    return sorted(took)[places:]


@in_a_loop
async def test_who_finds_no_place_is_refused_before_the_socket_is_open(
    sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(await burst(sandbox, 5, 2)) == 3
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.long
@in_a_loop
async def test_of_twenty_callers_four_are_served_and_the_others_refused_at_once(
    sandbox: SandboxServer,
) -> None:
    took = await burst(sandbox, 20, 4)

    assert took[len(took) // 2] < 0.1 * TIMEOUT_S / 10  # the callers have the same loop, and core


@in_a_loop
async def test_callers_wait_for_places_in_order(sandbox: SandboxServer) -> None:
    service = service_for(sandbox, max_sessions=1, queue=2, queue_s=60)
    async with serving(service) as stage, stage.caller() as first:
        await first.hello()
        await first.expect("started")
        held: list[Caller] = []
        waiting = []
        for number in range(2):
            waiting.append(asyncio.ensure_future(attempt(stage, held)))
            await until(lambda n=number: len(service._desk._queue) == n + 1, "nobody waits")
        third = await attempt(stage, held)
        await first.socket.close()
        await until(lambda: held, "the first in the queue gets no place")
        assert [each.done() for each in waiting] == [True, False]
        await held[0].hello()
        await held[0].expect("started")
        await held[0].socket.close()
        await until(lambda: len(held) == 2, "the second gets no place")
        await held[1].socket.close()

    assert third > 0


@pytest.mark.long
@in_a_loop
async def test_twenty_callers_at_once_are_all_served_in_order(sandbox: SandboxServer) -> None:
    # One at a time: of two that start together the later one may be ready first.
    service = service_for(sandbox, max_sessions=20, queue=20, queue_s=10, start_parallel=1)
    started: list[int] = []

    async with serving(service) as stage:

        async def call(number: int) -> Caller:
            caller = Caller(await stage.connect())
            await caller.hello()
            await caller.expect("started")
            started.append(number)
            return caller

        began = time.monotonic()
        calls = []
        for number in range(20):
            calls.append(asyncio.ensure_future(call(number)))
            await until(lambda n=number: len(stage.service.sessions()) == n + 1, "no place")
        callers = await asyncio.gather(*calls)
        took = time.monotonic() - began
        for caller in callers:
            await caller.socket.close()

    assert started == list(range(20))
    assert took < 8 * TIMEOUT_S / 10


@in_a_loop
async def test_who_gives_up_waiting_leaves_the_queue(sandbox: SandboxServer) -> None:
    service = service_for(sandbox, max_sessions=1, queue=1, queue_s=60)
    async with serving(service) as stage, stage.caller() as first:
        await first.hello()
        waiting = asyncio.ensure_future(attempt(stage, []))
        await until(lambda: len(service._desk._queue) == 1, "nobody waits")
        waiting.cancel()
        await until(lambda: len(service._desk._queue) == 0, "it waits on")


@in_a_loop
async def test_the_load_is_measured_and_decides(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtvoice.service.desk._SAMPLE_S", 0.01)
    service = service_for(sandbox, memory_limit_mib=1)
    async with serving(service) as stage:
        await until(lambda: service.shortage == "memory", "it is not measured")
        status, body = await stage.get("/readyz")
        with pytest.raises(InvalidStatus) as refused:
            await stage.connect()
        metrics = (await stage.get("/metrics"))[1]

    assert (status, json.loads(body)) == (200, {"ready": True, "short": "memory"})
    assert b"no memory left for another conversation" in (refused.value.response.body or b"")
    found = re.search(r"^rtvoice_memory_pss_bytes (\S+)$", metrics, re.MULTILINE)
    assert found
    assert float(found[1]) > 2**20


@in_a_loop
async def test_a_program_has_places_too_and_is_told_why_not(sandbox: SandboxServer) -> None:
    agents = [
        Agent(server=sandbox.url, audio_input="silence", audio_output="null") for _ in range(2)
    ]
    service = service_for(sandbox, max_sessions=1)
    async with service.session(agents[0]) as agent:
        with pytest.raises(Busy) as refused:
            async with service.session(agents[1]):
                pass
        await agent.stop()
    async with service.session(agents[1]) as agent:
        await agent.stop()
    await service.drain()
    with pytest.raises(Draining):
        async with service.session(agents[0]):
            pass

    assert (refused.value.reason, refused.value.retry_after_s) == ("sessions", 5.0)


@in_a_loop
async def test_an_agent_that_cannot_be_made_takes_no_place(sandbox: SandboxServer) -> None:
    def make_agent(_: CallInfo) -> Agent:
        raise KeyError("bug")

    service = Service(make_agent, max_sessions=1, cpu_limit=None, lag_limit_ms=None)
    for _ in range(2):
        with pytest.raises(KeyError, match="bug"):
            async with service.session(CallInfo()):
                pass
    await service.drain()


@in_a_loop
async def test_the_conversations_of_one_agent_are_each_counted_once(
    sandbox: SandboxServer,
) -> None:
    agent = Agent(server=sandbox.url, audio_input="silence", audio_output="null")
    tokens: list[int] = []
    agent.event_bus.subscribe(ResponseEnded, lambda event: tokens.append(event.tokens.input_text))
    service = service_for(sandbox)
    for number in (1, 2):
        async with service.session(agent):
            agent.send_text("what is your name")
            await until(lambda n=number: len(tokens) == n, "it gives no answer")
            await agent.stop()
    metrics = service.metrics().decode()
    await service.drain()

    assert f'rtvoice_tokens_total{{kind="input_text"}} {sum(tokens):.1f}\n' in metrics


@in_a_loop
async def test_a_place_that_comes_when_the_server_gives_the_caller_up_is_free_again() -> None:
    admission = Admission(Limits(cores=1.0, parallel=1, cpu_limit=None))
    asked: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    free: list[Place] = []

    async def admit() -> Place:
        return await asked

    async def forever() -> Any:
        await asyncio.Event().wait()

    desk = SimpleNamespace(admit=admit, give_back=free.append)
    app = App(desk, forever, ())  # type: ignore[arg-type]
    serving_it = asyncio.ensure_future(app._place(Socket({}, forever, forever)))  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    asked.set_result(admission.take())
    await asyncio.sleep(0)  # the place is there, and nobody knows yet
    serving_it.cancel()
    await asyncio.wait({serving_it})
    await asyncio.sleep(0)

    assert free == [asked.result()]


# -- the end -----------------------------------------------------------------------------------


@in_a_loop
async def test_who_drains_lets_callers_finish_and_takes_no_new_ones(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        await caller.hello()
        await caller.expect("started")
        assert (await stage.get("/readyz"))[0] == 200
        draining = asyncio.ensure_future(stage.service.drain())
        await until(lambda: stage.service.is_draining, "it does not drain")
        pages = [(await stage.get(path))[0] for path in ("/readyz", "/healthz")]
        with pytest.raises(InvalidStatus, match="503"):
            await stage.connect()
        assert not draining.done()
        await caller.socket.close()
        await asyncio.wait_for(draining, TIMEOUT_S)

    assert pages == [503, 200]


@in_a_loop
async def test_after_its_time_a_drain_ends_the_calls_in_order(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox)) as stage:
        async with stage.caller() as caller, stage.caller() as another:
            await caller.hello()
            await caller.expect("started")
            await another.hello()  # it has not started
            draining = asyncio.ensure_future(stage.service.drain(3600))
            await stage.service.drain(0)
            await asyncio.wait_for(draining, TIMEOUT_S)
            ends = [await caller.closed(), await another.closed()]

    assert ends == [(1001, "the service is ending")] * 2


@in_a_loop
async def test_a_drain_ends_a_call_whose_agent_is_being_made(
    sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    begun, drained = asyncio.Event(), asyncio.Event()

    async def make_agent(call: CallInfo) -> Agent:
        begun.set()
        await drained.wait()
        return seller(sandbox)(call)

    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None)
    async with serving(service) as stage, stage.caller() as caller:
        await caller.socket.send('{"rate": 24000}')
        await begun.wait()
        draining = asyncio.ensure_future(service.drain())
        await until(lambda: service.is_draining, "it does not drain")
        drained.set()
        end = await caller.closed()
        await draining

    assert end == (1001, "the service is ending")
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


@in_a_loop
async def test_a_drain_ends_a_conversation_of_the_program_that_waits_for_its_start(
    sandbox: SandboxServer,
) -> None:
    service = service_for(sandbox, start_parallel=1)
    agent = Agent(server=sandbox.url, audio_input="silence", audio_output="null")

    async def converse() -> None:
        async with service.session(agent):
            pass

    async with service._desk._gate.passing():
        waiting = asyncio.ensure_future(converse())
        await until(lambda: service.sessions(), "it does not wait")
        draining = asyncio.ensure_future(service.drain(0))
        (conversation,) = service._desk._conversations.values()
        await until(lambda: conversation.ended_by, "it is not told to end")
    with pytest.raises(Draining):
        await waiting
    await draining

    assert not agent.ready


@in_a_loop
async def test_for_a_hello_that_comes_during_a_drain_no_agent_is_made(
    sandbox: SandboxServer,
) -> None:
    calls: list[CallInfo] = []

    def make_agent(call: CallInfo) -> Agent:
        calls.append(call)
        return seller(sandbox)(call)

    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None)
    async with serving(service) as stage, stage.caller() as caller:
        draining = asyncio.ensure_future(service.drain())
        await until(lambda: service.is_draining, "it does not drain")
        await caller.socket.send('{"rate": 24000}')
        code, reason = await caller.closed()
        await draining

    assert (code, calls) == (1001, [])
    assert "takes no new conversations" in reason


@in_a_loop
async def test_a_conversation_that_cannot_start_says_why(sandbox: SandboxServer) -> None:
    agent = Agent(server="ws://127.0.0.1:9/x", connect_timeout_s=0.2)
    service = Service(lambda _: agent, cpu_limit=None, lag_limit_ms=None)
    async with serving(service) as stage, stage.caller() as caller:
        await caller.hello()
        code, reason = await caller.closed()

    assert code == 1011
    assert "127.0.0.1:9" in reason


# -- lost callers ------------------------------------------------------------------------------


@needs_a_voice
@pytest.mark.parametrize("in_the_query", [False, True])
@in_a_loop
async def test_a_lost_caller_comes_again_and_goes_on(
    sandbox: SandboxServer, in_the_query: bool
) -> None:
    sandbox.hear("tell me a story")
    sandbox.hear("what is your name")
    async with serving(service_for(sandbox, max_sessions=1)) as stage:
        async with stage.caller() as caller:
            hello = await caller.hello()
            await caller.socket.send(speech("tell me a story"))
            await caller.hears(48_000)
            caller.lose()
            await stage.state("lost")
            await asyncio.to_thread(sandbox.expect, "conversation.item.truncate")  # nobody hears it
        query = f"?token={hello['token']}" if in_the_query else ""
        async with stage.caller(f"/talk{query}") as again:
            back = await again.hello(**({} if in_the_query else {"token": hello["token"]}))
            await again.socket.send(speech("what is your name"))
            await again.expect("turn", role="assistant", text="My name is Sandbox.")
            await again.hears()
        await stage.empty()
        metrics = (await stage.get("/metrics"))[1]

    assert back | {"resumed": False} == hello
    assert back["resumed"]
    assert len(sandbox.of("session.created")) == 1
    assert "rtvoice_sessions_started_total 1.0" in metrics


@in_a_loop
async def test_who_comes_again_takes_no_second_place(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox, max_sessions=2)) as stage:
        async with stage.caller() as caller:
            hello = await caller.hello()
            await caller.expect("started")
            caller.lose()
            await stage.state("lost")
        async with stage.caller() as again:
            await again.hello(token=hello["token"])
            async with stage.caller() as another:
                await another.hello()
                await another.expect("started")


@in_a_loop
async def test_a_caller_who_is_lost_while_the_conversation_starts_is_waited_for(
    sandbox: SandboxServer,
) -> None:
    async with serving(service_for(sandbox)) as stage:
        async with stage.caller() as caller:
            hello = await caller.hello()
            caller.lose()
            await stage.state("lost")
        async with stage.caller() as again:
            await again.hello(token=hello["token"])
            await stage.state("running")


@in_a_loop
async def test_sound_is_not_read_faster_than_it_was_spoken(sandbox: SandboxServer) -> None:
    taken = []

    class Flood:
        async def frame(self) -> bytes:
            taken.append(1)
            return bytes(48_000 * 2)  # 2 s

    service = service_for(sandbox)
    async with serving(service) as stage, stage.caller() as caller:
        session = (await caller.hello())["session"]
        await caller.expect("started")
        reading = asyncio.ensure_future(
            service._desk._calls[session]._read(Flood(), Talk())  # type: ignore[arg-type]
        )
        for _ in range(100):
            await asyncio.sleep(0)
        reading.cancel()

    # 5 s ahead, and the time that it took to start, at most.
    assert 3 <= len(taken) < 20


@in_a_loop
async def test_a_lost_caller_is_not_waited_for_for_ever(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox, keep_s=0.05)) as stage:
        async with stage.caller() as caller:
            hello = await caller.hello()
            await caller.expect("started")
            caller.lose()
        await stage.empty()
        async with stage.caller() as again:
            await again.socket.send(json.dumps({"rate": 24000, "token": hello["token"]}))
            end = await again.closed()
        metrics = (await stage.get("/metrics"))[1]

    assert end == (1008, "the token fits no conversation that is kept; call again without it")
    assert 'rtvoice_sessions_ended_total{reason="lost"} 1.0' in metrics


@in_a_loop
async def test_while_a_lost_caller_is_waited_for_nobody_gets_the_place(
    sandbox: SandboxServer,
) -> None:
    async with serving(service_for(sandbox, max_sessions=1)) as stage:
        async with stage.caller() as caller:
            await caller.hello()
            await caller.expect("started")
            caller.lose()
            await stage.state("lost")
        async with stage.caller() as stranger:
            await stranger.socket.send('{"rate": 24000}')
            code, reason = await stranger.closed()

    assert code == 1013
    assert reason == "all places of the service are taken; try again in 5 s"


@in_a_loop
async def test_who_comes_again_has_the_rate_of_before(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        hello = await caller.hello()
        await caller.expect("started")
        async with stage.caller() as again:
            await again.socket.send(json.dumps({"rate": 16000, "token": hello["token"]}))
            end = await again.closed()
        await caller.socket.send(bytes(960))
        assert [s["state"] for s in stage.service.sessions()] == ["running"]

    assert end == (1008, "this conversation has a rate of 24000")


@in_a_loop
async def test_who_comes_again_before_the_loss_was_noticed_takes_over(
    sandbox: SandboxServer,
) -> None:
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        hello = await caller.hello()
        await caller.expect("started")
        async with stage.caller() as again:
            back = await again.hello(token=hello["token"])
            end = await caller.closed()
            assert [s["state"] for s in stage.service.sessions()] == ["running"]

    assert end == (1000, "the conversation goes on at another socket")
    assert back["session"] == hello["session"]


@in_a_loop
async def test_with_journals_a_caller_comes_again_to_another_program(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    options = {"journals": tmp_path / "journals"}
    async with serving(service_for(sandbox, **options)) as stage, stage.caller() as caller:
        hello = await caller.hello()
        await caller.expect("started")
        await stage.service.drain(0)
        assert (await caller.closed())[0] == 1001
    async with serving(service_for(sandbox, **options)) as stage:
        async with stage.caller() as forger:
            token = hello["token"].partition(".")[0] + ".guessed"
            await forger.socket.send(json.dumps({"rate": 24000, "token": token}))
            refused = await forger.closed()
        async with stage.caller() as again:
            back = await again.hello(token=hello["token"])
            await again.expect("started")
        await stage.empty()
        async with stage.caller() as late:
            await late.socket.send(json.dumps({"rate": 24000, "token": back["token"]}))
            over = await late.closed()

    assert refused[0] == over[0] == 1008
    assert back["resumed"]
    assert back["session"] == hello["session"]
    assert back["token"] != hello["token"]
    assert [path.suffix for path in (tmp_path / "journals").iterdir()] == [".jsonl"]


# -- bad input ---------------------------------------------------------------------------------

BAD = {
    "sound before the hello": ([b"\0\0"], 1008, "begin with the text"),
    "no JSON": (["hello"], 1007, "must be an object in JSON"),
    "a list": (["[1]"], 1007, "must be an object in JSON"),
    "no rate": (["{}"], 1007, 'needs a "rate"'),
    "a rate that cannot be": (['{"rate": 1}'], 1007, "from 8000 to 192000"),
    "a token that is none": (['{"rate": 24000, "token": 1}'], 1007, '"token" of a hello'),
    "parameters that are none": (['{"rate": 24000, "parameters": 1}'], 1007, "an object"),
    "a wrong token": (['{"rate": 24000, "token": "x.y"}'], 1008, "fits no conversation"),
    "a token of dots": (['{"rate": 24000, "token": "../x.y"}'], 1008, "fits no conversation"),
    "a token with half a character": (
        ['{"rate": 24000, "token": "SESSION.\\ud800"}'],
        1008,
        "fits no conversation",
    ),
    "text where sound belongs": (['{"rate": 24000}', "AAAA"], 1007, "object in JSON"),
    "an unknown message": (['{"rate": 24000}', '{"type": "x"}'], 1007, "sound belongs into binary"),
    "a position that is none": (['{"rate": 24000}', '{"type": "played"}'], 1007, '"ms" must be'),
    "half a sample": (['{"rate": 24000}', b"\0\0\0"], 1007, "half a sample"),
    "ten megabytes": (['{"rate": 24000}', bytes(10_000_000)], 1009, "at most 262144"),
    "ten megabytes of text": (['{"rate": 24000}', "A" * 10_000_000], 1009, "at most 262144"),
    "a hello of ten megabytes": (["A" * 10_000_000], 1009, "at most 262144"),
    "a deep hello": (["[" * 100_000], 1007, "must be an object in JSON"),
}


@in_a_loop
async def test_what_a_caller_may_not_send_closes_the_socket_and_disturbs_nobody(
    sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(service_for(sandbox)) as stage, stage.caller() as good:
        session = (await good.hello())["session"]
        await good.expect("started")
        for what, (frames, code, words) in BAD.items():
            async with stage.caller() as caller:
                for frame in frames:
                    is_text = isinstance(frame, str)
                    await caller.socket.send(
                        frame.replace("SESSION", session) if is_text else frame
                    )
                found = await caller.closed()
            assert (what, found[0]) == (what, code)
            assert words in found[1], (what, found)
            assert len(found[1].encode()) <= 123
        await until(lambda: len(stage.service.sessions()) == 1, "others go on")
        assert counts(stage, 'sessions_ended_total{reason="bad_input"}')
        await good.socket.send(bytes(960))
        assert stage.service.sessions()[0]["state"] == "running"
        assert good.code is None

    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.parametrize(
    ("frames", "code", "words"),
    [
        ([b"\0"], 1007, "text frames only"),
        (['{"event": "media"}'], 1008, "must be connected and start"),
        (['{"event": "start"}'], 1007, "needs a streamSid"),
        (['{"event": "start", "start": 5}'], 1007, "needs a streamSid"),
        (['{"event": "start", "streamSid": "MZ1", "start": [1]}'], 1007, "needs a streamSid"),
        ("media {}", 1007, "lacks its content"),
        ('media {"payload": "?"}', 1007, "must be base64"),
        ('media {"payload": "\u00e9"}', 1007, "must be base64"),
        (f'media {{"payload": "{"A" * 10_000_000}"}}', 1009, "at most 262144"),
    ],
)
@in_a_loop
async def test_a_media_stream_that_is_none_is_closed(
    sandbox: SandboxServer, frames: list[str] | str, code: int, words: str
) -> None:
    if isinstance(frames, str):
        start = '{"event": "start", "streamSid": "MZ1", "start": {}}'
        event, content = frames.split(" ", 1)
        frames = [start, f'{{"event": "{event}", "{event}": {content}}}']
    async with serving(service_for(sandbox)) as stage:
        async with stage.caller("/twilio") as line:
            for frame in frames:
                await line.socket.send(frame)
            end = await line.closed()

    assert end[0] == code
    assert words in end[1]


@in_a_loop
async def test_pages_of_other_origins_may_not_call_unless_allowed(sandbox: SandboxServer) -> None:
    origins = ["https://shop.example"]
    async with serving(service_for(sandbox, origins=origins)) as stage:
        for foreign in ("null", "http://[", "https://elsewhere.example"):
            with pytest.raises(InvalidStatus, match="403") as refused:
                await stage.connect(origin=foreign)
        for origin in ("https://shop.example", f"http://127.0.0.1:{stage.port}"):
            async with stage.caller(origin=origin) as caller:
                await caller.hello()

    assert b"pages of this origin may not call" in (refused.value.response.body or b"")


@in_a_loop
async def test_make_agent_may_refuse_and_may_fail(
    sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def make_agent(call: CallInfo) -> Any:
        match call.query.get("as"):
            case "stranger":
                raise PermissionError("who are you?")
            case "bug":
                raise KeyError("bug")
            case "nobody":
                return None
        return Agent(server=sandbox.url, audio_input="silence")

    ends = []
    async with serving(
        Service(make_agent, max_sessions=1, cpu_limit=None, lag_limit_ms=None)
    ) as stage:
        for who in ("stranger", "bug", "nobody", "deaf"):
            async with stage.caller(f"/talk?as={who}") as caller:
                await caller.socket.send('{"rate": 24000}')
                ends.append(await caller.closed())
            await until(lambda: not stage.service._desk._admission.count(), "its place is taken")

    assert ends == [(1008, "who are you?"), *[(1011, "the conversation cannot start")] * 3]
    assert "make_agent must return an Agent, not None" in caplog.text
    assert "audio_input: the service sets it for each caller; leave it out" in caplog.text


@in_a_loop
async def test_a_caller_without_a_hello_is_not_waited_for_for_ever(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtvoice.service.asgi._HELLO_S", 0.05)
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        end = await caller.closed()

    assert end == (1008, "the hello has not come within 0.05 s")


@in_a_loop
async def test_there_is_nothing_elsewhere(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox)) as stage:
        with pytest.raises(InvalidStatus, match="404"):
            await stage.connect("/elsewhere")
        status, body = await stage.get("/elsewhere")

    assert status == 404
    assert re.search("nothing here", body)
