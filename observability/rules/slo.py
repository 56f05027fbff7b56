"""SLO rules as plain rule files, from the chart that renders them for the Prometheus operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

from scripts.gateway import merge
from scripts.topology import ROOT, Service, Topology

CHART = Path("charts", "service")
GATEWAY = Path("observability", "gateway.yaml")

Groups = list[dict[str, Any]]

_NAMESPACE = "slipway"
# A release knows its namespace; a rule file serves every namespace of its Prometheus, each by
# itself: the rates are summed by namespace, and the label goes through all rules.
_MATCHER = f'namespace="{_NAMESPACE}",'
_RULES = {
    "monitoring": {"prometheusRule": {"enabled": True}},
    "assumeApis": ["monitoring.coreos.com/v1"],
}


class RulesError(Exception):
    """The rules cannot be rendered. Its text is one line."""


def service_groups(service: Service) -> Groups:
    """Return the rule groups of a service's SLO.

    Raises:
        RulesError: the chart refuses the values.
    """
    return _render(service.values)


def gateway_groups(tree: Topology) -> Groups:
    """Return the rule groups of the gateway's SLO: the same rules on Envoy's counters."""
    given: dict[str, Any] = yaml.safe_load((ROOT / GATEWAY).read_text())
    needed = {"description": "The gateway.", "image": {"repository": "envoy"}, "port": 8080}
    groups = _render({**needed, **given})
    counters = _envoy_counters(int(given["slo"]["latency"]["milliseconds"]), tree)
    for rule in _rules(groups):
        key = (rule.get("record"), rule["labels"]["slo"])
        rule["expr"] = counters.pop(key, rule["expr"])
    if counters or any("http_request" in rule["expr"] for rule in _rules(groups)):
        raise RulesError(f"{CHART}: what it records of a service has other names than here")
    return groups


def timed_clusters(tree: Topology) -> str:
    """Return the matcher of the clusters whose answers are to be quick.

    Envoy times a request until its answer has ended, which for a stream is when somebody leaves.
    """
    streaming = sorted(
        service.name
        for service in tree
        if any(route.websocket or route.timeout_seconds == 0 for route in service.routes)
    )
    # Names that begin with _ are no services.
    return f'envoy_cluster_name!~"{"|".join(["_.*", *streaming])}"'


def _envoy_counters(milliseconds: int, tree: Topology) -> dict[tuple[str | None, str], str]:
    """Return the queries of what Envoy counts, in place of those of what a service counts."""

    def rate(metric: str, of: str) -> str:
        return f'sum by (namespace) (rate({metric}{{job="gateway",{of}}}[5m]))'

    answers, public = "envoy_http_downstream_rq_xx", 'envoy_http_conn_manager_prefix="public"'
    timed, clusters = "envoy_cluster_upstream_rq_time", timed_clusters(tree)
    # Envoy writes the bound as 1000; Prometheus 3 stores it as 1000.0.
    within = f'{clusters},le=~"{milliseconds}([.]0)?"'
    failed = f'{public},envoy_response_code_class="5"'
    return {
        ("slipway:slo_requests:rate5m", "availability"): rate(answers, public),
        ("slipway:slo_bad:rate5m", "availability"): rate(answers, failed),
        ("slipway:slo_requests:rate5m", "latency"): rate(f"{timed}_count", clusters),
        ("slipway:slo_bad:rate5m", "latency"): (
            f"{rate(f'{timed}_count', clusters)} - {rate(f'{timed}_bucket', within)}"
        ),
    }


def _rules(groups: Groups) -> Groups:
    return [rule for group in groups for rule in group["rules"]]


def _render(values: Mapping[str, Any]) -> Groups:
    name = values["name"]
    try:
        with helm_python.Chart.load(ROOT / CHART) as chart:
            rendered = chart.render(merge(values, _RULES), name=name, namespace=_NAMESPACE)
    except helm_python.HelmError as error:
        raise RulesError(f"{CHART}: {name}: {' '.join(str(error).split())}") from None
    text = next(t for path, t in rendered.items() if Path(path).name == "prometheusrule.yaml")
    groups: Groups = yaml.safe_load(text)["spec"]["groups"]
    for rule in _rules(groups):
        rule["expr"] = rule["expr"].replace(_MATCHER, "")
        if "namespace=" in rule["expr"]:
            raise RulesError(f"{CHART}: {name}: a rule is tied to one namespace: {rule['expr']}")
    return groups
