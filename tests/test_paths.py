"""Files and folders whose names are not UTF-8 are used as any others."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import pytest

from messages import SendImage, Turn
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S
from tests.test_command import environment_of

TALK = ("--server", "ws://127.0.0.1:1/v1", "--max-seconds", "0.5")
NAME = b"x\xffy"
SHOWN = "x\\udcffy"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return a folder with a name as old archives have them, with a sound file in it."""
    folder = tmp_path / os.fsdecode(NAME)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("THIS FILE SYSTEM HAS NAMES IN UTF-8 ONLY")
    with wave.open(str(folder / "in.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(b"\x01\x01" * 24_000)
    return folder


def run(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str]:
    """Return the exit code of the command, and what its user sees."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        cwd=cwd,
        env=environment_of(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=6 * TIMEOUT_S,
        check=False,
    )
    text = (done.stdout + done.stderr).decode()
    assert "Traceback" not in text
    return done.returncode, text


def frames_of(path: Path) -> int:
    with wave.open(str(path)) as file:
        return file.getnframes()


def test_input_output_recording_journal_and_events(odd: Path, tmp_path: Path) -> None:
    files = {"output": "out.wav", "record": "talk.wav", "journal": "j", "events": "e"}
    options = [word for name, file in files.items() for word in (f"--{name}", f"{odd}/{file}")]

    code, text = run(*TALK, "--input", f"{odd}/in.wav", *options, cwd=tmp_path)

    assert code == 0, text
    assert f"microphone: {tmp_path}/{SHOWN}/in.wav" in text
    assert all((odd / file).stat().st_size for file in files.values())
    assert frames_of(odd / "talk.wav") > 2_400
    events = [json.loads(line) for line in (odd / "e").read_text(encoding="utf-8").splitlines()]
    (started,) = (event for event in events if event["event"] == "session_started")
    assert started["input"] == f"{tmp_path}/{SHOWN}/in.wav"
    assert set(events[-1]["files"]) == {
        f"{tmp_path}/{SHOWN}/{name}" for name in ("talk.wav", "j", "out.wav")
    }


def test_a_sound_file_that_libsndfile_reads(odd: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="NO SOUNDFILE: pip install soundfile")
    soundfile.write(os.fsencode(odd / "in.flac"), memoryview(bytes(9_600)).cast("h"), 48_000)

    code, text = run(*TALK, "--input", f"{odd}/in.flac", "--output", "null", cwd=tmp_path)

    assert code == 0, text


@pytest.mark.parametrize("agent", ["agent.py:agent", "agent:agent"])
def test_the_current_folder_with_an_agent_and_its_modules(odd: Path, agent: str) -> None:
    (odd / "agent.py").write_text(
        "import helper\nfrom rtvoice import Agent\n"
        "agent = Agent(helper.TEXT, audio_input='in.wav', audio_output='null')\n"
    )
    (odd / "helper.py").write_text("TEXT = 'Be brief.'\n")

    code, text = run(*TALK, agent, "--record", "talk.wav", cwd=odd)

    assert code == 0, text
    assert "microphone: in.wav" in text
    assert frames_of(odd / "talk.wav") > 2_400


def test_the_file_of_an_agent_and_of_a_device(odd: Path, tmp_path: Path) -> None:
    (odd / "agent.py").write_text("from rtvoice import Agent\nagent = Agent('x')\n")
    (odd / "mine.py").write_text(
        "from actors.devices.silence import SilenceCapture\near = SilenceCapture(960)\n"
    )
    devices = ("--input", f"{odd}/mine.py:ear", "--output", "null")

    code, text = run(*TALK, f"{odd}/agent.py:agent", *devices, cwd=tmp_path)

    assert code == 0, text


def test_the_folders_of_temporary_files_and_of_the_user(odd: Path, tmp_path: Path) -> None:
    (odd / "tmp").mkdir()

    code, text = run(
        *("--server", "sandbox", "--max-seconds", "0.5"),
        *("--input", "~/in.wav", "--output", "null", "--record", "~/talk.wav"),
        cwd=tmp_path,
        TMPDIR=f"{odd}/tmp",
        HOME=str(odd),
    )

    assert code == 0, text
    assert frames_of(odd / "talk.wav") > 2_400
    assert not list((odd / "tmp").glob("rtvoice-*")), "the session's directory is removed"


def test_the_doctor_checks_them(odd: Path) -> None:
    devices = ("--input", f"{odd}/in.wav", "--output", "null", "--record", f"{odd}/no/talk.wav")

    code, text = run("--doctor", "--json", "--server", "sandbox", *devices, cwd=odd)

    checks = json.loads(text)["checks"]
    place = f"{odd.parent}/{SHOWN}"
    problems = [check["text"] for check in checks if check["status"] == "problem"]
    assert code == 2
    assert len(problems) == 2
    assert all(f"{place}/no/talk.wav" in text for text in problems)
    assert f"{place}/in.wav can be used" in [check["text"] for check in checks]


@pytest.mark.parametrize(
    ("option", "name", "code"),
    [("--input", b"no\xff.wav", 2), ("--record", b"no\xff/a.wav", 2), ("--input", b"no\xff", 2)],
)
def test_what_is_not_there_is_named(tmp_path: Path, option: str, name: bytes, code: int) -> None:
    found, text = run(*TALK, "--output", "null", option, os.fsdecode(name), cwd=tmp_path)

    assert found == code
    assert "no\\udcff" in text


def test_a_program_its_temporary_files_and_an_image(
    server: FakeServer, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(odd)
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setattr(tempfile, "tempdir", None)
    image = b"\x89PNG\r\n\x1a\n and so on"
    settings = {"input": str(odd / "in.wav"), "output": "null", "journal_path": odd / "journal"}

    with Conversation(server, **settings) as conversation:
        conversation.session.send(SendImage(image, "image/png", "what is this", "item_image"))
        told = conversation.expect(Turn, lambda turn: turn.image is not None)
        created = server.connection().expect(
            "conversation.item.create", lambda event: "image_url" in json.dumps(event)
        )

    assert base64.b64encode(image).decode() in json.dumps(created)
    assert told.image is not None
    assert list(odd.glob("journal.images/*.png"))
    assert (odd / "journal").stat().st_size
