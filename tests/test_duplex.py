"""Open loudspeakers whose echo is not cancelled: on a card whose microphone hears its speaker.

Those whose echo is cancelled are in `tests.test_echo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import (
    Event,
    Interrupted,
    Message,
    Notice,
    PlaybackEnded,
    SendText,
    StopSession,
    UserSpeechStarted,
)
from supervisor import Session
from tests.cards import Card, real_card
from tests.conversation import wav_channels
from tests.test_command import loudness


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A room of our own, in which the microphone hears the speaker 60 ms later."""
    card = Card("--echo", "60")
    for name, value in card.variables.items():
        monkeypatch.setenv(name, value)
    yield
    card.close()


def _talk(
    tmp_path: Path, duplex: str, kill: str | None = None, echo_cancelling: str = "off"
) -> list[Message]:
    """Have a sentence said; return what was told until it was heard, or interrupted."""
    session = Session(
        server="sandbox",
        input="default",
        output="default",
        duplex=duplex,
        echo_cancelling=echo_cancelling,
        inactivity_timeout_s=None,
        recording_path=str(tmp_path / "talk.wav"),
        probes=True,
    )
    told: list[Message] = []
    stream = session.events(Event)
    with session:
        session.send(SendText("hello" if kill else "what is your name", "t1"))
        for message in stream:
            told.append(message)
            match message:
                case Interrupted():
                    session.send(StopSession("interrupted"))
                case PlaybackEnded():
                    session.send(SendText("what is your name", "t2"))  # would its end be heard
                    if any(isinstance(m, PlaybackEnded) for m in told[:-1]):
                        session.send(StopSession("heard"))
                case _ if kill and "ResponseEnded" in type(message).__name__:
                    session.inject(kill, "SIGKILL")
                    kill = None
    return told


@real_card
@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    "kill",
    [
        None,
        pytest.param("microphone", marks=pytest.mark.long),
        pytest.param("speaker", marks=pytest.mark.long),
        pytest.param("realtime", marks=pytest.mark.long),
    ],
)
def test_the_assistant_does_not_hear_itself_and_that_is_said(
    tmp_path: Path, kill: str | None
) -> None:
    told = _talk(tmp_path, "auto", kill)

    assert [m for m in told if isinstance(m, UserSpeechStarted | Interrupted)] == []
    assert sum("--full-duplex" in m.text for m in told if isinstance(m, Notice)) == 1
    assert loudness(wav_channels(tmp_path / "talk.wav")[0]) > 500, "the recorder hears the room"


@real_card
@pytest.mark.long
@pytest.mark.usefixtures("echo")
def test_in_full_duplex_it_interrupts_itself(tmp_path: Path) -> None:
    told = _talk(tmp_path, "full")

    assert any(isinstance(m, Interrupted) for m in told)
    assert not any("--full-duplex" in m.text for m in told if isinstance(m, Notice))
