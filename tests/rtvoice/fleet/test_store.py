"""The store: one owner of a conversation at a time, and nothing written by any other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from messages import ConfigurationError
from rtvoice.fleet import sql
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.store import Fenced, HostRow, Store, StoreError
from tests.postgres import Postgres, needs_postgres
from tests.rig import until

_NUMBERS = itertools.count(1)
LONG_S = 60.0


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    store = open_store(store_url)
    yield store
    store.close()


def added(store: Store) -> str:
    """Add a conversation; return its id."""
    session_id = f"{time.time_ns():x}-{next(_NUMBERS)}"
    store.create(session_id, b'{"kind": "talk"}', "hash")
    return session_id


def expired(store: Store, session_id: str, owner: str = "A") -> None:
    """Have an owner hold a conversation until its lease has run out."""
    assert store.acquire(session_id, owner, "host", 0.001) is not None
    until(lambda: (row := store.get(session_id)) and row.left_s < 0, "the lease does not run out")


def test_a_conversation_has_one_owner_until_the_lease_runs_out(store: Store) -> None:
    session_id = added(store)
    assert store.acquire(session_id, "A", "a", LONG_S) == 1
    assert store.acquire(session_id, "B", "b", LONG_S) is None

    other = added(store)
    expired(store, other)

    assert store.acquire(other, "B", "b", LONG_S) == 2
    row = store.get(other)
    assert row is not None
    assert (row.owner, row.host, row.epoch, row.call) == ("B", "b", 2, b'{"kind": "talk"}')


def test_an_owner_that_is_proven_dead_is_followed_at_once(store: Store) -> None:
    session_id = added(store)
    store.acquire(session_id, "A", "a", LONG_S)

    assert store.acquire(session_id, "B", "b", LONG_S, dead="C") is None
    assert store.acquire(session_id, "B", "b", LONG_S, dead="A") == 2


def test_all_leases_of_an_owner_are_renewed_at_once_and_no_lost_ones(store: Store) -> None:
    mine, lost, others = added(store), added(store), added(store)
    store.acquire(mine, "R", "r", 1.0)
    expired(store, lost, "R")
    store.acquire(others, "S", "s", LONG_S)

    assert store.renew("R", LONG_S) == {mine: 1}

    row = store.get(mine)
    assert row is not None
    assert row.left_s > 50


def test_lines_and_state_are_read_as_they_were_written(store: Store) -> None:
    session_id = added(store)
    store.acquire(session_id, "A", "a", LONG_S)
    odd = "ab \u00fc \u2028 \U0001f600 \\u0000 ' :id %s".encode()

    store.append(session_id, 1, 1, [b"one", odd])
    store.append(session_id, 1, 3, [b"three"])
    store.save(session_id, 1, b"\x00\xff")
    store.save(session_id, 1, b"\x00\xfe")

    kept = store.read(session_id)
    assert kept.records == [b"one", odd, b"three"]
    assert kept.state == b"\x00\xfe"


def test_nobody_but_the_owner_writes(store: Store) -> None:
    session_id = added(store)
    with pytest.raises(Fenced):
        store.append(session_id, 1, 1, [b"nobody holds it"])
    store.acquire(session_id, "A", "a", LONG_S)
    store.append(session_id, 1, 1, [b"mine"])
    assert store.acquire(session_id, "B", "b", LONG_S, dead="A") == 2

    for write in (
        lambda: store.append(session_id, 1, 2, [b"of the old owner"]),
        lambda: store.save(session_id, 1, b"of the old owner"),
    ):
        with pytest.raises(Fenced):
            write()
    store.append(session_id, 2, 2, [b"of the new owner"])

    assert store.read(session_id).records == [b"mine", b"of the new owner"]
    assert store.read(session_id).state is None


def test_after_its_lease_has_run_out_an_owner_does_not_write(store: Store) -> None:
    session_id = added(store)
    expired(store, session_id)

    with pytest.raises(Fenced):
        store.append(session_id, 1, 1, [b"too late"])

    assert store.read(session_id).records == []


def test_a_number_is_not_written_twice(store: Store) -> None:
    session_id = added(store)
    store.acquire(session_id, "A", "a", LONG_S)
    store.append(session_id, 1, 1, [b"one"])

    with pytest.raises(StoreError):
        store.append(session_id, 1, 1, [b"another one"])

    store.append(session_id, 1, 2, [b"two"])
    assert store.read(session_id).records == [b"one", b"two"]


def test_the_same_lines_may_be_written_again_by_the_same_owner(store: Store) -> None:
    """Of an append that has failed nobody knows whether it was committed."""
    session_id = added(store)
    store.acquire(session_id, "A", "a", LONG_S)

    store.append(session_id, 1, 1, [b"one", b"two"])
    store.append(session_id, 1, 1, [b"one", b"two"])

    assert store.read(session_id).records == [b"one", b"two"]
    store.acquire(session_id, "B", "b", LONG_S, dead="A")
    with pytest.raises(StoreError):
        store.append(session_id, 2, 1, [b"one", b"two"])


def test_a_name_is_one_hosts_until_it_is_silent_or_proven_dead(store: Store) -> None:
    fields = {"sessions": 0, "room": 1, "draining": False, "age_s": 0.0}
    mine = HostRow(name="named", url="http://1", owner="A", **fields)
    other = HostRow(name="named", url="http://2", owner="B", **fields)

    assert store.report(mine)
    assert not store.report(other)
    assert not store.report(other, dead="C")
    assert store.report(mine)
    assert store.report(other, dead="A")
    assert not store.report(mine)

    (found,) = [each for each in store.hosts() if each.name == "named"]
    assert found.url == "http://2"
    store.forget("named", "B")


def test_whoever_takes_a_conversation_marks_it_with_its_version(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes records of its version, which an older host may not understand."""
    session_id = added(store)
    with monkeypatch.context() as patch:
        patch.setattr(sql, "VERSION", 9)
        assert store.acquire(session_id, "new", "new", LONG_S) == 1
        store.release(session_id, 1)

    assert store.acquire(session_id, "A", "a", LONG_S) is None
    row = store.get(session_id)
    assert row is not None
    assert row.version == 9


