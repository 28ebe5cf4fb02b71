"""Conversations on several hosts, which go on when a host dies: see docs/guide/fleet.md.

Needs ``pip install "rtvoice[service]"``; a store in Postgres ``rtvoice[postgres]``, hosts in a Ray
cluster ``rtvoice[ray]``. The engines are `rtvoice.fleet.local.LocalEngine` and
`rtvoice.fleet.ray_engine.RayEngine`, the ASGI application is `rtvoice.fleet.gateway.Gateway`.
"""

from rtvoice.fleet.engine import Engine, EngineError, Fleet
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.store import (
    Fenced,
    HostRow,
    Kept,
    SessionRow,
    Store,
    StoreError,
)

__all__ = [
    "Engine",
    "EngineError",
    "Fenced",
    "Fleet",
    "HostRow",
    "Kept",
    "SessionRow",
    "Store",
    "StoreError",
    "open_store",
]
