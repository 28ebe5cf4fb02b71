"""The OpenTelemetry span that a tool runs in; imported only if the program makes traces."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["attach", "flush"]

_FLUSH_MS = 500
_propagator = TraceContextTextMapPropagator()


def attach(traceparent: str) -> None:
    """Make a span of the program the parent of the spans that this context makes from now on."""
    context.attach(_propagator.extract({"traceparent": traceparent}))


def flush() -> None:
    """Export the spans that the SDK of the user's code, if it has set one up, still holds."""
    export = getattr(trace.get_tracer_provider(), "force_flush", None)
    if callable(export):
        export(_FLUSH_MS)
