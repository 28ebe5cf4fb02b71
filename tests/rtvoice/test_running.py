"""Running agents: their events, the changes they accept, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from messages import CreateResponse
from rtvoice import (
    Agent,
    AgentError,
    AgentStartedEvent,
    AgentStoppedEvent,
    AssistantTranscript,
    ComponentCrashedError,
    ComponentRestarted,
    EventError,
    InputAudioBufferAppendEvent,
    InputLevel,
    Level,
    NotRunningError,
    OutputAudioBufferClearEvent,
    OutputLevel,
    PlaybackEnded,
    ResponseCancelEvent,
    ResponseCreatedEvent,
    ResponseCreateEvent,
    ResponseDoneEvent,
    ResponseOutputAudioDeltaEvent,
    ServerEvent,
    SessionFailedError,
    SessionUpdateEvent,
    StopAgentCommand,
    SupervisorDiedError,
    SupervisorRestarted,
    ToolAnswer,
    Tools,
    Turn,
    UserInactivityTimeoutEvent,
)
from rtvoice.events import ConversationItemTruncateEvent, Event
from tests.conversation import noise
from tests.fake_server import Connection, FakeServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S, alive, wait_until_gone

pytestmark = pytest.mark.usefixtures("on_threads")

QUIET: dict[str, Any] = {"audio_input": "silence", "audio_output": "null"}


def agent_of(server: FakeServer, **given: Any) -> Agent:
    return Agent(**{"server": server.url, "inactivity_timeout_s": None, **QUIET, **given})


async def connection_of(server: FakeServer, number: int = 0) -> Connection:
    return await asyncio.to_thread(server.connection, number)


async def seen(connection: Connection, kind: str, fits: Any = lambda _: True) -> dict[str, Any]:
    return await asyncio.to_thread(connection.expect, kind, fits)


def supervisors() -> set[int]:
    """Return the process ids of the supervisors that this process has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"rtvoice.peer" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


