"""Interruptions that have to be confirmed, in real processes: a cough, words, kills."""

from __future__ import annotations

import base64
import json
import random
import threading
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import (
    Event,
    Interrupted,
    Message,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    SessionEnded,
    Turn,
    WireEvent,
)
from supervisor import Session
from tests.conversation import Conversation, noise
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S
from tests.test_command import needs_speech, spoken

FADE = 192


def samples(path: Path) -> list[int]:
    """Return a WAV file of one channel."""
    with wave.open(str(path)) as file:
        return array("h", file.readframes(file.getnframes())).tolist()


def whole(played: list[int], sent: list[int]) -> tuple[int, int]:
    """Find what was sent in what was played, in two pieces; return where it broke and the gap.

    All of it has to be there, once, but for a fade-out and a fade-in.
    """
    begin = next(at for at, sample in enumerate(played) if sample)
    skip = next(at for at, sample in enumerate(sent) if sample)
    begin -= skip
    broke = next(
        (at for at, sample in enumerate(sent) if played[begin + at] != sample), len(sent)
    )
    rest = sent[broke + 3 * FADE :]
    again = len(played) - 1 - next(at for at, sample in enumerate(reversed(played)) if sample)
    end = len(sent) - 1 - next(at for at, sample in enumerate(reversed(sent)) if sample)
    last = again - end + len(sent)
    assert played[last - len(rest) : last] == rest
    return broke, last - begin - len(sent)


# -- the sandbox -----------------------------------------------------------------------------------


def _cough(rate: int, ms: int = 250) -> bytes:
    """Return a burst of noise that dies away."""
    rng, count = random.Random(7), rate * ms // 1000
    return array(
        "h", [int(rng.uniform(-1, 1) * 14_000 * (1 - at / count)) for at in range(count)]
    ).tobytes()


def _input(path: Path, *pieces: object) -> Path:
    """Write a WAV file of texts, seconds of silence, and coughs (bytes)."""
    rate, sound = 22_050, b""
    for piece in pieces:
        if isinstance(piece, str):
            with wave.open(str(spoken(path.with_suffix(".part.wav"), piece))) as file:
                rate = file.getframerate()
                sound += file.readframes(file.getnframes())
        elif isinstance(piece, bytes):
            sound += piece
        else:
            sound += bytes(2 * int(rate * float(str(piece))))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(sound)
    return path


def _converse(tmp_path: Path, given: Path, **settings: object) -> list[Message]:
    """Hold a conversation with the sandbox to the end of its input; return what was told."""
    session = Session(
        server="sandbox",
        input=str(given),
        output=str(tmp_path / "reply.wav"),
        interruption="confirmed",
        wire_events=("response.output_audio.delta", "conversation.item.truncated"),
        **settings,
    )
    told: list[Message] = []
    stream: Iterator[Message] = session.events(Event, WireEvent)
    session.start()
    for message in stream:
        told.append(message)
        if isinstance(message, SessionEnded):
            break
    session.stop()
    return told


def _sent(told: list[Message]) -> dict[str, list[int]]:
    """Return the sound that the server has sent, by item."""
    sound: dict[str, bytes] = {}
    for message in told:
        if isinstance(message, WireEvent) and message.name == "response.output_audio.delta":
            event = json.loads(message.json)
            sound[event["item_id"]] = sound.get(event["item_id"], b"") + base64.b64decode(
                event["delta"]
            )
    return {item: array("h", pcm).tolist() for item, pcm in sound.items()}


