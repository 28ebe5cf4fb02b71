"""Runs tools in the tools process and in the program, without blocking its owner."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.tools.context import ToolContext
from actors.tools.errors import ToolArgumentsError
from actors.tools.output import output_of, problem_of
from actors.tools.registry import Tool
from messages import Message

if TYPE_CHECKING:
    import asyncio

__all__ = ["Executor", "ToolOutcome"]

_END_S = 0.5
"""How long a cancelled coroutine may take to clean up when the process ends."""

_IDLE = 4
"""Number of threads that are kept for the next calls."""

T = TypeVar("T")


class ToolOutcome(msgspec.Struct, frozen=True):
    """The result of a call."""

    call_id: str
    output: str
    failed: bool = False
    trace: str = ""
    """Traceback for the log, if it raised."""
    in_order: bool = False
    """Whether it must not overtake others: `Executor.tell` has told it, or the tool has sent
    messages."""


class _RunningCall(msgspec.Struct, eq=False):
    tool: Tool
    arguments: str
    context: ToolContext
    began: float = msgspec.field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None
    variables: contextvars.Context = msgspec.field(default_factory=contextvars.copy_context)
    """Those of the session, which log records may be marked from, and of the call."""


class Executor:
    """Runs each plain function on a thread of its own, and all coroutines on one event loop.

    It survives an actor that raises (`Actor.keep`). It calls `notify` when there are results; its
    owner then takes the messages that tools have sent from `sent`, and the results of calls from
    `finished`.

    Args:
        loop: The loop for coroutines; None: a loop on a thread of our own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.notify: Callable[[], None] = lambda: None
        """Called, on any thread, when `sent` or `finished` has something new."""
        self.tell: Callable[[str, ToolOutcome], bool] = _tell_nobody
        """Called with the tool's name and each outcome, on its thread, before that: whoever waits
        for it may be told at once, unless the tool has sent messages. Returns whether that was
        done."""
        self._runs: dict[str, _RunningCall] = {}
        self._outcomes: queue.SimpleQueue[ToolOutcome] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._senders: set[str] = set()
        """Ids of the calls whose tools have sent messages."""
        self._idle: list[queue.SimpleQueue[_RunningCall | None]] = []
        """For each thread that waits for a call, where to put it; None ends the thread."""
        self._is_closed = False
        self._loop = loop
        self._loop_is_ours = loop is None
        self._loop_thread: threading.Thread | None = None
        self._waiting: list[Callable[[], None]] = []
        """Calls to start once the loop runs."""
        self._lock = threading.Lock()

    def start(
        self,
        call_id: str,
        tool: Tool,
        arguments: str,
        enter: Callable[[], None] | None = None,
    ) -> None:
        """Start a call and return at once; every call ends with an outcome.

        Args:
            call_id: The id of the call.
            tool: The tool to call.
            arguments: The arguments as JSON text, as the model wrote them.
            enter: Called at once in the call's context variables, to set some.
        """
        context = ToolContext(call_id, tool.name, partial(self._send, call_id))
        run = self._runs[call_id] = _RunningCall(tool, arguments, context)
        if enter is not None:
            run.variables.run(enter)
        if tool.is_async:
            self._begin(run, lambda: self._run_async(run))
            return
        try:
            self._run_on_thread(run)
        except RuntimeError as error:  # no more threads can be started
            self._finish(_failure(run, error))

    def age_s(self, call_id: str) -> float | None:
        """Return how long a call has been running; None: it is not running here."""
        run = self._runs.get(call_id)
        return None if run is None else time.monotonic() - run.began

    def give_up(self, call_id: str) -> None:
        """Cancel a call, through its context and, if it is async, its task; ignore its result."""
        run = self._runs.pop(call_id, None)
        if run is None:
            return
        run.context.cancel()
        loop = self._loop
        if run.task is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(run.task.cancel)

    def sent(self) -> Iterator[Message]:
        """Take the messages that tools have sent."""
        return _taken(self._messages)

    def finished(self) -> Iterator[ToolOutcome]:
        """Take the outcomes of the calls that were not cancelled."""
        for outcome in _taken(self._outcomes):
            if self._runs.pop(outcome.call_id, None) is not None:
                yield outcome

    def close(self) -> None:
        """Cancel all calls; threads end when their call returns, or with the process."""
        for call_id in list(self._runs):
            self.give_up(call_id)
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for calls in idle:
            calls.put(None)
        if self._loop_is_ours and self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _send(self, call_id: str, message: Message) -> None:
        self._senders.add(call_id)
        self._messages.put(message)
        self.notify()

    # -- plain functions ----------------------------------------------------------------------

    def _run_on_thread(self, run: _RunningCall) -> None:
        with self._lock:
            calls = self._idle.pop() if self._idle else None
        if calls is None:
            calls = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(calls,), daemon=True).start()
        calls.put(run)

    def _work(self, calls: queue.SimpleQueue[_RunningCall | None]) -> None:
        """Run calls one after the other on this thread; a new one would cost each 0.1 ms."""
        while (run := calls.get()) is not None:
            threading.current_thread().name = f"tool {run.tool.name}"
            run.variables.run(self._run_sync, run)
            threading.current_thread().name = "tools, idle"
            del run  # or its arguments would be kept until the next call
            with self._lock:
                if self._is_closed or len(self._idle) >= _IDLE:
                    return
                self._idle.append(calls)

    def _run_sync(self, run: _RunningCall) -> None:
        try:
            result = _called(run)
            if inspect.isawaitable(result):  # a sync function that returns a coroutine
                self._begin(run, lambda: self._run_async(run, result))
                return
            outcome = ToolOutcome(run.context.call_id, output_of(result))
        except BaseException as error:  # noqa: BLE001 - whatever a tool does, the model gets an answer
            outcome = _failure(run, error)
        self._finish(outcome)

    # -- coroutines ---------------------------------------------------------------------------

    def _begin(self, run: _RunningCall, coroutine: Callable[[], Any]) -> None:
        """Run a coroutine on the event loop, whose thread is started with the first one."""

        def begin() -> None:
            assert self._loop is not None
            if self._runs.get(run.context.call_id) is run:  # not cancelled meanwhile
                # A copy: the thread of a plain function that returned it may still be in there.
                variables = run.variables.copy()
                run.task = self._loop.create_task(coroutine(), context=variables)

        with self._lock:
            if self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(begin)
                except RuntimeError:
                    error = RuntimeError("the event loop of the program is closed")
                    self._finish(_failure(run, error))
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
            _end_tasks(loop)
        finally:
            loop.close()

    async def _run_async(self, run: _RunningCall, awaitable: Any = None) -> None:
        try:
            if awaitable is None:  # call it here, so that its code finds the running loop
                awaitable = _called(run)
            outcome = ToolOutcome(run.context.call_id, output_of(await awaitable))
        except BaseException as error:  # noqa: BLE001 - whatever a tool does, the model gets an answer
            outcome = _failure(run, error)
        self._finish(outcome)

    def _finish(self, outcome: ToolOutcome) -> None:
        run, in_order = self._runs.get(outcome.call_id), outcome.call_id in self._senders
        self._senders.discard(outcome.call_id)
        if in_order or (run is not None and self.tell(run.tool.name, outcome)):
            outcome = msgspec.structs.replace(outcome, in_order=True)
        self._outcomes.put(outcome)
        self.notify()


def _tell_nobody(_: str, __: ToolOutcome) -> bool:
    return False


def _called(run: _RunningCall) -> Any:
    positional, named = run.tool.bind(run.arguments, run.context)
    return run.tool.function(*positional, **named)


def _failure(run: _RunningCall, error: BaseException) -> ToolOutcome:
    if isinstance(error, ToolArgumentsError):
        return ToolOutcome(run.context.call_id, str(error), failed=True)
    text = problem_of(error)
    # The trace is for the log, so leave out the exception's text, which may quote the conversation.
    # The text is in the answer.
    trace = "".join((*traceback.format_tb(error.__traceback__), type(error).__qualname__))
    return ToolOutcome(
        run.context.call_id, f"{run.tool.name} failed: {text}", failed=True, trace=trace
    )


def _taken(source: queue.SimpleQueue[T]) -> Iterator[T]:
    while True:
        try:
            yield source.get_nowait()
        except queue.Empty:
            return


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all tasks, and give them a moment to clean up."""
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
