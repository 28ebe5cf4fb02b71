"""Paths in settings and messages, also those that are not UTF-8.

Python decodes each byte of a path that is not UTF-8 as a lone surrogate (`os.fsdecode`), which no
message can contain. In settings and messages two noncharacters stand for such a byte instead,
U+FDD0..U+FDDF and U+FDE0..U+FDEF: Unicode reserves them for internal use, so that no name has them.

A path is put into this form where it enters (the settings in `messages.validation`, the directory
of the session in `supervisor`, images in realtime) and taken out of it where it is used
(`actors.files.path_of`, `SessionInfo.file`).
"""

from __future__ import annotations

import re

__all__ = ["path_of_text", "printable", "text_of_path"]

_BYTE = re.compile("[\udc80-\udcff]")
_HIGH, _LOW = 0xFDD0, 0xFDE0
_CARRIED = re.compile("([\ufdd0-\ufddf])([\ufde0-\ufdef])")


def text_of_path(path: str) -> str:
    """Return a path in the form that messages can contain; of such a form, the same."""
    return _BYTE.sub(_carry, path)


def path_of_text(text: str) -> str:
    """Return the path that a text of `text_of_path` stands for; of a path, the same."""
    return _CARRIED.sub(_restore, text)


def printable(text: str) -> str:
    r"""Return a text as it is shown, with ``\udcff`` for a byte of a path that is not UTF-8."""
    return path_of_text(text).encode("utf-8", "backslashreplace").decode()


def _carry(byte: re.Match[str]) -> str:
    number = ord(byte[0]) & 0xFF
    return chr(_HIGH + (number >> 4)) + chr(_LOW + (number & 15))


def _restore(pair: re.Match[str]) -> str:
    return chr(0xDC00 + (ord(pair[1]) - _HIGH << 4) + (ord(pair[2]) - _LOW))
