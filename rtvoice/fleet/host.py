"""A host of a fleet: a service whose conversations are held by leases, and kept in a store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from actors.lease import LeaseLostError
from messages import AskToRun, MayRun, NotRunningError, RtvoiceError
from messages.paths import text_of_path
from rtvoice.fleet.holding import Held, Holding
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import is_dead, owner_of_this_process
from rtvoice.fleet.quiet import Quiet
from rtvoice.fleet.store import (
    FRESH_S,
    VERSION,
    Fenced,
    HostRow,
    SessionRow,
    StoreError,
)
from rtvoice.service.admission import Place
from rtvoice.service.call import Call
from rtvoice.service.desk import Desk
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.info import CallInfo
from rtvoice.service.options import Options
from rtvoice.service.tokens import Token

__all__ = ["CannotMoveError", "Host"]

_logger = logging.getLogger("rtvoice.fleet")

_SCAN_S = 0.5
"""Interval in which a host looks for conversations that nobody holds any more; less if the leases
are shorter than 2.5 s."""
_AT_ONCE = 8
"""How many of them it takes at most before it looks again, so that other hosts take some."""
_LEAVING = 4
"""How many conversations move at the same time at most."""
_RETRY_S = 0.1
_FORGOTTEN_S = 3600.0
"""A conversation that nobody has held for so long is not begun again: no caller waits for it."""
_MOVED = "the conversation goes on at another host: ask the gateway where"
_LOST = "this host has lost the conversation, which goes on at another one: ask the gateway where"
T = TypeVar("T")


class CannotMoveError(RtvoiceError):
    """No other host has a place for a conversation."""

    def __str__(self) -> str:
        return "no other host has a place for it"


class _Talk(NamedTuple):
    """A conversation that runs here."""

    held: Held
    call: Call
    quiet: Quiet


class Host:
    """Holds conversations of a fleet in this process.

    All methods are called on one event loop.

    It is longer than other classes: taking, keeping and giving up a conversation belong together.

    Args:
        options: Of the service that it is.
        store_url: The store (`rtvoice.fleet.opening.open_store`).
        name: Its name in the fleet.
        url: Where callers reach it: ``http://…``.
        ttl_s: How long a lease is.
        folder: Where journals lie while a conversation is held.
        end: Has the process drain and end; called when another host has the same name.

    Raises:
        ConfigurationError: The store's URL is not valid.
        StoreError: The store cannot be reached.
    """

    def __init__(
        self,
        options: Options,
        store_url: str,
        *,
        name: str,
        url: str,
        ttl_s: float,
        folder: Path,
        end: Callable[[], None],
    ) -> None:
        self.name = name
        self.url = url
        self.desk = Desk(options)
        self.owner = owner_of_this_process(name)
        self.moves_when_draining = True
        """Whether a drain moves conversations to other hosts, or lets them go on to their end."""
        self._ttl_s = ttl_s
        self._folder = folder
        self._end = end
        self._store = open_store(store_url)
        self._thread = ThreadPoolExecutor(1, "rtvoice-store")
        self._loop = asyncio.get_running_loop()
        self.holding = Holding(partial(open_store, store_url), self.owner, ttl_s, self._lost)
        self._talks: dict[str, _Talk] = {}
        self._taking: dict[str, asyncio.Event] = {}
        self._left_alone: dict[str, float] = {}
        """Until when the scan leaves conversations to other hosts (``time.monotonic()``)."""
        self._leaving = asyncio.Semaphore(_LEAVING)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: list[asyncio.Task[None]] = []
        self._is_closed = False

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Report itself, and take what nobody holds from now on.

        Raises:
            StoreError: The store cannot be reached, or another host has this name.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        await self._claim_name()
        self.desk.start()
        self.holding.start()
        self._running = [self._loop.create_task(work) for work in (self._scan(), self._watch())]

    async def drain(self, drain_s: float | None = None) -> None:
        """Take nothing more, and let other hosts have what is held here, each at a pause in speech.

        Conversations for which no other host has a place go on to their end.

        Args:
            drain_s: After so long, those that are left are moved at once; None: as the options say.
        """
        if self._is_closed:
            return
        self.desk.close_doors()
        with contextlib.suppress(StoreError):
            await self._report()
        limit_s = self.desk.drain_s if drain_s is None else drain_s
        until = time.monotonic() + limit_s
        for taken in [*self._taking.values()]:
            await taken.wait()
        if self.moves_when_draining:
            leaving = [self._loop.create_task(self._leave(each, until)) for each in self._all()]
            if leaving:
                await asyncio.wait(leaving)
        await self.desk.drain(max(0.0, until - time.monotonic()))
        while self._tasks:
            await asyncio.wait({*self._tasks})

    async def close(self) -> None:
        """End: renew nothing more, and be forgotten."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in self._running:
            task.cancel()
        self.desk.close()
        await asyncio.to_thread(self.holding.close)
        with contextlib.suppress(StoreError):
            await self._ask(self._store.forget, self.name, self.owner)
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
            StoreError: The store cannot be reached, or a newer version has kept the conversation.
            Exception: What ``make_agent`` raises.
        """
        while (taken := self._taking.get(session_id)) is not None:
            await taken.wait()
        if session_id in self._talks:
            return not self._talks[session_id].held.is_over
        self._taking[session_id] = asyncio.Event()
        self.holding.expect(session_id)
        try:
            return await self._take(session_id, dead)
        finally:
            self.holding.expect_no_more(session_id)
            self._taking.pop(session_id).set()

    async def _take(self, session_id: str, dead: str) -> bool:
        place = await self.desk.admit()
        try:
            row = await self._ask(self._store.get, session_id)
            if row is None:
                return False
            if row.version > VERSION:
                raise StoreError(
                    f"conversation {row.id} was kept by a newer version of rtvoice (its records "
                    f"have version {row.version}, this host knows {VERSION}): upgrade this host"
                )
            asked_ns = time.monotonic_ns()
            epoch = await self._ask(
                self._store.acquire, session_id, self.owner, self.name, self._ttl_s, dead
            )
            if epoch is None:
                return False
            await self._go_on(row, epoch, asked_ns, place)
        finally:
            if session_id not in self._talks:
                self.desk.give_back(place)
        return True

    async def _go_on(self, row: SessionRow, epoch: int, asked_ns: int, place: Place) -> None:
        """Begin a conversation that was acquired; without success somebody else may have it."""
        held: Held | None = None
        why = ""
        try:
            held = await self._prepared(row, epoch, asked_ns)
            await self._begin(row, held, place)
        except StoreError:
            raise
        except PermissionError:  # make_agent refuses the caller
            why = "refused"
            raise
        except Exception:
            why = "" if held is None or held.records else "failed"
            self._leave_alone(row.id, 10 * self._ttl_s)  # it would fail here again
            raise
        finally:
            if row.id not in self._talks:
                with contextlib.suppress(StoreError):  # the lease runs out by itself
                    await self._let_go(row.id, epoch, why)
                if held is not None:
                    self.holding.remove(held)

    async def _let_go(self, session_id: str, epoch: int, why: str) -> None:
        """Record why a conversation has ended; without a reason, let others have it."""
        if why:
            await self._ask(self._store.end, session_id, epoch, why)
        else:
            await self._ask(self._store.release, session_id, epoch)

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
            over=partial(self._over, held),
        )
        self._talks[row.id] = _Talk(held, call, Quiet(call.conversation.agent))
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
                await self._let_run(call, MayRun(asked.call_id, was_run))
                return

    async def _let_run(self, call: Call, answer: MayRun) -> None:
        """Let a call of a tool run; one that goes on may be asked for before all has started."""
        while not call.is_over:
            try:
                call.conversation.agent._send(answer)  # noqa: SLF001 - made for this
            except NotRunningError:
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def stop(self, session_id: str, why: str) -> bool:
        """End a conversation in order; return whether it is held here."""
        talk = self._talks.get(session_id)
        if talk is not None:
            talk.call.end(why)
        return talk is not None

    async def move(self, session_id: str, limit_s: float = 30.0) -> bool:
        """Let another host have a conversation, at a pause in speech.

        Args:
            session_id: The conversation.
            limit_s: After so long, it is moved at once.

        Returns:
            Whether it is held here.

        Raises:
            CannotMoveError: No other host has a place for it.
            StoreError: The store cannot be reached.
        """
        talk = self._talks.get(session_id)
        if talk is None:
            return False
        if not await self._room_elsewhere():
            raise CannotMoveError
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await talk.quiet.wait()
        self._move(talk)
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

    def _all(self) -> list[_Talk]:
        return list(self._talks.values())

    # -- a conversation leaves ----------------------------------------------------------------

    async def _leave(self, talk: _Talk, until: float) -> None:
        """Move a conversation at a pause, once another host has a place for it."""
        while not talk.call.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await talk.quiet.wait()
            is_late = time.monotonic() >= until
            async with self._leaving:
                # A few at a time: so that the hosts' reports of their room are true.
                if (talk.quiet.is_now or is_late) and await self._has_room_elsewhere():
                    self._move(talk)
                    if not is_late:
                        await self._taken_elsewhere(talk.held)
                    return
            if is_late:
                return  # the desk ends it
            await asyncio.sleep(_SCAN_S)

    def _move(self, talk: _Talk) -> None:
        if not talk.call.is_over:
            self._leave_alone(talk.held.session_id, max(self._ttl_s, FRESH_S))
            talk.call.abandon("moved", _MOVED)

    async def _taken_elsewhere(self, held: Held) -> None:
        """Wait until another host has taken a conversation, but not forever."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(2 * FRESH_S):
                while True:
                    row = await self._ask(self._store.get, held.session_id)
                    if row is None or row.epoch > held.epoch or row.ended is not None:
                        return
                    await asyncio.sleep(_RETRY_S)

    def _lost(self, held: Held) -> None:
        """Be told, on a thread, that a lease is lost."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all is over
            self._loop.call_soon_threadsafe(self._lose, held)

    def _lose(self, held: Held) -> None:
        talk = self._talks.get(held.session_id)
        if talk is not None and talk.held is held and not talk.call.is_over:
            talk.call.abandon("lost_lease", _LOST)

    def _over(self, held: Held, call: Call) -> None:
        ran_out = time.monotonic_ns() > held.until_ns or str(LeaseLostError()) in call.failure
        if ran_out and call.conversation.ended_by in ("failed", ""):
            # Its processes saw it before this one did: it has not failed, it goes on elsewhere.
            call.abandon("lost_lease", _LOST)
        task = asyncio.ensure_future(self._give_up(held, call))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _give_up(self, held: Held, call: Call) -> None:
        """Write what is left to the store, and why the conversation is over here."""
        self.desk.forget(call)
        goes_on = call.conversation.ended_by in ("moved", "drained", "lost_lease")
        why = "" if goes_on else call.conversation.ended_because
        while not held.is_over:
            try:
                await self._ask(held.ship, self._store)
                await self._let_go(held.session_id, held.epoch, why)
                self.holding.remove(held)
            except Fenced:
                self.holding.remove(held)
            except StoreError:
                await asyncio.sleep(_RETRY_S)
        talk = self._talks.pop(held.session_id)
        talk.quiet.close()
        shutil.rmtree(held.folder, ignore_errors=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.WARNING if isinstance(error, RtvoiceError) else logging.ERROR
            _logger.log(level, "a conversation did not end in order", exc_info=error)

    # -- what nobody holds --------------------------------------------------------------------

    async def _watch(self) -> None:
        """Give up in time what could not be renewed, whatever the store keeps waiting."""
        while True:
            await asyncio.sleep(min(_SCAN_S, self._ttl_s / 10))
            self.holding.look()

    async def _scan(self) -> None:
        while True:
            await asyncio.sleep(min(_SCAN_S, self._ttl_s / 5))
            try:
                if not await self._report():
                    _logger.error("another host is called %s too: this one ends", self.name)
                    self._end()
                    return
                if not self.desk.is_draining:
                    await self._take_abandoned()
            except (Busy, Draining):
                pass  # another host has room, or this one later
            except StoreError:
                pass  # `Holding` says so
            except Exception:
                _logger.exception("a conversation cannot be taken")

    async def _take_abandoned(self) -> None:
        now = time.monotonic()
        self._left_alone = {key: end for key, end in self._left_alone.items() if end > now}
        for row in await self._ask(self._store.waiting, _AT_ONCE, list(self._left_alone)):
            if row.left_s < -_FORGOTTEN_S:
                await self._ask(self._store.end, row.id, row.epoch, "lost")
            else:
                await self.take(row.id)
        for owner in await self._ask(self._store.owners):
            if is_dead(owner):
                for row in (await self._ask(self._store.live, owner))[:_AT_ONCE]:
                    await self.take(row.id, owner)

    def _leave_alone(self, session_id: str, seconds: float) -> None:
        self._left_alone[session_id] = time.monotonic() + seconds

    # -- this host and others -----------------------------------------------------------------

    async def _report(self, dead: str = "") -> bool:
        """Report itself; return whether no other host has its name."""
        host = HostRow(
            name=self.name,
            url=self.url,
            owner=self.owner,
            sessions=len(self._talks),
            room=self.desk.room,
            draining=self.desk.is_draining,
            age_s=0.0,
        )
        return await self._ask(self._store.report, host, dead)

    async def _claim_name(self) -> None:
        """Report itself for the first time.

        Raises:
            StoreError: Another host has this name.
        """
        until = time.monotonic() + 2 * FRESH_S
        while True:
            hosts = await self._ask(self._store.hosts)
            other = next((each for each in hosts if each.name == self.name), None)
            dead = other.owner if other is not None and is_dead(other.owner) else ""
            if await self._report(dead):
                return
            if other is not None and time.monotonic() > until:
                raise StoreError(
                    f"another host is called {self.name}, at {other.url}: give each its own name"
                )
            await asyncio.sleep(_RETRY_S)

    async def _room_elsewhere(self) -> int:
        hosts = await self._ask(self._store.hosts)
        others = [each for each in hosts if each.owner != self.owner and not each.draining]
        return sum(each.room for each in others if each.age_s < FRESH_S)

    async def _has_room_elsewhere(self) -> bool:
        try:
            return await self._room_elsewhere() > 0
        except StoreError:
            return False

    async def _ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call the store on its thread."""
        return await self._loop.run_in_executor(self._thread, partial(call, *arguments))