class Heard:
    """Collects events of some types, and lets a test wait for one."""

    def __init__(self, agent: Agent, *kinds: type[Any]) -> None:
        self.events: list[Any] = []
        self._news = asyncio.Event()
        for kind in kinds:
            agent.event_bus.subscribe(kind, self._take)

    def _take(self, event: Any) -> None:
        self.events.append(event)
        self._news.set()

    def since(self, number: int) -> Callable[[Any], bool]:
        """Return what tells events that came after the first so many."""
        return lambda event: any(event is later for later in self.events[number:])

    async def expect(self, kind: type[Any], fits: Any = lambda _: True) -> Any:
        async with asyncio.timeout(3 * TIMEOUT_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and fits(event):
                        return event
                self._news.clear()
                await self._news.wait()


# -- lives ---------------------------------------------------------------------------------------


@pytest.mark.processes
@in_a_loop
async def test_a_conversation_lasts_until_it_is_stopped_and_is_returned(server: FakeServer) -> None:
    agent = agent_of(server)

    async with agent:
        connection = await connection_of(server)
        agent.send_text("Hello")
        await seen(connection, "response.create")
        connection.say("Good morning.", noise(50, 1), item="a1")
        turns = agent.events(Turn)
        async for turn in turns:
            if turn.role == "assistant":
                break
        await agent.stop()
    history = await agent.stop()

    assert [(turn.role, turn.content) for turn in history.conversation_turns] == [
        ("user", "Hello"),
        ("assistant", "Good morning."),
    ]
    assert history.ended_because == "the program asked"
    assert len(history) == 2
    assert await agent.stop() == history
    assert agent.history == history


@in_a_loop
async def test_an_agent_that_was_never_entered_has_an_empty_history() -> None:
    history = await Agent().stop()

    assert history.conversation_turns == []
    assert history.started_at is None


@in_a_loop
async def test_the_events_of_a_life_come_in_their_order(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, AgentStartedEvent, AgentStoppedEvent)

    async with agent:
        started = await heard.expect(AgentStartedEvent)
        await agent.stop()

    assert started.pids.keys() > {"microphone", "speaker", "realtime", "tools", "supervisor"}
    assert heard.events == [started, AgentStoppedEvent("the program asked")]


@in_a_loop
async def test_the_stop_command_stops(server: FakeServer) -> None:
    agent = agent_of(server)

    async with agent:
        agent.event_bus.publish(StopAgentCommand("enough"))

    assert agent.history.ended_because == "enough"


@in_a_loop
async def test_a_handler_may_stop_the_agent_and_await_that(server: FakeServer) -> None:
    agent, lengths = agent_of(server), []

    async def on_start(_: AgentStartedEvent) -> None:
        lengths.append(len(await agent.stop()))

    agent.event_bus.subscribe(AgentStartedEvent, on_start)
    async with agent:
        pass

    assert lengths == [0]


@in_a_loop
async def test_a_handler_of_the_start_may_send_a_request_at_once(server: FakeServer) -> None:
    agent = agent_of(server)
    agent.event_bus.subscribe(AgentStartedEvent, lambda _: agent.send_text("first of all"))
    turns = agent.events(Turn)

    async with agent:
        async for turn in turns:
            assert turn.text == "first of all"
            break
        await agent.stop()


@in_a_loop
async def test_another_thread_may_wait_for_it_and_stop_it(server: FakeServer) -> None:
    agent = agent_of(server)
    ended: list[str] = []

    async def elsewhere() -> None:
        await agent.wait_ready()
        ended.append((await agent.stop()).ended_because)

    async with agent:
        thread = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await thread

    assert ended == ["the program asked"]
    assert agent.history.ended_because == "the program asked"


@in_a_loop
async def test_events_may_be_read_on_another_loop(server: FakeServer) -> None:
    agent = agent_of(server)
    texts: list[str] = []
    stream = agent.events(Turn)

    async def elsewhere() -> None:
        agent.send_text("hello")
        async for turn in stream:
            texts.append(turn.text)
            await agent.stop()

    async with agent:
        await agent.wait_ready()
        thread = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await thread

    assert texts == ["hello"]


def test_an_agent_whose_loop_was_closed_is_stopped_in_order_and_used_again(
    server: FakeServer,
) -> None:
    agent = agent_of(server)

    async def enter() -> None:
        await agent.__aenter__()

    asyncio.run(enter())
    history = asyncio.run(agent.stop())
    asyncio.run(enter())
    again = asyncio.run(agent.stop())

    assert history.ended_because == again.ended_because == "the program asked"


@in_a_loop
async def test_a_cancelled_start_is_said_in_the_history(server: FakeServer) -> None:
    agent = agent_of(server)
    starting = asyncio.create_task(agent.run())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert (await agent.stop()).ended_because == "the program was cancelled"


@in_a_loop
async def test_one_agent_holds_one_conversation_after_the_other(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, AgentStartedEvent)
    for text in ("first", "second"):
        async with agent:
            with pytest.raises(RuntimeError, match="is already in a conversation"):
                await agent.run()
            agent.send_text(text)
            async for _ in agent.events(Turn):
                break
            await agent.stop()
        assert [turn.content for turn in agent.history] == [text]

    assert len(heard.events) == 2


@in_a_loop
async def test_run_returns_the_history(server: FakeServer) -> None:
    agent = agent_of(server, inactivity_timeout_s=0.2)

    history = await agent.run()

    assert history.ended_because == "inactivity timeout"


def test_run_sync_needs_no_loop(server: FakeServer) -> None:
    assert agent_of(server, inactivity_timeout_s=0.2).run_sync().started_at is not None


@in_a_loop
async def test_run_sync_says_what_to_do_in_a_loop(server: FakeServer) -> None:
    with pytest.raises(RuntimeError, match=r"use await agent\.run\(\)"):
        agent_of(server).run_sync()


@in_a_loop
async def test_ten_agents_talk_in_one_loop(server: FakeServer) -> None:
    async def talk(number: int) -> list[str]:
        agent = agent_of(server, start_timeout_s=6 * TIMEOUT_S)
        async with agent:
            agent.send_text(f"I am {number}")
            async for _ in agent.events(Turn):
                break
            await agent.stop()
        return [turn.content for turn in agent.history]

    told = await asyncio.gather(*(talk(number) for number in range(10)))

    assert told == [[f"I am {number}"] for number in range(10)]


@in_a_loop
async def test_a_stream_in_the_block_ends_with_the_conversation(server: FakeServer) -> None:
    agent = agent_of(server)
    told = []

    async with agent:
        agent.send_text("Hello")
        async for event in agent.events(Turn, AgentStoppedEvent):
            told.append(type(event))
            await agent.stop()

    assert told == [Turn, AgentStoppedEvent]
    assert [event async for event in agent.events(Turn)] == []


# -- ends ----------------------------------------------------------------------------------------


@pytest.mark.processes
@in_a_loop
async def test_a_block_that_raises_ends_the_conversation_at_once(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, AgentStartedEvent)

    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - how it is left is the subject
        async with agent:
            pids = (await heard.expect(AgentStartedEvent)).pids
            _ = 1 / 0

    assert agent.history.ended_because == "the program raised ZeroDivisionError"
    wait_until_gone(list(pids.values()), TIMEOUT_S)


@pytest.mark.processes
@pytest.mark.parametrize("where", ["start", "body", "end"])
def test_a_cancellation_ends_it_in_order_and_leaves_nothing(server: FakeServer, where: str) -> None:
    agent = agent_of(server)
    reached: list[str] = []
    pids: list[int] = []

    async def talk(inside: asyncio.Event) -> None:
        async with agent:
            pids.extend(entry["pid"] for entry in (await agent.status()).values())
            inside.set()
            if where == "body":
                await asyncio.Event().wait()
        reached.append("after")

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(talk(inside))
        if where == "start":
            await asyncio.sleep(0.05)
        else:
            await inside.wait()
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        history = await agent.stop()
        assert history.conversation_turns == []
        if where != "start":
            assert history.ended_because == "the program was cancelled"

    async def main_and_look() -> None:
        before = supervisors()
        await main()
        pids.extend(supervisors() - before)

    asyncio.run(main_and_look())

    assert reached == []
    wait_until_gone(pids, TIMEOUT_S)


@in_a_loop
async def test_a_failure_is_raised_at_the_end_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_text("no sound")
    with pytest.raises(SessionFailedError, match=r"microphone cannot start: .*no\.wav") as failure:
        async with Agent(server="sandbox", audio_input=tmp_path / "no.wav", audio_output="null"):
            pass

    assert failure.value.component == "microphone"


@pytest.mark.processes("realtime")
@in_a_loop
async def test_a_component_that_cannot_be_kept_up_fails_the_conversation(
    server: FakeServer,
) -> None:
    agent = agent_of(server)
    heard = Heard(agent, AgentStartedEvent)

    async def kill_on() -> None:
        pid = (await heard.expect(AgentStartedEvent)).pids["realtime"]
        while agent._run is not None and agent._run.is_running:  # white box: until it fails
            with_pid = (await agent.status()).get("realtime", {}) if agent._run.is_running else {}
            pid = with_pid.get("pid", pid)
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    killer: asyncio.Task[None] | None = None
    with pytest.raises(SessionFailedError, match="realtime keeps crashing") as failure:
        async with agent:
            killer = asyncio.create_task(kill_on())
    assert killer is not None
    await asyncio.gather(killer, return_exceptions=True)

    assert isinstance(failure.value.__cause__, ComponentCrashedError)
    assert "SIGKILL" in str(failure.value.__cause__)
    with pytest.raises(NotRunningError, match="is over") as refusal:
        agent.send_text("still there?")
    assert refusal.value.__cause__ is failure.value


@pytest.mark.processes
@in_a_loop
async def test_the_conversation_outlives_all_its_supervisors(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, AgentStartedEvent, AgentStoppedEvent, SupervisorRestarted)

    with pytest.raises(SupervisorDiedError):  # noqa: PT012 - how it is left is the subject
        async with agent:
            agent.send_text("Remember this")
            async for _ in agent.events(Turn):
                break
            os.kill((await heard.expect(AgentStartedEvent)).pids["supervisor"], signal.SIGKILL)
            killed: set[int] = set()
            for _ in range(3):
                restarted = await heard.expect(SupervisorRestarted, lambda it: it.pid not in killed)
                killed.add(restarted.pid)
                os.kill(restarted.pid, signal.SIGKILL)
    history = await agent.stop()

    assert [turn.content for turn in history] == ["Remember this"]
    assert "supervisor" in history.ended_because
    assert len([event for event in heard.events if isinstance(event, AgentStoppedEvent)]) == 1


@in_a_loop
async def test_inactivity_ends_the_conversation_and_is_reported(server: FakeServer) -> None:
    agent = agent_of(server, inactivity_timeout_s=0.3)
    heard = Heard(agent, UserInactivityTimeoutEvent, AgentStoppedEvent)

    async with agent:
        pass

    assert heard.events == [
        UserInactivityTimeoutEvent(0.3),
        AgentStoppedEvent("inactivity timeout"),
    ]


@pytest.mark.processes
@in_a_loop
async def test_playback_tools_and_restarts_are_not_inactivity(server: FakeServer) -> None:
    tools = Tools()

    @tools.action("Takes its time.")
    async def think() -> str:
        await asyncio.sleep(1.5)
        return "thought"

    agent = agent_of(server, inactivity_timeout_s=1.0, tools=tools)
    heard = Heard(agent, PlaybackEnded, ToolAnswer, ComponentRestarted, UserInactivityTimeoutEvent)

    async with agent:
        connection = await connection_of(server)
        connection.say("A long story.", noise(2000, 1), item="a1")
        await heard.expect(PlaybackEnded)
        connection.call("think", "{}", call_id="c1")
        await heard.expect(ToolAnswer)
        connection.say("It has thought.", noise(200, 2), item="a2")
        await heard.expect(PlaybackEnded, lambda event: event.item_id == "a2")
        for pid in [entry["pid"] for entry in (await agent.status()).values()]:
            os.kill(pid, signal.SIGKILL)
        for name in ("microphone", "speaker", "realtime", "tools", "history", "recorder"):
            await heard.expect(ComponentRestarted, lambda event, name=name: event.component == name)

    assert isinstance(heard.events[-1], UserInactivityTimeoutEvent)


# -- configuration -------------------------------------------------------------------------------


@in_a_loop
async def test_a_missing_key_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("RTVOICE_SERVER", raising=False)

    with pytest.raises(AgentError, match=r"needs a key: set OPENAI_API_KEY.*RTVOICE_SERVER=sand"):
        await Agent().run()


@in_a_loop
async def test_a_wrong_variable_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RTVOICE_SERVER", "localhost")
    with pytest.raises(AgentError, match="RTVOICE_SERVER: 'localhost' is not valid"):
        await Agent().run()

    monkeypatch.setenv("RTVOICE_SERVER", "sandbox")
    monkeypatch.setenv("RTVOICE_LOG_LEVEL", "LOUD")
    with pytest.raises(AgentError, match="RTVOICE_LOG_LEVEL: 'LOUD' is not valid"):
        await Agent().run()


@in_a_loop
async def test_an_agent_without_devices_has_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RTVOICE_SERVER", "sandbox")
    monkeypatch.setenv("RTVOICE_INPUT", "the gramophone")

    with pytest.raises(SessionFailedError, match="no input device is named 'the gramophone'"):
        await Agent(audio_output="null").run()


@in_a_loop
async def test_the_log_says_once_where_everything_runs(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Phone:
        def start(self) -> None: ...
        def stop(self) -> None: ...
        def stream_chunks(self) -> Iterator[bytes]:
            return iter(())

    tools = Tools()

    @tools.action("Adds.")
    def add(a: int, b: int) -> int:
        return a + b

    caplog.set_level(logging.INFO, logger="rtvoice")
    async with agent_of(server, audio_input=Phone(), tools=tools) as agent:
        await agent.stop()

    (line,) = [r.getMessage() for r in caplog.records if r.name == "rtvoice.agent"]
    assert "input: Phone in this program" in line
    assert "output: 'null' in process" in line
    assert "; tools: add in this program; built-in tools: get_current_time" in line


# -- control -------------------------------------------------------------------------------------


@in_a_loop
async def test_requests_to_an_agent_that_does_not_run_are_refused() -> None:
    agent = Agent()

    for ask in (agent.interrupt, agent.mute, agent.unmute, lambda: agent.send_text("x")):
        with pytest.raises(NotRunningError, match="enter it first"):
            ask()
    with pytest.raises(NotRunningError):
        await agent.status()
    assert not agent.ready


@in_a_loop
async def test_it_is_ready_when_the_server_has_begun_the_session(server: FakeServer) -> None:
    agent = agent_of(server)

    async with agent:
        await agent.wait_ready()
        ready = agent.ready
        await agent.stop()

    assert ready
    assert not agent.ready
    with pytest.raises(NotRunningError, match="the conversation is over"):
        await agent.wait_ready()


@in_a_loop
async def test_it_is_not_ready_without_a_server() -> None:
    with FakeServer() as other:
        nobody = other.url
    agent = Agent(server=nobody, inactivity_timeout_s=None, **QUIET)

    async with agent:
        with pytest.raises(TimeoutError, match=r"not ready after 0\.2 s"):
            await agent.wait_ready(0.2)
        await agent.stop()


@in_a_loop
async def test_readiness_is_refused_with_the_reason_of_a_failure() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    door = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = door.sockets[0].getsockname()[1]
    agent = Agent(server=f"ws://127.0.0.1:{port}", api_key="wrong", **QUIET)

    with pytest.raises(SessionFailedError, match="refuses the API key"):
        async with agent:
            await agent.wait_ready()
    door.close()

    assert "API key" in (await agent.stop()).ended_because


@in_a_loop
async def test_the_status_has_each_component(server: FakeServer) -> None:
    async with agent_of(server) as agent:
        status = await agent.status()
        await agent.stop()

    assert len(status) == 6
    for entry in status.values():
        assert entry["state"] == "open"
        assert entry["restarts"] == 0
        assert entry["mailbox"] >= 0
        assert entry["memory_bytes"] is None or entry["memory_bytes"] > 1_000_000
        assert entry["cpu_seconds"] is None or 0 <= entry["cpu_seconds"] < 60


@pytest.mark.processes("tools", "realtime")
@in_a_loop
async def test_settings_change_while_it_talks_and_survive_every_death(server: FakeServer) -> None:
    first, second = Tools(), Tools()

    @first.action("Old.")
    def old() -> str:
        return "old"

    @second.action("New.")
    def new() -> str:
        return "new"

    agent = agent_of(server, instructions="Be brief.", tools=first)
    heard = Heard(agent, ComponentRestarted, ToolAnswer)

    async with agent:
        connection = await connection_of(server)
        await agent.update(
            instructions="Sing.", tools=second, builtin_tools=(), speech_speed=1.3, volume=0.2
        )
        await seen(
            connection,
            "session.update",
            lambda e: (
                e["session"].get("tools") is not None
                and [tool["name"] for tool in e["session"]["tools"]] == ["new"]
            ),
        )
        for name in ("tools", "realtime"):
            os.kill((await agent.status())[name]["pid"], signal.SIGKILL)
            await heard.expect(ComponentRestarted, lambda event, name=name: event.component == name)
        connection = await connection_of(server, 1)
        session = (await seen(connection, "session.update"))["session"]
        connection.call("new", "{}", call_id="c1")
        answer = await heard.expect(ToolAnswer)
        await agent.stop()

    assert session["instructions"] == "Sing."
    assert [tool["name"] for tool in session["tools"]] == ["new"]
    assert session["audio"]["output"]["speed"] == 1.3
    assert answer.output == "new"
    assert agent.instructions == "Be brief."


@pytest.mark.processes("microphone")
@in_a_loop
async def test_a_muted_microphone_stays_mute_when_it_is_killed(server: FakeServer) -> None:
    class Loud:
        async def start(self) -> None: ...
        async def stop(self) -> None: ...
        async def stream_chunks(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.02)
                yield b"\x11\x11" * 480

    agent = agent_of(server, audio_input=Loud())
    heard = Heard(agent, ComponentRestarted)

    async with agent:
        connection = await connection_of(server)
        await asyncio.to_thread(server.wait_for, lambda: any(connection.audio))
        await agent.mute()
        os.kill((await agent.status())["microphone"]["pid"], signal.SIGKILL)
        await heard.expect(ComponentRestarted)
        begin = len(connection.audio)
        await asyncio.to_thread(server.wait_for, lambda: len(connection.audio) > begin + 40_000)
        muted = bytes(connection.audio[begin:])
        await agent.unmute()
        begin = len(connection.audio)
        await asyncio.to_thread(server.wait_for, lambda: any(connection.audio[begin:]))
        await agent.stop()

    assert not any(muted)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "x"}, "the service opens a session for one model"),
        ({"speech_speed": 3}, "speech_speed: 3 is out of range"),
        ({"instruction": "x"}, "did you mean instructions"),
        ({"preroll_ms": 100}, "the session was started with it"),
        ({"api_key": "x"}, "api_key: it cannot change during a conversation"),
        ({"reasoning_effort": None}, "it cannot be unset during a conversation"),
        ({"audio_input": None}, "it cannot be unset during a conversation"),
        ({"audio_input": "default"}, "silence is not a sound card"),
        ({"audio_output": "talk.wav"}, "cannot be replaced during a conversation"),
    ],
)
def test_an_invalid_change_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises((AgentError, NotRunningError), match=words):
        _entered(lambda agent: agent.update(**given))


