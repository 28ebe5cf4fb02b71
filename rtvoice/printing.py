"""Printing for people and pipes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

__all__ = ["writing_to"]


def writing_to(out: TextIO) -> Callable[[str], None]:
    """Return what writes until nobody reads any more; the exit code may still be wanted."""

    def write(text: str) -> None:
        try:
            out.write(text)
            out.flush()
        except BrokenPipeError:  # once more, when Python flushes it at the end, would be told
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())

    return write
