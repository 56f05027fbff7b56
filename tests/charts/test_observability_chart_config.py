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
from tests.charts.test_observability_chart import FULL, RECEIVERS, STACK, container, rendered

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
    stores = values_of("k8s/datastores-services.yaml", f"{DEV}datastores.yaml")
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
        ("alertmanager", "9093", "/metrics"),
        ("grafana", "3000", "/metrics"),
        ("jaeger", "8888", "/metrics"),
        ("jaeger", "8889", "/metrics"),
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
    ],
)
def test_only_pods_of_the_platform_are_looked_at(values: dict[str, Any], namespaces: object):
    """By label, on the API server, in the namespaces for which there is a Role."""
    scrapes = {each["job_name"]: each for each in prometheus(prometheus=values)["scrape_configs"]}
    (found,) = scrapes["slipway"]["kubernetes_sd_configs"]
    assert found["role"] == "pod"
    assert found.get("namespaces") == namespaces
    assert found["selectors"] == [{"role": "pod", "label": "app.kubernetes.io/part-of=slipway"}]
    assert ("cadvisor" in scrapes) is values.get("clusterWide", False)


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
def test_amtool_takes_the_configuration(values: dict[str, Any], tmp_path: Path):
    """Alertmanager's own parser."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config("alertmanager", "alertmanager.yml", **values)))
    done = subprocess.run(
        ["amtool", "check-config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_jaeger_counts_every_span_before_it_chooses():
    """Span metrics come from the pipeline in front of the sampling; errors and slow ones stay."""
    found = config("jaeger", "config.yaml")
    pipelines = found["service"]["pipelines"]
    received, stored = pipelines["traces/received"], pipelines["traces/stored"]
    assert set(received["exporters"]) == {"forward", "spanmetrics"}
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
        "prometheus", "alertmanager", "grafana", "jaeger",
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
    assert len(of_kind(rendered(**FULL), "NetworkPolicy", "alertmanager")["spec"]["egress"]) == 2
