"""What comes in: CloudEvents of other services, and readings of sensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from chassis.events.cloudevent import CONTENT_TYPE, CloudEvent
from chassis.moments import LocalMoment
from chassis.problems import Problem, problems
from chassis.runtime import Runtime, RuntimeDep
from chassis.security import Principal, requires
from stream.entries import Draft, draft
from stream.log import LogUnavailableError, Stored
from stream.service import Streams, StreamsDep, unavailable
from stream.topics import NOTIFICATIONS, ORDERS, SENSOR_ID, SENSORS, Kind

MAX_BATCH = 1000

sink = APIRouter(tags=["events"])
sensors = APIRouter(tags=["sensors"])


class _Owned(BaseModel):
    owner: str = Field(min_length=1, max_length=255)


class _Addressed(BaseModel):
    recipient: str = Field(min_length=1, max_length=255)


@sink.post(
    "/events",
    status_code=204,
    summary="Receive an event",
    dependencies=[requires("events:deliver")],
    responses=problems(401, 403, 422, 503),
)
async def receive_event(
    event: Annotated[CloudEvent, Body(media_type=CONTENT_TYPE)],
    runtime: RuntimeDep,
    streams: StreamsDep,
) -> Response:
    """Take a CloudEvent (structured mode) and stream it to whom it is about.

    204 once it is stored, or was before; an event of a type that no topic carries is let pass.
    503 when it cannot be stored: send it again.
    """
    found = _of_whom(event)
    if found is None:
        runtime.log.warning("event.ignored", event_type=event.type, source=event.source)
        return Response(status_code=204)
    kind, topic = found
    time = None if event.time is None else event.time.isoformat().replace("+00:00", "Z")
    with _publishing(runtime, kind) as context:
        made = draft(
            topic,
            event.type,
            event.data,
            time=time,
            key=f"{event.source} {event.id}",
            trace=context,
        )
        if len(made.body) > streams.settings.event_bytes:
            streams.metrics.refused_events[kind].inc()
            raise Problem(422, detail=f"event {event.id} is larger than a stream takes")
        await _store(streams, kind, [made])
    return Response(status_code=204)


def _of_whom(event: CloudEvent) -> tuple[Kind, str] | None:
    """Return the kind and the topic that an event belongs to, or None.

    Raises:
        Problem: 422, its data do not say whom it is about.
    """
    try:
        if event.type.startswith("order."):
            return ORDERS, f"{ORDERS}/{_Owned.model_validate(event.data).owner}"
        if event.type == "notification.created":
            recipient = _Addressed.model_validate(event.data).recipient
            return NOTIFICATIONS, f"{NOTIFICATIONS}/{recipient}"
    except ValidationError as exc:
        # The sender's outbox keeps it as a dead letter, where an operator finds and replays it.
        raise Problem(422, detail=f"the data of event {event.id} do not say whose it is") from exc
    return None


class Reading(BaseModel):
    """One measurement."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"value": 21.5, "unit": "Cel", "at": "2026-05-04T12:00:00Z"}]
        },
    )

    value: float = Field(description="A finite number.", examples=[21.5])
    unit: str = Field(
        pattern=r"^[!-~]{1,20}$", description="UCUM code, such as Cel, % or kW.h.", examples=["Cel"]
    )
    at: LocalMoment = Field(
        description="When it was measured, RFC 3339.", examples=["2026-05-04T12:00:00Z"]
    )

    @field_validator("value")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("must be a finite number")
        return value


class Readings(BaseModel):
    """Several measurements, in the order in which they are told."""

    model_config = ConfigDict(extra="forbid")

    readings: list[Reading] = Field(min_length=1, max_length=MAX_BATCH)


class Accepted(BaseModel):
    """How many readings were taken."""

    accepted: int = Field(examples=[1])


SensorId = Annotated[str, Path(pattern=f"^{SENSOR_ID}$", examples=["greenhouse-1"])]
Meter = Annotated[Principal, requires("sensors:write")]


@sensors.post(
    "/sensors/{sensor_id}/readings",
    status_code=202,
    summary="Add readings of a sensor",
    responses=problems(400, 401, 403, 422, 503),
)
async def add_readings(
    sensor_id: SensorId,
    body: Reading | Readings,
    caller: Meter,
    runtime: RuntimeDep,
    streams: StreamsDep,
) -> Accepted:
    """Take one reading, or up to 1000, and stream them to who listens to the sensor.

    All are taken or none. Needs the scope `sensors:write`.
    """
    del caller  # the scope is all that matters
    readings = body.readings if isinstance(body, Readings) else [body]
    topic = f"{SENSORS}/{sensor_id}"
    with _publishing(runtime, SENSORS) as context:
        drafts = [_measured(topic, sensor_id, reading, context) for reading in readings]
        await _store(streams, SENSORS, drafts)
    return Accepted(accepted=len(drafts))


def _measured(topic: str, sensor_id: str, reading: Reading, context: str) -> Draft:
    at = reading.at.isoformat().replace("+00:00", "Z")
    data: dict[str, Any] = {"sensor_id": sensor_id, "value": reading.value, "unit": reading.unit}
    return draft(topic, "sensor.reading", {**data, "at": at}, time=at, trace=context)


async def _store(streams: Streams, kind: Kind, drafts: Sequence[Draft]) -> Stored:
    try:
        stored = await streams.log.append(drafts)
    except LogUnavailableError as error:
        raise unavailable("Events cannot be stored now; send it again.") from error
    streams.metrics.stored[kind].inc(stored.new)
    streams.metrics.repeated[kind].inc(stored.repeated)
    return stored


@contextmanager
def _publishing(runtime: Runtime, kind: Kind) -> Iterator[str]:
    """Give the `traceparent` of the span of publishing events; empty if it is not recorded."""
    provider = runtime.tracer_provider or trace.NoOpTracerProvider()
    tracer = trace.get_tracer("stream", tracer_provider=provider)
    with tracer.start_as_current_span(
        f"publish {kind}",
        kind=trace.SpanKind.PRODUCER,
        attributes={"messaging.operation.type": "send", "messaging.destination.name": kind},
    ) as span:
        carrier: dict[str, str] = {}
        if span.get_span_context().trace_flags.sampled:
            TraceContextTextMapPropagator().inject(carrier)
        yield carrier.get("traceparent", "")
