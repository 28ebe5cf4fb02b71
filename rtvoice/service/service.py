"""The service: as many conversations as the machine carries, each with a place of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from rtvoice.agent import Agent
from rtvoice.service.asgi import App
from rtvoice.service.desk import Desk
from rtvoice.service.frames import Scope
from rtvoice.service.info import CallInfo
from rtvoice.service.options import MakeAgent, checked_options

__all__ = ["Service"]

_CLOSING_S = 2.0
"""Time for the close frames at the end."""


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
        view: Scope = "none",
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
            view: What callers at ``/talk`` are shown if they ask for a view, as `rtvoice.web.Page`
                does. ``none``: nothing. ``talk``: the talk with what was heard of it, the state and
                the levels; they may also type, show images, interrupt, mute, set volume and speed.
                ``all``: tools, processes, events, latency and cost too; they may also kill
                components. Only for those whom you trust.

        Raises:
            ConfigurationError: A value is not valid, or the folder cannot be written.
        """
        options = checked_options(
            make_agent,
            journals,
            max_sessions=max_sessions,
            cpu_limit=cpu_limit,
            memory_limit_mib=memory_limit_mib,
            lag_limit_ms=lag_limit_ms,
            tokens_per_minute=tokens_per_minute,
            start_parallel=start_parallel,
            queue=queue,
            queue_s=queue_s,
            drain_s=drain_s,
            keep_s=keep_s,
            origins=origins,
            view=view,
        )
        self._view = view
        self._desk = Desk(options)
        self._app = App(self._desk, self.drain, options.origins, options.view)

    @property
    def asgi(self) -> App:
        """The ASGI application: callers' ``/talk`` and ``/twilio``, operators' pages."""
        return self._app

    @property
    def view(self) -> Scope:
        """What callers are shown who ask for a view."""
        return self._view

    def session(self, agent: Agent | CallInfo) -> AbstractAsyncContextManager[Agent]:
        """Hold a conversation: ``async with service.session(agent)`` is like ``async with agent``.

        Args:
            agent: An agent, or what ``make_agent`` makes one from.

        Raises:
            Busy: There is no place; nothing was started.
            Draining: The service is ending; nothing was started.
            RtvoiceError: As `Agent` does.
        """
        return self._desk.session(agent)

    async def drain(self, drain_s: float | None = None) -> None:
        """Take no new conversations, and wait for the end of those that there are.

        It can be called again, with less time: ``drain(0)`` ends the conversations at once.

        Args:
            drain_s: After this time the conversations are ended in order (callers: close code
                1001); None: ``drain_s`` of the service.
        """
        await self._desk.drain(drain_s)
        await self._app.closed(_CLOSING_S)
        self._desk.close()

    @property
    def is_draining(self) -> bool:
        """Whether no new conversations are taken."""
        return self._desk.is_draining

    @property
    def shortage(self) -> str | None:
        """What is too short for one more conversation; None: it fits."""
        return self._desk.shortage

    def sessions(self) -> list[dict[str, object]]:
        """Return id, kind, state and age in seconds of each conversation."""
        return self._desk.sessions()

    def metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return self._desk.metrics()
