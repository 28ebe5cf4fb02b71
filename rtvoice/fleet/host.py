"""A host of a fleet: a service whose conversations are held by leases, and kept in a store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from messages import AskToRun, MayRun, NotRunningError, RtvoiceError
from messages.paths import text_of_path
from rtvoice.fleet.holding import Held, Holding
from rtvoice.fleet.owner import is_dead, owner_of_this_process
from rtvoice.fleet.quiet import Quiet
from rtvoice.fleet.store import Fenced, HostRow, SessionRow, StoreError, open_store
from rtvoice.service.admission import Place
from rtvoice.service.call import Call
from rtvoice.service.desk import Desk
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.info import CallInfo
from rtvoice.service.options import Options
from rtvoice.service.tokens import Token

__all__ = ["Host"]

_logger = logging.getLogger("rtvoice.fleet")

_SCAN_S = 0.5
"""Interval in which a host looks for conversations that nobody holds any more; less if the leases
are shorter than 2.5 s."""
_AT_ONCE = 8
"""How many of them it takes at most before it looks again, so that other hosts take some."""
_RETRY_S = 0.1
_MOVED = "the conversation goes on at another host: ask the gateway where"
_LOST = "this host has lost the conversation, which goes on at another one: ask the gateway where"
T = TypeVar("T")


class Host:
    """Holds conversations of a fleet in this process.

    All methods are called on one event loop.

    It is longer than other classes: taking, keeping and giving up a conversation belong together.

    Args:
        options: Of the service that it is.
        store_url: The store (`rtvoice.fleet.store.open_store`).
        name: Its name in the fleet.
        url: Where callers reach it: ``http://…``.
        ttl_s: How long a lease is.
        folder: Where journals lie while a conversation is held.

    Raises:
        ConfigurationError: The store's URL is none.
        StoreError: The store cannot be reached.
    """

    def __init__(
        self, options: Options, store_url: str, *, name: str, url: str, ttl_s: float, folder: Path
    ) -> None:
        self.name = name
        self.url = url
        self.desk = Desk(options)
        self.owner = owner_of_this_process(name)
        self._ttl_s = ttl_s
        self._folder = folder
        self._store = open_store(store_url)
        self._thread = ThreadPoolExecutor(1, "rtvoice-store")
        self._loop = asyncio.get_running_loop()

        def lost(held: Held) -> None:
            self._loop.call_soon_threadsafe(self._lose, held)

        self.holding = Holding(partial(open_store, store_url), self.owner, ttl_s, lost)
        self._calls: dict[str, Call] = {}
        self._quiet: dict[str, Quiet] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._scanning: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Report itself, and take what nobody holds from now on."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        self.desk.start()
        self.holding.start()
        await self._report()
        self._scanning = self._loop.create_task(self._scan())

    async def drain(self, drain_s: float | None = None) -> None:
        """Take nothing more, and let other hosts have what is held here, each at a pause in speech.

        Without another host, conversations go on to their end.

        Args:
            drain_s: After so long, those that are left are moved at once; None: as the options say.
        """
        self.desk.close_doors()
        with contextlib.suppress(StoreError):
            await self._report()
        limit_s = self.desk.drain_s if drain_s is None else drain_s
        if await self._is_another_host():
            moves = [self._loop.create_task(self.move(each, limit_s)) for each in [*self._calls]]
            if moves:
                await asyncio.wait(moves)
        await self.desk.drain(drain_s)
        while self._tasks:
            await asyncio.wait({*self._tasks})

    async def close(self) -> None:
        """End: renew nothing more, and be forgotten."""
        if self._scanning is not None:
            self._scanning.cancel()
        self.desk.close()
        await asyncio.to_thread(self.holding.close)
        with contextlib.suppress(StoreError):
            await self._ask(self._store.forget, self.name)
        await self._ask(self._store.close)
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- conversations ------------------------------------------------------------------------

    async def take(self, session_id: str, dead: str = "") -> bool:
        """Take a conversation and begin it, or go on with it.

        Args:
            session_id: The conversation.
            dead: Its owner, if that is proven dead.

        Returns:
            Whether it is this host's now.

        Raises:
            Busy, Draining: There is no place for it here.
            StoreError: The store cannot be reached.
        """
        if session_id in self._calls:
            return True
        place = await self.desk.admit()
        held: Held | None = None
        try:
            row = await self._ask(self._store.get, session_id)
            asked_ns = time.monotonic_ns()
            if row is None:
                return False
            epoch = await self._ask(
                self._store.acquire, session_id, self.owner, self.name, self._ttl_s, dead
            )
            if epoch is None:
                return False
            held = await self._prepared(row, epoch, asked_ns)
            await self._begin(row, held, place)
        except Exception:
            if held is not None:
                self.holding.remove(held)
                await self._ask(self._store.release, held.session_id, held.epoch)
            raise
        finally:
            if session_id not in self._calls:
                self.desk.give_back(place)
        return True

    async def _prepared(self, row: SessionRow, epoch: int, asked_ns: int) -> Held:
        """Lay out on this machine what is kept of a conversation, and hold it."""
        folder = self._folder / f"{row.id}-{epoch}"
        folder.mkdir(mode=0o700)
        kept = await self._ask(self._store.read, row.id)
        if kept.records:
            (folder / "journal").write_bytes(b"".join(line + b"\n" for line in kept.records))
        if kept.state:
            (folder / "journal.state").write_bytes(kept.state)
        held = Held(row.id, epoch, folder, kept.records)
        self.holding.add(held, asked_ns)
        return held

    async def _begin(self, row: SessionRow, held: Held, place: Place) -> None:
        resumed = held.records > 0
        info = CallInfo(**{**json.loads(row.call), "id": row.id})
        lease = text_of_path(os.fspath(held.folder / "lease"))
        call = await self.desk.call(
            place,
            info,
            resumed=resumed,
            token=Token(row.id, row.token_sha256),
            fitted={
                "resume" if resumed else "journal_path": os.fspath(held.journal),
                "placed": {"lease_path": lease, "asks_to_run": True},
            },
            over=lambda call: self._spawn(self._give_up(held, call)),
        )
        self._calls[row.id] = call
        self._quiet[row.id] = Quiet(call.conversation.agent)
        call.conversation.agent.event_bus.subscribe(AskToRun, partial(self._record, held, call))
        call.expect()
        done = "goes on here" if resumed else "begins here"
        _logger.info("conversation %s %s (epoch %d)", row.id, done, held.epoch)

    async def _record(self, held: Held, call: Call, asked: AskToRun) -> None:
        """Record a call of a tool in the store, then let it run, unless it was run before."""
        was_run = asked.call_id in held.begun_before
        while not held.is_over:
            try:
                await self._ask(held.ship, self._store, asked)
            except Fenced:
                self.holding.lose(held)
            except StoreError:
                await asyncio.sleep(_RETRY_S)  # until it is back, or the lease has run out
            else:
                with contextlib.suppress(NotRunningError):
                    agent = call.conversation.agent
                    agent._send(MayRun(asked.call_id, was_run))  # noqa: SLF001 - made for this
                return

    def stop(self, session_id: str, why: str) -> bool:
        """End a conversation in order; return whether it is held here."""
        call = self._calls.get(session_id)
        if call is not None:
            call.end(why)
        return call is not None

    async def move(self, session_id: str, limit_s: float = 30.0) -> bool:
        """Let another host have a conversation, at a pause in speech.

        Args:
            session_id: The conversation.
            limit_s: After so long, it is moved at once.

        Returns:
            Whether it is held here.
        """
        call, quiet = self._calls.get(session_id), self._quiet.get(session_id)
        if call is None or quiet is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await quiet.wait()
        if not call.is_over:
            call.abandon("moved", _MOVED)
        return True

    def status(self) -> dict[str, Any]:
        """Return what is to be known about the host, as plain data."""
        return {
            "name": self.name,
            "url": self.url,
            "pid": os.getpid(),
            "draining": self.desk.is_draining,
            "sessions": {held.session_id: held.epoch for held in self.holding.all},
        }

    # -- the end of a conversation ------------------------------------------------------------

    def _lose(self, held: Held) -> None:
        call = self._calls.get(held.session_id)
        if call is not None and not call.is_over:
            call.abandon("lost_lease", _LOST)

    async def _give_up(self, held: Held, call: Call) -> None:
        """Write what is left to the store, and why the conversation is over here."""
        self.desk.forget(call)
        self._calls.pop(held.session_id, None)
        if (quiet := self._quiet.pop(held.session_id, None)) is not None:
            quiet.close()
        moves = call.conversation.ended_by in ("moved", "drained")
        while not held.is_over:
            try:
                await self._ask(held.ship, self._store)
                self.holding.remove(held)
                if moves:
                    await self._ask(self._store.release, held.session_id, held.epoch)
                else:
                    why = call.conversation.ended_because
                    await self._ask(self._store.end, held.session_id, held.epoch, why)
            except Fenced:
                self.holding.remove(held)
            except StoreError:
                await asyncio.sleep(_RETRY_S)
        shutil.rmtree(held.folder, ignore_errors=True)

    # -- what nobody holds --------------------------------------------------------------------

    async def _scan(self) -> None:
        while True:
            await asyncio.sleep(min(_SCAN_S, self._ttl_s / 5))
            self.holding.look()
            try:
                await self._report()
                if not self.desk.is_draining:
                    await self._take_abandoned()
            except (Busy, Draining):
                pass  # another host has room, or this one later
            except StoreError:
                pass  # `Holding` says so
            except Exception:
                _logger.exception("a conversation cannot be taken")

    async def _take_abandoned(self) -> None:
        for row in await self._ask(self._store.waiting, _AT_ONCE):
            await self.take(row.id)
        for owner in await self._ask(self._store.owners):
            if is_dead(owner):
                for row in (await self._ask(self._store.live, owner))[:_AT_ONCE]:
                    await self.take(row.id, owner)

    async def _report(self) -> None:
        host = HostRow(
            name=self.name,
            url=self.url,
            owner=self.owner,
            sessions=len(self._calls),
            room=self.desk.room,
            draining=self.desk.is_draining,
            age_s=0.0,
        )
        await self._ask(self._store.report, host)

    async def _is_another_host(self) -> bool:
        try:
            hosts = await self._ask(self._store.hosts)
        except StoreError:
            return False
        others = [each for each in hosts if each.name != self.name and not each.draining]
        return any(each.age_s < max(3 * _SCAN_S, self._ttl_s) for each in others)

    # -- helpers ------------------------------------------------------------------------------

    async def _ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call the store on its thread."""
        return await self._loop.run_in_executor(self._thread, partial(call, *arguments))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.WARNING if isinstance(error, RtvoiceError) else logging.ERROR
            _logger.log(level, "a conversation did not end in order", exc_info=error)
