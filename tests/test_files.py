"""Files as devices in a real session: the audio written has the time at which it was heard."""

from __future__ import annotations

import signal
import time
import wave
from pathlib import Path

from messages import (
    AssistantAudio,
    ComponentRestarted,
    FlushPlayback,
    Inject,
    PlaybackEnded,
    PlaybackFlushed,
    PlayedAudio,
    PlayedPosition,
    SessionStarted,
)
from tests.bad_input.stage import Sitting
from tests.conversation import noise, wav_channels

SECOND = 24_000
BLOCK = 480
"""What a file takes at once, in samples."""


def test_each_sample_of_a_reply_lies_where_it_was_heard_over_pauses_flushes_and_a_death(
    tmp_path: Path,
) -> None:
    reply, recording = tmp_path / "reply.wav", tmp_path / "talk.wav"
    first, second, third = noise(700, 1), noise(2_000, 2), noise(500, 3)
    listens = (PlayedAudio, PlayedPosition, PlaybackFlushed)
    settings = {"output": str(reply), "recording_path": str(recording), "probes": True}
    with Sitting("speaker", "recorder", listens=listens, **settings) as sitting:
        sitting.wait_for(lambda: len(sitting.of(SessionStarted)) == 1)
        (started,) = sitting.of(SessionStarted)
        send = sitting.supervisor.send

        sent_ns = time.monotonic_ns()
        send(AssistantAudio(first[:20_000], "a", "r", 0))
        sitting.wait_for(lambda: played(sitting, "a") > SECOND // 10)
        send(Inject("speaker", signal.SIGKILL.name))
        sitting.wait_for(lambda: len(sitting.of(ComponentRestarted)) == 1)
        send(AssistantAudio(first[20_000:], "a", "r", 10_000, last=True))
        sitting.wait_for(lambda: len(sitting.of(PlaybackEnded)) == 1)

        send(AssistantAudio(second, "b", "r", 0, last=True))
        sitting.wait_for(lambda: played(sitting, "b") > SECOND // 10)
        send(FlushPlayback("the user speaks", time.monotonic_ns()))
        sitting.wait_for(lambda: len(sitting.of(PlaybackFlushed)) == 1)
        send(AssistantAudio(third, "c", "r", 0, last=True))
        sitting.wait_for(lambda: len(sitting.of(PlaybackEnded)) == 2)

    written = frames_of(reply)
    for audio in sitting.of(PlayedAudio):
        at = 2 * audio.first_sample
        assert written[at : at + len(audio.pcm)] == audio.pcm
    for position in sitting.of(PlayedPosition):
        sound = {"a": first, "b": second, "c": third}[position.item_id]
        last = 2 * position.played_samples - 400  # before a fade, and what was played last
        if last > 0 and (at := written.find(sound[last : last + 200])) >= 0:
            heard_ns = started.epoch_ns + (at + 400) // 2 * 10**9 // SECOND
            assert abs(position.at_ns - heard_ns) * SECOND / 1e9 <= 2 * BLOCK
    assert position_of(first, written) >= (sent_ns - started.epoch_ns) * SECOND / 1e9 - 1
    assert third in written
    assert second not in written, "it was interrupted"
    _, right = wav_channels(recording)
    assert written[: len(right)].rstrip(b"\0") == right.rstrip(b"\0"), "the recording is the same"


def played(sitting: Sitting, item_id: str) -> int:
    """Return how much of an item was heard."""
    told = [one for one in sitting.of(PlayedPosition) if one.item_id == item_id]
    return max((one.played_samples for one in told), default=0)


def position_of(sound: bytes, written: bytes) -> int:
    """Return at which sample a sound begins."""
    at = written.find(sound[:200])
    assert at >= 0
    assert at % 2 == 0
    return at // 2


def frames_of(path: Path) -> bytes:
    """Return the samples of a mono file at 24 kHz."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SECOND)
        return file.readframes(file.getnframes())
