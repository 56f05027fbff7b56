"""The observability chart's Jaeger and Grafana: what is kept, what leads where, who may connect."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from scripts import topology
from scripts.kube.releases import releases
from scripts.topology import ROOT
from tests.charts.kube import of_kind, render, values_of
from tests.charts.test_observability_chart import FULL, STACK, container, rendered
from tests.charts.test_observability_chart_config import config

TREE = topology.load()


def test_jaeger_counts_every_span_before_it_chooses():
    """Span metrics come from the pipeline in front of the sampling; errors and slow ones stay."""
    found = config("jaeger", "config.yaml")
    pipelines = found["service"]["pipelines"]
    received, stored = pipelines["traces/received"], pipelines["traces/stored"]
    assert set(received["exporters"]) == {"forward", "span_metrics"}
    assert "tail_sampling" not in received["processors"]
    assert stored["receivers"] == ["forward"]
    assert stored["processors"] == ["tail_sampling", "batch"]
    policies = {p["type"]: p for p in found["processors"]["tail_sampling"]["policies"]}
    assert policies["status_code"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["latency"]["latency"] == {"threshold_ms": 500}
    assert policies["probabilistic"]["probabilistic"] == {"sampling_percentage": 20}
    everything = config("jaeger", "config.yaml", jaeger={"tailSampling": {"enabled": False}})
    assert everything["service"]["pipelines"]["traces/stored"]["processors"] == ["batch"]
    assert "tail_sampling" not in everything["processors"]


@pytest.mark.parametrize(
    "values",
    [{}, FULL, STACK, {"jaeger": {"spanMetrics": {"enabled": False}}}],
    ids=["defaults", "full", "stack", "no span metrics"],
)
def test_what_jaegers_pipelines_name_is_configured_and_nothing_else_is(values: dict[str, Any]):
    """A collector refuses an unknown name at its start, and ignores an unused one."""
    found = config("jaeger", "config.yaml", **values)
    named: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in found["service"]["pipelines"].values():
        for part in named:
            named[part] |= set(pipeline.get(part, ()))
    connectors = set(found["connectors"])
    assert connectors == named["receivers"] & named["exporters"]
    for part, names in named.items():
        assert names - connectors == set(found[part])
    assert set(found["service"]["extensions"]) == set(found["extensions"])
    storage, query = found["extensions"]["jaeger_storage"], found["extensions"]["jaeger_query"]
    assert query["storage"]["traces"] in storage["backends"]
    assert found["exporters"]["jaeger_storage_exporter"]["trace_storage"] in storage["backends"]
    assert query["storage"].get("metrics") in {None, *storage.get("metric_backends", ())}


def test_jaegers_ports_are_those_of_its_config():
    """Services send to 4318, which the pod has open; Prometheus finds both kinds of metrics."""
    manifests = rendered()
    ports = {p["name"]: p["containerPort"] for p in container(manifests, "jaeger")["ports"]}
    text = json.dumps(config("jaeger", "config.yaml"))
    for name in ("otlp-grpc", "otlp-http", "query", "health", "span-metrics"):
        assert f"0.0.0.0:{ports[name]}" in text
    readers = config("jaeger", "config.yaml")["service"]["telemetry"]["metrics"]["readers"]
    assert readers[0]["pull"]["exporter"]["prometheus"]["port"] == ports["metrics"]
    service = {
        p["name"]: p["port"] for p in of_kind(manifests, "Service", "jaeger")["spec"]["ports"]
    }
    assert service == {"otlp-grpc": 4317, "otlp-http": 4318, "query": 16686}


def test_services_and_gateway_send_to_the_port_that_jaeger_opens():
    """The releases of development, with the values that they are installed with."""
    service = of_kind(rendered(), "Service", "jaeger")
    open_ports = {port["port"] for port in service["spec"]["ports"]}
    plan = {release.name: release for release in releases(TREE, "dev", observed=True)}
    for name, chart in (("orders", "service"), ("gateway", "gateway")):
        values = values_of(*(str(path.relative_to(ROOT)) for path in plan[name].values))
        url = urlsplit(values["tracing"]["endpoint"])
        assert (url.hostname, url.port in open_ports) == (service["metadata"]["name"], True)
        manifests = render(chart, values, name=name)
        ports = [
            rule["ports"][0]["port"]
            for rule in of_kind(manifests, "NetworkPolicy", name)["spec"]["egress"]
            for peer in rule["to"]
            if peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            == "jaeger"
        ]
        assert ports == [url.port]
        own = [m for m in manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name]
        assert "jaeger" in json.dumps(own)


STUBS = {
    "sleep": "exit 0",
    "promtool": "echo '{} => 1 @[1]'",
    "wget": """case "$*" in
  *api/v1/rules*) echo '{"name":"ErrorBudgetBurn"}' ;;
  *api/v1/alertmanagers*) echo '{"url":"http://alertmanager:9093/api/v2/alerts"}' ;;
  *grafana/api/health*) echo '{"database":"ok"}' ;;
  *v1/traces*) echo "$@" | grep -q '"code":2' && echo '{"partialSuccess":{}}' ;;
  *api/traces/*) echo "{\\"operationName\\":\\"${KEPT-helm test}\\"}" ;;
  *) echo ready ;;
esac""",
}


@pytest.mark.parametrize(
    ("broken", "environment", "expected"),
    [
        ("", {}, "everything observes"),
        ("", {"KEPT": "another"}, "FAILED: Jaeger keeps the trace"),
        ("promtool", {}, "FAILED: it scrapes itself"),
        ("wget", {}, "FAILED: Prometheus is ready"),
    ],
)
def test_helm_test_passes_when_all_is_well_and_names_what_is_not(
    broken: str, environment: dict[str, str], expected: str, tmp_path: Path
):
    """The script of the pod, in a real shell; what it calls is played."""
    for name, text in STUBS.items():
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{'exit 1' if name == broken else text}\n")
        file.chmod(0o755)
    (pod,) = [m for m in rendered() if m["kind"] == "Pod"]
    command = pod["spec"]["containers"][0]["command"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120,
        env={**environment, "PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert expected in done.stdout
    assert done.returncode == int("FAILED" in expected)


def sources(**values: Any) -> dict[str, dict[str, Any]]:
    """Return Grafana's data sources by uid."""
    found = config("grafana", "datasources.yaml", **values)["datasources"]
    return {source["uid"]: source for source in found}


def test_the_data_sources_are_those_of_the_dashboards():
    """Every uid that a committed dashboard names is provisioned."""
    used = {
        uid
        for file in (ROOT / "observability" / "dashboards").glob("*.json")
        for uid in re.findall(r'"uid": "(prometheus|jaeger|loki|alertmanager)"', file.read_text())
    }
    assert used
    assert used <= set(sources())


def test_grafana_leads_from_an_exemplar_to_its_trace_and_from_a_span_to_metrics_and_logs():
    """The label is the one that the chassis puts into exemplars."""
    found = sources(**FULL)
    (destination,) = found["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["datasourceUid"] == "jaeger"
    chassis = (ROOT / "services" / "chassis" / "chassis" / "metrics.py").read_text()
    assert f'Exemplar({{"{destination["name"]}":' in chassis
    jaeger = found["jaeger"]["jsonData"]
    assert jaeger["tracesToMetrics"]["datasourceUid"] == "prometheus"
    assert jaeger["tracesToMetrics"]["tags"] == [{"key": "service.name", "value": "job"}]
    assert jaeger["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert "loki" in found
    assert "tracesToLogsV2" not in sources()["jaeger"]["jsonData"]
    assert "loki" not in sources()


def test_grafana_does_not_take_our_variables_for_its_own():
    """It replaces $NAME in provisioned files by its environment; a doubled $ stays one."""
    text = of_kind(rendered(**FULL), "ConfigMap", "grafana")["data"]["datasources.yaml"]
    assert "$$__tags" in text
    assert not re.search(r"(?<!\$)\$(?!\$)", text)


def test_each_part_talks_to_those_it_needs():
    """Services bring spans from any namespace; few may ask Prometheus."""
    manifests = rendered()
    assert {m["metadata"]["name"] for m in manifests if m["kind"] == "NetworkPolicy"} == {
        "prometheus", "kube-state-metrics", "alertmanager", "grafana", "jaeger",
    }  # fmt: skip
    spans = of_kind(manifests, "NetworkPolicy", "jaeger")["spec"]["ingress"][0]
    assert spans["from"] == [
        {
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "slipway"}},
        }
    ]
    assert {port["port"] for port in spans["ports"]} == {"otlp-grpc", "otlp-http"}
    (asked,) = of_kind(manifests, "NetworkPolicy", "prometheus")["spec"]["ingress"]
    names = {
        peer["podSelector"]["matchLabels"].get("app.kubernetes.io/name") for peer in asked["from"]
    }
    assert names == {"prometheus", "grafana", "jaeger", "observability-test", None}
    alertmanager = of_kind(manifests, "NetworkPolicy", "alertmanager")["spec"]
    assert len(alertmanager["egress"]) == 1  # names only: there is nobody to tell
    _, told = of_kind(rendered(**FULL), "NetworkPolicy", "alertmanager")["spec"]["egress"]
    assert [port["port"] for port in told["ports"]] == [443, 587], "and the smarthost's port"
