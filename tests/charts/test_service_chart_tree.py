"""The chart with the tree: every service.yaml, every environment, and the settings behind them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import helm_python
import pytest
import yaml

from chassis.settings import ServiceSettings
from scripts import topology
from scripts.gateway import merge
from scripts.topology import ROOT
from tests.charts import kube
from tests.charts.service.cases import CHART, manifests, read, refusal

TREE = topology.load()
ENVIRONMENTS = sorted(f.parent.name for f in ROOT.glob("k8s/environments/*/services.yaml"))

# What staging and production leave to who installs there, and a case must therefore bring.
OUTSIDE: dict[str, Any] = {
    "issuer": "https://api.example.org",
    "image": {"digest": "sha256:" + "a" * 64},
    "networkPolicy": {
        "database": {"cidrs": ["10.20.0.0/16"]},
        "valkey": {"cidrs": ["10.30.0.0/16"]},
    },
}


def values_of(service: str, environment: str = "") -> dict[str, Any]:
    """Return a release's values: service.yaml, then the environment's files."""
    values = read(ROOT / "services" / service / "service.yaml")
    if environment:
        folder = ROOT / "k8s" / "environments" / environment
        values = merge(values, read(folder / "services.yaml"))
        if (folder / f"{service}.yaml").exists():
            values = merge(values, read(folder / f"{service}.yaml"))
        if environment != "dev":
            values = merge(values, OUTSIDE)
    return values


RELEASES = [(name, env) for name in TREE.services for env in ("", *ENVIRONMENTS)]


def test_the_three_environments_are_there():
    assert ENVIRONMENTS == ["dev", "production", "staging"]


@pytest.mark.parametrize(("service", "environment"), RELEASES)
def test_every_release_of_the_tree_is_sound(service: str, environment: str):
    """service.yaml unchanged, alone and in each environment: schemas, policies, labels."""
    found = manifests(values_of(service, environment))
    for version in (kube.VERSIONS[0], kube.VERSIONS[-1]):
        assert kube.schema_errors(found, version) == []
    assert kube.policy_errors(found) == []
    assert kube.label_errors(found, service) == []
    deployment = kube.of_kind(found, "Deployment", service)
    assert "replicas" not in deployment["spec"]
    kube.of_kind(found, "HorizontalPodAutoscaler", service)


@pytest.mark.parametrize("service", TREE.services)
def test_every_service_lints(service: str):
    report = helm_python.lint(CHART, values_of(service), strict=True, namespace="slipway")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("service", TREE.services)
def test_production_is_refused_until_it_is_told_what_only_its_owner_knows(service: str):
    """The files of the tree alone are not enough, and each missing fact is named."""
    values = values_of(service, "production")
    for field in OUTSIDE:
        del values[field]
    original = values_of(service)
    said = refusal(merge(values, {"image": original["image"]}))
    assert "issuer: " in said
    assert "image.tag: " in said
    assert ("networkPolicy.database.cidrs: " in said) is TREE[service].database


@pytest.mark.parametrize("service", TREE.services)
def test_the_environment_is_the_topologys(service: str):
    """What a pod gets is what the local runner derives, plus what only a cluster has."""
    found = kube.of_kind(manifests(values_of(service)), "ConfigMap", service)["data"]
    derived = TREE[service].environment(lambda peer: f"http://{peer}")
    prefix = TREE[service].prefix
    subscribers = f"{prefix}SUBSCRIBERS"
    if subscribers in derived:
        assert json.loads(found.pop(subscribers)) == json.loads(derived.pop(subscribers))
    assert derived.items() <= found.items()
    assert found.keys() - derived.keys() <= {
        f"{prefix}{name}" for name in ("ENVIRONMENT", "HOST", "PORT", "DRAIN_SECONDS", "ISSUER")
    } | {"SLIPWAY_VERSION", f"{prefix}AUTH_URL"}


@pytest.mark.parametrize("service", TREE.services)
def test_the_services_settings_understand_their_environment(
    service: str, monkeypatch: pytest.MonkeyPatch
):
    """Each variable is a setting of that service, and all of them together are accepted."""
    values = values_of(service, "production")
    values = merge(values, {"tracing": {"endpoint": "http://jaeger:4318", "sampleRatio": 0.5}})
    found = manifests(values)
    container = kube.of_kind(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    variables = dict(kube.of_kind(found, "ConfigMap")["data"])
    for entry in container.get("env", []):
        variables[entry["name"]] = secret(entry["name"])
    cls: type[ServiceSettings] = importlib.import_module(
        f"{TREE[service].module}.settings"
    ).Settings
    prefix = TREE[service].prefix
    fields = {f"{prefix}{name}".upper() for name in cls.model_fields}
    # A peer that is only told events is found by SUBSCRIBERS.
    told = {peer for peers in TREE[service].publishes.values() for peer in peers}
    unread = {f"{prefix}{peer.upper().replace('-', '_')}_URL" for peer in told}
    assert {name for name in variables if name not in fields} - unread == {"SLIPWAY_VERSION"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = cls()
    assert settings.environment == "production"
    assert settings.host == "0.0.0.0"
    assert settings.port == TREE[service].port
    assert settings.issuer == "https://api.example.org"
    assert settings.auth_url == "http://auth"
    assert settings.trace_sample_ratio == 0.5
    for peer in TREE[service].depends_on:
        assert variables[f"{prefix}{peer.upper().replace('-', '_')}_URL"] == f"http://{peer}"


def secret(name: str) -> str:
    """Return a value of the right kind for a secret variable."""
    match name.partition("_")[2]:
        case "DATABASE_URL":
            return "postgresql://books:xK3vQ8rT2m@10.20.0.7/books"
        case "VALKEY_URL":
            return "valkeys://:xK3vQ8rT2m@10.30.0.7:6379/0"
        case "CLIENTS":
            return json.dumps({"orders": {"secret": "xK3vQ8rT2mB7nC1z", "scopes": []}})
        case "KEY_ENCRYPTION_KEY":
            return "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="
        case _:
            return "xK3vQ8rT2mB7nC1z"


def admits(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    """Say whether a policy's peer selects pods of these labels in the same namespace."""
    if "ipBlock" in peer:
        return False
    wanted = peer.get("podSelector", {}).get("matchLabels", {})
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {})
    here = {"kubernetes.io/metadata.name": "slipway"}
    return wanted.items() <= labels.items() and namespace.items() <= here.items()


