"""What an operator sees of the service, for Prometheus. No label holds an id."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from messages import (
    AudioLost,
    ComponentRestarted,
    Interrupted,
    PlaybackStarted,
    Reconnected,
    ResponseEnded,
    SupervisorRestarted,
    ToolAnswer,
    ToolCall,
    UsageUpdated,
)
from rtvoice.agent import Agent
from rtvoice.events import RateLimitsUpdatedEvent
from rtvoice.service.admission import Admission

__all__ = ["CONTENT_TYPE", "Metrics", "Watch"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_STATES = ("waiting", "starting", "running", "lost", "ending")
_MINUTE_S = 60.0
_TOKENS = {
    "input_text": "input_text",
    "input_audio": "input_audio",
    "input_image": "input_image",
    "input_cached": "cached",
    "output_text": "output_text",
    "output_audio": "output_audio",
}
"""Kinds of tokens, and the attributes of `Tokens`. Cached ones also count as their kind."""


class Metrics:
    """The metrics of one service, in a registry of their own.

    It has more attributes than other classes: one for each metric.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"rtvoice_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"rtvoice_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"rtvoice_{name}", text, labels, registry=registry, buckets=_SECONDS)

        self._sessions = gauge("sessions", "Conversations now.", "state")
        self._capacity = gauge("capacity", "Conversations that fit; -1: not limited.")
        self._queued = gauge("queued", "Callers who wait for a place.")
        self.started = counter("sessions_started", "Conversations that have started.")
        self.ended = counter("sessions_ended", "Conversations that have ended.", "reason")
        self.refused = counter("sessions_refused", "Callers who were refused.", "reason")
        self.start_s = histogram("start_seconds", "From the start until every component is open.")
        self.response_s = histogram(
            "response_seconds",
            "From the end of the user's speech until the first sample of an answer is heard.",
        )
        self.interruptions = counter("interruptions", "Answers that were interrupted.")
        self.tool_s = histogram("tool_seconds", "Duration of tool calls.", "outcome")
        self.restarts = counter("restarts", "Restarts of components.", "component", "cause")
        self.reconnects = counter("reconnects", "New connections to the server.")
        self.outage_s = counter("outage_seconds", "Time without a connection to the server.")
        self.audio_lost_s = counter("audio_lost_seconds", "Audio that was lost.", "component")
        self.tokens = counter("tokens", "Tokens of answers.", "kind")
        self.dollars = counter("dollars", "Price of answers, where the model has a known one.")
        self._cpu = gauge("cpu_cores", "Cores used by the service and its processes.")
        self._busy = gauge("busy_cores", "Cores used by all programs of the machine or container.")
        self._pss = gauge("memory_pss_bytes", "Memory of the service and its processes.")
        self._lag = gauge("loop_lag_seconds", "Largest lag of the event loop in two seconds.")
        self._spent: deque[tuple[float, int]] = deque()
        """Tokens of the last minute, and when they were counted."""
        self.tokens_left: tuple[float, int] | None = None
        """When this is void, and what the server grants until then; None: it has not said."""

    def used(self, tokens: int) -> None:
        """Count tokens of an answer."""
        self._spent.append((time.monotonic(), tokens))

    def tokens_of_a_minute(self) -> int:
        """Return how many tokens the last minute took."""
        since = time.monotonic() - _MINUTE_S
        while self._spent and self._spent[0][0] < since:
            self._spent.popleft()
        return sum(tokens for _, tokens in self._spent)

    def granted(self) -> int | None:
        """Return what the server still grants; None: unknown."""
        if self.tokens_left is None or time.monotonic() > self.tokens_left[0]:
            return None
        return self.tokens_left[1]

    def render(self, states: Mapping[str, int], admission: Admission, queued: int) -> bytes:
        """Return all metrics in the text format."""
        for state in _STATES:
            self._sessions.labels(state).set(states.get(state, 0))
        load = admission.load
        self._capacity.set(admission.capacity)
        self._queued.set(queued)
        self._cpu.set(load.tree_cores)
        self._busy.set(load.busy_cores)
        self._pss.set(load.pss_mib * 1024 * 1024)
        self._lag.set(load.lag_ms / 1000)
        return generate_latest(self.registry)


