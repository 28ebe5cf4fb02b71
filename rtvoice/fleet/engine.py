"""What a fleet needs of the engine that places its hosts."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from messages import RtvoiceError
from rtvoice.fleet.store import HostRow, SessionRow, Store

__all__ = ["Engine", "EngineError", "Fleet", "ask_host"]

_logger = logging.getLogger("rtvoice.fleet")

_ASK_S = 10.0
_FRESH_S = 3.0
"""A host that has not reported itself for so long is asked for nothing."""


class EngineError(RtvoiceError):
    """A host cannot be started or asked."""


class Engine(Protocol):
    """Starts host processes somewhere, and starts them again when they die."""

    async def start(self) -> None:
        """Have as many hosts as are wanted, from now on."""

    async def ask(self, host: HostRow, method: str, what: str, **query: str) -> dict[str, Any]:
        """Have a host do something: ``take``, ``stop``, ``move``, ``drain`` or ``status``.

        Raises:
            EngineError: It does not answer, or refuses.
        """

    async def close(self, *, hosts: bool = False) -> None:
        """End the engine; with ``hosts``, its hosts too."""


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
    """Places conversations on the hosts of an engine, and finds them again.

    Args:
        store: The store.
        engine: The engine.
    """

    def __init__(self, store: Store, engine: Engine) -> None:
        self.store = store
        self.engine = engine

    async def start_session(self, session_id: str) -> HostRow | None:
        """Have a conversation begun that is in the store; return its host.

        None: no host has a place for it.
        """
        for host in await self.hosts():
            if not host.room:
                continue
            try:
                await self.engine.ask(host, "POST", "take", id=session_id)
            except EngineError as error:
                _logger.info("%s", error)
            if (found := await self.locate(session_id)) is not None:
                return found
        return None

    async def locate(self, session_id: str) -> HostRow | None:
        """Return the host that holds a conversation; None: none does at the moment."""
        row = await self.status(session_id)
        if row is None or row.ended is not None or row.left_s < 0 or not row.owner:
            return None
        hosts = await asyncio.to_thread(self.store.hosts)
        return next((each for each in hosts if each.name == row.host), None)

    async def status(self, session_id: str) -> SessionRow | None:
        """Return what is known of a conversation; None: there is none."""
        return await asyncio.to_thread(self.store.get, session_id)

    async def stop(self, session_id: str, why: str = "stopped") -> bool:
        """End a conversation in order; return whether a host holds it."""
        return await self._of_its_host(session_id, "stop", why=why)

    async def move(self, session_id: str) -> bool:
        """Move a conversation to another host at a pause; return whether a host holds it."""
        return await self._of_its_host(session_id, "move")

    async def drain(self, name: str) -> None:
        """Empty a host.

        Raises:
            EngineError: There is no such host, or it does not answer.
        """
        hosts = await asyncio.to_thread(self.store.hosts)
        host = next((each for each in hosts if each.name == name), None)
        if host is None:
            known = ", ".join(each.name for each in hosts) or "none"
            raise EngineError(f"there is no host {name}; there are: {known}")
        await self.engine.ask(host, "POST", "drain")

    async def hosts(self) -> list[HostRow]:
        """Return the hosts that answer, those with the most room first."""
        hosts = await asyncio.to_thread(self.store.hosts)
        alive = [each for each in hosts if each.age_s < _FRESH_S and not each.draining]
        return sorted(alive, key=lambda each: (-each.room, each.sessions))

    async def _of_its_host(self, session_id: str, what: str, **query: str) -> bool:
        host = await self.locate(session_id)
        if host is None:
            return False
        answer = await self.engine.ask(host, "POST", what, id=session_id, **query)
        return bool(answer.get("held"))
