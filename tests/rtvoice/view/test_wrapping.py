"""Where text may be wrapped, in every script, and how many cells it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rtvoice.view.wrapping import printable, shortened, width_of, wrapped

ASTRONAUT = "\U0001f469\u200d\U0001f680"


def lines(text: str, width: int, used: int = 0) -> list[str]:
    return [text[start:end] for start, end in wrapped(text, width, used)]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("One two three", 7, ["One two", "three"]),
        ("One two", 7, ["One two"]),
        ("incomprehensible", 6, ["incomp", "rehens", "ible"]),
        ("so incomprehensible", 6, ["so", "incomp", "rehens", "ible"]),
        ("日本語のテキスト", 6, ["日本語", "のテキ", "スト"]),
        ("日本語、はい。", 6, ["日本", "語、は", "い。"]),
        ("「日本」", 4, ["「日", "本」"]),
        ("สวัสดีครับ", 4, ["สวัสดี", "ครับ"]),
        ("fo\u0308r fo\u0308r", 3, ["fo\u0308r", "fo\u0308r"]),
        (
            "\U0001f469\u200d\U0001f680\U0001f469\u200d\U0001f680",
            2,
            ["\U0001f469\u200d\U0001f680"] * 2,
        ),
        ("שלום עולם", 5, ["שלום", "עולם"]),
        ("a\n\nb", 9, ["a", "", "b"]),
        ("", 9, [""]),
    ],
)
def test_lines_are_wrapped_where_the_script_allows(
    text: str, width: int, expected: list[str]
) -> None:
    assert lines(text, width) == expected


def test_the_first_line_has_room_for_what_stands_before_it() -> None:
    assert lines("One two three", 8, used=5) == ["One", "two", "three"]


@given(st.text(), st.integers(2, 30))
def test_no_letter_is_lost_and_no_line_is_too_wide(text: str, width: int) -> None:
    text = printable(text)

    shown = lines(text, width)

    assert "".join("".join(shown).split()) == "".join(text.split())
    assert all(width_of(line.strip()) <= width for line in shown)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "日本語",
        "สวัสดี",
        "e\u0301",
        "\u2764\ufe0f",
        "\U0001f44d\U0001f3fd",
        "가나다",
        "שלום",
        "①…—",
    ],
)
def test_the_screen_counts_the_same_cells(text: str) -> None:
    assert width_of(text) == cell_len(text)


def test_a_text_is_cut_with_an_ellipsis_and_never_within_a_letter() -> None:
    assert shortened("lighthouse", 10) == "lighthouse"
    assert shortened("lighthouse", 6) == "light…"
    assert shortened("日本語", 4) == "日…"
    assert shortened("lighthouse", 0) == ""


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\nc") == "a [2Jb c"
    assert printable("a\nb\x07", lines=True) == "a\nb "
