"""`Session`: embedding a conversation in a program, from a thread and from asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.tools.registry import Tools
from messages import (
    CapturedAudio,
    ComponentCrashed,
    ComponentRestarted,
    Message,
    ProgramToolCall,
    SendText,
    SessionEnded,
    SessionStarted,
    SupervisorRestarted,
    ToolAnswer,
    Turn,
)
from supervisor import (
    ConfigurationError,
    Session,
    SessionFailedError,
    SupervisorDiedError,
)
from tests.conversation import noise
from tests.fake_server import FakeServer
from tests.rig import QUIET, TIMEOUT_S, until, wait_until_gone

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("records", [True, False])
def test_the_recorder_is_sent_sound_only_if_there_is_a_recording(
    server: FakeServer, tmp_path: Path, records: bool
) -> None:
    path = {"recording_path": str(tmp_path / "talk.wav")} if records else {}
    with Session(server=server.url, **QUIET, **path) as session:
        blocks = session.events(CapturedAudio)
        assert blocks.get(timeout_s=TIMEOUT_S) is not None

        def has_some() -> bool:
            recorder = session.status()["recorder"]
            return recorder["handled"] + recorder["mailbox"] > 0

        if records:
            until(has_some, "the recorder is sent nothing")
        assert has_some() is records


def test_a_session_runs_in_a_thread_and_returns_its_summary(server: FakeServer) -> None:
    with Session(server=server.url, **QUIET) as session:
        events = session.events(Turn)
        session.send(SendText("Hello", "text_1"))
        assert events.get(TIMEOUT_S) == Turn("user", "Hello", "text_1")
        status = session.status()
        summary = session.stop()

    assert sorted(status) == sorted(
        ["microphone", "speaker", "realtime", "tools", "history", "recorder"]
    )
    assert all(entry["state"] == "open" for entry in status.values())
    assert (summary.turns, summary.reason) == (1, "the program asked")
    assert events.get(TIMEOUT_S) is None


def test_modules_of_the_user_are_imported_side_by_side(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, time
            from rtvoice import Tools
            from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice

            begun = pathlib.Path({str(tmp_path)!r}, "begun")
            begun.mkdir(exist_ok=True)
            (begun / str(os.getpid())).touch()
            deadline = time.monotonic() + {TIMEOUT_S}
            while len(os.listdir(begun)) < 3:  # microphone, speaker and tools
                if time.monotonic() > deadline:
                    raise TimeoutError("each waits for the other")
                time.sleep(0.01)

            class Mic(AudioInputDevice):
                is_active = True
                async def start(self): pass
                async def stop(self): pass
                async def stream_chunks(self):
                    while True:
                        yield bytes(1920)

            class Out(AudioOutputDevice):
                is_playing = False
                async def start(self): pass
                async def stop(self): pass
                async def play_chunk(self, chunk): pass
                async def clear_buffer(self): pass

            tools = Tools()
            """
        )
    )
    named = {"input": f"{file}:Mic", "output": f"{file}:Out", "named_tools": f"{file}:tools"}
    with Session(server=server.url, **QUIET | named) as session:
        assert session.started is not None


def test_a_module_that_cannot_be_imported_is_run_once(server: FakeServer, tmp_path: Path) -> None:
    file, seen = tmp_path / "mine.py", tmp_path / "seen"
    file.write_text(f"open({str(seen)!r}, 'a').write('x')\nraise OSError('the disk is on fire')")
    with pytest.raises(SessionFailedError, match="the disk is on fire"):
        Session(server=server.url, **QUIET, named_tools=f"{file}:tools").start()
    assert seen.read_text() == "x"


def test_a_session_runs_in_asyncio_without_blocking_the_loop(server: FakeServer) -> None:
    async def talk() -> tuple[list[str], float]:
        lag = 0.0

        async def heartbeat() -> None:
            nonlocal lag
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                lag = max(lag, time.monotonic() - before - 0.01)

        beating = asyncio.create_task(heartbeat())
        texts = []
        async with Session(server=server.url, **QUIET) as session:
            events = session.events(Turn)
            for number in range(3):
                session.send(SendText(f"Text {number}", f"text_{number}"))
            async for event in events:
                assert isinstance(event, Turn)
                texts.append(event.text)
                if len(texts) == 3:
                    break
        beating.cancel()
        return texts, lag

    texts, lag = asyncio.run(talk())

    assert texts == ["Text 0", "Text 1", "Text 2"]
    assert lag < 1.0


