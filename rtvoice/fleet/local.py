"""The engine of one machine: host processes that are started again when they die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from messages.exit_codes import EXIT_USAGE
from messages.transport.spawning import ending
from rtvoice.fleet.engine import EngineError, environment_of_a_host
from rtvoice.fleet.owner import is_dead, is_here, pid_of
from rtvoice.fleet.process import HostOptions
from rtvoice.fleet.store import FRESH_S, HostRow, Store, StoreError

__all__ = ["LocalEngine"]

_logger = logging.getLogger("rtvoice.fleet")

_LOOK_S = 0.2
_START_S = 60.0
_AGAIN_S = 1.0
"""A host that dies sooner than this is started again only after it."""
_MODULE = "rtvoice.fleet.process"


class LocalEngine:
    """Keeps host processes running on this machine.

    They outlive the engine: whoever starts it again finds those that run in the store.

    Args:
        store: The store.
        count: How many hosts.
        options: Returns the options of a host with a name.
    """

    def __init__(self, store: Store, count: int, options: Callable[[str], HostOptions]) -> None:
        self._store = store
        self._names = [f"host-{number}" for number in range(1, count + 1)]
        self._options = options
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._began: dict[str, float] = {}
        self._codes: set[int] = set()
        """Exit codes of the hosts that have ended."""
        self._keeping: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the hosts."""
        return list(self._names)

    async def start(self) -> None:
        """Have as many hosts as are wanted, from now on; return once each has reported itself.

        Raises:
            EngineError: A host cannot start; it has said why.
        """
        until = time.monotonic() + _START_S
        await self._look()
        self._keeping = asyncio.create_task(self._keep())
        while missing := set(self._names) - set(await self._reported()):
            if EXIT_USAGE in self._codes:
                await self.close()
                raise EngineError("a host cannot start; it has said why")
            if time.monotonic() > until:
                await self.close()
                raise EngineError(f"{min(missing)} has not started within {_START_S:g} s")
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Start no host again from now on. Those that run go on, those that start yet end."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        with contextlib.suppress(StoreError):
            known = {pid_of(row.owner) for row in await self._rows()}
            for child in self._children.values():
                if child.pid not in known:  # nobody could find it in the store
                    child.terminate()

    @property
    def children(self) -> list[subprocess.Popen[bytes]]:
        """The host processes that this engine has started and that it has not seen end."""
        return list(self._children.values())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(StoreError):  # it says so itself, and comes back
                await self._look()

    async def _look(self) -> None:
        """Start the hosts that do not run."""
        running = set(await self._reported())
        for name in self._names:
            child = self._children.get(name)
            if child is not None and child.poll() is not None:
                _logger.warning("%s %s", name, ending(child.returncode))
                self._codes.add(child.returncode)
                del self._children[name]
            elif child is not None or name in running:
                continue
            if time.monotonic() - self._began.get(name, 0.0) >= _AGAIN_S:
                self._children[name] = self._spawn(name)

    async def _rows(self) -> list[HostRow]:
        return await asyncio.to_thread(self._store.hosts)

    async def _reported(self) -> list[str]:
        rows = await self._rows()
        ours = [row for row in rows if row.name in self._names and not is_dead(row.owner)]
        # What is not here is not proven dead: of another container, or of before the last boot.
        return [row.name for row in ours if is_here(row.owner) or row.age_s < FRESH_S]

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        self._began[name] = time.monotonic()
        options = msgspec.json.encode(self._options(name)).decode()
        # A session of its own: Ctrl-C at the terminal is for the engine, which drains the hosts.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, options],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment_of_a_host(),
        )
