"""Spans of SQL statements, by OpenTelemetry's own instrumentation."""

from __future__ import annotations

from typing import Any

from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import Status, StatusCode, TracerProvider, get_current_span
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
    _Tracer(tracer, engine.sync_engine, connections)  # type: ignore[no-untyped-call]


class _Tracer(EngineTracer):
    """Traces what belongs to a recorded request or event, and costs nothing anywhere else.

    A background loop that looks for work each second would begin a trace each second.
    """

    def _before_cur_exec(  # noqa: PLR0917  (as SQLAlchemy calls it)
        self, conn: Any, cursor: Any, statement: str, params: Any, context: Any, many: Any
    ) -> tuple[str, Any]:
        if not get_current_span().is_recording():
            return statement, params
        found: tuple[str, Any] = super()._before_cur_exec(  # type: ignore[no-untyped-call]
            conn, cursor, statement, params, context, many
        )
        return found


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
