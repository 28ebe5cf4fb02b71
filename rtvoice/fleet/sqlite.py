"""The store in a file, for hosts on one machine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.files import path_of, why_not
from rtvoice.fleet.owner import boot_id
from rtvoice.fleet.sql import AGAIN, TABLES, SqlStore
from rtvoice.fleet.store import StoreError

__all__ = ["SqliteStore"]

_BUSY_S = 5.0
"""How long a statement waits for those of other processes."""
_CLOCK = """
create table if not exists fleet_clock(
  number integer primary key, boot text not null, since double precision not null);
"""


class SqliteStore(SqlStore):
    """A store in an SQLite file. SQLite has one writer at a time, so no row has to be locked.

    Args:
        path: The file.
        makes: Whether to make it if it is not there.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: str, *, makes: bool = True) -> None:
        self._path = path_of(path)
        self._lock = threading.Lock()
        if not makes and not Path(self._path).exists():
            raise StoreError(f"{self._path}: there is no such store; the first host makes it")
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # A record that was committed survives the death of any process; with NORMAL, the last
            # ones may be lost if the machine itself dies, and with it all hosts of this store.
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.executescript(TABLES.replace("BYTES", "blob") + ";" + _CLOCK)
        except OSError as error:
            raise StoreError(f"{self._path}: {why_not(self._path, error)}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        self._since = self._began()
        self._db.create_function("fleet_now", 0, lambda: self._since + time.monotonic())
        self._check_version()

    def _began(self) -> float:
        """Return when the machine was started, by its clock then.

        The store's time goes on from there whatever is done to the clock: if it were set forward,
        a lease could run out while its owner still relies on it. The file is used on one machine,
        so after a start nobody of before holds anything.
        """
        boot = boot_id()
        if not boot:  # the time since the start could begin again without a notice
            return time.time() - time.monotonic()
        values = {"boot": boot, "since": time.time() - time.monotonic()}
        _, changed = self.run(
            "insert into fleet_clock values(1, :boot, :since) on conflict(number) do update"
            " set boot = :boot, since = max(:since, since) where boot <> :boot",
            values,
        )
        if changed:
            free = "update fleet_session set owner = '', expires = :since where ended is null"
            self.run(f"{free} and owner not like '%/' || :boot || ':%'", values)
            self.run("delete from fleet_host where owner not like '%/' || :boot || ':%'", values)
        return float(self.run("select since from fleet_clock", {})[0][0][0])

    def run(self, statement: str, values: Mapping[str, Any]) -> tuple[list[Any], int]:
        with self._lock:
            try:
                cursor = self._db.execute(statement.replace("NOW", "fleet_now()"), values)
                rows = cursor.fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error
            return rows, cursor.rowcount

    def append(self, session_id: str, epoch: int, first: int, lines: Sequence[bytes]) -> None:
        bodies = json.dumps([line.decode("utf-8", "surrogateescape") for line in lines])
        _, changed = self.run(
            f"insert into fleet_record(session, number, epoch, body) {self.held}"
            " select :id, :first + key, :epoch, cast(value as blob)"
            f" from held, json_each(:bodies) where true{AGAIN}",
            {"id": session_id, "epoch": epoch, "first": first, "bodies": bodies},
        )
        self._written(session_id, changed, len(lines))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
