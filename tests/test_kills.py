"""Random kills: a spoken question is answered whichever component dies, whenever.

Two seeds in the short suite, two hundred with ``--long``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tests.conversation import wav_channels
from tests.rig import exists
from tests.test_command import Run, loudness, needs_speech, question

__all__ = ["question"]

COMPONENTS = ["microphone", "speaker", "realtime", "tools", "history", "recorder"]
SHORT, LONG = range(2), range(2, 200)


def seeds() -> list[object]:
    return [*SHORT, *(pytest.param(seed, marks=pytest.mark.long) for seed in LONG)]


@needs_speech
@pytest.mark.parametrize("seed", seeds())
def test_a_question_is_answered_whoever_is_killed_and_whenever(
    question: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    run = Run(
        *("--server", "sandbox", "--input", str(question), "--output", "reply.wav"),
        *("--record", "recording.wav"),
        cwd=tmp_path,
    )
    pids = run.expect("session_started")["pids"]
    victims = []
    for victim in chance.sample(COMPONENTS, chance.choice([1, 1, 1, 2])):
        threading.Event().wait(chance.uniform(0.0, 3.5))  # the moment is what is random
        with contextlib.suppress(ProcessLookupError):  # the conversation is over
            os.kill(pids[victim], signal.SIGKILL)
            victims.append(victim)

    code, text = run.end()

    assert code == 0, text
    told = f"seed {seed} killed {victims}: {run.turns()}"
    # An answer that was cut off with its connection is gone on with, in a turn of its own.
    said = [text for role, text in run.turns() if role == "assistant"]
    assert [text for role, text in run.turns() if role == "user"] == ["what time is it"], told
    assert said, told
    assert said[0].startswith("It"), told
    assert len(said) == 1 or "realtime" in victims, told
    assert {crash["component"] for crash in run.of("component_crashed")} <= set(victims), told
    assert not run.of("session_failed"), told
    left, right = wav_channels(tmp_path / "recording.wav")
    assert loudness(left) > 1000, told
    assert loudness(right) > 1000, told
    assert not any(exists(pid) for pid in pids.values())
