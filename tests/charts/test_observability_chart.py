"""The observability chart: what a cluster and an existing stack get, and what is refused."""

from __future__ import annotations

import base64
import functools
import json
import re
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml

from scripts.topology import ROOT
from tests.charts.kube import (
    VERSIONS,
    Manifest,
    RefusedError,
    label_errors,
    of_kind,
    pods,
    policy_errors,
    render,
    schema_errors,
)

CHART = ROOT / "charts" / "observability"
RULES = ROOT / "observability" / "rules"
DASHBOARDS = ROOT / "observability" / "dashboards"
FIELDS = {"prometheus", "kubeStateMetrics", "alertmanager", "grafana", "jaeger"}
PARTS = FIELDS - {"kubeStateMetrics"} | {"kube-state-metrics"}
DIGEST = "sha256:" + "d" * 64
STACK: dict[str, Any] = {
    "kubePrometheusStack": {"enabled": True},
    "assumeApis": ["monitoring.coreos.com/v1"],
}
RECEIVERS: dict[str, Any] = {
    "receivers": {
        "oncall": {
            "pagerduty": {"secret": {"name": "pagerduty", "key": "key"}},
            "slack": {"secret": {"name": "slack", "key": "url"}, "channel": "#pages"},
        },
        "team": {
            "webhook": {"secret": {"name": "hook", "key": "url"}},
            "email": {"to": "a@b.dev", "from": "c@b.dev", "smarthost": "mail.b.dev:587",
                      "username": "c", "secret": {"name": "mail", "key": "password"}},
        },
    },
    "routes": {"page": "oncall", "ticket": "team"},
}  # fmt: skip
FULL: dict[str, Any] = {
    "prometheus": {
        "clusterWide": True,
        "scrapeConfigs": [{"job_name": "mine", "static_configs": [{"targets": ["a:1"]}]}],
        "externalLabels": {"cluster": "eu-1"},
        "externalUrl": "https://prometheus.slipway.dev",
        "runbookBaseUrl": "https://git.slipway.dev/main/",
        "storage": {"className": "fast", "keep": False},
    },
    "alertmanager": {**RECEIVERS, "storage": {"type": "pvc"}, "externalUrl": "https://a.b.dev/am"},
    "grafana": {
        "anonymous": {"enabled": True},
        "rootUrl": "https://grafana.slipway.dev",
        "logs": {"url": "http://loki:3100"},
        "storage": {"type": "pvc", "keep": True},
    },
    "jaeger": {"backend": "badger", "tailSampling": {"enabled": False}},
    "networkPolicy": {
        "apiServerCidrs": ["192.0.2.1/32"],
        "grafanaFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        "extraEgress": {"grafana": [{"ports": [{"port": 3100, "protocol": "TCP"}]}]},
    },
}
PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "prometheus": {"image": {"digest": DIGEST}},
    "kubeStateMetrics": {"image": {"digest": DIGEST}},
    "alertmanager": {**RECEIVERS, "image": {"digest": DIGEST}, "storage": {"type": "pvc"}},
    "grafana": {"image": {"digest": DIGEST}},
    "jaeger": {"image": {"digest": DIGEST}, "backend": "badger"},
}
SHAPES = {
    "defaults": {},
    "full": FULL,
    "production": PRODUCTION,
    "only prometheus": {part: {"enabled": False} for part in FIELDS - {"prometheus"}},
    "more namespaces": {"prometheus": {"namespaces": ["a", "b"]}},
    "for a stack": STACK,
}


def rendered(**values: Any) -> list[Manifest]:
    """Return the release."""
    return _rendered(json.dumps(values))


@functools.cache
def _rendered(values: str) -> list[Manifest]:
    return render("observability", json.loads(values))


