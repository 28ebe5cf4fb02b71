"""The executor keeps threads for the next calls, and no call notices."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest

from actors.tools.executor import Executor, ToolOutcome
from actors.tools.registry import Tool, Tools
from tests.rig import TIMEOUT_S, until

tools = Tools()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
gates: dict[str, threading.Event] = {}


@tools.action("says on which thread it runs, and what an earlier call has left")
def where(gate: str = "") -> str:
    """Say where it runs."""
    if gate:
        assert gates[gate].wait(TIMEOUT_S)
    before = variable.get()
    variable.set("set by a call")
    return f"{threading.get_ident()} {threading.current_thread().name} {before}"


@tools.action("ends its thread, or tries to")
def leave() -> str:
    """Raise SystemExit."""
    raise SystemExit


class Running:
    """An executor whose outcomes are waited for."""

    def __init__(self) -> None:
        self.executor = Executor()
        self.news = threading.Event()
        self.executor.notify = self.news.set
        self.outcomes: list[ToolOutcome] = []

    def start(self, call_id: str, name: str, arguments: str = "{}") -> None:
        tool = tools.get(name)
        assert isinstance(tool, Tool)
        self.executor.start(call_id, tool, arguments)

    def outcome(self) -> ToolOutcome:
        while not self.outcomes:
            assert self.news.wait(TIMEOUT_S)
            self.news.clear()
            self.outcomes += self.executor.finished()
        return self.outcomes.pop(0)

    def idle(self, count: int) -> None:
        until(lambda: len(self.executor._idle) == count, "the thread is not idle")


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.executor.close()


def test_calls_one_after_the_other_share_a_thread_and_nothing_else(running: Running) -> None:
    running.start("1", "where")
    first = running.outcome().output
    running.idle(1)

    running.start("2", "where")

    second = running.outcome().output
    assert first.split()[0] == second.split()[0]
    assert first.endswith("tool where unset")
    assert second.endswith("tool where unset")


def test_calls_at_the_same_time_have_a_thread_each(running: Running) -> None:
    gates["a"] = threading.Event()
    for number in range(6):
        running.start(str(number), "where", '{"gate": "a"}')
    gates["a"].set()

    threads = {running.outcome().output.split()[0] for _ in range(6)}

    assert len(threads) == 6
    running.idle(4)


def test_a_call_that_ends_its_thread_does_not(running: Running) -> None:
    running.start("1", "leave")
    assert running.outcome().failed
    running.idle(1)

    running.start("2", "where")

    assert not running.outcome().failed


def test_threads_end_with_the_executor(running: Running) -> None:
    gates["end"] = threading.Event()
    before = set(threading.enumerate())
    running.start("1", "where", '{"gate": "end"}')
    running.start("2", "where")
    running.outcome()
    running.idle(1)
    ours = set(threading.enumerate()) - before
    assert len(ours) == 2

    running.executor.close()
    gates["end"].set()

    for thread in ours:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
