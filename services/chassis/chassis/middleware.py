"""The one middleware of a service: pure ASGI, outermost, fused so that it costs little.

Per request it settles, in this order: the request id, the trace (continued, new, or not recorded),
the deadline, the API version; then it runs the application; then it counts and logs the request
and turns an exception that nothing handled into a problem. Each concern lives in its own module
(`request_id`, `telemetry`, `http.deadline`, `versions`, `metrics`, `access_log`, `problems`); this
one only puts them in a row. Probes and `/metrics` pass untouched.
"""

from __future__ import annotations

from time import perf_counter

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import context
from chassis.access_log import AccessLog
from chassis.lifecycle import Lifecycle
from chassis.metrics import RequestMetrics
from chassis.problems import Problem, problem_response
from chassis.request_id import HEADER as REQUEST_ID
from chassis.request_id import request_id as read_request_id
from chassis.routes import RouteLabels
from chassis.telemetry import TRACEPARENT, Sampling, UnsampledSpan, parse_traceparent
from chassis.versions import HEADER as API_VERSION
from chassis.versions import VersionTable

_EMPTY = otel_context.Context()
_TELEMETRY = "fastapi.telemetry"
_PROPAGATED = (b"tracestate", b"baggage")


class Exchange:
    """One request and its answer, as the middleware sees them; also the `RequestContext`."""

    __slots__ = (
        "_middleware",
        "_new_trace_id",
        "_send",
        "_span_id",
        "_started_at",
        "_trace_id",
        "extra_headers",
        "finished",
        "method",
        "path",
        "recorded",
        "request_id",
        "scope",
        "status",
    )

    def __init__(self, middleware: RequestMiddleware, scope: Scope, send: Send) -> None:
        self._middleware = middleware
        self._send = send
        self._started_at = perf_counter()
        self._trace_id: str | None = None
        self._new_trace_id = 0
        self._span_id: str | None = None
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.request_id = ""
        self.recorded = False
        self.status = 0
        self.finished = False
        self.extra_headers: list[tuple[bytes, bytes]] | None = None

    @property
    def trace_id(self) -> str:
        """The trace id, 32 hexadecimal digits."""
        if self._trace_id is None:
            self._trace_id = f"{self._new_trace_id:032x}"
        return self._trace_id

    def take_trace_id(self) -> int:
        """Return the id that the trace of this request begins with, once; then 0."""
        if not self.recorded or self._trace_id is not None:
            return 0
        self._trace_id = f"{self._new_trace_id:032x}"
        return self._new_trace_id

    def trace(self, header: bytes | None, sampling: Sampling | None) -> UnsampledSpan | None:
        """Continue or begin the trace; return the span to hold when it is not recorded here."""
        parent = parse_traceparent(header)
        if parent is not None:
            self._trace_id = parent.trace_id
            self.recorded = parent.sampled and sampling is not None
            if self.recorded:
                return None
            return UnsampledSpan(int(parent.trace_id, 16), int(parent.span_id, 16), parent.flags)
        self._new_trace_id, sampled = self._middleware.new_trace()
        self.recorded = sampled
        return None if sampled else UnsampledSpan(self._new_trace_id)

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on, with the headers of the chassis added."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (REQUEST_ID, self.request_id.encode("latin-1"))]
            if self.extra_headers is not None:
                headers += self.extra_headers
            if self._middleware.lifecycle.draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
            await self._send(message)
            return
        await self._send(message)
        if not message.get("more_body", False) and kind != "http.response.debug":
            if self.recorded:
                span = trace.get_current_span().get_span_context()
                self._span_id = trace.format_span_id(span.span_id)
            self.finish()

    def finish(self) -> None:
        """Count and log the request, once."""
        if self.finished:
            return
        self.finished = True
        seconds = perf_counter() - self._started_at
        middleware = self._middleware
        status = self.status or 499
        route = middleware.labels(self.scope)
        middleware.metrics.end(
            self.method, route, status, seconds, self.trace_id if self.recorded else None
        )
        if middleware.access_log is not None:
            middleware.access_log(
                method=self.method,
                path=self.path,
                route=route,
                status=status,
                seconds=seconds,
                request_id=self.request_id,
                trace_id=self.trace_id,
                span_id=self._span_id,
            )


class RequestMiddleware:
    """See the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: RequestMetrics,
        labels: RouteLabels,
        lifecycle: Lifecycle,
        access_log: AccessLog | None = None,
        versions: VersionTable | None = None,
        sampling: Sampling | None = None,
        new_traces: Sampling | None = None,
        quiet: frozenset[str] = frozenset(),
        timeout: float = 15.0,
    ) -> None:
        self._app = app
        self.metrics = metrics
        self.labels = labels
        self.lifecycle = lifecycle
        self.access_log = access_log
        self._versions = versions
        self._sampling = sampling
        self._quiet = quiet
        self._timeout = timeout
        self.new_trace = (sampling or new_traces or Sampling(0.0)).new_trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._quiet:
            scope[_TELEMETRY] = None
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = Exchange(self, scope, send)
        exchange.request_id = read_request_id(headers.get(REQUEST_ID))
        exchange.method = self.metrics.begin(exchange.method)
        span = exchange.trace(headers.get(TRACEPARENT), self._sampling)
        token = context.current.set(exchange)
        otel_token = None
        if span is not None:
            scope[_TELEMETRY] = None  # FastAPI then makes no span
            base = _EMPTY
            if any(name in headers for name in _PROPAGATED):
                base = propagate.extract(
                    {k.decode("latin-1"): v.decode("latin-1") for k, v in headers.items()}
                )
            otel_token = otel_context.attach(trace.set_span_in_context(span, base))
        try:
            if self._versions is not None:
                exchange.extra_headers = self._versions.resolve(scope, headers.get(API_VERSION))
            await self._app(scope, receive, exchange.send)
        except Problem as problem:
            await problem_response(problem, scope)(scope, receive, exchange.send)
        finally:
            exchange.finish()
            if otel_token is not None:
                otel_context.detach(otel_token)
            context.current.reset(token)