@pytest.mark.usefixtures("on_threads")
def test_a_device_of_the_program_speaks_and_hears(server: FakeServer) -> None:
    voice, answer = noise(400, seed=1), noise(300, seed=2)

    class Microphone:
        stopped = False

        async def start(self) -> None: ...

        async def stop(self) -> None:
            self.stopped = True

        async def stream_chunks(self) -> AsyncIterator[bytes]:
            for start in range(0, len(voice), 1001):  # any length, odd ones too
                yield voice[start : start + 1001]
                await asyncio.sleep(0.02)

    class Loudspeaker:
        def __init__(self) -> None:
            self.heard = b""
            self.news = threading.Condition()

        def start(self) -> None: ...

        def stop(self) -> None: ...

        def play_chunk(self, pcm: bytes) -> None:
            with self.news:
                self.heard += pcm
                self.news.notify_all()

        def clear_buffer(self) -> None: ...

    microphone, loudspeaker = Microphone(), Loudspeaker()
    with Session(
        server=server.url,
        input_device=microphone,
        output_device=loudspeaker,
        inactivity_timeout_s=None,
    ):
        server.connection().say("Hi.", answer, item="item_1")
        server.wait_for(lambda: voice in server.connections[0].audio)
        with loudspeaker.news:
            assert loudspeaker.news.wait_for(lambda: answer in loudspeaker.heard, TIMEOUT_S)

    assert microphone.stopped


def test_after_a_crash_of_the_microphone_no_sound_of_the_program_is_held_back(
    server: FakeServer,
) -> None:
    """It may have lost what has gone straight to it."""
    with Session(server=server.url, **QUIET, probes=True) as session:
        crashes = session.events(ComponentCrashed)
        session.inject("microphone", "SIGKILL")
        assert crashes.get(TIMEOUT_S) is not None
        doubtful_until_s = session._outbox._doubtful_until_s

    assert doubtful_until_s > 0.0


@pytest.mark.usefixtures("on_threads")
def test_a_tool_of_the_program_runs_in_the_program(server: FakeServer) -> None:
    tools = Tools()

    @tools.action("Return the id of the process.")
    async def process_id() -> int:
        return os.getpid()

    with Session(server=server.url, tools=tools, **QUIET) as session:
        events = session.events(ToolAnswer)
        server.connection().call("process_id", "{}", call_id="call_1")

        answer = events.get(TIMEOUT_S)

    assert isinstance(answer, ToolAnswer)
    assert (answer.output, answer.failed) == (str(os.getpid()), False)


def test_a_session_that_cannot_start_raises_with_the_reason(tmp_path: Path) -> None:
    missing = tmp_path / "none.wav"
    session = Session(server="ws://127.0.0.1:9/", input=str(missing), output="null")

    with pytest.raises(SessionFailedError, match=r"microphone cannot start: .*none\.wav"):
        session.start()


def test_a_wrong_setting_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="volume: 2 is out of range"):
        Session(volume=2.0)


@pytest.mark.usefixtures("on_threads")
@pytest.mark.processes("history")
def test_a_killed_component_comes_back_under_a_program(server: FakeServer) -> None:
    with Session(server=server.url, **QUIET) as session:
        events = session.events(ComponentRestarted)
        os.kill(session.status()["history"]["pid"], signal.SIGKILL)

        restarted = events.get(TIMEOUT_S)

    assert isinstance(restarted, ComponentRestarted)
    assert restarted.component == "history"


def test_the_death_of_the_supervisor_is_raised_and_leaves_no_process(server: FakeServer) -> None:
    session = Session(server=server.url, restarts=0, **QUIET).start()
    assert session.started is not None
    pids = list(session.started.pids.values())

    os.kill(session.started.pids["supervisor"], signal.SIGKILL)

    with pytest.raises(SupervisorDiedError, match="killed by SIGKILL"):
        session.wait(TIMEOUT_S)
    wait_until_gone(pids, 1.0 + TIMEOUT_S / 10)


def test_a_program_that_has_gone_is_not_waited_for_by_a_component_that_does_not_close(
    server: FakeServer,
) -> None:
    deaf = {"deaf": "tests.tiny:DeafToStop"}
    session = Session(server=server.url, components=deaf, stop_s=3600, **QUIET).start()
    assert session.started is not None

    session._supervisor.hang_up()

    wait_until_gone(list(session.started.pids.values()), TIMEOUT_S)


