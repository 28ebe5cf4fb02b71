"""Speech synthesis: text in, int16 at 24 kHz out, by espeak-ng or by built-in tones."""

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
"""Samples of the first piece: short, so that speech begins early."""
_PIECE: Final = RATE // 5
"""Samples of all other pieces."""

# espeak variants that differ from each other, by the names of OpenAI's voices.
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
"""Time by which one unit of espeak's `-g` lengthens a word, at 80 words a minute (measured)."""
_PARALLEL: Final = 4
"""Maximum number of espeak processes at a time."""
_CHARACTERS_PER_S: Final = 18.0
"""Assumed rate of speech at speed 1. Real rates are 13 to 15, so the words stay ahead."""
_WAV_HEAD: Final = 44
"""Length of the WAV header. espeak-ng cannot know the lengths in it yet, so they are wrong."""
_READ_BYTES: Final = 8192


class Piece(NamedTuple):
    """A piece of speech.

    Attributes:
        words: The words to send with it, including the spaces between them; may be empty.
        pcm: int16 little-endian mono, 24 kHz, at most 200 ms.
    """

    words: list[str]
    pcm: bytes


class Synthesizer(Protocol):
    """The interface of a voice."""

    name: str

    def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        """Speak a sentence.

        Args:
            sentence: The sentence.
            voice: As `session.audio.output.voice`: a name, or an object with an `id`.
            speed: From 0.25 to 1.5; 1 is normal.

        Yields:
            int16 little-endian mono, 24 kHz, in blocks of any length.
        """
        ...


def choose_voice(*, builtin: bool = False) -> Synthesizer:
    """Return espeak-ng if it is installed, else the built-in tones."""
    program = None if builtin else shutil.which("espeak-ng")
    return EspeakVoice(program) if program else ToneVoice()


async def utter(text: str, voice: Synthesizer, name: Any, speed: float) -> AsyncGenerator[Piece]:
    """Speak a text, and yield the first pieces before the rest is computed.

    The words come ahead of the sound, as they do at the service.
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
    """Split a text after `.`, `!` and `?`; the sentences joined are the text again."""
    return [each for each in re.split(r"(?<=[.!?])(?=\s)", text.strip()) if each]


def split_words(text: str) -> list[str]:
    """Split a text before the space of each word; the words joined are the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


class _Words:
    """The words of a sentence, each of which is due a little before it is heard."""

    def __init__(self, sentence: str, speed: float) -> None:
        self._waiting = deque(split_words(sentence))
        self._samples_per_character = RATE / (_CHARACTERS_PER_S * speed)
        self._spoken = 0.0
        self._given = 0.0

    def due(self, samples: int) -> list[str]:
        """Return the words to send with the next samples."""
        self._spoken += samples
        due = []
        while self._waiting and self._given < self._spoken:
            due.append(self._waiting.popleft())
            self._given += len(due[-1]) * self._samples_per_character
        return due

    def rest(self) -> list[str]:
        """Return the words that are left at the end of the sentence."""
        return list(self._waiting)


class EspeakVoice:
    """A voice by the program espeak-ng, started for each sentence (15 ms to the first sound)."""

    name = "espeak-ng"

    def __init__(self, program: str) -> None:
        self._program = program
        self._running = asyncio.Semaphore(_PARALLEL)
        self._fallback = ToneVoice()

    async def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        variant = _ESPEAK.get(voice, _OTHER_VOICE) if isinstance(voice, str) else _OTHER_VOICE
        wanted = _WORDS_PER_MINUTE * speed
        # espeak-ng does not speak slower than 80 words a minute: add gaps between the words.
        pace = max(_SLOWEST_WPM, round(wanted))
        gap = max(0, round((60 / wanted - 60 / pace) / _GAP_UNIT_S))
        spoken = False
        async with self._running:
            options = ("-v", variant, "-s", str(pace), "-g", str(gap))
            async with aclosing(self._run(sentence, options)) as blocks:
                async for block in blocks:
                    spoken = True
                    yield block
        if not spoken and sentence.strip(" .,!?"):  # espeak-ng has failed
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
            # A caller that does not need the rest closes the generator while espeak still writes.
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
    """A voice for machines without espeak-ng: a tone for each syllable, without words.

    Each group of vowels becomes a tone with the formants of its first vowel, with pauses at commas
    and full stops. So it has the rhythm and the length of the text, which is enough to try
    interruption, volume and speed.
    """

    name = "built-in tones"

    async def say(self, sentence: str, voice: Any, speed: float) -> AsyncGenerator[bytes]:
        yield await asyncio.to_thread(self.tones, sentence, voice, speed)

    def tones(self, sentence: str, voice: Any, speed: float) -> bytes:
        """Return a sentence as tones; it blocks."""
        import numpy as np

        words = sentence.split()
        pitch = _pitch_of(voice)
        sound = []
        for index, word in enumerate(words):
            # The pitch falls, as in a statement.
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
