"""The store in a file, for hosts on one machine."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.files import path_of, why_not
from rtvoice.fleet.sql import TABLES, SqlStore
from rtvoice.fleet.store import StoreError

__all__ = ["SqliteStore"]

_BUSY_S = 5.0
"""How long a statement waits for those of other processes."""
_NOW = "((julianday('now') - 2440587.5) * 86400.0)"


class SqliteStore(SqlStore):
    """A store in an SQLite file. SQLite has one writer at a time, so no row has to be locked.

    Args:
        path: The file; it is made if needed.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path_of(path)
        self._lock = threading.Lock()
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # A record that was committed survives the death of any process; with NORMAL, the last
            # ones may be lost if the machine itself dies, and with it all hosts of this store.
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.executescript(TABLES.replace("BYTES", "blob"))
        except OSError as error:
            raise StoreError(f"{self._path}: {why_not(self._path, error)}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        self._check_version()

    def run(self, statement: str, values: Mapping[str, Any]) -> tuple[list[Any], int]:
        with self._lock:
            try:
                cursor = self._db.execute(statement.replace("NOW", _NOW), values)
                rows = cursor.fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error
            return rows, cursor.rowcount

    def append(self, session_id: str, epoch: int, first: int, lines: Sequence[bytes]) -> None:
        bodies = json.dumps([line.decode("utf-8", "surrogateescape") for line in lines])
        _, changed = self.run(
            "insert into fleet_record(session, number, epoch, body)"
            " select :id, :first + key, :epoch, cast(value as blob) from json_each(:bodies)"
            " where exists(select 1 from fleet_session where id = :id and epoch = :epoch"
            " and ended is null and expires > NOW)",
            {"id": session_id, "epoch": epoch, "first": first, "bodies": bodies},
        )
        self._written(session_id, changed, len(lines))

    def save(self, session_id: str, epoch: int, state: bytes) -> None:
        _, changed = self.run(
            "insert into fleet_state(session, epoch, body) select :id, :epoch, :body"
            " where exists(select 1 from fleet_session where id = :id and epoch = :epoch"
            " and ended is null and expires > NOW)"
            " on conflict(session) do update set epoch = excluded.epoch, body = excluded.body",
            {"id": session_id, "epoch": epoch, "body": state},
        )
        self._written(session_id, changed, 1)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
