"""Hosts in a Ray cluster: whatever of Ray dies, a conversation has one host, which goes on.

A cluster takes up to a minute to come up, and does not always: it is tried three times.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import pytest

from scripts.fleet_on_ray import FAULTS, NoClusterError, run
from tests.postgres import needs_postgres


@pytest.mark.long
@needs_postgres
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'rtvoice[ray]'")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_conversation_goes_on_whatever_of_the_cluster_dies(fault: str) -> None:
    try:
        print(asyncio.run(run(fault)))
    except NoClusterError as error:
        pytest.skip(str(error))
