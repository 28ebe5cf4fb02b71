"""What a redaction function is given, and what is left out without it."""

from __future__ import annotations

import pytest

from actors.redaction import passed, redacted
from messages import (
    AssistantItem,
    AssistantTranscript,
    ComponentCrashed,
    Interrupted,
    Message,
    OutputReplaced,
    SentImage,
    ToolAnswer,
    ToolCall,
    Turn,
    UserItem,
    UserTranscript,
)


def hide(text: str) -> str:
    return text.replace("secret", "******")


@pytest.mark.parametrize(
    "message",
    [
        UserItem("u", None, "a secret", spoken=False, transcript_expected=False),
        UserTranscript("u", "a secret"),
        UserTranscript("u", "", "no transcript of a secret"),
        AssistantItem("a", None, "r", "a secret", "completed"),
        Turn("user", "a secret", "u"),
        ToolCall("c", "look", '{"what": "a secret"}'),
        ToolAnswer("c", "look", "a secret"),
        OutputReplaced("c", "a secret"),
        ComponentCrashed("tools", 7, "ValueError: a secret"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_each_text_is_what_the_function_makes_of_it(message: Message) -> None:
    kept = str(redacted(message, hide))

    assert "secret" not in kept
    assert "******" in kept


@pytest.mark.parametrize(
    "message",
    [
        Interrupted("a", 500, "a sec"),
        AssistantTranscript("a", "a sec"),
        AssistantItem("a", None, "r", "a sec", "in_progress"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_part_of_a_text_in_which_nothing_is_recognised_is_left_out(message: Message) -> None:
    assert "sec" not in str(redacted(message, hide))


def test_no_image_is_named() -> None:
    image = SentImage("a/path.png", "image/png")
    turn = UserItem("u", None, "", spoken=False, transcript_expected=False, image=image)

    assert redacted(turn, hide).image is None


def test_a_function_that_raises_or_returns_no_text_keeps_nothing() -> None:
    for function in (lambda text: text / 2, lambda _: None):
        assert passed("secret", function) == "[not kept: the redaction function failed]"
