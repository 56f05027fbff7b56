"""What the real services and a real Envoy expose, and which metrics a query names."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from prometheus_client.parser import text_string_to_metric_families

from chassis import load_settings
from chassis.migrations import migrate
from chassis.settings import DatabaseSettings
from chassis.testing import app_client
from scripts.topology import Service, Topology
from tests.gateway.harness import Issuer, Upstreams, run_gateway

SUFFIXES = {
    "counter": ("",),
    "gauge": ("",),
    "unknown": ("",),
    "untyped": ("",),
    "info": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}
# Of kube-state-metrics, cAdvisor, postgres_exporter, cert-manager and Prometheus itself: only in a
# cluster, or only where rules run. Their names are an interface that those projects keep.
FOREIGN = {
    "ALERTS": {"alertname", "alertstate", "severity", "service"},
    "up": set[str](),
    "certmanager_certificate_expiration_timestamp_seconds": {"name"},
    "container_cpu_cfs_periods_total": {"container", "pod"},
    "container_cpu_cfs_throttled_periods_total": {"container", "pod"},
    "container_cpu_usage_seconds_total": {"container", "pod"},
    "container_memory_working_set_bytes": {"container", "pod"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_deployment_status_condition": {"deployment", "condition", "status"},
    "kube_deployment_status_replicas_available": {"deployment"},
    "kube_deployment_status_replicas_unavailable": {"deployment"},
    "kube_deployment_status_replicas_updated": {"deployment"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_min_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"horizontalpodautoscaler"},
    "kube_pod_container_resource_limits": {"container", "pod", "resource"},
    "kube_pod_container_resource_requests": {"container", "pod", "resource"},
    "kube_pod_container_status_last_terminated_reason": {"container", "pod", "reason"},
    "kube_pod_container_status_restarts_total": {"container", "pod"},
    "kube_pod_container_status_waiting_reason": {"container", "pod", "reason"},
    "kube_pod_status_phase": {"pod", "phase"},
    "pg_database_size_bytes": {"datname"},
    "pg_long_running_transactions_oldest_timestamp_seconds": set[str](),
    "pg_settings_max_connections": set[str](),
    "pg_stat_activity_count": {"datname", "state", "wait_event_type"},
    "pg_stat_activity_max_tx_duration": {"datname", "state", "wait_event_type"},
    "pg_stat_database_blks_hit": {"datname"},
    "pg_stat_database_blks_read": {"datname"},
    "pg_stat_database_deadlocks": {"datname"},
    "pg_stat_database_numbackends": {"datname"},
    "pg_stat_database_tup_deleted": {"datname"},
    "pg_stat_database_tup_inserted": {"datname"},
    "pg_stat_database_tup_returned": {"datname"},
    "pg_stat_database_tup_updated": {"datname"},
    "pg_stat_database_xact_commit": {"datname"},
    "pg_stat_database_xact_rollback": {"datname"},
    "pg_up": set[str](),
}
TARGET_LABELS = {"job", "namespace", "instance", "pod"}


@dataclass
class Exposed:
    """Metrics by name, with the labels that were seen on their samples."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    bounds: dict[str, set[float]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Take one answer of a `/metrics`, in the classic text format."""
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            for suffix in SUFFIXES[kind]:
                self.labels.setdefault(name + suffix, set())
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)
                if sample.name.endswith("_bucket"):
                    bounds = self.bounds.setdefault(sample.name, set())
                    bounds.add(float(sample.labels["le"]))


async def scrape_services(tree: Topology, folder: Path, exposed: Exposed) -> None:
    """Start each service in this process on a fresh database, ask something, and scrape it."""
    for service in tree:
        await _scrape(service, folder, exposed)


async def _scrape(service: Service, folder: Path, exposed: Exposed) -> None:
    package = service.module
    variables = {
        **service.environment(lambda _: "http://127.0.0.1:9"),
        f"{service.prefix}AUTH_URL": "http://127.0.0.1:9",
        f"{service.prefix}ENVIRONMENT": "development",
        **{name: "a-secret-of-some-length" for name in service.secrets if "CLIENT_SEC" in name},
    }
    if service.database:
        variables[f"{service.prefix}DATABASE_URL"] = f"sqlite:///{folder}/{service.name}.db"
    with mock.patch.dict(os.environ, variables):
        settings = load_settings(importlib.import_module(f"{package}.settings").Settings)
    if isinstance(settings, DatabaseSettings):
        await migrate(package, settings)
    app = importlib.import_module(f"{package}.main").create_app(settings)
    async with app_client(app) as client:
        await client.get("/nowhere")
        exposed.add((await client.get("/metrics")).text)


def scrape_gateway(tree: Topology, folder: Path, exposed: Exposed) -> None:
    """Start a real Envoy in front of upstreams that answer, ask something, and scrape it."""
    issuer = Issuer()
    upstreams = Upstreams(issuer, tuple(tree.services))
    upstreams.start()
    try:
        with run_gateway(folder, upstreams.addresses, {"status": {"enabled": True}}) as gateway:
            gateway.get("/v1/items")
            gateway.get("/v1/orders", {"Authorization": f"Bearer {issuer.token()}"})
            answer = gateway.get("/stats/prometheus", port=gateway.status)
            exposed.add(answer.body.decode())
    finally:
        upstreams.stop()


OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>\d[\w.]*)|(?P<word>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<sign>=~|!~|!=|>=|<=|==|.))"""
)


def named(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of a query, with the labels that its selector names."""
    tokens = [(m.lastgroup, m[m.lastgroup or 0]) for m in _TOKEN.finditer(expr.strip())]
    tokens.append(("sign", ""))
    position = 0
    while position < len(tokens) - 1:
        kind, text = tokens[position]
        position += 1
        following = tokens[position][1]
        if text == "[":
            position = _after(tokens, position, "]")
        elif kind == "word" and text in GROUPING:
            if following == "(":
                position = _after(tokens, position, ")")
        elif kind == "word" and text not in OPERATORS and not _is_function(tokens, position):
            end = _after(tokens, position, "}") if following == "{" else position
            inside = tokens[position:end]
            yield text, {t for k, t in inside if k == "word"}
            position = end


def _is_function(tokens: list[tuple[str | None, str]], position: int) -> bool:
    """Tell whether the word before is called: `rate(`, `sum(`, or `sum by (job) (`."""
    return tokens[position][1] in {"(", "by", "without"}


def _after(tokens: list[tuple[str | None, str]], position: int, closing: str) -> int:
    while tokens[position][1] != closing:
        position += 1
    return position + 1
