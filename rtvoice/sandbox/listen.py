"""Recognition of the phrases: the recogniser, its process, and the pool of processes.

pocketsphinx holds the GIL while it decodes (5 to 40 ms for a second of speech), and it is C code
that may crash. So it runs in a separate process, which the server starts and which ends with it.
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

_RATE: Final = 24_000
_MODEL_RATE: Final = 16_000
_MARGIN_S: Final = (0.05, 0.10)
"""Audio kept before and after the speech; more of it costs time and helps no recognition."""
_GAIN: Final = 0.5
_LONGEST_S: Final = 8.0
"""No phrase is longer. Longer speech is not decoded and counts as not understood."""

# The attempts: dB by which added noise is below the speech, and seconds of padding on each side.
# In digital silence the model misses a fifth of the phrases, with noise at -30 dB one in twenty.
_TRIES: Final = ((30.0, 0.15), (26.0, 0.40))

# A phrase is accepted if its score is not much worse than that of free phones. The limit per frame
# depends on the number n of frames of speech: 18 * ln(n) - 114. It was fitted on 8 synthetic
# voices: 92 % of the phrases pass, and 4 % of other sentences do.
_BIAS: Final = -114.0
_PER_LOG_FRAME: Final = 18.0
_LOG_BASE: Final = math.log(1.0001)

_LENGTH: Final = struct.Struct("<I")
_MAX_WORKERS: Final = 2
_HANGS_S: Final = 20.0
"""Time after which a process that has not answered is replaced."""
_LOADS_S: Final = 120.0
"""Time in which a process must load its model; speech waits for it until then."""


class ListenerDiedError(Exception):
    """Raised if two recogniser processes have failed on the same audio."""


class Recogniser:
    """pocketsphinx with the grammar of the phrases, and with free phones for comparison.

    It keeps no state between utterances, so the same audio always gives the same text.
    """

    def __init__(self) -> None:
        from pocketsphinx import Config, Decoder

        from rtvoice.sandbox.phrases import PHRASES, grammar

        self._known = {phrase.words for phrase in PHRASES}
        # Cepstral means over the whole utterance: running means would remember the last speaker.
        common: dict[str, Any] = {"lm": None, "loglevel": "FATAL", "cmn": "batch"}
        self._phrases = Decoder(Config(**common))
        self._phrases.add_jsgf_string("phrases", grammar())
        self._phrases.activate_search("phrases")
        self._phones = Decoder(Config(**common, allphone_ci=True))
        self._phones.add_allphone_file("phones", None)
        self._phones.activate_search("phones")

    def recognise(self, pcm: bytes) -> str:
        """Return the phrase that was said.

        Args:
            pcm: int16 little-endian mono, 24 kHz: one utterance, with any silence around it.

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
    """Return the text that a decoder finds, the log of its score, and its frames of speech."""
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
    # Remove the number of a pronunciation: "what(2) time".
    return re.sub(r"\(\d+\)", "", best.hypstr), math.log(best.best_score) / _LOG_BASE, frames


def _speech(pcm: bytes) -> NDArray[np.float32]:
    """Return the speech without the silence around it, at a fixed peak and the model's rate."""
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
    """A pool of recogniser processes, started when they are needed; empty without pocketsphinx.

    Args:
        wanted: False: recognise nothing, even if pocketsphinx is installed.
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
        """Return the phrase that was said, as `Recogniser.recognise` does.

        Returns:
            The phrase; "" if it was none; None if there is no recogniser.

        Raises:
            ListenerDiedError: The process has failed, and so has the next one.
        """
        if not self.available:
            return None
        return await self._ask_in_turn(pcm)

    async def close(self) -> None:
        """End the processes, and cancel the requests that still wait for them."""
        asking = list(self._asking)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._idle))
        self._idle.clear()

    async def _ask_in_turn(self, pcm: bytes) -> str:
        # A session that ends is cancelled here: its request leaves the queue.
        await self._turns.acquire()
        # A session that ends during the decoding must not cancel it, which would end the process.
        asking = asyncio.create_task(self._ask(pcm))
        self._asking.add(asking)
        asking.add_done_callback(self._end_turn)
        return await asyncio.shield(asking)

    def _end_turn(self, asking: asyncio.Task[str]) -> None:
        self._asking.discard(asking)
        self._turns.release()
        if not asking.cancelled():
            asking.exception()  # mark it as retrieved: the session may have ended

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
    """One recogniser process. It ends at the end of its stdin, and so with the server."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def load(self) -> None:
        """Start the process, if it does not run, and wait until it has loaded its model."""
        if self._process is None:
            await self._start()
            await self.ask(b"")  # an empty utterance is answered once the model is loaded

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
            # This also reads what is left: a pipe that is not read to its end stays open.
            await self._process.communicate()

    async def _start(self) -> asyncio.subprocess.Process:
        from rtvoice.sandbox.launch import child_environment

        # Its own process group: Ctrl-C in the terminal must reach only the server, which ends it.
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
    """Answer each utterance with its text, until the end of the requests."""
    recogniser = Recogniser()
    while head := requests.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(head)
        text = recogniser.recognise(requests.read(length)).encode()
        answers.write(_LENGTH.pack(len(text)) + text)
        answers.flush()


def _main() -> None:
    # Text that a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
