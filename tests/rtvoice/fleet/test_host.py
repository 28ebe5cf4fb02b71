"""A host with a store that fails, is slow, or says something unexpected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from actors.lease import Lease
from messages import AskToRun, MayRun, NotRunningError
from rtvoice import Agent, Tools
from rtvoice.fleet import host as host_module
from rtvoice.fleet import sql
from rtvoice.fleet.control import HostApp
from rtvoice.fleet.holding import Held, Holding, _line
from rtvoice.fleet.host import CannotMoveError, Host
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.process import HostOptions
from rtvoice.fleet.store import Fenced, HostRow, Store, StoreError
from rtvoice.service.errors import Draining
from tests.fake_server import Connection, FakeServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S
from tests.rtvoice.fleet.rig import until

TTL_S = 2.0
APPEND = "input_audio_buffer.append"


class Flaky:
    """A store of which some calls fail, before or after they are done, or take long."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls = 0
        self.fails: Callable[[int, str], bool] = lambda _number, _name: False
        self.is_late = False
        """Whether a call that fails is done all the same."""
        self.blocks: threading.Event | None = None
        """What each call waits for; None: nothing."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name == "close":
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.blocks is not None:
                self.blocks.wait()
            if not self.fails(self.calls, name):
                return method(*arguments, **named)
            if self.is_late:
                method(*arguments, **named)
            raise StoreError("the store fails")

        return call


class Hosting:
    """Hosts in this process, each with stores of its own that can fail."""

    def __init__(self, folder: Path, server: FakeServer) -> None:
        self.url = f"sqlite:///{folder / 'fleet.db'}"
        self.store = open_store(self.url)
        self.folder = folder
        self.refusal: Exception | None = None
        self.tools = Tools()
        self.ended: list[str] = []
        """Names of the hosts that have asked for their end."""
        self._server = server
        self.made: dict[str, list[Flaky]] = {}
        self._name = ""

    def open(self, _: str) -> Any:
        flaky = Flaky(open_store(self.url))
        self.made.setdefault(self._name, []).append(flaky)
        return flaky

    @contextlib.asynccontextmanager
    async def host(self, name: str = "a", **options: Any) -> AsyncIterator[Host]:
        """Run a host."""
        self._name = name
        given = {"cpu_limit": None, "ttl_s": TTL_S, **options}
        described = HostOptions(name=name, store=self.url, agent="", **given)
        host = Host(
            described.service(self._make_agent),
            self.url,
            name=name,
            url=f"http://{name}",
            ttl_s=described.ttl_s,
            folder=self.folder / name,
            end=lambda: self.ended.append(name),
        )
        await host.start()
        await until(lambda: len(self.made[name]) == 3, "its threads have no store")
        try:
            yield host
        finally:
            for flaky in self.made[name]:
                flaky.fails = lambda _number, _name: False
                flaky.blocks = None
            await host.drain(0)
            await host.close()

    def added(self, session_id: str) -> str:
        """Add a conversation."""
        self.store.create(session_id, json.dumps({"kind": "talk"}).encode(), "hash")
        return session_id

    async def begun(self, host: Host) -> Connection:
        """Have a host hold the first conversation, ``one``; return the server's connection."""
        await host.take(self.added("one"))
        return await asyncio.to_thread(self._server.connection, 0)

    def row(self, session_id: str) -> Any:
        row = self.store.get(session_id)
        assert row is not None
        return row

    def _make_agent(self, _: object) -> Agent:
        if self.refusal is not None:
            raise self.refusal
        return Agent(server=self._server.url, tools=self.tools, inactivity_timeout_s=None)


@pytest.fixture
def hosting(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Hosting:
    hosting = Hosting(tmp_path, server)
    monkeypatch.setattr(host_module, "open_store", hosting.open)
    return hosting


# -- a store that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "is_late",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["not done", "done"],
)
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 16))]
)
@in_a_loop
async def test_a_conversation_is_taken_and_ends_whichever_calls_of_the_store_fail(
    hosting: Hosting, seed: int, is_late: bool
) -> None:
    chances = Random(seed)
    async with hosting.host() as host:
        for flaky in hosting.made["a"]:
            flaky.calls, flaky.is_late = 0, is_late
            flaky.fails = lambda _number, _name: chances.random() < 0.2
        hosting.added("one")

        await until(lambda: "one" in host.status()["sessions"], "it is not taken", 3 * TIMEOUT_S)
        await asyncio.sleep(TTL_S)  # it is renewed and kept meanwhile
        assert hosting.row("one").ended is None

        def ended() -> bool:
            host.stop("one", "hung_up")  # somebody else may have taken it meanwhile: this host
            return hosting.row("one").ended is not None

        await until(ended, "it does not end", 3 * TIMEOUT_S)

        assert hosting.row("one").ended == "hung_up"
        numbers = hosting.store.run("select number from fleet_record order by number", {})[0]  # type: ignore[attr-defined]
        assert [row[0] for row in numbers] == list(range(1, len(numbers) + 1))


