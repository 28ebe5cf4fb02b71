"""Who holds a conversation, and when its death is proven."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtvoice.fleet import local
from rtvoice.fleet import owner as owner_module
from rtvoice.fleet.local import LocalEngine
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import is_dead, is_here, owner_of_this_process
from rtvoice.fleet.process import HostOptions
from rtvoice.fleet.store import HostRow, Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_runs_is_not_dead_and_one_that_has_ended_is() -> None:
    mine = owner_of_this_process("host/1")
    name, where, _, started = mine.split("/")

    assert name == "host_1"
    assert is_here(mine)
    assert not is_dead(mine)
    assert is_dead(f"{name}/{where}/{ended_process()}/{started}")
    assert is_dead(f"{name}/{where}/{os.getpid()}/1"), "its id is another one's by now"


@pytest.mark.parametrize("where", ["another-boot:{pids}", "{boot}:1", "", ":"])
def test_of_another_machine_boot_or_container_nothing_is_proven(where: str) -> None:
    """Two containers of a machine have the same boot id, and each a process 1."""
    boot, _, pids = owner_of_this_process("h").split("/")[1].partition(":")
    owner = f"h/{where.format(boot=boot, pids=pids)}/{ended_process()}/1"

    assert not is_here(owner)
    assert not is_dead(owner)
    assert not is_dead("nonsense")


def test_a_process_that_is_hidden_from_this_user_is_not_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, where, pid, started = owner_of_this_process("h").split("/")
    monkeypatch.setattr(owner_module, "_started", lambda _: "")

    def kill(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)

    assert not is_dead(f"{name}/{where}/{pid}/{started}")


def held_in_a_file(folder: Path, owner: str) -> tuple[str, Store]:
    """Return the URL of a store, and the store, in which an owner holds a conversation."""
    url = f"sqlite:///{folder / 'fleet.db'}"
    store = open_store(url)
    store.create("one", b"{}", "hash")
    assert store.acquire("one", owner, "a", 60.0) == 1
    return url, store


def test_a_clock_that_is_set_forward_ends_no_lease_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, store = held_in_a_file(tmp_path, "A")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)

    other = open_store(url)

    assert other.acquire("one", "B", "b", 60.0) is None
    row = other.get("one")
    assert row is not None
    assert 0 < row.left_s <= 60
    for each in (store, other):
        each.close()


def test_after_a_start_of_the_machine_nobody_of_before_holds_anything_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, store = held_in_a_file(tmp_path, "a/old-boot:1/2/3")
    store.report(host_of("host-1", "a/old-boot:1/2/3"))
    store.close()
    monkeypatch.setattr("rtvoice.fleet.sqlite.boot_id", lambda: "new-boot")

    later = open_store(url)

    assert later.hosts() == []
    assert later.acquire("one", "b/new-boot:1/2/3", "b", 60.0) == 2
    later.close()
    again = open_store(url)
    assert again.acquire("one", "c/new-boot:1/2/4", "c", 60.0) is None
    again.close()


def test_a_host_that_ends_at_once_is_not_started_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'fleet.db'}")
    engine = LocalEngine(store, 1, lambda name: HostOptions(name=name, store="", agent=""))

    def look_once_it_has_ended() -> int:
        asyncio.run(engine._look())
        (child,) = engine.children
        child.kill()
        child.wait()
        asyncio.run(engine._look())
        return len(engine.children)

    monkeypatch.setattr(local, "_AGAIN_S", 3600.0)
    monkeypatch.setattr(engine, "_began", {"host-1": -3600.0})
    assert look_once_it_has_ended() == 0

    monkeypatch.setattr(local, "_AGAIN_S", 0.0)
    assert look_once_it_has_ended() == 1
    for child in engine.children:
        child.kill()
        child.wait()
    store.close()


def host_of(name: str, owner: str) -> HostRow:
    return HostRow(
        name=name, url="http://h", owner=owner, sessions=0, room=1, draining=False, age_s=0.0
    )


def test_a_host_of_another_boot_does_not_keep_its_name_from_being_started(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'fleet.db'}")
    store.report(host_of("host-1", "host-1/old-boot:1/2/3"))
    store.run("update fleet_host set seen = seen - 10", {})  # type: ignore[attr-defined]
    engine = LocalEngine(store, 1, lambda name: HostOptions(name=name, store="", agent=""))

    asyncio.run(engine._look())

    (child,) = engine.children
    child.kill()
    child.wait()
    store.close()
