"""The span of a request: what code inside of it may do with it, and what is exported."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from chassis import ServiceSettings, create_app
from chassis.server_span import LIMIT, ServerSpan

router = APIRouter()
OTHER = SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1))


@router.get("/rich/{name}")
async def rich(name: str) -> bool:
    """Use everything that the API of a span offers."""
    span = trace.get_current_span()
    span.set_attribute("app.name", name)
    span.set_attributes({"app.number": 3, "app.list": ["a", "b"], "url.path": "/forged"})
    span.add_event("first", {"step": 1}, timestamp=5)
    span.add_link(OTHER, {"why": "batch"})
    try:
        raise KeyError("gone")
    except KeyError as exc:
        span.record_exception(exc, {"extra": True})
    span.update_name("ignored: the route names the span")
    return isinstance(span, ServerSpan)


@router.get("/status/{code}")
async def status(code: int) -> Response:
    """Answer as told."""
    return Response(status_code=code)


@router.get("/ok-at-last")
async def ok_at_last() -> None:
    """A status of OK is final."""
    span = trace.get_current_span()
    span.set_status(StatusCode.OK)
    span.set_status(Status(StatusCode.ERROR, "too late"))


@router.post("/ended")
async def ended() -> bool:
    """End the span by hand and go on."""
    span = trace.get_current_span()
    span.end()
    span.set_attribute("late", value=True)
    span.add_event("late")
    span.add_link(OTHER)
    return span.is_recording()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def app(exporter: InMemorySpanExporter) -> FastAPI:
    settings = ServiceSettings(
        service_name="demo", environment="test", access_log=False, trace_sample_ratio=1.0
    )
    return create_app(
        settings, title="Demo", description="", routers=[router], span_exporter=exporter
    )


def only_span(app: FastAPI, exporter: InMemorySpanExporter) -> ReadableSpan:
    """Return the one span, after showing that the OTLP encoder takes it."""
    app.state.runtime.tracer_provider.force_flush()
    [span] = exporter.get_finished_spans()
    [resource] = encode_spans([span]).resource_spans
    assert resource.scope_spans[0].spans[0].name == span.name
    return span


async def test_handlers_write_to_it_as_to_any_span(
    app: FastAPI, exporter: InMemorySpanExporter, app_client: Any
) -> None:
    async with app_client(app) as client:
        assert (await client.get("/rich/x?token=t0p")).json() is True
        span = only_span(app, exporter)
    attributes = dict(span.attributes or {})
    assert attributes.items() >= {"app.name": "x", "app.number": 3, "app.list": ("a", "b")}.items()
    assert attributes["url.path"] == "/rich/x"
    assert attributes["http.request.method"] == "GET"
    assert "url.query" not in attributes
    assert span.name == "GET /rich/{name}"
    first, failed = span.events
    assert (first.name, first.timestamp, dict(first.attributes or {})) == ("first", 5, {"step": 1})
    assert failed.name == "exception"
    assert (failed.attributes or {})["exception.type"] == "KeyError"
    assert "test_server_span" in str((failed.attributes or {})["exception.stacktrace"])
    assert (failed.attributes or {})["extra"] is True
    [link] = span.links
    assert (link.context, dict(link.attributes or {})) == (OTHER, {"why": "batch"})
    assert span.status.is_unset
    assert span.end_time is not None
    assert span.start_time is not None
    assert 0 < span.end_time - span.start_time < 60e9


@pytest.mark.parametrize(
    ("code", "error"), [(204, None), (404, None), (499, None), (500, "500"), (503, "503")]
)
async def test_a_server_error_fails_the_span_and_a_clients_does_not(
    app: FastAPI, exporter: InMemorySpanExporter, app_client: Any, code: int, error: str | None
) -> None:
    async with app_client(app) as client:
        assert (await client.get(f"/status/{code}")).status_code == code
        span = only_span(app, exporter)
    attributes = span.attributes or {}
    assert attributes["http.response.status_code"] == code
    assert attributes.get("error.type") == error
    assert (span.status.status_code is StatusCode.ERROR) == (error is not None)


async def test_ok_is_final(app: FastAPI, exporter: InMemorySpanExporter, app_client: Any) -> None:
    async with app_client(app) as client:
        await client.get("/ok-at-last")
        assert only_span(app, exporter).status.status_code is StatusCode.OK


async def test_a_span_ended_by_hand_is_exported_once_and_changed_no_more(
    app: FastAPI, exporter: InMemorySpanExporter, app_client: Any
) -> None:
    async with app_client(app) as client:
        assert (await client.post("/ended")).json() is False
        span = only_span(app, exporter)
    assert "late" not in (span.attributes or {})
    assert not span.events
    assert not span.links


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("shop.example:8443", "shop.example", 8443),
        ("shop.example", "shop.example", 80),
        ("[::1]:81", "::1", 81),
        ("user@shop.example", None, None),
        ("shop.example:port", None, None),
        ("a/b", None, None),
    ],
)
async def test_the_address_is_the_one_that_the_client_asked(  # noqa: PLR0917
    app: FastAPI,
    exporter: InMemorySpanExporter,
    app_client: Any,
    host: str,
    address: str | None,
    port: int | None,
) -> None:
    async with app_client(app) as client:
        await client.get("/status/204", headers={"host": host})
        attributes = only_span(app, exporter).attributes or {}
    assert attributes.get("server.address") == address
    assert attributes.get("server.port") == port


async def test_an_unknown_path_and_method_make_no_new_names(
    app: FastAPI, exporter: InMemorySpanExporter, app_client: Any
) -> None:
    """Span names are grouped by the reader: they stay few whatever a client sends."""
    async with app_client(app) as client:
        await client.request("BREW", "/pot/1234")
        span = only_span(app, exporter)
    attributes = span.attributes or {}
    assert span.name == "HTTP"
    assert attributes["http.request.method"] == "_OTHER"
    assert attributes["http.request.method_original"] == "BREW"
    assert "http.route" not in attributes


def test_it_keeps_no_more_than_the_limit() -> None:
    class Maker:
        processor: Any = None

    span = ServerSpan(Maker(), "x", OTHER, None)  # type: ignore[arg-type]
    for number in range(LIMIT + 5):
        span.add_event(str(number))
        span.add_link(OTHER)
        span.set_attribute(f"a{number}", number)
    assert len(span._events) == len(span._links) == LIMIT
    assert span._attributes is not None
    assert len(span._attributes) == LIMIT
