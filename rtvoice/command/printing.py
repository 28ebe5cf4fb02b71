"""Writing to standard output, which may be a terminal, a closed pipe or a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

from rtvoice.view.wrapping import wrapped

__all__ = ["OutputError", "discard_rest", "fitting", "open_closed_streams", "writing_to"]


class OutputError(Exception):
    """Raised if the output cannot be written; the message says why."""


def fitting(text: str, stream: TextIO) -> str:
    """Return a text as it is written to a stream: at a terminal its lines end between words."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no terminal
        return text
    lines = text.split("\n")
    return "\n".join(
        "\n".join(line[start:end] for start, end in wrapped(line, width))
        if len(line) > width > 0 and not line.startswith(" ")  # not of a traceback
        else line
        for line in lines
    )


def writing_to(out: TextIO) -> Callable[[str], None]:
    """Return a function that writes to a stream.

    Once the reader has closed the pipe it writes nothing and does not raise, because the caller may
    still want the exit code. It raises an `OutputError` if it cannot write for any other reason,
    such as a full disk.
    """

    def write(text: str) -> None:
        try:
            out.write(text)
            out.flush()
        except BrokenPipeError:
            discard_rest(out)
        except OSError as error:
            discard_rest(out)
            raise OutputError(f"the output cannot be written: {error.strerror or error}") from None

    return write


def discard_rest(out: TextIO) -> None:
    """Redirect a stream that has failed to nowhere.

    Otherwise Python tries to write the buffered rest at exit, and changes the exit code to 120.
    """
    with contextlib.suppress(OSError, ValueError):  # it has no descriptor, or is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def open_closed_streams() -> None:
    """Redirect the standard streams that the caller has closed (``>&-``) to nowhere.

    Otherwise ``sys.stdout`` and the like are None, and the next file that is opened gets the
    descriptor of one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
