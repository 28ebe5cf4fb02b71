"""The table of phrases that the sandbox understands, for recogniser, printed list and brain."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["PHRASES", "Intent", "Phrase", "find_phrase", "grammar", "plain_words", "printed_list"]


class Intent(StrEnum):
    """The meaning of a phrase."""

    GREET = "greet"
    TIME = "time"
    STORY = "story"
    COUNT = "count"
    FASTER = "faster"
    SLOWER = "slower"
    LOUDER = "louder"
    QUIETER = "quieter"
    VOLUME = "volume"
    RECALL = "recall"
    NAME = "name"
    THANKS = "thanks"
    STOP = "stop"
    GOODBYE = "goodbye"
    HELP = "help"


class Phrase(NamedTuple):
    """Words that the recogniser knows, and their meaning.

    `percent` is the volume, 10 to 100; None for all intents but `Intent.VOLUME`.
    """

    words: str
    intent: Intent
    percent: int | None = None


_TENS: Final = {
    "ten": 10,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "one hundred": 100,
}

PHRASES: Final[tuple[Phrase, ...]] = (
    Phrase("hello", Intent.GREET),
    Phrase("what time is it", Intent.TIME),
    Phrase("what is the time", Intent.TIME),
    Phrase("tell me a story", Intent.STORY),
    Phrase("count to twenty", Intent.COUNT),
    Phrase("speak faster", Intent.FASTER),
    Phrase("speak slower", Intent.SLOWER),
    Phrase("louder", Intent.LOUDER),
    Phrase("quieter", Intent.QUIETER),
    *(
        Phrase(f"set the volume to {words} percent", Intent.VOLUME, percent)
        for words, percent in _TENS.items()
    ),
    Phrase("what did i say", Intent.RECALL),
    Phrase("what is your name", Intent.NAME),
    Phrase("thank you", Intent.THANKS),
    Phrase("stop", Intent.STOP),
    Phrase("goodbye", Intent.GOODBYE),
    Phrase("help", Intent.HELP),
)

_OTHER_WORDS: Final = ("yes", "no")
"""Common words that would be heard as `hello`; more of these make the phrases less reliable."""

_BY_WORDS: Final = {phrase.words: phrase for phrase in PHRASES}
_PERCENT: Final = {str(percent): words for words, percent in _TENS.items()}


def find_phrase(text: str) -> Phrase | None:
    """Return the phrase of a text, regardless of case and punctuation; None: it is none."""
    return _BY_WORDS.get(plain_words(text))


def plain_words(text: str) -> str:
    """Return a text in the form of the table: lower case, no punctuation, `50%` in words."""
    text = text.lower().replace("%", " percent ").replace("what's", "what is")
    words = re.findall(r"[a-z]+|\d+", text.replace("'", ""))
    return " ".join(_PERCENT.get(word, word) for word in words)


def grammar() -> str:
    """Return a JSGF grammar (https://www.w3.org/TR/jsgf/) of the table and `_OTHER_WORDS`."""
    ways = " | ".join([*(phrase.words for phrase in PHRASES), *_OTHER_WORDS])
    return f"#JSGF V1.0;\ngrammar sandbox;\npublic <phrase> = {ways};\n"


def printed_list() -> list[str]:
    """Return the table for users: a line for each phrase, and one for all volumes."""
    shown = [phrase for phrase in PHRASES if phrase.percent in (None, 50)]
    return [
        phrase.words.replace(" i ", " I ")
        + ("" if phrase.percent is None else "  (ten, twenty ... one hundred)")
        for phrase in shown
    ]
