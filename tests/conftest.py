"""What all tests share: the option ``--long``, and that no process outlives them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.sweeper import Sweeper

if TYPE_CHECKING:
    from tests.fake_server import FakeServer

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each child compiles all it imports
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or each child ignores Ctrl-C too

_LONG_S = 900
"""After which a long test has hung; some need two minutes of a machine with nothing else to do."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Give a test a server of the Realtime API that does what it tells it."""
    from tests.fake_server import FakeServer

    with FakeServer() as running:
        yield running


@pytest.fixture
def on_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the sessions of a test on threads, but for those components that ``processes`` names.

    The mark without a name leaves all of them their processes.
    """
    from tests.threads import sessions_on_threads

    mark = request.node.get_closest_marker("processes")
    if mark is not None and not mark.args:
        yield
        return
    with sessions_on_threads(*(mark.args if mark is not None else ())):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption(
        "--long", action="store_true", help="also run the tests marked long, at their full counts"
    )


def pytest_configure(config: pytest.Config) -> None:
    """See that no process is left behind."""
    config.pluginmanager.register(Sweeper())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked long, unless asked for it; then give it more time."""
    chosen = config.getoption("--long")
    skipped = pytest.mark.skip(reason="runs with --long")
    for item in items:
        if "long" not in item.keywords:
            continue
        if not chosen:
            item.add_marker(skipped)
        elif item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONG_S))
