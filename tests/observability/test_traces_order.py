"""One order is one trace: gateway, orders, items, inventory, databases, outbox, notification."""

from __future__ import annotations

import secrets
import subprocess
import sys
import uuid
from collections import Counter
from typing import Any

import pytest

from tests.local.platform_handle import ROOT, eventually
from tests.observability.watched import trace_of
from tests.system.harness import Shop, lines, log_lines, problem

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

Span = dict[str, Any]


def whole_trace(shop: Shop, trace_id: str, *last: tuple[str, str]) -> list[Span]:
    """The trace once these spans (service, name) are there, as often as named, and all parents."""

    def found() -> list[Span] | None:
        spans = trace_of(shop, trace_id)
        known = {span["span_id"] for span in spans}
        there = Counter(last) <= Counter((span["service"], span["name"]) for span in spans)
        whole = all(span["parent_id"] in known for span in spans if span["parent_id"])
        return spans if there and whole else None

    return eventually(found, 60)


def log_line(shop: Shop, name: str, **wanted: str) -> dict[str, Any]:
    """The access line of a process that has these fields."""
    log = shop.platform.home / "logs" / f"{name}.log"

    def mine(line: dict[str, Any]) -> bool:
        return line.get("event") == "request" and wanted.items() <= line.items()

    [line] = eventually(lambda: log_lines(log, mine))
    return line


def only(spans: list[Span], service: str, name: str, kind: str) -> Span:
    """The one span of this service, name and kind."""
    found = [s for s in spans if (s["service"], s["name"], s["kind"]) == (service, name, kind)]
    assert len(found) == 1, (service, name, kind, [(s["service"], s["name"]) for s in spans])
    return found[0]


def chain(spans: list[Span], span: Span) -> list[str]:
    """The services from the root to a span, each once."""
    known = {each["span_id"]: each for each in spans}
    services = [span["service"]]
    while span["parent_id"]:
        span = known[span["parent_id"]]
        services.append(span["service"])
    return list(dict.fromkeys(reversed(services)))


def test_the_trace_of_an_order_span_by_span(shop: Shop) -> None:
    """From the gateway to the notification; each database is in it; nothing is an error."""
    item, [buyer] = shop.item(5), shop.buyers(1)
    answer = shop.order(buyer, item)
    assert answer.status_code == 201, answer.text
    line = log_line(shop, "orders", request_id=answer.headers["x-request-id"])
    # The order goes to notifications and to stream, and what notifications made of it to stream.
    told_of = [(name, "POST /events") for name in ("notifications", "stream", "stream")]
    spans = whole_trace(shop, line["trace_id"], *told_of)

    root = only(spans, "gateway", "POST orders:/orders", "server")
    assert root["parent_id"] is None
    placed = only(spans, "orders", "POST /v1/orders", "server")
    assert placed["parent_id"] == root["span_id"]
    assert placed["span_id"] == line["span_id"]
    priced = only(spans, "items", "GET /v1/items", "server")
    held = only(spans, "inventory", "POST /v1/reservations", "server")
    sent = {
        span["span_id"]: span["parent_id"]
        for span in spans
        if (span["service"], span["name"]) == ("orders", "send order.confirmed")
    }
    told = only(spans, "notifications", "POST /events", "server")
    assert chain(spans, priced) == ["gateway", "orders", "items"]
    assert chain(spans, held) == ["gateway", "orders", "inventory"]
    assert chain(spans, told) == ["gateway", "orders", "notifications"]
    assert list(sent.values()) == [placed["span_id"]] * 2
    calls = {
        s["span_id"]: s for s in spans if s["kind"] == "client" and "url.full" in s["attributes"]
    }
    for served, peer in ((priced, "items"), (held, "inventory")):
        call = calls[served["parent_id"]]
        assert call["attributes"]["peer.service"] == peer
        assert call["parent_id"] == placed["span_id"]
        assert call["start"] <= served["end"]
    assert calls[told["parent_id"]]["parent_id"] in sent
    ways = [
        chain(spans, span)
        for span in spans
        if (span["service"], span["kind"]) == ("stream", "server")
    ]
    assert sorted(ways) == [
        ["gateway", "orders", "notifications", "stream"],
        ["gateway", "orders", "stream"],
    ]
    for served in (placed, priced, held, told):
        below = [s for s in spans if s["parent_id"] == served["span_id"]]
        assert any(s["attributes"].get("db.statement") for s in below), served["name"]
    assert {s["trace_id"] for s in spans} == {line["trace_id"]}
    assert not [s for s in spans if s["error"]]


