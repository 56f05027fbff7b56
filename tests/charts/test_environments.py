"""The environments' values: development fits a small cluster, production asks for what it lacks."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import yaml

from scripts import topology
from scripts.gateway import merge
from scripts.topology import ROOT
from tests.charts.kube import (
    Manifest,
    RefusedError,
    label_errors,
    of_kind,
    policy_errors,
    render,
    values_of,
)

TREE = topology.load()
ENVIRONMENTS = ROOT / "k8s" / "environments"
NAMES = sorted(folder.name for folder in ENVIRONMENTS.iterdir())

# What only the owner of an environment knows; the files say so, and nothing is rendered without.
DIGEST = "sha256:" + "c" * 64
OWN_SERVICE = {
    "issuer": "https://api.slipway.dev",
    "image": {"digest": DIGEST},
    "networkPolicy": {
        "database": {"cidrs": ["192.0.2.0/28"]},
        "valkey": {"cidrs": ["192.0.2.16/28"]},
    },
}
OWN_GATEWAY = {
    "jwt": {"issuer": "https://api.slipway.dev"},
    "cors": {"origins": ["https://app.slipway.dev"]},
    "httpRoute": {"hostnames": ["api.slipway.dev"]},
    "image": {"digest": DIGEST},
}
MODES = {"dev": "development", "staging": "staging", "production": "production"}


def files(environment: str, name: str) -> list[str]:
    """Return the environment's values files of a service, in order."""
    found = [f"k8s/environments/{environment}/services.yaml"]
    own = f"k8s/environments/{environment}/{name}.yaml"
    return [*found, own] if (ROOT / own).is_file() else found


@functools.cache
def service(name: str, environment: str) -> list[Manifest]:
    """Return the release of a service in an environment."""
    mine = {} if environment == "dev" else OWN_SERVICE
    merged = values_of(f"services/{name}/service.yaml", *files(environment, name))
    return render("service", merge(merged, mine), name=name)


def gateway(environment: str, **values: Any) -> list[Manifest]:
    """Return the release of the gateway in an environment."""
    mine = {} if environment == "dev" else OWN_GATEWAY
    file = f"k8s/environments/{environment}/gateway.yaml"
    own = merge(values_of("k8s/gateway-services.yaml", file), mine)
    return render("gateway", merge(own, values))


def test_the_environments_are_three_and_every_file_is_somebodys():
    """A file named after nobody would silently not be read."""
    assert set(NAMES) == set(MODES)
    known = {"services", "gateway", *TREE.services}
    for name in NAMES:
        found = {file.stem for file in (ENVIRONMENTS / name).iterdir()}
        own = {"datastores", "observability"} if name == "dev" else set()
        assert found - own <= known
        assert {"services", "gateway"} <= found
        for stem in ("services", "gateway"):
            values = values_of(f"k8s/environments/{name}/{stem}.yaml")
            assert values["environment"] == MODES[name]


@pytest.mark.parametrize("environment", NAMES)
@pytest.mark.parametrize("name", TREE.services)
def test_every_service_renders(name: str, environment: str):
    """With what the owner adds; restricted, and told where it is."""
    manifests = service(name, environment)
    assert policy_errors(manifests) == []
    assert label_errors(manifests, name) == []
    config = of_kind(manifests, "ConfigMap", name)["data"]
    assert config[f"{TREE[name].prefix}ENVIRONMENT"] == MODES[environment]
    assert config[f"{TREE[name].prefix}ISSUER"] == (
        "http://localhost:8080" if environment == "dev" else "https://api.slipway.dev"
    )
    scaling = of_kind(manifests, "HorizontalPodAutoscaler")["spec"]
    assert scaling["minReplicas"] >= (1 if environment == "dev" else 2)
    if environment == "dev":
        assert scaling["minReplicas"] == 1
        assert scaling["maxReplicas"] == (4 if name in {"orders", "items"} else 2)


@pytest.mark.parametrize("environment", NAMES)
def test_the_gateway_renders(environment: str):
    """With what the owner adds: an Ingress in development, an HTTPRoute elsewhere."""
    manifests = gateway(environment)
    assert policy_errors(manifests) == []
    assert label_errors(manifests, "gateway") == []
    kinds = {m["kind"] for m in manifests}
    assert ("Ingress" in kinds) == (environment == "dev")
    assert ("HTTPRoute" in kinds) == (environment != "dev")
    (container,) = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(DIGEST) == (environment != "dev")