@in_a_loop
async def test_a_change_that_the_server_would_refuse_is_refused(server: FakeServer) -> None:
    agent = agent_of(server, voice="marin", model="gpt-realtime-1.5")
    heard = Heard(agent, PlaybackEnded)

    async with agent:
        connection = await connection_of(server)
        await agent.update(voice="cedar", transcription_model="gpt-transcribe")
        told = await seen(connection, "session.update", lambda e: "tools" not in e["session"])
        connection.say("Hello.", noise(100, 1), item="a1")
        await heard.expect(PlaybackEnded)
        for change, words in (
            ({"voice": "verse"}, "voice: it cannot change during a conversation"),
            ({"reasoning_effort": "low"}, "and gpt-realtime-1.5 does not"),
            ({"transcription_delay": "low"}, "gpt-transcribe does not support it"),
            ({"tool_choice": "clock"}, "there is no tool 'clock'; give auto, none, required or on"),
            ({"tool_choice": "required", "builtin_tools": ()}, "no tool that could be required"),
        ):
            with pytest.raises(AgentError, match=words):
                agent.update(**change)
        await agent.stop()

    assert told["session"]["audio"] == {
        "output": {"voice": "cedar"},
        "input": {"transcription": {"model": "gpt-transcribe"}},
    }


def _entered(do: Callable[[Agent], object]) -> None:
    async def main() -> None:
        with FakeServer() as server:
            async with agent_of(server) as agent:
                do(agent)

    asyncio.run(main())


