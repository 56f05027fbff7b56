"""What the observability chart tells its programs, checked by their own tools where they exist."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import topology
from scripts.topology import ROOT
from tests.charts.kube import Manifest, of_kind, pods, render, values_of
from tests.charts.test_observability_chart import FULL, RECEIVERS, container, rendered

TREE = topology.load()
DEV = "k8s/environments/dev/"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: apt-get install --no-install-recommends prometheus",
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool, which comes with Alertmanager, is not installed"
)


def config(name: str, file: str, **values: Any) -> dict[str, Any]:
    """Return a configuration file of the release."""
    found = yaml.safe_load(of_kind(rendered(**values), "ConfigMap", name)["data"][file])
    assert isinstance(found, dict)
    return found


def prometheus(**values: Any) -> dict[str, Any]:
    """Return Prometheus' configuration."""
    return config("prometheus", "prometheus.yml", **values)


@functools.cache
def promtool_version() -> tuple[int, int]:
    """Return the version of the promtool here."""
    said = subprocess.run(["promtool", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    assert found
    return int(found[1]), int(found[2])


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it said. Fails when it does."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@functools.cache
def knows_kubernetes(folder: Path) -> bool:
    """Say whether the promtool here has Kubernetes' discovery; Debian builds it without."""
    file = folder / "kubernetes.yml"
    scrape = {"job_name": "a", "kubernetes_sd_configs": [{"role": "pod"}]}
    file.write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "kubernetes_sd_configs not found" not in done.stdout + done.stderr


def understood(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what the promtool here is too old to know."""
    known = json.loads(json.dumps(configuration))
    if promtool_version() < (3, 0):
        del known["otlp"]
    if promtool_version() < (3, 8):
        del known["storage"]["tsdb"]["retention"]
    assert isinstance(known, dict)
    return known


@needs_promtool
@pytest.mark.parametrize("values", [{}, FULL], ids=["defaults", "full"])
def test_promtool_takes_the_configuration_with_its_rules(values: dict[str, Any], tmp_path: Path):
    """The rendered files, the rules among them, at the paths of this test."""
    (tmp_path / "rules").mkdir()
    rules = of_kind(rendered(**values), "ConfigMap", "prometheus-rules")["data"]
    for name, text in rules.items():
        (tmp_path / "rules" / name).write_text(text)
    found = understood(prometheus(**values))
    found["rule_files"] = [f"{tmp_path}/rules/*.yaml"]
    for scrape in found["scrape_configs"]:
        # The token and the certificate are in the pod only.
        scrape.pop("authorization", None)
        scrape.get("tls_config", {}).pop("ca_file", None)
        if not knows_kubernetes(tmp_path):
            scrape.pop("kubernetes_sd_configs", None)
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(found))
    said = promtool("check", "config", file)
    assert said.count("SUCCESS") == 2 + len(rules)


def meta(manifest_pod: Manifest, address: str, phase: str = "Running") -> Iterator[dict[str, Any]]:
    """Yield what Kubernetes' discovery tells of a pod: one target for each container port."""
    labels = {
        re.sub(r"[^a-zA-Z0-9_]", "_", f"__meta_kubernetes_pod_label_{name}"): value
        for name, value in manifest_pod["metadata"]["labels"].items()
    }
    spec = manifest_pod["spec"]
    for kind in ("initContainers", "containers"):
        for each in spec.get(kind, ()):
            for port in each.get("ports") or [{}]:
                target = f"{address}:{port['containerPort']}" if port else address
                yield {
                    "targets": [target],
                    "labels": {
                        **labels,
                        "__meta_kubernetes_namespace": "slipway",
                        "__meta_kubernetes_pod_name": f"{address}-pod",
                        "__meta_kubernetes_pod_phase": phase,
                        "__meta_kubernetes_pod_container_init": str(
                            kind == "initContainers"
                        ).lower(),
                        "__meta_kubernetes_pod_container_port_name": port.get("name", ""),
                    },
                }


@functools.cache
def platform() -> list[tuple[str, Manifest]]:
    """Return every pod of the platform, as its charts make them in development."""
    found: list[tuple[str, Manifest]] = []
    for service in TREE:
        own = f"services/{service.name}/service.yaml"
        values = values_of(own, f"{DEV}services.yaml")
        found += pods(render("service", values, name=service.name))
    found += pods(render("gateway", values_of("k8s/gateway-services.yaml", f"{DEV}gateway.yaml")))
    files = ("k8s/datastores-services.yaml", "k8s/tracing/datastores.yaml", f"{DEV}datastores.yaml")
    stores = values_of(*files)
    found += pods(render("datastores", stores))
    found += pods(rendered())
    return found


@needs_promtool
def test_every_service_is_found_without_being_named(tmp_path: Path):
    """Prometheus' own relabelling, over the pods of the real charts."""
    found = understood(prometheus())
    text = json.dumps(found)
    assert not [service.name for service in TREE if re.search(rf"\b{service.name}\b", text)]
    targets = []
    for number, (_, pod) in enumerate(platform()):
        targets += list(meta(pod, f"10.0.0.{number}"))
    targets += list(meta(platform()[0][1], "10.0.9.9", phase="Succeeded"))
    (tmp_path / "pods.json").write_text(json.dumps(targets))
    (scrape,) = [each for each in found["scrape_configs"] if each["job_name"] == "slipway"]
    del scrape["kubernetes_sd_configs"]
    scrape["file_sd_configs"] = [{"files": [f"{tmp_path}/pods.json"]}]
    del found["rule_files"]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(found))
    said = promtool("check", "service-discovery", "--timeout=10s", file, "slipway")
    kept = [each["labels"] for each in json.loads(said) if each.get("labels")]
    scraped = sorted((t["job"], t["__address__"].partition(":")[2], t["__metrics_path__"])
                     for t in kept)  # fmt: skip
    expected = [(s.name, str(s.port), "/metrics") for s in TREE]
    expected += [
        ("gateway", "9902", "/stats/prometheus"),
        ("prometheus", "9090", "/metrics"),
        ("kube-state-metrics", "8081", "/metrics"),
        ("alertmanager", "9093", "/metrics"),
        ("grafana", "3000", "/metrics"),
        ("jaeger", "8888", "/metrics"),
        ("jaeger", "8889", "/metrics"),
        ("postgresql-exporter", "9187", "/metrics"),
    ]
    assert scraped == sorted(expected)
    for target in kept:
        assert target["namespace"] == "slipway"
        assert target["pod"] == target["__address__"].partition(":")[0] + "-pod"
        assert target["instance"] == target["__address__"]


@pytest.mark.parametrize(
    ("values", "namespaces"),
    [
        ({}, {"names": ["slipway"]}),
        ({"namespaces": ["a"]}, {"names": ["slipway", "a"]}),
        ({"clusterWide": True}, None),
        ({"cadvisor": True}, {"names": ["slipway"]}),
    ],
)
def test_only_pods_of_the_platform_are_looked_at(values: dict[str, Any], namespaces: object):
    """By label, on the API server, in the namespaces for which there is a Role."""
    scrapes = {each["job_name"]: each for each in prometheus(prometheus=values)["scrape_configs"]}
    (found,) = scrapes["slipway"]["kubernetes_sd_configs"]
    assert found["role"] == "pod"
    assert found.get("namespaces") == namespaces
    assert found["selectors"] == [{"role": "pod", "label": "app.kubernetes.io/part-of=slipway"}]
    assert ("cadvisor" in scrapes) is bool({"clusterWide", "cadvisor"} & set(values))


def test_what_is_counted_keeps_its_own_namespace_and_pod():
    """Ours by default, another by its address, none when switched off."""

    def asked(**values: Any) -> list[str]:
        scrapes = prometheus(**values)["scrape_configs"]
        jobs = [each for each in scrapes if each["job_name"] == "kube-state-metrics"]
        assert all(each["honor_labels"] for each in jobs)
        return [target for each in jobs for target in each["static_configs"][0]["targets"]]

    manifests = rendered()
    (port,) = of_kind(manifests, "Service", "kube-state-metrics")["spec"]["ports"]
    assert asked() == [f"kube-state-metrics:{port['port']}"]
    assert asked(prometheus={"kubeStateMetrics": "another:80"}) == ["another:80"]
    assert asked(kubeStateMetrics={"enabled": False}) == []


def test_prometheus_keeps_exemplars_takes_otlp_and_reads_changes_itself():
    """The flags and the storage; the size follows from the volume."""
    arguments = container(rendered(), "prometheus")["args"]
    assert {"--web.enable-otlp-receiver", "--enable-feature=exemplar-storage",
            "--config.auto-reload"} <= set(arguments)  # fmt: skip
    storage = prometheus(prometheus={"storage": {"mebibytes": 1000}})["storage"]
    assert storage["tsdb"]["retention"] == {"time": "31d", "size": "800MB"}
    assert storage["exemplars"]["max_exemplars"] == 100000
    # A file mounted by subPath would never change.
    mounts = container(rendered(), "prometheus")["volumeMounts"]
    assert not [mount for mount in mounts if "subPath" in mount]
    (path,) = [a.partition("=")[2] for a in arguments if a.startswith("--config.file=")]
    folders = {mount["mountPath"] for mount in mounts}
    assert str(Path(path).parent) in folders
    assert str(Path(prometheus()["rule_files"][0]).parent) in folders


def test_alerts_link_the_runbooks_where_the_tree_can_be_read():
    """A relative page is no link outside of this tree."""
    data = of_kind(rendered(**FULL), "ConfigMap", "prometheus-rules")["data"]
    text = "".join(data.values())
    urls = re.findall(r"runbook_url: (\S+)", text)
    assert urls
    assert all(url.startswith("https://git.slipway.dev/main/docs/runbooks/") for url in urls)
    assert all((ROOT / url.removeprefix("https://git.slipway.dev/main/")).suffix == ".md"
               for url in urls)  # fmt: skip


def test_alerts_go_by_their_severity_and_a_page_silences_the_tickets():
    """Every severity of the rules has a route; nobody is told by default."""
    found = config("alertmanager", "alertmanager.yml")
    routes = {route["matchers"][0]: route for route in found["route"]["routes"]}
    severities = {
        rule["labels"]["severity"]
        for file in (ROOT / "observability" / "rules").glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert set(routes) == {f'severity="{severity}"' for severity in severities}
    assert {route["receiver"] for route in routes.values()} == {"null"}
    assert found["receivers"] == [{"name": "null"}]
    (rule,) = found["inhibit_rules"]
    assert rule["source_matchers"] == ['severity="page"']
    assert rule["target_matchers"] == ['severity="ticket"']
    assert set(rule["equal"]) <= {"namespace", "service"}


def test_receivers_read_their_secrets_from_files_that_are_mounted():
    """No address and no key stands in the configuration."""
    values = {"alertmanager": RECEIVERS}
    found = config("alertmanager", "alertmanager.yml", **values)
    files = set(re.findall(r"/etc/alertmanager/secrets/[\w-]+", json.dumps(found)))
    manifests = rendered(**values)
    (volume,) = [
        v
        for v in of_kind(manifests, "Deployment", "alertmanager")["spec"]["template"]["spec"][
            "volumes"
        ]
        if v["name"] == "secrets"
    ]
    mounted = {
        f"/etc/alertmanager/secrets/{item['path']}"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert len(files) == 4
    assert files == mounted
    routes = {r["matchers"][0]: r["receiver"] for r in found["route"]["routes"]}
    assert routes == {'severity="page"': "oncall", 'severity="ticket"': "team"}


@needs_amtool
@pytest.mark.parametrize("values", [{}, {"alertmanager": RECEIVERS}], ids=["nobody", "everybody"])
def test_amtool_takes_the_configuration_and_routes_by_it(values: dict[str, Any], tmp_path: Path):
    """Alertmanager's own parser and router."""

    def amtool(*arguments: str | Path) -> str:
        done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    text = yaml.safe_dump(config("alertmanager", "alertmanager.yml", **values))
    version = re.search(r"version (\d+)\.(\d+)", amtool("--version"))
    assert version
    if (int(version[1]), int(version[2])) < (0, 26):  # it knows no webhook by file
        text = re.sub(r"url_file: (/\S+-webhook)", r"url: http://a\1", text)
    file = tmp_path / "alertmanager.yml"
    file.write_text(text)
    assert "SUCCESS" in amtool("check-config", file)
    routes = values.get("alertmanager", {}).get("routes", {})
    for severity in ("page", "ticket", "other"):
        told = amtool("config", "routes", "test", f"--config.file={file}", f"severity={severity}")
        assert told.splitlines()[0].strip() == routes.get(severity, "null")
