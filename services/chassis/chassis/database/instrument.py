"""Spans of SQL statements, by OpenTelemetry's own instrumentation."""

from __future__ import annotations

from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import TracerProvider
from sqlalchemy.ext.asyncio import AsyncEngine


def instrument(engine: AsyncEngine, tracer_provider: TracerProvider) -> None:
    """Trace the statements of `engine`: the SQL text with placeholders, never its parameters.

    Pool metrics are Prometheus' here, so OpenTelemetry's own go nowhere. The tracer is attached
    to this engine alone: the process-wide instrumentor would patch every later engine too.
    """
    connections = NoOpMeter("chassis").create_up_down_counter("db.client.connections.usage")
    EngineTracer(tracer_provider.get_tracer("chassis.database"), engine.sync_engine, connections)
