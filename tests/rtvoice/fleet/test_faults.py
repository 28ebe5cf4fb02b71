"""Whatever happens to a host: the conversation goes on elsewhere, and never in two places."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rtvoice.fleet.store import HostRow
from tests.conversation import noise
from tests.fake_server import Connection, FakeServer
from tests.loop import in_a_loop
from tests.rtvoice.fleet.rig import TTL_S, Caller, Rig, kill, send, until

APPEND = "input_audio_buffer.append"


async def asked(rig: Rig) -> tuple[Caller, Connection, HostRow]:
    """Begin a conversation in which the user asks something that is not answered yet.

    Returns:
        The caller, the server's connection, and the host.
    """
    caller = await rig.call()
    connection = await asyncio.to_thread(rig.connection, 0)
    await asyncio.to_thread(connection.expect, APPEND)
    connection.hear("u1", "where is my tea")
    session_id = caller.session_id
    await until(
        lambda: any(b"where is my tea" in line for line in rig.store.read(session_id).records),
        "the question is not in the store",
    )
    return caller, connection, await rig.host(session_id)


async def answered(rig: Rig, caller: Caller, number: int = 1) -> Connection:
    """Wait until the next host asks for the answer, give it, and have it heard."""
    connection = await asyncio.to_thread(rig.connection, number)
    await asyncio.to_thread(connection.expect, "response.create")
    await asyncio.to_thread(connection.expect, APPEND)
    items = [event["item"] for event in connection.of("conversation.item.create")]
    assert any("where is my tea" in str(item) for item in items)
    sockets = caller.connected
    connection.say("On the table.", noise(400, 1), item="a1")
    await until(lambda: caller.heard_at, f"nothing is heard (socket {sockets})")
    return connection


def last_sent(connection: Connection) -> float:
    """Return when the last sound of a host came."""
    return connection.times[len(connection.events) - 1]


def first_sent(connection: Connection) -> float:
    """Return when the first sound of a host came."""
    found = zip(connection.events, connection.times, strict=False)
    return next(at for event, at in found if event["type"] == APPEND)


def measured(what: str, seconds: float) -> None:
    """Show how long something took: a test that fails for it would fail on a busy machine."""
    print(f"measured: {what} after {seconds:.2f} s")


def is_whole(numbers: list[int]) -> bool:
    return numbers == list(range(1, len(numbers) + 1))


# -- a host is killed -----------------------------------------------------------------------------


@in_a_loop
async def test_the_conversations_of_a_killed_host_go_on_at_another(
    fault_url: str, server: FakeServer, tmp_path: Path, run: int
) -> None:
    async with Rig(tmp_path, fault_url, server).running() as rig:
        caller, before, host = await asked(rig)

        kill(rig.pid(host))
        killed_at = time.monotonic()
        await rig.taken(caller.session_id, 1)
        after = await answered(rig, caller)

        measured("host killed: heard again", caller.heard_at[0] - killed_at)
        assert last_sent(before) < first_sent(after)
        assert is_whole(rig.numbers(caller.session_id))
        await caller.hang_up()


@in_a_loop
async def test_a_tool_that_was_running_is_not_run_again(
    fault_url: str, server: FakeServer, tmp_path: Path, run: int
) -> None:
    async with Rig(tmp_path, fault_url, server, tool_s=5.0).running() as rig:
        caller, connection, host = await asked(rig)
        connection.call("order", '{"what": "tea"}', call_id="c1")
        await until(rig.runs.exists, "the tool is not run")

        kill(rig.pid(host))
        await rig.taken(caller.session_id, 1)
        next_one = await asyncio.to_thread(rig.connection, 1)
        told = await asyncio.to_thread(
            next_one.expect,
            "conversation.item.create",
            lambda event: event["item"]["type"] == "function_call_output",
        )

        assert "outcome unknown" in told["item"]["output"]
        assert rig.runs.read_text() == "tea\n"
        await caller.hang_up()


@in_a_loop
async def test_what_was_set_is_still_so_at_the_next_host(
    server: FakeServer, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    async with Rig(tmp_path, url, server).running() as rig:
        caller, connection, host = await asked(rig)
        connection.call("adjust_volume", '{"level": 0.5}', call_id="c1")
        await asyncio.to_thread(connection.expect, "conversation.item.create")
        await asyncio.sleep(3 * 0.05)  # what is saved is in the store soon, not at once

        kill(rig.pid(host))
        await rig.taken(caller.session_id, 1)
        sound = noise(400, 2)
        next_one = await asyncio.to_thread(rig.connection, 1)
        await until(lambda: caller.connected > 1, "the caller does not come again")
        next_one.say("Here.", sound, item="a1")
        await until(lambda: len(caller.heard_at) > 5, "nothing is heard")

        assert 3_500 < loudest(bytes(caller.heard)) < 4_500
        await caller.hang_up()


def loudest(pcm: bytes) -> int:
    return max(
        abs(int.from_bytes(pcm[at : at + 2], "little", signed=True)) for at in range(0, len(pcm), 2)
    )


# -- a machine is lost ----------------------------------------------------------------------------

ANOTHER_MACHINE = """
import json, sys
from rtvoice.fleet import owner

