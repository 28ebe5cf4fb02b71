"""Wrong options of ``rtvoice fleet``, and wrong requests to its gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rtvoice.fleet.engine import Fleet
from rtvoice.fleet.gateway import Gateway
from rtvoice.fleet.opening import open_store
from rtvoice.service.tokens import Token
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.usage import says

_SHOP = "def make_agent(call): ...\n"


def _fleet(world: World, *arguments: str, store: str = "sqlite:///fleet.db") -> Outcome:
    agent = f"{world.file('shop.py', _SHOP)}:make_agent"
    return says("fleet", "--store", store, "--agent", agent, *arguments)


@row("`fleet` without `--agent`")
def no_agent(world: World) -> Outcome:
    return says("fleet", "--store", "sqlite:///fleet.db")


@row("`fleet --store mysql://x`")
def no_store(world: World) -> Outcome:
    return _fleet(world, store="mysql://x")


@row("`fleet --store sqlite:///shop.py`, which is no database")
def no_database(world: World) -> Outcome:
    return _fleet(world, store="sqlite:///shop.py")


@row("`fleet --store postgresql://…`, where nothing listens")
def no_postgres(world: World) -> Outcome:
    return _fleet(world, store="postgresql://nobody@127.0.0.1:1/x")


@row("`fleet --ttl 1`")
def short_lease(world: World) -> Outcome:
    return _fleet(world, "--ttl", "1")


@row("`fleet --host 0.0.0.0` without `--host-url`")
def every_address(world: World) -> Outcome:
    return _fleet(world, "--host", "0.0.0.0")


@row("`fleet drain` of a host that is not there")
def no_host(world: World) -> Outcome:
    open_store("sqlite:///fleet.db").close()
    return says("fleet", "drain", "--store", "sqlite:///fleet.db", "host-9")


@row("`fleet move` of a conversation that is not there")
def no_conversation(world: World) -> Outcome:
    open_store("sqlite:///fleet.db").close()
    return says("fleet", "move", "--store", "sqlite:///fleet.db", "nobody")


@row("`fleet status --store sqlite:///feet.db`, which is not there")
def no_such_store(world: World) -> Outcome:
    return says("fleet", "status", "--store", "sqlite:///feet.db")


# -- the gateway ------------------------------------------------------------------------------


def _asked(method: str, path: str, body: bytes = b"", token: str = "") -> Outcome:
    """Return what the gateway answers, which goes on whatever it is asked."""
    store = open_store("sqlite:///fleet.db")
    for name in ("one", "two"):
        store.create(name, b"{}", Token(name).sha256)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    async def ask() -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        gateway = Gateway(Fleet(store))
        await gateway(scope, receive, send)
        del scope["path"]
        await gateway({**scope, "path": "/healthz", "method": "GET"}, receive, send)

    asyncio.run(ask())
    store.close()
    assert sent[2]["status"] == 200
    return Outcome(f"{sent[0]['status']} {json.dumps(json.loads(sent[1]['body']))}", None)


@row("`POST /sessions` with a body that is no object")
def body_of_no_object(world: World) -> Outcome:
    return _asked("POST", "/sessions", b"[1]")


@row("`POST /sessions` with a rate of 1")
def body_with_a_wrong_rate(world: World) -> Outcome:
    return _asked("POST", "/sessions", b'{"rate": 1}')


@row("`GET /sessions/ID` with the token of another conversation")
def token_of_another(world: World) -> Outcome:
    return _asked("GET", "/sessions/one", token=Token("two").text)
