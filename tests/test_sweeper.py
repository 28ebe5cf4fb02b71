"""No process outlives a test that starts a conversation, however the test or pytest ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import orphans
from tests.rig import TIMEOUT_S, until

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="needs the /proc of Linux"
)
FACTOR = "RTVOICE_TEST_TIME_FACTOR"
ROOT = Path(__file__).resolve().parent.parent

# A conversation of the command lives on without whoever has started it. (One of a `Session` ends
# with its program, once its supervisor sees that.)
SUITE = """
import subprocess, sys, time
from pathlib import Path

QUIET = ("--input", "silence", "--output", "null", "--server", "ws://127.0.0.1:1")
started = []

def test_first():
    events = Path("started.jsonl").absolute()
    command = [sys.executable, "-m", "supervisor", "--events", str(events), *QUIET]
    started.append(subprocess.Popen(command, cwd={root!r}))
    while not events.exists() or b"\\n" not in events.read_bytes():
        time.sleep(0.01)
    {end}

def test_second():
    Path("second").write_text("reached")
    time.sleep(60)
"""
CONFTEST = """
from tests.sweeper import Sweeper

def pytest_configure(config):
    config.pluginmanager.register(Sweeper())
"""


class Nested:
    """A pytest on a file of its own, and all that it has started."""

    def __init__(self, folder: Path, end: str, *options: str) -> None:
        (folder / "test_it.py").write_text(SUITE.format(root=str(ROOT), end=end))
        (folder / "conftest.py").write_text(CONFTEST)
        self.folder = folder
        self._mark = f"RTVOICE_TEST_NESTED_{os.getpid()}_{folder.name}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), FACTOR: "0.2", self._mark: "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def reaches(self, name: str) -> None:
        """Wait until a test has written this file."""
        path = self.folder / name
        until(lambda: path.exists() and path.stat().st_size, f"no {name}", 3 * TIMEOUT_S)

    def processes(self) -> dict[int, str]:
        """Return the processes that it has started and that live."""
        found = orphans.started_by(self._mark)
        found.pop(self._process.pid, None)
        return {pid: command for pid, command in found.items() if "orphans.py" not in command}

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ends(self) -> str:
        """Wait for its end, and that of all that it has started; return what it printed."""
        out, _ = self._process.communicate(timeout=3 * TIMEOUT_S)
        until(lambda: not orphans.started_by(self._mark), "processes are left behind")
        return out

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        orphans.end(self._mark)


@pytest.fixture
def nested(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nested]:
    made = Nested(tmp_path, *request.param)
    yield made
    made.close()


@pytest.mark.parametrize("nested", [("raise ValueError",)], indirect=True)
def test_nothing_is_left_of_a_test_that_fails_while_the_next_one_runs(nested: Nested) -> None:
    nested.reaches("second")

    assert nested.processes() == {}


@pytest.mark.parametrize("nested", [("pass", "-k", "first")], indirect=True)
def test_a_test_that_passes_and_leaves_something_fails(nested: Nested) -> None:
    out = nested.ends()

    assert "the test has left processes behind" in out
    assert "-m supervisor" in out
    assert "1 passed" in out
    assert "1 error" in out


@pytest.mark.parametrize(
    "nested",
    [
        ("time.sleep(60)", "-k", "first", "--timeout=2", "--timeout-method=signal"),
        ("time.sleep(60)", "-k", "first", "--timeout=2", "--timeout-method=thread"),
        ("time.sleep(60)", "-k", "first", "--timeout=2", "--timeout-method=thread", "-n", "1"),
    ],
    ids=["signal", "thread", "thread in a worker"],
    indirect=True,
)
def test_nothing_is_left_of_a_test_that_takes_too_long(nested: Nested) -> None:
    assert "1 passed" not in nested.ends()


@pytest.mark.parametrize(
    ("number", "nested"),
    [
        (signal.SIGINT, ("time.sleep(60)",)),
        (signal.SIGTERM, ("time.sleep(60)",)),
        (signal.SIGKILL, ("time.sleep(60)",)),
        (signal.SIGKILL, ("time.sleep(60)", "-n", "1")),
    ],
    ids=["SIGINT", "SIGTERM", "SIGKILL", "SIGKILL with workers"],
    indirect=["nested"],
)
def test_nothing_is_left_of_a_pytest_that_is_ended(nested: Nested, number: int) -> None:
    nested.reaches("started.jsonl")
    assert len(nested.processes()) >= 7

    nested.signal(number)

    nested.ends()