@pytest.mark.parametrize("environment", NAMES)
def test_both_count_the_same_proxies(environment: str):
    """The gateway trusts what is in front of it; auth one more, the gateway itself."""
    hops = values_of(f"k8s/environments/{environment}/gateway.yaml")["trustedHops"]
    config = of_kind(service("auth", environment), "ConfigMap", "auth")["data"]
    assert config["AUTH_TRUSTED_PROXY_HOPS"] == str(hops + 1)
    rendered = of_kind(gateway(environment), "ConfigMap")["data"]["envoy.yaml"]
    assert f"xff_num_trusted_hops: {hops}\n" in rendered


@pytest.mark.parametrize("environment", NAMES)
def test_the_issuer_is_one(environment: str):
    """The gateway accepts the tokens that auth signs, and the services too."""
    config = of_kind(gateway(environment), "ConfigMap")["data"]["envoy.yaml"]
    (issuer,) = re.findall(r'issuer: "([^"]+)"', config)
    for name, one in TREE.services.items():
        data = of_kind(service(name, environment), "ConfigMap", name)["data"]
        assert data[f"{one.prefix}ISSUER"] == issuer


@pytest.mark.parametrize("environment", ["staging", "production"])
@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({"jwt": {"issuer": "http://localhost:8080"}}, "jwt.issuer: "),
        ({"cors": {"origins": ["http://localhost:*"]}}, "cors.origins[0]: "),
        ({"httpRoute": {"hostnames": []}}, "httpRoute.hostnames: "),
    ],
)
def test_the_gateway_asks_for_what_only_its_owner_knows(
    environment: str, missing: dict[str, Any], expected: str
):
    """Each with a sentence of its own; the defaults of a laptop do not slip through."""
    with pytest.raises(RefusedError) as caught:
        gateway(environment, **missing)
    assert expected in str(caught.value)


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_files_alone_are_refused(environment: str):
    """Nobody deploys staging or production without having said whose it is."""
    file = f"k8s/environments/{environment}/gateway.yaml"
    with pytest.raises(RefusedError, match=r"refused in|production runs images by digest"):
        render("gateway", values_of("k8s/gateway-services.yaml", file))
    with pytest.raises(RefusedError, match=r"issuer: http://localhost:8080 is nobody's public"):
        render("service", values_of("services/orders/service.yaml", *files(environment, "orders")))


def test_an_image_by_tag_is_not_for_production():
    """A tag can be moved."""
    with pytest.raises(RefusedError, match=r"image\.digest"):
        gateway("production", image={"digest": "", "tag": "v1.40.0"})


def _cpu(quantity: str | float) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _mebibytes(quantity: str) -> float:
    factors = {"Mi": 1.0, "Gi": 1024.0}
    return float(quantity[:-2]) * factors[quantity[-2:]]


def test_development_fits_a_small_cluster():
    """2 cores and 4 GiB, of which Kubernetes itself takes about half: all releases, once each."""
    datastores = render(
        "datastores",
        values_of("k8s/datastores-services.yaml", "k8s/environments/dev/datastores.yaml"),
    )
    assert policy_errors(datastores) == []
    observability = render("observability", values_of("k8s/environments/dev/observability.yaml"))
    everything = [*datastores, *observability, *gateway("dev")]
    for name in TREE.services:
        everything += service(name, "dev")
    cpu = memory = 0.0
    running = [m for m in everything if m["kind"] in {"Deployment", "StatefulSet"}]
    assert len(running) == len(TREE.services) + 8
    for manifest in running:
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            cpu += _cpu(container["resources"]["requests"]["cpu"])
            memory += _mebibytes(container["resources"]["requests"]["memory"])
    assert cpu <= 0.8
    assert memory <= 1792


def test_the_namespace_enforces_the_strictest_level():
    """What needs more is refused by the cluster, not by a test alone."""
    namespace = yaml.safe_load((ROOT / "k8s" / "namespace.yaml").read_text())
    assert namespace["metadata"]["name"] == "slipway"
    for mode in ("enforce", "audit", "warn"):
        label = f"pod-security.kubernetes.io/{mode}"
        assert namespace["metadata"]["labels"][label] == "restricted"


def test_kind_leads_the_tokens_issuer_to_the_ingress_controller():
    """The port of http://localhost:8080 is the controller's port 80 in the node."""
    cluster = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())
    (node,) = cluster["nodes"]
    ports = {p["containerPort"]: p for p in node["extraPortMappings"]}
    issuer = values_of("k8s/environments/dev/gateway.yaml")["jwt"]["issuer"]
    assert issuer == f"http://localhost:{ports[80]['hostPort']}"
    assert {p["listenAddress"] for p in ports.values()} == {"127.0.0.1"}