@in_a_loop
async def test_what_was_acquired_without_an_answer_is_given_back(hosting: Hosting) -> None:
    async with hosting.host() as host:
        hosting.added("held")
        await until(lambda: "held" in host.status()["sessions"], "it is not taken")
        (flaky, *_) = hosting.made["a"]
        flaky.is_late = True
        flaky.fails = lambda _number, name: name == "acquire"
        with pytest.raises(StoreError):
            await host.take(hosting.added("lost"))
        assert hosting.row("lost").owner == host.owner

        await until(lambda: not hosting.row("lost").owner, "it stays this host's for ever")


@in_a_loop
async def test_what_is_being_taken_is_not_given_back(hosting: Hosting) -> None:
    async with hosting.host() as host:
        await host.take(hosting.added("held"))  # without one nothing is renewed
        (flaky, *_) = hosting.made["a"]
        read = flaky.read

        def slow(session_id: str) -> Any:
            time.sleep(0.5 * TTL_S)  # it is acquired, and two renewals pass
            return read(session_id)

        flaky.read = slow  # type: ignore[attr-defined]

        assert await host.take(hosting.added("one"))

        assert (hosting.row("one").owner, hosting.row("one").epoch) == (host.owner, 1)


@in_a_loop
async def test_a_store_that_does_not_answer_ends_what_is_held_in_time(hosting: Hosting) -> None:
    """No thread that waits for the store is needed for it."""
    async with hosting.host() as host:
        connection = await hosting.begun(host)
        blocked = threading.Event()
        for flaky in hosting.made["a"]:
            flaky.blocks = blocked

        try:
            await until(lambda: connection.closed, "it goes on without a lease")
            assert host.status()["sessions"] == {}
        finally:
            blocked.set()


@in_a_loop
async def test_a_lease_that_runs_out_during_the_start_ends_it(
    hosting: Hosting, server: FakeServer
) -> None:
    async with hosting.host() as host:
        (flaky, *_) = hosting.made["a"]
        slow = flaky.read

        def read(session_id: str) -> Any:
            for other in hosting.made["a"][1:]:
                other.fails = lambda _number, _name: True  # nothing is renewed
            time.sleep(TTL_S)
            return slow(session_id)

        flaky.read = read  # type: ignore[attr-defined]
        await host.take(hosting.added("one"))

        await until(lambda: not host.status()["sessions"], "it is held without a lease")
        assert hosting.row("one").ended is None
        assert not [each for each in server.connections if each.of(APPEND)]


