"""The recogniser: it finds phrases, and takes no other speech for one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import numpy as np
import pytest

from rtvoice.sandbox import listen
from rtvoice.sandbox.listen import ListenerDiedError, Recogniser, RecogniserPool
from rtvoice.sandbox.phrases import PHRASES
from tests.sandbox.client import silence, spoken

VOICES = ["en-us", "en-us+f2"]
SIXTEEN = [phrase.words for phrase in PHRASES if phrase.percent in (None, 50)]
OTHERS = [
    "the quick brown fox jumps over the lazy dog",
    "I would like to order a pizza with mushrooms",
    "where is the nearest train station",
    "she sells sea shells by the sea shore",
    "bananas",
    "no",
]


@pytest.fixture(scope="module")
def recogniser():
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    return Recogniser()


def louder(pcm, db):
    return (np.frombuffer(pcm, "<i2") * 10 ** (db / 20)).astype("<i2").tobytes()


def test_the_phrases_are_recognised(recogniser):
    missed = [
        (voice, words, found)
        for voice in VOICES
        for words in SIXTEEN
        if (found := recogniser.recognise(spoken(words, voice))) != words
    ]

    assert len(SIXTEEN) == 16
    assert len(missed) <= 0.15 * 2 * 16, missed


def test_other_speech_is_not_taken_for_a_phrase(recogniser):
    taken = [(words, found) for words in OTHERS if (found := recogniser.recognise(spoken(words)))]

    assert len(taken) <= 1, taken


@pytest.mark.parametrize("db", [0, -12, -24])
def test_how_loud_it_is_does_not_matter(recogniser, db):
    assert recogniser.recognise(louder(spoken("what time is it"), db)) == "what time is it"


@pytest.mark.parametrize(("before", "after"), [(0, 0), (317, 0), (50, 941)])
def test_the_silence_around_it_does_not_matter(recogniser, before, after):
    pcm = silence(before) + spoken("count to twenty") + silence(after)

    assert recogniser.recognise(pcm) == "count to twenty"


def test_nothing_is_remembered_from_the_speaker_before(recogniser):
    words = "set the volume to fifty percent"
    alone = recogniser.recognise(spoken(words))

    recogniser.recognise(louder(spoken("goodbye", "en-us+m7", 120), -20))

    assert recogniser.recognise(spoken(words)) == alone


@pytest.mark.parametrize("pcm", [b"", silence(10), silence(2000)])
def test_silence_is_no_phrase(recogniser, pcm):
    assert recogniser.recognise(pcm) == ""


def test_noise_is_no_phrase(recogniser):
    noise = np.random.default_rng(0).normal(0, 3000, 24_000).astype("<i2").tobytes()

    assert recogniser.recognise(noise) == ""


def test_a_speech_without_end_is_not_decoded(recogniser):
    assert recogniser.recognise(spoken("hello") * 20) == ""


def test_without_the_package_nothing_is_heard():
    async def ask():
        listener = RecogniserPool(wanted=False)
        await listener.warm()
        return await listener.listen(silence(500))

    assert asyncio.run(ask()) is None


@pytest.mark.usefixtures("recogniser_installed")
def test_a_process_that_dies_is_replaced_and_the_audio_heard():
    async def ask():
        listener = RecogniserPool()
        await listener.warm()
        (worker,) = listener._idle
        os.kill(worker._process.pid, signal.SIGTERM)
        try:
            return await listener.listen(spoken("hello"))
        finally:
            await listener.close()

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == "hello"


@pytest.mark.usefixtures("recogniser_installed")
def test_who_goes_away_while_it_works_does_not_harm_the_next():
    async def ask():
        listener = RecogniserPool()
        await listener.warm()
        gone = [asyncio.create_task(listener.listen(spoken("thank you"))) for _ in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        try:
            return [await listener.listen(spoken(words)) for words in ("hello", "tell me a story")]
        finally:
            await listener.close()

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == ["hello", "tell me a story"]


@pytest.mark.usefixtures("recogniser_installed")
def test_who_goes_away_while_waiting_is_not_decoded_for():
    async def ask():
        listener = RecogniserPool()
        await listener.warm()
        gone = [asyncio.create_task(listener.listen(spoken("thank you"))) for _ in range(50)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        still = len(listener._asking)
        try:
            return still, await listener.listen(spoken("hello"))
        finally:
            await listener.close()

    still, heard = asyncio.run(asyncio.wait_for(ask(), 30))

    assert still <= 2
    assert heard == "hello"


@pytest.mark.usefixtures("recogniser_installed")
def test_a_process_that_always_dies_is_reported_to_everybody(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")

    async def ask():
        listener = RecogniserPool()
        asked = (listener.listen(silence(100)) for _ in range(5))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(asyncio.wait_for(ask(), 30))

    assert [type(answer) for answer in answers] == [ListenerDiedError] * 5


def test_speech_waits_for_a_recogniser_that_takes_long_to_load(monkeypatch):
    code = "import sys, time\n"
    code += "read, write = sys.stdin.buffer.read, sys.stdout.buffer.write\n"
    code += "time.sleep(1)\n"
    code += "while head := read(4):\n"
    code += "    read(int.from_bytes(head, 'little')); write(b'\\5\\0\\0\\0hello')\n"
    code += "    sys.stdout.flush()\n"

    async def start(worker):
        pipe = asyncio.subprocess.PIPE
        worker._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=pipe, stdout=pipe
        )
        return worker._process

    async def scenario():
        pool = RecogniserPool()
        pool.available = True
        heard = await pool.listen(b"speech")
        await pool.close()
        return heard

    monkeypatch.setattr(listen._Worker, "_start", start)
    monkeypatch.setattr(listen, "_HANGS_S", 0.5)

    assert asyncio.run(scenario()) == "hello"