if sys.orig_argv[3:4] == ["rtvoice.fleet.process"]:
    mine = json.loads(sys.orig_argv[4])["name"] + "/"
    owner.is_here = lambda other: other.startswith(mine)
"""
"""Has a host take each other one for a process of another machine: nothing proves its death."""


@in_a_loop
async def test_the_conversations_of_a_lost_machine_go_on_after_their_leases(
    fault_url: str,
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: int,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_MACHINE)
    async with Rig(tmp_path, fault_url, server).running() as rig:
        caller, before, host = await asked(rig)
        await rig.engine.close()  # what would start hosts there is gone too

        kill(*rig.tree(host))
        lost_at = time.monotonic()
        await rig.taken(caller.session_id, 1)
        taken_s = time.monotonic() - lost_at
        after = await answered(rig, caller)

        measured("machine lost: taken", taken_s)
        measured("machine lost: heard again", caller.heard_at[0] - lost_at)
        assert taken_s > 0.5 * TTL_S  # not at once: nothing is proven
        assert last_sent(before) < first_sent(after)
        assert is_whole(rig.numbers(caller.session_id))
        await caller.hang_up()


# -- a host is frozen -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole_tree",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["the process", "and its children"],
)
@in_a_loop
async def test_a_frozen_host_is_followed_after_its_lease_and_sends_nothing_once_it_thaws(
    fault_url: str, server: FakeServer, tmp_path: Path, whole_tree: bool, run: int
) -> None:
    async with Rig(tmp_path, fault_url, server).running() as rig:
        caller, before, host = await asked(rig)
        frozen = rig.tree(host) if whole_tree else [rig.pid(host)]

        send(signal.SIGSTOP, *frozen)
        frozen_at = time.monotonic()
        await rig.taken(caller.session_id, 1)
        taken_s = time.monotonic() - frozen_at
        caller.give_up()
        after = await answered(rig, caller)
        sent = len(before.of(APPEND))
        send(signal.SIGCONT, *frozen)
        await until(lambda: before.closed, "the old host keeps its connection")

        measured("host frozen: taken", taken_s)
        measured("host frozen: heard again", caller.heard_at[0] - frozen_at)
        assert taken_s >= 0.5 * TTL_S
        assert len(before.of(APPEND)) == sent
        assert last_sent(before) < first_sent(after)
        assert is_whole(rig.numbers(caller.session_id))
        await caller.hang_up()


@pytest.mark.long
@in_a_loop
async def test_without_the_fence_a_thawed_host_speaks_beside_the_next_one(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: here is what it would see."""
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(UNFENCED)
    async with Rig(tmp_path, url, server).running() as rig:
        caller, before, host = await asked(rig)

        send(signal.SIGSTOP, rig.pid(host))
        await rig.taken(caller.session_id, 1)
        after = await asyncio.to_thread(rig.connection, 1)
        await asyncio.to_thread(after.expect, "session.update")
        sent = len(before.of(APPEND))
        await until(lambda: len(before.of(APPEND)) > sent, "the old host is silent")

        await caller.hang_up()


UNFENCED = """
import time
from actors import lease
lease.Lease.is_good = property(lambda self: True)
"""


# -- the store is cut off -------------------------------------------------------------------------


@in_a_loop
async def test_a_conversation_outlives_a_moment_without_the_store(
    postgres_of_one: Any, server: FakeServer, tmp_path: Path, run: int
) -> None:
    url, proxy = postgres_of_one
    async with Rig(tmp_path, url, server).running() as rig:
        caller, connection, host = await asked(rig)

        proxy.cut(host.name)
        await asyncio.sleep(0.3 * TTL_S)
        proxy.mend(host.name)
        await asyncio.sleep(TTL_S)

        row = await rig.row(caller.session_id)
        assert (row.epoch, row.host) == (1, host.name)
        assert caller.codes == []
        assert not connection.closed
        await caller.hang_up()


@in_a_loop
async def test_a_host_without_the_store_gives_its_conversations_up(
    postgres_of_one: Any, server: FakeServer, tmp_path: Path, run: int
) -> None:
    url, proxy = postgres_of_one
    async with Rig(tmp_path, url, server).running() as rig:
        caller, before, host = await asked(rig)

        proxy.cut(host.name)
        cut_at = time.monotonic()
        await rig.taken(caller.session_id, 1)
        after = await answered(rig, caller)

        measured("store cut off: heard again", caller.heard_at[0] - cut_at)
        assert last_sent(before) < first_sent(after)
        assert caller.codes[0] == 1012
        assert before.closed
        proxy.mend(host.name)
        assert is_whole(rig.numbers(caller.session_id))
        await caller.hang_up()
