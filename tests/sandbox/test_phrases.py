"""The table of phrases."""

from __future__ import annotations

import pytest

from rtvoice.sandbox.phrases import PHRASES, Intent, find_phrase, grammar, printed_list


def test_every_intent_can_be_said():
    assert {phrase.intent for phrase in PHRASES} == set(Intent)


def test_no_two_phrases_are_the_same():
    assert len({phrase.words for phrase in PHRASES}) == len(PHRASES)


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.words)
def test_the_grammar_has_every_phrase(phrase):
    ways = grammar().split("=")[1].strip("; \n").split(" | ")

    assert phrase.words in ways


@pytest.mark.parametrize(
    ("text", "intent", "percent"),
    [
        ("What time is it?", Intent.TIME, None),
        ("  what is THE time ", Intent.TIME, None),
        ("What's your name?", Intent.NAME, None),
        ("Set the volume to 50%.", Intent.VOLUME, 50),
        ("set the volume to 100 percent", Intent.VOLUME, 100),
        ("set the volume to seventy percent", Intent.VOLUME, 70),
        ("Stop!", Intent.STOP, None),
    ],
)
def test_typed_text_may_have_case_punctuation_and_digits(text, intent, percent):
    phrase = find_phrase(text)

    assert phrase is not None
    assert (phrase.intent, phrase.percent) == (intent, percent)


@pytest.mark.parametrize("text", ["", "what time", "hello hello", "set the volume to 55 percent"])
def test_what_is_no_phrase_is_not_guessed(text):
    assert find_phrase(text) is None


def test_the_printed_list_has_the_volumes_in_one_line():
    lines = printed_list()

    assert len([line for line in lines if line.startswith("set the volume")]) == 1
    assert "hello" in lines
