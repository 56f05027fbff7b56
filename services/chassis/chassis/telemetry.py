"""Traces: OpenTelemetry, W3C context, OTLP over HTTP; no provider at all without an endpoint.

Whether a request is sampled is decided before its span (`server_span`) is made, from its
`traceparent` or, for a new trace, from the random trace id (exactly the rule of
`ParentBased(TraceIdRatioBased)`), so that an unsampled request pays for no span. It still has a
trace id for its logs and passes an unsampled context (flags 00) on to its peers.

Nothing here is global: the provider belongs to the runtime.
"""

from __future__ import annotations

import contextvars
import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from chassis import context
from chassis.settings import ServiceSettings

EXPORT_SECONDS = 3.0

TRACEPARENT = b"traceparent"

_traceparent = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
).fullmatch
_LENGTH_00 = 55
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
    if len(header) > _LENGTH_00 and header.startswith(b"00"):
        return None  # only later versions may say more
    trace_id, span_id, flags = match.groups()
    return Parent(trace_id.decode(), span_id.decode(), int(flags, 16))


class PassedSpan(NonRecordingSpan):
    """A span that is not recorded here; its context is made on first use.

    It stands for the caller's span (`span_id`) or, in a new trace, for one that nobody records.
    """

    def __init__(
        self, trace_id: int, span_id: int = 0, flags: int = 0, state: TraceState | None = None
    ) -> None:
        self._ids = (trace_id, span_id, flags, state)
        self._made: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Return the context that peers are given."""
        if self._made is None:
            trace_id, span_id, flags, state = self._ids
            self._made = SpanContext(
                trace_id,
                span_id or random.getrandbits(64) or 1,
                is_remote=bool(span_id),
                trace_flags=TraceFlags(flags),
                trace_state=state,
            )
        return self._made

    def with_state(self, state: TraceState) -> PassedSpan:
        """Return the same span with the caller's `tracestate`."""
        trace_id, span_id, flags, _ = self._ids
        return PassedSpan(trace_id, span_id, flags, state)

    def __repr__(self) -> str:
        return f"PassedSpan({self.get_span_context()!r})"


class Sampling:
    """The sampling rule: a recorded parent is always continued, new traces are taken by ratio.

    Without `records`, nothing is recorded here and traces only pass through.
    """

    __slots__ = ("_bound", "records")

    def __init__(self, ratio: float, *, records: bool = True) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio) if records else 0
        self.records = records

    def new_trace(self) -> tuple[int, bool]:
        """Return the id of a new trace and whether it is recorded."""
        trace_id = random.getrandbits(128) or 1
        return trace_id, trace_id & _LOW_64 < self._bound


class RequestTrace:
    """The trace of one request: continued from its caller or new, recorded here or not."""

    __slots__ = ("_new_trace_id", "_trace_id", "recorded")

    _new_trace_id: int
    _trace_id: str | None
    recorded: bool

    @property
    def trace_id(self) -> str:
        """The trace id, 32 hexadecimal digits."""
        if self._trace_id is None:
            self._trace_id = f"{self._new_trace_id:032x}"
        return self._trace_id

    def join(self, header: bytes | None, sampling: Sampling) -> PassedSpan | None:
        """Continue the trace of `header` or begin one.

        Returns what the request is inside of: the caller's span or, in a new trace, one that
        nobody records; None for a new trace that is recorded.
        """
        parent = None if header is None else parse_traceparent(header)
        if parent is None:
            new, self.recorded = sampling.new_trace()
            self._new_trace_id = new
            if not self.recorded:
                self._trace_id = None
                return PassedSpan(new)
            self._trace_id = f"{new:032x}"
            return None
        self._new_trace_id = 0
        self._trace_id = parent.trace_id
        self.recorded = parent.sampled and sampling.records
        return PassedSpan(int(parent.trace_id, 16), int(parent.span_id, 16), parent.flags)

    def take_trace_id(self) -> int:
        """Return, once, the id that the recorded trace of this request begins with; else 0."""
        if not self.recorded:
            return 0
        taken, self._new_trace_id = self._new_trace_id, 0
        return taken


# The key of the current span in an OpenTelemetry context, found by the public way to set it.
_SPAN = next(iter(set_span_in_context(INVALID_SPAN, Context())))


def incoming(span: PassedSpan | None, headers: Mapping[bytes, bytes]) -> Context:
    """Return the OpenTelemetry context that a request arrives in, with `span` as the current one.

    `tracestate` and `baggage`, which are rare, are taken over from the caller.
    """
    if b"tracestate" not in headers and b"baggage" not in headers:
        return Context() if span is None else Context({_SPAN: span})
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    found = propagate.extract(carrier, Context())
    if span is None:
        return found
    state = get_current_span(found).get_span_context().trace_state
    return Context({**found, _SPAN: span.with_state(state)})


def shared_work(*, waited_for: bool) -> contextvars.Context:
    """Return the context of work that serves everybody, not only the request that caused it.

    Nothing of that request is in it but, if it waits for the work, its trace. Else the work is part
    of no trace that anybody records.
    """
    span = get_current_span() if waited_for else INVALID_SPAN
    if not span.get_span_context().is_valid:
        span = PassedSpan(random.getrandbits(128) or 1)
    made = contextvars.Context()
    made.run(otel_context.attach, set_span_in_context(span, Context()))
    return made


class _RequestIdGenerator(RandomIdGenerator):
    """Gives the root span of a WebSocket the trace id that its sampling was decided on."""

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        request: object = context.current.get()
        taken = request.take_trace_id() if isinstance(request, RequestTrace) else 0
        return taken or super().generate_trace_id()


class ServiceTracerProvider(TracerProvider):
    """A tracer provider that knows where its spans go."""

    def __init__(self, processor: SpanProcessor, **options: Any) -> None:
        super().__init__(**options)
        self.processor = processor
        self.add_span_processor(processor)


def build_provider(
    settings: ServiceSettings, exporter: SpanExporter | None = None
) -> ServiceTracerProvider | None:
    """Return the provider of this process, or None when no OTLP endpoint is set.

    `exporter` replaces the OTLP exporter and needs no endpoint.
    """
    if exporter is None:
        if not settings.otlp_endpoint:
            return None
        # Slow to import, and off by default.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        endpoint = settings.otlp_endpoint.rstrip("/").removesuffix("/v1/traces")
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=EXPORT_SECONDS)
    return ServiceTracerProvider(
        # Encoding holds the interpreter lock: small batches keep requests waiting less long.
        BatchSpanProcessor(exporter, max_export_batch_size=128),
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
