"""The lenient JSON reader."""

from __future__ import annotations

import pytest

from actors.lenient import loads, repaired


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"party \ud83d"', "party \ufffd"),
        (r'"\ude00 party"', "\ufffd party"),
        (r'"\ud83d\ude00"', "😀"),
        (r'{"\ud83d": ["\udc80", "b\ud83dc"]}', {"\ufffd": ["\ufffd", "b\ufffdc"]}),
        (r"[NaN, -Infinity, 1.5, null]", [None, None, 1.5, None]),
        (b'"caf\xe9"', "caf\ufffd"),
    ],
)  # fmt: skip
def test_what_stands_for_no_character_is_replaced(text: str | bytes, value: object) -> None:
    assert loads(text) == value


@pytest.mark.parametrize("text", ["", "{", "nothing", "[" * 100_000, '"a" "b"'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_a_text_without_halves_stays_as_it_is() -> None:
    for text in ("", "plain", "naïve 😀 日本"):
        assert repaired(text) == text
