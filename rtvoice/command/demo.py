"""The demo: a scripted user who talks with the sandbox, interrupts it, and breaks a component.

The user is a device of the program: its voice reaches the microphone component as the audio of a
web page or a telephone would. Everything else is the real thing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from messages import (
    ComponentRestarted,
    Interrupted,
    Message,
    PlaybackEnded,
    PlayedPosition,
    ProgramCapture,
    SendText,
    SessionEnded,
    SessionStarted,
    StopSession,
    ToolAnswer,
)
from rtvoice.command.console import Console

__all__ = ["Demo", "DemoVoice", "ScriptedMicrophone"]

_BLOCK_S = 0.04
_BETWEEN_S = 0.5
"""After an answer the user waits so long before speaking."""
_ANSWER_S = 20.0
_LONG_ANSWER_S = 45.0
_LONGEST_S = 150.0
"""Whatever happens, the demo ends after this."""
_VICTIM = "speaker"

M = TypeVar("M", bound=Message)


class Sound(NamedTuple):
    """int16 little-endian mono PCM."""

    pcm: bytes
    sample_rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.pcm) / 2 / self.sample_rate


class DemoVoice:
    """Speaks with espeak-ng; without it, hums as long as the words would take."""

    def __init__(self) -> None:
        self._program = shutil.which("espeak-ng")

    @property
    def is_speech(self) -> bool:
        """Whether a recogniser can understand it."""
        return self._program is not None

    def speak(self, text: str) -> Sound:
        """Return the sound of a sentence."""
        if self._program is not None:
            try:
                return self._espeak(text)
            except (OSError, subprocess.SubprocessError, ValueError):
                self._program = None
        return _hum(0.12 * len(text))

    def _espeak(self, text: str) -> Sound:
        assert self._program is not None
        data = subprocess.run(
            [self._program, "-v", "en-us", "-s", "150", "--stdout", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        ).stdout
        # The sizes in the header are made up, since it goes to a pipe: the sound is all the rest.
        at = data.index(b"data") + 8
        form = data.index(b"fmt ") + 8
        return Sound(
            data[at : len(data) - (len(data) - at) % 2],
            int.from_bytes(data[form + 4 : form + 8], "little"),
        )


def _hum(seconds: float) -> Sound:
    """Return something as loud as speech that nobody takes for words."""
    import math
    from array import array

    rate = 24_000
    samples = array("h")
    for number in range(int(rate * seconds)):
        t = number / rate
        swell = 0.5 - 0.5 * math.cos(2 * math.pi * 4 * t)
        tone = sum(math.sin(2 * math.pi * 140 * k * t) / k for k in (1, 2, 3))
        samples.append(int(7000 * swell * tone))
    return Sound(samples.tobytes(), rate)


class ScriptedMicrophone:
    """An input device of the program: sends blocks in real time, silence between sentences.

    Args:
        send: takes each block.
        sample_rate: of all sound.
    """

    def __init__(self, send: Callable[[Message], None], sample_rate: int) -> None:
        self._send = send
        self._rate = sample_rate
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to send."""
        threading.Thread(target=self._run, name="demo microphone", daemon=True).start()

    def speak(self, sound: Sound) -> None:
        """Have a sentence sent."""
        with self._lock:
            self._waiting += sound.pcm

    def stop(self) -> None:
        """Send no more."""
        self._over.set()

    def _run(self) -> None:
        size = int(self._rate * _BLOCK_S) * 2
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                block = bytes(self._waiting[:size])
                del self._waiting[:size]
            block += bytes(size - len(block))
            self._send(ProgramCapture(block, self._rate, time.monotonic_ns()))
            due += _BLOCK_S


