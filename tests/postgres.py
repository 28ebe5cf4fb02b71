"""A Postgres server for tests, in a folder of its own; none where Postgres is not installed."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import TIMEOUT_S

_OTHERS = ("postgres", "nobody")
"""Users as whom it runs if the tests are root's: Postgres refuses root."""


def _programs() -> Path | None:
    """Return the folder of Postgres' programs; None: it is not installed."""
    found = [Path(each) for each in (shutil.which("initdb"),) if each]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return found[0].resolve().parent if found else None


PROGRAMS = _programs()
needs_postgres = pytest.mark.skipif(
    PROGRAMS is None, reason="needs a Postgres server: apt-get install postgresql"
)


def _user() -> str:
    if os.getuid() != 0:
        return getpass.getuser()
    with contextlib.suppress(KeyError):
        return next(name for name in _OTHERS if pwd.getpwnam(name))
    return _OTHERS[-1]


class Postgres:
    """A server, reached by a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAMS is not None
        self._user = _user()
        self._folder = folder
        self._data = folder / "data"
        shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "tests", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://tests@/postgres?host={self._folder}"

    @property
    def socket_path(self) -> Path:
        """The socket that it listens on."""
        return self._folder / ".s.PGSQL.5432"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self._folder} -h '' -c fsync=off -c max_connections=100"
        self._control("start", "-o", options)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._control("stop", "-m", "immediate")

    def _control(self, *what: str) -> None:
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, *what)

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        as_other = {"user": self._user} if os.getuid() == 0 else {}
        subprocess.run(
            [str(PROGRAMS / program), *arguments],
            check=True,
            capture_output=True,
            timeout=3 * TIMEOUT_S,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **as_other,  # type: ignore[call-overload]
        )


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Run a server; its folder has a short name, since the path of a socket has a limit."""
    folder = Path(tempfile.mkdtemp(prefix="rtv-pg-", dir="/tmp"))
    folder.chmod(0o755)
    server = Postgres(folder)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
