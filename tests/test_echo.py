"""Open loudspeakers whose echo is cancelled: on a sound card that hears itself, in real processes.

The card is virtual, and its echo comes a fixed time after what is played. RTVOICE_ECHO_MINUTES is
how long the assistant talks in the long tests, RTVOICE_ECHO_TIMES how often it is interrupted or a
component is killed; they need a machine with nothing else to do.
"""

from __future__ import annotations

import os
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
import pytest

from messages import (
    ComponentRestarted,
    EchoState,
    Event,
    Interrupted,
    Log,
    Message,
    Notice,
    PlaybackEnded,
    PlayedPosition,
    SendText,
    SoundFaltered,
    UserSpeechStarted,
)
from supervisor import Session
from tests.cards import Card, in_real_time, real_card
from tests.rig import TIMEOUT_S
from tests.test_command import needs_speech, spoken

pytestmark = [pytest.mark.card, real_card, needs_speech]
pytest.importorskip("pyaudio")
pytest.importorskip("pywebrtc_audio")

MINUTES = float(os.environ.get("RTVOICE_ECHO_MINUTES", "10"))
ROOMS = [40, 80, 150]
TIMES = int(os.environ.get("RTVOICE_ECHO_TIMES", "10"))
Condition = Callable[[], object]


class Talk:
    """A conversation with the sandbox over an open loudspeaker, in which the assistant talks."""

    def __init__(self, echo_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.card = Card("--echo", str(echo_ms), "--echo-gain", "60%", "--noise", "8")
        for name, value in self.card.variables.items():
            monkeypatch.setenv(name, value)
        self.messages: list[tuple[float, Message]] = []
        self._session = Session(
            server="sandbox",
            input="default",
            output="default",
            inactivity_timeout_s=None,
            probes=True,
            log_level="INFO",
        )
        self._news = threading.Condition()
        self._stream = self._session.events(Event, Log, PlayedPosition)
        self._asked = 0

    def __enter__(self) -> Talk:
        try:
            self._session.__enter__()
        except BaseException:
            self.card.close()
            raise
        threading.Thread(target=self._collect, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        self._session.__exit__(kind, error, trace)
        self.card.close()

    def _collect(self) -> None:
        for message in self._stream:
            with self._news:
                self.messages.append((time.monotonic(), message))
                self._news.notify_all()

    def of(self, *kinds: type[Message], since: float = 0.0) -> list[tuple[float, Message]]:
        return [(at, m) for at, m in self.messages if isinstance(m, kinds) and at >= since]

    def wait_for(self, condition: Condition, timeout_s: float = TIMEOUT_S) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout_s), [
                m for _, m in self.messages[-30:] if not isinstance(m, PlayedPosition | Log)
            ]

    def ask(self, text: str = "tell me a story") -> float:
        """Have the assistant talk; return since when it does."""
        began, self._asked = time.monotonic(), self._asked + 1
        self._session.send(SendText(text, f"asked{self._asked}"))
        self.wait_for(lambda: self.of(PlayedPosition, since=began))
        return time.monotonic()

    def hear_out(self, began: float) -> None:
        """Wait until the answer has been heard."""
        self.wait_for(lambda: self.of(PlaybackEnded, since=began), 60.0)

    def kill(self, component: str) -> float:
        """Kill a component; return when it was back."""
        began = time.monotonic()
        self._session.inject(component, "SIGKILL")
        self.wait_for(lambda: self.of(ComponentRestarted, since=began))
        return time.monotonic()

    def is_settled(self) -> bool:
        """Return whether the echo has been cancelled for a second."""
        told = self.of(EchoState, since=time.monotonic() - 1.0)
        return self.state == "cancelled" and not told

    @property
    def state(self) -> str:
        states = [m.state for _, m in self.messages if isinstance(m, EchoState)]
        return states[-1] if states else ""

    def report(self) -> str:
        """Return all that happened but the talk itself."""
        kinds = (EchoState, Interrupted, UserSpeechStarted, SoundFaltered, Notice)
        lines = [f"{at:.1f} {m}" for at, m in self.of(*kinds)]
        for at, log in self.of(Log):
            if isinstance(log, Log) and log.text == "echo":
                fields = {key: msgspec.msgpack.decode(value) for key, value in log.fields.items()}
                lines.append(f"{at:.1f} {fields}")
        return "\n".join(sorted(lines))

    def wait_quiet(self) -> None:
        """Wait until nothing is played any more."""
        while self.of(PlayedPosition, since=time.monotonic() - 2.0):
            time.sleep(0.1)

    def in_time(self) -> float:
        """End it; return the share of the blocks whose reference was there in time."""
        self._session.stop()
        self.wait_for(lambda: self._logged("reference"))
        log = self._logged("reference")[-1]
        account = {key: msgspec.msgpack.decode(value) for key, value in log.fields.items()}
        print(account)
        return 1.0 - float(account["late"]) / max(account["blocks"], 1)

    def _logged(self, text: str) -> list[Log]:
        return [m for _, m in self.messages if isinstance(m, Log) and m.text == text]


@pytest.fixture
def talk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    with Talk(getattr(request, "param", 60), monkeypatch) as running:
        yield running


def voice(folder: Path) -> bytes:
    """Return a user's words at 24 kHz, without silence before them."""
    with wave.open(str(spoken(folder / "user.wav", "excuse me for a moment"))) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    sound = np.trim_zeros(np.frombuffer(pcm, "<i2").astype(float))
    at = np.arange(0, len(sound), rate / 24_000)
    return np.interp(at, np.arange(len(sound)), sound).astype("<i2").tobytes()


@in_real_time
def test_it_listens_while_it_speaks_and_does_not_hear_itself(talk: Talk) -> None:
    began = talk.ask("hello")
    talk.wait_for(lambda: talk.state == "cancelled")
    talk.hear_out(began)

    assert talk.of(Interrupted) == [], talk.report()
    assert talk.of(Notice) == [], talk.report()


@in_real_time
def test_the_user_interrupts_it_by_speaking(talk: Talk, tmp_path: Path) -> None:
    user = voice(tmp_path)
    talk.ask()
    talk.wait_for(talk.is_settled)
    assert talk.of(Interrupted) == [], talk.report()

    talk.card.play(user)

    talk.wait_for(lambda: talk.of(Interrupted))


# -- acceptance -----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 300)
@pytest.mark.parametrize("talk", ROOMS, indirect=True)
def test_it_talks_for_minutes_and_never_interrupts_itself(talk: Talk) -> None:
    end = time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        talk.hear_out(talk.ask())

    print(talk.report())
    assert talk.of(Interrupted) == [], talk.report()
    assert talk.in_time() >= 0.995


@pytest.mark.long
@pytest.mark.parametrize("talk", ROOMS, indirect=True)
def test_it_hears_a_user_who_speaks_over_it(talk: Talk, tmp_path: Path) -> None:
    user = voice(tmp_path)
    while talk.state != "cancelled":  # an underrun at the end of an answer makes it learn anew
        talk.hear_out(talk.ask("what is your name"))
    late = []
    for _ in range(TIMES):
        talk.ask()
        time.sleep(1.0)
        began = time.monotonic()
        talk.card.play(user)
        time.sleep(3.0)
        # An onset just before goes on with the user's words: they have no onset of their own then.
        heard = talk.of(UserSpeechStarted, since=began - 0.3)
        stopped = talk.of(Interrupted, since=began)
        late.append((heard[0][0] - began if heard else 9.9, bool(stopped)))
        talk.wait_quiet()

    print(late, talk.report())
    assert sum(delay <= 0.5 for delay, _ in late) >= 0.9 * TIMES, late
    assert sum(stopped for _, stopped in late) >= 0.9 * TIMES, late


@pytest.mark.long
@pytest.mark.parametrize("component", ["microphone", "speaker"])
def test_a_kill_in_mid_answer_makes_it_interrupt_nothing(talk: Talk, component: str) -> None:
    talk.hear_out(talk.ask("what is your name"))
    took = []
    for _ in range(TIMES):
        began = talk.ask()
        talk.wait_for(lambda: talk.state == "cancelled")
        time.sleep(2.0)
        back = talk.kill(component)
        talk.wait_for(lambda: talk.of(PlayedPosition, since=back))  # noqa: B023 - waits for it
        sounds = time.monotonic()
        talk.wait_for(lambda: talk.state == "cancelled")
        took.append(time.monotonic() - sounds)
        talk.hear_out(began)

    print(took, talk.report())
    assert talk.of(Interrupted) == [], talk.report()
    assert max(took) <= 1.0, took
