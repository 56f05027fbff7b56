"""The observability release beside the platform: what it sees, by the APIs that dashboards use.

It is installed as `make deploy OBSERVE=1` does, where its images are: on a node already, or pulled
because OBSERVE=1 is set for these tests too. A Grafana without an image is left out.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
import yaml

from observability import rules
from observability.dashboards import queries, substitute
from scripts import demo
from scripts.kube.cluster import TIMEOUT, Cluster
from scripts.kube.entry import forwarded
from scripts.kube.releases import OBSERVABILITY, Release
from scripts.topology import load
from tests.charts.kube import pods, render, values_of
from tests.e2e.harness import HERE, Platform, wait_for

PORTS = {"prometheus": 9090, "alertmanager": 9093, "jaeger": 16686, "grafana": 80}
ORDERED = {"gateway", "orders", "items", "inventory", "notifications"}
# Panels of what goes wrong, empty while all is well; and the gateway's limits, off in these tests.
SILENT = {"Killed for lack of memory", "Throttled", "429 by limit", "Share of 429"}


@dataclass(frozen=True)
class Observer:
    """The release's own APIs, by forwarded ports."""

    platform: Platform
    urls: dict[str, str]

    def get(self, part: str, path: str, **parameters: str) -> Any:
        """Return what a part answers, as JSON."""
        url = f"{self.urls[part]}{path}"
        answer = httpx2.get(url, params=parameters, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the present series of an expression."""
        found = self.get("prometheus", "/api/v1/query", query=expr)["data"]
        return list(found["result"]) if found["resultType"] == "vector" else [found]

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Return what Alertmanager was told of an alert in this namespace."""
        parts = [f'alertname="{name}"', f'namespace="{self.platform.namespace}"']
        found = httpx2.get(
            f"{self.urls['alertmanager']}/api/v2/alerts",
            params=[("filter", part) for part in parts], timeout=20, trust_env=False,
        )  # fmt: skip
        return list(found.json())


def wanted_images(release: Release) -> dict[str, str]:
    """Return the image of each Deployment of the release."""
    values = values_of(*map(str, release.values))
    return {
        name.partition(" ")[2]: pod["spec"]["containers"][0]["image"]
        for name, pod in pods(render(OBSERVABILITY, values))
        if name.startswith("Deployment")
    }


def present_images(cluster: Cluster) -> set[str]:
    """Return the names of the images that lie on the nodes, short as in the values too."""
    nodes: Any = cluster.core.list_node(_request_timeout=TIMEOUT)
    names = {
        name for node in nodes.items for image in node.status.images for name in image.names or ()
    }
    return names | {name.removeprefix("docker.io/") for name in names}


@pytest.fixture(scope="module")
def observer(platform: Platform, cluster: Cluster) -> Iterator[Observer]:
    """The release, and everything else as it is with it."""
    observed = Platform.plan(cluster, platform.namespace, observed=True)
    release, parts = observed.release(OBSERVABILITY), set(PORTS)
    if not os.environ.get("OBSERVE"):
        needed, present = wanted_images(release), present_images(cluster)
        away = {name: image for name, image in needed.items() if image not in present}
        if away.pop("grafana", None):
            without = HERE / "values" / "without" / "grafana.yaml"
            release = replace(release, values=(*release.values, without))
            parts.discard("grafana")
        if away:
            pytest.skip(f"no image on a node (OBSERVE=1 pulls): {', '.join(away.values())}")
    rest = [each for each in observed.wanted if each.name != OBSERVABILITY]
    platform.deployer.deploy([*rest[:1], release, *rest[1:]])
    with ExitStack() as ports:
        yield Observer(
            platform,
            {
                part: ports.enter_context(
                    forwarded(cluster, platform.namespace, f"service/{part}", port)
                )
                for part, port in PORTS.items()
                if part in parts
            },
        )


@pytest.fixture(scope="module")
def order(observer: Observer) -> str:
    """A demonstration with an order, all of it in one trace; the trace's id."""
    trace = secrets.token_hex(16)
    demonstrate(observer.platform, traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")
    return trace


def demonstrate(platform: Platform, **headers: str) -> None:
    """Do what `make demo` does."""
    with (
        forwarded(platform.cluster, platform.namespace) as url,
        httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
    ):
        demo.run(client)


def test_the_release_passes_its_own_test(observer: Observer) -> None:
    observer.platform.deployer.helm.test(OBSERVABILITY)


def test_every_target_is_up(observer: Observer) -> None:
    """Every service, the gateway, the parts of the release, PostgreSQL, what Kubernetes counts."""
    expected = {
        *load().services, "gateway", "prometheus", "alertmanager", "jaeger", "kube-state-metrics",
        "postgresql-exporter", "cadvisor", *(observer.urls.keys() & {"grafana"}),
    }  # fmt: skip

    def down() -> dict[str, str]:
        targets = observer.get("prometheus", "/api/v1/targets", state="active")["data"]
        active = targets["activeTargets"]
        found = {each["labels"]["job"] for each in active}
        assert expected >= found
        return dict.fromkeys(expected - found, "no target") | {
            each["scrapeUrl"]: each["lastError"] for each in active if each["health"] != "up"
        }

    wait_for(lambda: not down(), "every target is up", 120, 2)


def test_the_rules_are_loaded_and_each_can_be_evaluated(observer: Observer) -> None:
    wanted = {
        group["name"]
        for file in rules.FOLDER.glob(rules.PATTERN)
        for group in yaml.safe_load(file.read_text())["groups"]
    }

    def evaluated() -> bool:
        groups = observer.get("prometheus", "/api/v1/rules")["data"]["groups"]
        assert {group["name"] for group in groups} == wanted
        found = [rule for group in groups for rule in group["rules"]]
        assert [rule for rule in found if rule.get("lastError")] == []
        return all(rule["health"] == "ok" for rule in found)

    wait_for(evaluated, "each rule was evaluated", 120, 2)


def test_an_order_is_one_trace(observer: Observer, order: str) -> None:
    """From the gateway to the event that the outbox brings, span under span."""

    def spans() -> list[dict[str, Any]]:
        found = httpx2.get(
            f"{observer.urls['jaeger']}/api/traces/{order}", timeout=20, trust_env=False
        ).json()
        (trace,) = found.get("data") or [{}]
        named = trace.get("processes", {})
        return [
            {**span, "service": named[span["processID"]]["serviceName"]}
            for span in trace.get("spans", ())
        ]

    wait_for(lambda: {s["service"] for s in spans()} >= ORDERED, "the whole trace", 90, 2)
    found = {span["spanID"]: span for span in spans()}

    def above(span: dict[str, Any]) -> list[str]:
        parents = [found.get(each["spanID"]) for each in span["references"]]
        return [span["service"], *(above(parents[0]) if parents and parents[0] else [])]

    (told,) = [
        span
        for span in found.values()
        if span["service"] == "notifications" and span["operationName"] == "POST /events"
    ]
    assert list(dict.fromkeys(above(told))) == ["notifications", "orders", "gateway"]
    (reserved,) = [
        span
        for span in found.values()
        if span["service"] == "inventory" and span["operationName"] == "POST /v1/reservations"
    ]
    assert list(dict.fromkeys(above(reserved))) == ["inventory", "orders", "gateway"]


def test_spans_become_metrics_that_jaeger_shows(observer: Observer, order: str) -> None:
    """By Prometheus, and in the numbers of Jaeger's monitor tab."""
    counted = 'sum by (service_name) (traces_span_metrics_calls_total{service_name!="helm-test"})'

    def services() -> set[str]:
        return {each["metric"]["service_name"] for each in observer.query(counted)}

    wait_for(lambda: services() >= ORDERED, f"trace {order} is counted", 120, 2)

    def shown() -> bool:
        found = observer.get(
            "jaeger", "/api/metrics/calls", service="orders", spanKind="server",
            lookback="600000", step="15000", ratePer="60000",
        )  # fmt: skip
        return any(point for metric in found["metrics"] for point in metric["metricPoints"])

    wait_for(shown, "Jaeger's monitor tab has numbers", 120, 2)


def test_exemplars_lead_to_traces_that_exist(observer: Observer, order: str) -> None:
    query = 'http_request_duration_seconds_bucket{job="orders",route="/v1/orders",method="POST"}'

    def traces() -> set[str]:
        now = time.time()
        found = observer.get(
            "prometheus", "/api/v1/query_exemplars",
            query=query, start=f"{now - 600}", end=f"{now + 5}",
        )["data"]  # fmt: skip
        return {each["labels"]["trace_id"] for one in found for each in one["exemplars"]}

    wait_for(lambda: order in traces(), f"an exemplar of {order}", 90, 2)


def test_every_panel_has_data(observer: Observer, order: str) -> None:
    """Kubernetes' and PostgreSQL's too, which no other test can show."""
    left = {
        f"{each.dashboard}: {each.panel}": substitute(
            each.expr, namespace=observer.platform.namespace
        )
        for each in queries()
        if each.panel not in SILENT
    }
    end = time.monotonic() + 180
    while left and time.monotonic() < end:
        demonstrate(observer.platform)  # panels show the last minutes
        left = {where: expr for where, expr in left.items() if not observer.query(expr)}
        time.sleep(2)
    assert not left, f"empty after {order}"


def test_grafana_has_every_dashboard_and_asks_for_its_panels(observer: Observer) -> None:
    """As somebody who looks without a login; through its data sources, as a browser does."""
    if "grafana" not in observer.urls:
        pytest.skip("no image of Grafana on a node (OBSERVE=1 pulls)")
    found = {each["uid"] for each in observer.get("grafana", "/api/search", type="dash-db")}
    asked: dict[str, list[dict[str, Any]]] = {}
    for each in queries():
        expr = substitute(each.expr, namespace=observer.platform.namespace)
        panels = asked.setdefault(each.dashboard, [])
        panels.append(
            {
                "refId": f"A{len(panels)}",
                "datasource": {"type": "prometheus", "uid": "prometheus"},
                "expr": expr,
                "range": True,
                "intervalMs": 15000,
                "maxDataPoints": 100,
            }
        )
    assert found >= asked.keys()
    for dashboard, panels in asked.items():
        answer = httpx2.post(
            f"{observer.urls['grafana']}/api/ds/query",
            json={"queries": panels, "from": "now-15m", "to": "now"}, timeout=60, trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 200, (dashboard, answer.text[:2000])
        results = answer.json()["results"]
        assert {ref: r["error"] for ref, r in results.items() if r.get("error")} == {}
        assert len(results) == len(panels)


def test_an_alert_reaches_alertmanager_and_is_taken_back(observer: Observer) -> None:
    """PostgreSQL lets its exporter in no more: to the exporter that is a database that is away."""

    def sql(text: str) -> None:
        observer.platform.kubectl(
            "exec", "postgresql-0", "--", "psql", "-U", "postgres", "-c", text
        )

    assert observer.alerts("DatabaseDown") == []
    try:
        sql("ALTER ROLE metrics_reader NOLOGIN")
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'metrics_reader'")  # fmt: skip
        (told,) = wait_for(lambda: observer.alerts("DatabaseDown"), "DatabaseDown is told", 300, 2)
        assert told["labels"]["severity"] == "page"
        assert told["annotations"]["runbook_url"].endswith("docs/runbooks/DatabaseDown.md")
    finally:
        sql("ALTER ROLE metrics_reader LOGIN")
    wait_for(lambda: not observer.alerts("DatabaseDown"), "DatabaseDown is taken back", 180, 2)
