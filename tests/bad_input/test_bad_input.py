"""Each row of the table in docs/bad-input.md happens as it is written there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bad_input import (  # noqa: F401 - they fill ROWS
    files,
    fleet,
    frames,
    machines,
    page,
    reaching,
    usage,
)
from tests.bad_input.rows import ROWS, Row, World, rows_of
from tests.bad_input.stage import Talk, talking
from tests.sweeper import shared

AGENT = """
from rtvoice import Agent, Tools

tools = Tools()


@tools.action("Add two numbers.")
def add(a: int, b: int) -> int:
    return a + b


@tools.action("Divide two numbers.")
def divide(a: int, b: int) -> float:
    if b == 0:
        raise ValueError("nothing can be divided by 0")
    return a / b


agent = Agent(tools=tools, inactivity_timeout_s=None)
"""


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Talk]]:
    """Keep one conversation for all rows that it survives, started by the first of them."""
    path = tmp_path_factory.mktemp("agent") / "agent.py"
    path.write_text(AGENT, encoding="utf-8")
    with ExitStack() as stack:
        found = _Shared(stack, str(path))
        yield found


class _Shared(list[Talk]):
    def __init__(self, stack: ExitStack, agent: str) -> None:
        super().__init__()
        self._stack = stack
        self._agent = agent

    def get(self) -> Talk:
        if not self:
            with shared():
                talk = talking(agent=f"{self._agent}:agent")
                self.append(self._stack.enter_context(talk))
        return self[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversation: _Shared) -> World:
    monkeypatch.chdir(tmp_path)
    ours = [name for name in os.environ if name.startswith("RTVOICE_") and "_TEST_" not in name]
    for name in ("OPENAI_API_KEY", *ours, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return World(tmp_path, monkeypatch, conversation.get)


def test_the_table_and_the_tests_have_the_same_rows() -> None:
    inputs = [row.input for row in rows_of()]

    assert len(inputs) == len(set(inputs)), "a row stands there twice"
    assert set(inputs) == {name.replace("`", "") for name in ROWS}


@pytest.mark.parametrize("row", rows_of(), ids=lambda row: row.input)
def test_bad_input_is_answered_as_the_table_says(row: Row, world: World) -> None:
    make = {name.replace("`", ""): make for name, make in ROWS.items()}[row.input]

    outcome = make(world)

    row.check(outcome)
