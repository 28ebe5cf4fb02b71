"""No handler imports anything: a machine that is slow to import restarts no component for it."""

from __future__ import annotations

import asyncio
import os
import wave
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from messages import (
    ComponentCrashed,
    ComponentRestarted,
    Interrupted,
    Message,
    PlaybackEnded,
    ProgramCapture,
    SendText,
    SetVolume,
    ToolAnswer,
    Turn,
    UpdateSettings,
)
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice
from tests.conversation import Conversation
from tests.fake_server import FakeServer

SLOW = Path(__file__).parent / "late_imports"
AGENT = """
from rtvoice import Agent, Tools

tools = Tools()


@tools.action("Add two numbers.")
def add(a: int, b: int) -> int:
    return a + b


@tools.action("Multiply two numbers.")
async def multiply(a: int, b: int) -> int:
    return a * b


agent = Agent(tools=tools)
"""
DEVICES = """
import asyncio


class Ear:
    sample_rate = 16_000

    async def start(self): ...
    async def stop(self): ...
    async def stream_chunks(self):
        while True:
            yield bytes(640)
            await asyncio.sleep(0.02)


class Mouth:
    sample_rate = 16_000

    async def start(self): ...
    async def stop(self): ...
    async def play_chunk(self, chunk): ...
    async def clear_buffer(self): ...
"""
LAZY = """
from actors.base import Actor
from messages import CONTROL, SendText


class Lazy(Actor):
    accepts = {SendText: CONTROL}

    def handle(self, message):
        import colorsys
"""
CARD = """
import sys
from tests.actors.devices.card.fake_pyaudio import FakePyAudio
sys.modules["pyaudio"] = FakePyAudio(refuse=lambda rate, channels: (rate, channels) != (48_000, 2))
"""


class Ear(AudioInputDevice):
    sample_rate = 8_000

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        while self.is_active:
            yield array("h", [2_000] * 160).tobytes()
            await asyncio.sleep(0.02)  # the pace of a device


class Mouth(AudioOutputDevice):
    sample_rate = 8_000

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def play_chunk(self, chunk: bytes) -> None: ...

    async def clear_buffer(self) -> None: ...


@pytest.fixture(autouse=True)
def _slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = [str(tmp_path), str(SLOW), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("LATE_IMPORTS", str(tmp_path / "late"))
    monkeypatch.setenv("RTVOICE_FORK", "0")  # what is forked has more modules from the start
    monkeypatch.chdir(tmp_path)


def file_of(path: Path, rate: int = 44_100, channels: int = 2) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(array("h", [2_000] * channels * rate).tobytes())
    return str(path)


def devices_of(kind: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a pair of devices."""
    match kind:
        case "files":
            return {"input": file_of(folder / "in.wav"), "output": str(folder / "out.wav")}
        case "flac":
            soundfile = pytest.importorskip("soundfile", reason="NO SOUNDFILE: pip install it")
            samples = memoryview(array("h", [2_000] * 48_000))
            soundfile.write(folder / "in.flac", samples, 48_000)
            return {"input": str(folder / "in.flac"), "output": "null"}
        case "objects":
            return {"input_device": Ear(), "output_device": Mouth()}
        case "names":
            (folder / "mine.py").write_text(DEVICES)
            return {"input": "mine:Ear", "output": "mine:Mouth", "import_path": (str(folder),)}
        case _:
            (folder / "pyaudio.py").write_text(CARD)
            return {"input": "default", "output": "default"}


def imported_late(folder: Path) -> list[str]:
    """Return what actors have imported on their own threads after they had opened."""
    log = folder / "late"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [line for line in lines if line.split()[0] == line.split()[1]]


def restarted(conversation: Conversation) -> list[Message]:
    """Return the crashes; a new process for another sound card is none."""
    after = [told for told in conversation.of(ComponentRestarted) if told.crashed]
    return [*conversation.of(ComponentCrashed), *after]


@pytest.mark.parametrize("devices", ["files", "flac", "objects", "names", "cards"])
def test_a_question_is_answered_and_no_component_restarted_where_each_import_takes_4_s(
    server: FakeServer, tmp_path: Path, devices: str
) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    settings: dict[str, Any] = {
        "agent": f"{tmp_path / 'agent.py'}:agent",
        "recording_path": str(tmp_path / "talk.wav"),
        "journal_path": str(tmp_path / "talk.journal"),
        "interruption": "confirmed",
        "hang_s": 3.0,
        "probes": False,
        **devices_of(devices, tmp_path),
    }
    if "input_device" in settings:
        settings = {"input": None, "output": None, **settings}

    with Conversation(server, **settings) as conversation:
        connection = server.connection()
        conversation.session.send(SendText("what is 6 times 7", "text-1"))
        connection.expect("response.create")
        connection.call("add", '{"a": "six"}', call_id="call_1")  # wrong, to be told what is right
        connection.call("add", '{"a": 6, "b": \\ud83d}', call_id="call_2")  # no JSON
        connection.call("multiply", '{"a": 6, "b": 7}', call_id="call_3")
        conversation.expect(ToolAnswer, lambda answer: answer.output == "42")
        connection.send_raw('{"type": "response.done", "response": {"id": "\\ud83d", "status": 1}}')
        connection.send_raw('{"type": "error", "error": "caf\\u00e9 \\ud83d"}')
        conversation.session.send(SetVolume(0.5))
        conversation.session.send(UpdateSettings({"voice": "cedar", "sped": 1}))
        connection.say("It is 42.", bytes(48_000), item="item_1")

        conversation.expect(Turn, lambda turn: turn.text == "It is 42.")
        if devices != "cards":  # nobody calls back
            conversation.expect(PlaybackEnded)
        connection.say("And now a story.", bytes(480_000), item="item_2", done=False)
        connection.hear("item_3", "stop")
        conversation.expect(Interrupted)

        assert imported_late(tmp_path) == []
        assert restarted(conversation) == []


def test_what_converts_a_rate_that_nobody_expects_is_imported_beside_the_handlers(
    server: FakeServer, tmp_path: Path
) -> None:
    with Conversation(server, output="null", hang_s=3.0, probes=False) as conversation:
        connection = server.connection()
        for _ in range(50):
            conversation.session.send(ProgramCapture(array("h", [2_000] * 160).tobytes(), 8_000))

        server.wait_for(lambda: any(connection.audio), 60)

        assert "conversion" in (tmp_path / "late").read_text(encoding="utf-8")
        assert imported_late(tmp_path) == []
        assert restarted(conversation) == []


def test_an_import_in_a_handler_is_noticed(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LAZY)
    given = {"components": {"lazy": "mine:Lazy"}, "import_path": (str(tmp_path),)}

    with Conversation(server, output="null", hang_s=0.5, **given) as conversation:
        conversation.session.send(SendText("hello", "text-1"))
        crash = conversation.expect(ComponentCrashed)

    assert crash.component == "lazy"
    assert imported_late(tmp_path)[0] == "lazy lazy colorsys"