# -- events --------------------------------------------------------------------------------------


@in_a_loop
async def test_wire_events_reach_their_subscribers(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, ResponseCreatedEvent, ResponseOutputAudioDeltaEvent, ResponseDoneEvent)
    sound = noise(100, 7)

    async with agent:
        connection = await connection_of(server)
        connection.say("Yes.", sound, item="a1")
        done = await heard.expect(ResponseDoneEvent)
        await agent.stop()

    deltas = [e for e in heard.events if isinstance(e, ResponseOutputAudioDeltaEvent)]
    assert b"".join(delta.audio for delta in deltas) == sound
    assert {delta.item_id for delta in deltas} == {"a1"}
    assert (done.response.status, done.type) == ("completed", "response.done")
    assert isinstance(heard.events[0], ResponseCreatedEvent)


@in_a_loop
async def test_wire_events_are_subscribed_to_and_left_while_it_talks(server: FakeServer) -> None:
    agent = agent_of(server)

    async with agent:
        connection = await connection_of(server)
        heard = Heard(agent, PlaybackEnded)
        with agent.event_bus.subscribe(ServerEvent, heard._take):
            while not heard.events:  # until realtime knows what is wanted
                connection.tell("rate_limits.updated", rate_limits=[])
                await asyncio.sleep(0.01)
            connection.say("One.", noise(50, 1), item="a1")
            await heard.expect(ResponseDoneEvent)
            await heard.expect(PlaybackEnded)
        count = len(heard.events)
        await agent.status()
        connection.say("Two.", noise(50, 2), item="a2")
        await heard.expect(PlaybackEnded, lambda event: event.item_id == "a2")
        await agent.stop()

    assert [type(event) for event in heard.events[count:]] == [PlaybackEnded]


