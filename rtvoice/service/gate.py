"""In what order callers wait: for a place (`Queue`), and then for their start (`Gate`)."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rtvoice.service.admission import Place
from rtvoice.service.errors import Busy, Draining

__all__ = ["Gate", "Queue"]


class Gate:
    """Lets so many start at once, the others in the order in which they came.

    A start takes all the CPU that it gets. Twenty at once on two cores would all end late.
    """

    def __init__(self, parallel: int) -> None:
        self._free = parallel
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Wait for one's turn; the next one's comes at the end of the block."""
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # it was our turn already
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Queue:
    """Those who wait for a place, in order.

    Args:
        take: Reserves a place, or raises `Busy` or `Draining`.
        most: How many may wait.
        patience_s: How long each of them waits at most.
    """

    def __init__(self, take: Callable[[], Place], most: int, patience_s: float) -> None:
        self._take = take
        self._most = most
        self._patience_s = patience_s
        self._waiting: collections.deque[asyncio.Future[Place]] = collections.deque()
        self._why = Busy("sessions", patience_s)
        """Why the one who waits first has no place."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def place(self) -> Place:
        """Return a place, at once if there is one and nobody waits for it.

        Raises:
            Busy: There was none in time, or too many wait.
            Draining: No new conversation is taken.
        """
        if not self._waiting:
            try:
                return self._take()
            except Busy as busy:
                self._why = busy
        if len(self._waiting) >= self._most:
            raise Busy(*self._why.args)
        return await self._wait()

    async def _wait(self) -> Place:
        ticket: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        try:
            async with asyncio.timeout(self._patience_s):
                return await ticket
        except TimeoutError:
            raise Busy(*self._why.args) from None
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                ticket.result().release()
            raise
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def advance(self) -> None:
        """Give places to those who wait first; called whenever one may have become free."""
        while self._waiting:
            ticket = self._waiting[0]
            if not ticket.done():
                try:
                    ticket.set_result(self._take())
                except Busy as busy:
                    self._why = busy
                    return
                except Draining as error:
                    ticket.set_exception(error)
            self._waiting.popleft()
