"""The statements of a store, which SQLite and Postgres share."""

from __future__ import annotations

import abc
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from rtvoice.fleet.store import FRESH_S, VERSION, Fenced, HostRow, Kept, SessionRow, StoreError

__all__ = ["AGAIN", "TABLES", "SqlStore"]

TABLES = """
create table if not exists fleet_version(version integer not null);
create table if not exists fleet_secret(number integer primary key, secret text not null);
create table if not exists fleet_session(
  id text primary key, call BYTES not null, token_sha256 text not null,
  version integer not null, epoch bigint not null default 0, owner text not null default '',
  host text not null default '', expires double precision not null default 0,
  created double precision not null, ended text);
create index if not exists fleet_session_of_owner on fleet_session(owner) where ended is null;
create table if not exists fleet_record(
  session text not null references fleet_session(id), number bigint not null,
  epoch bigint not null, body BYTES not null, primary key(session, number));
create table if not exists fleet_state(
  session text primary key references fleet_session(id), epoch bigint not null,
  body BYTES not null);
create table if not exists fleet_host(
  name text primary key, url text not null, owner text not null, sessions integer not null,
  room integer not null, draining integer not null, seen double precision not null)
"""
AGAIN = (
    " on conflict(session, number) do update set body = excluded.body"
    " where fleet_record.epoch = excluded.epoch and fleet_record.body = excluded.body"
)
"""Lets the same lines be written again: whether an append that has failed was committed is not
known to who asked for it."""
_COLUMNS = "id, call, token_sha256, epoch, owner, host, expires - NOW, ended, version"


