"""The gateway, where no host answers: what it promises to callers holds all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtvoice.fleet.engine import EngineError, Fleet
from rtvoice.fleet.gateway import Gateway
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.store import HostRow, Store, StoreError
from rtvoice.service.tokens import Token
from tests.loop import in_a_loop


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield store
    store.close()


async def asked(
    store: Store, method: str, path: str, *pieces: bytes, token: str = ""
) -> tuple[int, dict[str, Any]]:
    """Ask the gateway, with a body in pieces."""
    left, sent = list(pieces or (b"",)), []

    async def receive() -> dict[str, Any]:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await Gateway(Fleet(store))(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def silent_host(store: Store, owner: str = "A", name: str = "host-1", room: int = 5) -> HostRow:
    """Report a host at whose address nothing listens."""
    host = HostRow(
        name=name,
        url="http://127.0.0.1:1",
        owner=owner,
        sessions=0,
        room=room,
        draining=False,
        age_s=0.0,
    )
    assert store.report(host)
    return host


@pytest.mark.parametrize("is_there", [False, True], ids=["no host", "a host that does not answer"])
@in_a_loop
async def test_what_could_not_be_begun_is_not_begun_later_without_a_caller(
    store: Store, is_there: bool
) -> None:
    if is_there:
        silent_host(store)

    status, found = await asked(store, "POST", "/sessions", b"{}")

    assert (status, found) == (503, {"error": "no host has a place; try again later"})
    assert store.waiting(10) == []
    assert store.live() == []


@in_a_loop
async def test_a_conversation_whose_host_does_not_answer_can_be_ended(store: Store) -> None:
    token = Token("one")
    store.create("one", b"{}", token.sha256)
    store.acquire("one", "A", "host-1", 60.0)
    silent_host(store)

    ended = await asked(store, "DELETE", "/sessions/one", token=token.text)
    then = await asked(store, "GET", "/sessions/one", token=token.text)

    assert ended == (200, {"ended": True})
    assert then == (410, {"error": "it has ended", "reason": "hung_up"})
    assert store.renew("A", 60.0) == {}


@in_a_loop
async def test_where_a_conversation_is_is_told_to_whoever_has_its_token(store: Store) -> None:
    token = Token("one")
    store.create("one", b"{}", token.sha256)
    between = await asked(store, "GET", "/sessions/one", token=token.text)
    store.acquire("one", "A", "host-1", 60.0)
    silent_host(store)

    there = await asked(store, "GET", "/sessions/one", token=token.text)
    refused = [
        await asked(store, method, "/sessions/one", token=wrong)
        for method in ("GET", "DELETE")
        for wrong in ("", Token("one").text, Token("two").text, "one.")
    ]

    assert between[0] == 503
    assert there == (200, {"id": "one", "url": "ws://127.0.0.1:1/talk", "epoch": 1})
    assert {status for status, _ in refused} == {404}
    assert store.get("one").ended is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ((b"{",), "send an object"),
        ((b"\xff",), "send an object"),
        ((b'"text"',), "send an object"),
        ((b'{"parameters": 7}',), "send an object"),
        ((b'{"rate": true}',), "samples a second"),
        ((b'{"rate": 24000.5}',), "samples a second"),
        ((b"[" * 100_000,), "send an object"),
        ((b"[" * 50_000,), "send an object"),
        ((b" " * 40_000, b" " * 40_000), "send an object"),
    ],
)
@in_a_loop
async def test_a_body_that_is_not_understood_is_refused(
    store: Store, body: tuple[bytes, ...], words: str
) -> None:
    status, found = await asked(store, "POST", "/sessions", *body)

    assert status == 400
    assert words in found["error"]
    assert store.live() == []


@in_a_loop
async def test_without_the_store_callers_are_asked_to_try_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("it is away")

    for name in ("create", "get", "hosts"):
        monkeypatch.setattr(store, name, fail)

    for method, path in (
        ("POST", "/sessions"),
        ("GET", "/sessions/one"),
        ("DELETE", "/sessions/one"),
        ("GET", "/readyz"),
    ):
        answer = await asked(store, method, path, b"{}")
        assert answer == (503, {"error": "the store cannot be reached; try again"})
    assert (await asked(store, "GET", "/healthz"))[0] == 200


@in_a_loop
async def test_conversations_that_begin_together_are_spread(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the hosts have reported the first of them."""
    for name, room in (("a", 50), ("b", 40)):  # of one machine; the other one has measured more
        silent_host(store, owner=name, name=name, room=room)
    fleet = Fleet(store)
    asked_of = []

    async def ask(host: HostRow, *_: str, **query: str) -> dict[str, Any]:
        asked_of.append(host.name)
        store.acquire(query["id"], host.owner, host.name, 60.0)
        return {}

    monkeypatch.setattr(fleet, "ask", ask)
    for number in range(6):
        store.create(str(number), b"{}", "hash")
        assert await fleet.start_session(str(number)) is not None

    assert sorted(asked_of) == ["a", "a", "a", "b", "b", "b"]


@in_a_loop
async def test_a_host_that_does_not_answer_is_named(store: Store) -> None:
    host = silent_host(store)

    with pytest.raises(EngineError, match="host host-1 does not answer"):
        await Fleet(store).drain(host)


@in_a_loop
async def test_a_body_that_is_too_long_is_refused(store: Store) -> None:
    status, found = await asked(store, "POST", "/sessions", b'{"a": "', b"x" * 65_536, b'"}')

    assert status == 400, found
    assert store.live() == []


@in_a_loop
async def test_a_host_that_drains_or_is_silent_is_given_nothing(store: Store) -> None:
    for name, draining in (("drains", True), ("silent", False), ("takes", False)):
        fields: dict[str, Any] = {"url": "http://h", "owner": name, "sessions": 0, "room": 1}
        store.report(HostRow(name=name, draining=draining, age_s=0.0, **fields))
    store.run("update fleet_host set seen = seen - 10 where name = 'silent'", {})  # type: ignore[attr-defined]

    assert [host.name for host in await Fleet(store).hosts()] == ["takes"]