class Watch:
    """Counts the events of one conversation."""

    def __init__(self, metrics: Metrics, agent: Agent) -> None:
        self._metrics = metrics
        self._calls: dict[str, float] = {}
        """When each tool call that is not answered was made."""
        self._dollars = 0.0
        """The price of the conversation that is counted so far."""
        subscribe = agent.event_bus.subscribe
        handlers: tuple[tuple[type[Any], Callable[[Any], None]], ...] = (
            (PlaybackStarted, self._heard),
            (Interrupted, self._interrupted),
            (ToolCall, self._called),
            (ToolAnswer, self._answered),
            (ComponentRestarted, self._restarted),
            (SupervisorRestarted, self._replaced),
            (Reconnected, self._reconnected),
            (AudioLost, self._lost),
            (ResponseEnded, self._ended),
            (UsageUpdated, self._spent),
            (RateLimitsUpdatedEvent, self._limited),
        )
        self._subscriptions = [subscribe(kind, handler) for kind, handler in handlers]

    def close(self) -> None:
        """Count no more: the agent may hold another conversation."""
        for subscription in self._subscriptions:
            subscription.unsubscribe()

    def _heard(self, event: PlaybackStarted) -> None:
        if event.after_speech_ms is not None:
            self._metrics.response_s.observe(event.after_speech_ms / 1000)

    def _interrupted(self, _: Interrupted) -> None:
        self._metrics.interruptions.inc()

    def _called(self, event: ToolCall) -> None:
        self._calls[event.call_id] = time.monotonic()

    def _answered(self, event: ToolAnswer) -> None:
        if (began := self._calls.pop(event.call_id, None)) is not None:
            outcome = "failed" if event.failed else "done"
            self._metrics.tool_s.labels(outcome).observe(time.monotonic() - began)

    def _restarted(self, event: ComponentRestarted) -> None:
        cause = _cause(event.cause) if event.crashed else "device"
        self._metrics.restarts.labels(event.component, cause).inc()

    def _replaced(self, event: SupervisorRestarted) -> None:
        self._metrics.restarts.labels("supervisor", _cause(event.cause)).inc()

    def _reconnected(self, event: Reconnected) -> None:
        self._metrics.reconnects.inc()
        self._metrics.outage_s.inc(event.gap_ms / 1000)

    def _lost(self, event: AudioLost) -> None:
        self._metrics.audio_lost_s.labels(event.component).inc(event.audio_ms / 1000)

    def _ended(self, event: ResponseEnded) -> None:
        self._metrics.used(event.input_tokens + event.output_tokens)
        for kind, name in _TOKENS.items():
            if count := getattr(event.tokens, name):
                self._metrics.tokens.labels(kind).inc(count)

    def _spent(self, event: UsageUpdated) -> None:
        if event.dollars is None:
            return
        if event.response_id:  # else it was spent before, by a conversation that goes on
            self._metrics.dollars.inc(max(0.0, event.dollars - self._dollars))
        self._dollars = event.dollars

    def _limited(self, event: RateLimitsUpdatedEvent) -> None:
        for limit in event.rate_limits:
            if limit.get("name") == "tokens":
                left, resets = limit.get("remaining"), limit.get("reset_seconds", _MINUTE_S)
                if isinstance(left, int) and isinstance(resets, int | float):
                    self._metrics.tokens_left = (time.monotonic() + resets, left)


def _cause(text: str) -> Any:
    """Return the kind of a cause: a label has few values."""
    for word, kind in (
        ("MemoryError", "memory"),
        ("raised", "raised"),
        ("killed", "killed"),
        ("exited", "exited"),
        ("hung", "hung"),
        ("not handled", "hung"),
        ("frame", "torn frame"),
    ):
        if word in text:
            return kind
    return "other"