def talks(source: str, target: str, sender: dict[str, str], receiver: dict[str, str]) -> bool:
    """Say whether the network policies of two releases let a request through."""
    out = kube.of_kind(manifests(values_of(source)), "NetworkPolicy", source)["spec"]["egress"]
    into = kube.of_kind(manifests(values_of(target)), "NetworkPolicy", target)["spec"]["ingress"]
    port = {"port": "http", "protocol": "TCP"}
    return any(
        admits(peer, receiver) for rule in out if port in rule["ports"] for peer in rule["to"]
    ) and any(
        admits(peer, sender) for rule in into if port in rule["ports"] for peer in rule["from"]
    )


def labels_of(service: str) -> dict[str, str]:
    """Return the labels of a service's serving pods."""
    deployment = kube.of_kind(manifests(values_of(service)), "Deployment", service)
    found: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return found


def test_the_network_follows_depends_on():
    """Of all pairs, those talk that one names the other, and everybody to auth for its keys."""
    for source in TREE:
        for target in TREE:
            if source.name == target.name:
                continue
            expected = target.name in source.depends_on or target.name == "auth"
            found = talks(source.name, target.name, labels_of(source.name), labels_of(target.name))
            assert found is expected, f"{source.name} -> {target.name}"


@pytest.mark.parametrize("policy", ["items", "items-migrate", "items-seed"])
def test_names_and_the_database_are_reached(policy: str):
    """By what serves and by both hooks; and no rule is open to everybody."""
    values = merge(values_of("items"), {"seed": {"enabled": True}})
    egress = kube.of_kind(manifests(values), "NetworkPolicy", policy)["spec"]["egress"]
    dns, database = (
        {"kubernetes.io/metadata.name": "kube-system"},
        {"app.kubernetes.io/name": "postgresql"},
    )
    names = [r for r in egress if {"namespaceSelector": {"matchLabels": dns}} in r["to"]]
    assert [sorted(p["protocol"] for p in r["ports"]) for r in names] == [["TCP", "UDP"]]
    assert {p["port"] for p in names[0]["ports"]} == {53}
    stores = [r for r in egress if {"podSelector": {"matchLabels": database}} in r["to"]]
    assert [r["ports"] for r in stores] == [[{"port": 5432, "protocol": "TCP"}]]
    assert all(peer for rule in egress for peer in rule["to"])
    managed = merge(values, {"networkPolicy": {"database": {"cidrs": ["10.20.0.0/16"]}}})
    egress = kube.of_kind(manifests(managed), "NetworkPolicy", policy)["spec"]["egress"]
    blocks = [r for r in egress if r["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]]
    assert [r["ports"] for r in blocks] == [[{"port": 5432, "protocol": "TCP"}]]
    assert not any(admits(peer, database) for r in egress for peer in r["to"])


def test_without_a_database_none_is_reached():
    egress = kube.of_kind(manifests(values_of("info")), "NetworkPolicy", "info")["spec"]["egress"]
    database = {"app.kubernetes.io/name": "postgresql"}
    assert not any(admits(peer, database) for rule in egress for peer in rule["to"])


def test_who_else_comes_in_is_said():
    """Gateway pods where there are routes, Prometheus, the release's own test; no more."""
    rules = kube.of_kind(manifests(values_of("items")), "NetworkPolicy", "items")["spec"]["ingress"]
    (rule,) = rules
    strangers = {
        "gateway": ({"app.kubernetes.io/component": "gateway"}, True),
        "prometheus": ({"app.kubernetes.io/name": "prometheus"}, True),
        "its test": (
            {"app.kubernetes.io/name": "items-test", "app.kubernetes.io/instance": "items"},
            True,
        ),
        "another's test": (
            {"app.kubernetes.io/name": "info-test", "app.kubernetes.io/instance": "info"},
            False,
        ),
        "its migration": (
            {"app.kubernetes.io/name": "items-migrate", "app.kubernetes.io/instance": "items"},
            False,
        ),
        "nobody": ({}, False),
    }
    for who, (labels, expected) in strangers.items():
        assert any(admits(peer, labels) for peer in rule["from"]) is expected, who
    # The port of the metrics is that of the API: elsewhere anybody may call a pod prometheus.
    assert not any("namespaceSelector" in peer for peer in rule["from"])
    hidden = values_of("items")
    hidden["routes"] = []
    rules = kube.of_kind(manifests(hidden), "NetworkPolicy", "items")["spec"]["ingress"]
    gateway = {"app.kubernetes.io/component": "gateway"}
    assert not any(admits(peer, gateway) for peer in rules[0]["from"])


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://jaeger:4318", 4318), ("http://jaeger", 80), ("https://otlp.example.org/", 443)],
)
def test_spans_may_leave_when_they_have_a_place_to_go(endpoint: str, port: int):
    values = merge(values_of("items"), {"tracing": {"endpoint": endpoint}})
    egress = kube.of_kind(manifests(values), "NetworkPolicy", "items")["spec"]["egress"]
    jaeger = {"app.kubernetes.io/name": "jaeger"}
    assert [r["ports"][0]["port"] for r in egress if any(admits(p, jaeger) for p in r["to"])] == [
        port
    ]
    silent = kube.of_kind(manifests(values_of("items")), "NetworkPolicy", "items")["spec"]["egress"]
    assert not any(admits(p, jaeger) for r in silent for p in r["to"])


@contextmanager
def answering(version: str | None) -> Iterator[str]:
    """Serve /readyz and an OpenAPI document of a version; without one, not ready."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if version is None else 200)
            self.end_headers()
            document = {"info": {"version": version}, "paths": {"/books": {}}}
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def helm_test(url: str, version: str) -> tuple[int, str]:
    """Run what `helm test` runs, as the pod does, against one URL."""
    spec = kube.of_kind(manifests(values_of("items")), "Pod", "items-test")["spec"]
    container = spec["containers"][0]
    assert container["args"][-2:] == ["http://items", "http://items-headless:8000"]
    assert container["args"][1] == f"--version={read(CHART / 'Chart.yaml')['appVersion']}"
    command = [
        sys.executable,
        *container["command"][1:],
        "--timeout=0",
        f"--version={version}",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_helm_test_proves_that_this_version_serves():
    """0 only for a ready service of the version that was released."""
    with answering("2.0.0") as url:
        assert helm_test(url, "2.0.0") == (0, f"{url}: serves\n")
        assert helm_test(url, "2.0.1") == (1, f"{url}: version 2.0.0 answers, not 2.0.1\n")
    with answering(None) as url:
        code, said = helm_test(url, "2.0.0")
        assert (code, "503" in said) == (1, True)
    code, said = helm_test("http://127.0.0.1:9", "2.0.0")
    assert (code, "refused" in said) == (1, True)


def test_a_service_without_documents_is_tested_by_its_health_alone():
    """<NAME>_DOCS_ENABLED: false takes /openapi.json away."""
    values = merge(values_of("items"), {"env": {"ITEMS_DOCS_ENABLED": False}})
    pod = kube.of_kind(manifests(values), "Pod", "items-test")
    assert not any(a.startswith("--version") for a in pod["spec"]["containers"][0]["args"])


def test_the_test_pod_may_reach_the_service():
    """Out by its own policy, in by the service's."""
    found = manifests(values_of("items"))
    policy = kube.of_kind(found, "NetworkPolicy", "items-test")["spec"]
    pod = kube.of_kind(found, "Pod", "items-test")
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert any(admits(peer, labels_of("items")) for rule in policy["egress"] for peer in rule["to"])


def test_the_gateway_finds_the_pods_by_the_headless_name():
    """Its upstreams are <name>-headless at the port that the Service has."""
    gateway = yaml.safe_load((ROOT / "k8s" / "gateway-services.yaml").read_text())["services"]
    suffix = read(ROOT / "charts" / "gateway" / "values.yaml")["upstream"]["hostSuffix"]
    for name, entry in gateway.items():
        service = kube.of_kind(manifests(values_of(name)), "Service", f"{name}{suffix}")
        assert [p["port"] for p in service["spec"]["ports"]] == [entry["port"]]
