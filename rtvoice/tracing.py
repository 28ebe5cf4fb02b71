"""OpenTelemetry traces of conversations: one for each turn (``pip install "rtvoice[service]"``).

The names of attributes are those of the semantic conventions for generative AI, and for what these
lack ``rtvoice.…``: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from messages import (
    SAMPLE_RATE,
    AudioLost,
    BudgetUsed,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Disconnected,
    Event,
    Interrupted,
    Message,
    NotRunningError,
    PlaybackEnded,
    PlaybackStarted,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    ServerError,
    SessionEnded,
    SessionStarted,
    SupervisorRestarted,
    ToolAnswer,
    ToolCall,
    ToolSpan,
    ToolSpanRequest,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)
from messages.urls import authority_of, model_in
from rtvoice.agent import Agent
from rtvoice.bus import Subscription

__all__ = ["CAPTURE_CONTENT", "Trace", "trace"]

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The standard variable that allows the text of a conversation in spans: ``true``, ``SPAN_ONLY`` or
``SPAN_AND_EVENT``."""
_ALLOWING = ("true", "1", "span_only", "span_and_event")
_OPENAI = "api.openai.com"
_PROVIDERS = {
    ".azure.com": "azure.ai.openai",
    ".x.ai": "x_ai",
}
"""Names of the services that speak the same protocol, by the end of their hosts."""
_QUEUED = 10_000
_OTHER = "_OTHER"
"""What the conventions call an error without a class."""
_propagator = TraceContextTextMapPropagator()
_PENDING = 100
"""At most so many events between turns are kept for the next one: the newest."""


def trace(
    agent: Agent, conversation_id: str | None = None, provider: TracerProvider | None = None
) -> Trace:
    """Trace the conversations of an agent until the trace is closed.

    Each turn is a trace: its root is the span ``turn``, with a child ``chat MODEL`` for each answer
    of the model and a child ``execute_tool NAME`` for each tool call. Interruptions, crashes,
    restarts and lost connections are events of the root. Spans that a tool makes itself are
    children of its ``execute_tool``, also in the tools process. A turn ends with the last thing
    that happens in it, which is known when the next one begins, or at the end of the conversation.

    Without an SDK that is set up before this call, nothing is traced, and it costs nothing.

    Example:
        ```python
        from rtvoice import Agent
        from rtvoice.tracing import trace

        agent = Agent()
        with trace(agent):
            pass  # conversations
        ```

    Args:
        agent: The agent, before its conversation begins.
        conversation_id: The value of ``gen_ai.conversation.id``; None: each conversation gets one.
        provider: Where spans are made; None: the global provider.
    """
    return Trace(agent, conversation_id, provider or otel.get_tracer_provider())


class Trace:
    """The handle that `trace` returns; leave it as a context manager, or close it."""

    def __init__(self, agent: Agent, conversation_id: str | None, provider: TracerProvider) -> None:
        self._agent = agent
        self._given_id = conversation_id
        self._spans: _Spans | None = None
        self._subscriptions: list[Subscription[Any]] = []
        if not isinstance(provider, otel.ProxyTracerProvider | otel.NoOpTracerProvider):
            self._tracer = provider.get_tracer("rtvoice")
            # One subscription to all events, since those of several come in no order.
            self._subscriptions = [
                agent.event_bus.subscribe(Event, self._take, max_queued=_QUEUED),
                agent.event_bus.subscribe(ToolSpanRequest, self._name_span),
            ]

    def close(self) -> None:
        """End the spans that are open, and trace no more. Later calls do nothing."""
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions.clear()
        self._end()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, event: Event) -> None:
        if isinstance(event, SessionStarted):
            self._end()
            conversation_id = self._given_id or secrets.token_hex(8)
            common = _common(self._agent, event.server, conversation_id)
            self._spans = _Spans(self._tracer, common, event.epoch_ns, self._send)
        elif self._spans is not None:
            self._spans.take(event)
            if isinstance(event, SessionEnded):
                self._end()

    def _name_span(self, request: ToolSpanRequest) -> None:
        if self._spans is not None:
            self._spans.name_span(request.call_id)
        else:
            self._send(ToolSpan(request.call_id, ""))

    def _send(self, message: Message) -> None:
        with contextlib.suppress(NotRunningError):
            self._agent._send(message)  # noqa: SLF001 - made for this package

    def _end(self) -> None:
        if self._spans is not None:
            self._spans.end()
            self._spans = None


