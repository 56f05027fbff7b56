"""What the service chart renders: each template, Kubernetes' schemas, and the policies."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import pytest

from chassis.metrics import BUCKETS
from chassis.settings import ServiceSettings
from scripts.gateway import merge
from tests.charts import kube
from tests.charts.service.cases import (
    CASES,
    CHART,
    EXPECTED,
    README,
    case,
    example,
    manifests,
    read,
    readme,
    texts,
)

SERVING = [name for name in CASES if case(name).get("kind") != "job"]


def of(kind: str, values: dict[str, Any], name: str = "books") -> dict[str, Any]:
    """Return the object of a kind and name."""
    return kube.of_kind(manifests(values), kind, name)


def changed(name: str, **over: Any) -> dict[str, Any]:
    """Return a case with some values changed."""
    return merge(case(name), over)


def pod(values: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a serving pod."""
    spec: dict[str, Any] = of("Deployment", values)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", CASES)
def test_the_committed_example_is_what_the_chart_renders(name: str):
    """After a change: python -m tests.charts.service.cases --write, and read the difference."""
    assert (EXPECTED / f"{name}.yaml").read_text() == example(name)


def test_there_is_no_example_without_a_case():
    assert {file.stem for file in EXPECTED.glob("*.yaml")} == set(CASES)


def test_the_readme_lists_the_values_of_today():
    """The same command writes the table."""
    assert readme() == README.read_text()
    assert readme().count("| `autoscaling.") > 10


@pytest.mark.parametrize("name", CASES)
def test_the_chart_lints(name: str):
    """Helm finds nothing to say, warnings included."""
    report = helm_python.lint(CHART, case(name), strict=True, namespace="slipway")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


def test_the_versions_begin_where_the_chart_does():
    """The oldest is the chart's kubeVersion; the list has no hole up to the newest."""
    minors = [int(version.split(".")[1]) for version in kube.VERSIONS]
    assert read(CHART / "Chart.yaml")["kubeVersion"] == ">=1.30.0-0"
    assert minors == list(range(30, max(minors) + 1))
    assert max(minors) >= 36


@pytest.mark.parametrize("version", kube.VERSIONS)
def test_kubernetes_takes_it(version: str):
    """Every object of every case, in each version from 1.30 to the newest, no field unknown."""
    for name in CASES:
        assert kube.schema_errors(manifests(case(name)), version) == [], name


@pytest.mark.parametrize("name", CASES)
def test_every_pod_is_restricted(name: str):
    """Pod Security restricted, hooks and tests too; requests, no token, no latest, all labels."""
    found = manifests(case(name))
    assert len(list(kube.pods(found))) >= (2 if name in SERVING else 1)
    assert kube.policy_errors(found) == []
    assert kube.label_errors(found, "books") == []


