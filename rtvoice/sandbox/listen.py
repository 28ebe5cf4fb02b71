"""Recognising the phrases: the recogniser, the process that it works in, and who waits for it.

pocketsphinx keeps the GIL while it decodes (5 to 40 ms a second of speech), and it is C that may
crash; so it works in a process of its own, which the server starts and which ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import struct
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ListenerDiedError", "Recogniser", "RecogniserPool"]

INSTALL: Final = "pip install pocketsphinx"

_RATE: Final = 24_000
_MODEL_RATE: Final = 16_000
_MARGIN_S: Final = (0.05, 0.10)
"""Kept before and after the speech; more of the room costs more than it tells."""
_GAIN: Final = 0.5
_LONGEST_S: Final = 8.0
"""No phrase is so long: what is longer is not understood, and not decoded either."""

# Tried in turn: noise added to the speech (dB below it) and silence before and after it (s). In
# digital silence the model misses a fifth of the phrases, with noise at -30 dB one in twenty.
_TRIES: Final = ((30.0, 0.15), (26.0, 0.40))

# A phrase counts if the grammar's path is not much worse than a path over any phones: by how much,
# depends on the frames of speech (n): 18 * ln(n) - 114. Fitted on 8 synthetic voices: 92 % of the
# phrases pass, 4 % of other sentences do.
_BIAS: Final = -114.0
_PER_LOG_FRAME: Final = 18.0
_LOG_BASE: Final = math.log(1.0001)

_LENGTH: Final = struct.Struct("<I")
_MAX_WORKERS: Final = 2
_HANGS_S: Final = 20.0
"""A process that has not answered for this long is killed."""
_LOADS_S: Final = 120.0
"""So is one that has not loaded its model: speech that comes before waits for it."""


class ListenerDiedError(Exception):
    """The process that recognises died twice over the same audio."""


class Recogniser:
    """pocketsphinx with the grammar of the phrases, and a loop of phones to compare with.

    It keeps nothing from one utterance to the next, so the same audio gives the same text.
    """

    def __init__(self) -> None:
        from pocketsphinx import Config, Decoder

        from rtvoice.sandbox.phrases import PHRASES, grammar

        self._known = {phrase.words for phrase in PHRASES}
        # CMN over the whole utterance: the running one remembers the speaker before.
        common: dict[str, Any] = {"lm": None, "loglevel": "FATAL", "cmn": "batch"}
        self._phrases = Decoder(Config(**common))
        self._phrases.add_jsgf_string("phrases", grammar())
        self._phrases.activate_search("phrases")
        self._phones = Decoder(Config(**common, allphone_ci=True))
        self._phones.add_allphone_file("phones", None)
        self._phones.activate_search("phones")

    def recognise(self, pcm: bytes) -> str:
        """Find the phrase that was said.

        Args:
            pcm: int16 little-endian mono, 24 kHz: one utterance, silence around it allowed.

        Returns:
            The phrase, or "" if it was none.
        """
        speech = _speech(pcm)
        if not 0 < len(speech) <= _LONGEST_S * _MODEL_RATE:
            return ""
        for below_db, pad_s in _TRIES:
            phrase = self._attempt(_dithered(speech, below_db, pad_s))
            if phrase:
                return phrase
        return ""

    def _attempt(self, audio: bytes) -> str:
        text, score, frames = _decode(self._phrases, audio)
        if text not in self._known or not frames:
            return ""
        _, other, _ = _decode(self._phones, audio)
        margin = (score - other) / frames
        return text if margin > _PER_LOG_FRAME * math.log(frames) + _BIAS else ""


def _decode(decoder: Any, audio: bytes) -> tuple[str, float, int]:
    """Run a decoder: what it found, the log of its score, and the frames that are not silence."""
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()
    best = decoder.hyp()
    if best is None:
        return "", 0.0, 0
    frames = sum(
        segment.end_frame - segment.start_frame + 1
        for segment in decoder.seg()
        if not segment.word.startswith(("<", "("))
    )
    # "what(2) time": the number of the pronunciation.
    return re.sub(r"\(\d+\)", "", best.hypstr), math.log(best.best_score) / _LOG_BASE, frames


def _speech(pcm: bytes) -> NDArray[np.float32]:
    """Cut the speech out by its own level, at one loudness and the model's rate."""
    import numpy as np

    from actors.devices.sound.resample import Resampler
    from rtvoice.sandbox.vad import speech_span

    samples = np.frombuffer(pcm, "<i2")
    first, end = speech_span(samples)
    if first == end:
        return np.zeros(0, np.float32)
    before, after = (int(margin * _RATE) for margin in _MARGIN_S)
    speech = samples[max(0, first - before) : end + after].astype(np.float32)
    speech *= _GAIN / np.abs(speech).max()
    resampler = Resampler(_RATE, _MODEL_RATE)
    return np.concatenate((resampler.process(speech), resampler.flush()))


