"""Client spans and W3C trace context."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from chassis.http import PeerFault
from chassis.http.peers import Peers
from chassis.settings import ServiceSettings
from chassis.telemetry import PassedSpan
from chassis.testing import FakeClock


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
async def peers(make_settings, provider):
    settings = make_settings(ServiceSettings)
    clock = FakeClock(auto=True)
    peers = Peers(settings, clock=clock, registry=CollectorRegistry(), tracer_provider=provider)
    yield peers
    await peers.close()


async def test_a_call_is_a_client_span_and_its_context_goes_along(
    peers, provider, exporter, faulty_peer
):
    """The peer continues the trace of the caller, below the span of this attempt."""
    peer = peers.get("items", faulty_peer.url)
    with provider.get_tracer("test").start_as_current_span("request") as parent:
        await peer.get("/v1/items/7", params={"token": "secret"}, auth=False)
    span = exporter.get_finished_spans()[0]
    assert (span.name, span.kind) == ("GET", SpanKind.CLIENT)
    assert span.parent.span_id == parent.get_span_context().span_id
    attributes = dict(span.attributes)
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.response.status_code"] == 200
    assert attributes["server.port"] == faulty_peer.port
    assert attributes["url.full"] == f"{faulty_peer.url}/v1/items/7", "no query in a trace"
    assert attributes["peer.service"] == "items"
    context = span.get_span_context()
    version, trace_id, span_id, flags = faulty_peer.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id) == ("00", f"{context.trace_id:032x}")
    assert span_id == f"{context.span_id:016x}"
    assert int(flags, 16) & 1, "sampled"


async def test_each_attempt_has_its_span(peers, exporter, faulty_peer):
    """Retries show as spans with a count; errors as error spans, without exception events."""
    faulty_peer.respond(503, times=1)
    await peers.get("items", faulty_peer.url).get("/", auth=False)
    first, second = exporter.get_finished_spans()
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes["error.type"] == "503"
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert not first.events


async def test_a_call_without_an_answer_says_why(peers, exporter, faulty_peer):
    """The kind of failure is the error type."""
    faulty_peer.respond(500)
    with pytest.raises(PeerFault):
        await peers.get("items", faulty_peer.url).get("/", auth=False)
    faulty_peer.reset()
    with pytest.raises(Exception, match="items"):
        await peers.get("items").post("/", auth=False)
    assert [span.attributes["error.type"] for span in exporter.get_finished_spans()] == [
        "500",
        "reset",
    ]


async def test_an_unsampled_request_makes_no_span_but_passes_its_context(
    peers, exporter, faulty_peer
):
    """Flags 00 go on to the peer, so that it does not sample either."""
    with trace.use_span(PassedSpan(0xABC)):
        await peers.get("items", faulty_peer.url).get("/", auth=False)
    assert exporter.get_finished_spans() == ()
    sent = faulty_peer.requests[0].headers["traceparent"]
    assert sent.startswith(f"00-{0xABC:032x}-")
    assert sent.endswith("-00")


async def test_without_a_provider_the_context_still_goes_along(make_settings, faulty_peer):
    """A service that exports nothing does not break the trace of others."""
    peers = Peers(
        make_settings(ServiceSettings), clock=FakeClock(auto=True), registry=CollectorRegistry()
    )
    with trace.use_span(PassedSpan(0xDEF, 0x1, 1)):
        await peers.get("items", faulty_peer.url).get("/", auth=False)
    await peers.close()
    sent = faulty_peer.requests[0].headers["traceparent"]
    assert sent == f"00-{0xDEF:032x}-{1:016x}-01"


async def test_one_name_has_one_address(peers, faulty_peer):
    """Asking for a peer at two addresses, or at none, is a mistake that is told."""
    assert peers.get("items", faulty_peer.url) is peers.get("items", faulty_peer.url + "/")
    with pytest.raises(RuntimeError, match="already"):
        peers.get("items", "http://elsewhere")
    with pytest.raises(RuntimeError, match="no stock_room_url"):
        peers.get("stock-room")
