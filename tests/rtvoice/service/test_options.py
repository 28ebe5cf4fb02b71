"""What a service refuses to be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from messages.errors import ConfigurationError
from rtvoice import Agent
from rtvoice.service import CallInfo, Service


def make_agent(call: CallInfo) -> Agent:
    return Agent()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"max_sessions": 0}, "max_sessions: 0 is out of range; give a whole number of at least 1"),
        ({"max_sessions": "4"}, "max_sessions: '4' is not valid; give a whole number"),
        ({"cpu_limit": 0.0}, "cpu_limit: 0 is out of range; give a number above 0 or None"),
        ({"cpu_limit": float("nan")}, "cpu_limit: nan is out of range"),
        ({"memory_limit_mib": -1}, "memory_limit_mib: -1 is out of range"),
        ({"lag_limit_ms": -0.5}, "lag_limit_ms: -0.5 is out of range"),
        ({"tokens_per_minute": 0}, "tokens_per_minute: 0 is out of range"),
        ({"start_parallel": 0}, "start_parallel: 0 is out of range"),
        ({"queue": -1}, "queue: -1 is out of range; give a whole number of at least 0"),
        ({"queue_s": -1}, "queue_s: -1 is out of range; give a number of at least 0"),
        ({"drain_s": float("nan")}, "drain_s: nan is out of range"),
        ({"keep_s": -1}, "keep_s: -1 is out of range"),
        ({"origins": "https://shop.example"}, "origins: 'https://shop.example' is not valid"),
        ({"make_agent": Agent()}, "make_agent: it is no function but of type Agent; write def "),
        ({"journals": __file__}, "journals: .*cannot be written: a part of the path is a file"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_is_allowed(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Service(**{"make_agent": make_agent, **values})


def test_what_is_allowed_is_taken(tmp_path: Path) -> None:
    service = Service(
        make_agent,
        max_sessions=1,
        cpu_limit=None,
        lag_limit_ms=1,
        queue=0,
        queue_s=0,
        drain_s=float("inf"),
        journals=tmp_path / "journals",
        keep_s=0,
        origins=["*"],
    )

    assert service.shortage is None
