"""What the observability chart may look at in a cluster: tokens, roles, and who needs none."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.charts.kube import of_kind, pods
from tests.charts.test_observability_chart import SHAPES, STACK, container, rendered


def test_two_have_a_token_and_they_may_only_look():
    """Namespaced Roles; the token is mounted by hand, for an hour."""
    manifests = rendered()
    holders = {"prometheus": "prometheus", "kube-state-metrics": "kube-state-metrics"}
    for name, pod in pods(manifests):
        assert pod["spec"]["automountServiceAccountToken"] is False
        tokens = [
            source
            for volume in pod["spec"].get("volumes", ())
            for source in volume.get("projected", {}).get("sources", ())
            if "serviceAccountToken" in source
        ]
        account = holders.get(name.removeprefix("Deployment "))
        assert len(tokens) == (1 if account else 0)
        assert pod["spec"].get("serviceAccountName") == account
    allowed = {
        name: {
            (resource, verb)
            for rule in of_kind(manifests, "Role", name)["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for name in holders
    }
    assert allowed["prometheus"] == {("pods", verb) for verb in ("get", "list", "watch")}
    counted = ("pods", "deployments", "horizontalpodautoscalers")
    assert allowed["kube-state-metrics"] == {(c, v) for c in counted for v in ("list", "watch")}
    assert not [m for m in manifests if m["kind"].startswith("Cluster")]
    for name in holders:
        (subject,) = of_kind(manifests, "RoleBinding", name)["subjects"]
        assert (subject["name"], subject["namespace"]) == (name, "slipway")


def test_kube_state_metrics_counts_what_it_may_look_at():
    """Its arguments name the resources and namespaces of its Roles; all, with a ClusterRole."""

    def words(**values: Any) -> set[str]:
        return set(container(rendered(**values), "kube-state-metrics")["args"])

    everywhere = "--resources=deployments,horizontalpodautoscalers,pods"
    assert words() == {everywhere, "--namespaces=slipway"}
    more = words(prometheus={"namespaces": ["a", "b"]})
    assert more == {everywhere, "--namespaces=slipway,a,b"}
    assert words(prometheus={"clusterWide": True}) == {everywhere}


@pytest.mark.parametrize(
    "values",
    [
        {"kubeStateMetrics": {"enabled": False}},
        {"prometheus": {"kubeStateMetrics": "kube-state-metrics.kube-system:8080"}},
        {"prometheus": {"enabled": False}},
        STACK,
    ],
    ids=["off", "another", "nobody asks", "stack"],
)
def test_kube_state_metrics_is_not_installed_where_nobody_needs_it(values: dict[str, Any]):
    """Switched off, one that is there already, or no Prometheus of ours."""
    names = {m["metadata"]["name"] for m in rendered(**values)}
    assert "kube-state-metrics" not in names


def test_more_namespaces_get_a_role_each_and_all_of_them_a_clusterrole():
    """What is discovered and what is allowed are the same."""
    accounts = ("prometheus", "kube-state-metrics")
    roles = [m for m in rendered(**SHAPES["more namespaces"]) if m["kind"] == "RoleBinding"]
    for name in accounts:
        own = [m for m in roles if m["subjects"][0]["name"] == name]
        assert [m["metadata"]["namespace"] for m in own] == ["slipway", "a", "b"]
    assert {m["subjects"][0]["namespace"] for m in roles} == {"slipway"}
    manifests = rendered(prometheus={"clusterWide": True})
    assert not [m for m in manifests if m["kind"] in {"Role", "RoleBinding"}]
    for name in accounts:
        role = of_kind(manifests, "ClusterRole", f"{name}-slipway-observability")
        binding = of_kind(manifests, "ClusterRoleBinding", role["metadata"]["name"])
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert {v for rule in role["rules"] for v in rule["verbs"]} <= {"get", "list", "watch"}


def test_containers_are_measured_by_a_clusterrole_on_nodes_only():
    """What cAdvisor tells of other namespaces is dropped; pods stay namespaced."""
    manifests = rendered(prometheus={"cadvisor": True, "namespaces": ["a"]})
    role = of_kind(manifests, "ClusterRole")
    assert {r for rule in role["rules"] for r in rule["resources"]} == {"nodes", "nodes/metrics"}
    assert len([m for m in manifests if m["kind"] == "Role"]) == 4
    config = of_kind(manifests, "ConfigMap", "prometheus")["data"]["prometheus.yml"]
    jobs = {each["job_name"]: each for each in yaml.safe_load(config)["scrape_configs"]}
    assert jobs["slipway"]["kubernetes_sd_configs"][0]["namespaces"]["names"] == ["slipway", "a"]
    kept = jobs["cadvisor"]["metric_relabel_configs"][-1]
    assert (kept["source_labels"], kept["regex"], kept["action"]) == (
        ["namespace"], "slipway|a", "keep")  # fmt: skip
    policy = of_kind(manifests, "NetworkPolicy", "prometheus")["spec"]
    assert 10250 in {port["port"] for rule in policy["egress"] for port in rule.get("ports", ())}
