"""Speaking: text in, int16 at 24 kHz out, by espeak-ng or by a voice of our own."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from rtvoice.sandbox.audio import RATE, to_pcm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EspeakVoice",
    "Piece",
    "Synthesizer",
    "ToneVoice",
    "choose_voice",
    "sentences",
    "split_words",
    "utter",
]

INSTALL: Final = "apt-get install espeak-ng"

_FIRST_PIECE: Final = RATE // 10
_PIECE: Final = RATE // 5

# Variants that sound different from each other; the names are OpenAI's.
_ESPEAK: Final = {
    "alloy": "en-us",
    "ash": "en-us+m3",
    "ballad": "en+m2",
    "coral": "en-us+f3",
    "echo": "en-us+m7",
    "sage": "en+f2",
    "shimmer": "en-us+f4",
    "verse": "en-us+m1",
    "marin": "en-us+f2",
    "cedar": "en-gb-scotland+m3",
}
_OTHER_VOICE: Final = "en-us+m5"
_WORDS_PER_MINUTE: Final = 165
_SLOWEST_WPM: Final = 80
_GAP_UNIT_S: Final = 0.038
"""What one unit of espeak's `-g` lengthens a word by, at 80 words a minute (measured)."""
_PARALLEL: Final = 4
_CHARACTERS_PER_S: Final = 18.0
"""More than anybody speaks at speed 1 (13 to 15), so that the words stay ahead."""
_WAV_HEAD: Final = 44
"""espeak-ng writes this head, with lengths that are wrong: it does not know them yet."""
_READ_BYTES: Final = 8192


class Piece(NamedTuple):
    """A stretch of speech.

    Attributes:
        words: said in it, with the spaces between them; may be empty.
        pcm: int16 little-endian mono, 24 kHz, at most 200 ms.
    """

    words: list[str]
    pcm: bytes


class Synthesizer(Protocol):
    """Whatever can speak a sentence."""

    name: str

    def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        """Speak.

        Args:
            sentence: what to say.
            voice: as `session.audio.output.voice`: a name, or an object with an `id`.
            speed: 0.25..1.5, where 1 is usual.

        Yields:
            int16 little-endian mono, 24 kHz, blocks of any length.
        """
        ...


def choose_voice(*, builtin: bool = False) -> Synthesizer:
    """Take espeak-ng if this machine has it, else our own."""
    program = None if builtin else shutil.which("espeak-ng")
    return EspeakVoice(program) if program else ToneVoice()


async def utter(text: str, voice: Synthesizer, name: Any, speed: float) -> AsyncGenerator[Piece]:
    """Speak a text, so that the first sound is there before the rest is computed.

    The words run ahead of the sound, as they do at the service.
    """
    size = _FIRST_PIECE
    for sentence in sentences(text):
        words = _Words(sentence, speed)
        waiting = b""
        async with aclosing(voice.say(sentence, name, speed)) as blocks:
            async for block in blocks:
                waiting += block
                while len(waiting) >= 2 * size:
                    yield Piece(words.due(size), waiting[: 2 * size])
                    waiting = waiting[2 * size :]
                    size = _PIECE
        yield Piece(words.rest(), waiting)


def sentences(text: str) -> list[str]:
    """Split a text after `.`, `!` and `?`; put together again, the sentences are the text."""
    return [each for each in re.split(r"(?<=[.!?])(?=\s)", text.strip()) if each]