@pytest.mark.processes("realtime")
@in_a_loop
async def test_a_subscription_to_wire_events_survives_the_death_of_realtime(
    server: FakeServer,
) -> None:
    agent = agent_of(server)
    heard = Heard(agent, ResponseDoneEvent, ComponentRestarted)

    async with agent:
        await connection_of(server)
        os.kill((await agent.status())["realtime"]["pid"], signal.SIGKILL)
        connection = await connection_of(server, 1)
        connection.say("Here again.", noise(50, 1), item="a1")
        await heard.expect(ResponseDoneEvent)
        await agent.stop()


@pytest.mark.processes("microphone", "speaker")
@in_a_loop
async def test_levels_reach_their_subscribers_also_after_a_death(server: FakeServer) -> None:
    agent = agent_of(server)
    heard, others = Heard(agent, ComponentRestarted), Heard(agent, Event)

    async with agent:
        connection = await connection_of(server)
        with agent.event_bus.subscribe(Level, heard._take):
            await heard.expect(InputLevel)
            pids = await agent.status()
            for name in ("microphone", "speaker"):
                os.kill(pids[name]["pid"], signal.SIGKILL)
                await heard.expect(ComponentRestarted, lambda e, name=name: e.component == name)
            heard.events.clear()
            connection.say("One.", noise(300, 1), item="a1")
            await heard.expect(OutputLevel, lambda level: -13.0 < level.peak_dbfs < -12.0)
            await heard.expect(OutputLevel, lambda level: level.peak_dbfs == -96.0)
            await heard.expect(InputLevel)
        await agent.status()  # the components know that nobody wants them any more
        heard.events.clear()
        connection.say("Two.", noise(300, 2), item="a2")
        await others.expect(PlaybackEnded, lambda event: event.item_id == "a2")
        await agent.stop()

    assert not any(isinstance(event, Level) for event in (*heard.events, *others.events))


