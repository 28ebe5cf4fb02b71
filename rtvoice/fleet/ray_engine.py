"""The engine of a Ray cluster (``pip install "rtvoice[ray]"``): hosts on many machines.

A host is a process of its own, in a session of its own, that a Ray actor starts and watches: Ray
ends its workers when their raylet dies, and conversations shall not end with it. For the same
reason this program is no driver of Ray, which would be ended when Ray's head is lost: what it wants
of the cluster is done by a short program (`rtvoice.fleet.ray_actors`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from importlib.util import find_spec
from typing import Any

import msgspec

from messages import ConfigurationError
from messages.hints import install
from rtvoice.fleet.engine import EngineError, environment_of_a_host
from rtvoice.fleet.process import HostOptions
from rtvoice.fleet.store import FRESH_S, Store

__all__ = ["RayEngine"]

_logger = logging.getLogger("rtvoice.fleet")

_START_S = 120.0
_LOOK_S = 0.5
_MODULE = "rtvoice.fleet.ray_actors"


class RayEngine:
    """Keeps hosts running on the machines of a Ray cluster.

    Args:
        store: The store.
        options: Those of each host; its name and address are set where it runs.
        count: How many hosts; None: one for each core of the cluster.
        address: Of the cluster, as for ``ray.init``.
        cpus: How many cores each host reserves of Ray.

    Raises:
        ConfigurationError: Ray is not installed, or the store is a file.
    """

    def __init__(
        self,
        store: Store,
        options: HostOptions,
        *,
        count: int | None = None,
        address: str = "auto",
        cpus: float = 1.0,
    ) -> None:
        if find_spec("ray") is None:
            raise ConfigurationError(f"the engine ray needs Ray: {install(repr('rtvoice[ray]'))}")
        self._store = store
        self._wish = {
            "options": msgspec.to_builtins(options),
            "count": count,
            "cpus": cpus,
        }
        self._address = address
        self._names: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of the hosts; none before `start`."""
        return list(self._names)

    async def start(self) -> None:
        """Have as many hosts as are wanted, from now on; return once each has reported itself.

        Raises:
            EngineError: Ray cannot be reached, or has no room for the hosts.
        """
        found = await self._have_done("start")
        self._names = found["names"]
        until = time.monotonic() + _START_S
        while missing := set(self._names) - await self._reported():
            if time.monotonic() > until:
                raise EngineError(
                    f"{min(missing)} has not started within {_START_S:g} s: Ray has no core for "
                    "it, or the log of its actor says why it ends (ray logs)"
                )
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Start no host again from now on. Those that run go on."""
        try:
            await self._have_done("stop")
        except EngineError as error:
            _logger.warning("%s", error)

    async def _reported(self) -> set[str]:
        rows = await asyncio.to_thread(self._store.hosts)
        return {row.name for row in rows if row.age_s < FRESH_S}

    async def _have_done(self, what: str) -> dict[str, Any]:
        """Have the program do something with the cluster.

        Raises:
            EngineError: It cannot.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", _MODULE, what, self._address, json.dumps(self._wish)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment_of_a_host(),
        )
        try:
            async with asyncio.timeout(_START_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise EngineError(f"Ray does not answer within {_START_S:g} s") from None
        if process.returncode:
            lines = err.decode(errors="replace").strip().splitlines() or ["it does not say why"]
            raise EngineError(f"Ray at {self._address} cannot be used: {lines[-1]}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found
