"""Metrics of a conversation, from its events."""

from __future__ import annotations

from messages import Tokens, UsageUpdated
from rtvoice import Agent
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
