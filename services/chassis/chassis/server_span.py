"""The server span of a recorded HTTP request, by OpenTelemetry's semantic conventions for HTTP.

FastAPI can make it too (and does so for WebSockets), but there it costs more than all the rest of
a cheap request: it wraps the long middleware stack, and the SDK's span decides on sampling once
more and checks each attribute twice. `ServerSpan` is the same to the code inside of the request
and to the exporter; what is known of the request is written when it is over. The names and values
are FastAPI's, but for the query of the URL, which may hold personal data and is left out.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Mapping
from importlib import metadata
from time import time_ns
from urllib.parse import urlsplit

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.util.types import Attributes, AttributeValue
from starlette.types import Scope

from chassis.metrics import METHODS, UNMATCHED

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
LIMIT = 128
"""Attributes, events and links kept of one span: the SDK's own default."""

_PORTS = {"http": 80, "https": 443}
_HOSTS = 256  # different Host headers remembered
_NEW = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_UNSET = Status()
_FAILED = Status(StatusCode.ERROR)
_SERVER_ERROR = 500


def exception_type(kind: type[BaseException]) -> str:
    """Return the name of an exception's class as the conventions want it."""
    plain = kind.__module__ == "builtins"
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


class ServerSpan(Span):
    """The span of one request; written from one task. Times are nanoseconds since 1970."""

    __slots__ = (
        "_attributes", "_context", "_end_time", "_events", "_links", "_maker", "_name", "_parent",
        "_start_time", "_status",
    )  # fmt: skip

    def __init__(
        self, maker: ServerSpans, name: str, context: SpanContext, parent: SpanContext | None
    ) -> None:
        self._maker = maker
        self._name = name
        self._context = context
        self._parent = parent
        self._start_time = time_ns()
        self._end_time = 0
        self._attributes: BoundedAttributes | None = None
        self._events: list[Event] = []
        self._links: list[Link] = []
        self._status = _UNSET

    def get_span_context(self) -> SpanContext:
        """Return the ids of the span."""
        return self._context

    def is_recording(self) -> bool:
        """Say whether the span has not ended."""
        return not self._end_time

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes; what is no valid value is dropped with a warning."""
        for name, value in attributes.items():
            self.set_attribute(name, value)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute; what is no valid value is dropped with a warning."""
        if self._attributes is None:
            self._attributes = BoundedAttributes(LIMIT, immutable=False)
        if not self._end_time:
            self._attributes[key] = value

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event; beyond the limit it is dropped."""
        if not self._end_time and len(self._events) < LIMIT:
            self._events.append(Event(name, BoundedAttributes(LIMIT, attributes), timestamp))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a link to another span; beyond the limit it is dropped."""
        if not self._end_time and len(self._links) < LIMIT:
            self._links.append(Link(context, BoundedAttributes(LIMIT, attributes)))

    def update_name(self, name: str) -> None:
        """Rename the span; the route's name takes its place when the request ends."""
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; OK is final, as the specification has it."""
        new = Status(status, description) if isinstance(status, StatusCode) else status
        if self._status.status_code is not StatusCode.OK and not new.is_unset:
            self._status = new

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an event that tells `exception`."""
        told: dict[str, AttributeValue] = {
            "exception.type": exception_type(type(exception)),
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """End the span and hand it to the exporter's queue."""
        self.finish({}, self._name, end_time)

    def finish(
        self, known: dict[str, AttributeValue], name: str, end_time: int | None = None
    ) -> None:
        """End the span under `name`, with what is `known` of the request as its attributes."""
        if self._end_time:
            return
        self._end_time = end_time or time_ns()
        self._maker.processor.on_end(
            ReadableSpan(
                name,
                self._context,
                self._parent,
                self._maker.resource,
                known if self._attributes is None else {**self._attributes, **known},
                self._events,
                self._links,
                SpanKind.SERVER,
                status=self._status,
                start_time=self._start_time,
                end_time=self._end_time,
                instrumentation_scope=self._maker.scope,
            )
        )


class ServerSpans:
    """Starts and ends the server spans of one service; they are exported through `processor`."""

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self.processor = processor
        self.resource = resource
        self.scope = InstrumentationScope(
            "chassis", metadata.version("slipway-chassis"), SCHEMA_URL
        )
        self._hosts: dict[tuple[bytes, str], dict[str, AttributeValue]] = {}

    def start(self, method: str, trace_id: int, arrived: Context) -> ServerSpan:
        """Return the span of a request that `arrived` in its caller's trace or begins `trace_id`.

        That it is recorded was decided before.
        """
        parent = get_current_span(arrived).get_span_context()
        span_id = random.getrandbits(64) or 1
        if parent.is_valid:
            context = SpanContext(
                parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state
            )
            return ServerSpan(self, method, context, parent)
        return ServerSpan(self, method, SpanContext(trace_id, span_id, False, _NEW), None)

    def end(
        self,
        span: ServerSpan,
        scope: Scope,
        route: str,
        status: int,
        error: type[BaseException] | None,
    ) -> None:
        """End the span of an answered request.

        `route` is its template, `status` 0 when it got no answer, `error` the class of the
        exception that nothing handled.
        """
        method: str = scope["method"]
        scheme: str = scope.get("scheme", "http")
        known: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.scheme": scheme,
            "url.path": scope["path"],
        }
        name = method
        if method not in METHODS:
            known["http.request.method_original"] = method
            known["http.request.method"] = "_OTHER"
            name = "HTTP"
        known.update(self._server(scope, scheme))
        if route != UNMATCHED:
            known["http.route"] = route
            name = f"{name} {route}"
        if status:
            known["http.response.status_code"] = status
        if status >= _SERVER_ERROR or not status:
            known["error.type"] = (
                exception_type(error) if error else str(status or "incomplete_response")
            )
            span.set_status(_FAILED)
        span.finish(known, name)

    def _server(self, scope: Scope, scheme: str) -> dict[str, AttributeValue]:
        """Return the address that the client asked; parsed once per Host header."""
        host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                break
        known = self._hosts.get((host, scheme))
        if known is None:
            known = _address(host, scheme)
            if len(self._hosts) < _HOSTS:  # a client chooses the header: no more than this
                self._hosts[host, scheme] = known
        return known


def _address(host: bytes, scheme: str) -> dict[str, AttributeValue]:
    try:
        parts = urlsplit(f"//{host.decode('latin-1')}")
        address, port = parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError:
        return {}
    if not address or parts.username is not None or parts.path or parts.query or parts.fragment:
        return {}
    return {"server.address": address, **({"server.port": port} if port else {})}
