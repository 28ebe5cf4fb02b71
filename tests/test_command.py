"""The main job as a black box: ``python -m supervisor`` as its user runs it, on the sandbox."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import wave
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conversation import DEAF, wav_channels
from tests.rig import TIMEOUT_S

ROOT = Path(__file__).resolve().parent.parent
Json = dict[str, Any]

hears = importlib.util.find_spec("pocketsphinx") is not None
speaks = shutil.which("espeak-ng") is not None
needs_speech = pytest.mark.skipif(
    not (hears and speaks), reason="needs pocketsphinx and espeak-ng: ./scripts/run --setup"
)


class Run:
    """The command, started; its events as they come."""

    def __init__(self, *arguments: str, cwd: Path, **environment: str) -> None:
        self.events: list[Json] = []
        self._news = threading.Condition()
        self._ended = False
        self._when: list[tuple[Callable[[Json], bool], Callable[[], None]]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "--events", "-", *arguments],
            cwd=cwd,
            env=environment_of(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def expect(self, name: str, **fields: object) -> Json:
        """Wait for an event."""

        def found() -> Json | None:
            for event in self.events:
                if event["event"] == name and fields.items() <= event.items():
                    return event
            return None

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, 6 * TIMEOUT_S)
        event = found()
        assert event is not None, f"no {name}: {self.events[-5:]}"
        return event

    def end(self) -> tuple[int, str]:
        """Wait for the end. Return exit code and what was written to stderr."""
        assert self.process.stderr is not None
        text = self.process.stderr.read()
        code = self.process.wait(TIMEOUT_S)
        with self._news:
            assert self._news.wait_for(lambda: self._ended, TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return code, text

    def of(self, name: str) -> list[Json]:
        """Return the events of a name."""
        return [event for event in self.events if event["event"] == name]

    def turns(self) -> list[tuple[str, str]]:
        """Return who said what."""
        return [(event["role"], event["text"]) for event in self.of("turn")]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def environment_of(**changes: str) -> dict[str, str]:
    """Return an environment without what a developer's machine may have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RTVOICE_")}
    kept.pop("OPENAI_API_KEY", None)
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", **changes}


def spoken(path: Path, text: str) -> Path:
    """Speak into a WAV file, with half a second of silence before it."""
    raw = path.with_suffix(".raw.wav")
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", raw, text], check=True)
    with wave.open(str(raw)) as file:
        rate, samples = file.getframerate(), array("h", file.readframes(file.getnframes()))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(rate) + samples.tobytes() + bytes(rate // 2))
    return path


def loudness(pcm: bytes) -> int:
    """Return the largest sample."""
    return max((abs(sample) for sample in array("h", pcm)), default=0)


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken(tmp_path_factory.mktemp("voice") / "question.wav", "what time is it")


def assert_answered(run: Run) -> None:
    (user, heard), (assistant, answer) = run.turns()
    assert (user, heard, assistant) == ("user", "what time is it", "assistant")
    assert answer.startswith("It is ")


@needs_speech
def test_a_spoken_question_is_answered_aloud(question: Path, tmp_path: Path) -> None:
    run = Run(
        *("--server", "sandbox", "--input", str(question), "--output", "reply.wav"),
        *("--record", "recording.wav"),
        cwd=tmp_path,
    )

    code, text = run.end()

    assert code == 0, text
    assert_answered(run)
    assert [call["name"] for call in run.of("tool_call")] == ["get_current_time"]
    assert len(run.of("tool_answer")) == 1
    summary = run.events[-1]
    assert (summary["event"], summary["reason"]) == ("summary", "end of input")
    left, right = wav_channels(tmp_path / "recording.wav")
    begin = run.of("user_speech_started")[0]["first_sample"]
    end = run.of("user_speech_stopped")[0]["last_sample"]
    assert loudness(left[2 * begin : 2 * end]) > 1000
    assert loudness(right[: 2 * end]) == 0, "nobody answers before the question has ended"
    assert loudness(right[2 * end :]) > 1000
    with wave.open(str(tmp_path / "reply.wav")) as reply:
        assert loudness(reply.readframes(reply.getnframes())) > 1000


PAIRS = [("microphone", "speaker"), ("realtime", "tools"), ("history", "recorder")]
KILLS = [  # each of them at both moments; in the short suite at one
    *PAIRS,
    *(pytest.param(*reversed(pair), marks=pytest.mark.long) for pair in PAIRS),
]


@needs_speech
@pytest.mark.parametrize(("as_the_user_speaks", "as_it_answers"), KILLS)
def test_a_question_is_answered_when_a_component_is_killed(
    question: Path, tmp_path: Path, as_the_user_speaks: str, as_it_answers: str
) -> None:
    run = Run(
        *("--server", "sandbox", "--input", str(question), "--output", "reply.wav"),
        *("--record", "recording.wav"),
        cwd=tmp_path,
    )
    pids = run.expect("session_started")["pids"]

    run.expect("user_speech_started")
    os.kill(pids[as_the_user_speaks], signal.SIGKILL)
    run.expect("response_started")
    os.kill(pids[as_it_answers], signal.SIGKILL)

    code, text = run.end()
    assert code == 0, text
    assert_answered(run)
    crashed = [crash["component"] for crash in run.of("component_crashed")]
    assert crashed == [as_the_user_speaks, as_it_answers]
    left, right = wav_channels(tmp_path / "recording.wav")
    assert loudness(left) > 1000
    assert loudness(right) > 1000


@pytest.mark.skipif(not speaks, reason="needs espeak-ng: ./scripts/run --setup")
def test_without_a_recogniser_it_says_how_long_it_heard_and_never_guesses(
    question: Path, tmp_path: Path
) -> None:
    run = Run(
        *("--server", "sandbox", "--input", str(question), "--output", "null"),
        cwd=tmp_path,
        **DEAF,
    )

    code, text = run.end()

    assert code == 0, text
    (_, heard), (_, answer) = run.turns()
    assert heard == ""
    assert re.fullmatch(r"I heard [01]\.\d seconds of speech\.", answer)


SILENT = ("--server", "sandbox", "--input", "silence", "--output", "null")


def said(text: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a conversation with the sandbox whose standard input is a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *SILENT, *arguments],
        cwd=tmp_path,
        env=environment_of(**DEAF),
        input=text,
        capture_output=True,
        text=True,
        timeout=12 * TIMEOUT_S,
        check=False,
    )


