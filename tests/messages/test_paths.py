"""Paths that are not UTF-8 become texts that messages can contain, and paths again."""

from __future__ import annotations

import os

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from messages import Notice, Settings, decode, encode, validation
from messages.paths import path_of_text, printable, text_of_path


@given(st.binary().filter(lambda name: b"\xef\xb7" not in name))
def test_every_path_comes_back(name: bytes) -> None:
    path = os.fsdecode(name)

    text = text_of_path(path)

    text.encode()  # it is valid Unicode
    assert os.fsencode(path_of_text(text)) == name


@given(st.binary())
def test_the_form_of_a_form_is_the_same(name: bytes) -> None:
    text = text_of_path(os.fsdecode(name))

    assert text_of_path(text) == text


def test_a_path_of_both_forms_is_shown_alike() -> None:
    path = os.fsdecode(b"caf\xe9/\xc3\xa9.wav")

    assert printable(path) == printable(text_of_path(path)) == "caf\\udce9/é.wav"


def test_settings_carry_paths_however_often_they_are_checked() -> None:
    path = os.fsdecode(b"in\xff.wav")

    once = validation.checked_settings({"input": path, "import_path": (path, "b")})
    twice = validation.checked_settings(msgspec.to_builtins(once))

    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(twice), type=Settings)
    assert path_of_text(arrived.input) == path
    assert [*map(path_of_text, arrived.import_path)] == [path, "b"]


def test_a_text_of_a_message_may_quote_a_path_that_is_not_utf_8() -> None:
    arrived = decode(encode(Notice(f"there is no {os.fsdecode(b'in' + bytes([255]))}")))

    assert arrived == Notice("there is no in\\udcff")
