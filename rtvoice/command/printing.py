"""Printing for people and pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ["OutputError", "open_closed_streams", "writing_to"]


class OutputError(Exception):
    """What was asked for cannot be written; the text says why."""


def writing_to(out: TextIO) -> Callable[[str], None]:
    """Return what writes until nobody reads any more; the exit code may still be wanted.

    It raises an `OutputError` where it cannot write for any other reason, such as a full disk.
    """

    def write(text: str) -> None:
        try:
            out.write(text)
            out.flush()
        except BrokenPipeError:
            _discard_rest(out)
        except OSError as error:
            _discard_rest(out)
            raise OutputError(f"the output cannot be written: {error.strerror or error}") from None

    return write


def _discard_rest(out: TextIO) -> None:
    """Have what could not be written go nowhere: Python tries it again when it ends, and tells."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def open_closed_streams() -> None:
    """Have the standard streams that the caller has closed (``>&-``) go nowhere.

    Otherwise Python has none, and the next file that is opened gets the number of one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
