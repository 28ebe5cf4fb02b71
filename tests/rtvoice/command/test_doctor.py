"""The doctor: its findings on machines with and without problems."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.devices.card.listing import SoundDevice
from actors.devices.card.soundcheck import (
    DeviceOpened,
    Echo,
    EchoCancelled,
    MicrophoneHeard,
    Request,
)
from actors.devices.errors import SoundLibraryError, SoundSystemStuckError
from messages import Settings
from messages.hints import install
from rtvoice.command import doctor
from rtvoice.command.doctor import files, machine, result, server, sound
from rtvoice.command.doctor.result import Result, ok, within
from tests.actors.devices.card.test_soundcheck import open_speakers, real_card
from tests.bad_input.reaching import listening, refusing
from tests.fake_server import FakeServer
from tests.test_command import environment_of, needs_speech

__all__ = ["open_speakers"]

KEY = "sk-canary-doctor-0123456789"
QUIET = ("--input", "silence", "--output", "null")


def run(
    *arguments: str, cwd: Path, **environment: str
) -> tuple[int, dict[str, list[tuple[str, str]]], str]:
    """Run the command; return its exit code, (status, text) by check, and all that it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "--doctor", "--json", *arguments],
        cwd=cwd,
        env=environment_of(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["works"] is (done.returncode == 0)
    found: dict[str, list[tuple[str, str]]] = {}
    for one in told["checks"]:
        found.setdefault(one["check"], []).append((one["status"], one["text"]))
    return done.returncode, found, done.stdout


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


# -- the whole ------------------------------------------------------------------------------------


def test_a_machine_without_problems_is_reported_as_such(tmp_path: Path, fake: FakeServer) -> None:
    record = tmp_path / "talk.wav"

    code, found, text = run(
        *QUIET, "--server", fake.url, "--record", "talk.wav", cwd=tmp_path, OPENAI_API_KEY=KEY
    )

    assert code == 0
    assert {status for results in found.values() for status, _ in results} <= {"ok", "warning"}
    assert list(found) == [
        *("python", "packages", "names", "sound", "options", "speaker", "microphone"),
        *("key", "models", "server", "files"),
    ]
    assert "begins a session with gpt-realtime-2.1-mini" in found["server"][0][1]
    assert KEY not in text
    assert not record.exists()


def test_what_keeps_a_session_from_working_is_named_and_the_rest_is_checked_too(
    tmp_path: Path,
) -> None:
    with listening(refusing("401 Unauthorized", "x", f"Incorrect API key: {KEY}.")) as there:
        code, found, text = run(
            *("--input", "nobody.wav", "--output", "null", "--record", "no/talk.wav"),
            *("--server", f"ws://{there}/v1/realtime", "--model", "gpt-realtime"),
            cwd=tmp_path,
            OPENAI_API_KEY=KEY,
        )

    assert code == 2
    ((status, said),) = found["server"]
    assert (status, said.partition(":")[0]) == ("problem", "the server refuses the API key")
    assert found["options"][0][0] == "problem"
    assert ("problem", "there is no input file 'nobody.wav'; check its name") in found["microphone"]
    assert found["models"][0][0] == "warning"
    assert "gpt-realtime-2.1" in found["models"][0][1]
    assert KEY not in text


def test_an_input_without_a_header_is_a_problem_with_what_is_missing(
    tmp_path: Path, fake: FakeServer
) -> None:
    (tmp_path / "question.raw").write_bytes(bytes(48_000))

    devices = ("--input", "question.raw", "--output", "null")
    code, found, _ = run(*devices, "--server", fake.url, cwd=tmp_path)

    assert code == 2
    ((status, text),) = found["microphone"]
    assert status == "problem"
    assert text.startswith("'question.raw' has no header that gives its sample rate, its sample")


def test_the_sandbox_is_tried_too(tmp_path: Path) -> None:
    code, found, _ = run(*QUIET, "--server", "sandbox", cwd=tmp_path)

    assert code == 0
    assert "the sandbox answers" in found["server"][0][1]
    assert "sandbox" in found


def test_without_a_key_the_service_is_a_problem(tmp_path: Path) -> None:
    code, found, _ = run(*QUIET, "--server", "openai", cwd=tmp_path)

    assert code == 2
    assert "OPENAI_API_KEY is not set" in found["key"][0][1]
    assert found["server"][0] == ("problem", "not tried: there is no valid key")


def test_without_pyaudio_it_says_what_to_install(tmp_path: Path, fake: FakeServer) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "pyaudio.py").write_text("raise ModuleNotFoundError('no', name='pyaudio')")
    environment = environment_of()
    path = os.pathsep.join([str(tmp_path / "away"), environment["PYTHONPATH"]])

    told = [
        run("--server", fake.url, *devices, cwd=tmp_path, PYTHONPATH=path)
        for devices in (("--input", "default", "--output", "null"), QUIET)
    ]

    (code, found, _), (quiet_code, quiet, _) = told
    assert code == 2
    assert found["microphone"][0][0] == "problem"
    assert quiet_code == 0
    for one in (found, quiet):
        status, text = one["sound"][0]
        assert status == "warning"
        assert "PyAudio is not installed; to install it: " in text
        assert "/scripts/run --setup" in text or "pip install pyaudio" in text


