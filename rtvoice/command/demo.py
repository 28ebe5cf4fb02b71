"""The demo: a scripted user who talks with the sandbox, interrupts it, and kills a component.

The user is an audio device of the program: its voice reaches the microphone component as that of a
web page or a telephone does. Everything else runs as in a normal session.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Mapping
from importlib.util import find_spec
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
from messages.hints import install, rtvoice
from messages.paths import printable
from rtvoice.command.console import Console

__all__ = ["Demo", "DemoVoice", "ScriptedMicrophone"]

_BLOCK_S = 0.04
_BETWEEN_S = 0.5
"""Pause of the user after an answer."""
_ANSWER_S = 20.0
"""Time to wait for an answer."""
_LONG_ANSWER_S = 45.0
"""Time to wait for a long answer, which a crash interrupts."""
_LONGEST_S = 150.0
"""Time after which the demo ends, whatever has gone wrong."""
_VICTIM = "speaker"
"""The component that the demo kills."""

M = TypeVar("M", bound=Message)


class Sound(NamedTuple):
    """A piece of audio."""

    pcm: bytes
    """int16 little-endian mono."""
    sample_rate: int
    """In Hz."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.pcm) / 2 / self.sample_rate


class DemoVoice:
    """Speaks with espeak-ng. Without it, it hums for about as long as the words would take."""

    def __init__(self) -> None:
        self._program = shutil.which("espeak-ng")

    @property
    def is_speech(self) -> bool:
        """Whether the voice produces speech, which a recogniser can understand."""
        return self._program is not None

    def speak(self, text: str) -> Sound:
        """Return a spoken sentence."""
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
        # Ignore the sizes in the header: espeak-ng cannot know them when it writes to a pipe.
        at = data.index(b"data") + 8
        form = data.index(b"fmt ") + 8
        return Sound(
            data[at : len(data) - (len(data) - at) % 2],
            int.from_bytes(data[form + 4 : form + 8], "little"),
        )


