"""Interruptions that have to be confirmed, in real processes: a cough, words, kills."""

from __future__ import annotations

import base64
import json
import random
import tempfile
import threading
import time
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.realtime.core.doubts import QUIET_NS
from actors.realtime.core.state import Saved
from messages import (
    Event,
    Interrupted,
    Message,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    PlayedPosition,
    SessionEnded,
    Turn,
    WireEvent,
)
from messages.transport.saved import read_state
from supervisor import Session
from tests.conversation import Conversation, noise
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S, until
from tests.test_command import needs_speech, spoken

STEP = 2 * 240
"""10 ms; a fade-out and a fade-in, of 8 ms each, are not in more than four of these."""


def sound_of(path: Path) -> bytes:
    """Return a WAV file of one channel."""
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())


def follow(played: bytes, sent: bytes) -> tuple[float, float]:
    """Follow what was sent through what was played.

    All of it has to be there, once and in order. A break costs no more than its fades; on a busy
    machine there are some where audio came late.

    Returns:
        Where it broke first, and how long it was silent in all, in ms.
    """
    at, broke, gap, missing, breaks = -1, len(sent), 0, 0, 1
    for start in range(0, len(sent) - STEP, STEP):
        at += STEP if at >= 0 else 0
        block = sent[start : start + STEP]
        if not any(array("h", block)):
            continue
        found = played.find(block, max(at, 0))
        if found == -1:
            missing += 1
            continue
        if 0 <= at < found:
            breaks += 1
            broke, gap = min(broke, start), gap + found - at
        at = found
    assert missing <= 4 * breaks, f"{missing} pieces of 10 ms are missing"
    heard, said = (sum(map(bool, array("h", pcm))) for pcm in (played, sent))
    assert abs(heard - said) <= 2 * STEP * breaks, "something was heard twice"
    return broke / 48, gap / 48


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


def _sent(told: list[Message]) -> dict[str, bytes]:
    """Return the sound that the server has sent, by item."""
    sound: dict[str, bytes] = {}
    for message in told:
        if isinstance(message, WireEvent) and message.name == "response.output_audio.delta":
            event = json.loads(message.json)
            sound[event["item_id"]] = sound.get(event["item_id"], b"") + base64.b64decode(
                event["delta"]
            )
    return sound


@needs_speech
@pytest.mark.parametrize(
    "transcription", ["gpt-transcribe", pytest.param(None, marks=pytest.mark.long)]
)
def test_an_answer_is_heard_whole_although_somebody_coughs(
    tmp_path: Path, transcription: str | None
) -> None:
    given = _input(tmp_path / "in.wav", "hello", 2.4, _cough(22_050), 0.5)

    told = _converse(tmp_path, given, transcription_model=transcription)

    kinds = [type(m) for m in told if isinstance(m, PlaybackPaused | PlaybackResumed | Interrupted)]
    assert kinds == [PlaybackPaused, PlaybackResumed]
    ((item, sent),) = _sent(told).items()
    paused = next(m for m in told if isinstance(m, PlaybackPaused))
    assert paused.item_id in (item, "")  # on a busy machine, nothing was heard yet
    broke, gap_ms = follow(sound_of(tmp_path / "reply.wav"), sent)
    if paused.item_id:
        assert broke <= paused.heard_ms + 60
        assert gap_ms > 300
    assert [m.heard_ms for m in told if isinstance(m, PlaybackEnded)] == [len(sent) // 48]
    turns = [m.role for m in told if isinstance(m, Turn)]
    assert turns == ["user", "assistant"], "the cough is nobody's turn"


@needs_speech
@pytest.mark.long
def test_words_interrupt_where_the_answer_was_paused(tmp_path: Path) -> None:
    given = _input(tmp_path / "in.wav", "hello", 2.0, "what time is it", 0.5)

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


def _paused(talk: Conversation, speech: bytes) -> None:
    """Have an answer begin, and be paused in the middle."""
    talk.connection.say("A long story.", speech, item="item_1")
    talk.expect(PlayedPosition)
    talk.connection.tell("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u_1")
    talk.expect(PlaybackPaused)


def _is_pause_saved(folder: Path) -> bool:
    """Return whether realtime has saved that it has paused the speaker.

    A new realtime ends at once a pause that the one before it has not saved.

    Args:
        folder: The folder of the session's directory.
    """
    directory = next(folder.glob("rtvoice-*/realtime.saved")).parent
    state = read_state(directory, "realtime")
    return state is not None and msgspec.msgpack.decode(state, type=Saved).paused_by is not None


def _no_speech(talk: Conversation) -> None:
    connection, place = talk.connection, {"item_id": "u_1", "content_index": 0}
    connection.tell("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id="u_1")
    connection.tell("input_audio_buffer.committed", item_id="u_1", previous_item_id="item_1")
    kind = "conversation.item.input_audio_transcription.completed"
    connection.tell(kind, transcript="", usage={"type": "duration", "seconds": 1}, **place)


@pytest.mark.usefixtures("on_threads")
@pytest.mark.processes("speaker", "realtime")
@pytest.mark.parametrize("component", ["speaker", "realtime"])
def test_a_kill_in_a_pause_loses_nothing_and_the_pause_ends(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    speech = noise(1500, seed=5)
    path = tmp_path / "out.wav"
    settings = {"interruption": "confirmed", "output": str(path), "hang_s": 3.0}
    with Conversation(server, PlayedPosition, **settings) as talk:
        begun_ns = time.monotonic_ns()
        _paused(talk, speech)
        until(lambda: _is_pause_saved(tmp_path), "realtime does not save the pause")

        talk.break_it(component, "SIGKILL")
        if component == "speaker":
            threading.Event().wait(0.3)
            if time.monotonic_ns() - begun_ns < QUIET_NS:  # then no pause has ended by itself
                assert not talk.of(PlaybackResumed), "a new speaker is paused as the old one was"
            _no_speech(talk)
            talk.connection.expect("conversation.item.delete", lambda e: e["item_id"] == "u_1")
        talk.expect(PlaybackEnded)

    _, gap_ms = follow(sound_of(path), speech)
    assert gap_ms > 200


@pytest.mark.long
def test_a_lost_connection_in_a_pause_loses_nothing_and_the_pause_ends(
    server: FakeServer, tmp_path: Path
) -> None:
    speech = noise(1500, seed=6)
    path = tmp_path / "out.wav"
    settings = {"interruption": "confirmed", "output": str(path)}
    with Conversation(server, PlayedPosition, **settings) as talk:
        _paused(talk, speech)

        talk.connection.drop()
        server.connection(1)
        talk.wait_for(lambda: bool(talk.of(PlaybackEnded)), 2 * TIMEOUT_S)

        assert len(talk.of(PlaybackResumed)) == 1
    follow(sound_of(path), speech)
