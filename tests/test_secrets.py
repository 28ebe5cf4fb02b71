"""A key or password in the URL of a server is shown nowhere and written nowhere.

Neither do processes have in their memory what they do not need.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from messages import Event, SendText, Turn
from messages.transport import forking
from rtvoice import Agent, AgentError
from rtvoice.testing import SandboxServer
from supervisor import Session
from tests.bad_input.reaching import listening, refusing
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.messages.transport.test_forking import start_server
from tests.proc import environment, memory, parent
from tests.rig import TIMEOUT_S
from tests.test_command import environment_of

CANARY = "CANARY-4711-abcdef"
PLACES: list[Callable[[str], str]] = [
    lambda url: f"{url}?model=m&api-key={CANARY}",
    lambda url: url.replace("ws://", f"ws://ada:{CANARY}@"),
]
places = pytest.mark.parametrize("place", PLACES, ids=["key", "password"])


def _run(folder: Path, *arguments: str, **environment: str) -> str:
    """Run the command; return all that it has shown and written."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        cwd=folder,
        env=environment_of(TMPDIR=str(folder), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return done.stdout + done.stderr + b"".join(files).decode("utf-8", "replace")


def _talks(folder: Path, url: str) -> str:
    return _run(
        folder,
        *("--server", url, "--input", "silence", "--output", "null", "--max-seconds", "1"),
        *("--events", "talk.jsonl", "--journal", "talk.journal", "--log-level", "DEBUG"),
    )


@places
def test_a_conversation_shows_nothing_of_it(tmp_path: Path, place: Callable[[str], str]) -> None:
    with SandboxServer() as server:
        seen = _talks(tmp_path, place(server.url))

    assert f"[server: {server.url};" in seen
    assert CANARY not in seen


@places
def test_a_server_that_is_not_there_shows_nothing_of_it(
    tmp_path: Path, place: Callable[[str], str]
) -> None:
    seen = _talks(tmp_path, place("ws://127.0.0.1:1/v1/realtime"))

    assert "cannot reach ws://127.0.0.1:1/v1/realtime: " in seen
    assert CANARY not in seen


@places
def test_a_server_that_quotes_it_shows_nothing_of_it(
    tmp_path: Path, place: Callable[[str], str]
) -> None:
    refuse = refusing("503 Busy", "x", f"{CANARY} has no time")
    with listening(refuse) as there:
        seen = _talks(tmp_path, place(f"ws://{there}/v1/realtime"))

    assert "has no time" in seen
    assert CANARY not in seen


@places
def test_the_doctor_shows_nothing_of_it(tmp_path: Path, place: Callable[[str], str]) -> None:
    options = ("--doctor", "--input", "silence", "--output", "null", "--server")
    with SandboxServer() as server:
        seen = _run(tmp_path, *options, place(server.url))
    assert server.url in seen
    assert CANARY not in seen

    seen = _run(tmp_path, *options, place("ws://127.0.0.1:1/v1/realtime"), "--json")
    assert "cannot reach ws://127.0.0.1:1/v1/realtime" in seen
    assert CANARY not in seen


@places
def test_a_url_that_is_wrong_shows_nothing_of_it(
    tmp_path: Path, place: Callable[[str], str]
) -> None:
    wrong = place("ws://127.0.0.1:1/v1/live/x")

    seen = _run(tmp_path, "--server", wrong) + _run(tmp_path, RTVOICE_SERVER=wrong)

    assert seen.count("GPT-Live") == 2
    assert CANARY not in seen


@places
def test_a_program_sees_the_address_and_nothing_of_the_secret(
    place: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    with SandboxServer() as server:
        session = Session(server=place(server.url), input="silence", output="null")
        events = session.events(Event)  # before it starts: it may be connected by then
        turns = session.events(Turn)
        with session:
            session.send(SendText("thank you", "t1"))
            for _ in range(2):
                assert turns.get(timeout_s=TIMEOUT_S) is not None
            status = repr(session.status())
        told = []
        while (event := events.get(timeout_s=TIMEOUT_S)) is not None:
            told.append(repr(event))

    assert any(server.url in text for text in told)
    assert CANARY not in "".join([*told, status, caplog.text])


@places
def test_an_agent_logs_nothing_of_it(
    place: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with SandboxServer() as server:
        agent = Agent(server=place(server.url), audio_input="silence", audio_output="null")

        async def talk() -> None:
            async with agent:
                await agent.stop()

        asyncio.run(talk())

    assert f"started on {server.url};" in caplog.text
    assert CANARY not in caplog.text + repr(agent)


@places
def test_an_agent_that_the_command_runs_describes_nothing_of_it(
    place: Callable[[str], str],
) -> None:
    agent = Agent(server=place("ws://host/v1"))

    with pytest.raises(AgentError, match="OPENAI_API_KEY") as refused:
        agent.describe()

    assert CANARY not in str(refused.value)
    assert json.dumps(Agent(server="ws://host/v1?model=m").describe())


@pytest.mark.skipif(not forking.available(), reason="nothing is forked here")
@pytest.mark.parametrize("passed", [True, False], ids=["passed", "in the environment"])
def test_only_who_needs_the_key_or_the_conversation_has_them_in_its_memory(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer, passed: bool
) -> None:
    forking._end()
    key, sentence = CANARY + "-key", CANARY + "-sentence"
    if passed:
        options = {"api_key": key}
    else:
        options = {}
        monkeypatch.setenv("OPENAI_API_KEY", key)
    start_server()
    with Conversation(server, **options) as talk:
        talk.connection.hear("user_1", sentence)
        talk.expect(Turn)
        for name in ("speaker", "realtime"):
            talk.break_it(name, "SIGKILL")
        assert talk.session.started is not None
        fork_server = parent(talk.session.started.pids["supervisor"])
        pids = {**talk.pids(), "fork server": fork_server}

        environments = {name: environment(pid) for name, pid in pids.items()}
        memories = {name: memory(pid) for name, pid in pids.items()}

    users = {"realtime"} if passed else {"realtime", "tools"}
    assert fork_server == forking.server_pid()
    assert {name for name, found in environments.items() if key.encode() in found} == users
    assert {name for name, found in memories.items() if key.encode() in found} == users
    told = {name for name, found in memories.items() if sentence.encode() in found}
    assert "history" in told
    assert not {"fork server", "microphone", "speaker", "recorder"} & told