def test_a_bug_of_the_supervisor_is_the_cause_of_its_restart(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bug = """
import signal
def raise_here(*_):
    raise RuntimeError("a bug")
signal.signal(signal.SIGUSR2, raise_here)
"""
    (tmp_path / "sitecustomize.py").write_text(bug)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    session = Session(server=server.url, **QUIET).start()
    assert session.started is not None
    pids = list(session.started.pids.values())
    events = session.events(SupervisorRestarted)

    os.kill(session.started.pids["supervisor"], signal.SIGUSR2)

    restarted = events.get(TIMEOUT_S)
    assert isinstance(restarted, SupervisorRestarted)
    assert restarted.cause == "RuntimeError: a bug"
    assert "RuntimeError: a bug" in capfd.readouterr().err
    wait_until_gone(pids, TIMEOUT_S)
    session.stop()


def test_a_component_that_keeps_the_gil_dies_with_the_supervisor(server: FakeServer) -> None:
    session = Session(
        server=server.url,
        components={"echo": "tests.tiny:Echo"},
        hang_s=600.0,
        restarts=0,
        **QUIET,
    ).start()
    assert session.started is not None
    pids = session.started.pids
    session.send(SendText("!gil", "text_1"))
    until(lambda: session.status()["echo"]["mailbox"], "it takes everything")

    os.kill(pids["supervisor"], signal.SIGKILL)

    wait_until_gone([pids["echo"]], 1.0 + TIMEOUT_S / 10)


def test_the_death_of_the_program_leaves_no_process(server: FakeServer) -> None:
    program = textwrap.dedent(
        f"""
        import sys, time
        from supervisor import Session
        session = Session(server={server.url!r}, input="silence", output="null").start()
        print(*session.started.pids.values(), flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        os.kill(pids[0], signal.SIGSTOP)  # one that cannot see the end coming
        process.kill()

    wait_until_gone(pids, 1.0 + TIMEOUT_S / 10)


def test_the_processes_of_a_session_are_its_components_supervisor_and_sandbox() -> None:
    with Session(server="sandbox", **QUIET) as session:
        assert session.started is not None

        processes = session.processes()

        assert {name: each["pid"] for name, each in processes.items()} == session.started.pids
        assert all(each["memory_bytes"] > 0 for each in processes.values())


@pytest.mark.usefixtures("on_threads")
def test_stop_can_be_called_again_and_gives_the_same_summary(server: FakeServer) -> None:
    session = Session(server=server.url, **QUIET).start()

    first = session.stop()

    assert isinstance(first, SessionEnded)
    assert session.stop() is first


def test_a_start_that_is_cancelled_leaves_nothing(server: FakeServer) -> None:
    async def cancelled() -> Session:
        session = Session(server=server.url, **QUIET)
        starting = asyncio.create_task(session.__aenter__())
        while session._supervisor.pid is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        return session

    session = asyncio.run(cancelled())

    assert session._supervisor.pid is not None
    wait_until_gone([session._supervisor.pid], 2.0)
    with pytest.raises((SessionFailedError, SupervisorDiedError)):
        session.stop()


@pytest.mark.usefixtures("on_threads")
def test_what_comes_before_the_devices_are_started_harms_nobody(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools()

    @tools.action("Return one.")
    def one() -> int:
        return 1

    take = Session._take

    def early(session: Session, message: Message) -> None:
        if isinstance(message, SessionStarted):
            take(session, ProgramToolCall("call_0", "one", "{}"))
        take(session, message)

    monkeypatch.setattr(Session, "_take", early)
    with Session(server=server.url, tools=tools, **QUIET) as session:
        events = session.events(ToolAnswer)
        server.connection().call("one", "{}", call_id="call_1")
        answer = events.get(TIMEOUT_S)

    assert isinstance(answer, ToolAnswer)
    assert answer.output == "1"


@pytest.mark.usefixtures("on_threads")
def test_a_stream_is_closed_twice(server: FakeServer) -> None:
    with Session(server=server.url, **QUIET) as session:
        events = session.events(Turn)
        events.close()
        events.close()
        assert events.get(TIMEOUT_S) is None


def test_what_a_program_sends_before_the_start_reaches_the_components(server: FakeServer) -> None:
    session = Session(server=server.url, **QUIET)
    session.send(SendText("early", "text_1"))

    with session:
        created = server.connection().expect("conversation.item.create")

    assert "early" in str(created["item"])
