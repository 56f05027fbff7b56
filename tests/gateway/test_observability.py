"""What the gateway tells about a request: log lines, trace context, spans."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime

from tests.gateway.conftest import UNLIMITED
from tests.gateway.harness import Gateway, RawUpstream, Upstreams, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def line_of(gateway: Gateway, request_id: str) -> dict:
    """Return the log line of one request; Envoy writes it when the request has ended."""

    def find() -> dict | None:
        lines = gateway.access_log()
        return next((line for line in lines if line["request_id"] == request_id), None)

    return wait_until(find, "the log line")


def test_a_request_is_one_json_line(gateway: Gateway, bearer: dict[str, str]):
    """It joins with the services' lines by request id and trace id."""
    answer = gateway.get(
        "/v1/orders/7?page=2", {**bearer, "traceparent": PARENT, "User-Agent": "t"}
    )
    line = line_of(gateway, answer.headers["x-request-id"])
    assert line["method"] == "GET"
    assert line["path"] == "/v1/orders/7"
    assert line["status"] == 200
    assert line["route"] == "orders:/orders"
    assert line["upstream"] == "orders"
    assert line["trace_id"] == TRACE
    assert line["attempts"] == 1
    assert line["duration_ms"] >= line["upstream_ms"] >= 0
    assert line["user_agent"] == "t"
    assert line["service"] == "gateway"


def test_no_secret_is_logged(gateway: Gateway, upstreams: Upstreams):
    """Queries, tokens and keys stay out, whether a request is let in or not."""
    secret = "s3cr3t-s3cr3t"
    sent = {"Authorization": f"Bearer {secret}", "X-API-Key": secret, "Cookie": secret}
    for path in ("/v1/orders", "/info/", "/nowhere"):
        answer = gateway.get(f"{path}?token={secret}", sent)
        line_of(gateway, answer.headers["x-request-id"])
        assert secret not in answer.body.decode()
    assert secret not in gateway.log.read_text()


def test_refusals_are_logged_with_their_reason(gateway: Gateway):
    """A line says why the gateway itself answered."""
    answer = gateway.get("/v1/orders", {"traceparent": PARENT})
    line = line_of(gateway, answer.headers["x-request-id"])
    assert line["status"] == 401
    assert line["reason"].startswith("jwt_authn_access_denied")
    assert answer.problem()["trace_id"] == TRACE
    assert answer.problem()["instance"] == "/v1/orders"


def test_without_an_endpoint_every_request_has_a_trace_too(gateway: Gateway):
    """The client's trace goes on, others get a new one; log lines and services know the same id."""
    answer = gateway.get("/info/", {"traceparent": PARENT, "tracestate": "a=1"})
    headers = answer.json()["headers"]
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["tracestate"] == "a=1"
    assert line_of(gateway, answer.headers["x-request-id"])["trace_id"] == TRACE
    answer = gateway.get("/info/")
    line = line_of(gateway, answer.headers["x-request-id"])
    assert answer.json()["headers"]["traceparent"].startswith(f"00-{line['trace_id']}-")
    assert len(line["trace_id"]) == 32
    answer = gateway.get("/nowhere", {"traceparent": "x" * 5000})
    assert answer.problem()["trace_id"] == "x" * 32


def test_without_an_endpoint_spans_end_quietly(start_gateway: Callable[..., Gateway]):
    """Recorded spans that nobody takes do not fill the log, nor count as failures."""
    gateway = start_gateway({**UNLIMITED, "tracing": {"samplePercent": 100}})
    for _ in range(20):  # more than one batch
        assert gateway.get("/info/", {"traceparent": PARENT}).status == 200
    # What is left of a batch goes after five seconds; this says when it has gone.
    wait_until(lambda: gateway.stat("tracing.opentelemetry.timer_flushed"), "the spans to go")
    stats = gateway.get("/stats/prometheus", port=gateway.admin).body.decode()
    assert "envoy_cluster_upstream_rq_total" in stats
    assert "_otlp" not in stats
    assert [line for line in gateway.lines() if line["level"] in {"error", "critical"}] == []


def test_envoy_says_its_own_words_in_json_too(start_gateway: Callable[..., Gateway]):
    """A collector that is away is told of in a line like those of the services."""
    tracing = {"endpoint": "http://127.0.0.1:1", "samplePercent": 100}
    gateway = start_gateway({**UNLIMITED, "tracing": tracing})
    assert gateway.get("/info/").status == 200

    def told() -> dict | None:
        return next((line for line in gateway.lines() if "OTLP" in line["event"]), None)

    line = wait_until(told, "the line")
    assert line["level"] == "error"
    assert line["service"] == "gateway"
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_spans_go_to_the_endpoint(start_gateway: Callable[..., Gateway]):
    """With an endpoint the trace goes on through the gateway, and its span is exported."""

    def accept(s: socket.socket, _: bytes, __: int) -> None:
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with RawUpstream(accept) as collector:
        tracing = {"endpoint": f"http://{collector.address}", "samplePercent": 100}
        gateway = start_gateway({**UNLIMITED, "tracing": tracing})
        answer = gateway.get("/info/?token=s3cr3t", {"traceparent": PARENT})
        passed_on = answer.json()["headers"]["traceparent"]
        assert passed_on.startswith(f"00-{TRACE}-")
        assert passed_on != PARENT
        assert line_of(gateway, answer.headers["x-request-id"])["trace_id"] == TRACE
        fresh = line_of(gateway, gateway.get("/nowhere").headers["x-request-id"])
        assert len(fresh["trace_id"]) == 32

        def exported() -> bool:
            text = b"".join(collector.requests)
            return bytes.fromhex(TRACE) in text and b"gateway" in text

        wait_until(exported, "the span")
        spans = b"".join(collector.requests)
        assert b"GET info:/info/" in spans  # the span's name: a route, never a path
        assert b"/info/" in spans
        assert b"s3cr3t" not in spans
        assert collector.requests[0].startswith(b"POST /v1/traces HTTP/1.1")