def test_a_file_that_hides_a_package_is_named_and_does_no_harm(
    tmp_path: Path, fake: FakeServer
) -> None:
    for name in ("messages", "numpy", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong file')")

    code, found, _ = run(*QUIET, "--server", fake.url, cwd=tmp_path)

    assert code == 0
    assert found["names"][0][0] == "warning"
    assert found["names"][0][1].startswith("messages.py, numpy.py, queue.py in this folder")


def test_an_agent_is_loaded_and_its_settings_are_looked_at(
    tmp_path: Path, fake: FakeServer
) -> None:
    (tmp_path / "mine.py").write_text(
        "print('hello')\nfrom rtvoice import Agent\n"
        "agent = Agent('x', audio_input='nobody.wav', audio_output='null')\n"
    )
    (tmp_path / "wrong.py").write_text("1 / 0")

    code, found, _ = run("mine.py:agent", "--server", fake.url, cwd=tmp_path)
    wrong_code, wrong, _ = run(*QUIET, "wrong.py:agent", "--server", fake.url, cwd=tmp_path)

    assert found["agent"] == [("ok", "mine.py:agent can be loaded")]
    assert found["microphone"][0][0] == "problem"
    assert code == wrong_code == 2
    assert "ZeroDivisionError" in wrong["agent"][0][1]


# -- the report -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, *results: Result) -> list[str]:
    class Examination:
        def __init__(self, *_: object) -> None: ...

        def results(self) -> Iterator[Result]:
            yield from results

    monkeypatch.setattr(doctor, "_Examination", Examination)
    options = argparse.Namespace(json=False)
    environment = {"OPENAI_API_KEY": KEY}
    code = doctor.diagnose(options, environment, lambda: None, out=out)
    assert code == (2 if any(one.status == "problem" for one in results) else 0)
    return out.getvalue().splitlines()


def test_each_result_is_a_line_and_the_last_one_says_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = (ok("python", "3.13"), result.problem("key", "it is\nwrong"))

    assert told(monkeypatch, io.StringIO(), *results) == [
        "ok       python     3.13",
        "problem  key        it is wrong",
        "",
        "A session would not work: see key.",
    ]
    assert told(monkeypatch, io.StringIO(), ok("a", "b"))[-1] == "A session would work."


def test_who_stops_reading_still_gets_the_exit_code(tmp_path: Path, fake: FakeServer) -> None:
    command = [sys.executable, "-m", "supervisor", "--doctor", *QUIET, "--server", fake.url]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as lines:
        lines.readline()

    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(60) == 0


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    first, *_ = told(monkeypatch, Terminal(), result.warning("names", "x"))

    assert first == "\x1b[33mwarning \x1b[0m names      x"


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(monkeypatch, io.StringIO(), result.problem("server", f"it hates {KEY}, it says"))

    assert lines[0].endswith("it hates [key], it says")


def test_a_check_that_hangs_or_raises_keeps_no_other_from_being_made() -> None:
    hang = threading.Event()

    def hangs() -> Iterator[Result]:
        yield ok("one", "done")
        hang.wait(60)

    def raises() -> Iterator[Result]:
        yield ok("two", "done")
        raise ZeroDivisionError("by 0")

    began = time.monotonic()
    first, second = list(within(0.2, "one", hangs)), list(within(5, "two", raises))
    hang.set()

    assert time.monotonic() - began < 30  # not the minute that it hangs
    assert first == [
        ok("one", "done"),
        Result("one", "problem", "this check has not ended within 0.2 s"),
    ]
    assert second[1] == Result("two", "problem", "this check has failed: ZeroDivisionError: by 0")


# -- the machine ----------------------------------------------------------------------------------


def test_a_package_that_is_too_old_or_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=1.26", "pykka >= 4.5", 'pyaudio>=0.2.14; extra == "audio"', "structlog"]
    asked.append('openai>=3; extra == "referees"')
    there = {"numpy": "1.9.3", "pykka": "4.10.0", "structlog": ""}
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: asked)
    monkeypatch.setattr(machine, "_version", lambda name: there.get(name, ""))

    (told,) = machine.packages()

    assert told.status == "problem"
    assert told.text == (
        "numpy 1.9.3, 1.26 or later is needed; structlog is missing, 0 or later is needed: "
        f"{install('--upgrade rtvoice')}"
    )


