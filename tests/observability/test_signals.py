"""A real Prometheus sees every process, every signal, and the traces behind the numbers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from observability.dashboards import queries, substitute
from scripts.topology import load
from tests.local.platform_handle import eventually
from tests.observability.exposed import FOREIGN
from tests.observability.watched import Watched, needs_prometheus, trace_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), needs_prometheus]

SERVICES = set(load().services)
WITH_DATABASE = {service.name for service in load() if service.database}
EVERYWHERE = (
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "http_requests_in_flight",
    "event_loop_lag_seconds_count",
    "thread_pool_tokens",
    "thread_pool_waiting",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "background_worker_restarts_total",
    "build_info",
)
DATABASE = ("db_pool_wait_seconds_count", "db_pool_connections", "db_pool_limit")
OF_SOME = {
    "orders": (
        "outbox_pending",
        "outbox_oldest_age_seconds",
        "outbox_dead_letters",
        "outbox_deliveries_total",
        "circuit_breaker_state",
        "http_client_requests_total",
        "orders_total",
        "orders_pending",
        "orders_pending_oldest_age_seconds",
    ),
    "inventory": ("inventory_units", "inventory_items", "inventory_reservations_total"),
    "auth": ("auth_signups_total", "auth_logins_total", "auth_signing_key_age_seconds"),
    "gateway": (
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_http_downstream_rq_active",
        "envoy_server_memory_allocated",
    ),
}


def trade(watched: Watched) -> None:
    """One order, one request that is refused, and one for each service, whatever it answers."""
    shop = watched.shop
    item, [buyer] = shop.item(50), shop.buyers(1)
    for service in load():
        route = next(r for r in service.routes if not r.websocket and r.path != "/events")
        path = f"/v1{route.path}" if route.versioned else route.path
        shop.call(route.methods[0] if route.methods else "GET", path, who=buyer)
    assert shop.order(buyer, item).status_code == 201
    assert shop.call("GET", "/v1/orders/none", who=buyer).status_code in {404, 422}
    assert shop.call("GET", f"/v1/stock/{item}", who=buyer).status_code == 200
    assert shop.call("GET", "/info/").status_code in {200, 401}


def test_every_process_is_a_target_and_up(watched: Watched) -> None:
    """Each under its own name as in a cluster, in the namespace `local`."""

    def up() -> bool:
        found = {dict(labels)["job"]: value for labels, value in watched.query("up").items()}
        return found == dict.fromkeys({*SERVICES, "gateway"}, 1.0)

    eventually(up, 60)
    targets = watched.value('count(up{namespace="local",instance=~"127.0.0.1:.+"})')
    assert targets == len(SERVICES) + 1
    rules = watched.api("rules")["groups"]
    assert rules
    broken = {
        rule["name"]: rule["lastError"] for g in rules for rule in g["rules"] if "lastError" in rule
    }
    assert not any(broken.values()), broken


def test_every_signal_is_there(watched: Watched) -> None:
    """RED, saturation, business and the build, each for the services that have it."""
    trade(watched)
    wanted = {(name, job) for name in EVERYWHERE for job in SERVICES}
    wanted |= {(name, job) for name in DATABASE for job in WITH_DATABASE}
    wanted |= {(name, job) for job, names in OF_SOME.items() for name in names}
    names = "|".join(sorted({name for name, _ in wanted}))

    def missing() -> set[tuple[str, str]]:
        found = watched.query(f'count by (__name__, job) ({{__name__=~"{names}"}})')
        return wanted - {(dict(s)["__name__"], dict(s)["job"]) for s in found}

    end = time.monotonic() + 60
    while (left := missing()) and time.monotonic() < end:
        time.sleep(0.5)
    assert not left


def test_business_numbers_are_those_of_the_business(watched: Watched) -> None:
    """A sign-up, an order of two units and new stock are counted as what they are."""
    shop = watched.shop
    confirmed = 'sum(orders_total{job="orders",status="confirmed"})'
    signed_up = 'sum(auth_signups_total{job="auth"})'
    orders = shop.metric("orders", "orders_total", status="confirmed") or 0
    users = sum(
        shop.metric("auth", "auth_signups_total", outcome=outcome) or 0
        for outcome in ("created", "accepted", "success")
    )
    item, [buyer] = shop.item(9), shop.buyers(1)
    assert shop.order(buyer, item, 2).status_code == 201
    eventually(lambda: watched.value(confirmed) >= orders + 1, 60)
    eventually(lambda: watched.value(signed_up) >= users + 1, 60)
    # The database's own numbers, in the end: units of all items, free and held.
    [(on_hand, held)] = shop.rows("inventory", "SELECT sum(on_hand), sum(held) FROM stock")
    eventually(
        lambda: (
            watched.value('inventory_units{state="free"}') == on_hand - held
            and watched.value('inventory_units{state="held"}') == held
        ),
        90,
    )
    assert 0 <= watched.value("auth_signing_key_age_seconds") < 3600
    [build] = watched.query('build_info{job="orders"}')
    assert dict(build)["service"] == "orders"
    assert dict(build)["version"]


def test_exemplars_lead_to_traces_that_exist(watched: Watched) -> None:
    """From a bucket of the latency of orders to the trace of a request that fell into it."""
    trade(watched)
    query = 'http_request_duration_seconds_bucket{job="orders",route="/v1/orders",method="POST"}'

    def found() -> list[dict[str, object]]:
        now = time.time()
        series = watched.api("query_exemplars", query=query, start=f"{now - 60}", end=f"{now + 5}")
        return [each for one in series for each in one["exemplars"]]

    exemplars = eventually(found, 60)
    last = max(exemplars, key=lambda each: float(str(each["timestamp"])))
    trace_id = str(last["labels"]["trace_id"])  # type: ignore[index]

    def placed() -> list[dict[str, Any]]:  # each process sends its spans in its own time
        spans = trace_of(watched.shop, trace_id)
        return [s for s in spans if (s["service"], s["name"]) == ("orders", "POST /v1/orders")]

    [span] = eventually(placed, 60)
    took = (span["end"] - span["start"]) / 1e9
    assert float(str(last["value"])) == pytest.approx(took, rel=0.5, abs=0.05)


def needs_a_cluster(expr: str) -> bool:
    """Whether a query is about what only kube-state-metrics and the like can tell."""
    return any(name in expr for name in FOREIGN if name not in {"up", "ALERTS"})


def trouble(watched: Watched) -> None:
    """What panels about faults are for: a peer that is away, and a client that asks too often."""
    shop = watched.shop
    item, [buyer] = shop.item(50), shop.buyers(1)
    with shop.outage("inventory"):
        for _ in range(3):
            assert shop.order(buyer, item).status_code == 202
            assert shop.call("GET", f"/v1/stock/{item}", who=buyer).status_code == 503
    for _ in range(40):
        shop.call("POST", "/v1/token", data={"grant_type": "password"})
    # Until its breaker has closed, orders asks the peer nothing, and an order stays 202.
    eventually(lambda: shop.order(buyer, item).status_code == 201, 60)
    eventually(lambda: shop.call("GET", f"/v1/stock/{item}", who=buyer).status_code == 200, 60)


def test_each_query_of_each_dashboard_has_data(watched: Watched) -> None:
    """After traffic with some faults in it: no panel asks for what nobody tells."""
    asked = {
        (query.dashboard, query.panel, substitute(query.expr, __rate_interval="60s", __range="60s"))
        for query in queries()
    }
    left = {each for each in asked if not needs_a_cluster(each[2])}
    assert len(left) > len(asked) * 3 / 4, "most panels are about this platform"
    end = time.monotonic() + 150
    while left and time.monotonic() < end:
        trouble(watched)  # again, while any is left: rates see one minute
        for _ in range(10):
            trade(watched)
            left = {each for each in left if not watched.api("query", query=each[2])["result"]}
            if not left:
                break
    assert not left, "\n".join(" / ".join(each) for each in sorted(left))
