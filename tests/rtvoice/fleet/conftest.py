"""Stores for the tests of the fleet."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import PROGRAMS, Postgres, needs_postgres, running
from tests.rig import TIMEOUT_S


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if PROGRAMS is None:
        pytest.skip("needs a Postgres server")
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return str(request.getfixturevalue("postgres").url)


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[needs_postgres, pytest.mark.long])]
)
def fault_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a test that takes seconds one store, and with ``--long`` both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return str(request.getfixturevalue("postgres").url)


@pytest.fixture(params=[0, *(pytest.param(run, marks=pytest.mark.long) for run in range(1, 30))])
def run(request: pytest.FixtureRequest) -> int:
    """Run a test once, and with ``--long`` thirty times."""
    return int(request.param)


class Proxy:
    """Stands between each host and Postgres, and can be cut."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self._folder = folder
        self._server = server
        self._ways: dict[str, tuple[socket.socket, list[socket.socket]]] = {}
        self._is_cut: set[str] = set()
        self._threads: list[threading.Thread] = []

    def url(self, name: str) -> str:
        """Return the URL of the store for a host; without a name: straight."""
        if not name:
            return self._server.url
        if name not in self._ways:
            place = self._folder / name
            place.mkdir()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(place / ".s.PGSQL.5432"))
            listener.listen()
            self._ways[name] = listener, []
            self._start(self._accept, name)
        return f"postgresql://tests@/postgres?host={self._folder / name}"

    def cut(self, name: str) -> None:
        """Let nothing through any more."""
        self._is_cut.add(name)
        for end in self._ways[name][1]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self, name: str) -> None:
        """Let everything through again."""
        self._is_cut.discard(name)

    def close(self) -> None:
        """End it."""
        for name, (listener, _) in self._ways.items():
            self.cut(name)
            with contextlib.suppress(OSError):  # macOS: it is not connected
                listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        for listener, ends in self._ways.values():
            for end in (listener, *ends):
                end.close()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, name: str) -> None:
        listener, ends = self._ways[name]
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                if name in self._is_cut:
                    near.close()
                    continue
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._server.socket_path))
                ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    self._start(_copy, one, other)


def _copy(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def postgres_of_one(postgres: Postgres) -> Iterator[tuple[Callable[[str], str], Proxy]]:
    with tempfile.TemporaryDirectory(prefix="rtv-px-", dir="/tmp") as folder:
        proxy = Proxy(Path(folder), postgres)
        yield proxy.url, proxy
        proxy.close()