def _dithered(speech: NDArray[np.float32], below_db: float, pad_s: float) -> bytes:
    import numpy as np

    padded = np.pad(speech, int(pad_s * _MODEL_RATE))
    level = float(np.sqrt(np.mean(padded**2))) * 10 ** (-below_db / 20)
    noise = np.random.default_rng(0).normal(0, level, len(padded))
    return (np.clip(padded + noise, -1, 1) * 32767).astype("<i2").tobytes()


class RecogniserPool:
    """Those who recognise: none, or processes started when they are needed.

    Args:
        wanted: False to have none, whatever is installed.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.available = wanted and find_spec("pocketsphinx") is not None
        self._turns = asyncio.Semaphore(_MAX_WORKERS)
        self._idle: list[_Worker] = []
        self._asking: set[asyncio.Task[str]] = set()

    async def warm(self) -> None:
        """Start the first process and wait until it has loaded the model."""
        if self.available:
            await self._ask_in_turn(b"")

    async def listen(self, pcm: bytes) -> str | None:
        """Find the phrase that was said, as `Recogniser.recognise` does.

        Returns:
            The phrase, "" if it was none, None if nothing here can recognise.

        Raises:
            ListenerDiedError: the process died, and so did the next.
        """
        if not self.available:
            return None
        return await self._ask_in_turn(pcm)

    async def close(self) -> None:
        """End the processes; who still waits for one of them is told nothing."""
        asking = list(self._asking)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._idle))
        self._idle.clear()

    async def _ask_in_turn(self, pcm: bytes) -> str:
        # A session that ends gives up its place here, and its audio is forgotten.
        await self._turns.acquire()
        # One that ends while its audio is decoded must not take the process with it.
        asking = asyncio.create_task(self._ask(pcm))
        self._asking.add(asking)
        asking.add_done_callback(self._end_turn)
        return await asyncio.shield(asking)

    def _end_turn(self, asking: asyncio.Task[str]) -> None:
        self._asking.discard(asking)
        self._turns.release()
        if not asking.cancelled():
            asking.exception()  # whoever asked may be gone

    async def _ask(self, pcm: bytes) -> str:
        for _ in range(2):
            worker = self._idle.pop() if self._idle else _Worker()
            try:
                await asyncio.wait_for(worker.load(), _LOADS_S)
                text = await asyncio.wait_for(worker.ask(pcm), _HANGS_S)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                await worker.end()
            except asyncio.CancelledError:
                await worker.end()
                raise
            else:
                self._idle.append(worker)
                return text
        raise ListenerDiedError


class _Worker:
    """One process that recognises. It ends when its stdin does, and so with us."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def load(self) -> None:
        """Start the process, if it does not run, and wait until it has loaded its model."""
        if self._process is None:
            await self._start()
            await self.ask(b"")  # the answer comes when the model is there

    async def ask(self, pcm: bytes) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_LENGTH.pack(len(pcm)) + pcm)
        await process.stdin.drain()
        (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
        return (await process.stdout.readexactly(length)).decode()

    async def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            # Reads what is left, too: a pipe that nobody reads to its end stays open.
            await self._process.communicate()

    async def _start(self) -> asyncio.subprocess.Process:
        from rtvoice.sandbox.launch import child_environment

        # Ctrl-C in the terminal is for the server, which then ends us.
        group: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "rtvoice.sandbox.listen",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
            **group,
        )
        return self._process


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each utterance with its text, until there are no more."""
    recogniser = Recogniser()
    while head := requests.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(head)
        text = recogniser.recognise(requests.read(length)).encode()
        answers.write(_LENGTH.pack(len(text)) + text)
        answers.flush()


def _main() -> None:
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
