"""Muted is silence: at the server, in the recording and in the levels, whatever happens."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from actors.devices.sound.wav import WavTarget
from messages import CapturedAudio, InputLevel, SetMuted
from tests.conversation import Conversation, noise, wav_channels
from tests.fake_server import FakeServer


@pytest.mark.usefixtures("on_threads")
@pytest.mark.processes("microphone")
@pytest.mark.parametrize("where", ["file", "program"])
def test_nobody_hears_a_muted_microphone_over_a_lost_connection_and_its_death(
    where: str, tmp_path: Path
) -> None:
    said = noise(4_000, 3)
    recording = tmp_path / "talk.wav"
    settings = {"recording_path": str(recording), "muted": True}
    if where == "file":
        settings["input"] = str(written(tmp_path / "speech.wav", said))
    with FakeServer() as server:
        with Conversation(server, InputLevel, CapturedAudio, **settings) as talk:
            first = talk.connection
            if where == "program":
                talk.speak(said[:48_000])
            server.wait_for(lambda: len(first.audio) > 20_000)
            first.drop()
            second = server.connection(1)  # which is sent again what the first has not committed
            server.wait_for(lambda: len(second.audio) > 20_000)
            talk.break_it("microphone", "SIGKILL")
            if where == "program":
                talk.speak(said[:24_000])
            count = len(second.audio)
            server.wait_for(lambda: len(second.audio) > count + 20_000)
            levels = [*talk.of(InputLevel)]

        left, _ = wav_channels(recording)
    assert not any(first.audio)
    assert not any(second.audio)
    assert not any(left)
    assert len(left) > 40_000
    assert {level.peak_dbfs for level in levels} == {-96.0}


@pytest.mark.usefixtures("on_threads")
def test_who_is_unmuted_is_heard_again_and_nothing_of_before(tmp_path: Path) -> None:
    said = noise(6_000, 4)
    settings = {"input": str(written(tmp_path / "speech.wav", said)), "muted": True}
    with FakeServer() as server, Conversation(server, CapturedAudio, **settings) as talk:
        connection = talk.connection
        server.wait_for(lambda: len(connection.audio) > 20_000)
        talk.session.send(SetMuted(False))
        server.wait_for(lambda: len(bytes(connection.audio).lstrip(b"\0")) > 2_000)

    heard = bytes(connection.audio).lstrip(b"\0")

    assert said.find(heard[2:1_000]) > 20_000, "what was said while muted"


def written(path: Path, pcm: bytes) -> Path:
    """Return a WAV file with this in it."""
    with closing(WavTarget(path, 1, fresh=True)) as target:
        target.write(0, pcm)
    return path