@in_a_loop
async def test_an_interruption_is_published_as_a_flush_of_playback(server: FakeServer) -> None:
    agent = agent_of(server)
    heard = Heard(agent, OutputAudioBufferClearEvent, AssistantTranscript)

    async with agent:
        connection = await connection_of(server)
        connection.say("A long story.", noise(3000, 1), item="a1", done=False)
        await heard.expect(AssistantTranscript)
        agent.event_bus.publish(ResponseCancelEvent())
        await heard.expect(OutputAudioBufferClearEvent)
        await seen(connection, "response.cancel")
        connection.finish("A long story.", item="a1")
        await agent.stop()

    (turn,) = agent.history.conversation_turns
    assert turn.interrupted
    assert turn.content == "A long story."
    assert turn.heard_ms is not None
    assert turn.heard_ms < 3000
    assert all(event["type"] != "output_audio_buffer.clear" for event in connection.events)


@in_a_loop
async def test_published_client_events_go_through_our_rules(server: FakeServer) -> None:
    agent = agent_of(server)

    async with agent:
        connection = await connection_of(server)
        publish = agent.event_bus.publish
        publish(ResponseCreateEvent({"instructions": "Say hello."}))
        created = await seen(connection, "response.create")
        publish(SessionUpdateEvent({"type": "realtime", "instructions": "Sing."}))
        await seen(connection, "session.update", lambda e: e["session"].get("instructions"))
        for event, words in (
            (ConversationItemTruncateEvent("a1", 0, 100), r"use agent\.interrupt\(\)"),
            (InputAudioBufferAppendEvent.of(bytes(960)), 'make it with audio_input="program"'),
            (SessionUpdateEvent({"model": "gpt-realtime-2"}), "cannot change during"),
            (SessionUpdateEvent({"tools": []}), "use agent.update"),
            (ResponseCreateEvent({"conversation": "none"}), "only instructions can be given"),
            (ResponseDoneEvent(), "it can be subscribed to, not published"),
        ):
            with pytest.raises(EventError, match=words):
                publish(event)
        await agent.stop()

    assert created["response"]["instructions"] == "Say hello."
    assert "rtvoice" in created["response"]["metadata"]


