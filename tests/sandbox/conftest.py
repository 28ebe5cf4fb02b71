"""A sandbox that runs for all tests, in a process of its own as users have it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from rtvoice.sandbox.launch import start_sandbox
from tests.sandbox.client import Client


@pytest.fixture(scope="session")
def sandbox():
    with start_sandbox() as running:
        yield running


@pytest.fixture
def client(sandbox):
    with Client(sandbox.url) as connected:
        connected.expect("session.created")
        yield connected


@pytest.fixture
def recogniser_installed():
    if find_spec("pocketsphinx") is None:
        pytest.skip("pocketsphinx is not installed: the sandbox recognises nothing")
