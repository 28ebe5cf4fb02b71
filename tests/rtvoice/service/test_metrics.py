"""Metrics of a conversation, from its events."""

from __future__ import annotations

import pytest

from messages import Tokens, UsageUpdated
from rtvoice import Agent
from rtvoice.events import RateLimitsUpdatedEvent
from rtvoice.service.metrics import Metrics, Watch


def test_dollars_are_counted_from_sums_and_not_again_when_a_conversation_goes_on() -> None:
    metrics = Metrics()
    watch = Watch(metrics, Agent())

    for event in (
        UsageUpdated("", Tokens(), 1.0),  # it was resumed
        UsageUpdated("r1", Tokens(), 1.25),
        UsageUpdated("r1", Tokens(), 1.25),
        UsageUpdated("r2", Tokens(), None),
        UsageUpdated("r3", Tokens(), 1.75),
    ):
        watch._spent(event)

    assert metrics.registry.get_sample_value("rtvoice_dollars_total") == 0.75


def test_tokens_and_what_the_server_grants_count_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics()
    watch = Watch(metrics, Agent())
    limit = {"name": "tokens", "remaining": 900, "reset_seconds": 30}
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    metrics.used(500)
    watch._limited(RateLimitsUpdatedEvent([limit]))
    found = []
    for now[0] in (1000.0, 1029.0, 1031.0, 1059.0, 1061.0):
        found.append((metrics.tokens_of_a_minute(), metrics.granted()))

    assert found == [(500, 900), (500, 900), (500, None), (500, None), (0, None)]
