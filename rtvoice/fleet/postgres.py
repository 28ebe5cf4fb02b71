"""The store in Postgres (``pip install "rtvoice[postgres]"``), for hosts on many machines."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from messages import ConfigurationError
from messages.hints import install
from messages.urls import shown
from rtvoice.fleet.sql import AGAIN, TABLES, SqlStore
from rtvoice.fleet.store import StoreError

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresStore"]

_NOW = "extract(epoch from clock_timestamp())::double precision"
_CONNECT_S = 3
_STATEMENT_MS = 5000
_MAKING = 7_411_000
"""Advisory lock of whoever makes the tables: ``if not exists`` fails when two do so at once."""
_VALUE = re.compile(r"(?<!:):(\w+)")


class PostgresStore(SqlStore):
    """A store in a Postgres database. Each statement commits by itself.

    Args:
        url: The URL of the database.

    Raises:
        ConfigurationError: psycopg is missing.
        StoreError: It cannot be reached.
    """

    lock = " for share"
    """Without it, a record could be committed after the next owner has read."""

    def __init__(self, url: str) -> None:
        if find_spec("psycopg") is None:
            raise ConfigurationError(f"a store in Postgres needs psycopg: {install('psycopg')}")
        self._url = url
        self._shown = shown(url)
        self._lock = threading.Lock()
        self._db: psycopg.Connection[Any] | None = None
        self.run("select pg_advisory_lock(:number)", {"number": _MAKING})
        try:
            for table in TABLES.replace("BYTES", "bytea").split(";"):
                self.run(table, {})
            self._check_version()
        finally:
            self.run("select pg_advisory_unlock(:number)", {"number": _MAKING})

    def run(self, statement: str, values: Mapping[str, Any]) -> tuple[list[Any], int]:
        import psycopg

        text = _VALUE.sub(r"%(\1)s", statement.replace("NOW", _NOW))
        with self._lock:
            try:
                cursor = self._connection().execute(text, values)
                rows = cursor.fetchall() if cursor.description is not None else []
            except psycopg.Error as error:
                self._disconnect()  # it may be of no use any more; the next statement finds out
                raise StoreError(f"{self._shown}: {str(error).strip()}") from error
            return rows, cursor.rowcount

    def append(self, session_id: str, epoch: int, first: int, lines: Sequence[bytes]) -> None:
        _, changed = self.run(
            f"insert into fleet_record(session, number, epoch, body) {self.held}"
            " select :id, :first + line.at - 1, :epoch, line.body from held,"
            f" unnest(cast(:lines as bytea[])) with ordinality as line(body, at){AGAIN}",
            {"id": session_id, "epoch": epoch, "first": first, "lines": list(lines)},
        )
        self._written(session_id, changed, len(lines))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._disconnect()

    def _connection(self) -> psycopg.Connection[Any]:
        import psycopg

        if self._db is None:
            self._db = psycopg.connect(
                self._url,
                autocommit=True,
                client_encoding="UTF8",
                connect_timeout=_CONNECT_S,
                options=f"-c statement_timeout={_STATEMENT_MS}",
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=3,
                tcp_user_timeout=_STATEMENT_MS,
            )
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