def _hum(seconds: float) -> Sound:
    """Return a sound as loud as speech: turn detection reacts to it, no recogniser hears words."""
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
    """An input device of the program: sends blocks in real time, with silence between sentences.

    Args:
        send: Called with each block.
        sample_rate: Rate of all its sound, in Hz.
    """

    def __init__(self, send: Callable[[Message], None], sample_rate: int) -> None:
        self._send = send
        self._rate = sample_rate
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def start(self) -> None:
        """Start to send, on its own thread."""
        threading.Thread(target=self._run, name="demo microphone", daemon=True).start()

    def speak(self, sound: Sound) -> None:
        """Append a sentence to the sound that waits to be sent."""
        with self._lock:
            self._waiting += sound.pcm

    def stop(self) -> None:
        """Stop sending."""
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
    """Plays the user, and passes all messages of the session on to the console.

    Args:
        console: Shows the conversation.
        folder: Folder of the recordings; None: ``rtvoice-demo``, or a temporary one if that cannot
            be written.
    """

    def __init__(self, console: Console, folder: Path | None = None) -> None:
        self.wants: frozenset[type[Message]] = console.wants | {PlayedPosition}
        self._console = console
        self._folder = folder or _folder()
        self._voice = DemoVoice()
        self._recogniser = find_spec("pocketsphinx") is not None
        self._send: Callable[[Message], None] = lambda _: None
        self._microphone: ScriptedMicrophone | None = None
        self._messages: list[Message] = []
        self._at = 0
        """Index in `_messages` of the first one that no wait has returned or passed over."""
        self._news = threading.Condition()
        self._over = False
        self._pids: dict[str, int] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the demo needs, as fields of `messages.Settings`."""
        return {
            "server": "sandbox",
            "input": "program",
            "output": str(self._folder / "reply.wav"),
            "recording_path": str(self._folder / "recording.wav"),
            "inactivity_timeout_s": 30.0,
        }

    # -- the receiver ---------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Handle a message of the session, on its reading thread."""
        if type(message) in self._console.wants:
            self._console.receive(message)
        with self._news:
            self._messages.append(message)
            if isinstance(message, SessionStarted):
                self._pids = dict(message.pids)
            elif isinstance(message, ComponentRestarted):
                self._pids[message.component] = message.pid
            elif isinstance(message, SessionEnded):
                self._over = True
            self._news.notify_all()

    def start(self, send: Callable[[Message], None]) -> None:
        """Start the thread that plays the user; it waits for the start of the session."""
        self._send = send
        self._console.say(
            "The demo: for a minute, a scripted user talks with the sandbox, a server on this "
            "machine. The user interrupts an answer, and kills a component during another one."
        )
        threading.Thread(target=self._play, name="demo", daemon=True).start()

    def finish(self) -> None:
        """Show which files were recorded, and how to hold a real conversation."""
        if self._microphone is not None:
            self._microphone.stop()
        say = self._console.say
        for name, what in (
            ("reply.wav", "what the assistant said, as it was played"),
            ("recording.wav", "the conversation: user left, assistant right"),
        ):
            path = self._folder / name
            if path.exists():
                say(f"Recorded: {printable(str(path))} ({_seconds_of(path)}), {what}.")
        first = "" if find_spec("pyaudio") else f"{install('pyaudio')}, then "
        say(
            f"To talk yourself, on a machine with a microphone: {first}{rtvoice()}. With "
            f"OPENAI_API_KEY set, the OpenAI service answers."
        )
        with_files = rtvoice("--input question.wav --output reply.wav")
        say(f"Or with files: {with_files} (see --help).")

    # -- the script ---------------------------------------------------------------------------

    def _play(self) -> None:
        end = threading.Timer(_LONGEST_S, lambda: self._send(StopSession("the demo took too long")))
        end.daemon = True
        end.start()
        if self._wait(SessionStarted, 30.0) is None:
            return  # it has failed, and the console shows why
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
        if not self._is_understood:
            missing = "espeak-ng" if self._recogniser else "pocketsphinx"
            self._console.say(
                f"[demo: without {missing} the sandbox cannot understand speech; the user types "
                f"most sentences instead]"
            )

    @property
    def _is_understood(self) -> bool:
        """Whether the sandbox can understand the user's speech."""
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
            ComponentRestarted,
            "it was not restarted",
            lambda back: back.component == _VICTIM,
        )
        self._answered(_LONG_ANSWER_S)

    def _goodbye(self) -> None:
        self._say("stop")
        if self._wait(SessionEnded, _ANSWER_S) is None:
            self._send(StopSession("the demo is over"))

    # -- actions of the user ------------------------------------------------------------------

    def _say(self, text: str, *, aloud: bool = False) -> None:
        """Say a sentence; type it if the sandbox cannot understand speech, unless ``aloud``."""
        with self._news:
            self._at = len(self._messages)
        if not (aloud or self._is_understood):
            self._send(SendText(text, os.urandom(16).hex()))
            return
        sound = self._voice.speak(text)
        if self._microphone is not None:
            self._microphone.speak(sound)
            self._pause(sound.seconds)

    def _listen(self, seconds: float) -> None:
        """Wait until an answer has been played for this long."""
        samples = int(seconds * 24_000)
        self._expect(
            PlayedPosition,
            "nothing was heard",
            lambda position: position.played_samples >= samples,
        )

    def _answered(self, timeout_s: float = _ANSWER_S) -> None:
        """Wait until an answer has been played to its end, and pause."""
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
        """Return the next message of a type after the last one returned; None: it did not come."""
        found: list[M] = []

        def look() -> bool:
            for place in range(self._at, len(self._messages)):
                message = self._messages[place]
                if isinstance(message, kind) and where(message):
                    self._at = place + 1
                    found.append(message)
                    return True
            return self._over

        with self._news:
            self._news.wait_for(look, timeout_s)
        return found[0] if found else None


def _folder() -> Path:
    """Return a writable folder for the recordings."""
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
        return "incomplete"