def test_a_conversation_that_has_ended_is_nobodys_any_more(store: Store) -> None:
    session_id = added(store)
    store.acquire(session_id, "E", "e", LONG_S)

    assert not store.end(session_id, 7, "by another one")
    assert store.end(session_id, 1, "stop tool")

    assert store.acquire(session_id, "F", "f", LONG_S, dead="E") is None
    assert store.renew("E", LONG_S) == {}
    row = store.get(session_id)
    assert row is not None
    assert row.ended == "stop tool"


def test_what_nobody_holds_waits_and_what_is_held_does_not(store: Store) -> None:
    free, lost, held, ended = (added(store) for _ in range(4))
    expired(store, lost)
    store.acquire(held, "only A", "a", LONG_S)
    store.acquire(ended, "A", "a", LONG_S)
    store.end(ended, 1, "over")

    waiting = [row.id for row in store.waiting(10_000)]
    assert {free, lost} <= set(waiting)
    assert not {held, ended} & set(waiting)
    live = [row.id for row in store.live()]
    assert {free, lost, held} <= set(live)
    assert ended not in live
    assert [row.id for row in store.live("only A")] == [held]
    assert "only A" in store.owners()
    assert store.secret() == store.secret()

    assert store.release(held, 1)
    assert held in [row.id for row in store.waiting(10_000)]


def test_of_many_who_want_a_conversation_one_gets_it(store_url: str, store: Store) -> None:
    session_ids = [added(store) for _ in range(20)]
    won: list[tuple[str, int]] = []

    def take(number: int) -> None:
        mine = open_store(store_url)
        for session_id in session_ids:
            epoch = mine.acquire(session_id, f"owner {number}", "host", LONG_S)
            if epoch is not None:
                won.append((session_id, epoch))
        mine.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(take, range(4)))

    assert sorted(won) == sorted((session_id, 1) for session_id in session_ids)


def test_hosts_are_known_until_they_are_forgotten(store: Store) -> None:
    host = HostRow(
        name="h1", url="http://h1", owner="A", sessions=2, room=3, draining=False, age_s=0.0
    )
    store.report(host)
    store.report(HostRow(**{**_fields(host), "sessions": 4, "draining": True}))

    (found,) = [each for each in store.hosts() if each.name == "h1"]
    assert (found.sessions, found.room, found.draining) == (4, 3, True)
    assert 0 <= found.age_s < LONG_S

    store.forget("h1", "another owner")
    assert "h1" in [each.name for each in store.hosts()]
    store.forget("h1", "A")
    assert "h1" not in [each.name for each in store.hosts()]


def _fields(host: HostRow) -> dict[str, object]:
    return {name: getattr(host, name) for name in host.__struct_fields__}


def test_the_tables_of_a_newer_version_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with monkeypatch.context() as patch:
        patch.setattr(sql, "VERSION", 9)
        open_store(url).close()

    with pytest.raises(StoreError, match="made by a newer version of rtvoice"):
        open_store(url)


def test_a_conversation_of_a_newer_version_is_left_to_newer_hosts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sql, "VERSION", 9)
        session_id = added(store)

    assert store.acquire(session_id, "A", "a", LONG_S) is None
    assert session_id not in [row.id for row in store.waiting(10_000)]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://x", "is no store: give sqlite:///PATH"),
        ("sqlite://", "is no store"),
        ("", "is no store"),
        ("sqlite:////proc/no/such.db", "no folder|may not write|cannot|unable|No such"),
        ("postgresql://nobody@127.0.0.1:1/x", "refused|failed"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(url: str, words: str) -> None:
    with pytest.raises((ConfigurationError, StoreError), match=words):
        open_store(url)


SLOW = """
create or replace function fleet_slow() returns trigger as
  $$ begin perform pg_sleep(1.5); return new; end $$ language plpgsql;
create or replace trigger fleet_slow before insert on {table} for each row
  when (new.body = 'slow') execute function fleet_slow();
"""
"""Has a statement that writes ``slow`` take longer than a lease of a second."""


@needs_postgres
@pytest.mark.parametrize("table", ["fleet_record", "fleet_state"])
def test_a_next_owner_reads_what_was_being_written_when_the_lease_ran_out(
    postgres: Postgres, table: str
) -> None:
    import psycopg

    store, other = open_store(postgres.url), open_store(postgres.url)
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute(SLOW.format(table=table).encode())
    session_id = added(other)
    assert other.acquire(session_id, "A", "a", 1.0) == 1

    def write() -> None:
        if table == "fleet_record":
            store.append(session_id, 1, 1, [b"slow"])
        else:
            store.save(session_id, 1, b"slow")

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        until(lambda: other.acquire(session_id, "B", "b", LONG_S), "it is not taken")
        kept = other.read(session_id)
        writing.result()

    assert kept.records or kept.state
    for each in (store, other):
        each.close()


@needs_postgres
def test_a_database_that_was_away_is_used_again(postgres: Postgres) -> None:
    store = open_store(postgres.url)
    session_id = added(store)
    postgres.stop()
    with pytest.raises(StoreError):
        store.get(session_id)

    postgres.start()

    row = store.get(session_id)
    assert row is not None
    store.close()