class Demo:
    """A peer of the supervisor that plays the user. What it is told, the console is told too.

    Args:
        console: where the conversation is shown.
        folder: where the recordings go; ``rtvoice-demo`` if that can be written.
    """

    def __init__(self, console: Console, folder: Path | None = None) -> None:
        self.wants: frozenset[type[Message]] = console.wants | {PlayedPosition}
        self._console = console
        self._folder = folder or _folder()
        self._voice = DemoVoice()
        self._recogniser = importlib.util.find_spec("pocketsphinx") is not None
        self._send: Callable[[Message], None] = lambda _: None
        self._microphone: ScriptedMicrophone | None = None
        self._told: list[Message] = []
        self._at = 0
        self._news = threading.Condition()
        self._over = False
        self._pids: dict[str, int] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the demo needs of the session, as fields of `messages.Settings`."""
        return {
            "server": "sandbox",
            "input": "program",
            "output": str(self._folder / "reply.wav"),
            "recording_path": str(self._folder / "recording.wav"),
            "inactivity_timeout_s": 30.0,
        }

    # -- the peer -----------------------------------------------------------------------------

    def told(self, message: Message) -> None:
        """Take a message from the hub."""
        if type(message) in self._console.wants:
            self._console.told(message)
        with self._news:
            self._told.append(message)
            if isinstance(message, SessionStarted):
                self._pids = dict(message.pids)
            elif isinstance(message, ComponentRestarted):
                self._pids[message.component] = message.pid
            elif isinstance(message, SessionEnded):
                self._over = True
            self._news.notify_all()

    def start(self, send: Callable[[Message], None]) -> None:
        """Begin to play the user, once the session has started."""
        self._send = send
        self._console.say(
            "The demo: for a minute a scripted user, who is a program too, talks with the sandbox, "
            "a server on this machine. On the way it interrupts and kills a component."
        )
        threading.Thread(target=self._play, name="demo", daemon=True).start()

    def finish(self) -> None:
        """Say what was recorded, and how to talk for real."""
        if self._microphone is not None:
            self._microphone.stop()
        say = self._console.say
        for name, what in (
            ("reply.wav", "what the assistant said, as it was played"),
            ("recording.wav", "the conversation: user left, assistant right"),
        ):
            path = self._folder / name
            if path.exists():
                say(f"Recorded: {path} ({_seconds_of(path)}), {what}.")
        say(
            "To talk for real, on a machine with a microphone: pip install pyaudio and "
            "python -m supervisor; with OPENAI_API_KEY set, it is the OpenAI service that answers."
        )
        say(
            "Or with files: python -m supervisor --input question.wav --output reply.wav "
            "(--help tells more)."
        )

    # -- the script ---------------------------------------------------------------------------

    def _play(self) -> None:
        end = threading.Timer(_LONGEST_S, lambda: self._send(StopSession("the demo took too long")))
        end.daemon = True
        end.start()
        if self._wait(SessionStarted, 30.0) is None:
            return  # it failed, and the console says why
        self._prepare()
        self._hello()
        self._ask_the_time()
        self._interrupt_a_story()
        self._kill_in_the_middle()
        self._say("what is your name")
        self._answered()
        self._goodbye()
        end.cancel()

    def _prepare(self) -> None:
        first = self._voice.speak("hello")
        self._microphone = ScriptedMicrophone(self._send, first.sample_rate)
        self._microphone.start()
        if not self._hears:
            missing = "espeak-ng" if self._recogniser else "pocketsphinx"
            self._console.say(
                f"[demo: without {missing} the sandbox cannot understand speech; it says what it "
                f"heard, and what it has to understand is typed]"
            )

    @property
    def _hears(self) -> bool:
        return self._recogniser and self._voice.is_speech

    def _hello(self) -> None:
        self._say("hello", aloud=True)
        self._answered()

    def _ask_the_time(self) -> None:
        self._say("what time is it")
        self._expect(ToolAnswer, "no tool was called")
        self._answered()

    def _interrupt_a_story(self) -> None:
        self._say("tell me a story")
        self._listen(3.0)
        self._say("what did i say")
        self._expect(Interrupted, "the story was not interrupted")
        self._answered()

    def _kill_in_the_middle(self) -> None:
        self._say("count to twenty")
        self._listen(2.0)
        pid = self._pids.get(_VICTIM)
        if pid is None:
            return
        self._console.say(f"[demo: kill -9 {pid}, which is the {_VICTIM}, in the middle of this]")
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._expect(
            ComponentRestarted, "it was not restarted", lambda told: told.component == _VICTIM
        )
        self._answered(_LONG_ANSWER_S)

    def _goodbye(self) -> None:
        self._say("stop")
        if self._wait(SessionEnded, _ANSWER_S) is None:
            self._send(StopSession("the demo is over"))

    # -- what the user does -------------------------------------------------------------------

    def _say(self, text: str, *, aloud: bool = False) -> None:
        """Say a sentence, or type what would not be understood."""
        with self._news:
            self._at = len(self._told)
        if not (aloud or self._hears):
            self._send(SendText(text, os.urandom(16).hex()))
            return
        sound = self._voice.speak(text)
        if self._microphone is not None:
            self._microphone.speak(sound)
            self._pause(sound.seconds)

    def _listen(self, seconds: float) -> None:
        """Wait until so much of an answer has been heard."""
        samples = int(seconds * 24_000)
        self._expect(
            PlayedPosition,
            "nothing was heard",
            lambda told: told.played_samples >= samples,
        )

    def _answered(self, timeout_s: float = _ANSWER_S) -> None:
        """Wait until an answer has been heard to its end."""
        self._expect(PlaybackEnded, "no answer was heard to its end", timeout_s=timeout_s)
        self._pause(_BETWEEN_S)

    def _pause(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._over, seconds)

    def _expect(
        self,
        kind: type[M],
        otherwise: str,
        where: Callable[[M], bool] = lambda _: True,
        timeout_s: float = _ANSWER_S,
    ) -> None:
        if self._wait(kind, timeout_s, where) is None and not self._over:
            self._console.say(f"[demo: {otherwise} within {timeout_s:g} s; going on]")

    def _wait(
        self, kind: type[M], timeout_s: float, where: Callable[[M], bool] = lambda _: True
    ) -> M | None:
        """Return the next message of a type since the last wait; None: it did not come."""
        found: list[M] = []

        def look() -> bool:
            for place in range(self._at, len(self._told)):
                message = self._told[place]
                if isinstance(message, kind) and where(message):
                    self._at = place + 1
                    found.append(message)
                    return True
            return self._over

        with self._news:
            self._news.wait_for(look, timeout_s)
        return found[0] if found else None


def _folder() -> Path:
    """Return a folder for the recordings that can be written."""
    folder = Path("rtvoice-demo").absolute()
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="rtvoice-demo-"))


def _seconds_of(path: Path) -> str:
    try:
        with wave.open(str(path)) as file:
            return f"{file.getnframes() / file.getframerate():.1f} s"
    except (OSError, EOFError, wave.Error):
        return "not whole"
