"""The demo's user: what it says and when, and that nothing stops it."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import (
    ComponentRestarted,
    Interrupted,
    Message,
    PlaybackEnded,
    PlayedPosition,
    ProgramCapture,
    SendText,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    StopSession,
    ToolAnswer,
    Turn,
)
from messages.hints import install, rtvoice
from rtvoice.command import demo as demo_module
from rtvoice.command.console import Console
from rtvoice.command.demo import Demo, DemoVoice, ScriptedMicrophone, Sound


class Hub:
    """Plays the session: answers what is typed, as the sandbox would."""

    def __init__(self, demo: Demo, victim: subprocess.Popen[bytes], *, deaf: bool = False) -> None:
        self.demo = demo
        self.victim = victim
        self.deaf = deaf
        self.said: list[str] = []
        self.captured = 0
        self.stopped: str | None = None
        self.over = threading.Event()

    def send(self, message: Message) -> None:
        if isinstance(message, ProgramCapture):
            self.captured += len(message.pcm)
            if any(message.pcm) and "(speech)" not in self.said:
                self.said.append("(speech)")
                self.tell(PlaybackEnded("hello", 1000))
        elif isinstance(message, StopSession):
            self.stopped = message.reason
            self.end()
        elif isinstance(message, SendText):
            self.said.append(message.text)
            if not self.deaf:
                self.answer(message.text)

    def answer(self, text: str) -> None:
        if text == "what time is it":
            self.tell(ToolAnswer("c", "get_current_time", "12:00:00"), PlaybackEnded("t", 1))
        elif text == "tell me a story":
            self.tell(PlayedPosition("s", 24_000, 0), PlayedPosition("s", 72_000, 0))
        elif text == "what did i say":
            self.tell(Interrupted("s", 3000), PlaybackEnded("r", 1))
        elif text == "count to twenty":
            threading.Thread(target=self.restart).start()
            self.tell(PlayedPosition("c", 48_000, 0))
        elif text == "stop":
            self.end()
        else:
            self.tell(PlaybackEnded(text, 1))

    def restart(self) -> None:
        self.victim.wait(10)
        self.tell(
            ComponentRestarted("speaker", 9, "killed", 1.0, 2, True), PlaybackEnded("c", 13_000)
        )

    def end(self) -> None:
        self.tell(SessionEnded("stop tool", 0, 0, {}, (), (), 1.0))
        self.over.set()

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.demo.receive(message)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    monkeypatch.setattr(demo_module, "_BETWEEN_S", 0.0)
    monkeypatch.setattr(DemoVoice, "speak", lambda *_: Sound(b"\x01\x00" * 480, 24_000))
    console = Console(transcript=io.StringIO(), errors=io.StringIO())
    found = Demo(console, tmp_path)
    found._recogniser = False
    found.shown = lambda: console.close() and console._transcript._lines._stream.getvalue()
    yield found
    console.close()


def test_the_script_is_played_to_its_end(demo: Demo, victim: subprocess.Popen[bytes]) -> None:
    hub = Hub(demo, victim)

    demo.start(hub.send)
    demo.receive(SessionStarted({"speaker": victim.pid}, "ws://x", "program", "reply.wav", True))

    assert hub.over.wait(20)
    assert hub.said == [
        "(speech)",
        "what time is it",
        "tell me a story",
        "what did i say",
        "count to twenty",
        "what is your name",
        "stop",
    ]
    assert victim.returncode == -9
    text = demo.shown()
    assert f"kill -9 {victim.pid}, which is the speaker" in text
    assert "going on" not in text


def test_whatever_does_not_happen_the_demo_goes_on_and_ends(
    demo: Demo, victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "_ANSWER_S", 0.02)
    monkeypatch.setattr(demo_module, "_LONG_ANSWER_S", 0.02)
    monkeypatch.setattr(Demo._expect, "__defaults__", (Demo._expect.__defaults__[0], 0.02))
    monkeypatch.setattr(Demo._answered, "__defaults__", (0.02,))
    hub = Hub(demo, victim, deaf=True)

    demo.start(hub.send)
    demo.receive(SessionStarted({"speaker": victim.pid}, "ws://x", "program", "reply.wav", True))

    assert hub.over.wait(20)
    assert hub.said[-1] == "stop"
    assert hub.stopped == "the demo is over"
    assert "no tool was called" in demo.shown()


def test_a_session_that_ends_early_ends_the_script(
    demo: Demo, victim: subprocess.Popen[bytes]
) -> None:
    hub = Hub(demo, victim, deaf=True)
    demo.start(hub.send)

    demo.receive(SessionFailed("no sandbox"))
    demo.receive(SessionEnded("no sandbox", 0, 0, {}, (), (), 0.1, True))
    demo.finish()

    assert hub.said == []
    assert "To talk yourself" in demo.shown()


def test_the_demo_shows_the_messages_that_it_receives(demo: Demo) -> None:
    demo.receive(Turn("user", "hello", "a"))
    demo.receive(PlayedPosition("a", 1, 1))

    assert demo.shown() == "you: hello\n"


def test_the_recordings_are_named_with_their_lengths(demo: Demo, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "reply.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(48_000))
    (tmp_path / "recording.wav").write_bytes(b"RIFF")

    demo.finish()

    text = demo.shown()
    assert f"{tmp_path / 'reply.wav'} (1.0 s)" in text
    assert f"{tmp_path / 'recording.wav'} (incomplete)" in text


@pytest.mark.parametrize("there", [True, False])
def test_at_the_end_commands_are_named_that_work_here(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(demo_module, "find_spec", lambda _: there or None)

    demo.finish()

    text = demo.shown()
    first = "" if there else f"{install('pyaudio')}, then "
    assert f"on a machine with a microphone: {first}{rtvoice()}." in text
    assert f"Or with files: {rtvoice('--input question.wav')}" in text


def test_the_session_is_the_sandboxes_and_the_devices_are_files(demo: Demo, tmp_path: Path) -> None:
    assert demo.settings["server"] == "sandbox"
    assert demo.settings["input"] == "program"
    assert demo.settings["output"] == str(tmp_path / "reply.wav")


def test_the_folder_is_a_temporary_one_where_the_current_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo_module._folder() == tmp_path / "rtvoice-demo"

    (tmp_path / "rtvoice-demo").rmdir()
    (tmp_path / "rtvoice-demo").write_text("in the way")

    assert demo_module._folder().name.startswith("rtvoice-demo-")


def test_the_microphone_sends_blocks_in_real_time_and_silence_in_between() -> None:
    blocks: list[ProgramCapture] = []
    enough = threading.Event()

    def send(message: Message) -> None:
        blocks.append(message)
        if len(blocks) == 6:
            enough.set()

    microphone = ScriptedMicrophone(send, 24_000)
    microphone.speak(Sound(b"\x01\x02" * 1500, 24_000))
    began = time.monotonic()
    microphone.start()

    assert enough.wait(5)
    microphone.stop()

    assert time.monotonic() - began >= 0.19
    assert {len(block.pcm) for block in blocks} == {1920}
    sent = b"".join(block.pcm for block in blocks)
    assert sent[:3000] == b"\x01\x02" * 1500
    assert not any(sent[3000:])


def test_without_espeak_the_voice_hums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module.shutil, "which", lambda _: None)
    voice = DemoVoice()

    sound = voice.speak("hello there")

    assert not voice.is_speech
    assert 1.0 < sound.seconds < 2.0
    assert max(sound.pcm[1::2]) > 10


@pytest.mark.skipif(not DemoVoice().is_speech, reason="needs espeak-ng")
def test_with_espeak_the_voice_speaks() -> None:
    sound = DemoVoice().speak("hello")

    assert 0.3 < sound.seconds < 1.5
    assert sound.sample_rate in (16_000, 22_050)
    assert len(sound.pcm) % 2 == 0
