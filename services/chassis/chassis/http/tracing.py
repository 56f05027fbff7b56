"""Client spans (OpenTelemetry semantic conventions for HTTP) and W3C trace context on calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

ERROR_STATUS = 400


class AttemptSpan:
    """What one attempt tells its span; does nothing without one."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        """Record the status of the answer."""
        if self._span is None:
            return
        self._span.set_attribute("http.response.status_code", status)
        if status >= ERROR_STATUS:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))

    def failed(self, reason: str) -> None:
        """Record why there is no answer."""
        if self._span is not None:
            self._span.set_attribute("error.type", reason)
            self._span.set_status(Status(StatusCode.ERROR, reason))


class ClientTracer:
    """Makes the spans of calls to one peer. Without a provider it only passes the context on."""

    def __init__(self, peer: str, provider: TracerProvider | None) -> None:
        self._peer = peer
        self._tracer = provider.get_tracer("chassis.http") if provider is not None else None
        self._propagator: TextMapPropagator = TraceContextTextMapPropagator()

    @contextmanager
    def attempt(
        self, method: str, url: str, headers: dict[str, str], resend: int
    ) -> Iterator[AttemptSpan]:
        """Span one attempt and put `traceparent` into `headers`. `url` must have no query."""
        parent = trace.get_current_span().get_span_context()
        unsampled = parent.is_valid and not parent.trace_flags.sampled
        if self._tracer is None or unsampled:
            self._propagator.inject(headers)
            yield AttemptSpan(None)
            return
        parts = urlsplit(url)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
            "url.full": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            "peer.service": self._peer,
        }
        if resend:
            attributes["http.request.resend_count"] = resend
        with self._tracer.start_as_current_span(
            method,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            self._propagator.inject(headers)
            yield AttemptSpan(span)
