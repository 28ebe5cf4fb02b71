"""Opens the store that a URL names."""

from __future__ import annotations

from messages import ConfigurationError
from rtvoice.fleet.postgres import PostgresStore
from rtvoice.fleet.sqlite import SqliteStore
from rtvoice.fleet.store import Store

__all__ = ["open_store"]


def open_store(url: str, *, makes: bool = True) -> Store:
    """Open a store.

    Args:
        url: ``sqlite:///PATH``, or the URL of a Postgres database (``postgresql://…``).
        makes: Whether to make an SQLite file that is not there.

    Raises:
        ConfigurationError: It is neither, or psycopg is missing.
        StoreError: It cannot be reached, or was made by a newer version of rtvoice.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteStore(rest[1:], makes=makes)
    if scheme in ("postgresql", "postgres"):
        return PostgresStore(url)
    raise ConfigurationError(
        f"{url!r} is no store: give sqlite:///PATH (one machine), or postgresql://USER@HOST/DATABASE"
    )