def test_the_client_s_trace_goes_on_and_joins_the_logs(shop: Shop) -> None:
    """The trace id that a client sends is in the spans, the gateway's line and the service's."""
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    answer = shop.call("GET", "/v1/items", headers={"traceparent": f"00-{trace_id}-{parent}-01"})
    assert answer.status_code == 200

    def served() -> list[Span]:
        return [s for s in trace_of(shop, trace_id) if s["service"] == "gateway"]

    [edge] = eventually(served, 60)
    assert edge["parent_id"] == parent
    for name in ("gateway", "items"):
        line = log_line(shop, name, trace_id=trace_id)
        assert line["request_id"] == answer.headers["x-request-id"]


def test_a_new_trace_has_one_id_everywhere(shop: Shop) -> None:
    """Without a traceparent the gateway begins one, and names it in its own line."""
    answer = shop.call("GET", "/v1/items")
    ids = set()
    for name in ("gateway", "items"):
        line = log_line(shop, name, request_id=answer.headers["x-request-id"])
        ids.add(line["trace_id"])
    [trace_id] = ids
    assert len(trace_id) == 32


def test_a_failed_call_is_seen_as_one(shop: Shop) -> None:
    """While inventory is away the trace says where the order got stuck; later it is settled."""
    item, [buyer] = shop.item(5), shop.buyers(1)
    trace_id = secrets.token_hex(16)
    headers = {
        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
        "Idempotency-Key": str(uuid.uuid4()),
    }
    with shop.outage("inventory"):
        answer = shop.call("POST", "/v1/orders", who=buyer, json=lines(item), headers=headers)
        assert answer.status_code == 202, answer.text

        def failed() -> list[Span]:
            return [s for s in trace_of(shop, trace_id) if s["error"]]

        calls = eventually(failed, 60)
    assert {(s["service"], s["attributes"]["peer.service"]) for s in calls} == {
        ("orders", "inventory")
    }
    assert {s["attributes"]["error.type"] for s in calls} == {"connect"}
    assert shop.order_settled(buyer, answer.json()["id"]) == "confirmed"


def test_a_refusal_of_the_gateway_is_a_trace_of_one_span(shop: Shop) -> None:
    """It says 401 and asks no service; the problem carries the client's trace id."""
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    answer = shop.call("GET", "/v1/orders", headers=headers)
    assert problem(answer, 401)["trace_id"] == trace_id
    [span] = eventually(lambda: trace_of(shop, trace_id), 60)
    assert span["service"] == "gateway"
    assert span["attributes"]["http.status_code"] == "401"


def test_polling_begins_no_traces(shop: Shop) -> None:
    """Relays, recoveries and gauges look at their tables each second: none of it is a trace."""
    shop.call("GET", "/v1/items")  # something is there
    summaries = eventually(lambda: shop.call("GET", "/api/traces", at="traces").json(), 60)
    alone = [each["id"] for each in summaries if each["count"] == 1]
    # Since then a trace may have grown, or lost its place to a newer one.
    found = [spans[0] for spans in (trace_of(shop, each) for each in alone) if len(spans) == 1]
    assert [span for span in found if "db.statement" in span["attributes"]] == []


def test_the_view_and_the_terminal_show_the_same_trace(shop: Shop) -> None:
    """`make traces` on the running platform: the order's tree, with all its services."""
    item, [buyer] = shop.item(5), shop.buyers(1)
    assert shop.order(buyer, item).status_code == 201

    def shown() -> str | None:
        done = subprocess.run(
            [sys.executable, "-m", "scripts.traces", "--once"],
            cwd=ROOT,
            env=shop.platform.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout if "send order.confirmed" in done.stdout else None

    text = eventually(shown, 60)
    assert "gateway  POST orders:/orders" in text
    assert "notifications  POST /events" in text
    listing = shop.call("GET", "/", at="traces").text
    assert "POST /v1/orders" in listing
