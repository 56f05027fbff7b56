"""The development trace view: what it takes, what it keeps, and how it shows a trace."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from starlette.testclient import TestClient

from scripts.local.ports import pick_free
from scripts.local.procs import end_with_parent
from scripts.traces import page, spans
from scripts.traces.server import create_app
from scripts.traces.spans import BadExportError, Span, decode
from scripts.traces.store import Store
from scripts.traces.terminal import show
from scripts.traces.tree import rows
from tests.local.platform_handle import ROOT, eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(span_id: str, parent_id: str | None = None, **more: object) -> Span:
    """A span of 10 ms that begins as many ms after zero as its id says."""
    start = int(span_id, 16) * 1_000_000
    values = {
        "trace_id": TRACE, "service": "shop", "name": f"do {span_id}", "kind": "server",
        "start": start, "end": start + 10_000_000, **more,
    }  # fmt: skip
    return Span(span_id=span_id, parent_id=parent_id, **values)  # type: ignore[arg-type]


def message(trace_id: bytes = b"t" * 16, **more: object) -> ExportTraceServiceRequest:
    """An export of one span."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    one = of_resource.scope_spans.add().spans.add(
        trace_id=trace_id, span_id=b"s" * 8, name="work", kind=2, start_time_unix_nano=5,
        end_time_unix_nano=9, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    one.attributes.add(key="n").value.int_value = 3
    one.attributes.add(key="list").value.array_value.values.add().string_value = "a"
    return request


@pytest.fixture
def client() -> Iterator[TestClient]:
    """The view over a small store."""
    with TestClient(create_app(Store(traces=3)), base_url="http://localhost") as client:
        yield client


def post(client: TestClient, body: bytes, **headers: str) -> int:
    sent = {"Content-Type": "application/x-protobuf", **headers}
    return client.post("/v1/traces", content=body, headers=sent).status_code


def test_an_export_is_read() -> None:
    """Ids, parents, status, attributes of several types, and links."""
    request = message(parent_span_id=b"p" * 8, status={"code": 2, "message": "no"})
    request.resource_spans[0].scope_spans[0].spans[0].links.add(
        trace_id=b"u" * 16, span_id=b"v" * 8
    )
    [found] = decode(request.SerializeToString())
    assert found == Span(
        trace_id=(b"t" * 16).hex(), span_id=(b"s" * 8).hex(), parent_id=(b"p" * 8).hex(),
        service="shop", name="work", kind="server", start=5, end=9, error=True, message="no",
        attributes={"n": "3", "list": "a"}, links=(((b"u" * 16).hex(), (b"v" * 8).hex()),),
    )  # fmt: skip
    assert decode(gzip.compress(request.SerializeToString()), "gzip") == [found]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"\xff\xff", ""), (b"no gzip", "gzip"), (gzip.compress(b"x" * 99)[:20], "gzip"), (b"", "br")],
    ids=["no protobuf", "no gzip", "cut short", "unknown encoding"],
)
def test_what_is_no_export_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(BadExportError):
        decode(body, encoding)