# -- the server -----------------------------------------------------------------------------------


def of_server(url: str, key: str = "", **settings: Any) -> Result:
    (told,) = server.server(Settings(server=url, **settings), {"OPENAI_API_KEY": key})
    return told


def test_a_server_without_time_is_a_warning(fake: FakeServer) -> None:
    fake.refuse = 1

    assert of_server(fake.url).status == "warning"
    assert of_server(fake.url).status == "ok"


def test_a_server_that_begins_no_session_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, fake: FakeServer
) -> None:
    from tests import fake_server

    monkeypatch.setattr(server, "_FIRST_EVENT_S", 0.2)
    for event, said in (
        (None, "does not begin a session"),
        ({"code": "insufficient_quota"}, "no credit left"),
        ({"code": "beta_api_shape_disabled"}, "GA Realtime protocol"),
        ({"message": "the moon is full"}, "refuses: the moon is full"),
    ):

        def serve(self: fake_server.Connection, event: Any = event) -> None:
            if event is not None:
                self.tell("error", error=event)
            for _ in self._socket:
                pass

        monkeypatch.setattr(fake_server.Connection, "serve", serve)
        told = of_server(fake.url)
        assert told.status == "problem"
        assert said in told.text


@pytest.mark.parametrize("shown", ["events", "session"])
def test_a_server_of_before_general_availability_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, fake: FakeServer, shown: str
) -> None:
    from tests import fake_server

    def serve(self: fake_server.Connection) -> None:
        session = {"modalities": ["text", "audio"]} if shown == "session" else {"type": "realtime"}
        self.tell("session.created", session=session)
        for text in self._socket:
            if json.loads(text)["type"] == "response.create":
                self.tell("response.created", response={"id": "r1"})
                self.tell("response.text.delta", delta="ok")

    monkeypatch.setattr(fake_server.Connection, "serve", serve)
    told = of_server(fake.url)

    assert told.status == "problem"
    assert fake.url in told.text
    assert "general availability" in told.text


def test_a_server_that_describes_its_session_oddly_is_well(
    monkeypatch: pytest.MonkeyPatch, fake: FakeServer
) -> None:
    from tests import fake_server

    def serve(self: fake_server.Connection) -> None:
        self.tell("session.created", session="sess_1")
        for _ in self._socket:
            self.tell("error", error="no")

    monkeypatch.setattr(fake_server.Connection, "serve", serve)

    assert of_server(fake.url).status == "ok"


def test_a_server_that_writes_by_the_names_of_today_is_well(
    monkeypatch: pytest.MonkeyPatch, fake: FakeServer
) -> None:
    from tests import fake_server

    def serve(self: fake_server.Connection) -> None:
        self.tell("session.created", session={"type": "realtime"})
        for text in self._socket:
            if json.loads(text)["type"] == "response.create":
                ids = {"response_id": "r1", "item_id": "a1"}
                self.tell("response.output_text.delta", delta="ok", **ids)

    monkeypatch.setattr(fake_server.Connection, "serve", serve)
    began = time.monotonic()

    assert of_server(fake.url).status == "ok"
    assert time.monotonic() - began < server._ANSWER_S


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://127.0.0.1:1/v1", "nothing listens there"),
        ("wss://realtime.invalid/v1", "realtime.invalid is not known"),
    ],
)
def test_a_server_that_cannot_be_reached_is_a_problem(url: str, said: str) -> None:
    told = of_server(url)

    assert told.status == "problem"
    assert said in told.text


@pytest.mark.parametrize(
    ("url", "key", "status", "said"),
    [
        ("openai", "", "problem", "is not set"),
        ("openai", "sk-two words", "problem", "characters that no key has"),
        ("openai", "4711-4711", "warning", "does not begin with sk-"),
        ("openai", "sk-4711", "ok", "is set (7 characters)"),
        ("ws://example.com/v1", "sk-4711", "warning", "not encrypted"),
        ("ws://127.0.0.1:9/v1", "", "ok", "may need none"),
        ("sandbox", "sk-4711", "ok", "is not used"),
    ],
)
def test_the_form_of_a_key_is_looked_at(url: str, key: str, status: str, said: str) -> None:
    (told,) = server.key(Settings(server=url), {"OPENAI_API_KEY": key})

    assert (told.status, said in told.text) == (status, True), told.text
    assert not key or key not in told.text


