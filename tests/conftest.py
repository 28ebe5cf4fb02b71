"""What all tests share: the option ``--long``, and that no process outlives them."""

from __future__ import annotations

import os

import pytest

from tests.sweeper import Sweeper

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each child compiles all it imports

_LONG_S = 900
"""After which a long test has hung; some need two minutes of a machine with nothing else to do."""


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
