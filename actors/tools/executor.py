"""Runs tools outside of the actor's thread, and keeps running them while the actor is restarted."""

from __future__ import annotations

import contextlib
import inspect
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from actors.tools.registry import Tool, output_of

if TYPE_CHECKING:
    import asyncio

__all__ = ["Executor", "Outcome"]


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended."""

    call_id: str
    output: str
    failed: bool = False
    trace: str = ""
    """Where it raised what, for the log."""


class _Run(msgspec.Struct, eq=False):
    call_id: str
    tool: Tool
    positional: list[Any]
    named: dict[str, Any]
    began: float = msgspec.field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None


class Executor:
    """Runs each sync tool on a thread of its own and the async ones on one event loop.

    It outlives an actor that raises (`Actor.keep`). The actor takes outcomes with `finished`, when
    `notify` has been called.
    """

    def __init__(self) -> None:
        self.notify: Callable[[], None] = lambda: None
        """Called on some thread when there are new outcomes."""
        self._runs: dict[str, _Run] = {}
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._waiting: list[Callable[[], None]] = []
        """What to begin when the loop runs."""
        self._lock = threading.Lock()

    def start(self, call_id: str, tool: Tool, positional: list[Any], named: dict[str, Any]) -> None:
        """Begin a call; returns at once."""
        run = self._runs[call_id] = _Run(call_id, tool, positional, named)
        if tool.is_async:
            self._begin(run, lambda: self._run_async(run))
        else:
            threading.Thread(
                target=self._run_sync, args=(run,), name=f"tool {tool.name}", daemon=True
            ).start()

    def age_s(self, call_id: str) -> float | None:
        """Return how long a call has been running; None: it is not running here."""
        run = self._runs.get(call_id)
        return None if run is None else time.monotonic() - run.began

    def give_up(self, call_id: str) -> None:
        """Forget a call: cancel it if it is async; a thread runs on, and nobody listens."""
        run = self._runs.pop(call_id, None)
        loop = self._loop
        if run is not None and run.task is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(run.task.cancel)

    def finished(self) -> Iterator[Outcome]:
        """Take the outcomes of calls that were not given up."""
        while True:
            try:
                outcome = self._outcomes.get_nowait()
            except queue.Empty:
                return
            if self._runs.pop(outcome.call_id, None) is not None:
                yield outcome

    def close(self) -> None:
        """Cancel what is async. Threads of sync tools end with the process."""
        for call_id in list(self._runs):
            self.give_up(call_id)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)

    # -- sync ---------------------------------------------------------------------------------

    def _run_sync(self, run: _Run) -> None:
        try:
            result = run.tool.function(*run.positional, **run.named)
            if inspect.isawaitable(result):  # a sync function that returns a coroutine
                self._begin(run, lambda: self._run_async(run, result))
                return
            outcome = Outcome(run.call_id, output_of(result))
        except BaseException as error:  # noqa: BLE001 - whatever a tool does, the model gets an answer
            outcome = _failure(run, error)
        self._finish(outcome)

    # -- async --------------------------------------------------------------------------------

    def _begin(self, run: _Run, coroutine: Callable[[], Any]) -> None:
        """Run a coroutine on the event loop, whose thread is started with the first one."""

        def begin() -> None:
            assert self._loop is not None
            run.task = self._loop.create_task(coroutine())

        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(begin)
                return
            self._waiting.append(begin)
            if self._loop_thread is None:
                self._loop_thread = threading.Thread(
                    target=self._run_loop, name="async tools", daemon=True
                )
                self._loop_thread.start()

    def _run_loop(self) -> None:
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with self._lock:
            self._loop = loop
            for begin in self._waiting:
                loop.call_soon(begin)
            self._waiting.clear()
        try:
            loop.run_forever()
        finally:
            loop.close()

    async def _run_async(self, run: _Run, awaitable: Any = None) -> None:
        try:
            if awaitable is None:  # called here, so that it finds its event loop running
                awaitable = run.tool.function(*run.positional, **run.named)
            outcome = Outcome(run.call_id, output_of(await awaitable))
        except BaseException as error:  # noqa: BLE001 - whatever a tool does, the model gets an answer
            outcome = _failure(run, error)
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        self._outcomes.put(outcome)
        self.notify()


def _failure(run: _Run, error: BaseException) -> Outcome:
    text = str(error).strip() or type(error).__name__
    # Without the exception's text, which may quote what was said: this is for the log, and the text
    # is in the answer.
    trace = "".join((*traceback.format_tb(error.__traceback__), type(error).__qualname__))
    return Outcome(run.call_id, f"{run.tool.name} failed: {text}", failed=True, trace=trace)
