"""Traces: what is recorded, what is continued, and what an unrecorded request passes on."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, TraceFlags

from chassis import ApiVersion, RuntimeDep, ServiceSettings, context, create_app
from chassis.telemetry import Sampling, build_provider, parse_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
router = APIRouter()


@router.get("/carrier/{name}")
async def carrier(name: str, runtime: RuntimeDep) -> dict[str, Any]:
    """Tell what a call to a peer would carry, and what the logs would say."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if runtime.tracer_provider is not None:
        tracer = runtime.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("inside"):
            pass
    span = trace.get_current_span()
    return {
        "carrier": carrier,
        "trace_id": context.trace_id(),
        "span_trace_id": trace.format_trace_id(span.get_span_context().trace_id),
        "span_id": trace.format_span_id(span.get_span_context().span_id),
        "recording": span.is_recording(),
    }


@router.get("/boom")
async def boom() -> None:
    raise RuntimeError("no")


def make(exporter: InMemorySpanExporter | None, ratio: float = 0.0) -> FastAPI:
    settings = ServiceSettings(
        service_name="demo", environment="test", version="1.2.3", instance="pod-1",
        access_log=False, trace_sample_ratio=ratio,
    )  # fmt: skip
    return create_app(
        settings,
        title="Demo",
        description="",
        versions=[ApiVersion("v1", router)],
        polled=["/v1/carrier/polled"],
        span_exporter=exporter,
    )


def exported(app: FastAPI, exporter: InMemorySpanExporter) -> list[Any]:
    """Return the finished spans, after a flush."""
    app.state.runtime.tracer_provider.force_flush()
    return list(exporter.get_finished_spans())


def test_without_an_endpoint_there_is_no_provider() -> None:
    assert build_provider(ServiceSettings(service_name="demo", environment="test")) is None


async def test_no_global_provider_is_set(app_client: Any) -> None:
    async with app_client(make(InMemorySpanExporter(), 1.0)) as client:
        await client.get("/v1/boom")
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_recorded_parent_is_always_continued(app_client: Any, ratio: float) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, ratio)
    async with app_client(app) as client:
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
        answer = (await client.get("/v1/carrier/x", headers=header)).json()
        spans = exported(app, exporter)
    assert answer["recording"] is True
    assert answer["trace_id"] == answer["span_trace_id"] == TRACE
    assert answer["carrier"]["traceparent"] == f"00-{TRACE}-{answer['span_id']}-01"
    assert answer["carrier"]["tracestate"] == "vendor=1"
    server = next(span for span in spans if span.kind is SpanKind.SERVER)
    assert trace.format_span_id(server.parent.span_id) == SPAN
    assert trace.format_trace_id(server.context.trace_id) == TRACE
    assert server.name == "GET /v1/carrier/{name}"
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["http.route"] == "/v1/carrier/{name}"
    assert {span.name for span in spans} == {"GET /v1/carrier/{name}", "inside"}
    assert (
        dict(server.resource.attributes).items()
        >= {
            "service.name": "demo",
            "service.version": "1.2.3",
            "service.instance.id": "pod-1",
            "deployment.environment.name": "test",
        }.items()
    )


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_an_unrecorded_parent_goes_on_unrecorded(app_client: Any, ratio: float) -> None:
    """The caller decided: the trace goes on to peers with flag 00 and no span is made."""
    exporter = InMemorySpanExporter()
    app = make(exporter, ratio)
    async with app_client(app) as client:
        header = {
            "traceparent": f"00-{TRACE}-{SPAN}-00",
            "tracestate": "vendor=1",
            "baggage": "tenant=7",
        }
        answer = (await client.get("/v1/carrier/x", headers=header)).json()
        assert exported(app, exporter) == []
    assert answer["trace_id"] == TRACE
    assert answer["recording"] is False
    assert answer["carrier"] == {
        "traceparent": f"00-{TRACE}-{SPAN}-00",
        "tracestate": "vendor=1",
        "baggage": "tenant=7",
    }


async def test_a_new_unrecorded_trace_has_one_id_everywhere(app_client: Any) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, 0.0)
    async with app_client(app) as client:
        answers = [(await client.get("/v1/carrier/x")).json() for _ in range(20)]
        assert exported(app, exporter) == []
    for answer in answers:
        assert answer["trace_id"] == answer["span_trace_id"]
        assert answer["carrier"]["traceparent"] == f"00-{answer['trace_id']}-{answer['span_id']}-00"
    assert len({answer["trace_id"] for answer in answers}) == 20