def container(manifests: list[Manifest], name: str) -> Manifest:
    """Return the container of a part."""
    (found,) = of_kind(manifests, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_the_chart_lints():
    """Helm finds nothing to say, warnings included."""
    report = helm_python.lint(CHART, {}, strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize("shape", SHAPES)
def test_kubernetes_takes_every_object(shape: str, version: str):
    """The oldest version we support and the newest: no unknown field, no wrong type."""
    assert schema_errors(rendered(**SHAPES[shape]), version) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pod_is_restricted_and_labelled(shape: str):
    """Pod Security `restricted`, a read-only root, requests, and our labels."""
    manifests = rendered(**SHAPES[shape])
    assert policy_errors(manifests) == []
    assert label_errors(manifests, "observability") == []


def test_there_is_one_pod_of_each_and_a_test():
    """Small: no replica of anything."""
    manifests = rendered()
    expected = {f"Deployment {part}" for part in PARTS} | {"Pod observability-test"}
    assert {name for name, _ in pods(manifests)} == expected
    for part in PARTS:
        spec = of_kind(manifests, "Deployment", part)["spec"]
        assert spec["replicas"] == 1
        assert spec["strategy"] == {"type": "Recreate"}
        labels = spec["template"]["metadata"]["labels"]
        service = of_kind(manifests, "Service", part)["spec"]
        assert service["selector"].items() <= labels.items()
        ports = {port["name"] for port in container(manifests, part)["ports"]}
        assert {port["targetPort"] for port in service["ports"]} <= ports


def test_every_rule_and_dashboard_of_the_tree_is_there_and_fits():
    """The chart's files are links to observability/, and each ConfigMap is far below 1 MiB."""
    manifests = rendered()
    rules = of_kind(manifests, "ConfigMap", "prometheus-rules")["data"]
    files = {file.name: file.read_text() for file in RULES.glob("*.yaml")}
    assert files
    assert {name: text.strip() for name, text in rules.items()} == {
        name: text.strip() for name, text in files.items()
    }
    boards = {
        name: text
        for m in manifests
        if m["kind"] == "ConfigMap" and m["metadata"]["name"].endswith("-dashboard")
        for name, text in m["data"].items()
    }
    assert boards == {file.name: file.read_text() for file in DASHBOARDS.glob("*.json")}
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            size = sum(len(text.encode()) for text in manifest["data"].values())
            assert size < 700_000, manifest["metadata"]["name"]


def test_grafana_mounts_every_dashboard():
    """One source each in the volume that the provider reads."""
    manifests = rendered()
    (volume,) = [
        v
        for v in of_kind(manifests, "Deployment", "grafana")["spec"]["template"]["spec"]["volumes"]
        if v["name"] == "dashboards"
    ]
    names = {source["configMap"]["name"] for source in volume["projected"]["sources"]}
    assert names == {f"{file.stem}-dashboard" for file in DASHBOARDS.glob("*.json")}
    environment = {e["name"]: e.get("value") for e in container(manifests, "grafana")["env"]}
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DASHBOARDS / home.rpartition("/")[2]).is_file()
    (mount,) = [
        m for m in container(manifests, "grafana")["volumeMounts"] if m["name"] == "dashboards"
    ]
    provider = yaml.safe_load(of_kind(manifests, "ConfigMap", "grafana")["data"]["dashboards.yaml"])
    assert provider["providers"][0]["options"]["path"] == mount["mountPath"]
    assert home.startswith(mount["mountPath"] + "/")


def test_grafanas_password_is_made_and_not_a_known_one():
    """Another with each rendering; in a cluster `lookup` keeps the first."""
    seen = set()
    for _ in range(2):
        data = of_kind(render("observability", {}), "Secret", "grafana")["data"]
        seen.add(base64.b64decode(data["admin-password"]).decode())
    assert len(seen) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", password) for password in seen)
    manifests = rendered(grafana={"existingSecret": "mine"})
    assert not [m for m in manifests if m["kind"] == "Secret"]
    refs = [e["valueFrom"]["secretKeyRef"] for e in container(manifests, "grafana")["env"][:2]]
    assert {ref["name"] for ref in refs} == {"mine"}


def test_nobody_comes_in_without_a_login_unless_told():
    """Off by default, and then as a viewer."""
    for given, expected in ((False, "false"), (True, "true")):
        manifests = rendered(grafana={"anonymous": {"enabled": given}})
        environment = {e["name"]: e.get("value") for e in container(manifests, "grafana")["env"]}
        assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == expected
        assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_volumes_are_claims_or_go_with_the_pod():
    """By values; a claim that is to be kept says so to Helm. Jaeger's memory needs none."""
    claims = {m["metadata"]["name"]: m for m in rendered() if m["kind"] == "PersistentVolumeClaim"}
    assert set(claims) == {"prometheus"}
    claim = claims["prometheus"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    manifests = rendered(**FULL)
    claims = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    stores = PARTS - {"kube-state-metrics"}
    assert set(claims) == stores
    assert claims["prometheus"]["spec"]["storageClassName"] == "fast"
    assert "annotations" not in claims["prometheus"]["metadata"]
    for part in stores:
        volumes = of_kind(manifests, "Deployment", part)["spec"]["template"]["spec"]["volumes"]
        (data,) = [volume for volume in volumes if volume["name"] == "data"]
        assert data["persistentVolumeClaim"] == {"claimName": part}


def test_a_stack_gets_monitors_rules_dashboards_and_a_data_source():
    """No Prometheus, Alertmanager or Grafana of ours; the labels by which theirs finds things."""
    manifests = rendered(**STACK)
    assert {name for name, _ in pods(manifests)} == {"Deployment jaeger"}
    wanted = {
        "PodMonitor": {"release": "kube-prometheus-stack"},
        "PrometheusRule": {"release": "kube-prometheus-stack"},
    }
    for kind, labels in wanted.items():
        found = [m for m in manifests if m["kind"] == kind]
        assert found
        assert all(labels.items() <= m["metadata"]["labels"].items() for m in found)
    rules = [m for m in manifests if m["kind"] == "PrometheusRule"]
    groups = [group for m in rules for group in m["spec"]["groups"]]
    files = [yaml.safe_load(file.read_text()) for file in sorted(RULES.glob("*.yaml"))]
    assert groups == [group for file in files for group in file["groups"]]
    boards = [m for m in manifests if m["metadata"]["name"].endswith("-dashboard")]
    assert len(boards) == len(list(DASHBOARDS.glob("*.json")))
    assert all(m["metadata"]["labels"]["grafana_dashboard"] == "1" for m in boards)
    snippet = of_kind(manifests, "ConfigMap", "slipway-datasources")
    assert snippet["metadata"]["labels"]["grafana_datasource"] == "1"
    (source,) = yaml.safe_load(snippet["data"]["slipway-datasources.yaml"])["datasources"]
    assert (source["uid"], source["url"]) == ("jaeger", "http://jaeger.slipway:16686")


def test_releases_with_monitors_and_slos_of_their_own_are_left_to_them():
    """Nobody is scraped twice; what no release brings still comes from here."""
    own = {"enabled": True, "servicePodMonitors": False, "serviceRules": False}
    manifests = rendered(**{**STACK, "kubePrometheusStack": own})
    (monitor,) = [m for m in manifests if m["kind"] == "PodMonitor"]
    (components,) = monitor["spec"]["selector"]["matchExpressions"]
    assert components["values"] == ["gateway", "service"]
    rules = {m["metadata"]["name"] for m in manifests if m["kind"] == "PrometheusRule"}
    assert rules == {"slipway-slo-gateway", "slipway-symptoms"}


def test_a_stack_with_its_own_jaeger_gets_no_pod_at_all():
    """Only objects that others read; without an address no data source either."""
    manifests = rendered(**{**STACK, "kubePrometheusStack": {"enabled": True, "jaeger": False}})
    assert {m["kind"] for m in manifests} == {"ConfigMap", "PodMonitor", "PrometheusRule"}
    assert not [m for m in manifests if m["metadata"]["name"] == "slipway-datasources"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "anonymous in production": (
        {**PRODUCTION, "grafana": {"anonymous": {"enabled": True}, "image": {"digest": DIGEST}}},
        "grafana.anonymous.enabled: everybody would see everything, refused in production"),
    "anonymous on staging": (
        {"environment": "staging", "grafana": {"anonymous": {"enabled": True}}},
        "refused in staging; set it to false"),
    "a tag in production": (
        {**PRODUCTION, "prometheus": {}}, "prometheus.image.digest: production runs images by"),
    "samples that go with the pod": (
        {**PRODUCTION,
         "prometheus": {"image": {"digest": DIGEST}, "storage": {"type": "emptyDir"}}},
        "prometheus.storage.type: production keeps its data"),
    "traces that go with the pod": (
        {**PRODUCTION, "jaeger": {"image": {"digest": DIGEST}}},
        "jaeger.backend: production keeps its traces"),
    "pages that nobody hears": (
        {**PRODUCTION, "alertmanager": {"image": {"digest": DIGEST}, "storage": {"type": "pvc"}}},
        "alertmanager.routes.page: nobody would hear"),
    "no such receiver": (
        {"alertmanager": {"routes": {"page": "oncal"}}},
        'alertmanager.routes.page: there is no receiver "oncal"'),
    "a receiver without a route": (
        {"alertmanager": {"receivers": RECEIVERS["receivers"], "routes": {"page": "oncall"}}},
        "alertmanager.receivers.team: no route leads there"),
    "a stack that is not there": (
        {"kubePrometheusStack": {"enabled": True}},
        "kubePrometheusStack.enabled: the cluster has no monitoring.coreos.com/v1; install"),
    "its own namespace": (
        {"prometheus": {"namespaces": ["slipway"]}}, "prometheus.namespaces: its own, slipway,"),
    "all namespaces and some": (
        {"prometheus": {"namespaces": ["a"], "clusterWide": True}}, "remove one of the two"),
    "cAdvisor twice": (
        {"prometheus": {"cadvisor": True, "clusterWide": True}},
        "prometheus.cadvisor: clusterWide asks cAdvisor as well"),
    "a job of the chart": (
        {"prometheus": {"scrapeConfigs": [{"job_name": "slipway"}]}},
        "prometheus.scrapeConfigs[0].job_name: slipway is a job of this chart"),
    "a receiver that does nothing": (
        {"alertmanager": {"receivers": {"a": {}}}}, "'/alertmanager/receivers/a'"),
    "a receiver called null": (
        {"alertmanager": {"receivers": {"null": RECEIVERS["receivers"]["team"]}}},
        "invalid propertyName 'null'"),
    "an address in the values": (
        {"alertmanager": {"receivers": {"a": {"webhook": {"url": "http://a"}}}}},
        "'/alertmanager/receivers/a/webhook'"),
    "a typo": ({"promethues": {}}, "'promethues' not allowed"),
    "a typo below": ({"jaeger": {"tailSampling": {"ratio": 1}}}, "'/jaeger/tailSampling'"),
    "an image that moves": ({"jaeger": {"image": {"tag": "latest"}}}, "'/jaeger/image/tag'"),
    "root": ({"grafana": {"user": 0}}, "'/grafana/user'"),
    "more than all": ({"jaeger": {"tailSampling": {"percent": 101}}}, "percent"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_wrong_value_is_refused_with_a_sentence(mistake: str):
    """Nothing is rendered; the line names the field."""
    values, expected = REFUSED[mistake]
    with pytest.raises(RefusedError) as caught:
        rendered(**values)
    assert expected in str(caught.value)


def test_every_value_has_a_default_and_every_default_a_schema():
    """values.yaml and values.schema.json list the same fields."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)

    def compare(values: dict[str, Any], part: dict[str, Any], path: str) -> None:
        assert part["additionalProperties"] is False, path
        optional = {"cpu", "memory", "ephemeral-storage", "global"}
        assert set(values) - optional == set(part["properties"]) - optional, path
        for name, value in values.items():
            below = part["properties"][name]
            if "$ref" in below:
                below = schema["definitions"][below["$ref"].rsplit("/", 1)[1]]
            if isinstance(value, dict) and "properties" in below:
                compare(value, below, f"{path}{name}.")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")
