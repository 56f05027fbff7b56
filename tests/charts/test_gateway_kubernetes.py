"""The gateway's release: what Kubernetes is given, and what the chart refuses to give it."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

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

ROUTE = {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]}
SERVICES = "k8s/gateway-services.yaml"


def rendered(**values: Any) -> list[Manifest]:
    """Return the release with the tree's services."""
    return render("gateway", values_of(SERVICES, **values))


WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a fixed number": {"autoscaling": {"mode": "none"}, "replicas": 3},
    "behind a Gateway": {"httpRoute": {**ROUTE, "hostnames": ["api.slipway.dev"]}},
    "behind an Ingress": {
        "ingress": {
            "enabled": True,
            "className": "contour",
            "host": "api.slipway.dev",
            "tls": {"secretName": "api-tls"},
            "annotations": {"a": "b"},
        }
    },
    "watched": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "tracing": {"tracing": {"endpoint": "http://jaeger:4318"}},
    "with as little as possible": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"enabled": False},
    },
}


@functools.cache
def one_way(way: str) -> list[Manifest]:
    """Return one of the releases above; not to be changed."""
    return rendered(**WAYS[way])


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str):
    """From the oldest version we support to the newest: no unknown field, no wrong type."""
    for way in WAYS:
        assert schema_errors(one_way(way), version) == [], way


def test_a_field_that_kubernetes_does_not_know_is_noticed():
    """The check above can fail."""
    manifests = rendered()
    of_kind(manifests, "Deployment")["spec"]["replica"] = 3
    (error,) = schema_errors(manifests, VERSIONS[-1])
    assert "'replica' was unexpected" in error


@pytest.mark.parametrize("way", WAYS)
def test_every_pod_is_restricted_and_labelled(way: str):
    """Pod Security `restricted`, a read-only root, no token, requests, and our labels."""
    manifests = one_way(way)
    assert {name for name, _ in pods(manifests)} == {"Deployment gateway", "Pod gateway-test"}
    assert policy_errors(manifests) == []
    assert label_errors(manifests, "gateway") == []


def test_a_pod_that_asks_for_more_is_noticed():
    """The policy check can fail."""
    manifests = rendered()
    (container,) = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    container["securityContext"] = {"privileged": True}
    container["image"] = "envoy:latest"
    container["resources"] = {}
    said = " ".join(policy_errors(manifests))
    for problem in ("privileges", "capabilities", "writable", "not pinned", "no requests"):
        assert problem in said


def test_the_autoscaler_alone_chooses_the_number():
    """Beside an HPA no number is rendered: the two would take turns."""
    manifests = rendered()
    assert "replicas" not in of_kind(manifests, "Deployment")["spec"]
    hpa = of_kind(manifests, "HorizontalPodAutoscaler")["spec"]
    assert hpa["scaleTargetRef"]["name"] == "gateway"
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 10)
    assert hpa["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300

    fixed = rendered(autoscaling={"mode": "none", "minReplicas": 4})
    assert of_kind(fixed, "Deployment")["spec"]["replicas"] == 4
    assert not [m for m in fixed if m["kind"] == "HorizontalPodAutoscaler"]
    fixed = rendered(autoscaling={"mode": "none"}, replicas=3)
    assert of_kind(fixed, "Deployment")["spec"]["replicas"] == 3


def test_no_rollout_and_no_eviction_takes_the_last_pod():
    """New pods first; one at a time for a node's drain, and broken ones never stand in the way."""
    manifests = rendered()
    deployment = of_kind(manifests, "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = of_kind(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"] == deployment["selector"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert {s["topologyKey"] for s in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_the_test_pod_is_no_gateway():
    """The Service must not send requests to it."""
    manifests = rendered()
    selector = of_kind(manifests, "Service")["spec"]["selector"]
    labels = of_kind(manifests, "Pod")["metadata"]["labels"]
    assert not selector.items() <= labels.items()


def test_the_grace_period_covers_all_of_the_drain():
    """Notice and connections, then the longest request, then Envoy's own end."""
    pod = of_kind(rendered(drainSeconds=30, timeouts={"routeSeconds": 7.5}), "Deployment")
    assert pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30 + 8 + 5
    pod = of_kind(rendered(terminationGracePeriodSeconds=90), "Deployment")
    assert pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90


def test_who_may_talk_to_whom():
    """In: all on the public port, Prometheus on the other. Out: DNS, each service, traces."""
    policy = of_kind(rendered(tracing={"endpoint": "http://jaeger:4318"}), "NetworkPolicy")["spec"]
    public, status = policy["ingress"]
    assert public == {"ports": [{"port": "http", "protocol": "TCP"}]}
    assert status["ports"][0]["port"] == "status"
    assert status["from"][0]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "prometheus"}
    }
    dns, *others = policy["egress"]
    assert {p["protocol"] for p in dns["ports"]} == {"UDP", "TCP"}
    reached = {
        rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]: rule["ports"][0]
        for rule in others
    }
    services = values_of(SERVICES)["services"]
    assert set(reached) == {*services, "jaeger"}
    assert reached["jaeger"]["port"] == 4318
    for name, service in services.items():
        assert reached[name]["port"] == service["port"]
    more = [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]
    policy = of_kind(rendered(networkPolicy={"extraEgress": more}), "NetworkPolicy")["spec"]
    assert policy["egress"][-1] == more[0]


