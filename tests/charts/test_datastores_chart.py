"""The datastores' chart and its generated values: what a development cluster gets, and when not."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import helm_python
import jsonschema
import pytest
import yaml

from auth.sealing import parse_keys
from scripts import datastores, generated, topology
from scripts.datastores import CHART, GENERATED
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
    values_of,
)

SERVICES = str(GENERATED)
TREE = topology.load()
EXPORTING: dict[str, Any] = {"exporter": {"enabled": True}}
DATABASES = {service.name for service in TREE if service.migrates}


def rendered(**values: Any) -> list[Manifest]:
    """Return the release with what the tree's services need."""
    return render("datastores", values_of(SERVICES, **values))


def secrets(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """Return the content of each Secret by its name."""
    return {
        m["metadata"]["name"]: {k: base64.b64decode(v).decode() for k, v in m["data"].items()}
        for m in manifests
        if m["kind"] == "Secret"
    }


def test_the_chart_lints():
    """Helm finds nothing to say, warnings included."""
    report = helm_python.lint(ROOT / CHART, values_of(SERVICES), strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str):
    """From the oldest version we support to the newest: no unknown field, no wrong type."""
    full = {"storage": {"className": "fast", "keep": False}, "settings": {"shared_buffers": "1GB"}}
    assert schema_errors(rendered(), version) == []
    assert schema_errors(rendered(postgresql={**full, **EXPORTING}), version) == []


def test_every_pod_is_restricted_and_labelled():
    """Pod Security `restricted`, a read-only root, no token, requests, and our labels."""
    manifests = rendered()
    assert {name for name, _ in pods(manifests)} == {
        "StatefulSet postgresql",
        "Deployment valkey",
        "Job postgresql-databases",
        "Pod datastores-test",
    }
    assert policy_errors(manifests) == []
    assert label_errors(manifests, "datastores") == []


def test_probes_are_distinct_and_liveness_asks_for_no_more_than_a_port():
    """A busy server is not killed, and recovery after a crash has ten minutes."""
    for kind in ("StatefulSet", "Deployment"):
        (container,) = of_kind(rendered(), kind)["spec"]["template"]["spec"]["containers"]
        assert "tcpSocket" in container["livenessProbe"]
        assert "exec" in container["readinessProbe"]
    (container,) = of_kind(rendered(), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_the_data_lies_on_the_volume():
    """PGDATA of the image since 18: a directory of the major version below the mount."""
    spec = of_kind(rendered(), "StatefulSet")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    (claim,) = spec["volumeClaimTemplates"]
    assert mounts["/var/lib/postgresql"] == claim["metadata"]["name"]
    environment = {e["name"]: e.get("value") for e in container["env"]}
    major = container["image"].rpartition(":")[2].partition(".")[0]
    assert environment["PGDATA"] == f"/var/lib/postgresql/{major}/docker"
    assert mounts.keys() >= {"/tmp", "/var/run/postgresql"}
    assert pod["securityContext"]["runAsUser"] == 999


def test_services_find_the_stores_by_name():
    """Services lead to the pods and their ports; the StatefulSet has its headless one."""
    manifests = rendered()
    for name, kind, port in (
        ("postgresql", "StatefulSet", 5432),
        ("postgresql-headless", "StatefulSet", 5432),
        ("valkey", "Deployment", 6379),
    ):
        service = of_kind(manifests, "Service", name)["spec"]
        template = of_kind(manifests, kind)["spec"]["template"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        assert service["ports"][0]["port"] == port
        ports = {p["name"] for p in template["spec"]["containers"][0]["ports"]}
        assert service["ports"][0]["targetPort"] in ports
    assert of_kind(manifests, "Service", "postgresql-headless")["spec"]["clusterIP"] == "None"
    assert of_kind(manifests, "StatefulSet")["spec"]["serviceName"] == "postgresql-headless"


def test_only_pods_with_a_database_come_in():
    """By label, and the stores themselves call nobody; the Job and the test carry the label."""
    manifests = rendered()
    for store, label in (("postgresql", "database"), ("valkey", "valkey")):
        policy = of_kind(manifests, "NetworkPolicy", store)["spec"]
        (rule,) = policy["ingress"]
        assert rule["from"] == [{"podSelector": {"matchLabels": {f"slipway.dev/{label}": "true"}}}]
        assert policy["egress"] == []
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    carriers = {n for n, p in pods(manifests) if "slipway.dev/database" in p["metadata"]["labels"]}
    assert carriers == {"Job postgresql-databases", "Pod datastores-test"}


def test_postgresqls_metrics_come_from_a_pod_of_their_own():
    """Off unless wanted; restricted, with a password of its own in PostgreSQL's Secret."""
    assert "postgresql-exporter" not in {m["metadata"]["name"] for m in rendered()}
    assert secrets(rendered())["postgresql"].keys() == {"username", "password"}
    off = rendered(postgresql={**EXPORTING, "enabled": False})
    assert "postgresql-exporter" not in {m["metadata"]["name"] for m in off}
    manifests = rendered(postgresql=EXPORTING)
    assert policy_errors(manifests) == []
    assert label_errors(manifests, "datastores") == []
    pod = of_kind(manifests, "Deployment", "postgresql-exporter")["spec"]["template"]
    assert pod["metadata"]["labels"]["slipway.dev/database"] == "true"
    (container,) = pod["spec"]["containers"]
    assert [port["name"] for port in container["ports"]] == ["metrics"]
    variables = {each["name"]: each for each in container["env"]}
    assert variables["DATA_SOURCE_USER"]["value"] == "metrics_reader"
    reference = variables["DATA_SOURCE_PASS"]["valueFrom"]["secretKeyRef"]
    held = secrets(manifests)["postgresql"]
    assert held[reference["key"]] != held["password"]
    setup = of_kind(manifests, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert reference in [e["valueFrom"]["secretKeyRef"] for e in setup["env"] if "valueFrom" in e]
    policy = of_kind(manifests, "NetworkPolicy", "postgresql-exporter")["spec"]
    (rule,) = policy["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


def test_each_database_has_a_password_of_its_own():
    """Letters and digits, so that it stands in the URL as it is."""
    found = secrets(rendered())
    passwords = []
    for name in DATABASES:
        secret = found[f"{name}-database"]
        url = urlsplit(secret["url"])
        assert (url.scheme, url.hostname, url.path) == ("postgresql", "postgresql", f"/{name}")
        assert (url.username, url.password) == (secret["username"], secret["password"])
        assert secret["username"] == name
        passwords.append(secret["password"])
    passwords += [found["postgresql"]["password"], found["valkey"]["password"]]
    assert len(set(passwords)) == len(DATABASES) + 2
    assert all(re.fullmatch(r"[A-Za-z0-9]{40}", password) for password in passwords)
    assert found["valkey"]["auth.conf"] == f"requirepass {found['valkey']['password']}\n"


def test_auth_knows_the_secret_that_each_client_shows():
    """AUTH_CLIENTS repeats what the clients' Secrets hold, with the scopes of service.yaml."""
    found = secrets(rendered())
    clients = json.loads(found["auth"]["AUTH_CLIENTS"])
    expected = {service.name: service for service in TREE if service.client_scopes}
    assert set(clients) == set(expected)
    for name, service in expected.items():
        assert clients[name]["scopes"] == list(service.client_scopes)
        assert clients[name]["secret"] == found[name][f"{service.prefix}CLIENT_SECRET"]
    assert len(parse_keys(found["auth"]["AUTH_KEY_ENCRYPTION_KEY"])) == 1


def test_every_secret_of_the_tree_is_made():
    """What service.yaml lists is a key of the service's Secret; nothing else is."""
    found = secrets(rendered())
    for service in TREE:
        assert set(found.get(service.name, {})) == set(service.secrets)


def test_secrets_outlive_the_release_with_the_data():
    """The volume stays at an uninstall, so its passwords must; or neither does."""
    for keep, claim, policy in ((True, "Retain", "keep"), (False, "Delete", None)):
        manifests = rendered(postgresql={"storage": {"keep": keep}})
        retention = of_kind(manifests, "StatefulSet")["spec"][
            "persistentVolumeClaimRetentionPolicy"
        ]
        assert retention["whenDeleted"] == claim
        for manifest in manifests:
            if manifest["kind"] == "Secret":
                annotations = manifest["metadata"].get("annotations", {})
                assert annotations.get("helm.sh/resource-policy") == policy


def test_stores_can_be_left_out():
    """Neither pods nor Secrets of a store that is off."""
    manifests = rendered(postgresql={"enabled": False})
    assert {n for n, _ in pods(manifests)} == {"Deployment valkey"}
    with_secrets = {service.name for service in TREE if service.secrets}
    of_valkey = {"valkey", *(f"{service.name}-valkey" for service in TREE if service.valkey)}
    assert set(secrets(manifests)) == {"auth"} | of_valkey | with_secrets
    manifests = rendered(valkey={"enabled": False})
    assert "valkey" not in secrets(manifests)
    assert not [m for m in manifests if m["metadata"]["name"] == "valkey"]


def test_a_digest_wins_over_the_tag():
    """Images are pinned by one or the other."""
    digest = "sha256:" + "b" * 64
    manifests = rendered(postgresql={"image": {"digest": digest}})
    (container,) = of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"postgres@{digest}"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "production": ({"environment": "production"}, "environment: these stores have one copy"),
    "staging": ({"environment": "staging"}, "refused in staging; point the services at managed"),
    "a service called as a store": (
        {"services": {"valkey": {"database": True}}}, "services.valkey: the store itself"),
    "a client without a secret": (
        {"services": {"info": {"client": {"secret": "INFO_X", "scopes": ["a:b"]}}}},
        "services.info.client.secret: INFO_X is no password"),
    "an unknown kind of secret": (
        {"services": {"auth": {"secrets": {"AUTH_X": "token"}}}}, "'/services/auth/secrets/"),
    "a name that SQL would notice": (
        {"services": {"a'b": {"database": True}}}, "does not match pattern"),
    "a typo": ({"postgres": {}}, "'postgres' not allowed"),
    "a typo below": ({"postgresql": {"storage": {"sise": "1Gi"}}}, "'/postgresql/storage'"),
    "an image that moves": ({"valkey": {"image": {"tag": "latest"}}}, "'/valkey/image/tag'"),
    "root": ({"postgresql": {"user": 0}}, "'/postgresql/user'"),
    "data outside the volume": (
        {"postgresql": {"dataDirectory": "/data"}}, "'/postgresql/dataDirectory'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_wrong_value_is_refused_with_a_sentence(mistake: str):
    """Nothing is rendered; the line names the field."""
    values, expected = REFUSED[mistake]
    with pytest.raises(RefusedError) as caught:
        rendered(**values)
    assert expected in str(caught.value)


def test_without_services_the_chart_says_what_to_pass():
    """The commonest mistake with helm: the derived values were not given."""
    with pytest.raises(RefusedError, match=r"-f k8s/datastores-services\.yaml"):
        render("datastores", {})


def test_every_value_has_a_default_and_every_default_a_schema():
    """values.yaml and values.schema.json list the same fields."""
    schema = json.loads((ROOT / CHART / "values.schema.json").read_text())
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

    compare(yaml.safe_load((ROOT / CHART / "values.yaml").read_text()), schema, "")


def test_the_generated_values_agree_with_the_tree():
    """k8s/datastores-services.yaml is what service.yaml says today; else: --write."""
    assert (ROOT / GENERATED).read_text() == datastores.generated(TREE)
    assert {n for n, v in values_of(SERVICES)["services"].items() if v.get("database")} == DATABASES


def test_the_tool_writes_checks_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """0 when current, 1 when stale, 2 for a tree that is wrong."""
    (tmp_path / "k8s").mkdir()
    monkeypatch.setattr(generated, "load", lambda: topology.Topology(tmp_path, TREE.services))
    assert datastores.main(["--check"]) == 1
    assert "run --write" in capsys.readouterr().err
    assert datastores.main(["--write"]) == 0
    assert datastores.main(["--check"]) == 0
    assert (tmp_path / GENERATED).read_text() == datastores.generated(TREE)
    capsys.readouterr()
    assert datastores.main([]) == 0
    assert capsys.readouterr().out == datastores.generated(TREE)


def test_a_client_without_a_secret_is_a_mistake_of_the_tree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A service with scopes and no <NAME>_CLIENT_SECRET would never get a token."""
    orders = topology.Service(
        name="orders",
        description="",
        image="",
        port=8000,
        slo=TREE["orders"].slo,
        client_scopes=("a:b",),
    )
    monkeypatch.setattr(generated, "load", lambda: topology.Topology(ROOT, {"orders": orders}))
    assert datastores.main(["--check"]) == 2
    assert "secrets.ORDERS_CLIENT_SECRET: is missing" in capsys.readouterr().err