@needs_speech
@pytest.mark.parametrize(
    "transcription", ["gpt-transcribe", pytest.param(None, marks=pytest.mark.long)]
)
def test_an_answer_is_heard_whole_although_somebody_coughs(
    tmp_path: Path, transcription: str | None
) -> None:
    given = _input(tmp_path / "in.wav", "hello", 1.5, _cough(22_050), 0.5)

    told = _converse(tmp_path, given, transcription_model=transcription)

    kinds = [type(m) for m in told if isinstance(m, PlaybackPaused | PlaybackResumed | Interrupted)]
    assert kinds == [PlaybackPaused, PlaybackResumed]
    ((item, sent),) = _sent(told).items()
    paused = next(m for m in told if isinstance(m, PlaybackPaused))
    assert paused.item_id == item
    broke, gap = whole(samples(tmp_path / "reply.wav"), sent)
    assert abs(broke / 24 - paused.heard_ms) < 60
    assert 0.3 * 24_000 < gap < 4 * 24_000
    assert [m.heard_ms for m in told if isinstance(m, PlaybackEnded)] == [len(sent) // 24]
    turns = [m.role for m in told if isinstance(m, Turn)]
    assert turns == ["user", "assistant"], "the cough is nobody's turn"


@needs_speech
@pytest.mark.long
def test_words_interrupt_where_the_answer_was_paused(tmp_path: Path) -> None:
    given = _input(tmp_path / "in.wav", "hello", 1.5, "what time is it", 0.5)

    told = _converse(tmp_path, given, transcription_model="gpt-transcribe")

    kinds = [type(m) for m in told if isinstance(m, PlaybackPaused | PlaybackResumed | Interrupted)]
    assert kinds == [PlaybackPaused, Interrupted]
    paused = next(m for m in told if isinstance(m, PlaybackPaused))
    cut = next(m for m in told if isinstance(m, Interrupted))
    assert paused.item_id == cut.item_id
    assert 0 <= cut.heard_ms - paused.heard_ms <= 30
    truncated = [
        json.loads(m.json)["audio_end_ms"]
        for m in told
        if isinstance(m, WireEvent) and m.name == "conversation.item.truncated"
    ]
    assert truncated == [cut.heard_ms]
    texts = [m.text for m in told if isinstance(m, Turn) and m.role == "user"]
    assert texts == ["hello", "what time is it"]


# -- kills -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


def _paused(talk: Conversation, speech: bytes) -> None:
    """Have an answer begin, and be paused in the middle."""
    talk.connection.say("A long story.", speech, item="item_1")
    threading.Event().wait(0.5)  # some of it is to be heard
    talk.connection.tell("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u_1")
    talk.expect(PlaybackPaused)


def _no_speech(talk: Conversation) -> None:
    connection, place = talk.connection, {"item_id": "u_1", "content_index": 0}
    connection.tell("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id="u_1")
    connection.tell("input_audio_buffer.committed", item_id="u_1", previous_item_id="item_1")
    kind = "conversation.item.input_audio_transcription.completed"
    connection.tell(kind, transcript="", usage={"type": "duration", "seconds": 1}, **place)


@pytest.mark.parametrize("component", ["speaker", "realtime"])
def test_a_kill_in_a_pause_loses_nothing_and_the_pause_ends(
    server: FakeServer, tmp_path: Path, component: str
) -> None:
    speech = noise(1500, seed=5)
    path = tmp_path / "out.wav"
    with Conversation(
        server, interruption="confirmed", output=str(path), hang_s=3.0
    ) as talk:
        _paused(talk, speech)

        talk.break_it(component, "SIGKILL")
        if component == "speaker":
            threading.Event().wait(0.3)
            assert not talk.of(PlaybackResumed), "a new speaker is paused as the old one was"
            _no_speech(talk)
            talk.connection.expect("conversation.item.delete", lambda e: e["item_id"] == "u_1")
        talk.expect(PlaybackEnded)

    _, gap = whole(samples(path), array("h", speech).tolist())
    assert gap > 0.2 * 24_000


@pytest.mark.long
def test_a_lost_connection_in_a_pause_loses_nothing_and_the_pause_ends(
    server: FakeServer, tmp_path: Path
) -> None:
    speech = noise(1500, seed=6)
    path = tmp_path / "out.wav"
    with Conversation(server, interruption="confirmed", output=str(path)) as talk:
        _paused(talk, speech)

        talk.connection.drop()
        server.connection(1)
        talk.wait_for(lambda: bool(talk.of(PlaybackEnded)), 2 * TIMEOUT_S)

        assert len(talk.of(PlaybackResumed)) == 1
    whole(samples(path), array("h", speech).tolist())
