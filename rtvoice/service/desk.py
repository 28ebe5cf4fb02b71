"""The conversations of a service: admission, start, callers, measuring, drain."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from messages import RtvoiceError
from messages.transport.spawning import start_fork_server
from rtvoice.agent import Agent
from rtvoice.service.admission import Admission, Limits, Load, Place
from rtvoice.service.call import Call
from rtvoice.service.conversation import Conversation
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.feed import Feed
from rtvoice.service.gate import Gate, Queue
from rtvoice.service.info import CallInfo
from rtvoice.service.line import Line
from rtvoice.service.load import (
    Cgroup,
    Lag,
    Processes,
    available_mib,
    busy_seconds,
    usable_cores,
)
from rtvoice.service.logs import of_session, session_id
from rtvoice.service.metrics import Metrics, Watch
from rtvoice.service.options import Options
from rtvoice.service.tokens import Journals, Token
from rtvoice.tracing import trace

__all__ = ["Desk"]

_logger = logging.getLogger("rtvoice.service")

_UNLIMITED = 1_000_000
"""What `Desk.room` says where nothing limits it."""
_SAMPLE_S = 1.0
"""Interval at which the load is measured."""


class Desk:
    """Gives places to callers, starts their conversations in turn, and ends them.

    All calls are made on one event loop.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        journals = options.journals
        self._journals = Journals(journals, options.keep_s) if journals is not None else None
        self._cgroup = Cgroup()
        cores = usable_cores(self._cgroup)
        parallel = options.start_parallel or max(1, math.floor(cores))
        self._admission = Admission(
            Limits(
                cores,
                parallel,
                options.max_sessions,
                options.cpu_limit,
                options.lag_limit_ms,
                options.tokens_per_minute,
            )
        )
        self._gate = Gate(parallel)
        self._queue = Queue(self._admission.take, options.queue, options.queue_s)
        self._metrics = Metrics()
        self._conversations: dict[str, Conversation] = {}
        self._calls: dict[str, Call] = {}
        self._empty = asyncio.Event()
        self._processes = Processes()
        self._lag = Lag()
        self._measuring: set[asyncio.Task[None]] = set()

    # -- conversations ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def session(self, agent: Agent | CallInfo) -> AsyncIterator[Agent]:
        """Hold a conversation without a caller's socket.

        Raises:
            Busy: There is no place; nothing was started.
            Draining: The service is ending; nothing was started.
        """
        place = await self.admit()
        try:
            info = agent if isinstance(agent, CallInfo) else CallInfo()
            found = agent if isinstance(agent, Agent) else await self.agent_for(info)
        except BaseException:
            self.give_back(place)
            raise
        conversation = Conversation(place, found, info.id, "program")
        async with self._hold(conversation) as running:
            yield running

    async def admit(self) -> Place:
        """Reserve a place; wait for one, if callers may.

        Raises:
            Busy: There is none.
            Draining: The service is ending.
        """
        self.start()
        try:
            return await self._queue.place()
        except Busy as busy:
            self._metrics.refused.labels(busy.reason).inc()
            raise
        except Draining:
            self._metrics.refused.labels("draining").inc()
            raise

    def give_back(self, place: Place) -> None:
        """Free a place that no conversation has taken."""
        place.release()
        self._queue.advance()

    async def agent_for(self, info: CallInfo) -> Agent:
        """Return the agent that ``make_agent`` makes for a call.

        Raises:
            TypeError: It makes none.
        """
        with of_session(info.id):
            made = self._options.make_agent(info)
            agent = await made if inspect.isawaitable(made) else made
        if not isinstance(agent, Agent):
            raise TypeError(f"make_agent must return an Agent, not {agent!r}")
        return agent

    async def call(
        self,
        place: Place,
        info: CallInfo,
        *,
        resumed: bool,
        view: bool = False,
        token: Token | None = None,
        fitted: Mapping[str, Any] | None = None,
        over: Callable[[Call], None] | None = None,
    ) -> Call:
        """Begin the conversation of a caller; it has the place from now on.

        Args:
            place: Its place.
            info: The caller.
            resumed: Whether an earlier conversation goes on.
            token: With it a lost caller comes again; None: a new one.
            fitted: What the agent is fitted with, instead of a journal of the service.
            over: Called at the end.
            view: Whether the caller is shown a view.

        Raises:
            Exception: What ``make_agent`` raises.
        """
        agent = await self.agent_for(info)
        line = Line(info.sample_rate)
        token = token or Token(info.id)
        files: dict[str, Any] = dict(fitted or {})
        if self._journals is not None and fitted is None:
            path = os.fspath(self._journals.path(info.id))
            files = {"resume" if resumed else "journal_path": path}
        agent._fit(  # noqa: SLF001 - made for this
            audio_input="program", audio_output=line, input_rate=info.sample_rate, **files
        )
        if self._journals is not None and fitted is None:
            self._journals.open(info.id, token)
        conversation = Conversation(place, agent, info.id, info.kind)
        feed = Feed(agent, self._options.view) if view else None
        call = Call(
            conversation,
            line,
            token,
            self._options.keep_s,
            self._hold,
            over or self._forget_journal,
            feed,
        )
        self._calls[info.id] = call
        return call

    def find(self, token: str | None) -> Call | None:
        """Return the call that goes on with a token; None: there is none in this program."""
        call = self._calls.get(token.partition(".")[0]) if token else None
        return call if call is not None and token and call.token.fits(token) else None

    def find_journal(self, token: str) -> str | None:
        """Return the id of the conversation of an earlier program that goes on with a token."""
        return self._journals.find(token) if self._journals is not None else None

    @property
    def lost(self) -> int:
        """How many callers were lost and may come again."""
        return sum(1 for call in self._calls.values() if call.is_lost)

    def forget(self, call: Call) -> None:
        """Know a call that is over no longer."""
        self._calls.pop(call.conversation.id, None)

    def _forget_journal(self, call: Call) -> None:
        conversation = call.conversation
        self.forget(call)
        if self._journals is not None and conversation.ended_by != "drained":
            self._journals.close(conversation.id)

    @contextlib.asynccontextmanager
    async def _hold(self, conversation: Conversation) -> AsyncIterator[Agent]:
        """Start a conversation in its turn, and wait for its end."""
        if self.is_draining:  # since the place was given
            self.give_back(conversation.place)
            raise Draining
        before = session_id.get()
        session_id.set(conversation.id)
        self._conversations[conversation.id] = conversation
        self._empty.clear()
        watch = Watch(self._metrics, conversation.agent)
        tracing = trace(conversation.agent, conversation.id)
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with self._gate.passing():
                    if conversation.ended_by:
                        raise Draining
                    await self._start(conversation, stack)
                yield conversation.agent
        except RtvoiceError:
            conversation.ended_by = conversation.ended_by or "failed"
            raise
        finally:
            seconds = time.monotonic() - conversation.since
            _logger.info("ended after %.1f s: %s", seconds, conversation.ended_because)
            session_id.set(before)
            self._metrics.ended.labels(conversation.ended_because).inc()
            self._conversations.pop(conversation.id, None)
            watch.close()
            tracing.close()
            self.give_back(conversation.place)
            if not self._conversations:
                self._empty.set()

    async def _start(self, conversation: Conversation, stack: contextlib.AsyncExitStack) -> None:
        conversation.state = conversation.place.state = "starting"
        began = time.monotonic()
        await stack.enter_async_context(conversation.agent)
        self._metrics.start_s.observe(time.monotonic() - began)
        self._metrics.started.inc()
        conversation.place.state = "running"
        if conversation.state == "starting":  # else it is to end already
            conversation.state = "running"
        self._queue.advance()

    # -- what operators see -------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether no new conversations are taken."""
        return self._admission.draining

    @property
    def shortage(self) -> str | None:
        """What is too short for one more conversation; None: it fits."""
        return "draining" if self.is_draining else self._admission.shortage()

    def sessions(self) -> list[dict[str, object]]:
        """Return id, kind, state and age in seconds of each conversation."""
        return [each.described() for each in self._conversations.values()]

    def metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        states = Counter[str](each.state for each in self._conversations.values())
        return self._metrics.render(states, self._admission, len(self._queue))

    @property
    def room(self) -> int:
        """About how many more conversations are taken."""
        admission = self._admission
        if self.is_draining or admission.shortage() is not None:
            return 0
        left = admission.capacity - admission.count()
        return max(1, left) if admission.capacity >= 0 else _UNLIMITED

    @property
    def drain_s(self) -> float:
        """How long conversations may go on while the service ends."""
        return self._options.drain_s

    # -- life ---------------------------------------------------------------------------------

    def close_doors(self) -> None:
        """Take no new conversations; those that there are go on."""
        self._admission.draining = True
        self._queue.advance()

    def start(self) -> None:
        """Begin to measure the load, on the running loop; done by itself with the first caller."""
        if self._measuring and not any(task.done() for task in self._measuring):
            return
        with contextlib.suppress(OSError, RtvoiceError):  # processes are started without it
            start_fork_server()
        loop = asyncio.get_running_loop()
        self._measuring = {loop.create_task(self._lag.measure()), loop.create_task(self._measure())}

    async def drain(self, drain_s: float | None) -> None:
        """Take no new conversations; end those that there are after a time, in order.

        A second call may give them less time.
        """
        limit_s = self._options.drain_s if drain_s is None else drain_s
        self.close_doors()
        if self._conversations:
            _logger.info("draining: %d conversations, %g s", len(self._conversations), limit_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), limit_s)
        for name, conversation in list(self._conversations.items()):
            call = self._calls.get(name)
            (call or conversation).end("drained")
        while self._conversations:
            await self._empty.wait()

    def close(self) -> None:
        """Measure no more."""
        for task in self._measuring:
            task.cancel()
        self._measuring = set()

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        before, at = 0.0, 0.0
        with ThreadPoolExecutor(1, "rtvoice-load") as thread:
            while True:
                cores, used, pss_mib = await loop.run_in_executor(thread, self._read_load)
                now = time.monotonic()
                if at:
                    self._take(cores, (used - before) / (now - at), pss_mib)
                before, at = used, now
                await asyncio.sleep(_SAMPLE_S)

    def _read_load(self) -> tuple[float, float, float]:
        """Return cores of our processes, CPU-seconds of all so far, memory of our processes."""
        limited = self._cgroup.busy_seconds
        cores = self._processes.cores()
        used = busy_seconds() if limited is None else limited
        return cores, used, self._processes.pss_mib(now=time.monotonic())

    def _take(self, cores: float, busy: float, pss_mib: float) -> None:
        free_mib = min(self._cgroup.free_mib, available_mib())
        if self._options.memory_limit_mib is not None:
            free_mib = min(free_mib, self._options.memory_limit_mib - pss_mib)
        tokens, granted = self._metrics.tokens_of_a_minute(), self._metrics.granted()
        load = Load(busy, cores, pss_mib, free_mib, self._lag.ms, tokens, granted)
        self._admission.measured(load)
        self._queue.advance()
