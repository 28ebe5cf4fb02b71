"""The session survives whatever components, programs and the machine do to the supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.devices.mark import Mark
from messages import (
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Event,
    Inject,
    Log,
    Message,
    MessagesDropped,
    Reconnected,
    SendText,
    SessionEnded,
    SessionFailed,
    SessionInfo,
    SessionStarted,
    SetVolume,
    StartSession,
    StopSession,
    Turn,
    decode,
    message_types,
)
from messages.transport.channel import Channel
from messages.transport.page import Page
from messages.transport.spawning import environment_with_us, spawn
from supervisor import ChildSpec, ConfigurationError, Session, SessionFailedError, Supervisor
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.hostile import Own
from tests.hub import ECHO, Hub, say
from tests.rig import QUIET, TIMEOUT_S, until

ROOT = Path(__file__).resolve().parent.parent


def hostile(kind: str) -> ChildSpec:
    return ChildSpec(name=kind.lower(), target=f"tests.hostile:{kind}")


def test_dead_letters_for_a_component_that_takes_no_more_of_them_have_an_end() -> None:
    with Hub([hostile("Watchdog"), ECHO]) as hub:
        hub.supervisor.send(Inject("watchdog", "raise"))
        hub.expect(ComponentParked)
        for _ in range(2002):
            hub.supervisor.send(SetVolume(0.5))

        say(hub, "still here")

        hub.expect(Turn)
    # One Inject, 1002 SetVolume, and three of the 1003 dead letters; a hundred are named.
    assert "906 more, each told when it happened" in hub.expect(SessionEnded).lost


def test_a_component_that_describes_itself_oddly_fails_the_session_with_the_reason() -> None:
    with Hub([ECHO, hostile("DescribesAList")]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason == (
        "describesalist cannot start: TypeError: describe() of tests.hostile:DescribesAList "
        "returned no mapping: ['speed', 1.0]"
    )


def test_a_fault_that_is_none_harms_the_component_alone() -> None:
    with Hub([ECHO]) as hub:
        hub.supervisor.send(Inject("echo", "SIGNONSENSE"))

        crash = hub.expect(ComponentCrashed)

        say(hub, "still here")
        hub.expect(Turn)
        assert crash.cause.startswith("raised ValueError: no fault is named 'SIGNONSENSE'")


def test_a_message_of_forty_megabytes_passes_and_nobody_is_taken_for_stuck() -> None:
    with Hub([ECHO], hang_s=3.0) as hub:
        say(hub, "x" * 40_000_000)

        hub.expect(Turn)

        assert not hub.of(ComponentCrashed)


def test_of_what_a_component_logs_too_long_the_beginning_is_kept() -> None:
    with Hub([hostile("Logs")], hang_s=10.0) as hub:
        hub.supervisor.send(SendText("!long", "text_1"))
        hub.expect(Turn)

        hub.supervisor.send(Inject("logs", "raise"))

        tail = hub.expect(ComponentCrashed).log_tail
        assert len(tail) == 50
        assert all(line.startswith("INFO xxx") and len(line) <= 2000 for line in tail)


def test_what_looks_like_a_fatal_error_does_not_swallow_all_that_is_printed_after_it() -> None:
    with Hub([hostile("Logs")]) as hub:
        hub.supervisor.send(SendText("!print", "text_1"))
        hub.expect(Turn)
        child = hub.supervisor._children["logs"]
        until(lambda: "DEBUG and on" in child.log_tail, "the last line does not come")

        assert child._process is not None
        assert len(child._process._stacks or ()) == 500


def test_the_supervisor_does_not_remember_every_turn_of_a_long_conversation() -> None:
    with Hub([ECHO]) as hub:
        for number in range(1500):
            hub.supervisor.send(SendText("hello", f"item_{number}"))
            if number % 500 == 499:
                hub.settled("echo")
        hub.expect(Turn, lambda turn: turn.item_id == "item_1499")

        assert len(hub.supervisor._summary._seen) == 1000


# -- the program ------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_threads")
def test_a_program_sends_its_component_messages_of_a_type_of_its_own(server: FakeServer) -> None:
    own = {"own": "tests.hostile:TakesItsOwn"}
    with Session(server=server.url, components=own, **QUIET) as session:
        turns = session.events(Turn)
        session.send(Own("hello"))

        assert turns.get(TIMEOUT_S) == Turn("assistant", "hello", "own")


@pytest.mark.usefixtures("on_threads")
def test_what_cannot_be_sent_is_refused_and_the_session_goes_on(server: FakeServer) -> None:
    with Session(server=server.url, **QUIET) as session:
        turns = session.events(Turn)
        with pytest.raises(TypeError):
            session.send(SendText(object(), "text_1"))  # type: ignore[arg-type]

        session.send(SendText("Hello", "text_2"))

        assert turns.get(TIMEOUT_S) == Turn("user", "Hello", "text_2")


@pytest.mark.usefixtures("on_threads")
def test_a_program_whose_logging_raises_gets_the_failure_and_waits_no_more(
    server: FakeServer,
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError("no such filter")

    logger = logging.getLogger("rtvoice.logs")
    logger.addFilter(refuse)
    session = Session(server=server.url, components={"logs": "tests.hostile:Logs"}, **QUIET)
    try:
        logger.setLevel(logging.INFO)
        session.start()
        session.send(SendText("a line", "text_1"))

        with pytest.raises(SessionFailedError, match=r"failed to handle .*no such filter"):
            session.wait(TIMEOUT_S)
    finally:
        logger.removeFilter(refuse)
        logger.setLevel(logging.NOTSET)


class DeafProgram:
    """A program that reads nothing until it is told to."""

    def __init__(self, server: FakeServer) -> None:
        settings = {"server": server.url, "components": {"logs": "tests.hostile:Logs"}, **QUIET}
        kinds = [kind.tag() for kind in message_types().values() if issubclass(kind, (Event, Log))]
        self.process, connection = spawn(["rtvoice.peer"], environment_with_us(os.environ))
        self.channel = Channel(connection)
        self.channel.write(StartSession(settings, tuple(kinds)))
        while not isinstance(decode(self.channel.read()), SessionStarted):
            pass

    def rest(self) -> list[Message]:
        """Return everything that it was told meanwhile, to the end."""
        told = []
        with contextlib.suppress(EOFError):
            while True:
                told.append(decode(self.channel.read()))
        self.process.wait(TIMEOUT_S)
        self.channel.close()
        return told


def test_a_program_that_does_not_read_gets_its_events_and_not_every_log_record(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTVOICE_TEST_DIR", str(tmp_path))
    program = DeafProgram(server)
    program.channel.write(SendText("!flood", "text"))
    until((tmp_path / "flooded").exists, "it does not get through")
    program.channel.write(StopSession("enough"))

    told = program.rest()

    ended = told[-1]
    assert isinstance(ended, SessionEnded)
    turns = [message for message in told if isinstance(message, Turn)]
    assert [turn.text for turn in turns if turn.text.isdigit()] == [
        str(number) for number in range(0, 6000, 1000)
    ]
    logs = [message for message in told if isinstance(message, Log) and message.text[:1] == "x"]
    lost = next(entry for entry in ended.lost if "to the program" in entry)
    assert lost.endswith(" messages to the program (it did not read them)")
    assert int(lost.split()[0]) >= 6000 - len(logs)
    drops = [one for one in told if isinstance(one, MessagesDropped) and one.component == "program"]
    assert {drop.message for drop in drops} == {"Log"}
    assert sum(drop.count for drop in drops) == int(lost.split()[0])
    assert len(logs) * 8000 < 2 * 16 * 2**20


def test_a_program_that_never_reads_again_fails_its_session(server: FakeServer) -> None:
    program = DeafProgram(server)

    program.channel.write(SendText("!tell", "text"))

    assert program.process.wait(TIMEOUT_S) == 3
    program.channel.close()


# -- the machine ------------------------------------------------------------------------------


def test_a_restart_waits_until_the_machine_has_descriptors_again(server: FakeServer) -> None:
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux changes the limits of another process")
    with Conversation(server, Log, hang_s=3600) as talk:
        server.connection(0)
        supervisor = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))
        talk.session.inject("realtime", "SIGKILL")
        told = talk.expect(Log, lambda log: "no process can be started" in log.text)
        assert not talk.of(ComponentRestarted)

        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)

        assert talk.expect(ComponentRestarted).component == "realtime"
        server.connection(1).hear("user_1", "Hello")
        talk.expect(Turn)
        assert told.component == "realtime"
        assert len(talk.of(ComponentCrashed)) == 1


def test_a_sandbox_is_restarted_when_the_machine_has_descriptors_again() -> None:
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux changes the limits of another process")
    session = Session(server="sandbox", **QUIET)
    logs, reconnected = session.events(Log), session.events(Reconnected)
    with session:
        assert session.started is not None
        supervisor, sandbox = (session.started.pids[name] for name in ("supervisor", "sandbox"))
        assert any("session with the server has begun" in log.text for log in logs)
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(sandbox, signal.SIGKILL)
        assert any("no process can be started" in log.text for log in logs)

        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)

        assert isinstance(reconnected.get(TIMEOUT_S), Reconnected)


def test_a_session_that_gets_no_processes_fails_to_start_and_says_why() -> None:
    pytest.importorskip("resource")
    program = """
import resource
from supervisor import Session, SessionFailedError
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
try:
    Session(server="ws://127.0.0.1:1", input="silence", output="null").start()
except SessionFailedError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert "cannot start: no process can be started: [Errno 24]" in done.stdout, done.stderr


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_session_for_which_the_disk_has_no_room_is_refused(
    full_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(ConfigurationError, match="no room for the session"):
        Supervisor({})

    assert list(tmp_path.iterdir()) == []


def test_the_pages_that_processes_share_have_their_place_on_the_disk(tmp_path: Path) -> None:
    Page(tmp_path / "page", create=True)
    Mark(SessionInfo(epoch_ns=0, directory=str(tmp_path)), "mark")

    for name in ("page", "mark"):
        assert (tmp_path / name).stat().st_blocks > 0, "a hole, on a full disk, kills who writes"


def test_where_the_path_of_a_socket_is_too_long_a_session_with_probes_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with Hub([ECHO], probes=True) as hub:
        hub.supervisor.send(Inject("echo", "raise"))

        hub.expect(ComponentRestarted)