# -- files ----------------------------------------------------------------------------------------


def test_files_are_tried_and_left_as_they_are(tmp_path: Path) -> None:
    old = tmp_path / "old.wav"
    old.write_bytes(b"precious")
    (tmp_path / "folder.wav").mkdir()

    told = {
        one.text.partition(":")[0]: one
        for one in files.written(
            {
                "--record": str(old),
                "--journal": str(tmp_path / "new.journal"),
                "--output": str(tmp_path / "no" / "reply.wav"),
                "--events": str(tmp_path / "folder.wav"),
            }
        )
    }

    assert [told[name].status for name in ("--record", "--journal")] == ["ok", "ok"]
    assert [told[name].status for name in ("--output", "--events")] == ["problem", "problem"]
    assert "there is no folder" in told["--output"].text
    assert "it is a folder" in told["--events"].text
    assert old.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.wav", "old.wav"]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("reply.wav", "ok", "reply.wav is written"),
        ("reply.mp3", "problem", "give a name that ends in .wav"),
        ("talk.wav", "problem", "it is the input"),
    ],
)
def test_an_output_that_a_session_would_refuse_is_a_problem(
    name: str, status: str, said: str
) -> None:
    (told,) = files.output(Settings(input="talk.wav", output=name))

    assert (told.check, told.status, said in told.text) == ("speaker", status, True)


def test_a_disk_that_is_nearly_full_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = argparse.Namespace(free=12 * 1024**2)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)

    (told,) = files.written({"--record": str(tmp_path / "talk.wav")})

    assert told.status == "warning"
    assert "only 12 MiB are free" in told.text


# -- sound ----------------------------------------------------------------------------------------


def device(code: str, tmp_path: Path) -> str:
    """Return the name of an input device whose making does this."""
    (tmp_path / "mine.py").write_text(f"import os, signal, time\ndef line():\n    {code}\n")
    return f"{tmp_path / 'mine.py'}:line"


def test_a_crash_of_the_sound_check_is_reported(tmp_path: Path) -> None:
    name = device("os.kill(os.getpid(), signal.SIGSEGV)", tmp_path)

    speaker, microphone = sound.sound(Request(name, "null"))

    assert speaker == ok("speaker", "null can be used")
    assert microphone.status == "problem"
    assert "opening it ends the process (SIGSEGV)" in microphone.text


def test_a_sound_check_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "_STEP_S", 1.0)
    name = device(
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)", tmp_path
    )

    began = time.monotonic()
    *_, microphone = sound.sound(Request(name, "null"))

    assert time.monotonic() - began < 40  # not the minute that it hangs
    assert microphone.status == "problem"
    assert "opening it takes more than 1 s" in microphone.text
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_sound_system_that_hangs_is_distinguished_from_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    for error in (
        SoundSystemStuckError("input", "PortAudio did not answer in 6 s"),
        SoundLibraryError("input", "PyAudio is not installed"),
    ):

        def fails(*_: object, error: SoundLibraryError = error) -> list[SoundDevice]:
            raise error

        monkeypatch.setattr(sound, "list_devices", fails)
        told += sound.devices([])

    assert [one.status for one in told] == ["warning", "warning"]
    assert "it hangs: restart it" in told[0].text
    assert "to install it: " in told[1].text


def test_how_processes_are_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for value in ("", "0"):
        monkeypatch.setenv("RTVOICE_FORK", value)
        said += [result.text.rpartition("; ")[2] for result in machine.python()]

    assert said == [
        "processes are forked" if sys.platform == "linux" else "processes are not forked",
        "processes are not forked",
    ]