def test_a_bomb_is_not_unpacked(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a large body nor a small one that would grow large takes the memory."""
    packed = gzip.compress(b"\0" * (spans.MAX_BYTES + 1))
    assert post(client, packed, **{"Content-Encoding": "gzip"}) == 400
    monkeypatch.setattr("scripts.traces.server.MAX_BYTES", 100)
    assert post(client, b"x" * 101) == 413


def test_texts_are_bounded() -> None:
    request = message()
    pair = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="long")
    pair.value.string_value = "x" * 10_000
    for number in range(100):
        request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key=f"k{number}")
    [found] = decode(request.SerializeToString())
    assert len(found.attributes["long"]) == spans.MAX_TEXT
    assert len(found.attributes) == spans.MAX_ATTRIBUTES


def test_the_store_keeps_the_last_traces_only() -> None:
    store = Store(traces=2, spans=3)
    for number in range(5):
        store.add([span("1", trace_id=f"{number:032x}")])
    assert [trace.id for trace in store] == [f"{4:032x}", f"{3:032x}"]
    store.add([span(f"{number}", trace_id=f"{4:032x}") for number in range(1, 9)])
    kept = store.get(f"{4:032x}")
    assert kept is not None
    assert (len(kept.spans), kept.dropped) == (3, 5)


def test_a_trace_is_settled_once_it_is_whole_and_quiet() -> None:
    """A parent that is missing is waited for longer, and in the end no more."""
    now = 0.0
    store = Store(clock=lambda: now)
    store.add([span("2", "1")])
    trace = store.get(TRACE)
    assert trace is not None
    now = 3.0
    assert not store.settled(trace)
    now = 8.0
    assert store.settled(trace)
    store.add([span("1")])
    assert not store.settled(trace)
    now = 10.5
    assert store.settled(trace)


def test_the_tree_stands_in_order() -> None:
    """Children below their parents by time; an unknown parent makes a top; circles are cut."""
    found = rows([span("5", "1"), span("3", "2"), span("1"), span("2", "1"), span("9", "ff")])
    assert [(row.span.span_id, row.lines) for row in found] == [
        ("1", ""), ("2", "├─"), ("3", "│ └─"), ("5", "└─"), ("9", ""),
    ]  # fmt: skip
    assert found[0].offset == 0
    assert found[0].width == pytest.approx(10 / 18)
    assert found[3].offset == pytest.approx(4 / 18)
    circle = rows([span("1", "2"), span("2", "1"), span("3", "3")])
    assert sorted(row.span.span_id for row in circle) == ["1", "2", "3"]
    assert rows([]) == []


def test_a_deep_trace_is_no_problem() -> None:
    deep = [span(f"{n:x}", f"{n - 1:x}" if n > 1 else None) for n in range(1, 1500)]
    assert max(row.depth for row in rows(deep)) == 1498


def test_the_terminal_shows_times_errors_and_no_control_characters() -> None:
    out = io.StringIO()
    failed = span("2", "1", error=True, message="refused\x1b[2J", name="a\x1b[31mb")
    query = span("3", "1", attributes={"db.statement": "SELECT\n 1"})
    show(Console(file=out, width=40), [span("1"), failed, query])
    text = out.getvalue()
    assert "\x1b" not in text
    assert "└─shop  SELECT 1" in text
    assert "10.0 ms" in text
    assert "✗ refused?[2J" in text
    assert "3 spans, 12.0 ms, 1 failed" in text
    assert len(text.strip().splitlines()) == 4  # no line is wrapped
    out = io.StringIO()
    show(Console(file=out), [span("1")])
    assert f"{TRACE}  1 span, 10.0 ms" in out.getvalue()


def test_pages_escape_everything(client: TestClient) -> None:
    """Whoever may send a span may not run a script in the browser of who looks at it."""
    evil = "<script>alert(1)</script>'\""
    request = message()
    one = request.resource_spans[0].scope_spans[0].spans[0]
    one.name = one.status.message = evil
    one.attributes.add(key=evil).value.string_value = evil
    request.resource_spans[0].resource.attributes[0].value.string_value = evil
    assert post(client, request.SerializeToString()) == 200
    for path in ("/", f"/trace/{(b't' * 16).hex()}"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "<script" not in answer.text
        assert "&lt;script&gt;" in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_view_answers(client: TestClient) -> None:
    assert "make demo" in client.get("/").text
    assert post(client, message().SerializeToString()) == 200
    assert post(client, b"\xff\xff") == 400
    assert post(client, b"{}", **{"Content-Type": "application/json"}) == 415
    [summary] = client.get("/api/traces").json()
    assert summary["title"] == "work"
    assert summary["services"] == ["shop"]
    trace = client.get(f"/api/traces/{summary['id']}").json()
    assert trace["spans"][0]["attributes"]["n"] == "3"
    assert "1 span &middot;" in client.get(f"/trace/{summary['id']}").text
    assert client.get("/trace/none").status_code == 404
    assert client.get("/api/traces/none").status_code == 404
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_a_trace_is_named_after_its_route() -> None:
    store = Store()
    routed = span("2", "1", name="POST /v1/orders", attributes={"http.route": "/v1/orders"})
    store.add([span("1", name="ingress"), routed])
    [trace] = store
    assert page.title(trace) == "POST /v1/orders"


def test_the_sdk_s_own_exporter_is_understood(client: TestClient) -> None:
    """What OpenTelemetry's exporter sends is what is read: through its own encoder."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "sdk"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner") as inner:
        inner.set_attribute("flag", True)
    provider.shutdown()
    assert post(client, encode_spans(exporter.get_finished_spans()).SerializeToString()) == 200
    [summary] = client.get("/api/traces").json()
    first, second = client.get(f"/api/traces/{summary['id']}").json()["spans"]
    assert (first["name"], second["name"]) == ("outer", "inner")
    assert second["parent_id"] == first["span_id"]
    assert second["attributes"] == {"flag": "True"}
    assert json.dumps(second["links"]) == "[]"


def test_an_exporter_that_sends_each_five_seconds_keeps_its_connection() -> None:
    """One that ends just as the next spans come would lose them."""
    [port] = pick_free(1)
    server = subprocess.Popen(
        [sys.executable, "-m", "scripts.traces.server", "--port", str(port)],
        cwd=ROOT,
        preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def connected() -> bool:
        assert server.poll() is None
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect()
        return connection.sock is not None

    try:
        eventually(connected, 60)
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ok"
        assert select.select([connection.sock], [], [], 10)[0] == [], "it was closed"
    finally:
        connection.close()
        server.terminate()
        server.wait()