@pytest.mark.parametrize("name", SERVING)
def test_probes_are_three_different_questions(name: str):
    """Each has its own path, and liveness gives up last."""
    container = pod(case(name))["containers"][0]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert {k: p["httpGet"] for k, p in probes.items()} == {
        "startup": {"path": "/startupz", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    patience = {k: p["periodSeconds"] * p["failureThreshold"] for k, p in probes.items()}
    assert patience["readiness"] < patience["liveness"]


@pytest.mark.parametrize("name", SERVING)
def test_ports_selectors_and_names_agree(name: str):
    """Both Services and the budget find the serving pods, and none of a hook or test."""
    found = manifests(case(name))
    serving = kube.of_kind(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    others = [p["metadata"]["labels"] for who, p in kube.pods(found) if "Deployment" not in who]
    plain = kube.of_kind(found, "Service", "books")["spec"]
    headless = kube.of_kind(found, "Service", "books-headless")["spec"]
    budget = kube.of_kind(found, "PodDisruptionBudget")["spec"]
    for selector in (plain["selector"], headless["selector"], budget["selector"]["matchLabels"]):
        assert selector.items() <= serving.items()
        assert not any(selector.items() <= labels.items() for labels in others)
    port = case(name)["port"]
    assert pod(case(name))["containers"][0]["ports"][0]["containerPort"] == port
    assert [(p["port"], p["targetPort"]) for p in plain["ports"]] == [(80, "http")]
    assert headless["clusterIP"] == "None"
    assert [(p["port"], p["targetPort"]) for p in headless["ports"]] == [(port, "http")]


def test_the_autoscaler_owns_the_number():
    """Replicas stand in the Deployment only when nobody else writes them."""
    for name in ("minimal", "keda"):
        assert "replicas" not in of("Deployment", case(name))["spec"]
    assert of("Deployment", case("fixed"))["spec"]["replicas"] == 4
    none = changed("minimal", autoscaling={"mode": "none", "minReplicas": 3})
    assert of("Deployment", none)["spec"]["replicas"] == 3
    assert of("Deployment", changed("fixed", replicas=0))["spec"]["replicas"] == 0
    kinds = {m["kind"] for m in manifests(case("fixed"))}
    assert not kinds & {"HorizontalPodAutoscaler", "ScaledObject"}


def test_the_hpa_aims_at_what_is_asked_for():
    """CPU by default; memory and requests per second besides; fast up and slow down."""
    spec = of("HorizontalPodAutoscaler", case("minimal"))["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert [m["containerResource"]["name"] for m in spec["metrics"]] == ["cpu"]
    assert spec["metrics"][0]["containerResource"]["container"] == "books"
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert down["stabilizationWindowSeconds"] == 300
    spec = of("HorizontalPodAutoscaler", case("full"))["spec"]
    assert [m["type"] for m in spec["metrics"]] == ["ContainerResource"] * 2 + ["Pods"]
    assert spec["metrics"][2]["pods"]["target"]["averageValue"] == "42500m"
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 120
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "books",
    }


def test_keda_aims_at_the_same():
    spec = of("ScaledObject", case("keda"))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 30)
    assert [t["type"] for t in spec["triggers"]] == ["cpu", "prometheus", "cron"]
    asked = spec["triggers"][1]["metadata"]
    assert asked["threshold"] == "50"
    assert 'http_requests_total{namespace="slipway",job="books"}' in asked["query"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == read(CHART / "values.yaml")["autoscaling"]["behavior"]


def test_a_rollout_drops_nothing():
    """New pods first; then the old ones serve, drain and close before they are killed."""
    deployment = of("Deployment", case("minimal"))["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
    spec = pod(case("minimal"))
    assert spec["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 12}}
    assert spec["terminationGracePeriodSeconds"] == 12 + 20 + 10
    chassis = {name: field.default for name, field in ServiceSettings.model_fields.items()}
    rollout = read(CHART / "values.yaml")["rollout"]
    assert rollout["drainSeconds"] == chassis["drain_seconds"]
    # preStop is the time in which others turn away; the chassis need not wait again.
    assert chassis["shutdown_delay_seconds"] == 0
    quick = changed("minimal", rollout={"preStopSeconds": 0})
    assert "lifecycle" not in pod(quick)["containers"][0]
    assert pod(quick)["terminationGracePeriodSeconds"] == 30


def test_a_budget_lets_unwell_pods_go():
    spec = of("PodDisruptionBudget", case("minimal"))["spec"]
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["maxUnavailable"] == 1
    full = of("PodDisruptionBudget", case("full"))["spec"]
    assert full["minAvailable"] == "50%"
    assert "maxUnavailable" not in full


def test_a_changed_value_starts_new_pods():
    """The checksum follows the ConfigMap, and only it."""

    def checksum(values: dict[str, Any]) -> str:
        metadata = of("Deployment", values)["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/config"])

    first = checksum(case("minimal"))
    assert first != checksum(changed("minimal", env={"BOOKS_LOG_LEVEL": "debug"}))
    assert first == checksum(changed("minimal", autoscaling={"maxReplicas": 5}))


def test_images_are_pinned():
    """A digest wins, then the tag, then the chart's version; hooks and tests run the same."""
    full = case("full")
    digest = full["image"]["digest"]
    assert {p["spec"]["containers"][0]["image"] for _, p in kube.pods(manifests(full))} == {
        f"slipway/books@{digest}"
    }
    assert pod(case("minimal"))["containers"][0]["image"] == "slipway/books:1.4.2"
    version = read(CHART / "Chart.yaml")["appVersion"]
    bare = changed("minimal", image={"tag": ""})
    assert pod(bare)["containers"][0]["image"] == f"slipway/books:{version}"


@pytest.mark.parametrize(
    ("case_name", "step", "events"),
    [("full", "migrate", "pre-install,pre-upgrade"), ("full", "seed", "post-install"),
     ("job", "migrate", "pre-install,pre-upgrade")],
)  # fmt: skip
def test_hooks_need_nothing_of_the_release(case_name: str, step: str, events: str):
    """No ConfigMap and no account that is not there yet; bounded; kept when they fail."""
    job = of("Job", case(case_name), f"books-{step}")
    notes = job["metadata"]["annotations"]
    assert notes["helm.sh/hook"] == events
    assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    spec = job["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["containers"][0]["command"] == ["python", "-m", "chassis", step, "books"]
    assert "envFrom" not in spec["containers"][0]
    assert spec["serviceAccountName"] == ("migrator" if case_name == "full" else "default")
    assert job["spec"]["backoffLimit"] <= 3
    assert 0 < job["spec"]["activeDeadlineSeconds"] <= 900
    inline = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
    config = of("ConfigMap", case(case_name))["data"]
    assert config.items() <= inline.items()
    # Its way to the database is there before it starts.
    policy = of("NetworkPolicy", case(case_name), f"books-{step}")
    weight = int(policy["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert weight < int(notes["helm.sh/hook-weight"])
    assert policy["metadata"]["annotations"]["helm.sh/hook"] == events
    selector = policy["spec"]["podSelector"]["matchLabels"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert labels["slipway.dev/database"] == "true"


def test_without_a_database_there_is_nothing_to_migrate():
    assert [m["kind"] for m in manifests(case("minimal")) if m["kind"] == "Job"] == []
    off = changed("full", migrations={"enabled": False}, seed={"enabled": False})
    assert [m["kind"] for m in manifests(off) if m["kind"] == "Job"] == []
    environment = {e["name"] for e in pod(off)["containers"][0]["env"]}
    assert "BOOKS_DATABASE_URL" in environment


def test_secrets_are_referred_to_and_never_rendered():
    """By default <name> and <name>-database; other names where they are given."""
    for name, own, database, key in (
        ("production", "books", "books-database", "url"),
        ("full", "books-secrets", "books-db", "uri"),
    ):
        found = manifests(case(name))
        assert "Secret" not in {m["kind"] for m in found}
        sources = {
            e["name"]: e["valueFrom"].get("secretKeyRef")
            for e in pod(case(name))["containers"][0]["env"]
            if "valueFrom" in e
        }
        assert sources["BOOKS_DATABASE_URL"] == {"name": database, "key": key}
        assert sources["BOOKS_CLIENT_SECRET"] == {"name": own, "key": "BOOKS_CLIENT_SECRET"}


def test_no_token_unless_asked():
    spec = pod(case("minimal"))
    assert spec["automountServiceAccountToken"] is False
    assert of("ServiceAccount", case("minimal"))["automountServiceAccountToken"] is False
    asked = changed("full", serviceAccount={"automountToken": True})
    assert pod(asked)["automountServiceAccountToken"] is True
    # Not for what runs around it.
    jobs = [p for who, p in kube.pods(manifests(asked)) if "Deployment" not in who]
    assert [p["spec"]["automountServiceAccountToken"] for p in jobs] == [False] * 3
    shared = changed("minimal", serviceAccount={"create": False})
    assert "ServiceAccount" not in {m["kind"] for m in manifests(shared)}
    assert pod(shared)["serviceAccountName"] == "default"


def test_pods_are_spread_and_placed():
    """Over nodes and zones by default; what a team asks for reaches hooks and tests too."""
    spread = pod(case("minimal"))["topologySpreadConstraints"]
    assert {s["topologyKey"] for s in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    assert all(s["matchLabelKeys"] == ["pod-template-hash"] for s in spread)
    for who, found in kube.pods(manifests(case("full"))):
        spec = found["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}, who
        assert spec["tolerations"][0]["key"] == "spot", who
        assert "nodeAffinity" in spec["affinity"], who
        assert spec["priorityClassName"] == "important", who
        assert spec["imagePullSecrets"] == [{"name": "registry"}], who
        assert spec["enableServiceLinks"] is False, who


def test_volumes_are_mounted_where_they_are_declared():
    spec = pod(case("full"))
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert mounts.keys() == volumes.keys() == {"tmp", "cache", "authorities"}
    assert mounts["authorities"]["readOnly"] is True
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "128Mi"}


def test_a_job_runs_once_for_each_revision_or_by_the_clock():
    """And has nothing of what serves."""
    found = manifests(case("job"))
    job = kube.of_kind(found, "Job", "books-1")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == ["python", "-m", "books", "remind", "--overdue"]
    cron = of("CronJob", case("cronjob"))["spec"]
    assert (cron["schedule"], cron["timeZone"]) == ("15 3 * * *", "Europe/Vienna")
    for name in ("job", "cronjob"):
        kinds = {m["kind"] for m in manifests(case(name))}
        assert kinds <= {"ConfigMap", "ServiceAccount", "NetworkPolicy", "Job", "CronJob"}


def test_alerts_follow_from_the_slo():
    """Two promises, each burnt at four speeds; the bound is one that the histogram has."""
    groups = {g["name"]: g["rules"] for g in of("PrometheusRule", case("full"))["spec"]["groups"]}
    assert groups.keys() == {"books-availability", "books-latency", "books-budget"}
    for promise in ("books-availability", "books-latency"):
        recorded = {r["record"] for r in groups[promise] if "record" in r}
        alerts = [r for r in groups[promise] if "alert" in r]
        assert [a["labels"]["severity"] for a in alerts] == ["page", "page", "ticket", "ticket"]
        for alert in alerts:
            assert set(re.findall(r"slipway:\w+:\w+", alert["expr"])) <= recorded
            assert alert["labels"]["owner"] == "reading"
            assert alert["annotations"]["runbook_url"] == "https://example.org/runbooks/books"
    assert "> 14.4 * (100 - 99.9) / 100 and" in groups["books-availability"][9]["expr"]
    assert 'le="0.25"' in groups["books-latency"][1]["expr"]
    only = changed("full", slo={"availability": 99.95})
    del only["slo"]["latency"]
    errors, budget = of("PrometheusRule", only)["spec"]["groups"]
    assert "> 1 * (100 - 99.95) / 100 and" in errors["rules"][-1]["expr"]
    assert len(budget["rules"]) == 2


def test_the_chart_knows_the_bounds_of_the_histogram():
    """_slo.tpl and _validate.tpl list those of the chassis that are whole milliseconds."""
    whole = {str(round(b * 1000)): str(b) for b in BUCKETS if (b * 1000).is_integer()}
    helper = (CHART / "templates" / "_slo.tpl").read_text()
    assert dict(re.findall(r'"(\d+)": "([\d.]+)"', helper)) == whole
    sentence = (CHART / "templates" / "_validate.tpl").read_text()
    assert f"use one of {', '.join(whole)}" in sentence


def test_only_one_service_is_scraped():
    """Both Services lead to the same pods: each would be counted twice."""
    found = manifests(case("full"))
    selector = kube.of_kind(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    labels = {
        m["metadata"]["name"]: m["metadata"]["labels"] for m in found if m["kind"] == "Service"
    }
    assert [n for n, have in labels.items() if selector.items() <= have.items()] == ["books"]


def test_the_notes_say_what_to_do_next():
    notes = texts(case("minimal"))["NOTES.txt"]
    assert "helm test books -n slipway --logs" in notes
    assert "reading answers for it" in notes


def test_a_release_of_a_package_runs_its_code_on_the_siblings_database():
    """Nothing migrates or seeds twice; the process knows its own name and waits in its probe."""
    values = case("sibling")
    found = manifests(values)
    assert not [each for each in found if each["kind"] == "Job"]
    [container] = pod(values)["containers"]
    assert container["command"][-2:] == ["serve", "library"]
    [url] = container["env"]
    assert url["name"] == "LIBRARY_DATABASE_URL"
    assert url["valueFrom"]["secretKeyRef"]["name"] == "lending-database"
    assert container["startupProbe"]["httpGet"]["path"] == "/startupz"
    config = of("ConfigMap", values)["data"]
    assert config["LIBRARY_SERVICE_NAME"] == "books"
    assert config["LIBRARY_PORT"] == "8000"
    labels = of("Deployment", values)["spec"]["template"]["metadata"]["labels"]
    assert labels["slipway.dev/database"] == "true"
    assert "BOOKS_SERVICE_NAME" not in of("ConfigMap", case("minimal"))["data"]