@pytest.mark.parametrize(
    ("platform", "status", "said"),
    [
        ("darwin", "problem", "Privacy & Security, Microphone"),
        ("linux", "warning", "the mixer"),
        ("win32", "warning", "Privacy & security, Microphone"),
    ],
)
def test_zeros_are_a_lack_of_permission_where_the_system_shows_it_so(
    monkeypatch: pytest.MonkeyPatch, platform: str, status: str, said: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    (told,) = sound._heard(MicrophoneHeard(1.0, -96.0, -96.0, True, 0))

    assert (told.status, said in told.text) == (status, True)


def test_oddities_of_a_card_are_reported() -> None:
    (converted,) = sound._opened(DeviceOpened("input", "USB", 44_100, 2))
    clipped, rate = sound._heard(MicrophoneHeard(0.92, -20.0, 0.0, False, 400))

    assert converted == ok(
        "microphone", "'USB' opens (44100 Hz, 2 channels, converted to 24000 Hz)"
    )
    assert "turn it down" in clipped.text
    assert "0.92 times" in rate.text


@pytest.mark.parametrize(
    ("heard", "half", "status", "said"),
    [
        (True, True, "warning", "does not listen while it speaks"),
        (True, False, "warning", "it would interrupt itself"),
        (False, True, "ok", "--full-duplex lets you interrupt"),
        (False, False, "ok", "a headset, or turned down"),
    ],
)
def test_open_speakers_are_judged_by_whether_the_assistant_listens(
    heard: bool, half: bool, status: str, said: str
) -> None:
    duplex = "half" if half else "full"
    told = sound._echo(Echo(heard, -18.2, 179, 60), EchoCancelled("off"), duplex, half=half)

    assert (told.status, said in told.text) == (status, True), told.text


@pytest.mark.parametrize(
    ("cancelled", "duplex", "status", "said"),
    [
        (
            EchoCancelled("cancelled", 34.2, 61),
            *("auto", "ok", "its echo is cancelled by 34 dB, 61 ms away: you can interrupt"),
        ),
        (EchoCancelled("cancelled", 34.2, 61), "full", "ok", "is cancelled by 34 dB"),
        (EchoCancelled("cancelled", 34.2, 61), "half", "warning", "does not listen while"),
        (
            EchoCancelled("failed", 6.0, None, "only 6 dB of it are taken away"),
            *("auto", "warning", "not cancelled (only 6 dB of it are taken away), so the"),
        ),
        (
            EchoCancelled("off", reason="pywebrtc-audio is not installed: pip install …"),
            *("auto", "warning", "pip install"),
        ),
        (EchoCancelled("learning"), "auto", "warning", "does not listen while"),
    ],
)
def test_whether_the_echo_is_cancelled_is_said(
    cancelled: EchoCancelled, duplex: str, status: str, said: str
) -> None:
    echo = Echo(True, -18.2, 179, 60)

    told = sound._echo(echo, cancelled, duplex, half=duplex != "full")

    assert (told.status, said in told.text) == (status, True), told.text


@pytest.mark.parametrize(
    ("device", "duplex", "said"),
    [
        ("default", "auto", "does not listen"),
        ("USB Headset", "auto", "interrupt itself"),
        ("USB Headset", "half", "does not listen"),
        ("default", "full", "interrupt itself"),
    ],
)
def test_a_headset_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, device: str, duplex: str, said: str
) -> None:
    found = [
        DeviceOpened("output", "speakers", 24_000, 1),
        DeviceOpened("input", device, 24_000, 1),
    ]
    monkeypatch.setattr(sound, "_findings", lambda _: iter([*found, Echo(True)]))

    *_, told = sound.sound(Request(device, "speakers"), duplex)

    assert said in told.text


@real_card
@needs_speech
def test_the_doctor_hears_open_speakers_and_the_guide_shows_it(
    open_speakers: None, tmp_path: Path
) -> None:
    pytest.importorskip("pyaudio")
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "--doctor"],
        cwd=tmp_path,
        env=environment_of(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    guide = (Path(__file__).parents[3] / "docs/guide/devices.md").read_text(encoding="utf-8")
    shown = guide.partition("```text\nok       python")[2].partition("```")[0]
    assert done.returncode == 0
    assert "ok       echo       the microphone hears the speaker (" in done.stdout
    assert "its echo is cancelled by " in done.stdout
    assert [line[:20].rstrip() for line in f"ok       python{shown}".splitlines()] == [
        line[:20].rstrip() for line in done.stdout.splitlines()
    ]


@real_card
def test_a_frozen_sound_server_is_said_to_hang(
    open_speakers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyaudio")
    monkeypatch.setattr(sound, "_LIST_S", 1.0)
    monkeypatch.setattr(sound, "_STEP_S", 1.0)
    pid = int((Path(os.environ["VIRTUAL_SOUND_CARD"]) / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        (listed,) = sound.devices([])
        (tried,) = sound.sound(Request("default", "default"))
    finally:
        os.kill(pid, signal.SIGCONT)

    assert "PortAudio did not answer in 1 s; it hangs" in listed.text
    assert tried.status == "problem"
    assert "opening it takes more than 1 s" in tried.text
