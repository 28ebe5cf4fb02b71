"""The voices."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import aclosing

import numpy as np
import pytest

from rtvoice.sandbox.settings import VOICES
from rtvoice.sandbox.speak import EspeakVoice, ToneVoice, choose_voice, sentences, utter

TEXT = "Hello there, my friend. It is 14:05!  Are you well?"


def speak(voice, text=TEXT, name="marin", speed=1.0):
    """All pieces of an utterance."""

    async def collect():
        return [piece async for piece in utter(text, voice, name, speed)]

    return asyncio.run(collect())


@pytest.fixture(params=["espeak", "tones"])
def voice(request):
    if request.param == "tones":
        return ToneVoice()
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng is not installed")
    return EspeakVoice(program)


def seconds(pieces):
    return sum(len(piece.pcm) for piece in pieces) / 48_000


def test_the_words_are_the_text(voice):
    pieces = speak(voice)

    assert "".join(word for piece in pieces for word in piece.words) == TEXT


def test_pieces_are_short_and_sound_like_something(voice):
    pieces = speak(voice)

    assert 1.5 < seconds(pieces) < 8
    assert max(len(piece.pcm) for piece in pieces) <= 200 * 48
    sound = np.frombuffer(b"".join(piece.pcm for piece in pieces), "<i2")
    assert 3_000 < np.abs(sound).max() < 32_767


def test_words_come_before_their_sound(voice):
    pieces = speak(voice, "One two three four five six seven eight nine ten eleven twelve.")

    half = pieces[: len(pieces) // 2]
    assert sum(len(piece.words) for piece in half) >= 6
    assert pieces[0].words


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5])
def test_speed_changes_the_length(voice, speed):
    text = "Once upon a time there was a small lighthouse on a rock."

    ratio = seconds(speak(voice, text)) / seconds(speak(voice, text, speed=speed))

    assert speed * 0.75 < ratio < speed * 1.3


def test_voices_sound_different(voice):
    sounds = {b"".join(piece.pcm for piece in speak(voice, "Hello.", name)) for name in VOICES}

    assert len(sounds) == len(VOICES)


def test_a_custom_voice_is_spoken_too(voice):
    assert seconds(speak(voice, "Hello.", {"id": "voice_1"})) > 0.3


@pytest.mark.parametrize("text", ["", " ", "...", "-v", "<b>&amp;", "日本", "a" * 3000])
def test_any_text_can_be_said(voice, text):
    pieces = speak(voice, text, speed=1.5)

    assert "".join(word for piece in pieces for word in piece.words) == text.strip()


def test_long_text_is_cut_after_its_sentences():
    assert sentences("One. Two!  Three? 3.14 four") == ["One.", " Two!", "  Three?", " 3.14 four"]


def test_without_espeak_there_are_tones(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert choose_voice().name == "built-in tones"
    assert choose_voice(builtin=True).name == "built-in tones"


def test_an_espeak_that_fails_is_replaced_by_tones(tmp_path):
    pieces = speak(EspeakVoice(str(tmp_path / "gone")), "Hello.")

    assert seconds(pieces) > 0.3


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_who_does_not_want_the_rest_ends_the_program(tmp_path):
    program = tmp_path / "endless"
    head = r"RIFF%20s\300\135\000\000%16s"  # 24 kHz
    program.write_text(f"#!/bin/sh\nprintf '{head}'\nexec cat /dev/zero\n")
    program.chmod(0o755)

    async def take_one():
        async with aclosing(EspeakVoice(str(program)).say("Hello.", "alloy", 1.0)) as blocks:
            return await anext(blocks)

    assert asyncio.run(asyncio.wait_for(take_one(), 10))
