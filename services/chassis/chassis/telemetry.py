"""Traces: OpenTelemetry, W3C context, OTLP over HTTP; no provider at all without an endpoint.

FastAPI makes the server span of a sampled request itself. Whether a request is sampled is decided
before that, from its `traceparent` or, for a new trace, from the random trace id (exactly the rule
of `ParentBased(TraceIdRatioBased)`), so that an unsampled request pays for no span. It still has a
trace id for its logs and passes an unsampled context (flags 00) on to its peers.

Nothing here is global: the provider belongs to the runtime.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from chassis import context
from chassis.settings import ServiceSettings

TRACEPARENT = b"traceparent"

_traceparent = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
).fullmatch
_LOW_64 = (1 << 64) - 1


class Parent(NamedTuple):
    """A valid incoming `traceparent` (W3C Trace Context): hexadecimal ids and the flags."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """True when the caller records this trace."""
        return bool(self.flags & TraceFlags.SAMPLED)


def parse_traceparent(header: bytes | None) -> Parent | None:
    """Return the parent in `header`, or None when there is none or it is invalid."""
    if header is None or (match := _traceparent(header)) is None:
        return None
    trace_id, span_id, flags = match.groups()
    return Parent(trace_id.decode(), span_id.decode(), int(flags, 16))


class UnsampledSpan(NonRecordingSpan):
    """The current span of a request that is not recorded; its context is made on first use."""

    def __init__(self, trace_id: int, span_id: int = 0, flags: int = 0) -> None:
        self._ids = (trace_id, span_id, flags)
        self._made: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Return the context that peers are given."""
        if self._made is None:
            trace_id, span_id, flags = self._ids
            self._made = SpanContext(
                trace_id,
                span_id or random.getrandbits(64) or 1,  # noqa: S311  (an identifier, no secret)
                is_remote=False,
                trace_flags=TraceFlags(flags),
            )
        return self._made

    def __repr__(self) -> str:
        return f"UnsampledSpan({self.get_span_context()!r})"


class _RequestIdGenerator(RandomIdGenerator):
    """Gives the root span of a request the trace id that its sampling was decided on."""

    def generate_trace_id(self) -> int:
        take = getattr(context.current.get(), "take_trace_id", None)
        return (take() if take is not None else 0) or super().generate_trace_id()


class Sampling:
    """The sampling rule: a recorded parent is always continued, new traces are taken by ratio."""

    __slots__ = ("_bound",)

    def __init__(self, ratio: float) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)

    def new_trace(self) -> tuple[int, bool]:
        """Return the id of a new trace and whether it is recorded."""
        trace_id = random.getrandbits(128) or 1  # noqa: S311  (an identifier, no secret)
        return trace_id, trace_id & _LOW_64 < self._bound


def build_provider(
    settings: ServiceSettings, exporter: SpanExporter | None = None
) -> TracerProvider | None:
    """Return the provider of this process, or None when no OTLP endpoint is set.

    `exporter` replaces the OTLP exporter and needs no endpoint.
    """
    if exporter is None and not settings.otlp_endpoint:
        return None
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        endpoint = str(settings.otlp_endpoint).rstrip("/")
        if not endpoint.endswith("/v1/traces"):
            endpoint += "/v1/traces"
        exporter = OTLPSpanExporter(endpoint=endpoint)
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_ratio)),
        resource=Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": settings.version,
                "service.instance.id": settings.instance,
                "deployment.environment.name": settings.environment,
            }
        ),
        id_generator=_RequestIdGenerator(),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
