"""Spans of SQL statements, by OpenTelemetry's own instrumentation."""

from __future__ import annotations

from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import Status, StatusCode, TracerProvider
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

_SPAN = "_otel_span"


def instrument(engine: AsyncEngine, tracer_provider: TracerProvider) -> None:
    """Trace the statements of `engine`: the SQL text with placeholders, never its parameters.

    Pool metrics are Prometheus' here, so OpenTelemetry's own go nowhere. The tracer is attached
    to this engine alone: the process-wide instrumentor would patch every later engine too.
    """
    # Before the tracer's own listener, which would record the server's message: it quotes values.
    event.listen(engine.sync_engine, "handle_error", _end_failed_span)
    connections = NoOpMeter("chassis").create_up_down_counter("db.client.connections.usage")
    tracer = tracer_provider.get_tracer("chassis.database")
    EngineTracer(tracer, engine.sync_engine, connections)  # type: ignore[no-untyped-call]


def _end_failed_span(error: ExceptionContext) -> None:
    span = getattr(error.execution_context, _SPAN, None)
    if span is None:
        return
    cause = error.original_exception
    name = type(cause).__name__
    span.set_status(Status(StatusCode.ERROR, name))
    span.set_attribute("error.type", str(getattr(cause, "sqlstate", None) or name))
    span.end()
    setattr(error.execution_context, _SPAN, None)
