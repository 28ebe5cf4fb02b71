"""What a fleet needs of the engine that places its hosts."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import json
import logging
import os
import sys
import time
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from messages import RtvoiceError
from rtvoice.fleet.store import FRESH_S, HostRow, SessionRow, Store

__all__ = ["Engine", "EngineError", "Fleet", "ask_host", "environment_of_a_host"]

_logger = logging.getLogger("rtvoice.fleet")

_ASK_S = 10.0
"""How long a host may take to answer."""
_MOVE_S = 60.0
"""The same for a move, which waits for a pause in speech."""
_REPORT_S = 1.0
"""How old a host's report of its room may be."""


class EngineError(RtvoiceError):
    """A host cannot be started or asked."""


class Engine(Protocol):
    """Starts host processes somewhere, and starts them again when they die.

    It carries no conversation, and is asked for nothing while one is held: what concerns a
    conversation is in the store and at its host (`Fleet`). So a fleet whose engine is gone goes on.
    """

    @property
    def names(self) -> list[str]:
        """The names of the hosts."""

    async def start(self) -> None:
        """Have as many hosts as are wanted, from now on; return once each has reported itself.

        Raises:
            EngineError: A host cannot start; the text says why.
        """

    async def close(self) -> None:
        """Start no host again from now on. Those that run go on."""


def environment_of_a_host() -> dict[str, str]:
    """Return the environment for a process that imports what this one can, such as the agent."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def ask_host(
    host: HostRow, secret: str, method: str, what: str, query: dict[str, str], wait_s: float
) -> dict[str, Any]:
    """Ask a host over HTTP, without a library; blocks.

    Raises:
        EngineError: It does not answer, or refuses.
    """
    parts = urlsplit(host.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    line = kind(parts.netloc, timeout=wait_s)
    try:
        line.request(
            method,
            f"{parts.path}/fleet/{what}?{urlencode(query)}",
            headers={"authorization": f"Bearer {secret}"},
        )
        response = line.getresponse()
        found: dict[str, Any] = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EngineError(f"host {host.name} does not answer: {error}") from error
    finally:
        line.close()
    if response.status != http.client.OK:
        raise EngineError(f"host {host.name}: {found.get('error', response.status)}")
    return found


class Fleet:
    """Places conversations on hosts, finds them again, and has hosts do something.

    The hosts and the fleet's secret are in the store; a host is asked at its own address. So this
    works from any machine, with whatever engine, also while the engine is away.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._secret = ""
        self._placed: collections.deque[tuple[float, str]] = collections.deque(maxlen=1000)
        """When the newest conversations were placed, and at which owner."""

    async def start_session(self, session_id: str) -> HostRow | None:
        """Have a conversation begun that is in the store; return its host.

        None: no host has a place for it.
        """
        for host in await self.hosts():
            if not host.room:
                continue
            try:
                await self.ask(host, "POST", "take", id=session_id)
            except EngineError as error:
                _logger.info("%s", error)
            else:
                self._placed.append((time.monotonic(), host.owner))
            if (found := await self.locate(session_id)) is not None:
                return found
        return None

    async def locate(self, session_id: str) -> HostRow | None:
        """Return the host that holds a conversation; None: none does at the moment."""
        row = await self.status(session_id)
        if row is None or not row.is_held:
            return None
        hosts = await asyncio.to_thread(self.store.hosts)
        return next((each for each in hosts if each.owner == row.owner), None)

    async def status(self, session_id: str) -> SessionRow | None:
        """Return what is known of a conversation; None: there is none."""
        return await asyncio.to_thread(self.store.get, session_id)

    async def stop(self, session_id: str, why: str = "stopped") -> bool:
        """End a conversation, in order if its host answers; return whether it had not ended yet.

        If no host answers for it, nobody begins it again, and one that cannot be reached gives it
        up when it cannot renew its lease.
        """
        with contextlib.suppress(EngineError):
            if await self._of_its_host(session_id, "stop", why=why):
                return True
        row = await self.status(session_id)
        if row is None or row.ended is not None:
            return False
        return await asyncio.to_thread(self.store.end, session_id, row.epoch, why)

    async def move(self, session_id: str) -> bool:
        """Move a conversation to another host at a pause; return whether a host holds it.

        Raises:
            EngineError: Its host does not answer, or no other one has a place for it.
        """
        return await self._of_its_host(session_id, "move")

    async def drain(self, host: HostRow, *, to_end: bool = False) -> None:
        """Empty a host, whose process ends then. A second time: at once.

        Args:
            host: The host.
            to_end: Whether its conversations go on to their end there, instead of moving.

        Raises:
            EngineError: It does not answer.
        """
        await self.ask(host, "POST", "drain", **({"to_end": "1"} if to_end else {}))

    async def hosts(self) -> list[HostRow]:
        """Return the hosts that take conversations, the least full first."""
        hosts = await asyncio.to_thread(self.store.hosts)
        alive = [each for each in hosts if each.age_s < FRESH_S and not each.draining]
        since = time.monotonic() - _REPORT_S
        placed = collections.Counter(owner for at, owner in self._placed if at > since)

        def fullness(host: HostRow) -> float:
            taken = host.sessions + placed[host.owner]
            return taken / max(1, host.sessions + host.room)

        # Not by room alone: hosts of one machine share it, and one that has measured what a
        # conversation takes may seem to have more than one that has to assume it.
        return sorted(alive, key=lambda each: (not each.room, fullness(each)))

    async def ask(self, host: HostRow, method: str, what: str, **query: str) -> dict[str, Any]:
        """Have a host do something: ``take``, ``stop``, ``move``, ``drain`` or ``status``.

        Raises:
            EngineError: It does not answer, or refuses.
        """
        self._secret = self._secret or await asyncio.to_thread(self.store.secret)
        wait_s = _MOVE_S if what == "move" else _ASK_S
        return await asyncio.to_thread(ask_host, host, self._secret, method, what, query, wait_s)

    async def _of_its_host(self, session_id: str, what: str, **query: str) -> bool:
        host = await self.locate(session_id)
        if host is None:
            return False
        answer = await self.ask(host, "POST", what, id=session_id, **query)
        return bool(answer.get("held"))
