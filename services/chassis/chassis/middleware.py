"""The one middleware of a service: pure ASGI, outermost, fused so that it costs little.

Per request it settles, in this order: the request id, the trace (continued, new, or not recorded),
the deadline, the API version; then it runs the application; then it counts and logs the request.
Each concern lives in its own module (`request_id`, `telemetry`, `http.deadline`, `versions`,
`metrics`, `access_log`, `problems`); this one only puts them in a row. Probes and `/metrics` pass
untouched.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Protocol

from opentelemetry import context as otel_context
from opentelemetry.trace import format_span_id, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import context
from chassis.body_limit import has_no_body
from chassis.clock import Clock
from chassis.http.deadline import HEADER as DEADLINE_HEADER
from chassis.http.deadline import Deadline, parse_budget, reset_deadline, set_deadline
from chassis.lifecycle import Lifecycle
from chassis.metrics import RequestObserver
from chassis.problems import Problem, problem_response
from chassis.request_id import HEADER as REQUEST_ID
from chassis.request_id import request_id as read_request_id
from chassis.server_span import ServerSpan, ServerSpans
from chassis.telemetry import TRACEPARENT, RequestTrace, Sampling, incoming
from chassis.text_guard import check_url
from chassis.versions import HEADER as API_VERSION
from chassis.versions import RawHeaders, VersionTable

BUDGET = DEADLINE_HEADER.lower().encode("ascii")
EXPIRED_TYPE = "urn:slipway:problem:deadline-exceeded"
CLIENT_LEFT = 499

_TELEMETRY = "fastapi.telemetry"
_CLOSE = (b"connection", b"close")


class Labels(Protocol):
    """Finds the route label of a request that was served."""

    def __call__(self, scope: Scope) -> str:
        """Return the template of the route."""
        ...


class AccessLogger(Protocol):
    """Writes the line of a request."""

    def __call__(  # noqa: PLR0917  (a call by names costs more)
        self,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        trace_id: str,
        span_id: str | None,
    ) -> None:
        """Write it."""
        ...


class Exchange(RequestTrace):
    """One request and its answer, as the middleware sees them; also the `RequestContext`."""

    __slots__ = (
        "_began",
        "_middleware",
        "_send",
        "_span",
        "error",
        "extra_headers",
        "finished",
        "headers",
        "method",
        "path",
        "request_id",
        "scope",
        "status",
    )

    def __init__(
        self, middleware: RequestMiddleware, scope: Scope, send: Send, request_id: str
    ) -> None:
        self._began = perf_counter()
        self._middleware = middleware
        self._send = send
        self.scope = scope
        self.path: str = scope["path"]
        self.method: str = middleware.metrics.begin(scope["method"])
        self.request_id = request_id
        self.status = 0
        self.finished = False
        self.error: type[Exception] | None = None
        self.extra_headers: RawHeaders | None = None
        self.headers: RawHeaders | None = None
        self._span: ServerSpan | None = None

    def enter(self, headers: dict[bytes, bytes]) -> otel_context.Context:
        """Join the caller's trace, or begin one; return the OpenTelemetry context to run in."""
        middleware = self._middleware
        sampling = middleware.sampling_of(self.path)
        context = incoming(self.join(headers.get(TRACEPARENT), sampling), headers)
        if not self.recorded or middleware.spans is None:
            return context
        self._span = middleware.spans.start(self.method, self.take_trace_id(), context)
        return set_span_in_context(self._span, context)

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on, with the headers of the chassis added."""
        kind = message["type"]
        if kind == "http.response.body":
            await self._send(message)
            if not message.get("more_body", False) or (
                not self.finished and _is_endless(self.headers)
            ):
                self.finish()
            return
        if kind == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (REQUEST_ID, self.request_id.encode("ascii"))]
            if self.extra_headers is not None:
                headers += self.extra_headers
            if self._middleware.lifecycle.draining:
                headers.append(_CLOSE)
            message["headers"] = self.headers = headers
        await self._send(message)

    def finish(self) -> None:
        """Count and log the request, once.

        A stream of events counts when it begins: how long it stays open is no latency.
        """
        if self.finished:
            return
        self.finished = True
        seconds = perf_counter() - self._began
        middleware = self._middleware
        status = self.status or CLIENT_LEFT
        route = middleware.labels(self.scope)
        trace_id = self.trace_id
        span, spans, span_id = self._span, middleware.spans, None
        if span is None or spans is None:
            middleware.metrics.end(self.method, route, status, seconds, None)
        else:
            middleware.metrics.end(self.method, route, status, seconds, trace_id)
            spans.end(span, self.scope, route, self.status, self.error)
            span_id = format_span_id(span.get_span_context().span_id)
        if middleware.access_log is not None:
            middleware.access_log(
                self.method, self.path, route, status, seconds, self.request_id, trace_id, span_id
            )


class RequestMiddleware:
    """See the module. `timeout` is the default and the cap of a request's budget, in seconds.

    `app` serves everything; `short` is the shorter way for a request that has no body. `quiet` are
    paths that are neither counted, nor logged, nor traced; at those in `polled` no trace begins,
    but the caller's goes on.
    """

    def __init__(
        self,
        app: ASGIApp,
        short: ASGIApp,
        *,
        metrics: RequestObserver,
        labels: Labels,
        lifecycle: Lifecycle,
        clock: Clock,
        sampling: Sampling,
        spans: ServerSpans | None,
        timeout: float,
        access_log: AccessLogger | None = None,
        versions: VersionTable | None = None,
        quiet: frozenset[str] = frozenset(),
        polled: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._short = short
        self._clock = clock
        self._versions = versions
        self._quiet = quiet
        self._polled = polled
        self._sampling_of_polled = Sampling(0, records=sampling.records)
        self._timeout = timeout
        self.metrics = metrics
        self.labels = labels
        self.lifecycle = lifecycle
        self.access_log = access_log
        self.sampling = sampling
        self.spans = spans

    def sampling_of(self, path: str) -> Sampling:
        """Return the sampling rule of requests for `path`."""
        return self._sampling_of_polled if path in self._polled else self.sampling

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        if scope["path"] in self._quiet:
            scope[_TELEMETRY] = None
            await self._short(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = Exchange(self, scope, send, read_request_id(headers.get(REQUEST_ID)))
        budget = parse_budget(headers.get(BUDGET), cap=self._timeout)
        request_token = context.current.set(exchange)
        deadline = Deadline.after(budget, self._clock)
        deadline_token = set_deadline(deadline)
        span_token = otel_context.attach(exchange.enter(headers))
        scope[_TELEMETRY] = None  # FastAPI makes no span, nor does a mounted application
        app = self._short if has_no_body(scope, headers) else self._app
        try:
            problem = _expired() if budget <= 0 else check_url(scope)
            if problem is None and self._versions is not None:
                problem = self._choose_version(scope, headers, exchange)
            if problem is None:
                await app(scope, receive, exchange.send)
            else:
                await problem_response(problem, scope)(scope, receive, exchange.send)
        except asyncio.CancelledError:
            late = deadline.remaining(self._clock) <= 0
            if exchange.status or not (late or self.lifecycle.draining):
                raise
            # The drain or the request's time is over, and the server ends it: say so, do not cut.
            problem = _too_late() if late else _cut_off()
            await problem_response(problem, scope)(scope, receive, exchange.send)
        finally:
            exchange.finish()
            otel_context.detach(span_token)
            reset_deadline(deadline_token)
            context.current.reset(request_token)

    def _choose_version(
        self, scope: Scope, headers: dict[bytes, bytes], exchange: Exchange
    ) -> Problem | None:
        assert self._versions is not None
        try:
            exchange.extra_headers = self._versions.resolve(scope, headers.get(API_VERSION))
        except Problem as problem:
            return problem
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a WebSocket its version, trace and request id; it has no deadline and no count."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        held = _Socket(read_request_id(headers.get(REQUEST_ID)))
        span = held.join(headers.get(TRACEPARENT), self.sampling)
        unrecorded = None if held.recorded else incoming(span, headers)
        if self._versions is not None:
            try:
                self._versions.resolve(scope, headers.get(API_VERSION))
            except Problem:
                await send({"type": "websocket.close", "code": 1008, "reason": "unknown version"})
                return
        token = context.current.set(held)
        span_token = None if unrecorded is None else otel_context.attach(unrecorded)
        if unrecorded is not None:
            scope[_TELEMETRY] = None  # else FastAPI makes its span
        try:
            await self._app(scope, receive, send)
        finally:
            if span_token is not None:
                otel_context.detach(span_token)
            context.current.reset(token)


class _Socket(RequestTrace):
    """The context of one WebSocket."""

    __slots__ = ("error", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.error: type[Exception] | None = None


def _is_endless(headers: RawHeaders | None) -> bool:
    """Say whether an answer with these headers has no end of its own (server-sent events)."""
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in headers or ()
    )


def _cut_off() -> Problem:
    return Problem(
        503,
        detail="The service ended before the request was done; its outcome is not known.",
        headers={"Retry-After": "1"},
    )


def _too_late() -> Problem:
    return Problem(
        504,
        detail="The time was over before the request was done; its outcome is not known.",
        type=EXPIRED_TYPE,
    )


def _expired() -> Problem:
    return Problem(
        504,
        detail="The caller's budget was spent before the request arrived.",
        type=EXPIRED_TYPE,
    )
