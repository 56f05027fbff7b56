"""What is reachable through the gateway, and that nothing else is."""

from __future__ import annotations

import pytest

from scripts import topology
from tests.gateway.harness import Gateway, Upstreams


@pytest.mark.parametrize(
    ("path", "service", "arrives_as"),
    [
        ("/v1/items", "items", "/v1/items"),
        ("/v2/items/42?a=b", "items", "/v2/items/42"),
        ("/items/42", "items", "/items/42"),
        ("/v12/items", "items", "/v12/items"),
        ("/info/", "info", "/info/"),
        ("/info", "info", "/info"),
        ("/v1/stock/7", "inventory", "/v1/stock/7"),
        ("/.well-known/openid-configuration", "auth", "/.well-known/openid-configuration"),
        ("//v1///items", "items", "/v1/items"),
        ("/v1/x/../items", "items", "/v1/items"),
    ],
)
def test_a_declared_path_reaches_its_service(
    gateway: Gateway, upstreams: Upstreams, path: str, service: str, arrives_as: str
):
    """Routes lead to the service that declares them; paths arrive normalised."""
    answer = gateway.get(path)
    assert answer.status == 200, answer
    assert (answer.json()["service"], answer.json()["path"]) == (service, arrives_as)
    assert len(upstreams.seen) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/", "/metrics", "/livez", "/readyz", "/startupz", "/events", "/internal/exchange",
        "/docs", "/redoc", "/openapi.json", "/itemsfoo", "/v1/itemsfoo", "/v1/metrics", "/v1",
        "/v0/items", "/v/items", "/v1/v1/items", "/vx/items", "/v1/check/more", "/v1/reservations",
        "/infox", "/.well-knownx", "/stats", "/ready", "/v1/items/../../metrics",
        "/v1/items/../../internal/exchange", "/items/%2e%2e/metrics", "/items/.%2e/livez",
        "/v1/./../events", "/items/..//metrics", "/metrics/../metrics", "/ITEMS", "/items\\..",
    ],
)  # fmt: skip
def test_nothing_else_is_reachable(
    gateway: Gateway, upstreams: Upstreams, bearer: dict[str, str], path: str
):
    """Probes, metrics, internal and undeclared paths are 404 problems and reach no service."""
    answer = gateway.get(path, bearer)
    assert answer.status == 404, answer
    assert answer.problem()["title"] == "Not Found"
    assert answer.problem()["detail"].startswith("No service has this path")
    assert upstreams.seen == []


@pytest.mark.parametrize(
    "path",
    ["/items%2f..%2fmetrics", "/v1/items/%2F", "/v1/items%5c..%5cmetrics", "/v1/items/%00"],
)
def test_escaped_slashes_are_refused(gateway: Gateway, upstreams: Upstreams, path: str):
    """A path that could be read in two ways is 400 and reaches no service."""
    answer = gateway.get(path)
    assert answer.status == 400, answer
    assert answer.problem()["title"] == "Bad Request"
    assert upstreams.seen == []


# Without a version it is where events are delivered inside: not for the outside, whoever asks.
EVENT_SINK = {"/events"}


def test_every_declared_route_is_served(gateway: Gateway, bearer: dict[str, str]):
    """Each route of each service.yaml leads to its own service, versioned or not."""
    for service in topology.load():
        for route in service.routes:
            method = route.methods[0] if route.methods else "GET"
            paths = [route.path, *([f"/v1{route.path}"] if route.versioned else [])]
            for path in set(paths) - EVENT_SINK:
                answer = gateway.request(method, path, bearer)
                assert answer.status == 200, (path, answer)
                assert answer.json()["service"] == service.name
                assert answer.json()["method"] == method


def test_other_methods_are_405_and_say_which_are_allowed(gateway: Gateway, upstreams: Upstreams):
    """A route with methods refuses the others before any service sees them."""
    answer = gateway.request("DELETE", "/.well-known/jwks.json")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.problem()["title"] == "Method Not Allowed"
    assert gateway.request("TRACE", "/v1/items").status == 405
    assert upstreams.seen == []


def test_services_share_a_path_by_method(
    gateway: Gateway, upstreams: Upstreams, bearer: dict[str, str]
):
    """The read side and the write side of trainers; what neither takes is 405 and names all."""
    led = {
        method: gateway.request(method, "/v1/trainers/x", bearer).json()["service"]
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    }
    assert led.pop("GET") == "trainers-queries"
    assert set(led.values()) == {"trainers-commands"}
    seen = len(upstreams.seen)
    refused = gateway.request("TRACE", "/v1/trainers/x", bearer)
    assert refused.status == 405
    assert sorted(refused.headers["allow"].split(", ")) == [
        "DELETE", "GET", "HEAD", "PATCH", "POST", "PUT",
    ]  # fmt: skip
    assert len(upstreams.seen) == seen


def test_the_longest_route_wins(gateway: Gateway, upstreams: Upstreams):
    """/users/me needs a token although /users does not."""
    assert gateway.get("/v1/users").status == 200
    assert gateway.get("/v1/users/me").status == 401
    assert [seen.path for seen in upstreams.seen] == ["/v1/users"]


def test_the_version_header_is_for_the_service(gateway: Gateway):
    """Without a version in the path, X-API-Version goes on to the service."""
    answer = gateway.get("/items", {"X-API-Version": "v2"})
    assert answer.json()["headers"]["x-api-version"] == "v2"


def test_status_shows_readiness_and_metrics_and_nothing_else(gateway: Gateway):
    """The door for probes and Prometheus opens two paths of the admin interface, for GET only."""
    assert gateway.get("/ready", port=gateway.status).status == 200
    metrics = gateway.get("/stats/prometheus", port=gateway.status)
    assert b"envoy_http_downstream_rq_total" in metrics.body
    for path in (
        "/",
        "/config_dump",
        "/quitquitquit",
        "/clusters",
        "/stats",
        "/ready/../quitquitquit",
    ):
        assert gateway.get(path, port=gateway.status).status == 404, path
    assert gateway.request("POST", "/ready", port=gateway.status).status == 404
