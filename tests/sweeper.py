"""A plugin of pytest: no process outlives the test that has started it, nor pytest."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import orphans

__all__ = ["Sweeper", "shared", "unmarked"]

_PATIENCE_S = 5.0 * float(os.environ.get("RTVOICE_TEST_TIME_FACTOR", "1"))
"""How long a process whose parent was killed may take to notice."""
_PREFIX = "RTVOICE_TEST_RUN_"
_STARTING = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty")
"""Audit events of the interpreter."""


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Start, within a test, what others use too: it lives until pytest ends."""
    numbers = {name: v for name, v in os.environ.items() if name.startswith(_PREFIX)}
    os.environ.update(dict.fromkeys(numbers, "0"))
    try:
        yield
    finally:
        os.environ.update(numbers)


def unmarked() -> dict[str, str]:
    """Return the environment of what outlives even pytest."""
    return {name: v for name, v in os.environ.items() if not name.startswith(_PREFIX)}


class Sweeper:
    """Fails a test that leaves processes behind, and ends them.

    What a test starts bears its number, and what fixtures start 0: others may share it, so it lives
    until pytest ends. A second process looks after the case that pytest is killed.
    """

    def __init__(self) -> None:
        self._name = f"{_PREFIX}{os.getpid()}_{time.monotonic_ns()}"
        self._number = 0
        self._has_started = self._has_failed = False
        self._watch = self._start_watch()
        os.environ[self._name] = "0"
        sys.addaudithook(self._hear)

    def _start_watch(self) -> subprocess.Popen[bytes] | None:
        if not hasattr(os, "pidfd_open") or not Path("/proc/self/environ").exists():
            return None
        # It bears nobody's name: a pytest that is a test of ours is killed with all that it has
        # started, but for this. Of a terminal's signals it gets none.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", orphans.__file__, str(os.getpid()), self._name],
            env=unmarked(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _hear(self, event: str, _: tuple[Any, ...]) -> None:
        if event in _STARTING:
            self._has_started = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Mark what the test starts."""
        self._number += 1
        self._has_started = self._has_failed = False
        os.environ[self._name] = str(self._number)
        try:
            return (yield)
        except BaseException:
            self._has_failed = True
            raise
        finally:
            os.environ[self._name] = "0"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Look for what the test has left, once its fixtures have ended what they have started."""
        try:
            return (yield)
        finally:
            if self._has_started:
                self._has_started = False
                self._sweep()

    def _sweep(self) -> None:
        number = str(self._number)
        deadline = time.monotonic() + _PATIENCE_S
        while left := self._left(number):
            if self._has_failed or time.monotonic() > deadline:
                orphans.end(self._name, number)
            if not self._has_failed and time.monotonic() > deadline:
                pytest.fail(f"the test has left processes behind: {left}", pytrace=False)
            time.sleep(0.01)  # of what is not our child nobody tells us the end

    def _left(self, number: str) -> dict[int, str]:
        """Return what is left of a test but for our fork server, which later ones use too."""
        found = orphans.started_by(self._name, number)
        ours = f"messages.transport.forkserver of {os.getpid()}"
        return {pid: command for pid, command in found.items() if not command.endswith(ours)}

    def pytest_unconfigure(self) -> None:
        """End what is left of the fixtures' processes."""
        orphans.end(self._name)
        del os.environ[self._name]
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
