"""The service: as many conversations as the machine carries, each with a place of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from messages import ConfigurationError, RtvoiceError
from messages.transport.spawning import start_fork_server
from rtvoice.agent import Agent
from rtvoice.service.admission import Admission, Limits, Load, Place
from rtvoice.service.asgi import App
from rtvoice.service.call import Call
from rtvoice.service.conversation import Conversation
from rtvoice.service.errors import Busy, Draining
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
from rtvoice.service.logs import session_id
from rtvoice.service.metrics import Metrics, Watch
from rtvoice.service.tokens import Journals, Token

__all__ = ["Service"]

_logger = logging.getLogger("rtvoice.service")

_SAMPLE_S = 1.0
"""Interval at which the load is measured."""
_CLOSING_S = 2.0
"""Time for the close frames at the end."""
_PSS_EVERY = 5
"""Memory is measured with each fifth measurement: it takes a millisecond a process."""

MakeAgent = Callable[[CallInfo], Agent | Awaitable[Agent]]


class Service:
    """Holds many conversations in one program, and refuses what the machine cannot carry.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent
        from rtvoice.service import Busy, CallInfo, Service

        def make_agent(call: CallInfo) -> Agent:
            return Agent("You sell bicycles.", audio_input="silence", audio_output="null")

        service = Service(make_agent, max_sessions=1, cpu_limit=None)

        async def main() -> None:
            async with service.session(CallInfo()) as agent:
                try:
                    async with service.session(CallInfo()):
                        pass
                except Busy as busy:
                    print(busy)
                await agent.stop()
            await service.drain()

        asyncio.run(main())
        ```

    ``service.asgi`` is an ASGI application with the endpoints of callers and operators. A service
    runs on one event loop.
    """

    def __init__(
        self,
        make_agent: MakeAgent,
        max_sessions: int | None = None,
        cpu_limit: float | None = 0.75,
        memory_limit_mib: int | None = None,
        lag_limit_ms: float | None = 50.0,
        tokens_per_minute: int | None = None,
        start_parallel: int | None = None,
        queue: int = 0,
        queue_s: float = 5.0,
        drain_s: float = 3600.0,
        journals: str | os.PathLike[str] | None = None,
        keep_s: float = 60.0,
        *,
        origins: Sequence[str] = (),
    ) -> None:
        """Describe a service; nothing is started.

        Args:
            make_agent: Makes the agent of a call; a function or a coroutine function. It leaves
                ``audio_input`` and ``audio_output`` out, for they are the caller's. If it raises
                `PermissionError`, the caller is refused with its text.
            max_sessions: Most conversations at once; None: as many as the other limits allow.
            cpu_limit: Share of the usable cores that may be in use, by any program; None: no limit.
            memory_limit_mib: Memory (PSS) of the service and its processes; None: what the machine
                or the container still has.
            lag_limit_ms: Lag of the event loop above which nobody is taken; None: no limit.
            tokens_per_minute: Tokens of all answers of a minute above which nobody is taken; None:
                what the server says it grants.
            start_parallel: How many conversations start at once; None: as many as there are cores.
            queue: How many callers may wait for a place.
            queue_s: How long each of them waits.
            drain_s: How long `drain` waits for conversations to end by themselves.
            journals: A folder for a journal of each conversation. With it a lost caller is also
                found again after the program was restarted.
            keep_s: How long the conversation of a lost caller is kept.
            origins: Origins of web pages, such as ``https://shop.example``, that may call besides
                those of the same host; ``*``: all.

        Raises:
            ConfigurationError: A value is out of range.
        """
        _check(max_sessions=max_sessions, start_parallel=start_parallel, cpu_limit=cpu_limit)
        _check(memory_limit_mib=memory_limit_mib, tokens_per_minute=tokens_per_minute)
        _check(lag_limit_ms=lag_limit_ms)
        _check_not_negative(queue=queue, queue_s=queue_s, drain_s=drain_s, keep_s=keep_s)
        self._make_agent = make_agent
        self._memory_limit_mib = memory_limit_mib
        self._drain_s = drain_s
        self._keep_s = keep_s
        self._journals = Journals(journals, keep_s) if journals is not None else None
        self._cgroup = Cgroup()
        cores = usable_cores(self._cgroup)
        parallel = start_parallel or max(1, math.floor(cores))
        limits = Limits(cores, parallel, max_sessions, cpu_limit, lag_limit_ms, tokens_per_minute)
        self._admission = Admission(limits)
        self._gate = Gate(parallel)
        self._queue = Queue(self._admission.take, queue, queue_s)
        self._metrics = Metrics()
        self._conversations: dict[str, Conversation] = {}
        self._calls: dict[str, Call] = {}
        self._empty = asyncio.Event()
        self._hurry = asyncio.Event()
        self._processes = Processes()
        self._lag = Lag()
        self._measuring: set[asyncio.Task[None]] = set()
        self.asgi = App(self, origins)
        """The ASGI application: ``/talk``, ``/twilio``, ``/healthz``, ``/readyz``, ``/metrics``,
        ``/sessions``."""

    # -- conversations ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def session(self, agent: Agent | CallInfo) -> AsyncIterator[Agent]:
        """Hold a conversation: ``async with service.session(agent)`` is like ``async with agent``.

        Args:
            agent: An agent, or what ``make_agent`` makes one from.

        Raises:
            Busy: There is no place; nothing was started.
            Draining: The service is ending; nothing was started.
            RtvoiceError: As `Agent` does.
        """
        place = await self.admit()
        try:
            info = agent if isinstance(agent, CallInfo) else CallInfo()
            found = agent if isinstance(agent, Agent) else await self.agent_for(info)
        except BaseException:
            self.give_back(place)
            raise
        watch = Watch(self._metrics, found)
        conversation = Conversation(place, found, watch, info.id, "program")
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
        made = self._make_agent(info)
        agent = await made if inspect.isawaitable(made) else made
        if not isinstance(agent, Agent):
            raise TypeError(f"make_agent must return an Agent, not {agent!r}")
        return agent

    async def call(self, place: Place, info: CallInfo, *, resumed: bool) -> Call:
        """Begin the conversation of a caller; it has the place from now on.

        Raises:
            Exception: What ``make_agent`` raises.
        """
        agent = await self.agent_for(info)
        watch = Watch(self._metrics, agent)
        line = Line(info.sample_rate, watch.sounded)
        token = Token(info.id)
        files: dict[str, object] = {}
        if self._journals is not None:
            path = os.fspath(self._journals.path(info.id))
            files = {"resume" if resumed else "journal_path": path}
        agent._fit(  # noqa: SLF001 - made for this
            audio_input="program", audio_output=line, input_rate=info.sample_rate, **files
        )
        if self._journals is not None:
            self._journals.open(info.id, token)
        conversation = Conversation(place, agent, watch, info.id, info.kind)
        call = Call(conversation, line, token, self._keep_s, self._hold, self._forget)
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

    def _forget(self, call: Call) -> None:
        conversation = call.conversation
        self._calls.pop(conversation.id, None)
        if self._journals is not None and conversation.ended_by != "drained":
            self._journals.close(conversation.id)

    @contextlib.asynccontextmanager
    async def _hold(self, conversation: Conversation) -> AsyncIterator[Agent]:
        """Start a conversation in its turn, and wait for its end."""
        before = session_id.get()
        session_id.set(conversation.id)
        self._conversations[conversation.id] = conversation
        self._empty.clear()
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with self._gate.passing():
                    if conversation.unwanted:
                        raise Draining
                    await self._start(conversation, stack)
                yield conversation.agent
        except RtvoiceError:
            conversation.ended_by = conversation.ended_by or "failed"
            raise
        finally:
            session_id.set(before)
            self._metrics.ended.labels(conversation.ended_because).inc()
            self._conversations.pop(conversation.id, None)
            conversation.watch.close()
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
        if conversation.state == "starting":
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

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to measure the load, on the running loop; done by itself with the first caller."""
        if self._measuring and not any(task.done() for task in self._measuring):
            return
        with contextlib.suppress(OSError, RtvoiceError):  # processes are started without it
            start_fork_server()
        loop = asyncio.get_running_loop()
        self._measuring = {loop.create_task(self._lag.measure()), loop.create_task(self._measure())}

    async def drain(self, drain_s: float | None = None) -> None:
        """Take no new conversations, and wait for the end of those that there are.

        It can be called again, with less time: ``drain(0)`` ends the conversations at once.

        Args:
            drain_s: After this time the conversations are ended in order (callers: close code
                1001); None: ``drain_s`` of the service.
        """
        limit_s = self._drain_s if drain_s is None else drain_s
        self._admission.draining = True
        self._queue.advance()
        if limit_s <= 0:
            self._hurry.set()
        if self._conversations:
            _logger.info("draining: %d conversations, %g s", len(self._conversations), limit_s)
            waits = [asyncio.ensure_future(each.wait()) for each in (self._empty, self._hurry)]
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        for name, conversation in list(self._conversations.items()):
            call = self._calls.get(name)
            (call or conversation).end("drained")
        while self._conversations:
            await self._empty.wait()
        await self.asgi.closed(_CLOSING_S)
        for task in self._measuring:
            task.cancel()
        self._measuring = set()

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        pss_mib, number, before, at = 0.0, 0, 0.0, 0.0
        with ThreadPoolExecutor(1, "rtvoice-load") as thread:
            while True:
                cores, used = await loop.run_in_executor(thread, self._read_cpu)
                if number % _PSS_EVERY == 0:
                    pss_mib = await loop.run_in_executor(thread, self._processes.pss_mib)
                now = time.monotonic()
                if number:
                    busy = (used - before) / (now - at)
                    self._take(cores, busy, pss_mib)
                before, at, number = used, now, number + 1
                await asyncio.sleep(_SAMPLE_S)

    def _read_cpu(self) -> tuple[float, float]:
        """Return the cores that our processes use, and the CPU-seconds of all so far."""
        limited = self._cgroup.busy_seconds
        return self._processes.cores(), busy_seconds() if limited is None else limited

    def _take(self, cores: float, busy: float, pss_mib: float) -> None:
        free_mib = min(self._cgroup.free_mib, available_mib())
        if self._memory_limit_mib is not None:
            free_mib = min(free_mib, self._memory_limit_mib - pss_mib)
        tokens, granted = self._metrics.tokens_of_a_minute(), self._metrics.granted()
        lag_ms = self._lag.ms
        self._admission.measured(Load(busy, cores, pss_mib, free_mib, lag_ms, tokens, granted))
        self._queue.advance()


def _check(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ConfigurationError(f"{name} is {value}; it must be more than 0, or None")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ConfigurationError(f"{name} is {value}; it must not be negative")