@in_a_loop
async def test_a_tool_that_is_asked_for_before_all_has_started_is_answered(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    send = Agent._send

    def too_early(agent: Agent, message: Any) -> None:
        if isinstance(message, MayRun):
            sent.append(message)
            if len(sent) < 3:
                raise NotRunningError
        send(agent, message)

    monkeypatch.setattr(Agent, "_send", too_early)

    @hosting.tools.action("Order something.")
    def order(what: str) -> str:
        return f"ordered {what}"

    async with hosting.host() as host:
        connection = await hosting.begun(host)

        connection.call("order", '{"what": "tea"}', call_id="c1")

        told = await asyncio.to_thread(connection.expect, "conversation.item.create")
        assert told["item"]["output"] == "ordered tea"


@in_a_loop
async def test_a_tool_that_an_earlier_host_has_begun_is_not_run_here(
    hosting: Hosting, server: FakeServer
) -> None:
    runs: list[str] = []

    @hosting.tools.action("Order something.")
    def order(what: str) -> str:
        runs.append(what)
        return f"ordered {what}"

    async with hosting.host("a") as host:
        await hosting.begun(host)
        await until(lambda: records(hosting), "its journal is not in the store")
    assert hosting.store.acquire("one", "dead", "x", 60) == 2
    begun = _line("ToolBegun", {"call_id": "c1"})
    hosting.store.append("one", 2, len(records(hosting)) + 1, [begun])
    hosting.store.release("one", 2)
    async with hosting.host("b") as host:
        await host.take("one")
        connection = await asyncio.to_thread(server.connection, 1)

        outputs = []
        for call_id in ("c1", "c2"):
            connection.call("order", f'{{"what": "{call_id}"}}', call_id=call_id)
            told = await asyncio.to_thread(
                connection.expect,
                "conversation.item.create",
                lambda event, of=call_id: event["item"].get("call_id") == of,
            )
            outputs.append(told["item"]["output"])

    assert "outcome unknown" in outputs[0]
    assert outputs[1] == "ordered c2"
    assert runs == ["c2"]


# -- taking ---------------------------------------------------------------------------------------


@in_a_loop
async def test_a_conversation_that_is_asked_for_twice_is_begun_once(hosting: Hosting) -> None:
    async with hosting.host() as host:
        hosting.added("one")

        took = await asyncio.gather(*(host.take("one") for _ in range(3)))

        assert took == [True, True, True]
        assert hosting.row("one").epoch == 1


@in_a_loop
async def test_who_waits_for_a_take_that_fails_takes_it(hosting: Hosting) -> None:
    async with hosting.host() as host:
        (flaky, *_) = hosting.made["a"]
        begun = flaky.calls
        flaky.fails = lambda number, name: name == "get" and number < begun + 20
        hosting.added("one")

        took = await asyncio.gather(*(host.take("one") for _ in range(4)), return_exceptions=True)
        flaky.fails = lambda _number, _name: False

        assert all(isinstance(each, StoreError | bool) for each in took), took
        await until(lambda: "one" in host.status()["sessions"], "it is not taken")


@in_a_loop
async def test_many_conversations_are_taken_at_once_by_hosts_that_have_room(
    hosting: Hosting,
) -> None:
    async with hosting.host("a", max_sessions=4) as a, hosting.host("b", max_sessions=4) as b:
        names = [hosting.added(f"{number}") for number in range(10)]

        def held() -> list[str]:
            return [*a.status()["sessions"], *b.status()["sessions"]]

        await until(lambda: len(held()) == 8, "not all places are taken")
        assert len(set(held())) == 8
        a.stop(next(iter(a.status()["sessions"])), "hung_up")
        await until(lambda: len({*held()}) == 8 and any(hosting.row(n).ended for n in names), "")


@in_a_loop
async def test_a_conversation_that_is_ended_in_the_store_is_given_up_by_its_host(
    hosting: Hosting,
) -> None:
    async with hosting.host() as host:
        connection = await hosting.begun(host)

        assert hosting.store.end("one", 1, "stopped")

        await until(lambda: connection.closed, "it goes on")
        await until(lambda: not host.status()["sessions"], "it is held")
        assert (hosting.row("one").ended, hosting.row("one").epoch) == ("stopped", 1)


@in_a_loop
async def test_a_conversation_that_ends_while_it_is_taken_is_not_begun(hosting: Hosting) -> None:
    async with hosting.host() as host:
        (flaky, *_) = hosting.made["a"]
        acquire = flaky.acquire

        def end_and_acquire(*arguments: Any) -> Any:
            hosting.store.end("one", 0, "hung_up")
            return acquire(*arguments)

        flaky.acquire = end_and_acquire  # type: ignore[attr-defined]

        assert not await host.take(hosting.added("one"))
        assert (hosting.row("one").ended, host.status()["sessions"]) == ("hung_up", {})


@in_a_loop
async def test_a_host_that_drains_takes_nothing(hosting: Hosting) -> None:
    async with hosting.host() as host:
        await host.drain(0)

        with pytest.raises(Draining):
            await host.take(hosting.added("one"))

        assert hosting.row("one").epoch == 0


@pytest.mark.parametrize(
    ("error", "why"), [(PermissionError("no"), "refused"), (RuntimeError("broken"), "failed")]
)
@in_a_loop
async def test_an_agent_that_cannot_be_made_ends_a_new_conversation(
    hosting: Hosting, error: Exception, why: str
) -> None:
    async with hosting.host() as host:
        hosting.refusal = error

        with pytest.raises(type(error)):
            await host.take(hosting.added("one"))

        assert hosting.row("one").ended == why
        assert host.status()["sessions"] == {}


@in_a_loop
async def test_an_agent_that_cannot_be_made_here_leaves_a_conversation_to_others(
    hosting: Hosting,
) -> None:
    async with hosting.host("a") as a:
        hosting.added("one")
        assert hosting.store.acquire("one", "dead", "x", 60) == 1
        hosting.store.append("one", 1, 1, [_line("ToolBegun", {"call_id": "c0"})])
        hosting.store.release("one", 1)
        hosting.refusal = RuntimeError("broken")
        await until(lambda: hosting.row("one").epoch > 1, "nobody tries")
        await until(lambda: not hosting.row("one").owner, "it is not given back")
        epoch = hosting.row("one").epoch
        hosting.refusal = None
        async with hosting.host("b") as b:
            await until(lambda: "one" in b.status()["sessions"], "the other one does not take it")

        assert hosting.row("one").ended is None
        assert epoch == 2
        assert a.status()["sessions"] == {}


@in_a_loop
async def test_what_a_newer_version_has_kept_is_refused_in_a_sentence(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosting.added("one")
    with monkeypatch.context() as patch:
        patch.setattr(sql, "VERSION", 9)
        newer = open_store(hosting.url)
        assert newer.acquire("one", "new", "new", 60) == 1  # it writes records of its version
        newer.release("one", 1)
        newer.close()
    async with hosting.host() as host:
        with pytest.raises(StoreError, match="was kept by a newer version of rtvoice"):
            await host.take("one")

        assert hosting.row("one").epoch == 1


@in_a_loop
async def test_what_nobody_has_held_for_an_hour_is_not_begun_again(hosting: Hosting) -> None:
    hosting.added("old")
    hosting.store.run("update fleet_session set expires = expires - 4000", {})  # type: ignore[attr-defined]
    async with hosting.host():
        await until(lambda: hosting.row("old").ended, "it is kept for ever")

    assert (hosting.row("old").ended, hosting.row("old").epoch) == ("lost", 0)


# -- who may ask a host ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", [b"", b"Bearer ", b"Bearer wrong", b"secret"])
@pytest.mark.parametrize(
    ("method", "what"),
    [("POST", "take"), ("POST", "stop"), ("POST", "move"), ("POST", "drain"), ("GET", "status")],
)
@in_a_loop
async def test_only_the_fleet_may_ask_a_host(method: str, what: str, given: bytes) -> None:
    host, sent = SimpleNamespace(desk=None, drain=None), []  # which can do nothing
    app = HostApp(host, "secret", (), lambda: None)  # type: ignore[arg-type]
    headers = [(b"authorization", given)] if given else []
    scope = {"type": "http", "method": method, "path": f"/fleet/{what}", "headers": headers}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app({**scope, "query_string": b"id=one"}, lambda: asyncio.sleep(0, {}), send)

    assert sent[0]["status"] == 403


# -- moving and names -----------------------------------------------------------------------------


@in_a_loop
async def test_without_another_host_a_conversation_is_not_moved(hosting: Hosting) -> None:
    async with hosting.host() as host:
        await host.take(hosting.added("one"))

        with pytest.raises(CannotMoveError, match="no other host has a place"):
            await host.move("one")

        assert "one" in host.status()["sessions"]


@in_a_loop
async def test_a_host_that_has_moved_a_conversation_leaves_it_to_others(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosting.host("a") as a:
        await hosting.begun(a)
        monkeypatch.setattr(host_module, "FRESH_S", 60.0)  # for so long, however busy all is
        elsewhere = HostRow(
            name="b", url="http://b", owner="B", sessions=0, room=1, draining=False, age_s=0.0
        )
        hosting.store.report(elsewhere)

        assert await a.move("one", limit_s=0)
        await until(lambda: not hosting.row("one").owner, "it is not given up")
        await asyncio.sleep(3 * min(0.5, TTL_S / 5))  # it looks for what nobody holds meanwhile

        assert (hosting.row("one").owner, hosting.row("one").epoch) == ("", 1)


@in_a_loop
async def test_two_hosts_of_one_name_do_not_stay(hosting: Hosting) -> None:
    async with hosting.host("a") as host:
        other = HostRow(
            name="a", url="http://other", owner="x", sessions=0, room=1, draining=False, age_s=0.0
        )
        assert not hosting.store.report(other)

        hosting.store.report(other, dead=host.owner)

        await until(lambda: hosting.ended == ["a"], "it goes on beside the other one")


@in_a_loop
async def test_a_host_does_not_start_with_the_name_of_another(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "FRESH_S", 0.1)
    other = HostRow(
        name="a", url="http://other", owner="x", sessions=0, room=1, draining=False, age_s=0.0
    )
    hosting.store.report(other)

    with pytest.raises(StoreError, match="another host is called a, at http://other: give each"):
        async with hosting.host("a"):
            pass


@in_a_loop
async def test_a_conversation_whose_processes_see_the_end_of_the_lease_first_is_not_over(
    hosting: Hosting,
) -> None:
    async with hosting.host() as host:
        connection = await hosting.begun(host)
        (folder,) = (hosting.folder / "a").iterdir()

        lease = Lease(folder / "lease")
        lease.extend(0)
        connection.call("get_current_time", "{}", call_id="c1")  # so that something is to be sent
        end = time.monotonic() + 2 * TIMEOUT_S
        while hosting.row("one").epoch == 1:
            assert time.monotonic() < end, "nobody goes on with it"
            lease.extend(0)  # the host renews it meanwhile
            await asyncio.sleep(0.02)

        assert hosting.row("one").ended is None


# -- what is shipped ------------------------------------------------------------------------------


@pytest.fixture
def held(hosting: Hosting) -> Held:
    hosting.added("one")
    hosting.store.acquire("one", "A", "a", 60.0)
    folder = hosting.folder / "one"
    folder.mkdir()
    return Held("one", 1, folder)


def records(hosting: Hosting) -> list[bytes]:
    return hosting.store.read("one").records


@pytest.mark.parametrize("is_late", [False, True], ids=["not done", "done"])
def test_lines_are_in_the_store_once_and_in_order_although_writing_fails(
    hosting: Hosting, held: Held, is_late: bool
) -> None:
    flaky = Flaky(hosting.store)
    flaky.fails, flaky.is_late = (lambda number, _name: number == 1), is_late
    held.journal.write_bytes(b"one\n")
    with pytest.raises(StoreError):
        held.ship(flaky, AskToRun("c1", "order", "{}"))  # type: ignore[arg-type]

    with held.journal.open("ab") as file:
        file.write(b"two\nhalf")
    held.ship(flaky)  # type: ignore[arg-type]
    held.ship(flaky, AskToRun("c1", "order", "{}"))  # type: ignore[arg-type]
    with held.journal.open("ab") as file:
        file.write(b" three\n")
    held.ship(flaky)  # type: ignore[arg-type]

    lines = records(hosting)
    assert [line for line in lines if b"c1" not in line] == [b"one", b"two", b"half three"]
    assert [b"ToolBegun" in line for line in lines if b"c1" in line] == [False, True]
    assert lines[0] == b"one"


def test_a_tool_that_an_earlier_host_has_begun_is_not_recorded_again(
    hosting: Hosting, held: Held
) -> None:
    begun = _line("ToolBegun", {"call_id": "c1"})
    hosting.store.append("one", 1, 1, [begun])
    folder = hosting.folder / "next"
    folder.mkdir()
    later = Held("one", 1, folder, [begun])

    later.ship(hosting.store, AskToRun("c1", "order", "{}"))

    assert records(hosting) == [begun]


def test_what_is_not_held_any_more_is_not_good_again(hosting: Hosting, held: Held) -> None:
    flaky = Flaky(hosting.store)
    holding = Holding(lambda: hosting.store, "A", TTL_S, lambda _: None)
    holding.add(held, time.monotonic_ns())
    renew = flaky.renew

    def end_and_renew(*arguments: Any) -> Any:
        holding.remove(held)
        return renew(*arguments)

    flaky.renew = end_and_renew  # type: ignore[attr-defined]
    holding._renew(flaky)  # type: ignore[arg-type]

    assert not held.lease.is_good


def test_a_journal_that_is_gone_or_shorter_loses_nothing_that_is_kept(
    hosting: Hosting, held: Held
) -> None:
    held.journal.write_bytes(b"one\ntwo\n")
    held.ship(hosting.store)

    held.journal.write_bytes(b"one\n")
    held.ship(hosting.store)
    held.journal.unlink()
    held.ship(hosting.store)

    assert records(hosting) == [b"one", b"two"]


def test_who_has_lost_the_lease_ships_nothing(hosting: Hosting, held: Held) -> None:
    hosting.store.acquire("one", "B", "b", 60.0, dead="A")
    held.journal.write_bytes(b"one\n")

    with pytest.raises(Fenced):
        held.ship(hosting.store)

    assert records(hosting) == []
