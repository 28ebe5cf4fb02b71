"""The results of checks, and running a check with a time limit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

__all__ = ["Check", "Result", "Status", "ok", "problem", "warning", "within"]

Status = Literal["ok", "warning", "problem"]


class Result(msgspec.Struct, frozen=True):
    """One line of the report."""

    check: str
    status: Status
    """``problem``: a session would not work. ``warning``: it would, with a limitation."""
    text: str
    """What was found, and how to fix it."""


Check = Callable[[], Iterable[Result]]


def ok(check: str, text: str) -> Result:
    """Return a result without a problem."""
    return Result(check, "ok", text)


def warning(check: str, text: str) -> Result:
    """Return a limitation of a session."""
    return Result(check, "warning", text)


def problem(check: str, text: str) -> Result:
    """Return a reason why a session would not work."""
    return Result(check, "problem", text)


def within(limit_s: float, name: str, check: Check) -> Iterator[Result]:
    """Yield the results of a check as they come. A check that hangs is abandoned on its thread."""
    found: queue.SimpleQueue[Result | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            for result in check():
                found.put(result)
        except Exception as error:  # noqa: BLE001 - the other checks go on
            found.put(problem(name, f"this check has failed: {type(error).__name__}: {error}"))
        found.put(None)

    threading.Thread(target=run, name=f"check of {name}", daemon=True).start()
    end = time.monotonic() + limit_s
    while True:
        try:
            result = found.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            yield problem(name, f"this check has not ended within {limit_s:g} s")
            return
        if result is None:
            return
        yield result
