"""The programs of docs/examples, as users run them: real sockets, real servers, a real browser."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from rtvoice.audio.mulaw import from_mulaw, to_mulaw
from rtvoice.testing import SandboxServer, speech
from tests.rig import TIMEOUT_S
from tests.test_command import ROOT, environment_of, loudness, speaks

EXAMPLES = ROOT / "docs" / "examples"
browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
needs_a_voice = pytest.mark.skipif(not speaks, reason="needs espeak-ng")
needs_browser = pytest.mark.skipif(browser is None, reason="needs chromium")

Json = dict[str, Any]


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=1.5, timeout_s=2 * TIMEOUT_S) as server:
        yield server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Program:
    """A program that serves, until it is told to end."""

    def __init__(self, *command: str, says: str, server: str) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=EXAMPLES,
            env=environment_of(RTVOICE_SERVER=server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.expect(says)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def expect(self, words: str) -> None:
        """Wait until it has printed a line with these words."""
        with self._news:
            found = self._news.wait_for(
                lambda: any(words in line for line in self.lines), 2 * TIMEOUT_S
            )
        assert found, "".join(self.lines)

    def stop(self) -> str:
        """Interrupt it; return all that it has printed."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(2 * TIMEOUT_S)
        self._reader.join()
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()


class Ears:
    """Reads what a server sends, on a thread, until it has heard enough."""

    def __init__(self, connection: ClientConnection, take: Callable[[str | bytes], None]) -> None:
        self.sound = bytearray()
        self.told: list[Json] = []
        self.is_over = False
        self._news = threading.Condition()
        self._take = take
        self._connection = connection
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds, which is looked at with each message."""
        with self._news:
            assert self._news.wait_for(condition, 3 * TIMEOUT_S), f"{what}: {self.told[-3:]}"

    def _listen(self) -> None:
        for message in self._connection:
            with self._news:
                self._take(message)
                self._news.notify_all()
        with self._news:
            self.is_over = True
            self._news.notify_all()


def in_pieces(pcm: bytes, rate: int) -> Iterator[bytes]:
    """Cut sound at 24 kHz into pieces of 20 ms, at another rate."""
    samples = np.frombuffer(pcm, "<i2")[:: 24_000 // rate]
    step = rate // 50
    for start in range(0, len(samples), step):
        yield samples[start : start + step].tobytes()


# -- the web page ----------------------------------------------------------------------------------


@contextlib.contextmanager
def web_page(sandbox: SandboxServer) -> Iterator[tuple[Program, int]]:
    port = free_port()
    with Program("web_page.py", str(port), says="open http", server=sandbox.url) as program:
        yield program, port


def visit(port: int) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}/talk", origin=f"http://127.0.0.1:{port}")  # type: ignore[arg-type]


class Page(Ears):
    """What the page does, without a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self.clears = 0
        self.played_ms = 0.0
        super().__init__(connection, self._received)
        connection.send('{"sample_rate": 48000}')

    def turns(self, role: str) -> list[str]:
        return [told["text"] for told in self.told if told.get("role") == role]

    def _received(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.sound += message
            self.played_ms += len(message) / 96
        else:
            self.told.append(json.loads(message))
            if "clear" in self.told[-1]:
                self.clears, self.played_ms = self.told[-1]["clear"], 0.0
        report = {"played_ms": self.played_ms, "clears": self.clears}
        with contextlib.suppress(Exception):
            self._connection.send(json.dumps(report))


@needs_a_voice
def test_visitors_of_the_page_talk_are_heard_and_interrupt(sandbox: SandboxServer) -> None:
    sandbox.hear("tell me a story")
    sandbox.hear("what is your name")
    question = speech("tell me a story")
    with web_page(sandbox) as (program, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            text = answer.read().decode()
        with visit(port) as connection, visit(port) as another:
            page, quiet = Page(connection), Page(another)
            for piece in in_pieces(question, 24_000):
                connection.send(np.repeat(np.frombuffer(piece, "<i2"), 2).tobytes())
            page.wait(lambda: len(page.sound) > 96_000, "no second of the story")
            for piece in in_pieces(question, 24_000):
                connection.send(np.repeat(np.frombuffer(piece, "<i2"), 2).tobytes())
            page.wait(lambda: page.clears, "no interruption")
            page.wait(lambda: "My name is Sandbox." in page.turns("assistant"), "no answer")
            cut = sandbox.expect("conversation.item.truncate")
        printed = program.stop()

    assert "AudioWorkletProcessor" in text
    assert page.turns("user") == ["tell me a story", "what is your name"]
    assert loudness(bytes(page.sound)) > 1000
    assert 0 < cut["audio_end_ms"] <= len(page.sound) / 96
    assert not quiet.sound
    assert "Traceback" not in printed


def test_the_page_says_when_somebody_listens_and_what_has_failed(sandbox: SandboxServer) -> None:
    with web_page(sandbox) as (_, port), visit(port) as connection:
        page = Page(connection)
        page.wait(lambda: {"listening": True} in page.told, "nobody listens")
    nowhere = SimpleNamespace(url="ws://127.0.0.1:99999/x")
    with web_page(nowhere) as (_, port), visit(port) as connection:  # type: ignore[arg-type]
        page = Page(connection)
        page.wait(lambda: any("failed" in told for told in page.told), "no failure")

    assert "99999" in page.told[-1]["failed"]
    assert {"listening": True} not in page.told


def test_other_pages_may_not_talk(sandbox: SandboxServer) -> None:
    with web_page(sandbox) as (_, port):
        with pytest.raises(Exception, match="403"):
            connect(f"ws://127.0.0.1:{port}/talk", origin="https://elsewhere.example")  # type: ignore[arg-type]


class Chromium:
    """A browser with a page of its own, told what to do by the DevTools protocol."""

    def __init__(self, folder: Path, microphone: Path) -> None:
        assert browser is not None
        self._folder = folder
        self.process = subprocess.Popen(
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}%noloop",
                f"--user-data-dir={folder}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._asked = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Chromium:
        port = self._folder / "DevToolsActivePort"
        deadline = time.monotonic() + 2 * TIMEOUT_S
        while not (port.exists() and port.read_text().count("\n")):
            assert time.monotonic() < deadline, "the browser does not start"
            time.sleep(0.05)
        number = port.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/json/list") as answer:
            pages = [page for page in json.loads(answer.read()) if page["type"] == "page"]
        address = pages[0]["webSocketDebuggerUrl"]
        self._tools = self._open.enter_context(connect(address, max_size=None))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.process.terminate()
        self.process.wait(TIMEOUT_S)

    def ask(self, method: str, **parameters: object) -> Any:
        self._asked += 1
        self._tools.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        while (answer := json.loads(self._tools.recv(TIMEOUT_S))).get("id") != self._asked:
            pass
        return answer["result"]

    def run(self, code: str) -> Any:
        """Run code in the page; return what it comes to."""
        result = self.ask("Runtime.evaluate", expression=code, userGesture=True, returnByValue=True)
        return result["result"].get("value")

    def wait(self, code: str) -> Any:
        """Wait until code in the page comes to something that is true."""
        deadline = time.monotonic() + 2 * TIMEOUT_S
        while not (value := self.run(code)):
            assert time.monotonic() < deadline, self.run("document.body.innerText")
            time.sleep(0.05)
        return value


@needs_a_voice
@needs_browser
def test_a_browser_talks_with_the_page(sandbox: SandboxServer, tmp_path: Path) -> None:
    sandbox.hear("what is your name")
    microphone = tmp_path / "microphone.wav"
    with wave.open(str(microphone), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(bytes(72_000) + speech("what is your name") + bytes(960_000))
    with web_page(sandbox) as (program, port):
        with Chromium(tmp_path / "profile", microphone) as chromium:
            chromium.ask("Page.navigate", url=f"http://127.0.0.1:{port}/")
            chromium.wait("document.querySelector('#talk') !== null")
            chromium.run("window.played = []")
            chromium.run(
                "const post = WebSocket.prototype.send;"
                "WebSocket.prototype.send = function (data) {"
                "  if (typeof data === 'string') window.played.push(data);"
                "  post.call(this, data); };"
            )
            chromium.run("document.querySelector('#talk').click()")
            answer = chromium.wait("document.querySelector('.assistant')?.textContent")
            question = chromium.run("document.querySelector('.user')?.textContent")
            chromium.wait("window.played.some(text => text.includes('played_ms'))")
            heard = chromium.run("window.played")
        printed = program.stop()

    assert "sample_rate" in heard[0]
    assert (question, answer) == ("what is your name", "My name is Sandbox.")
    assert "Traceback" not in printed


# -- the telephone ---------------------------------------------------------------------------------


class Provider(Ears):
    """Plays the provider of a telephone line, with a caller who hears everything at once."""

    def __init__(self, connection: ClientConnection) -> None:
        self.hears = True
        self.cleared = 0
        self._marks: list[Json] = []
        super().__init__(connection, self._received)
        self._tell("connected", protocol="Call", version="1.0.0")
        self._tell("start", start={"streamSid": "MZ1", "mediaFormat": {"sampleRate": 8000}})

    def speak(self, mulaw: bytes) -> None:
        for start in range(0, len(mulaw), 160):
            payload = base64.b64encode(mulaw[start : start + 160]).decode()
            self._tell("media", media={"track": "inbound", "payload": payload})

    def hang_up(self) -> None:
        self._tell("stop", stop={})

    def _tell(self, event: str, **fields: object) -> None:
        message = {"event": event, "streamSid": "MZ1", **fields}
        with contextlib.suppress(Exception):
            self._connection.send(json.dumps(message))

    def _received(self, message: str | bytes) -> None:
        told = json.loads(message)
        self.told.append(told)
        assert told["streamSid"] == "MZ1"
        match told["event"]:
            case "media":
                self.sound += base64.b64decode(told["media"]["payload"])
            case "mark":
                self._marks.append(told["mark"])
            case "clear":
                self.cleared += 1
        if self.hears or told["event"] == "clear":  # what is cleared comes back too
            for mark in self._marks:
                self._tell("mark", mark=mark)
            self._marks.clear()


@needs_a_voice
def test_a_caller_talks_with_the_telephone(sandbox: SandboxServer) -> None:
    sandbox.hear("tell me a story")
    question = to_mulaw(b"".join(in_pieces(speech("tell me a story"), 8000)))
    port = free_port()
    with Program("telephone.py", str(port), says="listening", server=sandbox.url) as program:
        with connect(f"ws://127.0.0.1:{port}") as connection:
            caller = Provider(connection)
            caller.wait(lambda: len(caller.sound) > 4000, "no greeting")
            caller.hears = False
            half_a_second = len(caller.sound)
            caller.wait(lambda: len(caller.sound) > half_a_second + 4000, "no greeting to its end")
            caller.speak(question)
            caller.wait(lambda: caller.cleared, "the greeting was not interrupted")
            greeting = len(caller.sound)
            caller.wait(lambda: len(caller.sound) > greeting + 8000, "no story")
            caller.speak(question)
            caller.wait(lambda: caller.cleared == 2, "the story was not interrupted")
            cuts = [sandbox.expect("conversation.item.truncate")["audio_end_ms"] for _ in range(2)]
            story = len(caller.sound) - greeting
            caller.hang_up()
            caller.wait(lambda: caller.is_over, "the server did not hang up")
        printed = program.stop()

    assert loudness(from_mulaw(bytes(caller.sound))) > 1000
    # The marks that came back, not those cleared; where the program answers late, an estimate.
    assert 100 < cuts[0] < greeting / 8
    assert cuts[1] < 400 < story / 8  # what passed before the line told of this answer
    assert "Traceback" not in printed


# -- the web service -------------------------------------------------------------------------------


def get(port: int, path: str) -> tuple[int, Json]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@needs_a_voice
def test_the_asgi_app_talks_answers_and_ends_in_order(sandbox: SandboxServer) -> None:
    port = free_port()
    sandbox.hear("what is your name")
    with Program("asgi_app.py", str(port), says="Uvicorn running", server=sandbox.url) as program:
        with connect(f"ws://127.0.0.1:{port}/voice/talk") as connection:

            def take(message: str | bytes) -> None:
                if isinstance(message, bytes):
                    visitor.sound.extend(message)
                else:
                    visitor.told.append(json.loads(message))

            visitor = Ears(connection, take)
            connection.send('{"rate": 24000}')
            connection.send(speech("what is your name"))
            visitor.wait(lambda: len(visitor.sound) > 24_000, "no answer")
            program.process.send_signal(signal.SIGTERM)
            while get(port, "/voice/readyz")[0] != 503:
                pass
            refused = get(port, "/ask?q=hello")
            connection.close()
        program.process.wait(2 * TIMEOUT_S)
        printed = program.stop()

    assert loudness(bytes(visitor.sound)) > 1000
    assert visitor.told[0]["type"] == "hello"
    assert refused[0] == 503
    assert "the service is ending" in refused[1]["error"]
    assert "Application shutdown complete" in printed
    assert "Traceback" not in printed


def test_the_asgi_app_answers_typed_questions(sandbox: SandboxServer) -> None:
    port = free_port()
    sandbox.say("We have red ones.")
    with Program("asgi_app.py", str(port), says="Uvicorn running", server=sandbox.url) as program:
        answer = get(port, "/ask?q=which+colours")
        nothing = get(port, "/nothing")
        printed = program.stop()

    assert answer == (200, {"answer": "We have red ones."})
    assert nothing[0] == 404
    assert "Traceback" not in printed