class SqlStore(abc.ABC):
    """A store of which a subclass knows how a statement is run.

    In a statement, ``:name`` is a value and ``NOW`` the time of the store, in seconds.
    """

    lock = ""
    """What `held` adds to lock the row of the conversation until the statement has ended."""

    @property
    def held(self) -> str:
        """Begins the query of an insert: ``held`` has a row while the lease of ``:epoch`` is good.

        It stands behind ``insert into``: of a statement that begins with ``with``, Python's sqlite3
        does not say how many rows it has changed.
        """
        return (
            "with held as (select 1 from fleet_session where id = :id and epoch = :epoch"
            f" and ended is null and expires > NOW{self.lock})"
        )

    @abc.abstractmethod
    def run(self, statement: str, values: Mapping[str, Any]) -> tuple[list[Any], int]:
        """Run a statement; return its rows, and the number of rows that it has changed.

        Raises:
            StoreError: That is not possible.
        """

    @abc.abstractmethod
    def append(self, session_id: str, epoch: int, first: int, lines: Sequence[bytes]) -> None:
        """Append lines of the journal; see `Store.append`."""

    def create(self, session_id: str, call: bytes, token_sha256: str) -> None:
        self.run(
            "insert into fleet_session(id, call, token_sha256, version, created, expires)"
            " values(:id, :call, :token, :version, NOW, NOW) on conflict do nothing",
            {"id": session_id, "call": call, "token": token_sha256, "version": VERSION},
        )

    def get(self, session_id: str) -> SessionRow | None:
        rows, _ = self.run(
            f"select {_COLUMNS} from fleet_session where id = :id",
            {"id": session_id},
        )
        return _session(rows[0]) if rows else None

    def acquire(
        self, session_id: str, owner: str, host: str, ttl_s: float, dead: str = ""
    ) -> int | None:
        rows, _ = self.run(
            "update fleet_session set epoch = epoch + 1, owner = :owner, host = :host,"
            " version = :version, expires = NOW + :ttl"
            " where id = :id and ended is null and version <= :version"
            " and (owner = '' or expires < NOW or (owner = :dead and :dead <> ''))"
            " returning epoch",
            {
                "id": session_id,
                "owner": owner,
                "host": host,
                "ttl": ttl_s,
                "dead": dead,
                "version": VERSION,
            },
        )
        return int(rows[0][0]) if rows else None

    def renew(self, owner: str, ttl_s: float) -> dict[str, int]:
        rows, _ = self.run(
            "update fleet_session set expires = NOW + :ttl"
            " where owner = :owner and ended is null and expires > NOW returning id, epoch",
            {"owner": owner, "ttl": ttl_s},
        )
        return {str(row[0]): int(row[1]) for row in rows}

    def release(self, session_id: str, epoch: int) -> bool:
        _, changed = self.run(
            "update fleet_session set owner = '', expires = NOW"
            " where id = :id and epoch = :epoch and ended is null",
            {"id": session_id, "epoch": epoch},
        )
        return changed == 1

    def end(self, session_id: str, epoch: int, why: str) -> bool:
        _, changed = self.run(
            "update fleet_session set ended = :why, owner = '', expires = NOW"
            " where id = :id and epoch = :epoch and ended is null",
            {"id": session_id, "epoch": epoch, "why": why},
        )
        return changed == 1

    def save(self, session_id: str, epoch: int, state: bytes) -> None:
        _, changed = self.run(
            f"insert into fleet_state(session, epoch, body) {self.held}"
            " select :id, :epoch, :body from held where true"  # or `on` is a join's, in SQLite
            " on conflict(session) do update set epoch = excluded.epoch, body = excluded.body",
            {"id": session_id, "epoch": epoch, "body": state},
        )
        self._written(session_id, changed, 1)

    def read(self, session_id: str) -> Kept:
        records, _ = self.run(
            "select body from fleet_record where session = :id order by number", {"id": session_id}
        )
        states, _ = self.run("select body from fleet_state where session = :id", {"id": session_id})
        state = bytes(states[0][0]) if states else None
        return Kept([bytes(row[0]) for row in records], state)

    def waiting(self, limit: int, without: Sequence[str] = ()) -> list[SessionRow]:
        others = {f"other{number}": each for number, each in enumerate(without)}
        left_out = "".join(f" and id <> :{name}" for name in others)
        rows, _ = self.run(
            f"select {_COLUMNS} from fleet_session where ended is null and version <= :version"
            f" and (owner = '' or expires < NOW){left_out} order by created limit :most",
            {"most": limit, "version": VERSION, **others},
        )
        return [_session(row) for row in rows]

    def owners(self) -> list[str]:
        rows, _ = self.run(
            "select distinct owner from fleet_session where ended is null and owner <> ''"
            " and expires > NOW",
            {},
        )
        return [str(row[0]) for row in rows]

    def live(self, owner: str | None = None) -> list[SessionRow]:
        rows, _ = self.run(
            f"select {_COLUMNS} from fleet_session where ended is null"
            " and (:everybody = 1 or (owner = :owner and expires > NOW)) order by created",
            {"owner": owner or "", "everybody": int(owner is None)},
        )
        return [_session(row) for row in rows]

    def secret(self) -> str:
        self.run(
            "insert into fleet_secret(number, secret) values(1, :new) on conflict do nothing",
            {"new": secrets.token_urlsafe(24)},
        )
        return str(self.run("select secret from fleet_secret", {})[0][0][0])

    def report(self, host: HostRow, dead: str = "") -> bool:
        _, changed = self.run(
            "insert into fleet_host(name, url, owner, sessions, room, draining, seen)"
            " values(:name, :url, :owner, :sessions, :room, :draining, NOW)"
            " on conflict(name) do update set url = excluded.url, owner = excluded.owner,"
            " sessions = excluded.sessions, room = excluded.room, draining = excluded.draining,"
            " seen = excluded.seen where fleet_host.owner in (excluded.owner, :dead)"
            " or fleet_host.seen < NOW - :fresh",
            {
                "name": host.name,
                "url": host.url,
                "owner": host.owner,
                "room": host.room,
                "sessions": host.sessions,
                "draining": int(host.draining),
                "dead": dead,
                "fresh": FRESH_S,
            },
        )
        return changed == 1

    def hosts(self) -> list[HostRow]:
        rows, _ = self.run(
            "select name, url, owner, sessions, room, draining, NOW - seen from fleet_host"
            " order by name",
            {},
        )
        names = ("name", "url", "owner", "sessions", "room", "draining", "age_s")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [HostRow(**{**each, "draining": bool(each["draining"])}) for each in found]

    def forget(self, host: str, owner: str) -> None:
        self.run(
            "delete from fleet_host where name = :name and owner = :owner",
            {"name": host, "owner": owner},
        )

    def _check_version(self) -> None:
        """Record the version of the tables.

        Raises:
            StoreError: They are those of a newer rtvoice.
        """
        rows, _ = self.run("select version from fleet_version", {})
        if not rows:
            self.run("insert into fleet_version(version) values(:version)", {"version": VERSION})
        elif rows[0][0] > VERSION:
            raise StoreError(
                f"the store was made by a newer version of rtvoice (its tables have version "
                f"{rows[0][0]}, this one knows {VERSION}): upgrade this host"
            )

    @staticmethod
    def _written(session_id: str, changed: int, wanted: int) -> None:
        if changed != wanted:
            raise Fenced(session_id)


def _session(row: Sequence[Any]) -> SessionRow:
    names = ("id", "call", "token_sha256", "epoch", "owner", "host", "left_s", "ended", "version")
    found = dict(zip(names, row, strict=True))
    return SessionRow(**{**found, "call": bytes(found["call"]), "left_s": float(found["left_s"])})