def split_words(text: str) -> list[str]:
    """Split a text before each word's space; put together again, the words are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


class _Words:
    """The words of a sentence, given out a little before they are heard."""

    def __init__(self, sentence: str, speed: float) -> None:
        self._waiting = deque(split_words(sentence))
        self._samples_per_character = RATE / (_CHARACTERS_PER_S * speed)
        self._spoken = 0.0
        self._given = 0.0

    def due(self, samples: int) -> list[str]:
        self._spoken += samples
        due = []
        while self._waiting and self._given < self._spoken:
            due.append(self._waiting.popleft())
            self._given += len(due[-1]) * self._samples_per_character
        return due

    def rest(self) -> list[str]:
        return list(self._waiting)


class EspeakVoice:
    """Speech by the program espeak-ng, started once a sentence (15 ms to the first sound)."""

    name = "espeak-ng"

    def __init__(self, program: str) -> None:
        self._program = program
        self._running = asyncio.Semaphore(_PARALLEL)
        self._fallback = ToneVoice()

    async def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        variant = _ESPEAK.get(voice, _OTHER_VOICE) if isinstance(voice, str) else _OTHER_VOICE
        wanted = _WORDS_PER_MINUTE * speed
        pace = max(_SLOWEST_WPM, round(wanted))
        gap = max(0, round((60 / wanted - 60 / pace) / _GAP_UNIT_S))
        spoken = False
        async with self._running:
            options = ("-v", variant, "-s", str(pace), "-g", str(gap))
            async with aclosing(self._run(sentence, options)) as blocks:
                async for block in blocks:
                    spoken = True
                    yield block
        if not spoken and sentence.strip(" .,!?"):
            async with aclosing(self._fallback.say(sentence, voice, speed)) as blocks:
                async for block in blocks:
                    yield block

    async def _run(self, sentence: str, options: tuple[str, ...]) -> AsyncGenerator[bytes]:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *options,
                "--stdin",
                "--stdout",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(sentence.encode())
            process.stdin.close()
            async with aclosing(_from_wav(process.stdout)) as blocks:
                async for block in blocks:
                    yield block
        finally:
            # Whoever does not want the rest leaves us here, with espeak still writing.
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def _from_wav(stream: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    import numpy as np

    from actors.devices.sound.resample import Resampler

    head = await stream.read(_WAV_HEAD)
    while len(head) < _WAV_HEAD and (more := await stream.read(_WAV_HEAD - len(head))):
        head += more
    if len(head) < _WAV_HEAD or not head.startswith(b"RIFF"):
        return
    resampler = Resampler(int.from_bytes(head[24:28], "little"), RATE)
    odd = b""
    while block := await stream.read(_READ_BYTES):
        block = odd + block
        odd = block[len(block) // 2 * 2 :]
        samples = np.frombuffer(block, "<i2", len(block) // 2).astype(np.float32)
        yield to_pcm(resampler.process(samples))
    yield to_pcm(resampler.flush())


_VOWELS: Final = {
    "a": (730, 1090),
    "e": (530, 1840),
    "i": (270, 2290),
    "o": (570, 840),
    "u": (300, 870),
    "y": (300, 2000),
}
_SYLLABLE_S: Final = 0.17
_PAUSE_S: Final = {",": 0.20, ";": 0.20, ":": 0.20, ".": 0.30, "!": 0.30, "?": 0.30}
_WORD_PAUSE_S: Final = 0.05
_LOWEST_HZ, _HIGHEST_HZ = 105.0, 230.0


class ToneVoice:
    """A voice for machines without one: a tone for each syllable, which nobody can understand.

    One tone a group of vowels, coloured as that vowel, with pauses at commas and full stops: it has
    the rhythm and the length of the text, so interruption, volume and speed can be tried with it.
    """

    name = "built-in tones"

    async def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        yield await asyncio.to_thread(self.tones, sentence, voice, speed)

    def tones(self, sentence: str, voice: Any, speed: float) -> bytes:
        import numpy as np

        words = sentence.split()
        pitch = _pitch_of(voice)
        sound = []
        for index, word in enumerate(words):
            # The melody falls, as it does in a statement.
            hz = pitch * (1.1 - 0.25 * index / max(1, len(words)))
            sound += [_tone(vowel, hz, speed) for vowel in _syllables(word)]
            pause_s = _PAUSE_S.get(word[-1], _WORD_PAUSE_S) / speed
            sound.append(np.zeros(int(pause_s * RATE), np.float32))
        whole = np.concatenate(sound) if sound else np.zeros(0, np.float32)
        return (whole * 32767).astype("<i2").tobytes()


def _pitch_of(voice: Any) -> float:
    names = list(_ESPEAK)
    place = names.index(voice) if voice in names else 0
    return _LOWEST_HZ + (_HIGHEST_HZ - _LOWEST_HZ) * place / (len(names) - 1)


def _syllables(word: str) -> list[str]:
    groups = re.findall(r"[aeiouy]+|\d", word.lower())
    return [group[0] if group[0] in _VOWELS else "a" for group in groups] or ["e"]


def _tone(vowel: str, hz: float, speed: float) -> NDArray[np.float32]:
    import numpy as np

    at = np.arange(int(_SYLLABLE_S / speed * RATE), dtype=np.float32) / RATE
    sound = np.zeros(len(at), np.float32)
    for harmonic in range(1, int(3500 / hz)):
        near = (abs(harmonic * hz - formant) / 120 for formant in _VOWELS[vowel])
        loudness = sum(1 / (1 + distance**2) for distance in near) + 0.05
        sound += np.float32(loudness) * np.sin(np.float32(2 * np.pi * harmonic * hz) * at)
    edge = np.minimum(1, np.minimum(at, at[::-1]) / np.float32(0.02))
    tone: NDArray[np.float32] = 0.3 * sound * edge / np.abs(sound).max()
    return tone
