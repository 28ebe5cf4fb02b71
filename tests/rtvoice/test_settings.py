"""Agents with uncommon settings, end to end with the sandbox."""

from __future__ import annotations

import base64
import os
import signal
import time
import wave
from pathlib import Path
from typing import Any

import pytest

from rtvoice import (
    Agent,
    AgentError,
    InputLevel,
    Interrupted,
    PlaybackEnded,
    Reconnected,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice.testing import SandboxServer, sandbox
from tests.conversation import noise
from tests.loop import in_a_loop
from tests.rtvoice.test_running import Heard

__all__ = ["sandbox"]

QUIET: dict[str, Any] = {
    "audio_input": "silence",
    "audio_output": "null",
    "inactivity_timeout_s": None,
}


@pytest.mark.usefixtures("on_threads")
@in_a_loop
async def test_an_assistant_that_writes_is_not_heard(sandbox: SandboxServer) -> None:
    agent = Agent(server=sandbox.url, output_modality="text", max_output_tokens=500, **QUIET)
    heard = Heard(agent, Turn, PlaybackEnded, Interrupted)

    async with agent:
        agent.send_text("what is your name")
        turn = await heard.expect(Turn, lambda turn: turn.role == "assistant")
        await agent.update(output_modality="audio")
        agent.send_text("thank you")
        await heard.expect(PlaybackEnded)
        history = await agent.stop()

    assert turn.text == "My name is Sandbox."
    written, spoken = [each for each in history.conversation_turns if each.role == "assistant"]
    assert (written.content, written.heard_ms) == ("My name is Sandbox.", None)
    assert not written.interrupted
    assert spoken.heard_ms
    assert [event["response"]["output_modalities"] for event in sandbox.of("response.done")] == [
        ["text"],
        ["audio"],
    ]


def wav_of(path: Path, pcm: bytes) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(pcm)
    return str(path)


def turns_of(sandbox: SandboxServer) -> list[bytes]:
    """Return the sound of each turn, as it was committed."""
    turns = [b""]
    for event in sandbox.events:
        match event["type"]:
            case "input_audio_buffer.append":
                turns[-1] += base64.b64decode(event["audio"])
            case "input_audio_buffer.clear" | "session.created":
                turns[-1] = b""
            case "input_audio_buffer.commit":
                turns.append(b"")
    return turns[:-1]


@pytest.mark.usefixtures("on_threads")
@pytest.mark.processes("realtime")
@in_a_loop
async def test_a_turn_by_key_begins_before_the_key_whatever_dies(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    pcm = noise(12_000, 5)
    agent = Agent(
        server=sandbox.url,
        turn_detection=None,
        transcription_model="gpt-live-transcribe",
        **{**QUIET, "audio_input": wav_of(tmp_path / "speech.wav", pcm)},
    )
    heard = Heard(
        agent, InputLevel, UserSpeechStarted, UserSpeechStopped, Reconnected, Turn, PlaybackEnded
    )
    sandbox.hear("what is your name")
    sandbox.hear("thank you")
    starts: list[tuple[int, int, int]] = []
    """In the file, on the session timeline, and when the key was pressed."""

    async with agent:
        await agent.wait_ready()
        await heard.expect(InputLevel, lambda _: len(heard.events) >= 6)
        for died in (False, True):
            begin = len(heard.events)
            pressed_ns = time.monotonic_ns()
            await agent.start_talking()
            started = await heard.expect(UserSpeechStarted, heard.since(begin))
            levels = len(heard.events)
            await heard.expect(InputLevel, lambda _, n=levels: len(heard.events) >= n + 4)
            if died:
                os.kill((await agent.status())["realtime"]["pid"], signal.SIGKILL)
                await heard.expect(Reconnected)
            agent.stop_talking()
            stopped = await heard.expect(UserSpeechStopped, heard.since(begin))
            answer = await heard.expect(
                Turn, lambda t, b=begin: t.role == "assistant" and heard.since(b)(t)
            )
            await heard.expect(PlaybackEnded, heard.since(begin))

            turn, length = turns_of(sandbox)[-1], stopped.last_sample - started.first_sample
            assert len(turn) == 2 * length
            starts.append((pcm.index(turn) // 2, started.first_sample, pressed_ns))
        history = await agent.stop()

    (one_at, one, one_ns), (two_at, two, two_ns) = starts
    assert two_at - one_at == two - one
    assert abs((two - one) / 24_000 - (two_ns - one_ns) / 1e9) < 0.1
    assert answer.text == "You are welcome."
    assert sandbox.connections == 2
    assert [turn.content for turn in history.conversation_turns] == [
        "what is your name",
        "My name is Sandbox.",
        "thank you",
        "You are welcome.",
    ]


@pytest.mark.usefixtures("on_threads")
@in_a_loop
async def test_where_the_service_takes_turns_the_key_is_refused(sandbox: SandboxServer) -> None:
    agent = Agent(server=sandbox.url, **QUIET)

    async with agent:
        with pytest.raises(AgentError, match="make the agent with turn_detection=None"):
            agent.start_talking()
        await agent.update(turn_detection=None)
        await agent.start_talking()
        await agent.stop_talking()
        await agent.stop()


def images_beside(journal: Path) -> dict[str, bytes]:
    folder = journal.with_name(f"{journal.name}.images")
    return {str(path): path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("on_threads")
@pytest.mark.processes("history", "realtime")
@in_a_loop
async def test_an_image_is_seen_again_after_the_connection_was_lost(
    sandbox: SandboxServer, tmp_path: Path
) -> None:
    journal = tmp_path / "talk.journal"
    agent = Agent(server=sandbox.url, journal_path=journal, **QUIET)
    heard = Heard(agent, Turn, Reconnected, PlaybackEnded)
    png = b"\x89PNG\r\n\x1a\n" + noise(200, 7)

    async with agent:
        await agent.send_image(png, "thank you", detail="low")
        await heard.expect(PlaybackEnded)
        for name in ("history", "realtime"):  # what it looked like is in no process
            os.kill((await agent.status())[name]["pid"], signal.SIGKILL)
        await heard.expect(Reconnected)
        history = await agent.stop()

    shown = [event["item"] for event in sandbox.of("conversation.item.create")]
    first, again = [item for item in shown if item["role"] == "user"]
    assert (
        first["content"]
        == again["content"]
        == [
            {"type": "input_text", "text": "thank you"},
            {
                "type": "input_image",
                "image_url": f"data:image/png;base64,{base64.b64encode(png).decode()}",
                "detail": "low",
            },
        ]
    )
    turn = history.conversation_turns[0]
    assert turn.content == "thank you"
    assert turn.image is not None
    assert (turn.image.media_type, turn.image.size_bytes) == ("image/png", len(png))
    assert images_beside(journal) == {turn.image.path: png}
    told = await heard.expect(Turn, lambda each: each.role == "user")
    assert told.image == turn.image