async def test_a_new_recorded_trace_has_the_id_it_was_decided_on(app_client: Any) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, 1.0)
    async with app_client(app) as client:
        response = await client.get("/v1/carrier/x")
        answer = response.json()
        spans = exported(app, exporter)
    assert {trace.format_trace_id(span.context.trace_id) for span in spans} == {answer["trace_id"]}
    flags = int(answer["carrier"]["traceparent"][-2:], 16)
    assert flags & TraceFlags.SAMPLED


async def test_the_ratio_holds_and_both_decisions_agree(app_client: Any) -> None:
    """What is decided up front is exactly what the SDK's sampler says of the same trace id."""
    exporter = InMemorySpanExporter()
    app = make(exporter, 0.3)
    async with app_client(app) as client:
        answers = [(await client.get("/v1/carrier/x")).json() for _ in range(400)]
        spans = exported(app, exporter)
    recorded = {answer["trace_id"] for answer in answers if answer["recording"]}
    servers = [span for span in spans if span.kind is SpanKind.SERVER]
    assert {trace.format_trace_id(span.context.trace_id) for span in servers} == recorded
    assert len(servers) == len(recorded)
    assert 60 <= len(recorded) <= 190
    sampler = app.state.runtime.tracer_provider.sampler
    for answer in answers:
        decision = sampler.should_sample(None, int(answer["trace_id"], 16), "x").decision
        assert decision.is_sampled() == answer["recording"]


async def test_without_a_provider_the_context_passes_through(app_client: Any) -> None:
    """Telemetry off: the caller's trace still reaches the peers, and the logs know its id."""
    async with app_client(make(None)) as client:
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        answer = (await client.get("/v1/carrier/x", headers=header)).json()
        assert answer["carrier"]["traceparent"] == f"00-{TRACE}-{SPAN}-01"
        assert answer["trace_id"] == TRACE
        answer = (await client.get("/v1/carrier/x")).json()
        assert answer["carrier"]["traceparent"].startswith(f"00-{answer['trace_id']}-")


async def test_probes_and_metrics_make_no_spans(app_client: Any) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, 1.0)
    async with app_client(app) as client:
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        for path in ("/livez", "/readyz", "/startupz", "/metrics"):
            assert (await client.get(path, headers=header)).status_code == 200
        assert exported(app, exporter) == []


async def test_a_polled_path_begins_no_trace_but_goes_on_in_one(app_client: Any) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, 1.0)
    async with app_client(app) as client:
        answer = (await client.get("/v1/carrier/polled")).json()
        assert answer["carrier"]["traceparent"].endswith("-00"), "nor does what it calls"
        assert exported(app, exporter) == []
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        await client.get("/v1/carrier/polled", headers=header)
        [server] = [each for each in exported(app, exporter) if each.kind is SpanKind.SERVER]
    assert trace.format_trace_id(server.context.trace_id) == TRACE


async def test_a_failed_request_is_a_failed_span_with_its_status(app_client: Any) -> None:
    exporter = InMemorySpanExporter()
    app = make(exporter, 1.0)
    async with app_client(app) as client:
        response = await client.get("/v1/boom")
        assert response.status_code == 500
        [span] = exported(app, exporter)
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "RuntimeError"
    assert not span.status.is_ok
    assert response.json()["trace_id"] == trace.format_trace_id(span.context.trace_id)


async def test_spans_are_flushed_when_the_service_ends(app_client: Any) -> None:
    """Nothing waits in a batch once the lifespan is over."""

    class Keeping(InMemorySpanExporter):
        def shutdown(self) -> None:
            self.ended = True

    exporter = Keeping()
    async with app_client(make(exporter, 1.0)) as client:
        await client.get("/v1/carrier/x")
    assert len(exporter.get_finished_spans()) == 2
    assert exporter.ended


async def test_a_broken_exporter_harms_no_request(app_client: Any) -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.FAILURE

    app = make(Broken(), 1.0)
    async with app_client(app) as client:
        assert (await client.get("/v1/carrier/x")).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None, b"", b"00", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_no_parent(header: bytes | None) -> None:
    """W3C Trace Context: begin a new trace rather than continue a broken one."""
    assert parse_traceparent(header) is None


def test_a_later_version_of_traceparent_is_read() -> None:
    parent = parse_traceparent(f"01-{TRACE}-{SPAN}-01-more".encode())
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.sampled) == (TRACE, SPAN, True)


def test_sampling_bounds() -> None:
    assert all(Sampling(1.0).new_trace()[1] for _ in range(200))
    assert not any(Sampling(0.0).new_trace()[1] for _ in range(200))
    assert not any(Sampling(1.0, records=False).new_trace()[1] for _ in range(200))