def test_names_are_looked_up_where_the_cluster_has_them():
    dns = {"namespace": "openshift-dns", "cidrs": ["169.254.20.10/32"]}
    policy = of_kind(rendered(networkPolicy={"dns": dns}), "NetworkPolicy")["spec"]
    pods, address = policy["egress"][0]["to"]
    assert set(pods["namespaceSelector"]["matchLabels"].values()) == {"openshift-dns"}
    assert address["ipBlock"]["cidr"] == "169.254.20.10/32"


def test_the_entry_leads_to_the_service():
    """HTTPRoute and Ingress name the Service's port; neither is there unasked."""
    kinds = {m["kind"] for m in rendered()}
    assert not kinds & {"HTTPRoute", "Ingress"}
    manifests = rendered(**WAYS["behind a Gateway"])
    route = of_kind(manifests, "HTTPRoute")["spec"]
    port = of_kind(manifests, "Service")["spec"]["ports"][0]
    assert route["rules"][0]["backendRefs"] == [{"name": "gateway", "port": port["port"]}]
    assert route["hostnames"] == ["api.slipway.dev"]
    assert "timeouts" not in route["rules"][0]
    open_ended = rendered(httpRoute={**ROUTE, "requestTimeout": "0s"})
    assert of_kind(open_ended, "HTTPRoute")["spec"]["rules"][0]["timeouts"] == {"request": "0s"}
    ingress = of_kind(rendered(**WAYS["behind an Ingress"]), "Ingress")["spec"]
    (rule,) = ingress["rules"]
    assert rule["host"] == "api.slipway.dev"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "gateway", "port": {"name": port["name"]}}
    assert ingress["tls"] == [{"hosts": ["api.slipway.dev"], "secretName": "api-tls"}]


def test_prometheus_reads_the_status_listener():
    """The PodMonitor's port is one of the pod's."""
    manifests = rendered(**WAYS["watched"])
    (endpoint,) = of_kind(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    (container,) = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert endpoint["port"] in {p["name"] for p in container["ports"]}
    assert endpoint["path"] == "/stats/prometheus"
    # Rules and dashboards know it as the job gateway, which is this label of the pods.
    name = of_kind(manifests, "PodMonitor")["spec"]["jobLabel"]
    labels = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels[name] == "gateway"
    assert container["name"] == "gateway"


PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "image": {"digest": "sha256:" + "a" * 64},
    "jwt": {"issuer": "https://api.slipway.dev"},
    "cors": {"origins": ["https://app.slipway.dev"]},
    "httpRoute": {**ROUTE, "hostnames": ["api.slipway.dev"]},
}
STAGING = {**PRODUCTION, "environment": "staging"}


