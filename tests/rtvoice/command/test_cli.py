"""The command: usage, errors, signals, and the settings of the session that it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from messages import (
    ConfigurationError,
    Message,
    SessionEnded,
    SessionStarted,
    StopSession,
    Turn,
)
from rtvoice.command import cli
from rtvoice.command.choice import Card
from tests.conversation import DEAF

ROOT = Path(__file__).resolve().parents[3]


class FakeSession:
    """Takes what the command gives it, and ends at once as it is told to."""

    made: ClassVar[list[FakeSession]] = []
    result: ClassVar[Any] = 0
    during: ClassVar[Any] = None

    def __init__(self, *, defaults: Mapping[str, Any] | None = None, **settings: Any) -> None:
        if settings.get("model") == "impossible":
            raise ConfigurationError("model: there is no such thing")
        self.given = settings
        self.started: SessionStarted | None = None
        self.sent: list[Message] = []
        self.killed = False
        self.made.append(self)

    def listen(self, listener: Any) -> None:
        self._put = listener.put

    def start(self) -> None:
        by_key = self.given.get("turn_detection", "") is None
        self.started = SessionStarted({}, "", "a", "b", push_to_talk=by_key)
        self._put(self.started)
        if isinstance(self.result, Exception):
            raise self.result
        self._put(Turn("user", "hi", "x"))
        if self.during is None:
            self._end()
        else:
            self.during()

    def _end(self) -> None:
        self._put(SessionEnded("asked", 1, 0, {}, (), (), 1.0))
        self._put(None)

    def wait(self, _: float) -> None:
        pass

    @property
    def exit_code(self) -> int:
        return int(self.result)

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self._end()

    def kill(self) -> None:
        self.killed = True


@pytest.fixture(autouse=True)
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [name for name in os.environ if name.startswith("RTVOICE_") and "_TEST_" not in name]
    for name in ("OPENAI_API_KEY", *ours):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rtvoice.command.conversation.Session", FakeSession)
    monkeypatch.setenv("RTVOICE_FORK", "0")  # nothing is started
    monkeypatch.setattr(FakeSession, "made", [])
    monkeypatch.setattr(FakeSession, "result", 0)
    monkeypatch.setattr(FakeSession, "during", None)
    monkeypatch.setattr("rtvoice.command.choice.find_card", lambda: Card(False, False))
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN)
NOWHERE = ("--input", "silence", "--output", "null")


def started() -> FakeSession:
    assert len(FakeSession.made) == 1
    return FakeSession.made[0]


def test_a_session_gets_the_built_in_assistant_and_what_was_asked_for() -> None:
    assert cli.run([*NOWHERE, "--voice", "cedar"]) == 0

    settings = started().given
    assert settings["voice"] == "cedar"
    assert settings["server"] == "sandbox"
    assert settings["input"] == "silence"
    assert settings["transcription_model"] == "gpt-transcribe"
    assert settings["log_level"] == "INFO"


def test_an_agent_decides_what_was_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")

    assert cli.run(["a.py:agent", "--input", "silence", "--server", "ws://x"]) == 0

    assert started().given == {
        "agent": "a.py:agent",
        "import_path": (str(tmp_path),),
        "input": "silence",
        "server": "ws://x",
        "log_level": "INFO",
    }


def test_the_key_comes_from_the_env_file_but_never_over_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTVOICE_SERVER", "sandbox")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.delenv("OPENAI_API_KEY")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-file\nRTVOICE_SERVER=ws://file\n")

    assert cli.run([*NOWHERE]) == 0

    assert os.environ["OPENAI_API_KEY"] == "sk-file"
    assert started().given["server"] == "sandbox"
    assert "sk-file" not in str(started().given)


def test_push_to_talk_without_a_terminal_says_that_nothing_is_heard(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run([*NOWHERE, "--server", "sandbox", "--push-to-talk"]) == 0
    assert started().given["turn_detection"] is None
    assert "Nothing that you say is heard: there is no terminal" in capsys.readouterr().out

    assert cli.run([*NOWHERE, "--server", "sandbox"]) == 0
    assert "no terminal" not in capsys.readouterr().out


def test_the_devices_of_the_environment_hold_where_the_command_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTVOICE_INPUT", " Headset ")
    (tmp_path / ".env").write_text("RTVOICE_OUTPUT=7\nRTVOICE_INPUT=other\n")

    assert cli.run([]) == 0
    assert cli.run(["--input", "silence"]) == 0

    first, second = (made.given for made in FakeSession.made)
    assert (first["input"], first["output"]) == ("Headset", "7")
    assert (second["input"], second["output"]) == ("silence", "7")


def test_a_file_that_the_environment_names_and_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RTVOICE_INPUT", "nowhere.wav")

    assert cli.run(["--output", "null"]) == 2

    assert "RTVOICE_INPUT: there is no file nowhere.wav" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "openai"], "the OpenAI service needs a key: set OPENAI_API_KEY"),
        (["nothing"], "AGENT is 'nothing'; write file.py:name"),
        (["missing.py:agent"], "there is no file missing.py"),
        (["--input", "missing.wav"], "--input: there is no file missing.wav"),
        ([*NOWHERE, "--record", "talk.mp3"], "talk.mp3 must end in .wav"),
        (["--output", "no/such/reply.wav"], "--output: no/such/reply.wav cannot be written"),
        ([*NOWHERE, "--journal", "no/such/journal"], "--journal: no/such/journal cannot"),
        (
            [*NOWHERE, "--resume", "none.journal"],
            "there is no file or folder none.journal",
        ),
        ([*NOWHERE, "--events", "no/such/events"], "--events: no/such/events cannot be written"),
        ([*NOWHERE, "--model", "impossible"], "model: there is no such thing"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2

    assert words in capsys.readouterr().err
    assert FakeSession.made == []


def test_an_invalid_log_level_in_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RTVOICE_LOG_LEVEL", "LOUD")

    assert cli.run([*NOWHERE]) == 2
    assert "RTVOICE_LOG_LEVEL: 'LOUD' is not valid; give DEBUG" in capsys.readouterr().err


def test_the_demo_is_a_session_with_the_sandbox(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["--demo", "--voice", "cedar"]) == 0

    settings = started().given
    assert (settings["server"], settings["input"]) == ("sandbox", "program")
    assert settings["voice"] == "cedar"
    assert settings["output"] == str(tmp_path / "rtvoice-demo" / "reply.wav")
    shown = capsys.readouterr().out
    assert shown.index("The demo:") < shown.index("you: hi") < shown.index("To talk yourself")


@pytest.mark.parametrize("code", [0, 2, 3])
def test_the_exit_code_is_the_sessions(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(FakeSession, "result", code)

    assert cli.run([*NOWHERE]) == code


def test_a_bug_is_reported_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeSession, "result", RuntimeError("a bug"))

    assert cli.run([*NOWHERE]) == 70
    assert "RuntimeError: a bug" in capsys.readouterr().err


def test_events_go_to_a_file(tmp_path: Path) -> None:
    cli.run([*NOWHERE, "--events", "e.jsonl"])

    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["session_started", "turn", "summary"]


def test_with_events_on_stdout_the_transcript_goes_to_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    cli.run([*NOWHERE, "--events", "-"])

    found = capfd.readouterr()
    lines = [json.loads(line)["event"] for line in found.out.splitlines()]
    assert lines == ["session_started", "turn", "summary"]
    assert "you: hi" in found.err


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_ends_the_session_in_order(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, reason: str
) -> None:
    monkeypatch.setattr(FakeSession, "during", lambda _: os.kill(os.getpid(), number))
    signal.signal(number, signal.SIG_DFL)  # it is ignored where the tests run under nohup

    assert cli.run([*NOWHERE]) == 0

    assert started().sent == [StopSession(reason)]
    assert not started().killed


def test_a_second_ctrl_c_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    def press_twice(_: object) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # two signals at once are one

    monkeypatch.setattr(FakeSession, "during", press_twice)
    monkeypatch.setattr(FakeSession, "send", lambda *_: None)  # it does not end

    with pytest.raises(SystemExit) as end:
        cli.run([*NOWHERE])

    assert end.value.code == 130
    assert started().killed


# -- the real thing ---------------------------------------------------------------------------


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_list_that_nobody_reads_ends_quietly() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", "--list-devices", "--json"],
            stdout=writes,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writes)

    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors as a shell does")
def test_without_standard_streams_a_session_runs_and_nothing_is_shown(tmp_path: Path) -> None:
    run = [sys.executable, "-P", "-m", "supervisor", *NOWHERE, "--max-seconds", "0.1"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" --server sandbox --events "$0" <&- >&-', "all.jsonl", *run],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **DEAF},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    *_, last = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(last)["event"] == "summary"


def test_json_of_a_conversation_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--json", *NOWHERE]) == 2

    assert "--json goes with --list-devices or --doctor" in capsys.readouterr().err


def test_help_teaches() -> None:
    shown = command("--help").stdout

    for word in ("examples:", "OPENAI_API_KEY", "the demo", "--input", "exit codes:", "m mutes"):
        assert word in shown
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_examples_fit_where_the_command_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "/home/somebody/projects/voice/rtvoice/scripts/run"
    monkeypatch.setattr(cli, "rtvoice", lambda arguments="": f"{script} {arguments}".strip())

    shown = cli._examples()

    assert all(len(line) <= 100 for line in shown.splitlines())
    whole = re.sub(r" \\\n\s+", " ", shown)
    assert f"{script} --input question.wav --output reply.wav --server sandbox\n" in whole
    assert f"{script} --doctor" in whole


def test_a_short_session_with_the_sandbox() -> None:
    found = command(*NOWHERE, "--max-seconds", "0.2", "--events", "-", **DEAF)

    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert found.returncode == 0, found.stderr
    (started,) = (event for event in events if event["event"] == "session_started")
    assert set(started["pids"]) >= {"microphone", "speaker", "realtime", "tools", "history"}
    assert events[-1]["event"] == "summary"
    assert "[server: the sandbox" in found.stderr


def test_an_agent_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_there\n")

    found = command("broken.py:agent", *NOWHERE)

    assert found.returncode == 2
    assert "importing it failed: ModuleNotFoundError: No module named 'not_there'" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "in.wav", "--events", "in.wav"], "--events: in.wav is the file of --input"),
        (["--input", "in.wav", "--journal", "./in.wav"], "--journal: ./in.wav is the file of"),
        (["--output", "o.wav", "--record", "o.wav"], "--record: o.wav is the file of --output"),
        (["--input", "in.flac", "--events", "in.flac"], "--events: in.flac is the file of --input"),
        ([*NOWHERE, "--resume", "bare", "--events", "bare"], "--events: bare is the file of --res"),
        (["--input", "bare", "--events", "bare"], "--events: bare is the file of --input"),
        (["--input", "in.wav", "--output", "link.wav"], "--output: link.wav is the file of"),
        (["a.py:agent", "--events", "a.py"], "AGENT: a.py is the file of --events"),
    ],
)
def test_a_file_that_is_read_or_written_already_is_refused_and_left_as_it_is(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("in.wav", "in.flac", "bare", "a.py")
    for name in names:
        (tmp_path / name).write_text("as it was")
    (tmp_path / "link.wav").hardlink_to(tmp_path / "in.wav")

    assert cli.run([*arguments, "--server", "sandbox"]) == 2

    assert said in capsys.readouterr().err
    assert {(tmp_path / name).read_text() for name in names} == {"as it was"}


def test_a_missing_flac_file_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--input", "none.flac", "--output", "null", "--server", "sandbox"]) == 2

    assert "--input: there is no file none.flac" in capsys.readouterr().err


def test_a_file_in_the_home_folder_may_be_named_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RTVOICE_INPUT", "~/in.wav")
    (tmp_path / "in.wav").write_bytes(b"")

    assert cli.run(["--output", "null", "--server", "sandbox", "--record", "~/no/r.wav"]) == 2

    assert "/no/r.wav cannot be written" in capsys.readouterr().err


def test_events_go_to_the_home_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cli.run([*NOWHERE, "--max-seconds", "0.1", "--events", "~/e.jsonl"]) == 0

    assert (tmp_path / "e.jsonl").read_bytes()


@pytest.mark.parametrize("option", ["--input", "--output", "--record", "--journal", "--events"])
def test_the_folder_of_an_unknown_user_is_reported(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["--server", "sandbox", "--max-seconds", "0.1", option, "~nobody-/a.wav"]) == 2

    assert "~nobody-/a.wav" in capsys.readouterr().err


def test_ctrl_c_after_the_end_does_not_change_the_exit_code() -> None:
    code = (
        "import atexit, os, signal, rtvoice.command.cli as cli\n"
        "cli.run = lambda argv: 3\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "cli.main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (3, b"")