class _Common:
    """What all spans of a conversation have."""

    def __init__(self, model: str, conversation: dict[str, Any], server: dict[str, Any]) -> None:
        self.model = model
        self.conversation = conversation
        """Attributes of each span."""
        self.server = server
        """Attributes of each span of the model."""
        self.captures = os.environ.get(CAPTURE_CONTENT, "").strip().lower() in _ALLOWING


def _common(agent: Agent, server: str, conversation_id: str) -> _Common:
    host, port = _OPENAI, 443
    if "://" in server:
        host = authority_of(server)[1]
        port = 443 if server.startswith("wss:") else 80
        given = server.partition("://")[2].partition("/")[0].rpartition(":")[2]
        port = int(given) if given.isdecimal() else port
    model = model_in(agent.server or os.environ.get("RTVOICE_SERVER", "")) or agent.model
    name = next((one for end, one in _PROVIDERS.items() if host.endswith(end)), "openai")
    told = {
        "gen_ai.provider.name": name,
        "gen_ai.request.model": model,
        "gen_ai.output.type": "speech" if agent.output_modality == "audio" else "text",
        "server.address": host,
        "server.port": port,
    }
    return _Common(model, {"gen_ai.conversation.id": conversation_id}, told)


class _Spans:
    """The spans of one conversation.

    Args:
        tracer: What makes them.
        common: What all of them have.
        epoch_ns: ``time.monotonic_ns()`` of sample 0 of the session timeline.
        send: Sends a message to the components.
    """

    def __init__(
        self,
        tracer: otel.Tracer,
        common: _Common,
        epoch_ns: int,
        send: Callable[[Message], None],
    ) -> None:
        self._tracer = tracer
        self._send = send
        self._common = common
        self._epoch_ns = epoch_ns
        self._turn: Span | None = None
        self._last_ns = 0
        """When the last thing happened in the turn."""
        self._responses: dict[str, Span] = {}
        self._calls: dict[str, Span] = {}
        self._unnamed: set[str] = set()
        """Calls whose span was asked for before they were known here."""
        self._goes_on = False
        """Whether the next response belongs to the same turn: it follows a tool, or a failure."""
        self._is_playing = False
        self._speech_ns: int | None = None
        """When the user has begun to speak, after the turn that is open has begun."""
        self._user_acted = False
        """Whether the user has spoken or typed since, so that the next response begins a turn."""
        self._item = ""
        """The item of the user that the turn answers; empty: none, or not known."""
        self._next_item = ""
        """The item that the next turn will answer."""
        self._known: dict[str, None] = {}
        """The items of turns so far."""
        self._asked = ""
        """The text of the next item, if that is allowed."""
        self._said: list[dict[str, Any]] = []
        self._pending: list[tuple[str, dict[str, Any], int]] = []
        """Events that came between two turns."""
        self._steps: Mapping[type[Event], Callable[[Any, int], None]] = {
            UserSpeechStarted: self._speaks,
            UserSpeechStopped: self._spoke,
            Turn: self._turn_of,
            ResponseStarted: self._response,
            ResponseEnded: self._responded,
            ToolCall: self._call,
            ToolAnswer: self._answer,
            PlaybackStarted: self._heard,
            PlaybackEnded: self._played,
            Interrupted: self._interrupted,
            ComponentCrashed: self._note,
            ComponentRestarted: self._note,
            ComponentParked: self._note,
            SupervisorRestarted: self._note,
            Disconnected: self._note,
            Reconnected: self._note,
            ServerError: self._note,
            AudioLost: self._note,
            BudgetUsed: self._note,
        }

    def take(self, event: Event) -> None:
        """Handle an event."""
        step = self._steps.get(type(event))
        if step is not None:
            step(event, time.time_ns())

    def end(self) -> None:
        """End what is open."""
        if self._turn is None:
            return
        for name, attributes, at_ns in self._pending:
            self._turn.add_event(name, attributes, at_ns)
        self._pending.clear()
        for span in (*self._responses.values(), *self._calls.values()):
            _fail(span, "lost")
            span.end(self._last_ns)
        self._responses.clear()
        self._calls.clear()
        self._turn.end(self._last_ns)
        self._turn = None

    # -- turns --------------------------------------------------------------------------------

    def _begin(self, now_ns: int) -> None:
        """Begin a turn: with the user's speech, or now."""
        pending, self._pending = self._pending, []
        self.end()
        start_ns = min(self._speech_ns or now_ns, now_ns)
        self._turn = self._tracer.start_span(
            "turn",
            Context(),  # of no other trace
            attributes=self._common.conversation,
            start_time=start_ns,
        )
        self._last_ns = now_ns
        for name, attributes, at_ns in pending:
            self._turn.add_event(name, attributes, at_ns)
        if self._asked:
            self._turn.set_attribute("gen_ai.input.messages", self._asked)
        self._item, self._next_item, self._asked = self._next_item, "", ""
        self._known[self._item] = None
        self._said = []
        self._user_acted, self._speech_ns = False, None
        self._goes_on = self._is_playing = False

    def _child(self, name: str, kind: SpanKind, attributes: dict[str, Any], now_ns: int) -> Span:
        if self._turn is None:
            self._begin(now_ns)
        assert self._turn is not None
        self._last_ns = now_ns
        return self._tracer.start_span(
            name,
            otel.set_span_in_context(self._turn, Context()),
            kind,
            attributes | self._common.conversation,
            start_time=now_ns,
        )

    def _is_done(self) -> bool:
        """Return whether a further response would not belong to the turn."""
        return not (self._responses or self._calls or self._goes_on)

    def _speaks(self, event: UserSpeechStarted, now_ns: int) -> None:
        since_ns = time.monotonic_ns() - self._epoch_ns
        self._speech_ns = now_ns - since_ns + event.first_sample * 1_000_000_000 // SAMPLE_RATE

    def _spoke(self, event: UserSpeechStopped, now_ns: int) -> None:
        if event.item_id:
            self._user_acted, self._next_item = True, event.item_id

    def _turn_of(self, event: Turn, now_ns: int) -> None:
        """Take note of a turn that was typed, and of its text, if that is allowed."""
        is_known = event.item_id in self._known or event.item_id == self._next_item
        if event.role == "user" and not is_known:
            if self._turn is not None and not self._item and not self._is_done():
                self._item = event.item_id  # its answer has begun before it came
                self._known[self._item] = None
            else:
                self._user_acted, self._next_item = True, event.item_id
        if self._common.captures:
            self._keep_text(event)

    def _keep_text(self, event: Turn) -> None:
        message = {"role": event.role, "parts": [{"type": "text", "content": event.text}]}
        if event.role == "user" and event.item_id == self._next_item:
            self._asked = _as_json([message])
        elif self._turn is None:
            return
        elif event.role == "assistant":
            self._said.append(message)
            self._turn.set_attribute("gen_ai.output.messages", _as_json(self._said))
        elif event.item_id == self._item:
            self._turn.set_attribute("gen_ai.input.messages", _as_json([message]))

    # -- what happens in a turn ---------------------------------------------------------------

    def _response(self, event: ResponseStarted, now_ns: int) -> None:
        if self._turn is None or self._user_acted or self._is_done():
            self._begin(now_ns)
        self._goes_on = False
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.id": event.response_id,
            **self._common.server,
        }
        name = f"chat {self._common.model}"
        self._responses[event.response_id] = self._child(name, SpanKind.CLIENT, attributes, now_ns)

    def _responded(self, event: ResponseEnded, now_ns: int) -> None:
        self._goes_on = event.status == "failed"
        self._last_ns = now_ns
        span = self._responses.pop(event.response_id, None)
        if span is None:
            return
        tokens = event.tokens
        span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (event.reason or event.status,),
                "gen_ai.usage.input_tokens": event.input_tokens,
                "gen_ai.usage.output_tokens": event.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": event.cached_tokens,
                **{
                    f"rtvoice.usage.{name}_tokens": getattr(tokens, name)
                    for name in tokens.__struct_fields__
                    if getattr(tokens, name)
                },
            }
        )
        if event.status == "failed":
            _fail(span, event.reason or _OTHER)
        span.end(now_ns)

    def _call(self, event: ToolCall, now_ns: int) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.name,
            "gen_ai.tool.call.id": event.call_id,
            "gen_ai.tool.type": "function",
        }
        if self._common.captures:
            attributes["gen_ai.tool.call.arguments"] = event.arguments
        if event.call_id not in self._calls:
            name = f"execute_tool {event.name}"
            self._calls[event.call_id] = self._child(name, SpanKind.INTERNAL, attributes, now_ns)
            if event.call_id in self._unnamed:
                self._unnamed.discard(event.call_id)
                self.name_span(event.call_id)

    def name_span(self, call_id: str) -> None:
        """Tell the tools the span of a call, as soon as it is there."""
        if (span := self._calls.get(call_id)) is None:
            self._unnamed.add(call_id)
            return
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, otel.set_span_in_context(span, Context()))
        self._send(ToolSpan(call_id, carrier.get("traceparent", "")))

    def _answer(self, event: ToolAnswer, now_ns: int) -> None:
        span = self._calls.pop(event.call_id, None)
        if span is None:
            return
        self._goes_on, self._last_ns = event.respond, now_ns
        if self._common.captures:
            span.set_attribute("gen_ai.tool.call.result", event.output)
        if event.failed:
            _fail(span, _OTHER)
        span.end(now_ns)

    def _heard(self, event: PlaybackStarted, now_ns: int) -> None:
        self._is_playing, self._last_ns = True, now_ns
        if self._turn is not None and event.after_speech_ms is not None:
            seconds = event.after_speech_ms / 1000
            self._turn.set_attribute("rtvoice.response_seconds", seconds)

    def _played(self, _: PlaybackEnded, now_ns: int) -> None:
        self._is_playing, self._last_ns = False, now_ns

    def _interrupted(self, event: Interrupted, now_ns: int) -> None:
        self._is_playing = True  # until now, also if its beginning was not reported
        self._note(event, now_ns)
        self._is_playing = False

    def _note(self, event: Event, now_ns: int) -> None:
        """Add an event to the turn or, between turns, to the next one."""
        attributes = _facts(event)
        if self._turn is not None and (self._is_playing or not self._is_done()):
            self._turn.add_event(event.event, attributes, now_ns)
            self._last_ns = now_ns
        else:
            self._pending = [*self._pending[1 - _PENDING :], (event.event, attributes, now_ns)]


def _facts(event: Event) -> dict[str, Any]:
    """Return the attributes of a span event: no text of the conversation, nor of exceptions."""
    found: dict[str, Any] = {}
    for name in ("component", "heard_ms", "gap_ms", "ms", "audio_ms", "code", "percent"):
        if (value := getattr(event, name, None)) not in (None, ""):
            found[f"rtvoice.{name}"] = value
    if cause := getattr(event, "cause", ""):
        found["rtvoice.cause"] = cause.partition(":")[0]
    return found


def _fail(span: Span, kind: str) -> None:
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute("error.type", kind)


def _as_json(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)