def _hosts(*names: str) -> dict[str, Any]:
    return {**ROUTE, "hostnames": list(names)}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "replicas beside the autoscaler": ({"replicas": 2}, "replicas: the autoscaler chooses"),
    "an autoscaler without requests": (
        {"resources": {"requests": {"cpu": None}}}, "resources.requests.cpu: the autoscaler aims"),
    "fewer at most than at least": (
        {"autoscaling": {"minReplicas": 11}}, "autoscaling.minReplicas: 11 is more than"),
    "a notice longer than the drain": ({"noticeSeconds": 21}, "noticeSeconds: is part of"),
    "a grace period that cuts requests": (
        {"terminationGracePeriodSeconds": 39}, "make it 40 or more, or 0"),
    "two entries": (
        {"httpRoute": ROUTE, "ingress": {"enabled": True}}, "there is an ingress too"),
    "a route without a Gateway": ({"httpRoute": {"enabled": True}}, "name the Gateway"),
    "a certificate for no name": (
        {"ingress": {"enabled": True, "tls": {"secretName": "a"}}}, "ingress.host: a certificate"),
    "metrics that are off": (
        {"podMonitor": {"enabled": True}, "status": {"enabled": False}}, "set status.enabled"),
    "an unknown environment": ({"environment": "prod"}, "'/environment'"),
    "a typo": ({"ingress": {"hosts": []}}, "'/ingress': additional properties 'hosts'"),
    "every pod disrupted at once": (
        {"podDisruptionBudget": {"maxUnavailable": 0}}, "'/podDisruptionBudget/maxUnavailable'"),
    "a host that is none": ({"httpRoute": _hosts("https://a.b")}, "'/httpRoute/hostnames/0'"),
    "a local issuer": (
        {**STAGING, "jwt": {"issuer": "https://localhost:8080"}}, "jwt.issuer: "),
    "an issuer without TLS": (
        {**STAGING, "jwt": {"issuer": "http://api.slipway.dev"}}, "is not encrypted"),
    "the laptop's CORS": (
        {**STAGING, "cors": {"origins": ["http://localhost:*"]}}, "cors.origins[0]: "),
    "a placeholder's CORS": (
        {**PRODUCTION, "cors": {"origins": ["https://a.slipway.dev", "https://app.example.com"]}},
        'cors.origins[1]: "https://app.example.com" is a placeholder, refused in production'),
    "a placeholder's host": (
        {**PRODUCTION, "httpRoute": _hosts("api.slipway.test")}, "httpRoute.hostnames[0]: "),
    "every host": ({**STAGING, "httpRoute": ROUTE}, "httpRoute.hostnames: staging needs"),
    "an Ingress without TLS": (
        {**STAGING, "httpRoute": {"enabled": False}, "ingress": {"enabled": True, "host": "a.io"}},
        "ingress.tls.secretName: staging needs TLS"),
    "an image by tag": ({**PRODUCTION, "image": {"tag": "v1"}}, "image.digest: production runs"),
    "one pod": (
        {**PRODUCTION, "autoscaling": {"minReplicas": 1}}, "one pod is no production"),
    "one fixed pod": (
        {**PRODUCTION, "autoscaling": {"mode": "none"}, "replicas": 1}, "one pod is no"),
    "no entry": ({**PRODUCTION, "httpRoute": {"enabled": False}}, "nothing leads to this gateway"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_wrong_release_is_refused_with_a_sentence(mistake: str):
    """Nothing is rendered; the line names the field and the change."""
    values, expected = REFUSED[mistake]
    with pytest.raises(RefusedError) as caught:
        rendered(**values)
    assert expected in str(caught.value)


@pytest.mark.parametrize("values", [STAGING, PRODUCTION], ids=["staging", "production"])
def test_a_whole_release_is_accepted(values: dict[str, Any]):
    """The values that each refusal above breaks in one place are good ones."""
    image = of_kind(rendered(**values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert re.fullmatch(r"envoyproxy/envoy@sha256:a{64}", image["image"])


def test_no_entry_is_needed_behind_a_load_balancer():
    """The Service itself may be the way in."""
    values = {**PRODUCTION, "httpRoute": {"enabled": False}, "service": {"type": "LoadBalancer"}}
    assert of_kind(rendered(**values), "Service")["spec"]["type"] == "LoadBalancer"