def test_lines_of_a_pipe_are_said_one_after_the_other_and_heard_to_the_end(
    tmp_path: Path,
) -> None:
    done = said("what is your name\n\nthank you\n", tmp_path, "--events", "all.jsonl")

    assert done.returncode == 0, done.stderr
    assert re.findall("^(?:you|assistant): .*", done.stdout, re.MULTILINE) == [
        "you: what is your name",
        "assistant: My name is Sandbox.",
        "you: thank you",
        "assistant: You are welcome.",
    ]
    assert "end of input; 4 turns" in done.stdout
    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("playback_ended") == 2
    assert "interrupted" not in events


def test_an_input_without_a_line_ends_nothing(tmp_path: Path) -> None:
    done = said("", tmp_path, "--max-seconds", "0.5")

    assert done.returncode == 0, done.stderr
    assert "the time is over" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: int) -> None:
    run = Run(
        *("--server", "sandbox", "--input", "silence", "--output", "null"),
        *("--record", "recording.wav"),
        cwd=tmp_path,
        **DEAF,
    )
    run.expect("session_started")

    run.process.send_signal(number)

    code, text = run.end()
    assert code == 0, text
    assert run.events[-1]["event"] == "summary"
    wav_channels(tmp_path / "recording.wav")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--input", "none.wav"], "none.wav"),
        (["--record", "no/such/folder/recording.wav", "--input", "silence"], "no/such/folder"),
        (["nowhere.py:agent", "--input", "silence"], "nowhere.py"),
        (["--speed", "9"], "0.25"),
        (["--server", "openai", "--input", "silence"], "OPENAI_API_KEY"),
    ],
)
def test_what_cannot_work_is_shown_and_ends_with_2(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    server = [] if "--server" in arguments else ["--server", "sandbox"]
    run = Run(*server, "--output", "null", *arguments, cwd=tmp_path, **DEAF)

    code, text = run.end()

    assert code == 2, text
    assert told in text
    assert "Traceback" not in text


def test_an_agent_of_the_users_is_loaded_with_its_tools(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os\n"
        "from rtvoice import Agent, Tools\n"
        "tools = Tools()\n"
        "@tools.action('Add two numbers.')\n"
        "def add(a: int, b: int) -> int:\n"
        "    return a + b\n"
        "agent = Agent(instructions='You add.', tools=tools, greeting='Ready to add.',\n"
        "              transcription_model='gpt-transcribe')\n",
        encoding="utf-8",
    )
    run = Run(
        *("app.py:agent", "--server", "sandbox", "--input", "silence", "--output", "null"),
        cwd=tmp_path,
        **DEAF,
    )

    run.expect("turn", role="assistant", text="Ready to add.")

    run.process.send_signal(signal.SIGTERM)
    code, text = run.end()
    assert code == 0, text


def test_a_python_without_our_packages_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "supervisor", "--doctor"],
        cwd=tmp_path,
        env={**environment_of(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith(f"rtvoice: this Python ({sys.executable}) has no package msgspec")
    assert "/scripts/run, install rtvoice" in done.stderr