@in_a_loop
async def test_a_published_event_that_is_malformed_is_refused_and_crashes_nobody(
    server: FakeServer,
) -> None:
    agent = agent_of(server)
    malformed: list[Any] = [
        ResponseCreateEvent(response={"instructions": 5}),
        ResponseCreateEvent(response=5),  # type: ignore[arg-type]
        SessionUpdateEvent(session=None),  # type: ignore[arg-type]
        SessionUpdateEvent(session={"audio": {"input": 5}}),
        SessionUpdateEvent(session={"audio": {"input": {"transcription": "whisper-1"}}}),
        CreateResponse(5),  # type: ignore[arg-type]
    ]

    async with agent:
        await agent.wait_ready()
        for event in malformed:
            with pytest.raises(EventError, match=r"give a|Expected"):
                agent.event_bus.publish(event)
        status = await agent.status()
        await agent.stop()

    assert {name: each["restarts"] for name, each in status.items() if each["restarts"]} == {}


@in_a_loop
async def test_tools_that_came_later_are_refused_where_they_clash(server: FakeServer) -> None:
    tools = Tools()
    agent = agent_of(server, tools=tools)
    tools.action("Tell the time.", name="get_current_time")(lambda: "noon")
    with pytest.raises(AgentError, match="is the name of a built-in tool too"):
        await agent.run()
    tools.remove("get_current_time")

    async with agent:
        other = Tools()
        other.action("Tell the time.", name="get_current_time")(lambda: "noon")
        with pytest.raises(AgentError, match="is the name of a built-in tool too"):
            agent.update(tools=other)
        await agent.update(tools=other, builtin_tools=())
        with pytest.raises(AgentError, match="is the name of a built-in tool too"):
            agent.update(builtin_tools=("get_current_time",))
        await agent.stop()


@pytest.mark.processes("tools")
@in_a_loop
async def test_tools_by_name_run_in_their_process_and_others_are_added(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rtvoice")
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\nfrom rtvoice import Tools\ntools = Tools()\n"
        "@tools.action('Say where it runs.')\ndef where() -> int:\n    return os.getpid()\n"
    )
    agent = agent_of(server, tools=f"{path}:tools", builtin_tools=())
    heard = Heard(agent, ToolAnswer)
    later = Tools()
    later.action("Say how it is.", name="how")(lambda: "well")

    async with agent:
        connection = await connection_of(server)
        connection.call("where", "{}", call_id="c1")
        first = await heard.expect(ToolAnswer)
        pid = (await agent.status())["tools"]["pid"]
        agent.update(tools=later)
        update = await seen(
            connection, "session.update", lambda e: len(e["session"].get("tools", ())) == 2
        )
        await agent.stop()

    assert first.output == str(pid)
    assert {tool["name"] for tool in update["session"]["tools"]} == {"where", "how"}
    assert f"tools: {path}:tools in process {pid} (tools)" in caplog.text


