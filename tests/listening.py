"""A command that listens, as a process: what the tests of ``serve`` and ``fleet`` share."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from rtvoice.testing import SandboxServer
from tests.rig import TIMEOUT_S

__all__ = ["SHOP", "Listening", "command", "exit_code", "sandbox", "shop"]

SHOP = """
import logging
from rtvoice import Agent

def make_agent(call):
    logging.getLogger("shop").info("a customer")
    return Agent(transcription_model="gpt-transcribe", inactivity_timeout_s=None)

agent = Agent()
number = 7
"""
T = TypeVar("T", bound="Listening")


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=4, timeout_s=2 * TIMEOUT_S) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def command(*words: str) -> list[str]:
    """Return the command with arguments."""
    return [sys.executable, "-m", "supervisor", *words]


def exit_code(arguments: list[str], shop: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; return its exit code."""
    from rtvoice.command.cli import run

    monkeypatch.chdir(shop)
    monkeypatch.setattr(f"rtvoice.command.{arguments[0]}.set_up_logging", lambda *_: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    try:
        return run(arguments)
    except SystemExit as end:  # argparse
        return int(str(end.code))


class Listening:
    """A command that serves ``shop.py:make_agent``, from when it listens.

    Args:
        shop: The folder it runs in.
        arguments: Its arguments.
        environment: Its environment.
    """

    def __init__(self, shop: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=shop,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.port = 0
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listens.wait(3 * TIMEOUT_S)
        assert self.port, self.said

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.end()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return "".join(self.lines)

    def end(self) -> tuple[int, str]:
        """Wait for its end, and that of all that it has started; return exit code and `said`."""
        code = self.process.wait(3 * TIMEOUT_S)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code, self.said

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving shop.py:make_agent at http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                self._listens.set()
        self._listens.set()