@in_a_loop
async def test_published_audio_is_what_the_user_says(server: FakeServer) -> None:
    agent = agent_of(server, audio_input="program")
    sound = noise(200, 3)

    async with agent:
        connection = await connection_of(server)
        agent.event_bus.publish(InputAudioBufferAppendEvent.of(sound))
        await asyncio.to_thread(server.wait_for, lambda: sound in connection.audio)
        await agent.stop()


@in_a_loop
async def test_a_user_without_a_transcription_model_has_turns_without_text(
    server: FakeServer,
) -> None:
    agent = agent_of(server)

    async with agent:
        connection = await connection_of(server)
        connection.tell("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u1")
        connection.tell("input_audio_buffer.speech_stopped", audio_end_ms=100, item_id="u1")
        connection.tell("input_audio_buffer.committed", item_id="u1", previous_item_id=None)
        turns = agent.events(Turn)
        async for turn in turns:
            assert (turn.text, turn.transcribed) == ("", False)
            break
        await agent.stop()

    (turn,) = agent.history.conversation_turns
    assert (turn.role, turn.content, turn.transcribed, turn.item_id) == ("user", "", False, "u1")


@in_a_loop
async def test_a_turn_knows_the_tools_that_were_called_for_it(server: FakeServer) -> None:
    tools = Tools()

    @tools.action("Adds.")
    def add(a: int, b: int) -> int:
        return a + b

    agent = agent_of(server, tools=tools)

    async with agent:
        connection = await connection_of(server)
        connection.call("add", '{"a": 1, "b": 2}', call_id="c1")
        await seen(
            connection,
            "conversation.item.create",
            lambda e: e["item"]["type"] == "function_call_output",
        )
        connection.say("Three.", noise(50, 1), item="a1")
        async for _ in agent.events(PlaybackEnded):
            break
        await agent.stop()

    (turn,) = agent.history.conversation_turns
    (call,) = turn.tool_calls
    assert (call.name, json.loads(call.arguments), call.output) == ("add", {"a": 1, "b": 2}, "3")
    assert agent.history.tool_calls == [call]
    assert turn.start_s is not None
    assert turn.end_s is not None
    assert turn.end_s - turn.start_s == pytest.approx(0.05, abs=0.02)


@pytest.mark.processes
@in_a_loop
async def test_each_component_is_killed_and_the_conversation_goes_on(server: FakeServer) -> None:
    agent = agent_of(server, transcription_model="gpt-transcribe")
    heard = Heard(agent, ComponentRestarted, Turn)
    expected = []

    async with agent:
        connection = await connection_of(server)
        for name in ("microphone", "speaker", "realtime", "tools", "history", "recorder"):
            texts = [f"before {name}", f"after {name}", f"Both, {name}."]
            agent.send_text(texts[0])
            await heard.expect(Turn, lambda turn, text=texts[0]: turn.text == text)
            os.kill((await agent.status())[name]["pid"], signal.SIGKILL)
            await heard.expect(ComponentRestarted, lambda event, name=name: event.component == name)
            if name == "realtime":
                connection = await connection_of(server, 1)
            agent.send_text(texts[1])
            await heard.expect(Turn, lambda turn, text=texts[1]: turn.text == text)
            await seen(
                connection,
                "conversation.item.create",
                lambda event, text=texts[1]: text in str(event["item"]),
            )
            connection.say(texts[2], noise(50, 1), item=f"item_{name}")
            await heard.expect(Turn, lambda turn, text=texts[2]: turn.text == text)
            expected += texts
        await agent.stop()

    assert [turn.content for turn in agent.history if turn.content] == expected


@pytest.mark.processes
def test_a_program_that_burns_its_loop_holds_the_conversation_all_the_same(
    server: FakeServer,
) -> None:
    async def main() -> None:
        agent = agent_of(server)
        heard = Heard(agent, PlaybackEnded)
        async with agent:
            connection = await connection_of(server)
            connection.say("While you compute.", noise(500, 1), item="a1")
            end = time.monotonic() + 1.5
            while time.monotonic() < end:  # nothing of the loop runs meanwhile
                sum(range(1000))
            ended = await heard.expect(PlaybackEnded)
            await agent.stop()
        assert ended.heard_ms == 500
        assert agent.history.conversation_turns[0].end_s is not None

    asyncio.run(main())
